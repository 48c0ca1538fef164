/**
 * The list of chats, latest activity first, and what is unread in all of them.
 *
 * Two sources tell of it: the socket, in order, and answers to calls, which may be older than what
 * the socket has told meanwhile. So a caller keeps `now` with each call, and the answer changes
 * nothing that was told after it. Between two versions of a chat `last_ev` decides; the member in it
 * (name, presence) has no number, so the latest version counts. Numbers of another `epoch` mean nothing:
 * the database went back in time.
 *
 * @typedef {import('./schema.js').Chat} Chat
 * @typedef {import('./frames.js').ServerFrame} ServerFrame
 *
 * @typedef {object} Known
 * @property {Chat} chat
 * @property {number} told    when the socket told the whole of it; 0: never
 * @property {number} seen    when it told the member's presence
 * @property {boolean} past   of an earlier epoch: any other version replaces it
 */

export class ChatList {
  /** @type {Map<string, Known>} */
  #known = new Map();
  /** When the socket told that a chat is gone. @type {Map<string, number>} */
  #gone = new Map();
  #clock = 0;
  #totalTold = 0;
  #epochBegan = 0;
  /** @type {string | null} the history that all of this is of */
  epoch = null;
  /** Unread messages in all chats, those not loaded included. */
  totalUnread = 0;
  /** @type {string | null} cursor of what is not loaded yet */
  next = null;

  get size() { return this.#known.size; }

  /** A moment, to be compared with what the socket tells after it. */
  get now() { return this.#clock; }

  /** Whether a call made at that moment was answered by an earlier epoch. @param {number} asked */
  isPast(asked) { return asked < this.#epochBegan; }

  /**
   * Takes the epoch that a frame names.
   * @param {string} epoch
   * @returns {boolean} whether it is another one: all must be read anew
   */
  enter(epoch) {
    const isOther = this.epoch !== null && this.epoch !== epoch;
    this.epoch = epoch;
    if (!isOther) return false;
    this.#epochBegan = this.#tick();
    this.#gone.clear();
    // Still shown until it is read anew.
    for (const known of this.#known.values()) known.past = true;
    return true;
  }

  /** @param {string} id its own, or its chat's name @returns {Chat | undefined} */
  get(id) {
    return this.#known.get(id)?.chat ?? this.#chats().find((chat) => chat.room_name === id);
  }

  /** @returns {Chat[]} */
  list() {
    return this.#chats().sort((a, b) => compare(activity(b), activity(a)) || compare(b.chat_id, a.chat_id));
  }

  #chats() {
    return [...this.#known.values()].map(({ chat }) => chat);
  }

  // ---- answers ----

  /**
   * Takes the top of the list as the server has it. A chat that belongs in it and is missing is gone.
   * @param {Chat[]} chats
   * @param {string | null} next
   * @param {number} [asked]
   */
  setTop(chats, next, asked = this.now) {
    if (this.isPast(asked)) return;
    const present = new Set(chats.map((chat) => chat.chat_id));
    const oldest = next && chats.length ? activity(/** @type {Chat} */ (chats.at(-1))) : '';
    for (const [chatId, { chat, told, past }] of this.#known) {
      if (!present.has(chatId) && told <= asked && (past || activity(chat) >= oldest)) this.#known.delete(chatId);
    }
    for (const chat of chats) this.put(chat, asked);
    this.next = next;
  }

  /**
   * @param {string} cursor  what the page was asked for with
   * @param {Chat[]} chats
   * @param {string | null} next
   * @param {number} [asked]
   */
  addPage(cursor, chats, next, asked = this.now) {
    if (this.isPast(asked)) return;
    for (const chat of chats) this.put(chat, asked);
    if (this.next === cursor) this.next = next;
  }

  /** @param {Chat} chat @param {number} [asked] */
  put(chat, asked = this.now) {
    if (this.isPast(asked) || (this.#gone.get(chat.chat_id) ?? 0) > asked) return;
    const known = this.#known.get(chat.chat_id);
    const isOvertaken = known && !known.past
      && (known.chat.last_ev > chat.last_ev || (known.told > asked && known.chat.last_ev === chat.last_ev));
    const other_user = known && known.seen > asked ? withPresence(chat, known) : chat.other_user;
    if (isOvertaken) this.#patch(known, { other_user });
    else this.#known.set(chat.chat_id, { told: 0, seen: 0, ...known, chat: { ...chat, other_user }, past: false });
  }

  /** Unread in all chats. @param {number} total @param {number} [asked] */
  setTotal(total, asked = this.now) {
    if (!this.isPast(asked) && this.#totalTold <= asked) this.totalUnread = total;
  }

  /**
   * Takes what is left unread after a mark.
   * @param {string} chatId
   * @param {{read_seq: number, unread_count: number, total_unread: number}} marked
   * @param {number} [asked]
   */
  setRead(chatId, { read_seq, unread_count, total_unread }, asked = this.now) {
    const known = this.#known.get(chatId);
    if (known && known.told <= asked && !this.isPast(asked)) {
      this.#patch(known, { unread_count, read_seq: Math.max(known.chat.read_seq, read_seq) });
    }
    this.setTotal(total_unread, asked);
  }

  // ---- the socket ----

  /**
   * Takes a whole chat from a frame.
   * @param {Extract<ServerFrame, {type: 'chat.created' | 'chat.updated'}>} frame
   * @param {{keepPresence?: boolean}} [options]
   */
  tell({ chat, total_unread }, { keepPresence = false } = {}) {
    const told = this.#tick();
    this.totalUnread = total_unread;
    this.#totalTold = told;
    this.#gone.delete(chat.chat_id);
    const known = this.#known.get(chat.chat_id);
    const other_user = known && keepPresence ? withPresence(chat, known) : chat.other_user;
    const isOvertaken = known && !known.past && known.chat.last_ev > chat.last_ev;
    const newest = isOvertaken ? known.chat : chat;
    this.#known.set(chat.chat_id, { seen: 0, ...known, chat: { ...newest, other_user }, told, past: false });
  }

  /** @param {string} chatId @param {number} [total] unread in the chats that are left */
  remove(chatId, total) {
    const told = this.#tick();
    this.#known.delete(chatId);
    this.#gone.set(chatId, told);
    if (total === undefined) return;
    this.totalUnread = total;
    this.#totalTold = told;
  }

  /**
   * Follows a frame of a chat, ahead of the whole chat that comes later.
   * @param {ServerFrame} frame
   * @returns {boolean} whether something in the list changed
   */
  apply(frame) {
    if (frame.type === 'presence') return this.setPresence(frame.user_id, frame.online, frame.last_seen_at);
    if (!('chat_id' in frame)) return false;
    const known = this.#known.get(frame.chat_id);
    if (!known) return false;
    const { chat } = known;
    const last = chat.last_message;
    if (frame.type === 'message.created' || frame.type === 'message.updated') {
      const isNewer = !last || frame.message.seq > last.seq
        || (frame.message.seq === last.seq && frame.message.ev > last.ev);
      if (!isNewer) return false;
      this.#patch(known, {
        last_message: frame.message,
        last_seq: Math.max(chat.last_seq, frame.message.seq),
        last_ev: Math.max(chat.last_ev, frame.ev),
      });
      return true;
    }
    if (frame.type === 'message.deleted' && last && last.message_id === frame.message_id) {
      const tombstone = { ...last, ev: frame.ev, text: '', metadata: null, deleted_at: frame.deleted_at };
      this.#patch(known, { last_message: tombstone, last_ev: Math.max(chat.last_ev, frame.ev) });
      return true;
    }
    if (frame.type === 'chat.read') {
      const field = frame.user_id === chat.other_user.user_id ? 'peer_read_seq' : 'read_seq';
      this.#patch(known, { [field]: Math.max(chat[field], frame.read_seq) });
      return true;
    }
    return false;
  }

  /** @param {string} userId @param {boolean} online @param {string | null} [lastSeenAt] */
  setPresence(userId, online, lastSeenAt = null) {
    let changed = false;
    const told = this.#tick();
    for (const known of this.#known.values()) {
      const { other_user } = known.chat;
      if (other_user.user_id !== userId) continue;
      known.seen = told;
      if (other_user.online === online) continue;
      this.#patch(known, { other_user: { ...other_user, online, last_seen_at: lastSeenAt } });
      changed = true;
    }
    return changed;
  }

  #tick() {
    this.#clock += 1;
    return this.#clock;
  }

  /** @param {Known} known @param {Partial<Chat>} fields */
  #patch(known, fields) {
    known.chat = { ...known.chat, ...fields };
  }
}

/** The member of a chat as received, with the presence that is known already. @param {Chat} chat @param {Known} known */
function withPresence({ other_user }, { chat: { other_user: { online, last_seen_at } } }) {
  return { ...other_user, online, last_seen_at };
}

/** Times come in one format, so they compare as text. @param {Chat} chat */
function activity(chat) {
  return chat.last_message?.created_at ?? chat.created_at;
}

/** @param {string} a @param {string} b */
function compare(a, b) {
  return a < b ? -1 : Number(a > b);
}
