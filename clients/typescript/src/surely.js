/** For what there is no going on without. */
import { asApiError } from './api.js';

/** A pause before it is tried again. */
const RETRY_MS = 3_000;

/**
 * Tries until it is done, or nobody wants it any more.
 * @param {() => Promise<unknown>} work
 * @param {() => boolean} isWanted
 * @param {() => void} [onFailed]  an attempt was in vain, another one follows
 * @throws what does not get better by itself
 */
export async function surely(work, isWanted, onFailed = () => {}) {
  while (isWanted()) {
    try {
      await work();
      return;
    } catch (cause) {
      const error = asApiError(cause);
      if (!error.temporary && error.status !== 401) throw error;
      onFailed();
      await new Promise((resolve) => setTimeout(resolve, error.retryAfterMs ?? RETRY_MS));
    }
  }
}
