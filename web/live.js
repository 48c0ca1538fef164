/**
 * Follows rooms. One many-chats socket with the user's inbox where the server offers it; where it
 * does not, a socket of the one open room, and whoever owns the list has to ask for it.
 */
import { ResumingSocket } from './beseda.js';

/** A subscription that the server refused for now is asked for again after this. */
const RESUBSCRIBE_MS = 5_000;

/**
 * @typedef {() => ?import('./beseda.js').Position} PositionOf  where to resume; null: from now on
 *
 * @typedef {object} LiveOptions
 * @property {import('./beseda.js').Api} api
 * @property {(frame: object) => void} onFrame
 * @property {(state: import('./beseda.js').SocketState) => void} onState
 * @property {(chatId: string) => void} onGone      a followed room does not exist (any more)
 * @property {() => void} onInbox                   the inbox is live: time to read the list
 */

export class Live {
  /** @type {boolean | null} null until the server has shown what it offers */
  hasInbox = null;
  #options;
  /** @type {Map<string, PositionOf>} */
  #followed = new Map();
  /** @type {?ResumingSocket} the inbox, or the socket of one room */
  #socket = null;
  #commands = 0;

  /** @param {LiveOptions} options */
  constructor(options) {
    this.#options = options;
  }

  start() {
    this.#socket = new ResumingSocket({
      connect: () => this.#options.api.connect(),
      onFrame: (frame) => this.#onInboxFrame(frame),
      onState: (state) => this.#onInboxState(state),
    });
    this.#socket.start();
  }

  stop() {
    this.#socket?.stop();
    this.#socket = null;
    this.#followed.clear();
  }

  /** @param {string} chatId @param {PositionOf} positionOf */
  follow(chatId, positionOf) {
    if (this.#followed.has(chatId)) return;
    if (this.hasInbox === false) {
      this.#followed.clear();
      this.#followed.set(chatId, positionOf);
      this.#openRoomSocket();
    } else {
      this.#followed.set(chatId, positionOf);
      this.#subscribe(chatId);
    }
  }

  unfollow(chatId) {
    if (!this.#followed.delete(chatId)) return;
    if (this.hasInbox) this.#send({ type: 'unsubscribe', chat_id: chatId });
    else if (this.hasInbox === false) this.#socket?.stop();
  }

  follows(chatId) {
    return this.#followed.has(chatId);
  }

  typing(chatId, typing) {
    if (this.#followed.has(chatId)) this.#socket?.send({ type: 'typing', chat_id: chatId, typing });
  }

  /** A new token: for the socket that lives, or for the one that waits for it. */
  renew(token) {
    this.#send({ type: 'auth', token });
    this.#socket?.wake();
  }

  wake() {
    this.#socket?.wake();
  }

  /** Tries again after a stop, at the user's request. */
  restart() {
    this.#socket?.start();
  }

  #send(frame) {
    this.#commands += 1;
    return this.#socket?.send({ id: this.#commands, ...frame });
  }

  #subscribe(chatId) {
    const position = this.#followed.get(chatId)?.();
    this.#send({
      type: 'subscribe',
      id: `subscribe:${chatId}`,
      chat_id: chatId,
      ...(position ? { after_ev: position.ev, epoch: position.epoch } : {}),
    });
  }

  #onInboxState(state) {
    if (state.phase === 'live') this.hasInbox = true;
    if (state.phase !== 'unsupported') return this.#options.onState(state);
    this.hasInbox = false;
    this.#socket = null;
    this.#options.onState({ phase: 'idle' });
    this.#options.onInbox();
    const [latest] = [...this.#followed].slice(-1);
    this.#followed.clear();
    if (latest) this.follow(...latest);
  }

  #onInboxFrame(frame) {
    if (frame.type === 'hello') {
      for (const chatId of this.#followed.keys()) this.#subscribe(chatId);
      this.#options.onInbox();
    }
    if (frame.type === 'error' && String(frame.id).startsWith('subscribe:')) this.#onSubscribeError(frame);
    this.#options.onFrame(frame);
  }

  #onSubscribeError({ id, code, retry_after_ms: delay }) {
    const chatId = id.slice('subscribe:'.length);
    if (!this.#followed.has(chatId)) return;
    if (code === 'chat_not_found') {
      this.#followed.delete(chatId);
      this.#options.onGone(chatId);
    } else {
      setTimeout(() => this.#followed.has(chatId) && this.#subscribe(chatId), delay ?? RESUBSCRIBE_MS);
    }
  }

  #openRoomSocket() {
    this.#socket?.stop();
    const [[chatId, positionOf]] = this.#followed;
    this.#socket = new ResumingSocket({
      connect: () => this.#options.api.connectChat(chatId),
      query: () => {
        const position = positionOf();
        return position ? { after_ev: position.ev, epoch: position.epoch } : {};
      },
      onFrame: (frame) => this.#options.onFrame({ chat_id: chatId, ...frame }),
      onState: (state) => {
        if (state.phase === 'stopped' && state.code === 4004) {
          this.#followed.delete(chatId);
          this.#options.onGone(chatId);
        } else {
          this.#options.onState(state);
        }
      },
    });
    this.#socket.start();
  }
}
