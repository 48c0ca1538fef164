/** The composer below the messages: what is written, edited, or answered. */
import { attempt, byId, displayName } from './dom.js';
import { t } from './i18n.js';
import { mentionsIn } from './mentions.js';
import { isComposing, isSendable, MAX_TEXT, scalarLength } from './text.js';
import { FilesView } from './view-files.js';
import { MentionView } from './view-mentions.js';
import { quoteLines } from './view-quote.js';
import { quoteOf } from '../clients/typescript/src/index.js';

/** "Typing" is said again while it goes on, well before the others forget it. */
const TYPING_AGAIN_MS = 3_000;
/** … and taken back when the keys rest. */
const TYPING_REST_MS = 5_000;
/** The counter shows when this few characters are left. */
const COUNT_FROM = 200;

/**
 * @typedef {import('../clients/typescript/src/index.js').Message} Message
 * @typedef {import('../clients/typescript/src/index.js').Upload} Upload
 */

export class ComposerView {
  #session;
  #mentions;
  #files;
  /** @type {?string} */
  #chatId = null;
  /** What was being written in each chat, what it answers, and its files. @type {Map<string, {text: string, answered: ?Message, uploads: Upload[]}>} */
  #drafts = new Map();
  /** @type {?Message} */
  #edited = null;
  /** @type {?Message} */
  #answered = null;
  #typingSaid = 0;
  #typingRest = null;

  /** @param {import('./session.js').Session} session @param {{previews: import('./attachments.js').Previews}} options */
  constructor(session, { previews }) {
    this.#session = session;
    this.#files = new FilesView(session, {
      previews,
      mayAttach: () => !this.#edited && !byId('composer-line').hidden,
      onChange: () => this.#onDraft(),
    });
    this.#mentions = new MentionView(session, { onPick: () => this.#onDraft() });
    byId('composer').addEventListener('submit', (event) => { event.preventDefault(); this.#submit(); });
    byId('draft').addEventListener('keydown', (event) => this.#onKey(event));
    byId('draft').addEventListener('input', () => { this.#onDraft(); this.#mentions.look(); this.#sayTyping(); });
    byId('draft').addEventListener('blur', () => this.#stopTyping());
    byId('edit-cancel').addEventListener('click', () => this.#endEdit());
    byId('reply-cancel').addEventListener('click', () => this.#setAnswered(null));
    session.on('chat', ({ chatId }) => { if (chatId === this.#chatId) this.#followAnswered(); });
  }

  /** Another chat is open. @param {?string} chatId */
  show(chatId) {
    this.#stopTyping();
    if (this.#edited) this.#endEdit();
    this.#keep();
    this.#chatId = chatId;
    const draft = this.#drafts.get(chatId);
    byId('draft').value = draft?.text ?? '';
    this.#answered = draft?.answered ?? null;
    this.#files.show(draft?.uploads ?? []);
    this.#mentions.begin(chatId);
    this.#showAnswered();
    this.#onDraft();
  }

  #keep() {
    if (this.#chatId) this.#drafts.set(this.#chatId, { text: byId('draft').value, answered: this.#answered, uploads: this.#files.uploads });
  }

  // ---- answering ----

  /** @param {Message} message */
  reply(message) {
    if (this.#edited) this.#endEdit();
    this.#setAnswered(message);
  }

  /** @param {?Message} message */
  #setAnswered(message) {
    this.#answered = message;
    this.#showAnswered();
    byId('draft').focus();
  }

  /** It may be edited or deleted meanwhile. */
  #followAnswered() {
    if (!this.#answered) return;
    const { message_id: id } = this.#answered;
    const now = this.#session.timelineOf(this.#chatId).messages.find((message) => message.message_id === id);
    if (!now || now === this.#answered) return;
    this.#answered = now.deleted_at ? null : now;
    this.#showAnswered();
  }

  #showAnswered() {
    const message = this.#answered;
    byId('replying').hidden = !message;
    if (!message) return;
    const isOwn = message.sender_id === this.#session.me;
    const name = isOwn ? t('you') : displayName(this.#session.person(message.sender_id));
    byId('replying-to').replaceChildren(...quoteLines(quoteOf(message), name));
  }

  // ---- writing ----

  #onDraft() {
    const draft = byId('draft');
    draft.style.height = 'auto';
    draft.style.height = `${draft.scrollHeight + 2}px`;
    const left = MAX_TEXT - scalarLength(draft.value);
    const count = byId('draft-count');
    count.classList.toggle('error', left < 0);
    count.textContent = left >= COUNT_FROM ? '' : t(left < 0 ? 'tooLong' : 'charsLeft', { count: Math.abs(left) });
    byId('send').disabled = !this.#isSendable(draft.value);
  }

  /** Beside files there need not be a text. @param {string} text */
  #isSendable(text) {
    const hasFiles = this.#edited ? this.#edited.attachments?.length > 0 : this.#files.uploads.length > 0;
    return isSendable(text) || (hasFiles && text.trim() === '');
  }

  #onKey(event) {
    if (isComposing(event) || this.#mentions.onKey(event)) return;
    if (event.key === 'Enter' && !event.shiftKey && !matchMedia('(pointer: coarse)').matches) {
      event.preventDefault();
      this.#submit();
    } else if (event.key === 'Escape' && (this.#edited || this.#answered)) {
      event.preventDefault();
      if (this.#edited) this.#endEdit();
      else this.#setAnswered(null);
    } else if (event.key === 'ArrowUp' && !this.#edited && event.target.value === '') {
      const mine = this.#session.timelineOf(this.#chatId).messages
        .findLast((message) => message.sender_id === this.#session.me && !message.deleted_at);
      if (mine) { event.preventDefault(); this.edit(mine); }
    }
  }

  async #submit() {
    const draft = byId('draft');
    const text = draft.value.trim() === '' ? '' : draft.value;
    if (!this.#isSendable(text)) return;
    const edited = this.#edited;
    this.#stopTyping();
    const { chosen } = this.#mentions;
    const mentions = mentionsIn(text, chosen);
    if (edited) {
      if (text === edited.text) return this.#endEdit();
      // Left as they are, unless this edit adds a name or takes one out.
      const isSame = String(mentions) === String(mentionsIn(edited.text, chosen));
      const done = await attempt(async () => { await this.#session.edit(edited, text, isSame ? undefined : mentions); return true; });
      if (done && this.#edited === edited) this.#endEdit();
      return;
    }
    const replyTo = this.#answered;
    const attachments = this.#files.uploads;
    draft.value = '';
    this.#files.show([]);
    this.#onDraft();
    this.#mentions.close();
    this.#setAnswered(null);
    await attempt(() => this.#session.sendHere(text, { mentions: mentions.length ? mentions : undefined, replyTo, attachments }));
  }

  /** @param {Message} message */
  edit(message) {
    if (!this.#edited) this.#keep();
    this.#edited = message;
    this.#mentions.know(message);
    byId('draft').value = message.text;
    this.#showEditing();
  }

  #endEdit() {
    this.#edited = null;
    byId('draft').value = this.#drafts.get(this.#chatId)?.text ?? '';
    this.#showEditing();
  }

  /** A message was deleted. @param {Message} message */
  forget({ message_id: id }) {
    if (this.#edited?.message_id === id) this.#endEdit();
  }

  #showEditing() {
    const label = t(this.#edited ? 'save' : 'send');
    byId('editing').hidden = !this.#edited;
    byId('attach').disabled = Boolean(this.#edited);
    byId('send').setAttribute('aria-label', label);
    byId('send').title = label;
    this.#onDraft();
    byId('draft').focus();
  }

  #sayTyping() {
    if (this.#edited) return;
    if (byId('draft').value.trim() === '') return this.#stopTyping();
    clearTimeout(this.#typingRest);
    this.#typingRest = setTimeout(() => this.#stopTyping(), TYPING_REST_MS);
    if (Date.now() - this.#typingSaid < TYPING_AGAIN_MS) return;
    this.#typingSaid = Date.now();
    this.#session.sayTyping(this.#chatId, true);
  }

  #stopTyping() {
    clearTimeout(this.#typingRest);
    if (this.#typingSaid === 0) return;
    this.#typingSaid = 0;
    this.#session.sayTyping(this.#chatId, false);
  }
}
