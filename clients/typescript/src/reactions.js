/**
 * One's own reactions on their way: shown at once, over whatever version of the message comes meanwhile, until the
 * server has answered. Pure.
 */
import { isSameEmoji, withReaction } from './carried.js';

/**
 * @typedef {import('./timeline.js').Message} Message
 * @typedef {{emoji: string, on: boolean}} Wish
 */

export class Wishes {
  /** By message; the latest of an emoji counts. @type {Map<string, {base: Message, wishes: Wish[]}>} */
  #waiting = new Map();

  /** A message as the server told of it last. @param {Message} message as it is shown */
  told(message) {
    return this.#waiting.get(message.message_id)?.base ?? message;
  }

  /** A version that the server tells of, as it is to be shown. @param {Message} message @param {string} me */
  shown(message, me) {
    const entry = this.#waiting.get(message.message_id);
    if (!entry) return message;
    entry.base = message;
    return entry.wishes.reduce((shown, { emoji, on }) => withReaction(shown, emoji, on, me), message);
  }

  /** @param {Message} message as it is shown @param {Wish} wish */
  add(message, wish) {
    const entry = this.#waiting.get(message.message_id) ?? { base: message, wishes: [] };
    entry.wishes = [...entry.wishes.filter(({ emoji }) => !isSameEmoji(emoji, wish.emoji)), wish];
    this.#waiting.set(message.message_id, entry);
  }

  /** Whether it still counts: it is not settled, and there is no later one. @param {string} messageId @param {Wish} wish */
  has(messageId, wish) {
    return this.#waiting.get(messageId)?.wishes.includes(wish) ?? false;
  }

  /** It is done, or refused. @param {string} messageId @param {Wish} wish */
  remove(messageId, wish) {
    const entry = this.#waiting.get(messageId);
    if (!entry) return;
    entry.wishes = entry.wishes.filter((other) => other !== wish);
    if (!entry.wishes.length) this.#waiting.delete(messageId);
  }
}
