/** Keeps the listeners of a client's events. */

/**
 * @typedef {import('./frames.js').ServerFrame} ServerFrame
 *
 * @typedef {object} Events
 * @property {{}} chats                                      the list changed
 * @property {{chatId: string, frame?: ServerFrame | null, sent?: boolean}} chat   a timeline changed
 * @property {{}} state                                      the connection changed
 * @property {{}} typing                                     somebody types, or stopped
 * @property {{chatId: string, reason: import('./frames.js').GoneReason | null}} gone  a chat is no longer one's
 *   own; the reason is null where the server did not give one
 * @property {{upload: import('./uploads.js').Upload}} upload  a file got on, is done, or failed
 * @property {{}} people                                     more is known of somebody
 * @property {{refused: string | null}} token                a new one is needed: why the server
 *   refused the old one, null where it only expires soon
 */

export class Emitter {
  /** @type {Map<string, ((detail: any) => void)[]>} */
  #listeners = new Map();

  /**
   * @template {keyof Events} Type
   * @param {Type} type
   * @param {(detail: Events[Type]) => void} listener
   * @returns {() => void} takes the listener off again
   */
  on(type, listener) {
    this.#listeners.set(type, [...(this.#listeners.get(type) ?? []), listener]);
    return () => this.#listeners.set(type, (this.#listeners.get(type) ?? []).filter((other) => other !== listener));
  }

  /** For what is built on top. @template {keyof Events} Type @param {Type} type @param {Events[Type]} detail */
  emit(type, detail) {
    for (const listener of this.#listeners.get(type) ?? []) {
      try {
        listener(detail);
      } catch (error) {
        // A listener's error must be visible, but not interrupt the client.
        report(error);
      }
    }
  }
}

/** Reports an error as uncaught. @param {unknown} error */
function report(error) {
  if (typeof reportError === 'function') reportError(error);
  else queueMicrotask(() => { throw error; });
}
