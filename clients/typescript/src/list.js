/** Reads the list of chats, keeps it right, and follows those at its top. */
import { asApiError } from './errors.js';
import { backoff } from './connection.js';

/** Most chats that the server gives in one answer, and the least that are asked for. */
const MAX_PAGE = 100;
const MIN_PAGE = 30;
/** Frames of one burst lead to one refresh, where no inbox tells the badge. */
const REFRESH_DELAY_MS = 300;

export class ListSync {
  #options;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #reading = false;
  #readAgain = false;
  #failures = 0;

  /**
   * @param {object} options
   * @param {import('./api.js').Api} options.api
   * @param {import('./chats.js').ChatList} options.chats
   * @param {import('./live.js').Live} options.live
   * @param {import('./history.js').History} options.history
   * @param {string | null} options.only     the one chat that is followed, instead of many
   * @param {number} options.followed        how many chats at the top are followed though they are not open
   * @param {() => boolean} options.isEnded
   * @param {() => void} options.onChanged
   * @param {<T>(chatId: string, call: Promise<T>) => Promise<T>} options.unlessGone
   */
  constructor(options) {
    this.#options = options;
  }

  /** Reads it anew. */
  async refresh() {
    const { only, isEnded, onChanged } = this.#options;
    clearTimeout(this.#timer);
    this.#readAgain = this.#reading;
    if (this.#reading || isEnded()) return;
    this.#reading = true;
    try {
      await (only ? this.#readOne(only) : this.#readTop());
      this.#failures = 0;
      this.followTop();
    } catch (cause) {
      const error = asApiError(cause);
      // A token that is refused was told already, and another one brings a refresh with it.
      if (error.temporary && !isEnded()) this.#refreshIn(error.retryAfterMs ?? backoff(this.#failures++));
    }
    this.#reading = false;
    onChanged();
    if (this.#readAgain && !isEnded()) this.#refreshIn(0);
  }

  /** The one chat has changed, and no inbox tells what that means for the badge. */
  refreshSoon() {
    this.#refreshIn(REFRESH_DELAY_MS);
  }

  /** @param {number} ms */
  #refreshIn(ms) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.refresh(), ms);
  }

  stop() {
    clearTimeout(this.#timer);
  }

  /** As many chats as are there already: what is not asked for stays as it was, and what is gone stays too. */
  async #readTop() {
    const { api, chats } = this.#options;
    const asked = chats.now;
    const wanted = chats.size;
    const limit = Math.min(MAX_PAGE, Math.max(MIN_PAGE, wanted));
    // Archived chats count too, and no page of the list has them.
    const [top, summary] = await Promise.all([api.listChats({ limit }), api.unread()]);
    let { results, next = null } = top;
    while (next && results.length < wanted && !chats.isPast(asked)) {
      const page = await api.listChats({ limit: MAX_PAGE, cursor: next });
      results = results.concat(page.results);
      next = page.next ?? null;
    }
    chats.setTop(results, next, asked);
    chats.setSummary(summary, asked);
  }

  /** @param {string} chatId */
  async #readOne(chatId) {
    const { api, chats } = this.#options;
    const asked = chats.now;
    const chat = await api.getChat(chatId);
    chats.put(chat, asked);
    chats.setTotal(chat.unread_count, asked);
  }

  async loadMore() {
    const { api, chats, onChanged } = this.#options;
    const { next: cursor, now: asked } = chats;
    if (!cursor) return;
    const { results, next } = await api.listChats({ cursor });
    chats.addPage(cursor, results, next ?? null, asked);
    onChanged();
  }

  /** Opens the chat with a user, or makes it. @param {string} userId @returns {Promise<string>} its id */
  openWith(userId) {
    return this.take(() => this.#options.api.openChat(userId));
  }

  /**
   * Takes a chat that a call gives, a new one or one that it changed.
   * @param {() => Promise<import('./schema.js').Chat>} call
   */
  async take(call) {
    const { chats, onChanged } = this.#options;
    const asked = chats.now;
    const chat = await call();
    chats.put(chat, asked);
    // A list that is on its way may not know of it yet.
    this.#readAgain = this.#reading;
    onChanged();
    return chat.chat_id;
  }

  /** Reads those of the chats that are archived. */
  async readArchived() {
    const { api, chats, onChanged } = this.#options;
    /** @type {string | undefined} */
    let cursor;
    do {
      const asked = chats.now;
      const page = await api.listChats({ filter: 'archived', limit: MAX_PAGE, cursor });
      for (const chat of page.results) chats.put(chat, asked);
      cursor = page.next ?? undefined;
    } while (cursor);
    onChanged();
  }

  /** The chat as it is known, or as the server tells. @param {string} id or `room_name` */
  async find(id) {
    const { api, chats, unlessGone } = this.#options;
    const known = chats.get(id);
    if (known) return known;
    const asked = chats.now;
    const chat = await unlessGone(id, api.getChat(id));
    chats.put(chat, asked);
    return chat;
  }

  followTop() {
    const { only, chats, live, history, followed } = this.#options;
    if (only) return;
    const top = new Set(chats.list().slice(0, followed).map(({ chat_id: chatId }) => chatId));
    // Or every chat that was ever at the top would stay, up to the server's limit.
    for (const chatId of live.followed()) {
      if (!top.has(chatId) && !history.get(chatId)?.loaded) live.unfollow(chatId);
    }
    for (const chatId of top) history.follow(chatId);
  }
}
