/**
 * What a client knows of one chat: a window of its messages without holes, the position in its
 * changes, the markers, and what is on its way out. Pure: frames and pages in, state out.
 *
 * Two orders must not be mixed up. `seq` places a message; `ev` says how new a piece of knowledge
 * is. A frame is dropped by the chat's `ev`, a version of a message by the message's own.
 */
import { answered, emptied, ownReactions, requoted } from './carried.js';
import { Pins } from './pins.js';
import { Wishes } from './reactions.js';

/** Most messages kept in the window; beyond it the far end goes and is read again when needed. */
const MAX_WINDOW = 600;

/**
 * @typedef {import('./schema.js').Message} FullMessage
 * @typedef {Omit<FullMessage, 'sender_id' | 'created_at'> & {sender_id: string | null, created_at: string | null}} Message
 *   a tombstone of a message never seen has neither sender nor time
 * @typedef {import('./schema.js').HistoryView} Page
 * @typedef {import('./frames.js').ServerFrame} ServerFrame
 * @typedef {import('./frames.js').ChangeFrame} ChangeFrame
 * @typedef {import('./frames.js').SilentMark} SilentMark
 *
 * @typedef {object} Pending             a message on its way out
 * @property {string} client_msg_id      stays its own through every attempt
 * @property {string} text
 * @property {Record<string, unknown> | null} metadata
 * @property {import('./schema.js').Mentions} [mentions]  whom it mentions
 * @property {import('./schema.js').Quote | null} reply_to  the message that it answers
 * @property {import('./uploads.js').Upload[]} uploads       the files that go with it
 * @property {string} created_at         by this machine's clock
 * @property {boolean} failed            no attempt is made any more until `Client.retry`
 * @property {import('./errors.js').ApiError | null} error   why it failed
 */

export class Timeline {
  /** @type {Message[]} ascending by seq */
  messages = [];
  /** @type {Pending[]} in the order of sending */
  pending = [];
  #pins = new Pins();
  /** One's own reactions that are shown before the server has them. */
  wishes = new Wishes();
  loaded = false;
  hasMoreBefore = false;
  /** Whether the window reaches the newest message. */
  atEnd = false;
  headSeq = 0;
  ev = 0;
  epoch = '';
  readSeq = 0;
  /**
   * Up to which message somebody else has read: in a direct chat the other member, in a group the one who has
   * read furthest. 0 in a chat without receipts.
   */
  peerReadSeq = 0;
  /** How far each other member has read; who is missing has read nothing. @type {Map<string, number>} */
  receipts = new Map();
  /**
   * How many members are online, as the latest subscription said; null: unknown, or the chat is too large. In a
   * chat without receipts nothing else tells who is.
   * @type {number | null}
   */
  onlineCount = null;
  /**
   * Other people's messages above this stand below the "new messages" line; null: no line.
   * @type {number | null}
   */
  lineAfter = null;
  /** Whether every `ev` comes now, one by one. */
  synced = false;
  /** @type {(ChangeFrame | SilentMark)[] | null} frames that came while a page is on its way and may be newer than it */
  #meanwhile = null;
  #loads = 0;
  /** Counts the fresh starts; a page asked for before the last one no longer fits. */
  #generation = 0;

  /** @param {string} chatId @param {string} me */
  constructor(chatId, me) {
    this.chatId = chatId;
    this.me = me;
  }

  /** Where to resume. @returns {import('./frames.js').Position} */
  get position() {
    return { ev: this.ev, epoch: this.epoch };
  }

  /** The pinned messages, the latest pin first; null: not read (`Client.loadPins`). @returns {readonly Message[] | null} */
  get pins() { return this.#pins.list; }

  /** @param {readonly Message[]} messages all that are pinned */
  setPins(messages) { this.#pins.set(messages); }

  get lowSeq() { return this.messages[0]?.seq ?? 0; }
  get highSeq() { return this.messages.at(-1)?.seq ?? 0; }

  /**
   * Reads a page and takes it in. Frames that overtake its answer are applied once more on top of
   * it: they may have found nothing to change the first time.
   * @template Answer
   * @param {() => Promise<Answer>} read
   * @param {(page: Answer) => void} take
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

  /**
   * Starts over with a page: the first one, one around a seq, or the newest after a reset.
   * @param {Page} page
   */
  replace(page, { keepPosition = false } = {}) {
    this.messages = this.#shownOf(page.results);
    this.hasMoreBefore = page.has_more_before;
    this.atEnd = !page.has_more_after;
    // A jump to another place leaves the socket where it is: its position stays the frames' own.
    if (!keepPosition || !this.loaded) {
      // What came while the page was on its way is applied on top of it.
      this.ev = page.epoch === this.epoch ? Math.max(this.ev, page.head_ev) : page.head_ev;
      this.epoch = page.epoch;
      this.headSeq = page.head_seq;
      this.readSeq = page.read_seq;
      this.peerReadSeq = page.peer_read_seq ?? this.#furthest();
    }
    this.loaded = true;
    this.#learn(page);
    for (const message of page.results) this.#forgetPending(message);
  }

  /**
   * @param {Page} page   the one before the window
   * @param {number} low  the window's first seq when it was asked for; trimmed since, there would be a hole
   */
  prepend(page, low = this.lowSeq) {
    if (low !== this.lowSeq) return;
    this.messages.unshift(...this.#shownOf(page.results.filter((message) => message.seq < low)));
    this.hasMoreBefore = page.has_more_before;
    this.#learn(page);
    if (this.messages.length > MAX_WINDOW) {
      this.messages.length = MAX_WINDOW;
      this.atEnd = false;
    }
  }

  /**
   * @param {Page} page    the one after the window
   * @param {number} high  the window's last seq when it was asked for, as above
   */
  append(page, high = this.highSeq) {
    if (high !== this.highSeq) return;
    this.messages.push(...this.#shownOf(page.results.filter((message) => message.seq > high)));
    this.atEnd = !page.has_more_after;
    this.#learn(page);
    for (const message of page.results) this.#forgetPending(message);
    this.#trimStart();
  }

  /** @param {Page} page */
  #learn(page) {
    this.headSeq = Math.max(this.headSeq, page.head_seq);
    this.readSeq = Math.max(this.readSeq, page.read_seq);
    this.peerReadSeq = Math.max(this.peerReadSeq, page.peer_read_seq ?? 0);
  }

  /**
   * Takes a frame of this chat.
   * @param {ServerFrame} frame
   * @returns {'news' | 'old' | 'gap'}  `gap`: something before it is missing, nothing was taken
   */
  apply(frame) {
    switch (frame.type) {
      case 'reset':
        this.ev = frame.head_ev;
        this.epoch = frame.epoch;
        this.synced = false;
        this.#generation += 1;
        if (this.#meanwhile) this.#meanwhile = [];
        return 'news';
      case 'subscribed':
        this.#takeMarkers(frame);
        // A server of before says nothing of it.
        this.onlineCount = frame.online_count ?? null;
        this.synced = false;
        return 'old';
      case 'catchup':
        // What was superseded is left out from here to `synced`, so numbers may be skipped.
        this.synced = false;
        return 'old';
      case 'synced':
        this.ev = Math.max(this.ev, frame.ev);
        this.synced = true;
        return 'old';
      case 'message.created':
      case 'message.updated':
      case 'message.deleted':
      case 'chat.read':
      case 'member.joined':
      case 'member.updated':
      case 'member.left':
      case 'chat.changed':
      case 'skipped':
        if (frame.ev !== null) {
          if (!(frame.ev > this.ev)) return 'old';
          // `skipped` stands for all numbers up to its own.
          if (this.synced && frame.type !== 'skipped' && frame.ev > this.ev + 1) return 'gap';
          this.ev = frame.ev;
        }
        this.#meanwhile?.push(frame);
        this.#change(frame);
        return 'news';
      default:
        return 'old';
    }
  }

  /**
   * What is known of the markers when a subscription begins. A mark without a number is in no resume.
   * @param {Extract<ServerFrame, {type: 'subscribed'}>} frame
   */
  #takeMarkers({ read_seq: readSeq, peer_read_seq: peerReadSeq, receipts }) {
    this.readSeq = Math.max(this.readSeq, readSeq);
    this.receipts = new Map(receipts.filter(({ user_id }) => user_id !== this.me).map((one) => [one.user_id, one.read_seq]));
    this.peerReadSeq = Math.max(this.peerReadSeq, peerReadSeq ?? 0, this.#furthest());
  }

  #furthest() {
    return Math.max(0, ...this.receipts.values());
  }

  /** @param {ChangeFrame | SilentMark} frame */
  #change(frame) {
    switch (frame.type) {
      case 'message.created':
      case 'message.updated':
        return this.accept(frame.message);
      case 'message.deleted':
        return this.#bury(frame);
      case 'chat.read':
        if (frame.user_id === this.me) {
          this.readSeq = Math.max(this.readSeq, frame.read_seq);
        } else {
          this.receipts.set(frame.user_id, Math.max(this.receipts.get(frame.user_id) ?? 0, frame.read_seq));
          this.peerReadSeq = Math.max(this.peerReadSeq, frame.read_seq);
        }
        return undefined;
      case 'member.left':
        this.receipts.delete(frame.user_id);
        return undefined;
      case 'chat.changed':
        // A chat that has outgrown its receipts tells of none any more.
        if (!frame.receipts) this.receipts.clear();
        return undefined;
      default:
        return undefined;
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
      if (message.ev < found.ev) return;
      this.messages[index] = this.#shown(message, this.wishes.told(found));
    } else if (this.#inWindow(message.seq)) {
      this.messages.splice(index + 1, 0, this.#shown(message));
      if (index + 2 === this.messages.length) this.#trimStart();
    }
    this.#requote(message);
    this.#pins.take(message);
  }

  /** A version of a message, with one's own reactions. @param {Message} message @param {Message} [before] */
  #shown(message, before) {
    return this.wishes.shown({ ...message, my_reactions: ownReactions(message, before?.my_reactions, this.me) }, this.me);
  }

  /** @param {readonly Message[]} messages */
  #shownOf(messages) {
    return messages.map((message) => this.#shown(message));
  }

  /** What quotes a message shows it as it is now. @param {Message} message */
  #requote(message) {
    for (const [index, other] of this.messages.entries()) this.messages[index] = requoted(other, message);
    for (const pending of this.pending) pending.reply_to = requoted(pending, message).reply_to;
  }

  // ---- one's own reactions ----

  /** @param {Message} message @param {import('./reactions.js').Wish} wish */
  wish(message, wish) {
    const index = this.messages.findIndex(({ message_id: id }) => id === message.message_id);
    const shown = this.messages[index] ?? message;
    this.wishes.add(shown, wish);
    if (index >= 0) this.messages[index] = this.wishes.shown(this.wishes.told(shown), this.me);
  }

  /**
   * A reaction is done, or refused.
   * @param {string} messageId @param {import('./reactions.js').Wish} wish
   * @param {{reactions: import('./schema.js').Reaction[], told: number | undefined, emoji: string} | null} answer
   */
  settle(messageId, wish, answer) {
    const isLatest = this.wishes.has(messageId, wish);
    const index = this.messages.findIndex(({ message_id: id }) => id === messageId);
    const shown = this.messages[index];
    const told = shown && this.wishes.told(shown);
    this.wishes.remove(messageId, wish);
    if (!told) return;
    this.messages[index] = this.wishes.shown(answer && isLatest ? answered(told, answer, wish.on, this.me) : told, this.me);
  }

  /**
   * A deleted message keeps its sender and its time, which the frame does not repeat.
   * @param {Extract<ChangeFrame, {type: 'message.deleted'}>} frame
   */
  #bury({ chat_id, message_id, seq, ev, deleted_at }) {
    /** @type {Message} */
    const known = this.messages.find((message) => message.message_id === message_id)
      ?? {
        chat_id, message_id, seq, ev, type: 'text', sender_id: null, text: '', metadata: null, mentions: [], system: null,
        reply_to: null, attachments: [], reactions: [], pinned_at: null,
        client_msg_id: null, created_at: null, edited_at: null, deleted_at,
      };
    if (known.ev <= ev) this.accept(emptied(known, { ev, deleted_at }));
  }

  /** @param {number} seq */
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

  /** @param {Message} message */
  #forgetPending({ sender_id, client_msg_id }) {
    if (!sender_id || sender_id !== this.me || !client_msg_id) return;
    this.pending = this.pending.filter((pending) => pending.client_msg_id !== client_msg_id);
  }

  /** Whether something of others may stand below the reader's marker. */
  get hasUnread() {
    if (this.headSeq > this.highSeq || this.lowSeq > this.readSeq + 1) return this.headSeq > this.readSeq;
    return this.messages.some((message) => message.seq > this.readSeq && this.#counts(message));
  }

  /** Whether a message is unread above the reader's marker: what is of others, and no tombstone or system message. @param {Message} message */
  #counts({ type, sender_id: sender, deleted_at: deletedAt }) {
    return type !== 'system' && sender !== this.me && !deletedAt;
  }

  /**
   * Draws the "new messages" line where the reader stopped; a line that they have not read past
   * stays where it is.
   */
  drawLine() {
    if (this.lineAfter === null || this.readSeq > this.lineAfter) this.lineAfter = this.readSeq;
  }
}
