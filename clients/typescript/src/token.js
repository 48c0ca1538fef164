/** The host application's token: who it is for, and how to come by the next one. */

/**
 * Why a token is asked for. `start`: there is none yet; `expiring`: the one in use ends within a
 * minute; the others are the server's word on the one in use.
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

export class Credentials {
  /** @type {string | null} the token in use */
  token;
  /** Hears of every new one. @type {(token: string) => void} */
  onToken = () => {};
  #getToken;
  /** @type {Promise<boolean> | null} one question at a time, however many calls wait for it */
  #asking = null;

  /** @param {{token?: string | null, getToken?: GetToken | null}} options */
  constructor({ token = null, getToken = null }) {
    if (!token && !getToken) throw new TypeError('a token or getToken is needed');
    this.token = token;
    this.#getToken = getToken;
  }

  /** Whether there is somebody to ask. */
  get canRenew() {
    return this.#getToken !== null;
  }

  /** @param {string} token */
  set(token) {
    this.token = token;
    this.onToken(token);
  }

  /** @returns {Promise<string | null>} the token in use; the first call asks for it */
  async current() {
    if (!this.token) await this.renew(null, 'start');
    return this.token;
  }

  /**
   * Sees to a token other than `old`.
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
    const token = await inTime(getToken(reason));
    if (token) this.set(token);
    return Boolean(token);
  }
}
