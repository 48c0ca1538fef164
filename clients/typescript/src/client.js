/**
 * One user's client: their chats, the timelines of those that are open, what is on its way out,
 * and the live connection that keeps it all right. No DOM; views listen.
 *
 * This holds its parts together: `list.js` reads the list, `history.js` the open chats, `sender.js`
 * `annotations.js` and `groups.js` do what the user asks for, `renewal.js` sees to the token, `live.js` to the socket,
 * `incoming.js` to its frames. What is known of the chats is in `chats.js` and `timeline.js`, of people in `people.js`.
 */
import { Annotations } from './annotations.js';
import { Api } from './api.js';
import { asApiError } from './errors.js';
import { ChatList } from './chats.js';
import { Emitter } from './emitter.js';
import { Groups } from './groups.js';
import { History } from './history.js';
import { Incoming } from './incoming.js';
import { ListSync } from './list.js';
import { Live } from './live.js';
import { People } from './people.js';
import { Renewal } from './renewal.js';
import { Sender } from './sender.js';
import { surely } from './surely.js';
import { Credentials, readClaims } from './token.js';
import { Typing } from './typing.js';
import { Uploads } from './uploads.js';

/**
 * @typedef {import('./emitter.js').Events} Events
 * @typedef {import('./timeline.js').Message} Message
 * @typedef {import('./timeline.js').Pending} Pending
 * @typedef {import('./timeline.js').Timeline} Timeline
 * @typedef {import('./connection.js').ConnectionState} ConnectionState
 * @typedef {import('./options.js').Options} Options
 * @typedef {import('./options.js').SendOptions} SendOptions
 */

export class Client extends Emitter {
  chats = new ChatList();
  typing = new Typing(() => this.emit('typing', {}));
  /** @type {ConnectionState} */
  state = { phase: 'idle' };
  /** The user's own id, known once there is a token. */
  me = '';
  #credentials;
  #only;
  #list;
  #history;
  #sender;
  #annotations;
  #renewal;
  /** Why the server refused the token; it says so in REST only. */
  #refused = 'token_expired';
  /** Ends the wait for a start that may take as long as the network is away. */
  #settleStart = () => {};
  /** Stopped: retries end. */
  #ended = false;

  /** @param {Options} options */
  constructor({ url, token = null, getToken = null, chat = null, followed = 20, fetch, WebSocket: Socket, random }) {
    super();
    if (!Socket && !globalThis.WebSocket) {
      throw new TypeError('no WebSocket here: give one, or run Node.js 22 (20: --experimental-websocket)');
    }
    const credentials = new Credentials({
      token,
      // Another user may have signed in meanwhile; calls in flight must not go out as theirs.
      getToken: getToken && (async (reason) => {
        const fresh = await getToken(reason);
        return fresh && this.#isMine(fresh) ? fresh : null;
      }),
    });
    const isEnded = () => this.#ended;
    const onChatsChanged = () => this.emit('chats', {});
    /** @type {<T>(chatId: string, call: Promise<T>) => Promise<T>} */
    const unlessGone = (chatId, call) => this.#unlessGone(chatId, call);
    this.#credentials = credentials;
    this.#only = chat;
    this.api = new Api({
      url,
      credentials,
      fetch,
      onUnauthenticated: ({ code }) => {
        this.#refused = code;
        this.emit('token', { refused: code });
      },
    });
    this.live = new Live({
      api: this.api,
      credentials,
      only: chat,
      onFrame: (frame) => incoming.take(frame),
      onState: (state) => this.#onState(state),
      onGone: (chatId) => this.#onGone(chatId),
      WebSocket: Socket,
      random,
    });
    const { api, live, chats } = this;
    this.people = new People({ api, onChanged: () => this.emit('people', {}) });
    this.#history = new History({
      api, live, isEnded, unlessGone,
      onChanged: (chatId) => this.emit('chat', { chatId }),
      onTrouble: () => this.#settleStart(),
    });
    const history = this.#history;
    this.#list = new ListSync({
      api, chats, live, history, only: chat, followed: chat ? 0 : followed, isEnded, unlessGone, onChanged: onChatsChanged,
    });
    this.groups = new Groups({
      api, list: this.#list, unlessGone, me: () => this.me, onLeft: (chatId) => this.#onGone(chatId, undefined, 'left'),
    });
    this.uploads = new Uploads({
      api, fetch, unlessGone,
      isLive: () => this.state.phase === 'live',
      onChanged: (upload) => this.emit('upload', { upload }),
    });
    this.#sender = new Sender({
      api, chats, history, unlessGone, onChatsChanged, uploads: this.uploads,
      isLive: () => this.state.phase === 'live',
      onChanged: (chatId, detail) => this.emit('chat', { chatId, ...detail }),
    });
    this.#annotations = new Annotations({
      api, chats, history,
      isLive: () => this.state.phase === 'live',
      onChanged: (chatId) => this.emit('chat', { chatId }),
    });
    this.#renewal = new Renewal({
      credentials,
      isEnded,
      onRenewed: (fresh) => live.renew(fresh),
      onRefused: () => this.emit('token', { refused: null }),
    });
    const incoming = new Incoming({
      chats, live, history, typing: this.typing, people: this.people, list: this.#list, renewal: this.#renewal, only: chat,
      onGone: (chatId, totalUnread, reason) => this.#onGone(chatId, totalUnread, reason),
      emit: (type, detail) => this.emit(type, detail),
    });
    credentials.onToken = (fresh) => {
      this.me = readClaims(fresh)?.sub ?? this.me;
      history.me = this.me;
      chats.me = this.me;
    };
    if (token) credentials.onToken(token);
  }

  // ---- from the start to the end ----

  /**
   * Connects, and stays connected. Resolves once the list of chats was read, or could not be: from
   * then on it is kept right, and `state` tells of the connection. With one `chat` only: once it is
   * open, or could not be opened so far.
   */
  async start() {
    this.#ended = false;
    await this.#credentials.current().catch(() => null);
    if (this.#ended) return;
    this.live.start();
    this.#history.followOpen();
    // The list need not wait for the socket.
    const only = this.#only;
    if (!only) return this.#list.refresh();
    await new Promise((resolve, reject) => {
      this.#settleStart = () => resolve(undefined);
      surely(() => this.open(only), () => !this.#ended, this.#settleStart).then(resolve, reject);
    });
  }

  /** Ends it; what has not been sent stays in the timelines, and goes out after another `start`. */
  stop() {
    this.#ended = true;
    this.#list.stop();
    this.#renewal.stop();
    this.#sender.stop();
    this.uploads.stop();
    this.#annotations.forget();
    this.live.stop();
  }

  /** @param {string} token of the same user */
  setToken(token) {
    if (!this.#isMine(token)) throw new TypeError('this token is of somebody else');
    this.#credentials.set(token);
    this.#credentials.wake();
    this.live.renew(token);
    this.#wakeWork();
    this.refresh();
  }

  /** @param {string} token */
  #isMine(token) {
    return !this.me || readClaims(token)?.sub === this.me;
  }

  /** The page or the network is back: what waits need not wait any longer. */
  wake() {
    this.#credentials.wake();
    this.live.wake();
  }

  /** Tries again after the connection `stopped`, at the user's request. */
  restart() {
    this.#credentials.wake();
    this.live.restart();
    this.refresh();
  }

  // ---- the list ----

  /** Reads the list anew, though it follows the server by itself. */
  refresh() {
    return this.#list.refresh();
  }

  loadMoreChats() {
    return this.#list.loadMore();
  }

  /** Opens the chat with a user, or makes it. @param {string} userId @returns {Promise<string>} its id */
  openWith(userId) {
    return this.#list.openWith(userId);
  }

  /** The chat as it is known, or as the server tells. @param {string} id or `room_name` */
  find(id) {
    return this.#list.find(id);
  }

  /** Reads those of the chats that are archived: `chats.archived()`. */
  loadArchived() {
    return this.#list.readArchived();
  }

  /** Pins or archives a chat, or says what to be notified of. @param {string} chatId @param {import('./schema.js').OwnSettings} settings */
  setOwn(chatId, settings) {
    return this.#list.take(() => this.#unlessGone(chatId, this.api.setOwn(chatId, settings)));
  }

  /** @param {string} chatId */
  async deleteChat(chatId) {
    await this.#unlessGone(chatId, this.api.deleteChat(chatId));
    this.#onGone(chatId, undefined, 'deleted');
  }

  /** A 404 on a chat means that it is gone, however it came about. @template T @param {string} chatId @param {Promise<T>} call */
  async #unlessGone(chatId, call) {
    try {
      return await call;
    } catch (error) {
      if (asApiError(error).code === 'chat_not_found') this.#onGone(chatId);
      throw error;
    }
  }

  /**
   * @param {string} chatId
   * @param {number} [totalUnread] in the chats that are left
   * @param {import('./frames.js').GoneReason | null} [reason]
   */
  #onGone(chatId, totalUnread, reason = null) {
    // It may be told twice: by the answer to a call, in the chat, and on the inbox.
    const wasKnown = Boolean(this.chats.get(chatId) ?? this.#history.get(chatId));
    this.#annotations.forget(chatId);
    this.#history.forget(chatId);
    this.#sender.forget(chatId);
    this.uploads.forgetChat(chatId);
    this.chats.remove(chatId, totalUnread);
    this.emit('chats', {});
    if (wasKnown) this.emit('gone', { chatId, reason });
  }

  // ---- open chats ----

  /**
   * Opens a chat: reads its history, and follows it from there on.
   * @param {string} id or `room_name`
   * @returns {Promise<Timeline>} kept up to date until `close`
   */
  async open(id) {
    return this.#history.open(this.chats.get(id) ?? await this.find(id));
  }

  /** Forgets a chat's timeline, but for what is still to be sent, and follows it no longer. @param {string} chatId */
  close(chatId) {
    this.#history.close(chatId);
    this.#list.followTop();
  }

  /** @param {string} chatId @returns {Timeline} */
  timelineOf(chatId) {
    return this.#history.timelineOf(chatId);
  }

  /** @param {Timeline} timeline */
  loadBefore(timeline) {
    return this.#history.loadBefore(timeline);
  }

  /** @param {Timeline} timeline */
  loadAfter(timeline) {
    return this.#history.loadAfter(timeline);
  }

  /** Moves the window to a message, unless it is there already. @param {Timeline} timeline @param {number} seq */
  showAround(timeline, seq) {
    return this.#history.showAround(timeline, seq);
  }

  /** @param {Timeline} timeline */
  showNewest(timeline) {
    return this.#history.showNewest(timeline);
  }

  /** Reads the pinned messages into `timeline.pins`, where frames keep them right. @param {Timeline} timeline */
  loadPins(timeline) {
    return this.#history.loadPins(timeline);
  }

  /**
   * Reads a message anew: whether one's own reaction is among more than 20 with the same emoji is known from an
   * answer only, if it was set on another device.
   * @param {Message} message
   */
  reread(message) {
    return this.#sender.reread(message);
  }

  // ---- messages ----

  /**
   * Sends, now or once there is a connection. The message stands in the timeline's `pending` at
   * once, and among its `messages` when the server has it.
   * @param {string} chatId
   * @param {string} text
   * @param {SendOptions} [options]
   * @returns {Pending}
   */
  send(chatId, text, options = {}) {
    return this.#sender.send(chatId, text, options);
  }

  /**
   * Uploads a file for a message that is yet to be sent: `send(chatId, text, { attachments: [upload] })`. It goes on
   * through a lost connection; the event `upload` tells how far it is. `uploads` retries and aborts.
   * @param {string} chatId @param {Blob} file
   * @param {{name?: string, contentType?: string}} [about]  where the file does not say it itself
   */
  upload(chatId, file, about) {
    return this.uploads.start(chatId, file, about);
  }

  /** Tries a message that failed once more, with the same id. @param {string} chatId @param {Pending} pending */
  retry(chatId, pending) {
    this.#sender.retry(chatId, pending);
  }

  /** Takes back a message that failed. @param {string} chatId @param {Pending} pending */
  discard(chatId, pending) {
    this.#sender.discard(chatId, pending);
  }

  /** @param {Message} message @param {string} text @param {import('./schema.js').Mentions} [mentions] left out: they stay */
  edit(message, text, mentions) {
    return this.#sender.edit(message, text, mentions);
  }

  /** Deletes a message. @param {Message} message */
  remove(message) {
    return this.#sender.remove(message);
  }

  /**
   * Reacts to a message; the timeline shows it at once.
   * @param {Message} message @param {string} emoji one, or a name such as `:party:`
   * @returns {Promise<void>} throws, and the timeline shows it no longer, if it is refused
   */
  react(message, emoji) {
    return this.#annotations.react(message, emoji, true);
  }

  /** Takes a reaction back, in the same way. @param {Message} message @param {string} emoji */
  unreact(message, emoji) {
    return this.#annotations.react(message, emoji, false);
  }

  /** @param {Message} message */
  pin(message) {
    return this.#annotations.pin(message, true);
  }

  /** @param {Message} message */
  unpin(message) {
    return this.#annotations.pin(message, false);
  }

  /** Marks as read what the timeline shows, up to its last message. @param {Timeline} timeline */
  markRead(timeline) {
    return this.#sender.markRead(timeline);
  }

  /** Tells the other members; say it again every few seconds while it lasts. @param {string} chatId @param {boolean} typing */
  sayTyping(chatId, typing) {
    this.live.typing(chatId, typing);
  }

  // ---- the socket ----

  /** @param {ConnectionState} state */
  #onState(state) {
    const wasLive = this.state.phase === 'live';
    this.state = state;
    this.emit('state', {});
    if (state.phase === 'token') this.emit('token', { refused: this.#refused });
    if (state.phase === 'live' && !wasLive) {
      this.#credentials.prove(this.#credentials.token);
      this.#wakeWork();
    }
  }

  /** What waits for a connection or a token need not wait any longer. */
  #wakeWork() {
    this.uploads.wake();
    this.#sender.wake();
    this.#annotations.wake();
  }
}
