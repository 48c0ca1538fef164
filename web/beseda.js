/**
 * A client of Beseda without a page: REST calls, and a socket that comes back by itself.
 * No dependency and no DOM; it runs in browsers and in node.
 *
 * @typedef {{user_id: string, name: ?string, avatar_url: ?string, online: boolean, last_seen_at: ?string}} User
 *
 * @typedef {object} Message
 * @property {string} message_id
 * @property {string} chat_id
 * @property {number} seq             its place in the chat: 1, 2, 3 …
 * @property {number} ev              the chat's change that made it what it is
 * @property {?string} sender_id      null only for a tombstone of a message never seen
 * @property {string} text
 * @property {?object} metadata
 * @property {?string} client_msg_id
 * @property {?string} created_at
 * @property {?string} edited_at
 * @property {?string} deleted_at
 *
 * @typedef {object} Chat
 * @property {string} chat_id
 * @property {string} room_name
 * @property {string} created_at
 * @property {string} created_by
 * @property {User} other_user
 * @property {?Message} last_message
 * @property {number} last_seq
 * @property {number} last_ev
 * @property {number} read_seq
 * @property {number} peer_read_seq
 * @property {number} unread_count
 *
 * @typedef {object} Page
 * @property {Message[]} results      ascending by seq
 * @property {boolean} has_more_before
 * @property {boolean} has_more_after
 * @property {number} head_seq
 * @property {number} head_ev
 * @property {string} epoch
 * @property {number} read_seq
 * @property {number} peer_read_seq
 *
 * @typedef {{ws_url: string, heartbeat_ms: number}} Grant
 * @typedef {{ev: number, epoch: string}} Position
 */

export const PROTOCOL = 'chat.v1';

/** How long a REST call may take. */
const CALL_TIMEOUT_MS = 15_000;
/** How long a socket may take to say hello, and how long a `pong` may take. */
const PATIENCE_MS = 10_000;
/** A socket that lived this long was healthy: the next failure starts the back-off anew. */
const HEALTHY_MS = 5_000;
/** Steps of back-off that a socket closed for its rate skips: it waits 4 s or more. */
const RATE_LIMITED_STEPS = 3;

/** A call that failed. `status` is 0 where no answer came. */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {{code?: string, title?: string, detail?: string, retry_after_ms?: number}} problem
   */
  constructor(status, problem) {
    super(problem.detail || problem.title || `HTTP ${status}`);
    this.name = 'ApiError';
    this.status = status;
    this.code = problem.code ?? (status === 0 ? 'network' : 'unknown');
    this.retryAfterMs = problem.retry_after_ms ?? null;
  }

  /** Whether the same call may do better later. */
  get temporary() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

const segment = encodeURIComponent;

/** The REST calls. */
export class Api {
  /**
   * @param {object} options
   * @param {string} options.base      where the API lives, ending in `/api/v1/`
   * @param {string} options.token
   * @param {typeof fetch} [options.fetch]
   * @param {(error: ApiError) => void} [options.onUnauthenticated]
   */
  constructor({ base, token, fetch: fetcher, onUnauthenticated }) {
    this.base = base;
    this.token = token;
    this.fetch = fetcher ?? ((...args) => fetch(...args));
    this.onUnauthenticated = onUnauthenticated ?? (() => {});
  }

  /** @returns {Promise<{results: Chat[], next: ?string}>} */
  listChats(query = {}) { return this.call('GET', 'chats/', { query }); }

  /** @returns {Promise<Chat & {created: boolean}>} */
  openChat(userId) { return this.call('POST', 'chats/', { body: { user_id: userId } }); }

  /** @returns {Promise<Chat>} */
  getChat(chat) { return this.call('GET', `chats/${segment(chat)}/`); }

  deleteChat(chat) { return this.call('DELETE', `chats/${segment(chat)}/`); }

  /** @returns {Promise<{total: number}>} */
  unread() { return this.call('GET', 'chats/unread/'); }

  /**
   * @param {{before?: number, after?: number, around?: number, limit?: number}} [query]
   * @returns {Promise<Page>}
   */
  history(chat, query = {}) { return this.call('GET', `chats/${segment(chat)}/messages/`, { query }); }

  /** @returns {Promise<Message>} */
  sendMessage(chat, text, clientMsgId) {
    return this.call('POST', `chats/${segment(chat)}/messages/`, { body: { text, client_msg_id: clientMsgId } });
  }

  /** @returns {Promise<Message>} */
  editMessage(chat, id, text) {
    return this.call('PATCH', `chats/${segment(chat)}/messages/${segment(id)}/`, { body: { text } });
  }

  deleteMessage(chat, id) { return this.call('DELETE', `chats/${segment(chat)}/messages/${segment(id)}/`); }

  /** @returns {Promise<{read_seq: number, unread_count: number, total_unread: number}>} */
  markRead(chat, upToSeq) {
    return this.call('POST', `chats/${segment(chat)}/mark_read/`, { body: { up_to_seq: upToSeq } });
  }

  /** @returns {Promise<{results: {message: Message, highlights: number[][]}[], next: ?number, complete: boolean}>} */
  search(chat, query, signal) { return this.call('GET', `chats/${segment(chat)}/search/`, { query, signal }); }

  /** @returns {Promise<Grant>} for a socket that follows one chat */
  connectChat(chat) { return this.call('GET', `chats/${segment(chat)}/connect/`); }

  /** @returns {Promise<Grant>} for the socket that carries many chats and the inbox */
  connect() { return this.call('POST', 'connect/'); }

  /**
   * @param {string} method
   * @param {string} path
   * @param {{query?: object, body?: object, signal?: AbortSignal}} [input]
   */
  async call(method, path, { query = {}, body, signal } = {}) {
    const url = new URL(path, this.base);
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined && value !== null) url.searchParams.set(name, value);
    }
    const headers = { Authorization: `Bearer ${this.token}`, Accept: 'application/json' };
    if (body !== undefined) headers['Content-Type'] = 'application/json';
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(), CALL_TIMEOUT_MS);
    signal?.addEventListener('abort', () => abort.abort());
    try {
      const response = await this.fetch(url, {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        signal: abort.signal,
        credentials: 'omit',
        cache: 'no-store',
      });
      const answer = await response.text();
      if (!response.ok) throw new ApiError(response.status, parseObject(answer));
      return answer === '' ? null : JSON.parse(answer);
    } catch (error) {
      const failure = error instanceof ApiError ? error : new ApiError(0, { detail: String(error?.message ?? error) });
      if (failure.status === 401) this.onUnauthenticated(failure);
      throw failure;
    } finally {
      clearTimeout(timer);
    }
  }
}

/** A problem's body, or nothing where a proxy answered in its own words. */
function parseObject(text) {
  try {
    return Object(JSON.parse(text));
  } catch {
    return {};
  }
}

/**
 * What a close code asks for: `stop`, a new `token` first, or `retry` after a pause. Whatever is
 * not ours (a proxy's 1006, 1011, 1012) is a retry.
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

/**
 * @typedef {object} SocketState
 * @property {'idle' | 'connecting' | 'live' | 'waiting' | 'token' | 'stopped' | 'unsupported'} phase
 * @property {number} [retryAt]  when `waiting` ends, in ms of `Date.now()`
 * @property {number} [code]     why it `stopped`
 *
 * @typedef {object} SocketOptions
 * @property {() => Promise<Grant>} connect      asks for a ticket; called for every attempt
 * @property {() => object} [query]              added to the socket's address: the position to resume from
 * @property {(frame: object) => void} onFrame
 * @property {(state: SocketState) => void} onState
 * @property {typeof WebSocket} [WebSocket]
 * @property {() => number} [random]
 */

/**
 * A socket that connects, watches over its heartbeat and comes back. It knows nothing of chats:
 * what was missed is the business of whoever gives it a position.
 */
export class ResumingSocket {
  /** @type {SocketState} */
  state = { phase: 'idle' };
  #options;
  #ws = null;
  #attempt = 0;
  #failures = 0;
  #refusals = 0;
  #liveSince = 0;
  #promisedDelay = null;
  #pauseAsked = false;
  #timers = new Map();

  /** @param {SocketOptions} options */
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

  /** @returns {boolean} whether it went out */
  send(frame) {
    if (this.state.phase !== 'live') return false;
    this.#ws.send(JSON.stringify(frame));
    return true;
  }

  async #open() {
    this.#drop();
    const attempt = this.#attempt;
    this.#setState({ phase: 'connecting' });
    let url;
    try {
      const grant = await this.#options.connect();
      url = new URL(grant.ws_url);
    } catch (error) {
      if (attempt === this.#attempt) this.#onRefused(error);
      return;
    }
    if (attempt !== this.#attempt) return;
    for (const [name, value] of Object.entries(this.#options.query?.() ?? {})) url.searchParams.set(name, value);

    const ws = new (this.#options.WebSocket ?? WebSocket)(url.href, PROTOCOL);
    this.#ws = ws;
    ws.onmessage = ({ data }) => attempt === this.#attempt && this.#onFrame(data);
    ws.onclose = ({ code }) => attempt === this.#attempt && this.#onClose(code);
    this.#after('patience', PATIENCE_MS, () => this.#onClose(1006));
  }

  #onFrame(data) {
    const frame = parseObject(data);
    if (frame.type === 'hello') this.#onHello(frame);
    if (frame.type === 'pong') this.#cancel('patience');
    if (frame.type === 'bye') this.#promisedDelay = frame.reconnect_in_ms ?? null;
    this.#options.onFrame(frame);
  }

  #onHello({ heartbeat_ms: heartbeat }) {
    this.#cancel('patience');
    this.#refusals = 0;
    this.#liveSince = Date.now();
    this.#setState({ phase: 'live' });
    // A page cannot see the server's pings; its own tell whether the line is still there.
    const beat = () => {
      this.#ping();
      this.#after('heartbeat', heartbeat || 25_000, beat);
    };
    this.#after('heartbeat', heartbeat || 25_000, beat);
  }

  #ping() {
    this.send({ type: 'ping' });
    if (!this.#timers.has('patience')) this.#after('patience', PATIENCE_MS, () => this.#onClose(1006));
  }

  #onRefused(error) {
    if (error.status === 401) return this.#setState({ phase: 'token' });
    if (error.status === 404 || error.status === 405) {
      const gone = error.code === 'chat_not_found';
      return this.#setState(gone ? { phase: 'stopped', code: 4004 } : { phase: 'unsupported' });
    }
    if (error.status === 403) return this.#setState({ phase: 'stopped', code: 4003 });
    this.#retry(error.retryAfterMs);
  }

  #onClose(code) {
    const lived = this.state.phase === 'live' ? Date.now() - this.#liveSince : 0;
    this.#drop();
    if (lived >= HEALTHY_MS) this.#failures = 0;
    switch (afterClose(code)) {
      case 'stop':
        return this.#setState({ phase: 'stopped', code });
      case 'token':
        // Perhaps only the ticket was stale: the next one tells, and REST says 401 if it is the token.
        return this.#refusals++ === 0 ? this.#open() : this.#setState({ phase: 'token' });
      default:
        if (code === 4204) this.#failures = Math.max(this.#failures, RATE_LIMITED_STEPS);
        return this.#retry(this.#promisedDelay);
    }
  }

  #retry(promisedDelay) {
    const delay = promisedDelay ?? backoff(this.#failures, this.#options.random);
    this.#pauseAsked = promisedDelay !== null;
    this.#failures += 1;
    this.#promisedDelay = null;
    this.#setState({ phase: 'waiting', retryAt: Date.now() + delay });
    this.#after('retry', delay, () => this.#open());
  }

  /** Ends the attempt; what it still has under way no longer counts. */
  #drop() {
    this.#attempt += 1;
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
    this.#ws?.close();
    this.#ws = null;
  }

  #after(name, ms, then) {
    this.#cancel(name);
    this.#timers.set(name, setTimeout(() => { this.#timers.delete(name); then(); }, ms));
  }

  #cancel(name) {
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }

  #setState(state) {
    this.state = state;
    this.#options.onState(state);
  }
}
