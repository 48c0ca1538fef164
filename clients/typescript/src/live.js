/**
 * Follows chats over one socket: many of them with the user's inbox, or a single one with a socket
 * of its own. A follower says where to resume; frames of an earlier
 * subscription do not reach it.
 */
import { Connection } from './connection.js';

/** A subscription that the server refused for now is asked for again after this. */
const RESUBSCRIBE_MS = 5_000;

/**
 * @typedef {import('./api.js').Api} Api
 * @typedef {import('./connection.js').ConnectionState} ConnectionState
 * @typedef {import('./frames.js').ServerFrame} ServerFrame
 * @typedef {import('./frames.js').ClientFrame} ClientFrame
 * @typedef {() => import('./frames.js').Position | null} PositionOf  where to resume; null: from now on
 *
 * @typedef {object} LiveOptions
 * @property {Api} api
 * @property {import('./token.js').Credentials} credentials
 * @property {string | null} only                   the one chat to follow, instead of many and the inbox
 * @property {(frame: ServerFrame) => void} onFrame
 * @property {(state: ConnectionState) => void} onState
 * @property {(chatId: string) => void} onGone      a followed chat does not exist (any more)
 * @property {import('./connection.js').SocketClass} [WebSocket]
 * @property {() => number} [random]
 */

export class Live {
  #options;
  /**
   * `id` names the latest subscription; until the server confirms it, what comes is of an older one.
   * `refused`: there were too many already.
   * @type {Map<string, {positionOf: PositionOf, id: string | undefined, confirmed: boolean, refused: boolean}>}
   */
  #followed = new Map();
  #connection;
  #commands = 0;
  #started = false;

  /** @param {LiveOptions} options */
  constructor(options) {
    this.#options = options;
    const { api, credentials, only, onState } = options;
    this.#connection = new Connection({
      connect: async ({ renew }) => {
        if (renew) await credentials.renew(credentials.token, 'token_invalid');
        return only ? api.connectChat(only) : api.connect();
      },
      canRenew: credentials.canRenew,
      query: () => (only ? this.#resumeFrom([...this.#followed.keys()][0] ?? only) : {}),
      onFrame: (frame) => this.#onFrame(frame),
      onState: (state) => {
        if (only && state.phase === 'stopped' && state.code === 4004) {
          for (const chatId of this.#followed.keys()) options.onGone(chatId);
        }
        onState(state);
      },
      WebSocket: options.WebSocket,
      random: options.random,
    });
  }

  start() {
    this.#started = true;
    if (!this.#options.only || this.#followed.size) this.#connection.start();
  }

  stop() {
    this.#started = false;
    this.#followed.clear();
    this.#connection.stop();
  }

  /** @param {string} chatId @param {PositionOf} positionOf */
  follow(chatId, positionOf) {
    if (this.#followed.has(chatId)) return;
    this.#followed.set(chatId, { positionOf, id: undefined, confirmed: false, refused: false });
    if (!this.#options.only) this.#subscribe(chatId);
    else if (this.#started) this.#connection.start();
  }

  /** @param {string} chatId */
  unfollow(chatId) {
    if (!this.#followed.delete(chatId)) return;
    if (this.#options.only) return this.#connection.stop();
    this.#send({ type: 'unsubscribe', id: this.#nextId(), chat_id: chatId });
    const [waiting] = [...this.#followed].find(([, { refused }]) => refused) ?? [];
    if (waiting !== undefined) this.#subscribe(waiting);
  }

  /** @param {string} chatId */
  follows(chatId) {
    return this.#followed.has(chatId);
  }

  /** @returns {string[]} */
  followed() {
    return [...this.#followed.keys()];
  }

  /** Asks once more for what came after the follower's position. @param {string} chatId */
  resume(chatId) {
    if (!this.#followed.has(chatId)) return undefined;
    if (this.#options.only) return this.#connection.restart();
    this.#send({ type: 'unsubscribe', id: this.#nextId(), chat_id: chatId });
    return this.#subscribe(chatId);
  }

  /** @param {string} chatId @param {boolean} typing */
  typing(chatId, typing) {
    if (this.#followed.has(chatId)) this.#send({ type: 'typing', chat_id: chatId, typing });
  }

  /** A new token: for the socket that lives, or for the one that waits for it. @param {string} token */
  renew(token) {
    this.#send({ type: 'auth', id: this.#nextId(), token });
    this.#connection.wake();
  }

  wake() {
    this.#connection.wake();
  }

  /** Tries again after a stop, at the user's request. */
  restart() {
    this.#connection.start();
  }

  #nextId() {
    this.#commands += 1;
    return this.#commands;
  }

  /** @param {ClientFrame} frame */
  #send(frame) {
    return this.#connection.send(frame);
  }

  /** @param {string} chatId @returns {{after_ev?: number, epoch?: string}} */
  #resumeFrom(chatId) {
    const position = this.#followed.get(chatId)?.positionOf();
    return position ? { after_ev: position.ev, epoch: position.epoch } : {};
  }

  /** @param {string} chatId */
  #subscribe(chatId) {
    const entry = this.#followed.get(chatId);
    if (!entry) return;
    entry.id = `subscribe:${this.#nextId()}`;
    entry.confirmed = false;
    entry.refused = false;
    this.#send({ type: 'subscribe', id: entry.id, chat_id: chatId, ...this.#resumeFrom(chatId) });
  }

  /** @param {ServerFrame} frame */
  #onFrame(frame) {
    if (frame.type === 'hello') this.#onHello();
    if (frame.type === 'error') this.#onError(frame);
    if (frame.type === 'subscribed') {
      const entry = this.#followed.get(frame.chat_id);
      if (entry && frame.id === entry.id) entry.confirmed = true;
    }
    // Of a subscription that ended: a position taken from it would skip what lies between.
    const isPlaced = 'ev' in frame || frame.type === 'reset';
    if (isPlaced && !this.#followed.get(frame.chat_id)?.confirmed) return;
    this.#options.onFrame(frame);
  }

  #onHello() {
    for (const [chatId, entry] of this.#followed) {
      entry.confirmed = false;
      if (!this.#options.only) this.#subscribe(chatId);
    }
  }

  /** @param {Extract<ServerFrame, {type: 'error'}>} frame */
  #onError({ id, code, retry_after_ms: delay }) {
    const [chatId, entry] = [...this.#followed].find(([, { id: latest }]) => id !== undefined && latest === id) ?? [];
    if (chatId === undefined || !entry) return;
    if (code === 'chat_not_found') {
      this.#followed.delete(chatId);
      this.#options.onGone(chatId);
    } else if (code === 'forbidden') {
      // In vain until another one is given up.
      entry.refused = true;
    } else {
      setTimeout(() => {
        // Unless it was asked for anew, or is not wanted any more.
        if (this.#followed.get(chatId)?.id === id) this.#subscribe(chatId);
      }, delay ?? RESUBSCRIBE_MS);
    }
  }
}
