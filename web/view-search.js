/** A search, in the open chat or in all: as one types, newest first, further back on demand. */
import { byId } from './dom.js';
import { describeError, t } from './i18n.js';
import { resultRow } from './results.js';
import { isComposing } from './text.js';

const TYPING_PAUSE_MS = 300;

/** @typedef {{message: import('../clients/typescript/src/index.js').Message, highlights: import('./text.js').Range[]}} Hit */

export class SearchView {
  #session;
  #name;
  #options;
  #abort = null;
  #pause = null;
  #query = '';
  #next = null;
  #count = 0;

  /**
   * @param {import('./session.js').Session} session
   * @param {string} name  the id of its part of the page, with which those of its parts begin
   * @param {object} options
   * @param {(query: string, next: any, signal: AbortSignal) => Promise<{results: Hit[], next: any, complete: boolean}>} options.page
   * @param {(hit: Hit) => void} options.onPick
   * @param {() => void} options.onOpen
   * @param {() => void} options.onClose
   * @param {boolean} options.withChat  hits may be of any chat
   */
  constructor(session, name, options) {
    this.#session = session;
    this.#name = name;
    this.#options = options;
    const input = this.#part('input');
    this.#part('open').addEventListener('click', () => (this.isOpen ? this.close() : this.open()));
    this.#part('close').addEventListener('click', () => this.close());
    this.#part('more').addEventListener('click', () => this.#run(this.#next));
    input.addEventListener('input', () => {
      clearTimeout(this.#pause);
      this.#pause = setTimeout(() => this.#begin(), TYPING_PAUSE_MS);
    });
    byId(name).addEventListener('keydown', (event) => {
      if (isComposing(event)) return;
      if (event.key === 'Escape') this.close();
      if (event.key === 'Enter' && event.target === input) this.#begin();
    });
  }

  /** @param {'open' | 'close' | 'input' | 'status' | 'results' | 'more'} part */
  #part(part) { return byId(`${this.#name}-${part}`); }

  get isOpen() {
    return !byId(this.#name).hidden;
  }

  open() {
    this.#options.onOpen();
    byId(this.#name).hidden = false;
    this.#part('open').setAttribute('aria-expanded', 'true');
    this.#part('input').focus();
  }

  close() {
    if (!this.isOpen) return;
    const hadFocus = byId(this.#name).contains(document.activeElement);
    byId(this.#name).hidden = true;
    this.#part('open').setAttribute('aria-expanded', 'false');
    this.#part('input').value = '';
    this.#begin();
    this.#options.onClose();
    if (hadFocus) this.#part('open').focus();
  }

  #begin() {
    clearTimeout(this.#pause);
    this.#abort?.abort();
    this.#query = this.#part('input').value.trim();
    this.#count = 0;
    this.#next = null;
    this.#part('results').replaceChildren();
    this.#part('more').hidden = true;
    this.#part('status').textContent = '';
    if (this.#query) this.#run(undefined);
  }

  async #run(next) {
    const abort = new AbortController();
    this.#abort = abort;
    this.#part('status').textContent = t('searching');
    try {
      const page = await this.#options.page(this.#query, next, abort.signal);
      if (abort.signal.aborted) return;
      this.#show(page);
    } catch (error) {
      if (!abort.signal.aborted) this.#part('status').textContent = describeError(error);
    }
  }

  #show({ results, next, complete }) {
    const { onPick, withChat } = this.#options;
    this.#next = next;
    this.#count += results.length;
    const mayHaveMore = next !== null || !complete;
    const count = { count: this.#count };
    this.#part('status').textContent = mayHaveMore ? t('foundSome', count)
      : this.#count ? t('found', count) : t('nothingFound');
    this.#part('more').hidden = next === null;
    this.#part('results').append(...results.map((hit) => resultRow(this.#session, hit, { onPick: () => onPick(hit), withChat })));
  }
}
