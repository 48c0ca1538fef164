/** The list of chats, the form above it, and the state of the connection. */
import { attempt, byId, chatAvatar, chatName, displayName, el, icon } from './dom.js';
import { happened } from './happened.js';
import { describeError, formatList, formatListTime, t } from './i18n.js';
import { NewGroupView } from './view-group.js';

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
    new NewGroupView(session, { onMade: onOpen });
    byId('archive').addEventListener('click', () => this.#toggleArchive());
    for (const list of ['chat-list', 'archive-list']) byId(list).addEventListener('keydown', (event) => this.#onKey(event));
    session.on('chats', () => this.render());
    session.on('typing', () => this.render());
    session.on('people', () => this.render());
    session.on('open', () => this.render());
    session.on('state', () => this.renderState());
    for (const type of ['online', 'offline']) window.addEventListener(type, () => this.renderState());
    this.renderState();
  }

  render() {
    const { next, badge } = this.#session.chats;
    const chats = this.#session.chats.list();
    const archived = byId('archive-list').hidden ? [] : this.#session.chats.archived();
    const present = new Set([...chats, ...archived].map((chat) => chat.chat_id));
    for (const [chatId, { element }] of this.#entries) {
      if (present.has(chatId)) continue;
      element.remove();
      this.#entries.delete(chatId);
    }
    this.#arrange(byId('chat-list'), chats);
    this.#arrange(byId('archive-list'), archived);
    byId('no-chats').hidden = chats.length > 0;
    byId('more-chats').hidden = !next;
    document.title = badge > 0 ? `(${badge}) Beseda` : 'Beseda';
  }

  #arrange(list, chats) {
    chats.forEach((chat, index) => {
      const { element } = this.#entry(chat);
      if (list.children[index] !== element) this.#keepFocus(() => list.insertBefore(element, list.children[index] ?? null));
    });
  }

  async #toggleArchive() {
    const list = byId('archive-list');
    list.hidden = !list.hidden;
    byId('archive').setAttribute('aria-expanded', String(!list.hidden));
    this.render();
    if (!list.hidden) await attempt(() => this.#session.loadArchived());
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
      this.#fill(entry.element.firstElementChild, facts, chat);
    }
    return entry;
  }

  #facts(chat) {
    const { chat_id: chatId, other_user: other, last_message: last, created_at: createdAt } = chat;
    const typing = this.#typing(chat);
    return {
      name: chatName(chat),
      picture: other ? other.avatar_url : chat.avatar_url,
      online: Boolean(other?.online),
      current: chatId === this.#session.openId,
      time: formatListTime(last?.created_at ?? createdAt),
      line: (typing || this.#lastLine(chat)).slice(0, 200),
      dim: Boolean(typing || last?.deleted_at || last?.system),
      unread: chat.unread_count,
      mentions: chat.unread_mentions,
      muted: chat.notify === 'none',
      pinned: chat.pinned,
    };
  }

  #typing({ chat_id: chatId, other_user: other }) {
    const who = this.#session.typing.who(chatId);
    if (other || !who.length) return who.length ? t('typing') : '';
    return t('someType', { names: formatList(who.slice(0, 2).map((userId) => this.#nameOf(userId))) });
  }

  #lastLine({ kind, last_message: last }) {
    if (!last) return '';
    if (last.deleted_at) return t('deleted');
    if (last.type === 'system') return happened(last.system, (userId, isGone) => this.#nameOf(userId, !isGone));
    const isOwn = last.sender_id === this.#session.me;
    const text = last.text || (last.attachments?.length ? last.attachments[0].name : '');
    return isOwn || (kind === 'group' && last.sender_id) ? `${this.#nameOf(last.sender_id)}: ${text}` : text;
  }

  #nameOf(userId, ask = true) {
    return userId === this.#session.me ? t('you') : displayName(this.#session.person(userId, { ask }));
  }

  #fill(button, facts, chat) {
    const sign = (shown, said, className = '') => el('span', { className: `badge ${className}` },
      el('span', { 'aria-hidden': 'true' }, shown), el('span', { className: 'sr' }, said));
    const badges = [];
    if (facts.mentions > 0) badges.push(sign('@', t('mentionsOfYou', { count: facts.mentions })));
    if (facts.unread > 0) {
      const shown = facts.unread > 999 ? '999+' : String(facts.unread);
      badges.push(sign(shown, t('unread', { count: facts.unread }), facts.muted ? 'quiet' : ''));
    }
    const marks = [facts.pinned && ['pin', 'pinned'], facts.muted && ['mute', 'muted']].filter(Boolean)
      .flatMap(([name, word]) => [icon(name), el('span', { className: 'sr' }, `${t(word)}, `)]);
    button.classList.toggle('unread', facts.unread > 0);
    if (facts.current) button.setAttribute('aria-current', 'true');
    else button.removeAttribute('aria-current');
    button.replaceChildren(
      el('span', { className: `face${facts.online ? ' online' : ''}` }, chatAvatar(chat)),
      el('span', { className: 'chat-lines' },
        el('span', { className: 'chat-line' },
          el('bdi', { className: 'chat-name clip' }, facts.name),
          ...(facts.online ? [el('span', { className: 'sr' }, `, ${t('online')}, `)] : []),
          el('span', { className: 'muted time' }, ...marks, facts.time)),
        el('span', { className: 'chat-line' },
          el('span', { className: `clip last muted${facts.dim ? ' dim' : ''}` }, facts.line),
          ...badges)),
    );
  }

  /** Up and down walk through the chats. */
  #onKey(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const buttons = [...event.currentTarget.querySelectorAll('button')];
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
