/** The list of chats, the form above it, and the state of the connection. */
import { attempt, avatar, byId, displayName, el } from './dom.js';
import { describeError, formatListTime, t } from './i18n.js';

/** @typedef {import('./session.js').Session} Session */

export class ChatListView {
  #session;
  #onOpen;
  /** @type {Map<string, {element: HTMLElement, signature: string}>} */
  #entries = new Map();
  #countdown = null;

  /**
   * @param {Session} session
   * @param {{name: string, onOpen: (chatId: string) => void}} options
   */
  constructor(session, { name, onOpen }) {
    this.#session = session;
    this.#onOpen = onOpen;
    byId('me-name').textContent = name;
    byId('me-name').title = t('signedInAs', { name });
    byId('open-form').addEventListener('submit', (event) => this.#onSubmit(event));
    byId('more-chats').addEventListener('click', () => attempt(() => session.loadMoreChats()));
    byId('link-retry').addEventListener('click', () => session.restart());
    byId('chat-list').addEventListener('keydown', (event) => this.#onKey(event));
    session.on('chats', () => this.render());
    session.on('typing', () => this.render());
    session.on('open', () => this.render());
    session.on('state', () => this.renderState());
    for (const type of ['online', 'offline']) window.addEventListener(type, () => this.renderState());
    this.renderState();
  }

  render() {
    const { next, totalUnread } = this.#session.chats;
    const list = byId('chat-list');
    const chats = this.#session.chats.list();
    const present = new Set(chats.map((chat) => chat.chat_id));
    for (const [chatId, { element }] of this.#entries) {
      if (present.has(chatId)) continue;
      element.remove();
      this.#entries.delete(chatId);
    }
    chats.forEach((chat, index) => {
      const { element } = this.#entry(chat);
      if (list.children[index] !== element) this.#keepFocus(() => list.insertBefore(element, list.children[index] ?? null));
    });
    byId('no-chats').hidden = chats.length > 0;
    byId('more-chats').hidden = !next;
    document.title = totalUnread > 0 ? `(${totalUnread}) Beseda` : 'Beseda';
  }

  /** Moving an element takes the focus from it. */
  #keepFocus(move) {
    const focused = document.activeElement;
    move();
    if (focused !== document.activeElement) focused?.focus({ preventScroll: true });
  }

  #entry(chat) {
    let entry = this.#entries.get(chat.chat_id);
    if (!entry) {
      const button = el('button', { className: 'chat-entry', onclick: () => this.#onOpen(chat.chat_id) });
      entry = { element: el('li', {}, button), signature: '' };
      this.#entries.set(chat.chat_id, entry);
    }
    const facts = this.#facts(chat);
    const signature = JSON.stringify(facts);
    if (signature !== entry.signature) {
      entry.signature = signature;
      this.#fill(entry.element.firstElementChild, facts, chat.other_user);
    }
    return entry;
  }

  #facts({ chat_id: chatId, other_user: other, last_message: last, created_at: createdAt, unread_count: unread }) {
    const typing = this.#session.typing.has(chatId);
    let line = '';
    if (typing) line = t('typing');
    else if (last?.deleted_at) line = t('deleted');
    else if (last) line = last.sender_id === this.#session.me ? `${t('you')}: ${last.text}` : last.text;
    return {
      name: displayName(other),
      picture: other.avatar_url,
      online: other.online,
      current: chatId === this.#session.openId,
      time: formatListTime(last?.created_at ?? createdAt),
      line: line.slice(0, 200),
      dim: typing || Boolean(last?.deleted_at),
      unread,
    };
  }

  #fill(button, facts, user) {
    const badge = facts.unread > 0
      ? [el('span', { className: 'badge' },
        el('span', { 'aria-hidden': 'true' }, facts.unread > 999 ? '999+' : String(facts.unread)),
        el('span', { className: 'sr' }, t('unread', { count: facts.unread })))]
      : [];
    button.classList.toggle('unread', facts.unread > 0);
    if (facts.current) button.setAttribute('aria-current', 'true');
    else button.removeAttribute('aria-current');
    button.replaceChildren(
      el('span', { className: `face${facts.online ? ' online' : ''}` }, avatar(user)),
      el('span', { className: 'chat-lines' },
        el('span', { className: 'chat-line' },
          el('bdi', { className: 'chat-name clip' }, facts.name),
          ...(facts.online ? [el('span', { className: 'sr' }, `, ${t('online')}, `)] : []),
          el('span', { className: 'muted time' }, facts.time)),
        el('span', { className: 'chat-line' },
          el('span', { className: `clip last muted${facts.dim ? ' dim' : ''}` }, facts.line),
          ...badge)),
    );
  }

  /** Up and down walk through the chats. */
  #onKey(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const buttons = [...byId('chat-list').querySelectorAll('button')];
    const next = buttons[buttons.indexOf(document.activeElement) + step];
    if (!next) return;
    event.preventDefault();
    next.focus();
  }

  async #onSubmit(event) {
    event.preventDefault();
    const input = byId('open-input');
    const error = byId('open-error');
    error.textContent = '';
    try {
      const chatId = await this.#session.openWith(input.value);
      input.value = '';
      this.#onOpen(chatId);
    } catch (failure) {
      error.textContent = describeError(failure);
      input.focus();
    }
  }

  renderState() {
    clearInterval(this.#countdown);
    const { phase, retryAt, code } = this.#session.state;
    const shown = navigator.onLine === false && phase !== 'live' ? 'offline' : phase;
    const show = () => {
      const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
      byId('link-text').textContent = t(`state_${shown}`, { seconds, code });
    };
    show();
    if (shown === 'waiting') this.#countdown = setInterval(show, 1000);
    byId('link-dot').dataset.phase = shown;
    byId('link-retry').hidden = shown !== 'waiting' && shown !== 'stopped';
    // A countdown is not read out second by second.
    byId('link-text').setAttribute('aria-live', shown === 'waiting' ? 'off' : 'polite');
  }
}
