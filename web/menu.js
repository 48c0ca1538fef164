/** A menu behind a button: with the keyboard, and for those who listen. */
import { el } from './dom.js';

/**
 * @typedef {object} MenuItem
 * @property {string} label
 * @property {boolean} [danger]
 * @property {() => void} run
 */

export class Menu {
  #button;
  #options;
  /** @type {?HTMLElement} */
  #menu = null;

  /**
   * @param {HTMLButtonElement} button
   * @param {object} options
   * @param {HTMLElement} options.holder      what the menu stands in
   * @param {string} options.within           selector of what it must not stand out of below
   * @param {string} options.label
   * @param {() => MenuItem[]} options.items  asked whenever it opens
   */
  constructor(button, options) {
    this.#button = button;
    this.#options = options;
    button.setAttribute('aria-haspopup', 'menu');
    button.setAttribute('aria-expanded', 'false');
    button.addEventListener('click', () => (this.#menu ? this.close() : this.open()));
  }

  open() {
    const { holder, within, label, items } = this.#options;
    const item = ({ label: text, danger = false, run }) => el('button', {
      type: 'button', role: 'menuitem', className: danger ? 'danger' : '', tabIndex: -1,
      onclick: () => { this.close(); run(); },
    }, text);
    this.#menu = el('div', { className: 'menu', role: 'menu', 'aria-label': label }, ...items().map(item));
    this.#menu.addEventListener('keydown', (event) => this.#onKey(event));
    this.#menu.addEventListener('focusout', ({ relatedTarget }) => {
      if (!holder.contains(relatedTarget)) this.close();
    });
    holder.append(this.#menu);
    this.#button.setAttribute('aria-expanded', 'true');
    const { bottom } = this.#menu.getBoundingClientRect();
    this.#menu.classList.toggle('up', bottom > holder.closest(within).getBoundingClientRect().bottom);
    this.#menu.firstChild?.focus({ preventScroll: true });
  }

  close() {
    if (!this.#menu) return;
    const menu = this.#menu;
    this.#menu = null;
    const hadFocus = menu.contains(document.activeElement);
    menu.remove();
    this.#button.setAttribute('aria-expanded', 'false');
    if (hadFocus) this.#button.focus({ preventScroll: true });
  }

  #onKey(event) {
    const items = [...this.#menu.children];
    const at = items.indexOf(document.activeElement);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) items[(at + step + items.length) % items.length].focus();
    else if (event.key === 'Escape' || event.key === 'Tab') this.close();
    else return;
    if (event.key !== 'Tab') event.preventDefault();
    event.stopPropagation();
  }
}
