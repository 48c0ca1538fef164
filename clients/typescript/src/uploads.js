/**
 * Files on their way to the server: announced, then brought to where it says. What breaks off goes on from where it
 * was; without a connection it waits for one. Sending the message is the business of `sender.js`.
 */
import { ApiError, STOPPED } from './errors.js';
import { Outbox } from './outbox.js';
import { progressOf, put } from './transfer.js';

/** Uploads under way at a time; others wait for them. */
const AT_ONCE = 2;
/** Attempts over a working connection: while a server believes in a line that is dead, it refuses another one. */
const ATTEMPTS = 8;
/** Statuses of a URL that has expired. */
const OVER = [401, 403, 404, 410];

/**
 * @typedef {import('./schema.js').AttachmentTicket} AttachmentTicket
 *
 * @typedef {object} Upload
 * @property {string} chatId
 * @property {Blob} file
 * @property {string} name
 * @property {string} contentType
 * @property {'waiting' | 'sending' | 'done' | 'failed' | 'aborted'} phase
 * @property {number} sent                    bytes that are there or on their way, as far as that is known
 * @property {boolean} failed                 no attempt is made any more until it is retried
 * @property {ApiError | null} error          why
 * @property {string | null} attachmentId     once it is done
 *
 * @typedef {object} Entry
 * @property {AttachmentTicket | null} ticket
 * @property {boolean} isFresh                nothing was sent to its URL yet
 * @property {AbortController} abort
 * @property {Outbox<Upload>} outbox
 * @property {Promise<void>} done
 * @property {() => void} resolve
 * @property {(error: ApiError) => void} reject
 */

export class Uploads {
  #options;
  /** @type {Map<Upload, Entry>} */
  #entries = new Map();
  #running = 0;
  /** @type {(() => void)[]} */
  #waiting = [];

  /**
   * @param {object} options
   * @param {import('./api.js').Api} options.api
   * @param {() => boolean} options.isLive
   * @param {(upload: Upload) => void} options.onChanged
   * @param {<T>(chatId: string, call: Promise<T>) => Promise<T>} options.unlessGone
   * @param {typeof fetch} [options.fetch]
   */
  constructor(options) {
    this.#options = options;
  }

  /**
   * @param {string} chatId @param {Blob} file
   * @param {{name?: string, contentType?: string}} [about]  where the file does not say it itself
   * @returns {Upload}
   */
  start(chatId, file, { name = 'name' in file ? String(file.name) : 'file', contentType = file.type } = {}) {
    /** @type {Upload} */
    const upload = {
      chatId, file, name, contentType: contentType || 'application/octet-stream', phase: 'waiting', sent: 0, failed: false, error: null,
      attachmentId: null,
    };
    this.#begin(upload);
    return upload;
  }

  /** @param {Upload} upload @param {AttachmentTicket | null} ticket */
  #begin(upload, ticket = null) {
    let resolve = () => {};
    /** @type {(error: ApiError) => void} */
    let reject = () => {};
    const done = new Promise((taken, refused) => { resolve = () => taken(undefined); reject = refused; });
    // Nobody may be waiting for it.
    done.catch(() => {});
    /** @type {Outbox<Upload>} */
    const outbox = new Outbox({
      send: (next) => this.#send(next),
      isConnected: this.#options.isLive,
      onFailed: (next) => this.#fail(next, next.error ?? STOPPED),
      attempts: ATTEMPTS,
    });
    this.#entries.set(upload, { ticket, isFresh: false, abort: new AbortController(), outbox, done, resolve, reject });
    outbox.push(upload);
    this.#set(upload, 'waiting');
  }

  /** @param {Upload} upload @param {Upload['phase']} phase */
  #set(upload, phase) {
    upload.phase = phase;
    this.#options.onChanged(upload);
  }

  /** @param {Upload} upload @param {ApiError} error */
  #fail(upload, error) {
    Object.assign(upload, { failed: true, error });
    this.#set(upload, 'failed');
    this.#entries.get(upload)?.reject(error);
  }

  /** Resolves when it is done; throws if it failed or was given up. @param {Upload} upload */
  async whenDone(upload) {
    await this.#entries.get(upload)?.done;
    if (upload.phase !== 'done') throw upload.error ?? STOPPED;
  }

  /** Tries one that failed once more, from where it was. @param {Upload} upload */
  retry(upload) {
    if (upload.failed) this.#begin(upload, this.#entries.get(upload)?.ticket);
  }

  /** The server knows it no longer: from the beginning. @param {Upload} upload */
  renew(upload) {
    Object.assign(upload, { attachmentId: null, sent: 0 });
    this.#begin(upload);
  }

  /** Nobody wants it any more; what the server has of it goes by itself. @param {Upload} upload */
  abort(upload) {
    const entry = this.#entries.get(upload);
    this.#entries.delete(upload);
    if (!entry || upload.phase === 'done') return;
    entry.outbox.clear();
    entry.abort.abort();
    Object.assign(upload, { failed: true, error: STOPPED });
    this.#set(upload, 'aborted');
    entry.reject(STOPPED);
  }

  /** It was sent with a message. @param {Upload} upload */
  forget(upload) {
    this.#entries.delete(upload);
  }

  /** The connection or the token is back. */
  wake() {
    for (const [upload, { outbox }] of this.#entries) {
      outbox.wake();
      if (upload.error === STOPPED) this.retry(upload);
    }
  }

  /** All of them wait until they are woken. */
  stop() {
    for (const [upload, { outbox, abort }] of this.#entries) {
      if (upload.phase !== 'waiting' && upload.phase !== 'sending') continue;
      outbox.clear();
      abort.abort();
      this.#fail(upload, STOPPED);
    }
  }

  /** The chat is gone. @param {string} chatId */
  forgetChat(chatId) {
    for (const upload of this.#entries.keys()) if (upload.chatId === chatId) this.abort(upload);
  }

  // ---- one attempt ----

  /** @param {Upload} upload */
  async #send(upload) {
    await this.#turn();
    try {
      const entry = this.#entries.get(upload);
      if (!entry || entry.abort.signal.aborted) return;
      this.#set(upload, 'sending');
      await this.#bring(upload, entry);
      upload.attachmentId = entry.ticket?.attachment_id ?? null;
      upload.sent = upload.file.size;
      this.#set(upload, 'done');
      entry.resolve();
    } catch (error) {
      if (upload.phase === 'sending') this.#set(upload, 'waiting');
      throw error;
    } finally {
      this.#next();
    }
  }

  /** Brings all bytes to the server. @param {Upload} upload @param {Entry} entry */
  async #bring(upload, entry) {
    const { fetch } = this.#options;
    const { file } = upload;
    const { signal } = entry.abort;
    let announced = 0;
    for (;;) {
      if (!entry.ticket) {
        entry.ticket = await this.#announce(upload);
        entry.isFresh = true;
        announced += 1;
      }
      const { upload: target } = entry.ticket;
      const from = entry.isFresh ? 0 : await progressOf(target, file.size, { signal, fetch });
      if (from >= file.size) return;
      entry.isFresh = false;
      this.#told(upload, from);
      const { status, received, error } = await put(target, file, { from, signal, fetch, onProgress: (sent) => this.#told(upload, sent) })
        .catch(async (broken) => {
          // A line that breaks again and again still gets there.
          if (!signal.aborted && await progressOf(target, file.size, { signal, fetch }) > from) return { status: 308, received: 0, error: null };
          throw broken;
        });
      if (!error && status !== 308) return;
      if (status === 308 && received && received <= from) throw new ApiError(0, { title: 'the upload does not get on' });
      // The second one cannot have expired.
      if (error && !(OVER.includes(status) && announced < 2)) throw error;
      if (error) entry.ticket = null;
    }
  }

  /** @param {Upload} upload */
  #announce({ chatId, file, name, contentType }) {
    const { api, unlessGone } = this.#options;
    return unlessGone(chatId, api.announceAttachment(chatId, { name, content_type: contentType, size: file.size }));
  }

  /** @param {Upload} upload @param {number} sent */
  #told(upload, sent) {
    upload.sent = sent;
    this.#options.onChanged(upload);
  }

  async #turn() {
    if (this.#running < AT_ONCE) this.#running += 1;
    else await new Promise((resolve) => { this.#waiting.push(() => resolve(undefined)); });
  }

  #next() {
    const next = this.#waiting.shift();
    if (next) next();
    else this.#running -= 1;
  }
}
