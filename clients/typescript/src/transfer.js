/** Brings bytes to an upload's URL, without a token: the URL is the right. */
import { ApiError, asApiError, parseObject } from './errors.js';

/** A line on which nothing moves for so long is dead. */
const IDLE_MS = 60_000;

/**
 * @typedef {object} Answer
 * @property {number} status
 * @property {number} received  how many bytes are there, by a 308
 * @property {ApiError | null} error
 *
 * @typedef {object} Target
 * @property {string} url
 * @property {Record<string, string>} headers
 */

/**
 * Sends the bytes from `from` on. Throws where no answer came.
 * @param {Target} target
 * @param {Blob} bytes  all of them
 * @param {object} options
 * @param {number} options.from
 * @param {AbortSignal} options.signal
 * @param {(sent: number) => void} options.onProgress  how many of all were sent; without it where the platform does not tell
 * @param {typeof fetch | undefined} options.fetch     instead of the platform's own
 * @returns {Promise<Answer>}
 */
export function put({ url, headers: given }, bytes, { from, signal, onProgress, fetch: fetcher }) {
  const headers = from ? { ...given, 'Content-Range': `bytes ${from}-${bytes.size - 1}/${bytes.size}` } : given;
  const body = from ? bytes.slice(from) : bytes;
  // Only this one tells how far it is.
  if (!fetcher && globalThis.XMLHttpRequest) return byRequest(url, headers, body, signal, (sent) => onProgress(from + sent));
  return byFetch(fetcher ?? fetch, url, { method: 'PUT', headers, body, signal });
}

/**
 * How far an upload is, to go on from there.
 * @param {Target} target @param {number} size @param {{signal: AbortSignal, fetch: typeof fetch | undefined}} options
 * @returns {Promise<number>} 0 where the other side does not tell, as an object store
 */
export async function progressOf({ url }, size, { signal, fetch: fetcher }) {
  const patience = AbortSignal.any([signal, AbortSignal.timeout(IDLE_MS)]);
  // An object store answers it with a refusal, or in a browser not at all.
  const answer = await byFetch(fetcher ?? fetch, url, { method: 'HEAD', signal: patience }).catch(() => null);
  if (answer && answer.status >= 200 && answer.status < 300) return size;
  return answer?.status === 308 ? answer.received : 0;
}

/** @param {typeof fetch} fetcher @param {string} url @param {RequestInit} request @returns {Promise<Answer>} */
async function byFetch(fetcher, url, request) {
  try {
    const response = await fetcher(url, { ...request, credentials: 'omit', cache: 'no-store', redirect: 'manual' });
    return answerOf(response.status, (name) => response.headers.get(name), await response.text());
  } catch (error) {
    throw asApiError(error);
  }
}

/**
 * @param {string} url @param {Record<string, string>} headers @param {Blob} body @param {AbortSignal} signal
 * @param {(sent: number) => void} onProgress
 * @returns {Promise<Answer>}
 */
function byRequest(url, headers, body, signal, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let idle;
    const abort = () => request.abort();
    const watch = () => {
      clearTimeout(idle);
      idle = setTimeout(abort, IDLE_MS);
    };
    request.open('PUT', url);
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = ({ loaded }) => { watch(); onProgress(loaded); };
    request.onload = () => resolve(answerOf(request.status, (name) => request.getResponseHeader(name), request.responseText));
    request.onerror = () => reject(new ApiError(0, { title: 'the upload broke off' }));
    request.onabort = () => reject(new ApiError(0, { title: 'the upload was stopped' }));
    request.onloadend = () => { clearTimeout(idle); signal.removeEventListener('abort', abort); };
    signal.addEventListener('abort', abort);
    watch();
    if (signal.aborted) return abort();
    return request.send(body);
  });
}

/** @param {number} status @param {(name: string) => string | null} header @param {string} text @returns {Answer} */
function answerOf(status, header, text) {
  const last = /^bytes=0-(\d+)$/.exec(header('Range') ?? '')?.[1];
  const isTaken = (status >= 200 && status < 300) || status === 308;
  const error = isTaken ? null : new ApiError(status, { title: `the upload was refused: ${status}`, ...parseObject(text) });
  return { status, received: last === undefined ? 0 : Number(last) + 1, error };
}
