/**
 * One person's client: their rooms, the timelines of those that are open, what is on its way out,
 * and the live connection that keeps it all right. No DOM; views listen.
 */
import { Api, ApiError, asApiError } from './api.js';
import { Emitter } from './emitter.js';
import { Live } from './live.js';
import { newMessageId, Outbox } from './outbox.js';
import { Rooms } from './rooms.js';
import { Timeline } from './timeline.js';
import { Credentials, readClaims } from './token.js';
import { Typing } from './typing.js';

/** With more unread than this, a room opens at the first of them, not at the end. */
const UNREAD_FROM_END = 30;
/** A pause before what has to succeed is tried again. */
const RETRY_MS = 3_000;
/** A mark that failed is not tried again at once. */
const MARK_RETRY_MS = 5_000;
/** Why a message waits that `stop` held up. */
const STOPPED = new ApiError(0, { title: 'stopped' });
/** Frames of one burst lead to one refresh, where no inbox tells the badge. */
const REFRESH_DELAY_MS = 300;

/**
 * @typedef {import('./emitter.js').Events} Events
 * @typedef {import('./schema.js').Chat} Chat
 * @typedef {import('./timeline.js').Message} Message
 * @typedef {import('./timeline.js').Pending} Pending
 * @typedef {import('./timeline.js').Page} Page
 * @typedef {import('./frames.js').ServerFrame} ServerFrame
 * @typedef {import('./connection.js').ConnectionState} ConnectionState
 *
 * @typedef {object} Options
 * @property {string | URL} url        where Beseda lives, for example `https://chat.example/`
 * @property {string | null} [token]   the host application's JWT; or
 * @property {import('./token.js').GetToken | null} [getToken]  how to get one, whenever one is needed
 * @property {string | null} [chat]    a `chat_id`: follow this one chat over a socket of its own,
 *   instead of all of them with an inbox
 * @property {number} [followed]       how many rooms at the top of the list are followed for presence
 *   and typing though they are not open (20)
 * @property {typeof fetch} [fetch]
 * @property {import('./connection.js').SocketClass} [WebSocket]  where the platform has none: Node.js 20 with `ws`
 * @property {() => number} [random]
 */

export class Client extends Emitter {
  rooms = new Rooms();
  typing = new Typing(() => this.emit('typing', {}));
  /** @type {ConnectionState} */
  state = { phase: 'idle' };
  /** The user's own id, known once there is a token. */
  me = '';
  #credentials;
  #only;
  #followedRooms;
  /** @type {Map<string, Timeline>} */
  #timelines = new Map();
  /** @type {Map<string, Outbox>} */
  #outboxes = new Map();
  /** @type {Map<Timeline, Promise<void>>} first pages on their way */
  #opening = new Map();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #refreshTimer;
  /** @type {string | null} */
  #epoch = null;
  /** Why the server refused the token; it says so in REST only. */
  #refused = 'token_expired';
  /** @type {Set<string>} chats with a mark on its way */
  #marking = new Set();
  #refreshing = false;
  #refreshAgain = false;
  /** Stopped: whatever is still tried ends. */
  #ended = false;

  /** @param {Options} options */
  constructor({ url, token = null, getToken = null, chat = null, followed = 20, fetch, WebSocket: Socket, random }) {
    super();
    if (!Socket && !globalThis.WebSocket) {
      throw new TypeError('no WebSocket here: give one, or run Node.js 22 (20: --experimental-websocket)');
    }
    this.#credentials = new Credentials({
      token,
      // Somebody else may have signed in meanwhile; what is under way must not go out as theirs.
      getToken: getToken && (async (reason) => {
        const fresh = await getToken(reason);
        return fresh && this.#isMine(fresh) ? fresh : null;
      }),
    });
    this.#only = chat;
    this.#followedRooms = chat ? 0 : followed;
    this.#credentials.onToken = (fresh) => {
      this.me = readClaims(fresh)?.sub ?? this.me;
      // What was written before the first token is this person's too.
      for (const timeline of this.#timelines.values()) timeline.me = this.me;
    };
    if (token) this.#credentials.onToken(token);
    this.api = new Api({
      url,
      credentials: this.#credentials,
      fetch,
      onUnauthenticated: ({ code }) => {
        this.#refused = code;
        this.emit('token', { refused: code });
      },
    });
    this.live = new Live({
      api: this.api,
      credentials: this.#credentials,
      only: chat,
      onFrame: (frame) => this.#onFrame(frame),
      onState: (state) => this.#onState(state),
      onGone: (chatId) => this.#onGone(chatId),
      WebSocket: Socket,
      random,
    });
  }

  /**
   * Connects, and stays connected. Resolves once the list of rooms was read, or could not be: from
   * then on it is kept right, and `state` tells of the connection.
   */
  async start() {
    this.#ended = false;
    await this.#credentials.current().catch(() => null);
    if (this.#ended) return;
    this.live.start();
    for (const [chatId, timeline] of this.#timelines) {
      if (timeline.loaded) this.live.follow(chatId, this.#positionOf(chatId));
    }
    // The list need not wait for the socket.
    const only = this.#only;
    if (only) await this.#surely(() => this.open(only), () => true);
    else await this.refresh();
  }

  /** Ends it; what has not been sent stays in the timelines, and goes out after another `start`. */
  stop() {
    this.#ended = true;
    clearTimeout(this.#refreshTimer);
    for (const outbox of this.#outboxes.values()) outbox.clear();
    for (const timeline of this.#timelines.values()) {
      for (const pending of timeline.pending.filter(({ failed }) => !failed)) {
        Object.assign(pending, { failed: true, error: STOPPED });
      }
    }
    this.live.stop();
  }

  /** @param {string} token */
  #isMine(token) {
    return !this.me || readClaims(token)?.sub === this.me;
  }

  /** @param {string} token of the same person */
  setToken(token) {
    if (!this.#isMine(token)) throw new TypeError('this token is of somebody else');
    this.#credentials.set(token);
    this.live.renew(token);
    this.#wakeOutboxes();
    this.refresh();
  }

  /** The page or the network is back: what waits need not wait any longer. */
  wake() {
    this.live.wake();
  }

  /** Tries again after the connection `stopped`, at the user's request. */
  restart() {
    this.live.restart();
    this.refresh();
  }

  // ---- the list ----

  /** Reads the list anew. It follows the server by itself; this is for those who do not trust it. */
  async refresh() {
    clearTimeout(this.#refreshTimer);
    this.#refreshAgain = this.#refreshing;
    if (this.#refreshing || this.#ended) return;
    this.#refreshing = true;
    try {
      await (this.#only ? this.#readOne(this.#only) : this.#readList());
      this.#followTop();
    } catch {
      // Every connection begins with another try; a token that is refused was told already.
    }
    this.#refreshing = false;
    this.emit('rooms', {});
    if (this.#refreshAgain) this.#refreshIn(0);
  }

  async #readList() {
    const limit = Math.min(100, Math.max(30, this.rooms.size));
    const { results, next } = await this.api.listChats({ limit });
    this.rooms.setTop(results, next ?? null);
    this.rooms.totalUnread = next
      ? (await this.api.unread()).total
      : results.reduce((sum, chat) => sum + chat.unread_count, 0);
  }

  /** @param {string} chat */
  async #readOne(chat) {
    const known = await this.api.getChat(chat);
    this.rooms.put(known);
    this.rooms.totalUnread = known.unread_count;
  }

  /** A list that is on its way may not know of this room yet, or know it still. */
  #onRoomsChanged() {
    this.#refreshAgain = this.#refreshing;
    this.emit('rooms', {});
  }

  async loadMoreRooms() {
    if (!this.rooms.next) return;
    const { results, next } = await this.api.listChats({ cursor: this.rooms.next });
    this.rooms.addPage(results, next ?? null);
    this.emit('rooms', {});
  }

  /** @param {number} ms */
  #refreshIn(ms) {
    clearTimeout(this.#refreshTimer);
    this.#refreshTimer = setTimeout(() => this.refresh(), ms);
  }

  #followTop() {
    if (this.#only) return;
    const top = new Set(this.rooms.list().slice(0, this.#followedRooms).map(({ chat_id: chatId }) => chatId));
    // Or every room that was ever at the top would stay, up to the server's limit.
    for (const chatId of this.live.followed()) {
      if (!top.has(chatId) && !this.#timelines.get(chatId)?.loaded) this.live.unfollow(chatId);
    }
    for (const chatId of top) {
      const timeline = this.#timelines.get(chatId);
      // One that is being opened is followed from its history on.
      if (!timeline || !this.#opening.has(timeline)) this.live.follow(chatId, this.#positionOf(chatId));
    }
  }

  // ---- rooms ----

  /** The room with a person, a new one where there is none. @param {string} userId @returns {Promise<string>} its id */
  async openWith(userId) {
    const chat = await this.api.openChat(userId);
    this.rooms.put(chat);
    this.#onRoomsChanged();
    return chat.chat_id;
  }

  /** The room as it is known, or as the server tells. @param {string} id or `room_name` */
  async find(id) {
    const known = this.rooms.get(id);
    if (known) return known;
    const chat = await this.#unlessGone(id, this.api.getChat(id));
    this.rooms.put(chat);
    return chat;
  }

  /**
   * Opens a room: reads its history, and follows it from there on.
   * @param {string} id or `room_name`
   * @returns {Promise<Timeline>} kept up to date until `close`
   */
  async open(id) {
    const chat = this.rooms.get(id) ?? await this.find(id);
    const chatId = chat.chat_id;
    const timeline = this.timelineOf(chatId);
    const unread = chat.unread_count;
    timeline.lineAfter = null;
    if (timeline.loaded && unread) timeline.drawLine();
    if (!timeline.loaded) {
      // Once, however many wait for it: a second page would void the first.
      let opening = this.#opening.get(timeline);
      if (!opening) {
        // Followed so far without a position: the history decides from where.
        this.live.unfollow(chatId);
        const around = unread > UNREAD_FROM_END ? chat.read_seq + 1 : undefined;
        opening = this.#loadSurely(timeline, { around, drawLine: unread > 0 })
          .finally(() => this.#opening.delete(timeline));
        this.#opening.set(timeline, opening);
      }
      await opening;
    }
    if (timeline.loaded && this.#timelines.get(chatId) === timeline) this.live.follow(chatId, this.#positionOf(chatId));
    return timeline;
  }

  /** Forgets a room's timeline, but for what is still to be sent, and follows it no longer. @param {string} chatId */
  close(chatId) {
    this.live.unfollow(chatId);
    const closed = this.#timelines.get(chatId);
    this.#timelines.delete(chatId);
    if (closed?.pending.length) this.timelineOf(chatId).pending = closed.pending;
    this.#followTop();
  }

  /** @param {string} chatId @returns {Timeline} */
  timelineOf(chatId) {
    const known = this.#timelines.get(chatId);
    if (known) return known;
    const made = new Timeline(chatId, this.me);
    this.#timelines.set(chatId, made);
    return made;
  }

  /** @param {string} chatId @returns {import('./live.js').PositionOf} */
  #positionOf(chatId) {
    return () => {
      const timeline = this.#timelines.get(chatId);
      return timeline?.loaded ? timeline.position : null;
    };
  }

  /** @param {string} chatId */
  async deleteRoom(chatId) {
    await this.#unlessGone(chatId, this.api.deleteChat(chatId));
    this.#onGone(chatId);
  }

  /** A 404 on a room means that it is gone, however it came about. @template T @param {string} chatId @param {Promise<T>} call */
  async #unlessGone(chatId, call) {
    try {
      return await call;
    } catch (error) {
      if (asApiError(error).code === 'chat_not_found') this.#onGone(chatId);
      throw error;
    }
  }

  /** @param {string} chatId */
  #onGone(chatId) {
    this.live.unfollow(chatId);
    this.#timelines.delete(chatId);
    this.#outboxes.get(chatId)?.clear();
    this.#outboxes.delete(chatId);
    this.rooms.remove(chatId);
    this.#onRoomsChanged();
    this.emit('gone', { chatId });
  }

  // ---- history ----

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

  /** @param {Timeline} timeline @param {{around?: number, drawLine?: boolean}} how */
  #loadSurely(timeline, how) {
    return this.#surely(() => this.#load(timeline, how), () => this.#timelines.get(timeline.chatId) === timeline);
  }

  /**
   * For what there is no room without: tried until it is there, or nobody wants it any more.
   * @param {() => Promise<unknown>} work
   * @param {() => boolean} isWanted
   */
  async #surely(work, isWanted) {
    while (isWanted() && !this.#ended) {
      try {
        await work();
        return;
      } catch (cause) {
        const error = asApiError(cause);
        if (!error.temporary && error.status !== 401) throw error;
        await new Promise((resolve) => setTimeout(resolve, error.retryAfterMs ?? RETRY_MS));
      }
    }
  }

  /**
   * @param {Timeline} timeline
   * @param {{before?: number, after?: number, around?: number}} query
   * @param {(page: Page) => void} take
   * @param {{startsOver?: boolean}} [options]
   */
  async #page(timeline, query, take, options) {
    const { chatId } = timeline;
    await timeline.load(() => this.#unlessGone(chatId, this.api.history(chatId, query)), take, options);
    this.emit('room', { chatId });
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

  /** Moves the window to a message, unless it is there already. @param {Timeline} timeline @param {number} seq */
  async showAround(timeline, seq) {
    if (!timeline.messages.some((message) => message.seq === seq)) {
      await this.#load(timeline, { around: seq, keepPosition: true });
    }
  }

  /** @param {Timeline} timeline */
  async showNewest(timeline) {
    if (!timeline.atEnd) await this.#load(timeline, { keepPosition: true });
  }

  // ---- messages ----

  /**
   * Sends, now or once there is a connection. The message stands in the timeline's `pending` at
   * once, and among its `messages` when the server has it.
   * @param {string} chatId
   * @param {string} text
   * @param {Record<string, unknown> | null} [metadata]
   * @returns {Pending}
   */
  send(chatId, text, metadata = null) {
    const timeline = this.timelineOf(chatId);
    timeline.lineAfter = null;
    /** @type {Pending} */
    const pending = {
      client_msg_id: newMessageId(), text, metadata, created_at: new Date().toISOString(), failed: false, error: null,
    };
    timeline.pending.push(pending);
    this.emit('room', { chatId, sent: true });
    this.#outboxOf(chatId).push(pending);
    return pending;
  }

  /** Tries a message that failed once more, with the same id. @param {string} chatId @param {Pending} pending */
  retry(chatId, pending) {
    if (!pending.failed) return;
    this.#outboxOf(chatId).push(pending);
    this.emit('room', { chatId });
  }

  /** Takes back a message that failed. @param {string} chatId @param {Pending} pending */
  discard(chatId, pending) {
    const timeline = this.timelineOf(chatId);
    timeline.pending = timeline.pending.filter((other) => other !== pending);
    this.emit('room', { chatId });
  }

  /** @param {string} chatId @returns {Outbox} */
  #outboxOf(chatId) {
    const known = this.#outboxes.get(chatId);
    if (known) return known;
    const made = new Outbox({
      send: async ({ text, metadata, client_msg_id }) =>
        this.#accept(await this.api.sendMessage(chatId, { text, metadata, client_msg_id })),
      isConnected: () => this.state.phase === 'live',
      onFailed: () => this.emit('room', { chatId }),
    });
    this.#outboxes.set(chatId, made);
    return made;
  }

  #wakeOutboxes() {
    for (const outbox of this.#outboxes.values()) outbox.wake();
    for (const [chatId, timeline] of this.#timelines) {
      // Those that `stop` held up; one that failed over a living line is its author's to send again.
      for (const pending of timeline.pending) if (pending.error === STOPPED) this.retry(chatId, pending);
    }
  }

  /** @param {Message} message @param {string} text */
  async edit(message, text) {
    this.#accept(await this.api.editMessage(message.chat_id, message.message_id, text));
  }

  /** Deletes a message. @param {Message} message */
  async remove(message) {
    await this.api.deleteMessage(message.chat_id, message.message_id);
    this.#accept({ ...message, text: '', metadata: null, deleted_at: new Date().toISOString() });
  }

  /** @param {Message} message */
  #accept(message) {
    const { chat_id: chatId, ev } = message;
    this.timelineOf(chatId).accept(message);
    const whole = /** @type {import('./schema.js').Message} */ (message);
    this.rooms.apply({ type: 'message.updated', chat_id: chatId, ev, message: whole });
    this.emit('room', { chatId });
    this.emit('rooms', {});
  }

  /** Marks as read what the timeline shows, up to its last message. @param {Timeline} timeline */
  async markRead(timeline) {
    const { chatId } = timeline;
    if (this.#marking.has(chatId) || !timeline.hasUnread) return;
    // What is unread lies beyond the window: to mark the same once more would go on for ever.
    if (timeline.highSeq <= timeline.readSeq) return;
    this.#marking.add(chatId);
    try {
      const { read_seq, unread_count, total_unread } = await this.api.markRead(chatId, timeline.highSeq);
      timeline.readSeq = Math.max(timeline.readSeq, read_seq);
      this.rooms.setUnread(chatId, unread_count, total_unread);
      this.emit('rooms', {});
    } catch (cause) {
      const error = asApiError(cause);
      if (error.code === 'chat_not_found') this.#onGone(chatId);
      await new Promise((resolve) => setTimeout(resolve, error.retryAfterMs ?? MARK_RETRY_MS));
    }
    this.#marking.delete(chatId);
    // Perhaps more came meanwhile; the view knows whether it can be seen.
    this.emit('room', { chatId });
  }

  /** Tells the other one; say it again every few seconds while it lasts. @param {string} chatId @param {boolean} typing */
  sayTyping(chatId, typing) {
    this.live.typing(chatId, typing);
  }

  // ---- frames ----

  /** @param {ConnectionState} state */
  #onState(state) {
    const wasLive = this.state.phase === 'live';
    this.state = state;
    this.emit('state', {});
    if (state.phase === 'token') this.emit('token', { refused: this.#refused });
    if (state.phase === 'live' && !wasLive) this.#wakeOutboxes();
  }

  async #onTokenExpiring() {
    const old = this.#credentials.token;
    // The host application may be away for a moment: it is asked again.
    try {
      await this.#surely(() => this.#credentials.renew(old, 'expiring'), () => this.#credentials.token === old);
    } catch {
      // Asked once more when the socket ends for it.
      return;
    }
    if (this.#ended) return;
    if (this.#credentials.token !== old) this.live.renew(/** @type {string} */ (this.#credentials.token));
    else this.emit('token', { refused: null });
  }

  /** @param {ServerFrame} frame */
  #onFrame(frame) {
    switch (frame.type) {
      case 'hello':
        if (this.#epoch !== null && this.#epoch !== frame.epoch) this.rooms.clear();
        this.#epoch = frame.epoch;
        this.refresh();
        break;
      case 'chat.created':
      case 'chat.updated':
        // Presence of those who are followed has frames of its own; this may be from without Redis.
        this.rooms.put(frame.chat, { keepPresence: this.live.follows(frame.chat.chat_id) });
        this.rooms.totalUnread = frame.total_unread;
        this.#followTop();
        return frame.type === 'chat.created' ? this.#onRoomsChanged() : this.emit('rooms', {});
      case 'chat.deleted':
        return this.#onGone(frame.chat_id);
      case 'typing':
        return this.typing.set(frame.chat_id, frame.typing);
      case 'token.expiring':
        return void this.#onTokenExpiring();
      case 'subscribed': {
        const other = this.rooms.get(frame.chat_id)?.other_user.user_id;
        if (other && this.rooms.setPresence(other, frame.online.includes(other))) this.emit('rooms', {});
        this.#timelines.get(frame.chat_id)?.apply(frame);
        break;
      }
      default:
        this.#onChatFrame(frame);
    }
  }

  /** @param {ServerFrame} frame */
  #onChatFrame(frame) {
    const listChanged = this.rooms.apply(frame);
    if (listChanged) this.emit('rooms', {});
    if (!('chat_id' in frame)) return;
    const { chat_id: chatId } = frame;
    const timeline = this.#timelines.get(chatId);
    if (timeline?.loaded) {
      const taken = timeline.apply(frame);
      if (taken === 'gap') return this.live.resume(chatId);
      if (frame.type === 'reset') this.#loadSurely(timeline, {}).catch(() => {});
      if (taken === 'news' || frame.type === 'synced') {
        this.emit('room', { chatId, frame: taken === 'news' ? frame : null });
      }
    }
    if ('message' in frame && frame.message.sender_id !== this.me) this.typing.set(chatId, false);
    if (listChanged && this.#only) this.#refreshIn(REFRESH_DELAY_MS);
  }
}
