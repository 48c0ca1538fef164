/**
 * What the page knows of one room: a window of its messages without holes, the position in its
 * changes, the markers, and what is on its way out. Pure: frames and pages in, rows out.
 *
 * Two orders must not be mixed up. `seq` places a message; `ev` says how new a piece of knowledge
 * is. A frame is dropped by the room's `ev`, a version of a message by the message's own.
 */
import { dayKey } from './text.js';

/** Messages of one person this close together form a group. */
const GROUP_MS = 5 * 60_000;
/** Most messages kept in the window; beyond it the far end goes and is read again when needed. */
const MAX_WINDOW = 600;

/**
 * @typedef {import('./beseda.js').Message} Message
 * @typedef {import('./beseda.js').Page} Page
 * @typedef {{client_msg_id: string, text: string, created_at: string, failed: boolean, error: ?Error}} Pending
 *
 * @typedef {object} Row
 * @property {'day' | 'new' | 'message'} kind
 * @property {string} key                      stays the same while a row lives, through its acknowledgement too
 * @property {string} [at]                     for `day`
 * @property {Message | Pending} [message]
 * @property {boolean} [own]
 * @property {'sending' | 'failed' | 'sent' | 'read' | null} [tick]
 * @property {boolean} [first]                 first and last of a group
 * @property {boolean} [last]
 */

export class Timeline {
  /** @type {Message[]} ascending by seq */
  messages = [];
  /** @type {Pending[]} in the order of sending */
  pending = [];
  loaded = false;
  hasMoreBefore = false;
  /** Whether the window reaches the newest message. */
  atEnd = false;
  headSeq = 0;
  ev = 0;
  epoch = '';
  readSeq = 0;
  peerReadSeq = 0;
  /** Other people's messages above this stand below the "new messages" line; null: no line. */
  lineAfter = null;
  /** @type {?object[]} frames that came while a page is on its way and may be newer than it */
  #meanwhile = null;
  #loads = 0;
  /** Counts the fresh starts; a page asked for before the last one no longer fits. */
  #generation = 0;

  /** @param {string} chatId @param {string} me */
  constructor(chatId, me) {
    this.chatId = chatId;
    this.me = me;
  }

  /** @returns {import('./beseda.js').Position} */
  get position() {
    return { ev: this.ev, epoch: this.epoch };
  }

  get lowSeq() { return this.messages[0]?.seq ?? 0; }
  get highSeq() { return this.messages.at(-1)?.seq ?? 0; }

  /**
   * Reads a page and takes it in. Frames that overtake its answer are applied once more on top of
   * it: they may have found nothing to change the first time.
   * @param {() => Promise<Page>} read
   * @param {(page: Page) => void} take
   * @param {{startsOver?: boolean}} [options]
   * @returns {Promise<boolean>} whether the page was still wanted when it came
   */
  async load(read, take, { startsOver = false } = {}) {
    if (startsOver) this.#generation += 1;
    const generation = this.#generation;
    this.#loads += 1;
    this.#meanwhile ??= [];
    try {
      const page = await read();
      if (generation !== this.#generation) return false;
      take(page);
      for (const frame of this.#meanwhile) this.#change(frame);
      return true;
    } finally {
      this.#loads -= 1;
      if (this.#loads === 0) this.#meanwhile = null;
    }
  }

  /** Starts over with a page: the first one, one around a seq, or the newest after a reset. */
  replace(page, { keepPosition = false } = {}) {
    this.messages = [...page.results];
    this.hasMoreBefore = page.has_more_before;
    this.atEnd = !page.has_more_after;
    // A jump to another place leaves the socket where it is: its position stays the frames' own.
    if (!keepPosition || !this.loaded) {
      this.ev = page.head_ev;
      this.epoch = page.epoch;
      this.headSeq = page.head_seq;
      this.readSeq = page.read_seq;
      this.peerReadSeq = page.peer_read_seq;
    }
    this.loaded = true;
    this.#learn(page);
    for (const message of page.results) this.#forgetPending(message);
  }

  prepend(page) {
    const known = this.lowSeq;
    this.messages.unshift(...page.results.filter((message) => message.seq < known));
    this.hasMoreBefore = page.has_more_before;
    this.#learn(page);
    if (this.messages.length > MAX_WINDOW) {
      this.messages.length = MAX_WINDOW;
      this.atEnd = false;
    }
  }

  append(page) {
    const known = this.highSeq;
    this.messages.push(...page.results.filter((message) => message.seq > known));
    this.atEnd = !page.has_more_after;
    this.#learn(page);
    for (const message of page.results) this.#forgetPending(message);
    this.#trimStart();
  }

  #learn(page) {
    this.headSeq = Math.max(this.headSeq, page.head_seq);
    this.readSeq = Math.max(this.readSeq, page.read_seq);
    this.peerReadSeq = Math.max(this.peerReadSeq, page.peer_read_seq);
  }

  /**
   * Takes a frame of this room.
   * @returns {boolean} whether it was news
   */
  apply(frame) {
    if (frame.type === 'reset') {
      this.ev = frame.head_ev;
      this.epoch = frame.epoch;
      this.#generation += 1;
      if (this.#meanwhile) this.#meanwhile = [];
      return true;
    }
    if (frame.type === 'synced') {
      this.ev = Math.max(this.ev, frame.ev);
      return false;
    }
    if (!(frame.ev > this.ev)) return false;
    this.ev = frame.ev;
    this.#meanwhile?.push(frame);
    this.#change(frame);
    return true;
  }

  #change(frame) {
    switch (frame.type) {
      case 'message.created':
      case 'message.updated':
        return this.accept(frame.message);
      case 'message.deleted':
        return this.#bury(frame);
      case 'chat.read':
        if (frame.user_id === this.me) this.readSeq = Math.max(this.readSeq, frame.read_seq);
        else this.peerReadSeq = Math.max(this.peerReadSeq, frame.read_seq);
    }
  }

  /**
   * Takes a version of a message, from a frame or from the answer to a call.
   * @param {Message} message
   */
  accept(message) {
    this.#forgetPending(message);
    this.headSeq = Math.max(this.headSeq, message.seq);
    const index = this.messages.findLastIndex((other) => other.seq <= message.seq);
    const found = this.messages[index];
    if (found?.seq === message.seq) {
      if (message.ev >= found.ev) this.messages[index] = message;
    } else if (this.#inWindow(message.seq)) {
      this.messages.splice(index + 1, 0, message);
      if (index + 2 === this.messages.length) this.#trimStart();
    }
  }

  /** A deleted message keeps what the frame does not repeat: whose it was, and when. */
  #bury({ chat_id, message_id, seq, ev, deleted_at }) {
    const known = this.messages.find((message) => message.message_id === message_id)
      ?? { chat_id, message_id, seq, ev, sender_id: null, client_msg_id: null, created_at: null, edited_at: null };
    if (known.ev <= ev) this.accept({ ...known, ev, deleted_at, text: '', metadata: null });
  }

  #inWindow(seq) {
    if (!this.loaded) return false;
    if (seq > this.highSeq) return this.atEnd;
    return seq > this.lowSeq || !this.hasMoreBefore;
  }

  #trimStart() {
    const excess = this.messages.length - MAX_WINDOW;
    if (excess <= 0 || !this.atEnd) return;
    this.messages.splice(0, excess);
    this.hasMoreBefore = true;
  }

  #forgetPending({ sender_id, client_msg_id }) {
    if (sender_id !== this.me || !client_msg_id) return;
    this.pending = this.pending.filter((pending) => pending.client_msg_id !== client_msg_id);
  }

  /** Whether something of the other's may stand below the reader's marker. */
  get hasUnread() {
    if (this.headSeq > this.highSeq || this.lowSeq > this.readSeq + 1) return this.headSeq > this.readSeq;
    return this.messages.some(({ seq, sender_id, deleted_at }) =>
      seq > this.readSeq && sender_id !== this.me && !deleted_at);
  }

  /**
   * Draws the "new messages" line where the reader stopped; a line that they have not read past
   * stays where it is.
   */
  drawLine() {
    if (this.lineAfter === null || this.readSeq > this.lineAfter) this.lineAfter = this.readSeq;
  }

  /** @returns {Row[]} from top to bottom */
  rows() {
    /** @type {Row[]} */
    const rows = [];
    let day = null;
    let lined = this.lineAfter === null;
    let previous = null;
    for (const message of [...this.messages, ...(this.atEnd ? this.pending : [])]) {
      const isPending = message.seq === undefined;
      const own = isPending || message.sender_id === this.me;
      const at = message.created_at ?? previous?.at ?? null;
      if (at && dayKey(new Date(at)) !== day) {
        day = dayKey(new Date(at));
        rows.push({ kind: 'day', key: `day:${day}`, at });
        previous = null;
      }
      if (!lined && !own && !message.deleted_at && message.seq > this.lineAfter) {
        rows.push({ kind: 'new', key: 'new' });
        lined = true;
        previous = null;
      }
      const sender = isPending ? this.me : message.sender_id;
      const first = !previous || previous.sender !== sender || Date.parse(at) - Date.parse(previous.at) > GROUP_MS;
      if (previous && !first) previous.row.last = false;
      /** @type {Row} */
      const row = { kind: 'message', key: rowKey(message, own), message, own, tick: null, first, last: true };
      if (own && !message.deleted_at) row.tick = this.#tick(message);
      rows.push(row);
      previous = { sender, at, row };
    }
    return rows;
  }

  #tick(message) {
    if (message.seq === undefined) return message.failed ? 'failed' : 'sending';
    return message.seq <= this.peerReadSeq ? 'read' : 'sent';
  }
}

function rowKey(message, own) {
  return own && message.client_msg_id ? `c:${message.client_msg_id}` : `m:${message.message_id}`;
}
