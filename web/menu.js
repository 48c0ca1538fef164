/** A menu behind a button: with the keyboard, and for those who listen. */
import { el } from './dom.js';

/**
 * @typedef {object} MenuItem
 * @property {string} label
 * @property {boolean} [danger]
 * @property {boolean} [checked]  of what can be on or off
 * @property {() => void} run
 */

export class Menu {
  #button;
  #options;
  /** @type {?HTMLElement} */
  #menu = null;
  /** @type {HTMLElement} what has the focus once it is closed */
  #opener;

  /**
   * @param {HTMLButtonElement} button
   * @param {object} options
   * @param {HTMLElement} options.holder      what the menu stands in
   * @param {string} options.within           selector of what it must not stand out of
   * @param {string} options.label
   * @param {number} [options.columns]        in which its items stand
   * @param {() => MenuItem[]} options.items  asked whenever it opens
   */
  constructor(button, options) {
    this.#button = button;
    this.#opener = button;
    this.#options = options;
    button.setAttribute('aria-haspopup', 'menu');
    button.setAttribute('aria-expanded', 'false');
    button.addEventListener('click', () => (this.#menu ? this.close() : this.open()));
  }

  /** @param {HTMLElement} [opener] */
  open(opener = this.#button) {
    const { holder, within, label, items, columns = 1 } = this.#options;
    this.#opener = opener;
    const item = ({ label: text, danger = false, checked, run }) => el('button', {
      type: 'button', className: danger ? 'danger' : '', tabIndex: -1,
      ...(checked === undefined ? { role: 'menuitem' } : { role: 'menuitemcheckbox', 'aria-checked': String(checked) }),
      onclick: () => { this.close(); run(); },
    }, text);
    this.#menu = el('div', { className: columns > 1 ? 'menu grid' : 'menu', role: 'menu', 'aria-label': label }, ...items().map(item));
    this.#menu.addEventListener('keydown', (event) => this.#onKey(event));
    this.#menu.addEventListener('focusout', ({ relatedTarget }) => {
      if (!holder.contains(relatedTarget)) this.close();
    });
    holder.append(this.#menu);
    this.#button.setAttribute('aria-expanded', 'true');
    const room = holder.closest(within).getBoundingClientRect();
    this.#menu.classList.toggle('up', this.#menu.getBoundingClientRect().bottom > room.bottom);
    // Where there is no room above either, it lies over what it belongs to.
    const above = room.top - this.#menu.getBoundingClientRect().top;
    if (above > 0) this.#menu.style.translate = `0 ${above}px`;
    this.#menu.firstChild?.focus({ preventScroll: true });
  }

  close() {
    if (!this.#menu) return;
    const menu = this.#menu;
    this.#menu = null;
    const hadFocus = menu.contains(document.activeElement);
    menu.remove();
    this.#button.setAttribute('aria-expanded', 'false');
    if (hadFocus) this.#opener.focus({ preventScroll: true });
  }

  #onKey(event) {
    const { columns = 1 } = this.#options;
    const items = [...this.#menu.children];
    const at = items.indexOf(document.activeElement);
    const beside = columns > 1 ? { ArrowRight: 1, ArrowLeft: -1 } : {};
    const step = { ArrowDown: columns, ArrowUp: -columns, ...beside }[event.key];
    if (step) items[(at + step + items.length) % items.length].focus();
    else if (event.key === 'Escape' || event.key === 'Tab') this.close();
    else return;
    if (event.key !== 'Tab') event.preventDefault();
    event.stopPropagation();
  }
}
