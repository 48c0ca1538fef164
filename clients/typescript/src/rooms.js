/**
 * The list of rooms, latest activity first. A `Chat` is as new as its `last_ev`; the person in it
 * (name, presence) has no number and is taken as it comes.
 *
 * @typedef {import('./schema.js').Chat} Chat
 * @typedef {import('./frames.js').ServerFrame} ServerFrame
 */

export class Rooms {
  /** @type {Map<string, Chat>} */
  #chats = new Map();
  /** Unread messages in all rooms, those not loaded included. */
  totalUnread = 0;
  /** @type {string | null} cursor of what is not loaded yet */
  next = null;

  get size() { return this.#chats.size; }

  /** @param {string} id its own, or its room's name @returns {Chat | undefined} */
  get(id) {
    return this.#chats.get(id) ?? [...this.#chats.values()].find((chat) => chat.room_name === id);
  }

  /** @returns {Chat[]} */
  list() {
    return [...this.#chats.values()].sort((a, b) => compare(activity(b), activity(a)) || compare(b.chat_id, a.chat_id));
  }

  /**
   * Takes the top of the list as the server has it. Whatever should be in it and is not, is gone.
   * @param {Chat[]} chats
   * @param {string | null} next
   */
  setTop(chats, next) {
    const present = new Set(chats.map((chat) => chat.chat_id));
    const oldest = next && chats.length ? activity(/** @type {Chat} */ (chats.at(-1))) : '';
    for (const chat of [...this.#chats.values()]) {
      if (!present.has(chat.chat_id) && activity(chat) >= oldest) this.#chats.delete(chat.chat_id);
    }
    for (const chat of chats) this.put(chat);
    this.next = next;
  }

  /** @param {Chat[]} chats @param {string | null} next */
  addPage(chats, next) {
    for (const chat of chats) this.put(chat);
    this.next = next;
  }

  /** @param {Chat} chat @param {{keepPresence?: boolean}} [options] */
  put(chat, { keepPresence = false } = {}) {
    const known = this.#chats.get(chat.chat_id);
    const newest = known && known.last_ev > chat.last_ev ? known : chat;
    let { other_user } = chat;
    if (known && keepPresence) {
      const { online, last_seen_at } = known.other_user;
      other_user = { ...other_user, online, last_seen_at };
    }
    this.#chats.set(chat.chat_id, { ...newest, other_user });
  }

  /** @param {string} chatId */
  remove(chatId) {
    this.#chats.delete(chatId);
  }

  /** The database went back in time: what is known may be newer than what is true. */
  clear() {
    this.#chats.clear();
  }

  /**
   * Follows a frame of a room, ahead of the server's word on the whole of it.
   * @param {ServerFrame} frame
   * @returns {boolean} whether something in the list changed
   */
  apply(frame) {
    if (frame.type === 'presence') return this.setPresence(frame.user_id, frame.online, frame.last_seen_at);
    if (!('chat_id' in frame)) return false;
    const chat = this.#chats.get(frame.chat_id);
    if (!chat) return false;
    const last = chat.last_message;
    if (frame.type === 'message.created' || frame.type === 'message.updated') {
      const isNewer = !last || frame.message.seq > last.seq
        || (frame.message.seq === last.seq && frame.message.ev > last.ev);
      if (!isNewer) return false;
      this.#patch(chat, {
        last_message: frame.message,
        last_seq: Math.max(chat.last_seq, frame.message.seq),
        last_ev: Math.max(chat.last_ev, frame.ev),
      });
      return true;
    }
    if (frame.type === 'message.deleted' && last && last.message_id === frame.message_id) {
      const tombstone = { ...last, ev: frame.ev, text: '', metadata: null, deleted_at: frame.deleted_at };
      this.#patch(chat, { last_message: tombstone, last_ev: Math.max(chat.last_ev, frame.ev) });
      return true;
    }
    if (frame.type === 'chat.read') {
      const field = frame.user_id === chat.other_user.user_id ? 'peer_read_seq' : 'read_seq';
      this.#patch(chat, { [field]: Math.max(chat[field], frame.read_seq) });
      return true;
    }
    return false;
  }

  /** @param {string} userId @param {boolean} online @param {string | null} [lastSeenAt] */
  setPresence(userId, online, lastSeenAt = null) {
    let changed = false;
    for (const chat of this.#chats.values()) {
      if (chat.other_user.user_id !== userId || chat.other_user.online === online) continue;
      this.#patch(chat, { other_user: { ...chat.other_user, online, last_seen_at: lastSeenAt } });
      changed = true;
    }
    return changed;
  }

  /** @param {string} chatId @param {number} count @param {number} total in all rooms */
  setUnread(chatId, count, total) {
    const chat = this.#chats.get(chatId);
    if (chat) this.#patch(chat, { unread_count: count });
    this.totalUnread = total;
  }

  /** @param {Chat} chat @param {Partial<Chat>} fields */
  #patch(chat, fields) {
    this.#chats.set(chat.chat_id, { ...chat, ...fields });
  }
}

/** Times come in one format, so they compare as text. @param {Chat} chat */
function activity(chat) {
  return chat.last_message?.created_at ?? chat.created_at;
}

/** @param {string} a @param {string} b */
function compare(a, b) {
  return a < b ? -1 : Number(a > b);
}
