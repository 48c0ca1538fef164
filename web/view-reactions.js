/** The reactions below a message, and the list of all who reacted. */
import { attempt, avatar, byId, displayName, el } from './dom.js';
import { formatList, t } from './i18n.js';

/** So many names are told beside an emoji; the list has all. */
const NAMED = 5;

/**
 * @typedef {object} Shown
 * @property {string} emoji
 * @property {number} count
 * @property {boolean} own
 * @property {string} who  names, for whoever points at it
 */

/**
 * What of a message's reactions is shown.
 * @param {{reactions?: import('../clients/typescript/src/schema.js').Reaction[], my_reactions?: ?string[]}} message
 * @param {(userId: string) => string} nameOf
 * @param {string} me
 * @returns {Shown[]}
 */
export function shownReactions({ reactions = [], my_reactions: mine }, nameOf, me) {
  return reactions.map(({ emoji, count, user_ids: userIds }) => {
    const own = Boolean(mine?.includes(emoji));
    const others = userIds.filter((userId) => userId !== me).slice(0, own ? NAMED - 1 : NAMED).map(nameOf);
    const names = own ? [t('you'), ...others] : others;
    if (count > names.length) names.push(t('others', { count: count - names.length }));
    return { emoji, count, own, who: formatList(names) };
  });
}

export class ReactionBar {
  element = el('ul', { className: 'reactions', 'aria-label': t('reactions') });
  #onToggle;

  /** @param {(emoji: string, on: boolean) => void} onToggle */
  constructor(onToggle) {
    this.#onToggle = onToggle;
  }

  /** @param {Shown[]} shown */
  update(shown) {
    const focused = [...this.element.children].findIndex((item) => item.contains(document.activeElement));
    this.element.hidden = shown.length === 0;
    this.element.replaceChildren(...shown.map(({ emoji, count, own, who }) => {
      const button = el('button', {
        type: 'button', className: 'reaction', 'aria-pressed': String(own), 'aria-label': `${emoji} ${count}: ${who}`,
        onclick: () => this.#onToggle(emoji, !own),
      }, el('bdi', { className: 'emoji clip' }, emoji), el('span', {}, String(count)));
      return el('li', {}, button, el('span', { className: 'who-reacted', 'aria-hidden': 'true' }, who));
    }));
    if (focused >= 0) this.element.children[Math.min(focused, shown.length - 1)]?.firstElementChild.focus({ preventScroll: true });
  }
}

/** Who reacted to a message, page by page. */
export class ReactedView {
  #session;
  #message = null;
  #next = null;

  /** @param {import('./session.js').Session} session */
  constructor(session) {
    this.#session = session;
    byId('reacted-close').addEventListener('click', () => this.#dialog.close());
    byId('reacted-more').addEventListener('click', () => attempt(() => this.#read(this.#next)));
    session.on('open', () => this.#dialog.close());
  }

  get #dialog() { return /** @type {HTMLDialogElement} */ (byId('reacted')); }

  /** @param {import('../clients/typescript/src/index.js').Message} message */
  async show(message) {
    this.#message = message;
    byId('reacted-list').replaceChildren();
    byId('reacted-more').hidden = true;
    this.#dialog.showModal();
    // Whether one is among more than twenty is known from an answer only.
    await attempt(() => Promise.all([this.#read(), this.#session.reread(message)]));
  }

  /** @param {?string} [cursor] */
  async #read(cursor = null) {
    const message = this.#message;
    const { results, next } = await this.#session.api.listReactions(message.chat_id, message.message_id, { cursor: cursor ?? undefined });
    if (message !== this.#message) return;
    this.#next = next;
    byId('reacted-more').hidden = next === null;
    byId('reacted-list').append(...results.map(({ user_id: userId, emoji }) => {
      const user = this.#session.person(userId);
      return el('li', { className: 'member' }, avatar(user),
        el('bdi', { className: 'chat-name clip' }, userId === this.#session.me ? t('you') : displayName(user)), el('bdi', {}, emoji));
    }));
  }
}
