/** Does what a user does in a chat: sends, edits, deletes, and marks as read. */
import { asApiError, STOPPED } from './errors.js';
import { emptied, quoteOf } from './carried.js';
import { newMessageId, Outbox } from './outbox.js';
import { ofNow } from './surely.js';

/** A mark that failed is not tried again at once. */
const MARK_RETRY_MS = 5_000;

/**
 * @typedef {import('./timeline.js').Message} Message
 * @typedef {import('./timeline.js').Pending} Pending
 * @typedef {import('./timeline.js').Timeline} Timeline
 */

export class Sender {
  #options;
  /** @type {Map<string, Outbox<Pending>>} */
  #outboxes = new Map();
  /** @type {Set<string>} chats with a mark on its way */
  #marking = new Set();

  /**
   * @param {object} options
   * @param {import('./api.js').Api} options.api
   * @param {import('./chats.js').ChatList} options.chats
   * @param {import('./history.js').History} options.history
   * @param {import('./uploads.js').Uploads} options.uploads
   * @param {() => boolean} options.isLive
   * @param {(chatId: string, detail?: {sent?: boolean}) => void} options.onChanged  a timeline
   * @param {() => void} options.onChatsChanged
   * @param {<T>(chatId: string, call: Promise<T>) => Promise<T>} options.unlessGone
   */
  constructor(options) {
    this.#options = options;
  }

  // ---- sending ----

  /**
   * @param {string} chatId @param {string} text @param {import('./client.js').SendOptions} options
   * @returns {Pending}
   */
  send(chatId, text, { metadata = null, mentions, replyTo = null, attachments = [] }) {
    const timeline = this.#options.history.timelineOf(chatId);
    timeline.lineAfter = null;
    /** @type {Pending} */
    const pending = {
      client_msg_id: newMessageId(), text, metadata, mentions, reply_to: replyTo && quoteOf(replyTo), uploads: attachments,
      created_at: new Date().toISOString(), failed: false, error: null,
    };
    timeline.pending.push(pending);
    this.#options.onChanged(chatId, { sent: true });
    this.#push(chatId, pending);
    return pending;
  }

  /** One with files takes its turn once they are there: what is written later need not wait for them. @param {string} chatId @param {Pending} pending */
  async #push(chatId, pending) {
    const { uploads, onChanged } = this.#options;
    pending.failed = false;
    pending.error = null;
    try {
      if (pending.uploads.length) await Promise.all(pending.uploads.map((upload) => uploads.whenDone(upload)));
      this.#outboxOf(chatId).push(pending);
    } catch (cause) {
      Object.assign(pending, { failed: true, error: asApiError(cause) });
      onChanged(chatId);
    }
  }

  /** @param {string} chatId @param {Pending} pending */
  retry(chatId, pending) {
    const { uploads, onChanged } = this.#options;
    if (!pending.failed) return;
    for (const upload of pending.uploads) {
      // Too much time went by: what is never sent does not stay.
      if (pending.error?.code === 'attachment_not_found') uploads.renew(upload);
      else uploads.retry(upload);
    }
    this.#push(chatId, pending);
    onChanged(chatId);
  }

  /** @param {string} chatId @param {Pending} pending */
  discard(chatId, pending) {
    const timeline = this.#options.history.timelineOf(chatId);
    timeline.pending = timeline.pending.filter((other) => other !== pending);
    for (const upload of pending.uploads) this.#options.uploads.abort(upload);
    this.#options.onChanged(chatId);
  }

  /** @param {string} chatId @returns {Outbox<Pending>} */
  #outboxOf(chatId) {
    const known = this.#outboxes.get(chatId);
    if (known) return known;
    const { api, chats, uploads, isLive, onChanged } = this.#options;
    /** @type {Outbox<Pending>} */
    const made = new Outbox({
      send: async ({ text, metadata, mentions, reply_to: quote, uploads: files, client_msg_id }) => {
        const attachments = files.length ? files.map(({ attachmentId }) => attachmentId ?? '') : undefined;
        this.#accept(await ofNow(chats, () => api.sendMessage(chatId, {
          text, metadata, mentions, reply_to: quote?.message_id, attachments, client_msg_id,
        })));
        for (const upload of files) uploads.forget(upload);
      },
      isConnected: isLive,
      onFailed: () => onChanged(chatId),
    });
    this.#outboxes.set(chatId, made);
    return made;
  }

  /** The connection or the token is back. */
  wake() {
    for (const outbox of this.#outboxes.values()) outbox.wake();
    for (const [chatId, timeline] of this.#options.history.all()) {
      // Those that `stop` held up; one that failed over a living line is its author's to send again.
      for (const pending of timeline.pending) if (pending.error === STOPPED) this.retry(chatId, pending);
    }
  }

  /** What has not been sent waits until it is woken. */
  stop() {
    for (const outbox of this.#outboxes.values()) outbox.clear();
    for (const [, timeline] of this.#options.history.all()) {
      for (const pending of timeline.pending.filter(({ failed }) => !failed)) {
        Object.assign(pending, { failed: true, error: STOPPED });
      }
    }
  }

  /** The chat is gone. @param {string} chatId */
  forget(chatId) {
    this.#outboxes.get(chatId)?.clear();
    this.#outboxes.delete(chatId);
  }

  // ---- changing what was sent ----

  /** @param {Message} message @param {string} text @param {import('./schema.js').Mentions} [mentions] */
  async edit({ chat_id: chatId, message_id: id }, text, mentions) {
    this.#accept(await ofNow(this.#options.chats, () => this.#options.api.editMessage(chatId, id, text, mentions)));
  }

  /** @param {Message} message */
  async remove(message) {
    const { api, chats } = this.#options;
    const { epoch } = chats;
    await ofNow(chats, () => api.deleteMessage(message.chat_id, message.message_id));
    // The number of a version in another history would put it before the true one.
    if (chats.epoch === epoch) {
      this.#accept(emptied(message, { deleted_at: new Date().toISOString() }));
    }
  }

  /** @param {Message} message */
  async reread({ chat_id: chatId, message_id: id }) {
    const { api, chats, unlessGone } = this.#options;
    this.#accept(await ofNow(chats, () => unlessGone(chatId, api.getMessage(chatId, id))));
  }

  /** @param {Message} message */
  #accept(message) {
    const { chats, history, onChanged, onChatsChanged } = this.#options;
    const { chat_id: chatId, ev } = message;
    history.timelineOf(chatId).accept(message);
    const whole = /** @type {import('./schema.js').Message} */ (message);
    chats.apply({ type: 'message.updated', chat_id: chatId, ev, message: whole });
    onChanged(chatId);
    onChatsChanged();
  }

  // ---- reading ----

  /** @param {Timeline} timeline */
  async markRead(timeline) {
    const { api, chats, unlessGone, onChanged, onChatsChanged } = this.#options;
    const { chatId } = timeline;
    if (this.#marking.has(chatId) || !timeline.hasUnread) return;
    // The unread messages lie beyond the window: to mark the same again would never end.
    if (timeline.highSeq <= timeline.readSeq) return;
    this.#marking.add(chatId);
    try {
      const asked = chats.now;
      const marked = await unlessGone(chatId, api.markRead(chatId, timeline.highSeq));
      if (!chats.isPast(asked)) timeline.readSeq = Math.max(timeline.readSeq, marked.read_seq);
      chats.setRead(chatId, marked, asked);
      onChatsChanged();
    } catch (cause) {
      const { retryAfterMs } = asApiError(cause);
      await new Promise((resolve) => setTimeout(resolve, retryAfterMs ?? MARK_RETRY_MS));
    }
    this.#marking.delete(chatId);
    // Perhaps more came meanwhile; the view knows whether it can be seen.
    onChanged(chatId);
  }
}
