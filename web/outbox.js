/**
 * Sends one room's messages one after another, so that they arrive in the order they were written.
 * A message keeps its `client_msg_id` through every attempt: however many of them reached the
 * server, it is stored once.
 */
import { backoff } from './beseda.js';

/** Attempts before a message is shown as failed and its author is asked. */
const ATTEMPTS = 4;

/** @typedef {import('./timeline.js').Pending} Pending */

export class Outbox {
  #send;
  #onChange;
  #sleep;
  /** @type {Pending[]} */
  #queue = [];
  #running = false;

  /**
   * @param {object} options
   * @param {(pending: Pending) => Promise<void>} options.send
   * @param {() => void} options.onChange           after a message failed
   * @param {(ms: number) => Promise<void>} [options.sleep]
   */
  constructor({ send, onChange, sleep }) {
    this.#send = send;
    this.#onChange = onChange;
    this.#sleep = sleep ?? ((ms) => new Promise((resolve) => setTimeout(resolve, ms)));
  }

  /** @param {Pending} pending */
  async push(pending) {
    pending.failed = false;
    pending.error = null;
    this.#queue.push(pending);
    if (this.#running) return;
    this.#running = true;
    while (this.#queue.length) await this.#deliver(this.#queue.shift());
    this.#running = false;
  }

  async #deliver(pending) {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#send(pending);
      } catch (error) {
        if (!error.temporary || attempt === ATTEMPTS) {
          pending.failed = true;
          pending.error = error;
          return this.#onChange();
        }
        await this.#sleep(error.retryAfterMs ?? backoff(attempt - 1));
      }
    }
  }
}
