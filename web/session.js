/**
 * What the page adds to the client: one chat is open at a time.
 *
 * Events beside the client's: `open` (another chat is open, or none).
 */
import { Client } from '../clients/typescript/src/index.js';

export class Session extends Client {
  /** @type {?string} */
  openId = null;

  /** @param {import('../clients/typescript/src/client.js').Options} options */
  constructor(options) {
    super(options);
    // Once everybody has heard of it: they may want to say that it was the open chat.
    this.on('gone', ({ chatId }) => queueMicrotask(() => { if (this.openId === chatId) this.show(null); }));
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
    return opening;
  }

  /** Sends, and brings the end of the chat into sight. @param {string} text @param {import('../clients/typescript/src/index.js').Mentions} [mentions] */
  async sendHere(text, mentions) {
    const timeline = this.timelineOf(this.openId);
    this.send(this.openId, text, null, mentions);
    await this.showNewest(timeline);
  }

  /**
   * Somebody by their id; who is not known yet is asked for, and an event `people` follows.
   * @param {string} userId
   * @returns {import('../clients/typescript/src/index.js').User}
   */
  person(userId) {
    const other = this.chats.otherUser(userId);
    if (other) return other;
    this.people.need([userId]);
    return this.people.get(userId) ?? { user_id: userId, name: null, avatar_url: null, online: false, last_seen_at: null };
  }
}
