/**
 * One row of the timeline: a day, the "new messages" line, what happened in a group, or a message with what
 * can be done to it.
 */
import { avatar, displayName, el, icon } from './dom.js';
import { describeError, formatDay, formatFull, formatTime, t } from './i18n.js';
import { Menu } from './menu.js';
import { segments } from './text.js';

/** @typedef {import('./rows.js').Row} Row */

/**
 * @typedef {object} MessageActions
 * @property {(message: object) => void} edit
 * @property {(message: object) => void} remove
 * @property {(pending: object) => void} retry
 * @property {(pending: object) => void} discard
 */

/**
 * What a row is to show beside its message.
 * @typedef {object} Context
 * @property {string} sender
 * @property {?import('../clients/typescript/src/index.js').User} author  shown above the first of their messages in a group
 * @property {string} happened                   of a system message
 * @property {import('./text.js').Range[]} hits
 * @property {import('./text.js').Range[]} mentions
 * @property {boolean} mentionsMe
 * @property {boolean} mayDelete                 somebody else's message, too
 */

/** Text with its hits marked; never anything but text. */
export function markedText(text, ranges) {
  return segments(text, ranges).map((part) => (part.hit ? el('mark', {}, part.text) : document.createTextNode(part.text)));
}

/** The same, with the names of those who are mentioned set off. */
function mentioningText(text, hits, mentions) {
  let at = 0;
  return segments(text, mentions).flatMap((part) => {
    const shift = at;
    at += part.text.length;
    const nodes = markedText(part.text, hits.map(([start, length]) => [start - shift, length]));
    return part.hit ? [el('span', { className: 'mention' }, ...nodes)] : nodes;
  });
}

export class RowView {
  /** @type {HTMLLIElement} */
  element;
  #row;
  #actions;
  #shown = {};
  /** @type {?Menu} */
  #menu = null;

  /** @param {Row} row @param {MessageActions} actions */
  constructor(row, actions) {
    this.#actions = actions;
    this.element = el('li', { className: row.kind });
    if (row.kind === 'day') this.element.append(el('span', {}));
    if (row.kind === 'system') this.element.append(el('span', {}));
    if (row.kind === 'new') this.element.append(el('span', {}, t('newMessages')));
    if (row.kind === 'message') this.#build();
  }

  #build() {
    this.sender = el('span', { className: 'sr' });
    this.author = el('p', { className: 'author', 'aria-hidden': 'true' });
    this.text = el('p', { className: 'text', dir: 'auto' });
    this.time = el('time', {});
    this.edited = el('span', {});
    this.tick = el('span', { className: 'tick' });
    this.trouble = el('span', { className: 'trouble' });
    this.more = el('button', {
      className: 'plain more-actions',
      title: t('actions'),
      'aria-label': t('actions'),
    }, icon('more'));
    this.#menu = new Menu(this.more, {
      holder: this.element, within: '.scroller', label: t('actions'), items: () => this.#menuItems(),
    });
    this.meta = el('span', { className: 'meta' }, this.edited, this.time, this.tick);
    this.bubble = el('div', { className: 'bubble' }, this.sender, this.text, this.meta);
    this.element.append(this.author, this.bubble, this.more, this.trouble);
  }

  #menuItems() {
    const { message, own } = this.#row;
    const remove = { label: t('delete'), danger: true, run: () => this.#actions.remove(message) };
    return own ? [{ label: t('edit'), run: () => this.#actions.edit(message) }, remove] : [remove];
  }

  /**
   * Brings the row up to date, touching only what differs, so that focus and selection survive.
   * @param {Row} row
   * @param {Context} context
   */
  update(row, { sender, author, happened, hits, mentions, mentionsMe, mayDelete }) {
    this.#row = row;
    if (row.kind === 'day') this.#set('day', formatDay(row.at), (text) => { this.element.firstChild.textContent = text; });
    if (row.kind === 'system') this.#set('system', happened, (text) => { this.element.firstChild.textContent = text; });
    if (row.kind !== 'message') return;
    const { message, own, tick, first, last } = row;
    const isDeleted = Boolean(message.deleted_at);
    const classes = ['message', own ? 'own' : 'theirs', first && 'first', last && 'last', isDeleted && 'deleted', mentionsMe && 'to-me', tick];
    this.#set('classes', classes.filter(Boolean).join(' '), (value) => {
      this.element.className = value;
    });
    this.#set('sender', `${sender}: `, (value) => { this.sender.textContent = value; });
    const shownAuthor = first && !own ? author : null;
    this.#set('author', JSON.stringify(shownAuthor && [shownAuthor.user_id, shownAuthor.name, shownAuthor.avatar_url]), () => {
      this.author.hidden = !shownAuthor;
      this.author.replaceChildren(...(shownAuthor ? [avatar(shownAuthor), el('bdi', { className: 'clip' }, displayName(shownAuthor))] : []));
    });
    this.#set('text', JSON.stringify([isDeleted, message.text, hits, mentions]), () => {
      this.text.replaceChildren(...(isDeleted ? [t('deleted')] : mentioningText(message.text, hits, mentions)));
    });
    this.#set('time', message.created_at ?? '', (value) => {
      this.time.dateTime = value;
      this.time.textContent = value && formatTime(value);
      this.time.title = value && formatFull(value);
    });
    const isEdited = Boolean(message.edited_at) && !isDeleted;
    this.#set('edited', isEdited ? message.edited_at : '', (value) => {
      this.edited.textContent = value ? t('edited') : '';
      this.edited.title = value && formatFull(value);
    });
    this.#set('tick', JSON.stringify([tick, row.readers]), () => this.#showTick(tick, row.readers));
    const hasActions = (own || mayDelete) && !isDeleted && message.seq !== undefined;
    this.more.hidden = !hasActions;
    if (!hasActions) this.#menu.close();
  }

  #set(part, value, show) {
    if (this.#shown[part] === value) return;
    this.#shown[part] = value;
    show(value);
  }

  #showTick(tick, readers) {
    this.tick.replaceChildren();
    this.trouble.replaceChildren();
    if (!tick) return;
    const said = readers > 1 ? t('readBy', { count: readers }) : t(`tick_${tick}`);
    this.tick.append(icon(tick), el('span', { className: 'sr' }, said));
    this.tick.title = said;
    if (tick !== 'failed') return;
    const { error } = this.#row.message;
    this.trouble.append(
      // Why the server does not want it; that it could not be reached shows in the list's head.
      el('span', {}, error.temporary ? t('tick_failed') : `${t('tick_failed')}. ${describeError(error)}`),
      el('button', { className: 'small', onclick: () => this.#actions.retry(this.#row.message) }, t('retry')),
      el('button', { className: 'small', onclick: () => this.#actions.discard(this.#row.message) }, t('discard')),
    );
  }
}
