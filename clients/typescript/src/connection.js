/**
 * A socket that connects, watches over its heartbeat and comes back. It knows nothing of chats: what
 * was missed is the business of its owner, which gives it a position.
 */
import { ApiError, asApiError, parseObject } from './errors.js';

/**
 * @typedef {import('./frames.js').ServerFrame} ServerFrame
 * @typedef {import('./frames.js').ClientFrame} ClientFrame
 *
 * @typedef {object} ConnectionState
 * @property {'idle' | 'connecting' | 'live' | 'waiting' | 'token' | 'stopped'} phase  `token`: no
 *   token does any more; `stopped`: it makes no sense to try again by itself
 * @property {number} [retryAt]  when `waiting` ends, in ms of `Date.now()`
 * @property {number} [code]     why it `stopped`: a close code, or the status of a refused ticket
 *
 * @typedef {object} ConnectionOptions
 * @property {(attempt: {renew: boolean}) => Promise<{ws_url: string}>} connect  asks for a ticket;
 *   called for every attempt. `renew`: with a new token, the server refused the last one
 * @property {boolean} [canRenew]                whether that is possible at all
 * @property {() => Record<string, string | number>} [query]  added to the socket's address
 * @property {(frame: ServerFrame) => void} onFrame
 * @property {(state: ConnectionState) => void} onState
 * @property {SocketClass} [WebSocket]           where the platform has none (Node.js 20)
 * @property {() => number} [random]
 *
 * What is needed of a WebSocket: its events differ between the DOM and the package `ws`.
 * @typedef {object} Socket
 * @property {number} readyState
 * @property {(data: string) => void} send
 * @property {() => void} close
 * @property {((event: any) => void) | null} onmessage
 * @property {((event: any) => void) | null} onclose
 * @property {((event: any) => void) | null} onerror
 * @typedef {new (url: string, protocol: string) => Socket} SocketClass
 */

export const PROTOCOL = 'chat.v1';

/** How long a socket may take to say hello, and how long a `pong` may take. */
const PATIENCE_MS = 10_000;
/** A socket that lived this long was healthy: the next failure starts the back-off anew. */
const HEALTHY_MS = 5_000;
/** Steps of back-off that a socket closed for its rate skips: it waits 4 s or more. */
const RATE_LIMITED_STEPS = 3;
/** How often the line is tried where the server did not say: its own default. */
const HEARTBEAT_MS = 25_000;

/**
 * What a close code asks for: `stop`, a new `token` first, or `retry` after a pause. A code
 * of others (a proxy's 1006, 1011, 1012) is a retry.
 * @param {number} code
 * @returns {'stop' | 'token' | 'retry'}
 */
export function afterClose(code) {
  if (code === 1003 || code === 1009 || (code >= 4000 && code < 4100)) return 'stop';
  return code >= 4100 && code < 4200 ? 'token' : 'retry';
}

/**
 * Back-off that doubles from half a second to half a minute. The upper half is random, so that
 * clients dropped together do not come back together.
 * @param {number} failures in a row, from 0
 */
export function backoff(failures, random = Math.random) {
  const ceiling = Math.min(30_000, 500 * 2 ** Math.min(failures, 10));
  return Math.round(ceiling * (0.5 + 0.5 * random()));
}

export class Connection {
  /** @type {ConnectionState} */
  state = { phase: 'idle' };
  #options;
  /** @type {Socket | null} */
  #ws = null;
  #attempt = 0;
  #failures = 0;
  #refusals = 0;
  #liveSince = 0;
  /** @type {number | null} */
  #promisedDelay = null;
  #pauseAsked = false;
  /** @type {Map<string, ReturnType<typeof setTimeout>>} */
  #timers = new Map();

  /** @param {ConnectionOptions} options */
  constructor(options) {
    this.#options = options;
  }

  start() {
    if (this.state.phase !== 'live' && this.state.phase !== 'connecting') this.#open();
  }

  /** Closes for good; `start` begins anew. */
  stop() {
    this.#drop();
    this.#setState({ phase: 'idle' });
  }

  /** Closes and opens again, from the position that `query` gives then. */
  restart() {
    this.#open();
  }

  /**
   * The network or the page is back, or there is a new token: no reason to wait any longer, unless
   * it was the server that asked for the pause.
   */
  wake() {
    const { phase } = this.state;
    if (phase === 'token' || (phase === 'waiting' && !this.#pauseAsked)) {
      this.#failures = 0;
      this.#open();
    } else if (phase === 'live') {
      this.#ping();
    }
  }

  /** @param {ClientFrame} frame @returns {boolean} whether it went out */
  send(frame) {
    if (this.state.phase !== 'live' || this.#ws?.readyState !== 1) return false;
    this.#ws.send(JSON.stringify(frame));
    return true;
  }

  async #open({ renew = false } = {}) {
    this.#drop();
    const attempt = this.#attempt;
    this.#setState({ phase: 'connecting' });
    let url;
    try {
      url = new URL((await this.#options.connect({ renew })).ws_url);
    } catch (error) {
      if (attempt === this.#attempt) this.#onRefused(asApiError(error));
      return;
    }
    if (attempt !== this.#attempt) return;
    for (const [name, value] of Object.entries(this.#options.query?.() ?? {})) url.searchParams.set(name, String(value));

    const Class = this.#options.WebSocket ?? globalThis.WebSocket;
    /** @type {Socket} */
    const ws = new Class(url.href, PROTOCOL);
    this.#ws = ws;
    ws.onmessage = ({ data }) => { if (attempt === this.#attempt) this.#onFrame(data); };
    ws.onclose = ({ code }) => { if (attempt === this.#attempt) this.#onClose(code); };
    // `close` follows and is handled; but with `ws`, an `error` event without a listener ends the process.
    ws.onerror = () => {};
    this.#after('patience', PATIENCE_MS, () => this.#onClose(1006));
  }

  /** @param {string} data */
  #onFrame(data) {
    const frame = /** @type {ServerFrame} */ (parseObject(data));
    if (frame.type === 'hello') this.#onHello(frame.heartbeat_ms);
    if (frame.type === 'pong') this.#cancel('patience');
    if (frame.type === 'bye') this.#promisedDelay = frame.reconnect_in_ms ?? null;
    this.#options.onFrame(frame);
  }

  /** @param {number} heartbeat */
  #onHello(heartbeat) {
    this.#cancel('patience');
    this.#refusals = 0;
    this.#liveSince = Date.now();
    this.#setState({ phase: 'live' });
    // A browser does not show the server's pings, so our own ones tell whether the connection still works.
    const beat = () => {
      this.#ping();
      this.#after('heartbeat', heartbeat || HEARTBEAT_MS, beat);
    };
    this.#after('heartbeat', heartbeat || HEARTBEAT_MS, beat);
  }

  #ping() {
    this.send({ type: 'ping' });
    if (!this.#timers.has('patience')) this.#after('patience', PATIENCE_MS, () => this.#onClose(1006));
  }

  /** @param {ApiError} error */
  #onRefused({ status, code, temporary, retryAfterMs }) {
    if (status === 401) return this.#setState({ phase: 'token' });
    if (temporary) return this.#retry(retryAfterMs);
    return this.#setState({ phase: 'stopped', code: code === 'chat_not_found' ? 4004 : status });
  }

  /** @param {number} code */
  #onClose(code) {
    const lived = this.state.phase === 'live' ? Date.now() - this.#liveSince : 0;
    this.#drop();
    if (lived >= HEALTHY_MS) this.#failures = 0;
    switch (afterClose(code)) {
      case 'stop':
        return this.#setState({ phase: 'stopped', code });
      case 'token':
        // The first time at once: perhaps only the ticket was stale.
        if (this.#refusals++ === 0) return void this.#open({ renew: true });
        return this.#options.canRenew ? this.#retry(null, true) : this.#setState({ phase: 'token' });
      default:
        if (code === 4204) this.#failures = Math.max(this.#failures, RATE_LIMITED_STEPS);
        return this.#retry(this.#promisedDelay);
    }
  }

  /** @param {number | null} promisedDelay */
  #retry(promisedDelay, renew = false) {
    const delay = promisedDelay ?? backoff(this.#failures, this.#options.random);
    this.#pauseAsked = promisedDelay !== null;
    this.#failures += 1;
    this.#promisedDelay = null;
    this.#setState({ phase: 'waiting', retryAt: Date.now() + delay });
    this.#after('retry', delay, () => this.#open({ renew }));
  }

  /** Ends the attempt; what it still has under way no longer counts. */
  #drop() {
    this.#attempt += 1;
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
    this.#ws?.close();
    this.#ws = null;
  }

  /** @param {string} name @param {number} ms @param {() => void} then */
  #after(name, ms, then) {
    this.#cancel(name);
    this.#timers.set(name, setTimeout(() => { this.#timers.delete(name); then(); }, ms));
  }

  /** @param {string} name */
  #cancel(name) {
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }

  /** @param {ConnectionState} state */
  #setState(state) {
    this.state = state;
    this.#options.onState(state);
  }
}
