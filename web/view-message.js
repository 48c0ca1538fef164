/** One row of the timeline: a day, the "new messages" line, or a message with what can be done to it. */
import { el, icon } from './dom.js';
import { describeError, formatDay, formatFull, formatTime, t } from './i18n.js';
import { segments } from './text.js';

/** @typedef {import('./rows.js').Row} Row */

/**
 * @typedef {object} MessageActions
 * @property {(message: object) => void} edit
 * @property {(message: object) => void} remove
 * @property {(pending: object) => void} retry
 * @property {(pending: object) => void} discard
 */

/** Text with its hits marked; never anything but text. */
export function markedText(text, ranges) {
  return segments(text, ranges).map((part) => (part.hit ? el('mark', {}, part.text) : document.createTextNode(part.text)));
}

export class RowView {
  /** @type {HTMLLIElement} */
  element;
  #row;
  #actions;
  #shown = {};
  #menu = null;

  /** @param {Row} row @param {MessageActions} actions */
  constructor(row, actions) {
    this.#actions = actions;
    this.element = el('li', { className: row.kind });
    if (row.kind === 'day') this.element.append(el('span', {}));
    if (row.kind === 'new') this.element.append(el('span', {}, t('newMessages')));
    if (row.kind === 'message') this.#build();
  }

  #build() {
    this.sender = el('span', { className: 'sr' });
    this.text = el('p', { className: 'text', dir: 'auto' });
    this.time = el('time', {});
    this.edited = el('span', {});
    this.tick = el('span', { className: 'tick' });
    this.trouble = el('span', { className: 'trouble' });
    this.more = el('button', {
      className: 'plain more-actions',
      title: t('actions'),
      'aria-label': t('actions'),
      'aria-haspopup': 'menu',
      'aria-expanded': 'false',
      onclick: () => (this.#menu ? this.#closeMenu() : this.#openMenu()),
    }, icon('more'));
    this.meta = el('span', { className: 'meta' }, this.edited, this.time, this.tick);
    this.bubble = el('div', { className: 'bubble' }, this.sender, this.text, this.meta);
    this.element.append(this.bubble, this.more, this.trouble);
  }

  /**
   * Brings the row up to date, touching only what differs, so that focus and selection survive.
   * @param {Row} row
   * @param {{sender: string, hits: import('./text.js').Range[]}} context
   */
  update(row, { sender, hits }) {
    this.#row = row;
    if (row.kind === 'day') this.#set('day', formatDay(row.at), (text) => { this.element.firstChild.textContent = text; });
    if (row.kind !== 'message') return;
    const { message, own, tick, first, last } = row;
    const isDeleted = Boolean(message.deleted_at);
    const classes = ['message', own ? 'own' : 'theirs', first && 'first', last && 'last', isDeleted && 'deleted', tick];
    this.#set('classes', classes.filter(Boolean).join(' '), (value) => {
      this.element.className = value;
    });
    this.#set('sender', `${sender}: `, (value) => { this.sender.textContent = value; });
    this.#set('text', JSON.stringify([isDeleted, message.text, hits]), () => {
      this.text.replaceChildren(...(isDeleted ? [t('deleted')] : markedText(message.text, hits)));
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
    this.#set('tick', tick ?? '', (value) => this.#showTick(value));
    const hasActions = own && !isDeleted && message.seq !== undefined;
    this.more.hidden = !hasActions;
    if (!hasActions) this.#closeMenu();
  }

  #set(part, value, show) {
    if (this.#shown[part] === value) return;
    this.#shown[part] = value;
    show(value);
  }

  #showTick(tick) {
    this.tick.replaceChildren();
    this.trouble.replaceChildren();
    if (!tick) return;
    this.tick.append(icon(tick), el('span', { className: 'sr' }, t(`tick_${tick}`)));
    this.tick.title = t(`tick_${tick}`);
    if (tick !== 'failed') return;
    const { error } = this.#row.message;
    this.trouble.append(
      // Why the server does not want it; that it could not be reached shows in the list's head.
      el('span', {}, error.temporary ? t('tick_failed') : `${t('tick_failed')}. ${describeError(error)}`),
      el('button', { className: 'small', onclick: () => this.#actions.retry(this.#row.message) }, t('retry')),
      el('button', { className: 'small', onclick: () => this.#actions.discard(this.#row.message) }, t('discard')),
    );
  }

  #openMenu() {
    const item = (label, className, run) => el('button', {
      role: 'menuitem',
      className,
      tabIndex: -1,
      onclick: () => { this.#closeMenu(); run(this.#row.message); },
    }, label);
    this.#menu = el('div', { className: 'menu', role: 'menu', 'aria-label': t('actions') },
      item(t('edit'), '', this.#actions.edit),
      item(t('delete'), 'danger', this.#actions.remove));
    this.#menu.addEventListener('keydown', (event) => this.#onMenuKey(event));
    this.#menu.addEventListener('focusout', ({ relatedTarget }) => {
      if (!this.element.contains(relatedTarget)) this.#closeMenu();
    });
    this.element.append(this.#menu);
    this.more.setAttribute('aria-expanded', 'true');
    const { bottom } = this.#menu.getBoundingClientRect();
    this.#menu.classList.toggle('up', bottom > this.element.closest('.scroller').getBoundingClientRect().bottom);
    this.#menu.firstChild.focus({ preventScroll: true });
  }

  #closeMenu() {
    if (!this.#menu) return;
    const menu = this.#menu;
    this.#menu = null;
    const hadFocus = menu.contains(document.activeElement);
    menu.remove();
    this.more.setAttribute('aria-expanded', 'false');
    if (hadFocus) this.more.focus({ preventScroll: true });
  }

  #onMenuKey(event) {
    const items = [...this.#menu.children];
    const at = items.indexOf(document.activeElement);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) items[(at + step + items.length) % items.length].focus();
    else if (event.key === 'Escape' || event.key === 'Tab') this.#closeMenu();
    else return;
    if (event.key !== 'Tab') event.preventDefault();
    event.stopPropagation();
  }
}
