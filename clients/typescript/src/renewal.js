/**
 * Replaces a token that expires soon, over the open socket. The server says how long it still has;
 * how long it had in all is known since it is in use here, so no clock need agree with another.
 */
import { surely } from './surely.js';

/** A token is replaced this long before its end, or in the middle of a life that is short. */
const MARGIN_MS = 60_000;
/** A token is used this long at least, however short its life is. */
const LEAST_LIFE_MS = 1_000;

export class Renewal {
  #options;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /**
   * @param {object} options
   * @param {import('./token.js').Credentials} options.credentials
   * @param {() => boolean} options.isEnded
   * @param {(token: string) => void} options.onRenewed
   * @param {() => void} options.onRefused  the host application has none to give
   */
  constructor(options) {
    this.#options = options;
  }

  /** @param {number} seconds that the token in use still has */
  expiresIn(seconds) {
    const { age } = this.#options.credentials;
    const left = seconds * 1000;
    const margin = Math.min(MARGIN_MS, (age + left) / 2);
    const old = this.#options.credentials.token;
    this.stop();
    this.#timer = setTimeout(() => this.#renew(old), Math.max(0, left - margin, LEAST_LIFE_MS - age));
  }

  stop() {
    clearTimeout(this.#timer);
  }

  /** @param {string | null} old */
  async #renew(old) {
    const { credentials, isEnded, onRenewed, onRefused } = this.#options;
    const isWanted = () => !isEnded() && credentials.token === old;
    if (!isWanted()) return;
    // The host application may be unavailable for a moment: it is asked again.
    try {
      await surely(() => credentials.renew(old, 'expiring'), isWanted);
    } catch {
      // Asked once more when the socket ends for it.
      return;
    }
    if (isEnded()) return;
    if (credentials.token !== old) onRenewed(/** @type {string} */ (credentials.token));
    else onRefused();
  }
}
