/** The host application's token: who it is for, and how to come by the next one. */

/**
 * Why a token is asked for. `start`: there is none yet; `expiring`: the one in use ends soon; the
 * others are the server's word on the one in use.
 * @typedef {'start' | 'expiring' | 'token_expired' | 'token_invalid' | 'unauthenticated'} TokenReason
 */

/**
 * Asks the host application for a token of the person who is signed in. It may reject, which counts
 * as "try again later", or give null: there is none to be had, until `set` brings one.
 * @typedef {(reason: TokenReason) => (string | null | Promise<string | null>)} GetToken
 */

/**
 * The claims of a JWT, unverified: the server decides, a client only wants to know who it is.
 * @param {string} token
 * @returns {{sub: string, name?: string, exp?: number} | null}
 */
export function readClaims(token) {
  try {
    const payload = token.trim().split('.')[1] ?? '';
    const binary = atob(payload.replaceAll('-', '+').replaceAll('_', '/'));
    const bytes = Uint8Array.from(binary, (char) => char.charCodeAt(0));
    const claims = JSON.parse(new TextDecoder().decode(bytes));
    return typeof claims?.sub === 'string' && claims.sub !== '' ? claims : null;
  } catch {
    return null;
  }
}

/** Everything waits for the answer: one that never comes must not hold it all up for ever. */
const ASK_TIMEOUT_MS = 15_000;

/** @template T @param {T | Promise<T>} answer @returns {Promise<T>} */
function inTime(answer) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('getToken took too long')), ASK_TIMEOUT_MS);
  });
  return Promise.race([answer, late]).finally(() => clearTimeout(timer));
}

/** In vain twice in a row: asked again after a second, then ever later, and each half a minute in the end. */
const FIRST_PAUSE_MS = 1_000;
const MAX_PAUSE_MS = 30_000;

export class Credentials {
  /** @type {string | null} the token in use */
  token;
  /** Hears of every new one. @type {(token: string) => void} */
  onToken = () => {};
  #getToken;
  /** @type {Promise<boolean> | null} one question at a time, however many calls wait for it */
  #asking = null;
  #since = Date.now();
  /** Whether the server took the token in use. */
  #proven = false;
  /** Questions in a row that brought no token which the server took. */
  #failures = 0;
  #notBefore = 0;
  /** @type {unknown} why the last question failed; null: the answer was that there is no token */
  #trouble = null;

  /** @param {{token?: string | null, getToken?: GetToken | null}} options */
  constructor({ token = null, getToken = null }) {
    if (!token && !getToken) throw new TypeError('a token or getToken is needed');
    this.token = token;
    this.#getToken = getToken;
  }

  /** Whether there is a `getToken` to ask. */
  get canRenew() {
    return this.#getToken !== null;
  }

  /** How long the token in use has been that, in ms. */
  get age() {
    return Math.max(0, Date.now() - this.#since);
  }

  /** @param {string} token */
  set(token) {
    this.token = token;
    this.#since = Date.now();
    this.#proven = false;
    this.onToken(token);
  }

  /** The server took it. @param {string | null} token */
  prove(token) {
    if (token === this.token) this.#proven = true;
  }

  /** The network, the page or the user is back: no reason to spare the host application any longer. */
  wake() {
    this.#failures = 0;
    this.#notBefore = 0;
  }

  /** @returns {Promise<string | null>} the token in use; the first call asks for it */
  async current() {
    if (!this.token) await this.renew(null, 'start');
    return this.token;
  }

  /**
   * Sees to a token other than `old`. A host application that answers in vain is asked ever less
   * often: until the next question its last answer stands.
   * @param {string | null} old  the one that no longer does
   * @param {TokenReason} reason
   * @returns {Promise<boolean>} whether there is another one now
   */
  async renew(old, reason) {
    if (this.token !== old) return true;
    if (!this.#getToken) return false;
    this.#asking ??= this.#ask(this.#getToken, reason).finally(() => { this.#asking = null; });
    await this.#asking;
    return this.token !== old;
  }

  /** @param {GetToken} getToken @param {TokenReason} reason */
  async #ask(getToken, reason) {
    const wait = this.#notBefore - Date.now();
    // A clock that was set back must not make it longer.
    if (wait > 0 && wait <= MAX_PAUSE_MS) {
      if (this.#trouble !== null) throw this.#trouble;
      return false;
    }
    if (this.#proven) this.#failures = 0;
    try {
      const token = await inTime(getToken(reason));
      this.#rest(null);
      if (token) this.set(token);
      return Boolean(token);
    } catch (trouble) {
      this.#rest(trouble);
      throw trouble;
    }
  }

  /** Counts a question as failed until the server has taken the token that it brought. @param {unknown} trouble */
  #rest(trouble) {
    this.#trouble = trouble;
    this.#failures += 1;
    const pause = this.#failures < 2 ? 0 : Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (this.#failures - 2));
    this.#notBefore = Date.now() + pause;
  }
}
