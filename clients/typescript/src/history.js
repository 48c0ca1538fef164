/** The chats that are open: their timelines, read page by page, and followed from there on. */
import { Timeline } from './timeline.js';
import { surely } from './surely.js';

/** With more unread than this, a chat opens at the first of them, not at the end. */
const UNREAD_FROM_END = 30;

/** Most pins of a chat, the server's bound: one page has all. */
const MAX_PINS = 100;

/**
 * @typedef {import('./schema.js').Chat} Chat
 * @typedef {import('./timeline.js').Page} Page
 */

export class History {
  #options;
  #me = '';
  /** @type {Map<string, Timeline>} */
  #timelines = new Map();
  /** @type {Map<Timeline, Promise<void>>} first pages on their way */
  #opening = new Map();

  /**
   * @param {object} options
   * @param {import('./api.js').Api} options.api
   * @param {import('./live.js').Live} options.live
   * @param {() => boolean} options.isEnded
   * @param {(chatId: string) => void} options.onChanged
   * @param {() => void} options.onTrouble  a first page could not be read so far; it is tried again
   * @param {<T>(chatId: string, call: Promise<T>) => Promise<T>} options.unlessGone
   */
  constructor(options) {
    this.#options = options;
  }

  /** @param {string} userId the user of these timelines, for those too that exist already */
  set me(userId) {
    this.#me = userId;
    for (const timeline of this.#timelines.values()) timeline.me = userId;
  }

  /** @param {string} chatId @returns {Timeline | undefined} */
  get(chatId) {
    return this.#timelines.get(chatId);
  }

  all() {
    return this.#timelines.entries();
  }

  /** @param {string} chatId @returns {Timeline} */
  timelineOf(chatId) {
    const known = this.#timelines.get(chatId);
    if (known) return known;
    const made = new Timeline(chatId, this.#me);
    this.#timelines.set(chatId, made);
    return made;
  }

  /** Follows a chat from where its timeline is. One that is being opened is followed from its history on. @param {string} chatId */
  follow(chatId) {
    const timeline = this.#timelines.get(chatId);
    if (timeline && this.#opening.has(timeline)) return;
    this.#options.live.follow(chatId, () => {
      const current = this.#timelines.get(chatId);
      return current?.loaded ? current.position : null;
    });
  }

  /** After a stop: what is open is followed again. */
  followOpen() {
    for (const [chatId, timeline] of this.#timelines) if (timeline.loaded) this.follow(chatId);
  }

  /** @param {Chat} chat @returns {Promise<Timeline>} */
  async open({ chat_id: chatId, unread_count: unread, read_seq: readSeq }) {
    const { live } = this.#options;
    const timeline = this.timelineOf(chatId);
    timeline.lineAfter = null;
    if (timeline.loaded && unread) timeline.drawLine();
    if (!timeline.loaded) {
      // Once, however many wait for it: a second page would void the first.
      let opening = this.#opening.get(timeline);
      if (!opening) {
        // Followed so far without a position: the history decides from where.
        live.unfollow(chatId);
        const around = unread > UNREAD_FROM_END ? readSeq + 1 : undefined;
        opening = this.#loadSurely(timeline, { around, drawLine: unread > 0 })
          .finally(() => this.#opening.delete(timeline));
        this.#opening.set(timeline, opening);
      }
      await opening;
    }
    if (timeline.loaded && this.#timelines.get(chatId) === timeline) this.follow(chatId);
    return timeline;
  }

  /** Forgets a timeline, but for what is still to be sent, and follows it no longer. @param {string} chatId */
  close(chatId) {
    this.#options.live.unfollow(chatId);
    const closed = this.#timelines.get(chatId);
    this.#timelines.delete(chatId);
    if (closed?.pending.length) this.timelineOf(chatId).pending = closed.pending;
  }

  /** The chat is gone. @param {string} chatId */
  forget(chatId) {
    this.#options.live.unfollow(chatId);
    this.#timelines.delete(chatId);
  }

  // ---- pages ----

  /** Replaces the window, which may have holes, by the newest page. @param {Timeline} timeline */
  async startOver(timeline) {
    try {
      await this.#loadSurely(timeline, {});
      if (timeline.pins) await this.loadPins(timeline);
    } catch {
      // It is gone, which was told.
    }
  }

  /** Reads the pinned messages, which frames keep right from then on. @param {Timeline} timeline */
  async loadPins(timeline) {
    const { api, unlessGone, isEnded, onChanged } = this.#options;
    const { chatId } = timeline;
    // Frames come from the first page's position on: what is read later has nothing that they leave out.
    await this.#opening.get(timeline);
    const isWanted = () => this.#timelines.get(chatId) === timeline && !isEnded();
    let isTaken = false;
    const read = async () => {
      isTaken = await timeline.load(
        () => unlessGone(chatId, api.listPins(chatId, { limit: MAX_PINS })), ({ results }) => timeline.setPins(results));
    };
    // A fresh start may have voided the answer.
    while (!isTaken && isWanted()) await surely(read, isWanted);
    onChanged(chatId);
  }

  /** @param {Timeline} timeline @param {{around?: number, drawLine?: boolean}} how */
  #loadSurely(timeline, how) {
    const { isEnded, onTrouble } = this.#options;
    const isWanted = () => this.#timelines.get(timeline.chatId) === timeline && !isEnded();
    return surely(() => this.#load(timeline, how), isWanted, onTrouble);
  }

  /**
   * Reads the newest page, or one around a seq, in place of what is there.
   * @param {Timeline} timeline
   * @param {{around?: number, keepPosition?: boolean, drawLine?: boolean}} how
   */
  #load(timeline, { around, keepPosition, drawLine }) {
    const take = (/** @type {Page} */ page) => {
      timeline.replace(page, { keepPosition });
      if (drawLine) timeline.drawLine();
    };
    return this.#page(timeline, { around }, take, { startsOver: true });
  }

  /**
   * @param {Timeline} timeline
   * @param {{before?: number, after?: number, around?: number}} query
   * @param {(page: Page) => void} take
   * @param {{startsOver?: boolean}} [options]
   */
  async #page(timeline, query, take, options) {
    const { api, unlessGone, onChanged } = this.#options;
    const { chatId } = timeline;
    await timeline.load(() => unlessGone(chatId, api.history(chatId, query)), take, options);
    onChanged(chatId);
  }

  /** @param {Timeline} timeline */
  loadBefore(timeline) {
    const { lowSeq } = timeline;
    return this.#page(timeline, { before: lowSeq }, (page) => timeline.prepend(page, lowSeq));
  }

  /** @param {Timeline} timeline */
  loadAfter(timeline) {
    const { highSeq } = timeline;
    return this.#page(timeline, { after: highSeq }, (page) => timeline.append(page, highSeq));
  }

  /** @param {Timeline} timeline @param {number} seq */
  async showAround(timeline, seq) {
    if (!timeline.messages.some((message) => message.seq === seq)) {
      await this.#load(timeline, { around: seq, keepPosition: true });
    }
  }

  /** @param {Timeline} timeline */
  async showNewest(timeline) {
    if (!timeline.atEnd) await this.#load(timeline, { keepPosition: true });
  }
}
