/** Search in the open chat: as one types, newest first, further back on demand. */
import { byId, displayName, el } from './dom.js';
import { describeError, formatFull, formatListTime, t } from './i18n.js';
import { excerpt, isComposing } from './text.js';
import { markedText } from './view-message.js';

const TYPING_PAUSE_MS = 300;

export class SearchView {
  #session;
  #onPick;
  #onClose;
  #abort = null;
  #pause = null;
  #query = '';
  #next = null;
  #count = 0;

  /**
   * @param {import('./session.js').Session} session
   * @param {object} options
   * @param {(hit: {message: object, highlights: number[][]}) => void} options.onPick
   * @param {() => void} options.onClose
   */
  constructor(session, { onPick, onClose }) {
    this.#session = session;
    this.#onPick = onPick;
    this.#onClose = onClose;
    byId('search-open').addEventListener('click', () => (this.isOpen ? this.close() : this.open()));
    byId('search-close').addEventListener('click', () => this.close());
    byId('search-more').addEventListener('click', () => this.#run(this.#next));
    byId('search-input').addEventListener('input', () => {
      clearTimeout(this.#pause);
      this.#pause = setTimeout(() => this.#begin(), TYPING_PAUSE_MS);
    });
    byId('search').addEventListener('keydown', (event) => {
      if (isComposing(event)) return;
      if (event.key === 'Escape') this.close();
      if (event.key === 'Enter' && event.target === byId('search-input')) this.#begin();
    });
  }

  get isOpen() {
    return !byId('search').hidden;
  }

  open() {
    byId('search').hidden = false;
    byId('search-open').setAttribute('aria-expanded', 'true');
    byId('search-input').focus();
  }

  close() {
    if (!this.isOpen) return;
    const hadFocus = byId('search').contains(document.activeElement);
    byId('search').hidden = true;
    byId('search-open').setAttribute('aria-expanded', 'false');
    byId('search-input').value = '';
    this.#begin();
    this.#onClose();
    if (hadFocus) byId('search-open').focus();
  }

  #begin() {
    clearTimeout(this.#pause);
    this.#abort?.abort();
    this.#query = byId('search-input').value.trim();
    this.#count = 0;
    this.#next = null;
    byId('search-results').replaceChildren();
    byId('search-more').hidden = true;
    byId('search-status').textContent = '';
    if (this.#query) this.#run(undefined);
  }

  async #run(before) {
    const abort = new AbortController();
    this.#abort = abort;
    byId('search-status').textContent = t('searching');
    try {
      const query = { query: this.#query, limit: 20, before };
      const page = await this.#session.api.search(this.#session.openId, query, abort.signal);
      if (abort.signal.aborted) return;
      this.#show(page);
    } catch (error) {
      if (!abort.signal.aborted) byId('search-status').textContent = describeError(error);
    }
  }

  #show({ results, next, complete }) {
    this.#next = next;
    this.#count += results.length;
    const mayHaveMore = next !== null || !complete;
    const count = { count: this.#count };
    byId('search-status').textContent = mayHaveMore ? t('foundSome', count)
      : this.#count ? t('found', count) : t('nothingFound');
    byId('search-more').hidden = next === null;
    byId('search-results').append(...results.map((hit) => this.#result(hit)));
  }

  #result(hit) {
    const { message, highlights } = hit;
    const part = excerpt(message.text, highlights);
    const name = message.sender_id === this.#session.me ? t('you') : displayName(this.#session.person(message.sender_id));
    return el('li', {}, el('button', { className: 'result', onclick: () => this.#onPick(hit) },
      el('span', { className: 'chat-line' },
        el('bdi', { className: 'clip' }, name),
        el('time', { className: 'muted time', dateTime: message.created_at, title: formatFull(message.created_at) },
          formatListTime(message.created_at))),
      el('span', { className: 'excerpt' }, ...markedText(part.text, part.ranges))));
  }
}
