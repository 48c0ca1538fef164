/** Repeats a call that the client needs. */
import { asApiError } from './errors.js';

/** A pause before it is tried again. */
const RETRY_MS = 3_000;

/**
 * Tries until it succeeds, or is not wanted any more.
 * @param {() => Promise<unknown>} work
 * @param {() => boolean} isWanted
 * @param {() => void} [onFailed]  an attempt failed, another one follows
 * @throws an error that a retry cannot mend
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

/**
 * Repeats a call whose answer is of an earlier epoch, as its commit may be lost. Only for calls that are harmless
 * when repeated.
 * @template T
 * @param {import('./chats.js').ChatList} chats
 * @param {() => Promise<T>} call
 * @returns {Promise<T>}
 */
export async function ofNow(chats, call) {
  for (;;) {
    const asked = chats.now;
    const answer = await call();
    if (!chats.isPast(asked)) return answer;
  }
}
