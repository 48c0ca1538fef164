/**
 * One person's session: their rooms, the open room's timeline, what is on its way out, and the
 * live connection that keeps it all right. No DOM; the views listen.
 *
 * Events: `rooms` (the list), `room` {chatId, frame?} (a timeline), `open` (another room is open),
 * `state` (the connection), `typing`, `token` {refused}: why the token is no good any more, null
 * while it only expires soon, `gone` {chatId}.
 */
import { Api } from './beseda.js';
import { Live } from './live.js';
import { Outbox } from './outbox.js';
import { Rooms } from './rooms.js';
import { randomId } from './text.js';
import { Timeline } from './timeline.js';
import { Typing } from './typing.js';

/** How often the list is asked for where no inbox reports its changes. */
const POLL_MS = 5_000;
/** Frames of one burst lead to one refresh. */
const REFRESH_DELAY_MS = 300;
/** Rooms at the top of the list that are followed for presence and typing, where one socket carries them. */
const FOLLOWED_ROOMS = 20;
/** With more unread than this, a room opens at the first of them, not at the end. */
const UNREAD_FROM_END = 30;
/** A pause before what has to succeed is tried again. */
const RETRY_MS = 3_000;

export class Session {
  rooms = new Rooms();
  typing = new Typing(() => this.#emit('typing'));
  /** @type {?string} */
  openId = null;
  /** @type {import('./beseda.js').SocketState} */
  state = { phase: 'connecting' };
  #listeners = new Map();
  /** @type {Map<string, Timeline>} */
  #timelines = new Map();
  /** @type {Map<string, Outbox>} */
  #outboxes = new Map();
  #timers = new Map();
  #epoch = null;
  /** Why the server refused the token; it says so in REST only. */
  #refused = 'token_expired';
  #marking = false;
  #refreshing = false;
  #refreshAgain = false;

  /** @param {{base: string, token: string, me: string}} options */
  constructor({ base, token, me }) {
    this.me = me;
    this.api = new Api({ base, token, onUnauthenticated: ({ code }) => {
      this.#refused = code;
      this.#emit('token', { refused: code });
    } });
    this.live = new Live({
      api: this.api,
      onFrame: (frame) => this.#onFrame(frame),
      onState: (state) => this.#onState(state),
      onGone: (chatId) => this.#onGone(chatId),
      onInbox: () => this.refresh(),
    });
  }

  on(type, listener) {
    this.#listeners.set(type, [...(this.#listeners.get(type) ?? []), listener]);
  }

  #emit(type, detail = {}) {
    for (const listener of this.#listeners.get(type) ?? []) listener(detail);
  }

  start() {
    this.live.start();
    // The list need not wait for the socket.
    this.refresh();
  }

  /** @param {string} token of the same person */
  setToken(token) {
    this.api.token = token;
    this.live.renew(token);
    this.refresh();
  }

  /** The page or the network is back. */
  wake() {
    this.live.wake();
    if (this.live.hasInbox === false) this.refresh();
  }

  // ---- the list ----

  async refresh() {
    clearTimeout(this.#timers.get('refresh'));
    this.#refreshAgain = this.#refreshing;
    if (this.#refreshing) return;
    this.#refreshing = true;
    let isRefused = false;
    try {
      const limit = Math.min(100, Math.max(30, this.rooms.size));
      const { results, next } = await this.api.listChats({ limit });
      this.rooms.setTop(results, next);
      this.rooms.totalUnread = next
        ? (await this.api.unread()).total
        : results.reduce((sum, chat) => sum + chat.unread_count, 0);
      this.#onPolled({ phase: 'live' });
      this.#followTop();
    } catch (error) {
      isRefused = error.status === 401;
      this.#onPolled({ phase: isRefused ? 'token' : 'waiting', retryAt: Date.now() + POLL_MS });
    }
    this.#refreshing = false;
    this.#emit('rooms');
    if (this.#refreshAgain) this.#refreshIn(0);
    else if (this.live.hasInbox === false && !isRefused) this.#refreshIn(POLL_MS);
  }

  /** A list that is on its way may not know of this room yet, or know it still. */
  #onRoomsChanged() {
    this.#refreshAgain = this.#refreshing;
    this.#emit('rooms');
  }

  async loadMoreRooms() {
    const { results, next } = await this.api.listChats({ cursor: this.rooms.next });
    this.rooms.addPage(results, next);
    this.#emit('rooms');
  }

  #refreshIn(ms) {
    clearTimeout(this.#timers.get('refresh'));
    this.#timers.set('refresh', setTimeout(() => this.refresh(), ms));
  }

  /** Without inbox and open room, asking for the list is all the connection there is. */
  #onPolled(state) {
    if (this.live.hasInbox === false && !this.openId) this.#onState(state);
  }

  #followTop() {
    if (!this.live.hasInbox) return;
    for (const { chat_id: chatId } of this.rooms.list().slice(0, FOLLOWED_ROOMS)) {
      if (chatId !== this.openId) this.live.follow(chatId, this.#positionOf(chatId));
    }
  }

  // ---- rooms ----

  /** Opens the room with a person, a new one where there is none. @returns {Promise<string>} its id */
  async openWith(userId) {
    const chat = await this.api.openChat(userId);
    this.rooms.put(chat);
    this.#onRoomsChanged();
    return chat.chat_id;
  }

  /** @param {?string} id null closes the open room */
  async open(id) {
    const previous = this.openId;
    const known = id && this.rooms.get(id);
    this.openId = known?.chat_id ?? id;
    if (previous && previous !== this.openId && !this.live.hasInbox) this.live.unfollow(previous);
    if (!id) {
      this.#emit('open');
      return this.live.hasInbox === false ? this.refresh() : undefined;
    }
    if (!known) {
      const chat = await this.#unlessGone(id, this.api.getChat(id)).catch((error) => {
        if (this.openId === id) this.openId = null;
        throw error;
      });
      if (this.openId !== id) return undefined;
      this.rooms.put(chat);
      this.openId = chat.chat_id;
    }
    const chatId = this.openId;
    const timeline = this.timelineOf(chatId);
    const unread = this.rooms.get(chatId).unread_count;
    timeline.lineAfter = null;
    if (timeline.loaded && unread) timeline.drawLine();
    this.#emit('open');
    if (!timeline.loaded) {
      // Followed so far without a position: the history decides from where.
      this.live.unfollow(chatId);
      const around = unread > UNREAD_FROM_END ? this.rooms.get(chatId).read_seq + 1 : undefined;
      await this.#loadSurely(timeline, { around, drawLine: unread > 0 });
    }
    if (this.openId === chatId) this.live.follow(chatId, this.#positionOf(chatId));
    return undefined;
  }

  /** @returns {Timeline} */
  timelineOf(chatId) {
    if (!this.#timelines.has(chatId)) this.#timelines.set(chatId, new Timeline(chatId, this.me));
    return this.#timelines.get(chatId);
  }

  #positionOf(chatId) {
    return () => (this.#timelines.get(chatId)?.loaded ? this.#timelines.get(chatId).position : null);
  }

  async deleteRoom(chatId) {
    await this.#unlessGone(chatId, this.api.deleteChat(chatId));
    this.#onGone(chatId);
  }

  /** A 404 on a room means that it is gone, however it came about. */
  async #unlessGone(chatId, call) {
    try {
      return await call;
    } catch (error) {
      if (error.code === 'chat_not_found') this.#onGone(chatId);
      throw error;
    }
  }

  #onGone(chatId) {
    this.live.unfollow(chatId);
    this.#timelines.delete(chatId);
    this.#outboxes.delete(chatId);
    this.rooms.remove(chatId);
    this.#onRoomsChanged();
    this.#emit('gone', { chatId });
    if (this.openId === chatId) this.open(null);
  }

  // ---- history ----

  /** Reads the newest page, or one around a seq, in place of what is there. */
  #load(timeline, { around, keepPosition, drawLine }) {
    const take = (page) => {
      timeline.replace(page, { keepPosition });
      if (drawLine) timeline.drawLine();
    };
    return this.#page(timeline, { around }, take, { startsOver: true });
  }

  /** For what there is no room without: tried until it is there, or nobody wants it any more. */
  async #loadSurely(timeline, query) {
    while (this.#timelines.get(timeline.chatId) === timeline) {
      try {
        return await this.#load(timeline, query);
      } catch (error) {
        if (!error.temporary && error.status !== 401) throw error;
        await new Promise((resolve) => setTimeout(resolve, error.retryAfterMs ?? RETRY_MS));
      }
    }
    return undefined;
  }

  async #page(timeline, query, take, options) {
    await timeline.load(() => this.#unlessGone(timeline.chatId, this.api.history(timeline.chatId, query)), take, options);
    this.#emit('room', { chatId: timeline.chatId });
  }

  loadBefore(timeline) {
    return this.#page(timeline, { before: timeline.lowSeq }, (page) => timeline.prepend(page));
  }

  loadAfter(timeline) {
    return this.#page(timeline, { after: timeline.highSeq }, (page) => timeline.append(page));
  }

  /** Moves the window to a message, unless it is there already. */
  async showAround(timeline, seq) {
    if (!timeline.messages.some((message) => message.seq === seq)) {
      await this.#load(timeline, { around: seq, keepPosition: true });
    }
  }

  async showNewest(timeline) {
    if (!timeline.atEnd) await this.#load(timeline, { keepPosition: true });
  }

  // ---- messages ----

  async send(chatId, text) {
    const timeline = this.timelineOf(chatId);
    timeline.lineAfter = null;
    const pending = { client_msg_id: randomId(), text, created_at: new Date().toISOString(), failed: false, error: null };
    timeline.pending.push(pending);
    this.#emit('room', { chatId, sent: true });
    this.#outboxOf(chatId).push(pending);
    await this.showNewest(timeline);
  }

  retry(chatId, pending) {
    this.#outboxOf(chatId).push(pending);
    this.#emit('room', { chatId });
  }

  /** Takes back a message that failed. */
  discard(chatId, pending) {
    const timeline = this.timelineOf(chatId);
    timeline.pending = timeline.pending.filter((other) => other !== pending);
    this.#emit('room', { chatId });
  }

  #outboxOf(chatId) {
    if (!this.#outboxes.has(chatId)) {
      this.#outboxes.set(chatId, new Outbox({
        send: async ({ text, client_msg_id: id }) => this.#accept(await this.api.sendMessage(chatId, text, id)),
        onChange: () => this.#emit('room', { chatId }),
      }));
    }
    return this.#outboxes.get(chatId);
  }

  #retryFailed() {
    for (const [chatId, timeline] of this.#timelines) {
      for (const pending of timeline.pending) if (pending.failed && pending.error.temporary) this.retry(chatId, pending);
    }
  }

  async edit(message, text) {
    this.#accept(await this.api.editMessage(message.chat_id, message.message_id, text));
  }

  async remove(message) {
    await this.api.deleteMessage(message.chat_id, message.message_id);
    this.#accept({ ...message, text: '', metadata: null, deleted_at: new Date().toISOString() });
  }

  #accept(message) {
    this.timelineOf(message.chat_id).accept(message);
    this.rooms.apply({ type: 'message.updated', chat_id: message.chat_id, ev: message.ev, message });
    this.#emit('room', { chatId: message.chat_id });
    this.#emit('rooms');
  }

  async markRead(timeline) {
    if (this.#marking || !timeline.hasUnread) return;
    this.#marking = true;
    try {
      const upTo = timeline.highSeq;
      const { read_seq, unread_count, total_unread } = await this.api.markRead(timeline.chatId, upTo);
      timeline.readSeq = Math.max(timeline.readSeq, read_seq);
      this.rooms.setUnread(timeline.chatId, unread_count, total_unread);
      this.#emit('rooms');
    } catch (error) {
      if (error.code === 'chat_not_found') this.#onGone(timeline.chatId);
      await new Promise((resolve) => setTimeout(resolve, error.retryAfterMs ?? POLL_MS));
    }
    this.#marking = false;
    // Perhaps more came meanwhile; the view knows whether it can be seen.
    this.#emit('room', { chatId: timeline.chatId });
  }

  // ---- frames ----

  #onState(state) {
    const wasLive = this.state.phase === 'live';
    this.state = state;
    this.#emit('state');
    if (state.phase === 'token') this.#emit('token', { refused: this.#refused });
    if (state.phase === 'live' && !wasLive) this.#retryFailed();
  }

  #onFrame(frame) {
    switch (frame.type) {
      case 'hello':
        if (this.#epoch !== null && this.#epoch !== frame.epoch) this.rooms.clear();
        this.#epoch = frame.epoch;
        break;
      case 'chat.created':
      case 'chat.updated':
        // Presence of those who are followed has frames of its own; this may be from without Redis.
        this.rooms.put(frame.chat, { keepPresence: this.live.follows(frame.chat.chat_id) });
        this.rooms.totalUnread = frame.total_unread;
        this.#followTop();
        return frame.type === 'chat.created' ? this.#onRoomsChanged() : this.#emit('rooms');
      case 'chat.deleted':
        return this.#onGone(frame.chat_id);
      case 'typing':
        return this.typing.set(frame.chat_id, frame.typing);
      case 'token.expiring':
        return this.#emit('token', { refused: null });
      case 'subscribed': {
        const other = this.rooms.get(frame.chat_id)?.other_user.user_id;
        if (other && this.rooms.setPresence(other, frame.online.includes(other))) this.#emit('rooms');
        break;
      }
      default:
        this.#onChatFrame(frame);
    }
  }

  #onChatFrame(frame) {
    const listChanged = this.rooms.apply(frame);
    if (listChanged) this.#emit('rooms');
    const timeline = this.#timelines.get(frame.chat_id);
    if (timeline?.loaded) {
      const isNews = timeline.apply(frame);
      if (frame.type === 'reset') this.#loadSurely(timeline, {}).catch(() => {});
      if (isNews || frame.type === 'synced') this.#emit('room', { chatId: frame.chat_id, frame: isNews ? frame : null });
    }
    if (frame.message && frame.message.sender_id !== this.me) this.typing.set(frame.chat_id, false);
    if (listChanged && this.live.hasInbox === false) this.#refreshIn(REFRESH_DELAY_MS);
  }
}
