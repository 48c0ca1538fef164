/** What is looked for beside the list: messages of all chats, by their words or because they mention one. */
import { attempt, byId } from './dom.js';
import { t } from './i18n.js';
import { resultRow } from './results.js';
import { SearchView } from './view-search.js';

const PAGE = 20;

export class FindView {
  #session;
  #onPick;
  #search;
  #next = null;
  #reads = 0;

  /**
   * @param {import('./session.js').Session} session
   * @param {{onPick: (message: object, ranges: import('./text.js').Range[]) => void}} options
   */
  constructor(session, { onPick }) {
    this.#session = session;
    this.#onPick = onPick;
    this.#search = new SearchView(session, 'find', {
      withChat: true,
      page: (query, cursor, signal) => session.api.searchAll({ query, cursor, limit: PAGE }, signal),
      onPick: ({ message, highlights }) => onPick(message, highlights),
      onOpen: () => { this.#closeMentions(); this.#cover('find'); },
      onClose: () => this.#cover(''),
    });
    byId('mentions-open').title = t('mentions');
    byId('mentions-open').addEventListener('click', () => (byId('mentions').hidden ? this.#openMentions() : this.#closeMentions()));
    byId('mentions-close').addEventListener('click', () => this.#closeMentions());
    byId('mentions').addEventListener('keydown', ({ key }) => { if (key === 'Escape') this.#closeMentions(); });
    byId('mentions-more').addEventListener('click', () => attempt(() => this.#read(this.#next)));
    session.on('chats', () => this.#showCount());
  }

  /** The list makes room for what was found. @param {string} by */
  #cover(by) {
    byId('chats').dataset.covered = by;
  }

  async #openMentions() {
    this.#search.close();
    this.#cover('mentions');
    byId('mentions').hidden = false;
    byId('mentions-open').setAttribute('aria-expanded', 'true');
    byId('mentions-results').replaceChildren();
    byId('mentions-close').focus();
    await attempt(() => this.#read());
  }

  #closeMentions() {
    if (byId('mentions').hidden) return;
    const hadFocus = byId('mentions').contains(document.activeElement);
    this.#reads += 1;
    byId('mentions').hidden = true;
    byId('mentions-open').setAttribute('aria-expanded', 'false');
    this.#cover('');
    if (hadFocus) byId('mentions-open').focus();
  }

  /** @param {?string} [cursor] */
  async #read(cursor = null) {
    this.#reads += 1;
    const read = this.#reads;
    const { results, next } = await this.#session.api.listMentions({ limit: PAGE, cursor: cursor ?? undefined });
    if (read !== this.#reads) return;
    this.#next = next;
    byId('mentions-more').hidden = next === null;
    byId('mentions-status').textContent = results.length || cursor ? '' : t('noMentions');
    byId('mentions-results').append(...results.map((message) =>
      resultRow(this.#session, { message, highlights: [] }, { onPick: () => this.#onPick(message, []), withChat: true })));
  }

  #showCount() {
    const { totalMentions } = this.#session.chats;
    byId('mentions-count').hidden = totalMentions === 0;
    byId('mentions-count').firstElementChild.textContent = String(totalMentions);
    byId('mentions-count').lastElementChild.textContent = t('mentionsOfYou', { count: totalMentions });
  }
}
