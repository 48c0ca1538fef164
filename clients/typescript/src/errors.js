/** How a call fails. */

/** @typedef {import('./schema.js').Problem} Problem */

/** A call that failed. */
export class ApiError extends Error {
  /**
   * @param {number} status  0 where no answer came
   * @param {Partial<Problem>} problem
   * @param {ErrorOptions} [options]
   */
  constructor(status, problem, options) {
    super(problem.detail || problem.title || `HTTP ${status}`, options);
    this.name = 'ApiError';
    this.status = status;
    /** Stable, as in the documentation; `network` where no answer came. */
    this.code = problem.code ?? (status === 0 ? 'network' : 'unknown');
    /** Which fields were at fault (422). */
    this.errors = problem.errors ?? [];
    this.retryAfterMs = problem.retry_after_ms ?? null;
    /** The same as a moment, in ms of `Date.now()`. */
    this.retryAt = this.retryAfterMs === null ? null : Date.now() + this.retryAfterMs;
    this.requestId = problem.request_id ?? null;
  }

  /** Whether the same call may do better later. */
  get temporary() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

/** Why something waits that `stop` held up, or that nobody wants any more. */
export const STOPPED = new ApiError(0, { title: 'stopped' });

/** @param {unknown} error @returns {ApiError} */
export function asApiError(error) {
  if (error instanceof ApiError) return error;
  const detail = error instanceof Error ? error.message : String(error);
  return new ApiError(0, { detail }, { cause: error });
}

/** A JSON object, or an empty one where a proxy answered in its own words. @param {string} text */
export function parseObject(text) {
  try {
    return Object(JSON.parse(text));
  } catch {
    return {};
  }
}
