/** Who is typing: said again while it lasts, and forgotten when it is not. */

/** A "typing" that is not repeated ends after this. */
const TYPING_MS = 6_000;

export class Typing {
  #onChange;
  /** @type {Map<string, ReturnType<typeof setTimeout>>} */
  #timers = new Map();

  /** @param {() => void} onChange */
  constructor(onChange) {
    this.#onChange = onChange;
  }

  /** @param {string} chatId */
  has(chatId) {
    return this.#timers.has(chatId);
  }

  /** @param {string} chatId @param {boolean} typing */
  set(chatId, typing) {
    const before = this.has(chatId);
    clearTimeout(this.#timers.get(chatId));
    if (typing) this.#timers.set(chatId, setTimeout(() => this.set(chatId, false), TYPING_MS));
    else this.#timers.delete(chatId);
    if (before !== typing) this.#onChange();
  }
}
