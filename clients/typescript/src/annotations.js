/** Sets what members put on messages: reactions, at once on the screen, and pins. */
import { isSameEmoji } from './carried.js';
import { STOPPED } from './errors.js';
import { Outbox } from './outbox.js';
import { ofNow } from './surely.js';

/**
 * @typedef {import('./timeline.js').Message} Message
 * @typedef {import('./reactions.js').Wish} Wish
 * @typedef {import('./schema.js').Reaction} Reaction
 * @typedef {import('./outbox.js').Item & {message: Message, wish: Wish, done: () => void, refused: (error: unknown) => void}} Item
 */

export class Annotations {
  #options;
  /** One chat's reactions go out one after another. @type {Map<string, Outbox<Item>>} */
  #outboxes = new Map();

  /**
   * @param {object} options
   * @param {import('./api.js').Api} options.api
   * @param {import('./history.js').History} options.history
   * @param {() => boolean} options.isLive
   * @param {(chatId: string) => void} options.onChanged  a timeline
   * @param {import('./chats.js').ChatList} options.chats
   */
  constructor(options) {
    this.#options = options;
  }

  /**
   * @param {Message} message @param {string} emoji @param {boolean} on
   * @returns {Promise<void>} when the server has it; throws, and shows it no longer, if that refuses it
   */
  react(message, emoji, on) {
    const { history, onChanged } = this.#options;
    const wish = { emoji, on };
    history.get(message.chat_id)?.wish(message, wish);
    onChanged(message.chat_id);
    return new Promise((done, refused) => {
      this.#outboxOf(message.chat_id).push({ message, wish, done: () => done(), refused, failed: false, error: null });
    });
  }

  /** @param {string} chatId @returns {Outbox<Item>} */
  #outboxOf(chatId) {
    const known = this.#outboxes.get(chatId);
    if (known) return known;
    const { isLive } = this.#options;
    /** @type {Outbox<Item>} */
    const made = new Outbox({
      send: (item) => this.#send(item),
      isConnected: isLive,
      onFailed: (item) => {
        this.#settle(item, null);
        item.refused(item.error);
      },
    });
    this.#outboxes.set(chatId, made);
    return made;
  }

  /** @param {Item} item */
  async #send(item) {
    const { api, history, chats } = this.#options;
    const { message: { chat_id: chatId, message_id: id }, wish } = item;
    const timeline = history.get(chatId);
    // Another one with this emoji came after it.
    if (timeline && !timeline.wishes.has(id, wish)) return item.done();
    const told = timeline?.messages.find(({ message_id: other }) => other === id)?.ev;
    const { reactions } = await ofNow(chats, () => (wish.on ? api.react(chatId, id, wish.emoji) : api.unreact(chatId, id, wish.emoji)));
    this.#settle(item, { reactions, told });
    return item.done();
  }

  /** @param {Item} item @param {{reactions: Reaction[], told: number | undefined} | null} answer */
  #settle({ message: { chat_id: chatId, message_id: id }, wish }, answer) {
    const { history, onChanged } = this.#options;
    history.get(chatId)?.settle(id, wish, answer && {
      ...answer,
      emoji: answer.reactions.find(({ emoji }) => isSameEmoji(emoji, wish.emoji))?.emoji ?? wish.emoji,
    });
    onChanged(chatId);
  }

  /** @param {Message} message @param {boolean} on */
  async pin({ chat_id: chatId, message_id: id }, on) {
    const { api, chats } = this.#options;
    // What becomes of it comes as a frame: the answer has no number to order it by.
    await ofNow(chats, () => (on ? api.pin(chatId, id) : api.unpin(chatId, id)));
  }

  /** The connection or the token is back. */
  wake() {
    for (const outbox of this.#outboxes.values()) outbox.wake();
  }

  /** What was not set is set no more, and shown no more. @param {string} [chatId] of all chats where none is given */
  forget(chatId) {
    for (const [id, outbox] of this.#outboxes) {
      if (chatId !== undefined && id !== chatId) continue;
      this.#outboxes.delete(id);
      for (const item of outbox.clear()) {
        this.#settle(item, null);
        item.refused(STOPPED);
      }
    }
  }
}
