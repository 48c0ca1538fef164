/** Who is typing: said again while it lasts, and forgotten when it is not. */

/** A "typing" that is not repeated ends after this. */
const TYPING_MS = 6_000;

export class Typing {
  #onChange;
  /** By chat, and by who types in it. @type {Map<string, Map<string, ReturnType<typeof setTimeout>>>} */
  #timers = new Map();

  /** @param {() => void} onChange */
  constructor(onChange) {
    this.#onChange = onChange;
  }

  /** @param {string} chatId */
  has(chatId) {
    return this.#timers.has(chatId);
  }

  /** Who types in a chat, in the order in which they began. @param {string} chatId @returns {string[]} */
  who(chatId) {
    return [...this.#timers.get(chatId)?.keys() ?? []];
  }

  /** Takes what a frame says: a message ends the typing of its sender. @param {import('./frames.js').ServerFrame} frame */
  take(frame) {
    if (frame.type === 'typing') this.set(frame.chat_id, frame.user_id, frame.typing);
    if (frame.type === 'member.left') this.set(frame.chat_id, frame.user_id, false);
    if ('message' in frame && frame.message.sender_id) this.set(frame.chat_id, frame.message.sender_id, false);
  }

  /** @param {string} chatId @param {string} userId @param {boolean} typing */
  set(chatId, userId, typing) {
    const timers = this.#timers.get(chatId) ?? new Map();
    const before = timers.has(userId);
    clearTimeout(timers.get(userId));
    if (typing) timers.set(userId, setTimeout(() => this.set(chatId, userId, false), TYPING_MS));
    else timers.delete(userId);
    if (timers.size) this.#timers.set(chatId, timers);
    else this.#timers.delete(chatId);
    if (before !== typing) this.#onChange();
  }
}
