/** The list of those who can be mentioned, while an `@` is written into the draft of a group. */
import { avatar, byId, displayName, el } from './dom.js';
import { lang, t } from './i18n.js';
import { EVERYBODY, mentionAt } from './mentions.js';

const TYPING_PAUSE_MS = 150;
/** So many are offered. */
const OFFERED = 6;
/** Larger groups let only owner and admins mention everybody. */
const SMALL = 32;

/** @typedef {{name: string, id: string, user: ?import('../clients/typescript/src/index.js').User}} Option */

export class MentionView {
  /** Names that were put into the draft, and whose they are. @type {Map<string, string>} */
  chosen = new Map();
  #session;
  #onPick;
  /** @type {Option[]} */
  #options = [];
  #active = 0;
  #start = 0;
  #pause = null;
  #abort = null;
  /** @type {Map<string, Map<string, string>>} by chat, as long as a draft is */
  #drafts = new Map();

  /**
   * @param {import('./session.js').Session} session
   * @param {{onPick: () => void}} options  the draft was changed
   */
  constructor(session, { onPick }) {
    this.#session = session;
    this.#onPick = onPick;
    byId('draft').addEventListener('blur', () => this.close());
  }

  /** Another chat is open. @param {?string} chatId */
  begin(chatId) {
    this.close();
    this.chosen = this.#drafts.get(chatId) ?? new Map();
    if (chatId) this.#drafts.set(chatId, this.chosen);
  }

  /** A message is about to be edited: whom it mentions stays, as long as their names do. */
  know({ mentions }) {
    if (mentions === 'all') for (const name of EVERYBODY) this.chosen.set(name, 'all');
    else for (const userId of mentions) this.chosen.set(displayName(this.#session.person(userId)), userId);
  }

  /** What was typed may be a mention. */
  look() {
    clearTimeout(this.#pause);
    const { value, selectionStart } = byId('draft');
    const found = this.#chat && mentionAt(value, selectionStart);
    if (!found) return this.close();
    this.#start = found.start;
    this.#pause = setTimeout(() => this.#offer(found.query), TYPING_PAUSE_MS);
    return undefined;
  }

  get #chat() {
    const chat = this.#session.chats.get(this.#session.openId ?? '');
    return chat?.kind === 'group' ? chat : null;
  }

  async #offer(query) {
    this.#abort?.abort();
    const abort = new AbortController();
    this.#abort = abort;
    const chat = this.#chat;
    if (!chat) return;
    const asked = { limit: OFFERED + 1, ...(query ? { query } : {}) };
    const page = await this.#session.api.listMembers(chat.chat_id, asked, abort.signal).catch(() => null);
    if (!page || abort.signal.aborted) return;
    const users = page.results.map(({ user }) => user).filter(({ user_id: userId }) => userId !== this.#session.me);
    this.#session.people.learn(users);
    const everybody = EVERYBODY[lang === 'ru' ? 1 : 0];
    const mayAll = chat.role !== 'member' || chat.member_count <= SMALL;
    this.#options = users.slice(0, OFFERED).map((user) => ({ name: displayName(user), id: user.user_id, user }));
    if (mayAll && everybody.startsWith(query.toLowerCase())) this.#options.push({ name: everybody, id: 'all', user: null });
    this.#active = 0;
    this.#render();
  }

  #render() {
    const list = byId('mention-list');
    list.hidden = this.#options.length === 0;
    list.replaceChildren(...this.#options.map(({ name, user }, index) => {
      const option = el('li', { id: `mention-${index}`, role: 'option', className: 'mention-option', 'aria-selected': String(index === this.#active) },
        ...(user ? [avatar(user)] : []),
        el('bdi', { className: 'clip' }, user ? name : `${t('everybody')} (@${name})`),
        ...(user && user.user_id !== name ? [el('span', { className: 'muted clip' }, user.user_id)] : []));
      // Before the draft loses its focus.
      option.addEventListener('pointerdown', (event) => { event.preventDefault(); this.#pick(index); });
      return option;
    }));
    byId('mention-status').textContent = this.#options.length ? t('mentionsFound', { count: this.#options.length }) : '';
    this.#point();
  }

  /** Tells which one Enter takes. */
  #point() {
    const draft = byId('draft');
    for (const [index, option] of [...byId('mention-list').children].entries()) {
      option.setAttribute('aria-selected', String(index === this.#active));
      if (index === this.#active) option.scrollIntoView({ block: 'nearest' });
    }
    if (this.#options.length) draft.setAttribute('aria-activedescendant', `mention-${this.#active}`);
    else draft.removeAttribute('aria-activedescendant');
  }

  /** @param {KeyboardEvent} event @returns {boolean} whether it was for the list */
  onKey(event) {
    const count = this.#options.length;
    if (!count) return false;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      this.#active = (this.#active + step + count) % count;
      this.#point();
    } else if (event.key === 'Enter' || event.key === 'Tab') {
      this.#pick(this.#active);
    } else if (event.key === 'Escape') {
      this.close();
    } else {
      return false;
    }
    event.preventDefault();
    return true;
  }

  #pick(index) {
    const { name, id } = this.#options[index];
    const draft = byId('draft');
    this.chosen.set(name, id);
    draft.setRangeText(`@${name} `, this.#start, draft.selectionStart, 'end');
    this.close();
    draft.focus();
    this.#onPick();
  }

  close() {
    clearTimeout(this.#pause);
    this.#abort?.abort();
    if (!this.#options.length) return;
    this.#options = [];
    this.#render();
  }
}
