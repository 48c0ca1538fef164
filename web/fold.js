/** A list that is folded away: read page by page once it is opened, and anew after a change. */
import { byId } from './dom.js';

/**
 * @template Item
 */
export class FoldList {
  #name;
  #options;
  /** @type {Item[]} */
  #items = [];
  /** @type {?string} */
  #next = null;
  #reads = 0;

  /**
   * @param {string} name  the fold's id in the page, with which those of its parts begin
   * @param {object} options
   * @param {(cursor?: string) => Promise<{results: Item[], next: ?string}>} options.page
   * @param {(item: Item) => HTMLElement} options.row
   * @param {<T>(work: () => Promise<T>) => Promise<T | undefined>} options.run  tells a failure
   */
  constructor(name, options) {
    this.#name = name;
    this.#options = options;
    this.#fold.addEventListener('toggle', () => this.refresh());
    this.#part('more').addEventListener('click', () => options.run(() => this.#read(this.#next)));
  }

  get #fold() { return /** @type {HTMLDetailsElement} */ (byId(this.#name)); }

  /** @param {'list' | 'none' | 'more'} part */
  #part(part) { return byId(`${this.#name}-${part}`); }

  /** Another chat is shown. */
  close() {
    this.#reads += 1;
    this.#fold.open = false;
    this.#items = [];
    this.#next = null;
    this.#render();
  }

  async refresh() {
    if (this.#fold.open) await this.#options.run(() => this.#read());
  }

  /** @param {?string} [cursor] of the page after the first */
  async #read(cursor = null) {
    this.#reads += 1;
    const read = this.#reads;
    const page = await this.#options.page(cursor ?? undefined);
    if (read !== this.#reads || !this.#fold.open) return;
    this.#items = cursor ? [...this.#items, ...page.results] : page.results;
    this.#next = page.next;
    this.#render();
  }

  #render() {
    const list = this.#part('list');
    const hadFocus = list.contains(document.activeElement);
    list.replaceChildren(...this.#items.map((item) => this.#options.row(item)));
    this.#part('none').hidden = this.#items.length > 0;
    this.#part('more').hidden = this.#next === null;
    if (hadFocus) this.#fold.querySelector('summary').focus();
  }
}
