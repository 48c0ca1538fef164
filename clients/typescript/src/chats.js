/**
 * The list of chats, pinned ones first, then latest activity first, and what is unread in all of them.
 *
 * Two sources tell of it: the socket, in order, and answers to calls, which may be older than what
 * the socket has told meanwhile. So a caller keeps `now` with each call, and the answer changes
 * nothing that was told after it. Between two versions of a chat `last_ev` decides; the other member in
 * it (name, presence) has no number, so the latest version counts. Numbers of another `epoch` mean nothing:
 * the database went back in time.
 *
 * @typedef {import('./schema.js').Chat} Chat
 * @typedef {import('./schema.js').UnreadSummary} UnreadSummary
 * @typedef {import('./frames.js').ServerFrame} ServerFrame
 *
 * What of a chat goes into the badge.
 * @typedef {Pick<Chat, 'unread_count' | 'unread_mentions' | 'notify'>} Counters
 *
 * @typedef {object} Known
 * @property {Chat} chat
 * @property {Activity} activity
 * @property {number} told    when the socket told the whole of it; 0: never
 * @property {number} seen    when it told the member's presence
 * @property {boolean} past   of an earlier epoch: any other version replaces it
 *
 * @typedef {import('./ranking.js').Activity} Activity
 * @typedef {import('./ranking.js').Ranked} Ranked
 */
import { emptied } from './carried.js';
import { byPlace, byRank } from './ranking.js';

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
  /** Whose list it is. */
  me = '';
  /** Unread messages in all chats, those not loaded included. */
  totalUnread = 0;
  /** Of the last summary: what each chat put into it. @type {Map<string, Counters & {archived?: boolean}>} */
  #summed = new Map();
  #summedBadge = 0;
  #summedMentions = 0;
  /** @type {string | null} cursor of what is not loaded yet */
  next = null;

  /** How many are listed. */
  get size() { return this.#listed().length; }

  /**
   * What an app's badge shows: unread messages of chats with `notify` `all`, and unread mentions of those with
   * `mentions`, without archived chats.
   */
  get badge() { return this.#since(this.#summedBadge, weight); }

  /** Unread mentions in all chats. */
  get totalMentions() { return this.#since(this.#summedMentions, ({ unread_mentions: count }) => count); }

  /**
   * A sum of the last summary, with what has become of the chats since.
   * @param {number} sum @param {(counters: Counters, archived: boolean) => number} share
   */
  #since(sum, share) {
    for (const [chatId, { chat }] of this.#known) {
      const before = this.#summed.get(chatId);
      sum += share(chat, chat.archived) - (before ? share(before, before.archived ?? chat.archived) : 0);
    }
    return Math.max(0, sum);
  }

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

  /** Without archived chats, which `get` and `archived` have. @returns {Chat[]} */
  list() {
    return this.#listed().sort(byRank).map(({ chat }) => chat);
  }

  /** Those of the archived chats that are known. @returns {Chat[]} */
  archived() {
    return [...this.#known.values()].filter(({ chat }) => chat.archived).sort(byRank).map(({ chat }) => chat);
  }

  /** Somebody whom one has a direct chat with. @param {string} userId */
  otherUser(userId) {
    return this.#chats().find(({ other_user: other }) => other?.user_id === userId)?.other_user ?? null;
  }

  #listed() {
    return [...this.#known.values()].filter(({ chat }) => !chat.archived);
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
    const page = this.#ranked(chats);
    const present = new Set(chats.map((chat) => chat.chat_id));
    const lowest = next ? page.at(-1) : undefined;
    for (const [chatId, known] of this.#known) {
      if (present.has(chatId) || known.told > asked) continue;
      const isElsewhere = known.chat.archived || (lowest && byPlace(known, lowest) > 0);
      if (known.past || !isElsewhere) this.#known.delete(chatId);
    }
    for (const { chat, activity } of page) this.put(chat, asked, activity);
    this.next = next;
  }

  /**
   * A page with the activity of its chats. A system message hides when the one before it came; the chat's
   * place in the page bounds it.
   * @param {Chat[]} chats
   */
  #ranked(chats) {
    /** @type {Ranked | null} */
    let above = null;
    /** @type {Ranked[]} */
    const ranked = [];
    for (const chat of chats) {
      /** @type {Activity | null} */
      const bound = above && above.chat.pinned === chat.pinned ? above.activity : null;
      above = { chat, activity: this.#activityOf(chat, bound) };
      ranked.push(above);
    }
    return ranked;
  }

  /** @param {Chat} chat @param {Activity | null} [bound] @returns {Activity} */
  #activityOf({ chat_id: chatId, created_at: createdAt, last_message: last }, bound = null) {
    if (last?.type !== 'system') return { at: last?.created_at ?? createdAt, below: 0 };
    const known = this.#known.get(chatId)?.activity;
    if (known) return known;
    return bound && bound.at <= last.created_at ? { at: bound.at, below: bound.below + 1 } : { at: last.created_at, below: 0 };
  }

  /**
   * @param {string} cursor  what the page was asked for with
   * @param {Chat[]} chats
   * @param {string | null} next
   * @param {number} [asked]
   */
  addPage(cursor, chats, next, asked = this.now) {
    if (this.isPast(asked)) return;
    for (const { chat, activity } of this.#ranked(chats)) this.put(chat, asked, activity);
    if (this.next === cursor) this.next = next;
  }

  /** @param {Chat} chat @param {number} [asked] @param {Activity} [activity] */
  put(chat, asked = this.now, activity = this.#activityOf(chat)) {
    if (this.isPast(asked) || (this.#gone.get(chat.chat_id) ?? 0) > asked) return;
    const known = this.#known.get(chat.chat_id);
    const isOvertaken = known && !known.past
      && (known.chat.last_ev > chat.last_ev || (known.told > asked && known.chat.last_ev === chat.last_ev));
    const other_user = known && known.seen > asked ? withPresence(chat, known) : chat.other_user;
    if (isOvertaken) this.#patch(known, { other_user });
    else this.#known.set(chat.chat_id, { told: 0, seen: 0, ...known, chat: { ...chat, other_user }, activity, past: false });
  }

  /** Takes the counters of all chats. @param {UnreadSummary} summary @param {number} [asked] */
  setSummary(summary, asked = this.now) {
    this.setTotal(summary.total, asked);
    if (this.isPast(asked)) return;
    this.#summedBadge = summary.badge;
    this.#summedMentions = summary.total_mentions;
    this.#summed = new Map(summary.chats.map((counters) =>
      [counters.chat_id, { ...counters, archived: this.#known.get(counters.chat_id)?.chat.archived }]));
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
    const activity = isOvertaken ? known.activity : this.#activityOf(chat);
    this.#known.set(chat.chat_id, { seen: 0, ...known, chat: { ...newest, other_user }, activity, told, past: false });
  }

  /** @param {string} chatId @param {number} [total] unread in the chats that are left */
  remove(chatId, total) {
    const told = this.#tick();
    const summed = this.#summed.get(chatId);
    if (summed) {
      this.#summedBadge -= weight(summed, summed.archived ?? this.#known.get(chatId)?.chat.archived ?? false);
      this.#summedMentions -= summed.unread_mentions;
      this.#summed.delete(chatId);
    }
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
    switch (frame.type) {
      case 'message.created':
      case 'message.updated': {
        const { message } = frame;
        if (last && (message.seq < last.seq || (message.seq === last.seq && message.ev <= last.ev))) return false;
        if (message.type !== 'system' && message.created_at >= known.activity.at) known.activity = { at: message.created_at, below: 0 };
        this.#patch(known, {
          last_message: message,
          last_seq: Math.max(chat.last_seq, message.seq),
          last_ev: Math.max(chat.last_ev, frame.ev),
        });
        return true;
      }
      case 'message.deleted': {
        if (last?.message_id !== frame.message_id) return false;
        const tombstone = emptied(last, { ev: frame.ev, deleted_at: frame.deleted_at });
        this.#patch(known, { last_message: tombstone, last_ev: Math.max(chat.last_ev, frame.ev) });
        return true;
      }
      case 'chat.read':
        return this.#setMarker(known, frame.user_id, frame.read_seq);
      default: {
        const fields = 'ev' in frame && frame.ev !== null && frame.ev > chat.last_ev && this.#groupFields(chat, frame);
        if (fields) this.#patch(known, { ...fields, last_ev: frame.ev });
        return Boolean(fields);
      }
    }
  }

  /**
   * The count of unread messages comes with the whole chat, under the same number.
   * @param {Known} known @param {string} userId @param {number} readSeq
   */
  #setMarker(known, userId, readSeq) {
    const { other_user: other, peer_read_seq: peerReadSeq, read_seq: own } = known.chat;
    if (other?.user_id === userId) this.#patch(known, { peer_read_seq: Math.max(peerReadSeq ?? 0, readSeq) });
    else if (other || userId === this.me) this.#patch(known, { read_seq: Math.max(own, readSeq) });
    else return false;
    return true;
  }

  /**
   * What a frame changes in a group.
   * @param {Chat} chat @param {ServerFrame} frame
   * @returns {Partial<Chat> | null}
   */
  #groupFields(chat, frame) {
    switch (frame.type) {
      case 'member.joined':
        return { member_count: chat.member_count + frame.members.length };
      case 'member.left':
        return { member_count: chat.member_count - 1 };
      case 'member.updated':
        return frame.member.user.user_id === this.me ? { role: frame.member.role } : null;
      case 'chat.changed': {
        const { title, avatar_url, metadata, settings, member_count, receipts } = frame;
        return { title, avatar_url, metadata, settings, member_count, receipts };
      }
      default:
        return null;
    }
  }

  /**
   * Takes who is online in a chat.
   * @param {string} chatId @param {string[]} online
   * @returns {boolean} whether somebody's presence changed in the list
   */
  setOnline(chatId, online) {
    const chat = this.#known.get(chatId)?.chat;
    if (!chat) return false;
    if (chat.other_user) return this.setPresence(chat.other_user.user_id, online.includes(chat.other_user.user_id));
    // Who is missing may be no member of the group any more.
    return online.map((userId) => this.setPresence(userId, true)).includes(true);
  }

  /** @param {string} userId @param {boolean} online @param {string | null} [lastSeenAt] */
  setPresence(userId, online, lastSeenAt = null) {
    let changed = false;
    const told = this.#tick();
    for (const known of this.#known.values()) {
      const { other_user } = known.chat;
      if (other_user?.user_id !== userId) continue;
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

/** The other member of a chat as received, with the presence that is known already. @param {Chat} chat @param {Known} known */
function withPresence({ other_user }, { chat: { other_user: known } }) {
  return other_user && known ? { ...other_user, online: known.online, last_seen_at: known.last_seen_at } : other_user;
}

/** @param {Counters} counters @param {boolean} archived */
function weight({ unread_count: unread, unread_mentions: mentions, notify }, archived) {
  if (archived || notify === 'none') return 0;
  return notify === 'all' ? unread : mentions;
}
