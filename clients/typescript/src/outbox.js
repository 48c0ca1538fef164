/**
 * Sends one chat's messages one after another, so that they arrive in the order they were written; its reactions
 * in the same way. A message keeps its `client_msg_id` through every attempt: however many of them reached the
 * server, it is stored once. Without a connection it waits for one, however long that takes.
 */
import { asApiError } from './errors.js';
import { backoff } from './connection.js';

/** Attempts over a working connection before a message counts as failed and its author is asked. */
const ATTEMPTS = 4;

/** @typedef {{failed: boolean, error: import('./errors.js').ApiError | null}} Item */

/** @template {Item} Of */
export class Outbox {
  #options;
  /** @type {Of[]} */
  #queue = [];
  /** @type {Of | null} the one on its way */
  #current = null;
  #running = false;
  /** Counts the times that nothing was wanted any more. */
  #cleared = 0;
  /** @type {(() => void) | null} ends the pause under way */
  #endPause = null;

  /**
   * @param {object} options
   * @param {(item: Of) => Promise<unknown>} options.send
   * @param {() => boolean} options.isConnected
   * @param {(item: Of) => void} options.onFailed
   * @param {number} [options.attempts]
   */
  constructor(options) {
    this.#options = options;
  }

  /** @param {Of} item */
  async push(item) {
    item.failed = false;
    item.error = null;
    this.#queue.push(item);
    if (this.#running) return;
    this.#running = true;
    try {
      for (let next = this.#queue.shift(); next; next = this.#queue.shift()) {
        this.#current = next;
        await this.#deliver(next);
        this.#current = null;
      }
    } finally {
      this.#running = false;
    }
  }

  /** The connection or the token is back: no reason to wait any longer. */
  wake() {
    this.#endPause?.();
  }

  /** Nothing of it is wanted any more. @returns {Of[]} what was to be sent, the one on its way included */
  clear() {
    const left = [...(this.#current ? [this.#current] : []), ...this.#queue];
    this.#cleared += 1;
    this.#queue = [];
    this.wake();
    return left;
  }

  /** @param {Of} item */
  async #deliver(item) {
    const cleared = this.#cleared;
    const { attempts = ATTEMPTS } = this.#options;
    let failures = 0;
    for (let attempt = 1; ; attempt += 1) {
      try {
        await this.#options.send(item);
        return;
      } catch (cause) {
        if (cleared !== this.#cleared) return;
        const error = asApiError(cause);
        // A token that ran out says nothing of the message.
        const waits = error.status === 401 || (error.temporary && !this.#options.isConnected());
        if (waits) {
          attempt = 0;
        } else if (!error.temporary || attempt >= attempts) {
          item.failed = true;
          item.error = error;
          this.#options.onFailed(item);
          return;
        }
        await this.#pause(error.retryAfterMs ?? backoff(failures++));
        if (cleared !== this.#cleared) return;
      }
    }
  }

  /** @param {number} ms */
  #pause(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve(undefined), ms);
      this.#endPause = () => { clearTimeout(timer); resolve(undefined); };
    }).finally(() => { this.#endPause = null; });
  }
}

/** A `client_msg_id`: 32 random hex digits; `crypto.randomUUID` is missing where a page comes over plain HTTP. */
export function newMessageId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
