/**
 * What the page adds to the client: one chat is open at a time.
 *
 * Events beside the client's: `open` (another chat is open, or none).
 */
import { Client } from '../clients/typescript/src/index.js';

/** Members whose names are read when a group is opened; others are asked for as their messages are seen. */
const MET = 100;

/** @typedef {import('../clients/typescript/src/index.js').Member} Member */

export class Session extends Client {
  /** @type {?string} */
  openId = null;
  /** Until when one may not write in a group, as far as it is known. @type {Map<string, ?string>} */
  #silenced = new Map();
  /** Refusals for which that was asked. */
  #asked = new WeakSet();
  /** Files on their way, which a page that is left would lose. */
  #uploading = new Set();

  /** @param {import('../clients/typescript/src/options.js').Options} options */
  constructor(options) {
    super(options);
    // Once everybody has heard of it: they may want to say that it was the open chat.
    this.on('gone', ({ chatId }) => queueMicrotask(() => { if (this.openId === chatId) this.show(null); }));
    this.on('chat', ({ chatId, frame }) => this.#onChat(chatId, frame));
    this.on('upload', ({ upload }) => {
      if (upload.phase === 'waiting' || upload.phase === 'sending') this.#uploading.add(upload);
      else this.#uploading.delete(upload);
    });
  }

  /** @param {?string} id of the chat to show, or its name; null shows none */
  async show(id) {
    this.openId = (id && this.chats.get(id)?.chat_id) ?? id;
    if (!id) return this.emit('open', {});
    if (!this.chats.get(id)) {
      const chat = await this.find(id).catch((error) => {
        if (this.openId === id) this.openId = null;
        throw error;
      });
      if (this.openId !== id) return undefined;
      this.openId = chat.chat_id;
    }
    const opening = this.open(this.openId);
    this.emit('open', {});
    if (this.chats.get(this.openId)?.kind === 'group') this.#meet(this.openId);
    return opening;
  }

  /** Learns the names of a group's members, of a large one's first, in one call, and whether one is silenced. */
  async #meet(chatId) {
    const page = await this.api.listMembers(chatId, { limit: MET }).catch(() => null);
    if (!page) return;
    this.people.learn(page.results.map(({ user }) => user));
    this.#learnOwn(chatId, page.results);
  }

  /** @param {string} chatId @param {Member[]} members */
  #learnOwn(chatId, members) {
    const own = members.find(({ user }) => user.user_id === this.me);
    if (!own) return;
    this.#silenced.set(chatId, own.silenced_until);
    this.emit('chats', {});
  }

  /** @param {string} chatId @param {?import('../clients/typescript/src/index.js').ServerFrame} [frame] */
  #onChat(chatId, frame) {
    if (frame?.type === 'member.updated') this.#learnOwn(chatId, [frame.member]);
    for (const { error } of this.timelineOf(chatId).pending) {
      if (error?.code !== 'silenced' || this.#asked.has(error)) continue;
      this.#asked.add(error);
      this.#askOwn(chatId);
    }
  }

  /** A message was refused, so one is silenced and was not told until when. @param {string} chatId */
  async #askOwn(chatId) {
    const page = await this.api.listMembers(chatId, { query: this.me, limit: MET }).catch(() => null);
    if (page) this.#learnOwn(chatId, page.results);
  }

  /** Whether files are on their way. */
  get isUploading() { return this.#uploading.size > 0; }

  /** Until when one may not write in a group; null: one may. @param {string} chatId */
  silencedUntil(chatId) {
    const until = this.#silenced.get(chatId);
    return until && Date.parse(until) > Date.now() ? until : null;
  }

  /** Sends, and brings the end of the chat into sight. @param {string} text @param {import('../clients/typescript/src/options.js').SendOptions} options */
  async sendHere(text, options) {
    const timeline = this.timelineOf(this.openId);
    this.send(this.openId, text, options);
    await this.showNewest(timeline);
  }

  /**
   * Somebody by their id; who is not known yet is asked for, and an event `people` follows.
   * @param {string} userId
   * @param {{ask?: boolean}} [options]  `ask`: unless the server would not say
   * @returns {import('../clients/typescript/src/index.js').User}
   */
  person(userId, { ask = true } = {}) {
    const other = this.chats.otherUser(userId);
    if (other) return other;
    if (ask) this.people.need([userId]);
    return this.people.get(userId) ?? { user_id: userId, name: null, avatar_url: null, online: false, last_seen_at: null };
  }
}
