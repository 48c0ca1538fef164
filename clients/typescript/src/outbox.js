/**
 * Sends one chat's messages one after another, so that they arrive in the order they were written.
 * A message keeps its `client_msg_id` through every attempt: however many of them reached the
 * server, it is stored once. Without a connection it waits for one, however long that takes.
 */
import { asApiError } from './api.js';
import { backoff } from './connection.js';

/** Attempts over a working connection before a message counts as failed and its author is asked. */
const ATTEMPTS = 4;

/** @typedef {import('./timeline.js').Pending} Pending */

export class Outbox {
  #options;
  /** @type {Pending[]} */
  #queue = [];
  #running = false;
  /** Counts the times that nothing was wanted any more. */
  #cleared = 0;
  /** @type {(() => void) | null} ends the pause under way */
  #endPause = null;

  /**
   * @param {object} options
   * @param {(pending: Pending) => Promise<unknown>} options.send
   * @param {() => boolean} options.isConnected
   * @param {() => void} options.onFailed           a message failed
   */
  constructor(options) {
    this.#options = options;
  }

  /** @param {Pending} pending */
  async push(pending) {
    pending.failed = false;
    pending.error = null;
    this.#queue.push(pending);
    if (this.#running) return;
    this.#running = true;
    try {
      for (let next = this.#queue.shift(); next; next = this.#queue.shift()) await this.#deliver(next);
    } finally {
      this.#running = false;
    }
  }

  /** The connection or the token is back: no reason to wait any longer. */
  wake() {
    this.#endPause?.();
  }

  /** Nothing of it is wanted any more. */
  clear() {
    this.#cleared += 1;
    this.#queue = [];
    this.wake();
  }

  /** @param {Pending} pending */
  async #deliver(pending) {
    const cleared = this.#cleared;
    let failures = 0;
    for (let attempt = 1; ; attempt += 1) {
      try {
        await this.#options.send(pending);
        return;
      } catch (cause) {
        if (cleared !== this.#cleared) return;
        const error = asApiError(cause);
        // A token that ran out says nothing of the message.
        const waits = error.status === 401 || (error.temporary && !this.#options.isConnected());
        if (waits) {
          attempt = 0;
        } else if (!error.temporary || attempt >= ATTEMPTS) {
          pending.failed = true;
          pending.error = error;
          this.#options.onFailed();
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
