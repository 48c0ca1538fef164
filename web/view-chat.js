/** The open chat: its header, its messages, its search, and the composer below them. */
import { attempt, byId, chatAvatar, chatName, ask, displayName, toast } from './dom.js';
import { formatAgo, formatDuration, formatList, formatUntil, t } from './i18n.js';
import { mentionsIn } from './mentions.js';
import { isComposing, isSendable, MAX_TEXT, scalarLength } from './text.js';
import { DetailsView } from './view-details.js';
import { MentionView } from './view-mentions.js';
import { SearchView } from './view-search.js';
import { TimelineView } from './view-timeline.js';

/** "Typing" is said again while it goes on, well before the others forget it. */
const TYPING_AGAIN_MS = 3_000;
/** … and taken back when the keys rest. */
const TYPING_REST_MS = 5_000;
/** The counter shows when this few characters are left. */
const COUNT_FROM = 200;
/** So many names of those who type are shown. */
const TYPING_NAMES = 2;
/** How an open chat ended; where it ended while one was away, the server says no more than that it has. */
const GONE = { removed: 'goRemoved', banned: 'goRemoved', deleted: 'chatGone' };
/** "Seen 5 minutes ago" moves on its own. */
const STATUS_EVERY_MS = 30_000;

export class ChatView {
  #session;
  #timelineView;
  #search;
  #mentions;
  /** @type {?string} */
  #chatId = null;
  /** @type {Map<string, string>} what was being written in each chat */
  #drafts = new Map();
  /** @type {?import('../clients/typescript/src/index.js').Message} */
  #edited = null;
  #typingSaid = 0;
  #typingRest = null;
  #headerShown = '';

  /**
   * @param {import('./session.js').Session} session
   * @param {{onClose: () => void}} options
   */
  constructor(session, { onClose }) {
    this.#session = session;
    this.#timelineView = new TimelineView(session, {
      edit: (message) => this.#beginEdit(message),
      remove: (message) => this.#remove(message),
      retry: (pending) => session.retry(this.#chatId, pending),
      discard: (pending) => session.discard(this.#chatId, pending),
    });
    this.#search = new SearchView(session, {
      onPick: ({ message, highlights }) => attempt(() =>
        this.#timelineView.jumpTo(message.seq, message.message_id, highlights)),
      onClose: () => this.#timelineView.clearHit(),
    });
    new DetailsView(session);
    this.#mentions = new MentionView(session, { onPick: () => this.#onDraft() });
    byId('back').addEventListener('click', onClose);
    byId('chat-delete').addEventListener('click', () => this.#deleteChat());
    byId('composer').addEventListener('submit', (event) => { event.preventDefault(); this.#submit(); });
    byId('draft').addEventListener('keydown', (event) => this.#onKey(event));
    byId('draft').addEventListener('input', () => { this.#onDraft(); this.#mentions.look(); this.#sayTyping(); });
    byId('draft').addEventListener('blur', () => this.#stopTyping());
    byId('edit-cancel').addEventListener('click', () => this.#endEdit());
    session.on('open', () => this.#onOpen());
    session.on('chats', () => this.#renderHeader());
    session.on('chat', ({ chatId }) => { if (chatId === this.#chatId) this.#renderHeader(); });
    session.on('typing', () => this.#renderHeader());
    session.on('people', () => this.#renderHeader());
    session.on('gone', ({ chatId, reason }) => { if (chatId === this.#chatId) this.#tellGone(reason); });
    setInterval(() => this.#renderHeader(), STATUS_EVERY_MS);
  }

  #onOpen() {
    const chatId = this.#session.openId;
    if (chatId === this.#chatId) return;
    this.#stopTyping();
    if (this.#edited) this.#endEdit();
    if (this.#chatId) this.#drafts.set(this.#chatId, byId('draft').value);
    this.#chatId = chatId;
    this.#search.close();
    this.#headerShown = '';
    byId('chat').hidden = chatId === null;
    byId('no-chat').hidden = chatId !== null;
    byId('draft').value = this.#drafts.get(chatId) ?? '';
    this.#mentions.begin(chatId);
    this.#timelineView.show(chatId && this.#session.timelineOf(chatId));
    this.#renderHeader();
    this.#onDraft();
    if (!chatId) return;
    // On a touch screen the composer would bring its keyboard along.
    byId(matchMedia('(pointer: coarse)').matches ? 'chat-name' : 'draft').focus({ preventScroll: true });
  }

  /** @param {?import('../clients/typescript/src/index.js').GoneReason} reason */
  #tellGone(reason) {
    // Who leaves knows it.
    if (reason !== 'left') toast(t(GONE[reason] ?? 'goneMeanwhile'));
  }

  #renderHeader() {
    const chat = this.#chatId && this.#session.chats.get(this.#chatId);
    if (!chat) return;
    const { other_user: other } = chat;
    const typing = this.#typing(chat);
    const status = typing || (other ? this.#presence(other) : this.#members(chat));
    const closed = this.#closed(chat);
    const pace = chat.role === 'member' ? chat.settings?.slow_mode_s ?? 0 : 0;
    const shown = JSON.stringify([chatName(chat), other ?? chat.avatar_url, status, closed, pace]);
    if (shown === this.#headerShown) return;
    this.#headerShown = shown;
    byId('chat-name').textContent = chatName(chat);
    byId('chat-name').title = other?.user_id ?? '';
    byId('chat-status').textContent = status;
    byId('chat-status').classList.toggle('lively', Boolean(typing || other?.online));
    byId('chat-avatar').replaceChildren(chatAvatar(chat));
    byId('chat-avatar').className = `face${other?.online ? ' online' : ''}`;
    byId('chat-delete').hidden = !other;
    byId('composer-line').hidden = closed !== '';
    byId('composer-closed').textContent = closed;
    byId('composer-note').hidden = closed !== '' || pace === 0;
    byId('composer-note').textContent = pace ? t('slowNote', { pause: formatDuration(pace) }) : '';
  }

  /** Why one may not write in a chat, or nothing. @param {import('../clients/typescript/src/index.js').Chat} chat */
  #closed({ chat_id: chatId, settings, role }) {
    if (role !== 'member' || !settings) return '';
    if (settings.post === 'admins') return t('composerClosed');
    const until = this.#session.silencedUntil(chatId);
    return until ? t('silencedHere', { when: formatUntil(until) }) : '';
  }

  /** Of a large group nothing tells who is online, but how many were when it was opened. */
  #members({ chat_id: chatId, member_count: count, receipts }) {
    const members = t('membersCount', { count });
    const online = receipts ? null : this.#session.timelineOf(chatId)?.onlineCount;
    return online ? t('membersOnline', { members, count: online }) : members;
  }

  #presence({ online, last_seen_at: lastSeenAt }) {
    if (!online && lastSeenAt) return t('lastSeen', { when: formatAgo(lastSeenAt) });
    return t(online ? 'online' : 'offline');
  }

  #typing({ chat_id: chatId, other_user: other }) {
    const who = this.#session.typing.who(chatId);
    if (other || !who.length) return who.length ? t('typing') : '';
    const names = who.slice(0, TYPING_NAMES).map((userId) => displayName(this.#session.person(userId)));
    if (who.length > TYPING_NAMES) names.push(t('others', { count: who.length - TYPING_NAMES }));
    return t('someType', { names: formatList(names) });
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
    byId('send').disabled = !isSendable(draft.value);
  }

  #onKey(event) {
    if (isComposing(event) || this.#mentions.onKey(event)) return;
    if (event.key === 'Enter' && !event.shiftKey && !matchMedia('(pointer: coarse)').matches) {
      event.preventDefault();
      this.#submit();
    } else if (event.key === 'Escape' && this.#edited) {
      event.preventDefault();
      this.#endEdit();
    } else if (event.key === 'ArrowUp' && !this.#edited && event.target.value === '') {
      const mine = this.#session.timelineOf(this.#chatId).messages
        .findLast((message) => message.sender_id === this.#session.me && !message.deleted_at);
      if (mine) { event.preventDefault(); this.#beginEdit(mine); }
    }
  }

  async #submit() {
    const draft = byId('draft');
    const text = draft.value;
    if (!isSendable(text)) return;
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
    draft.value = '';
    this.#onDraft();
    this.#mentions.close();
    draft.focus();
    await attempt(() => this.#session.sendHere(text, mentions.length ? mentions : undefined));
  }

  #beginEdit(message) {
    if (!this.#edited) this.#drafts.set(this.#chatId, byId('draft').value);
    this.#edited = message;
    this.#mentions.know(message);
    byId('draft').value = message.text;
    this.#showEditing();
  }

  #endEdit() {
    this.#edited = null;
    byId('draft').value = this.#drafts.get(this.#chatId) ?? '';
    this.#showEditing();
  }

  #showEditing() {
    const label = t(this.#edited ? 'save' : 'send');
    byId('editing').hidden = !this.#edited;
    byId('send').setAttribute('aria-label', label);
    byId('send').title = label;
    this.#onDraft();
    byId('draft').focus();
  }

  async #remove(message) {
    const isGroup = this.#session.chats.get(message.chat_id)?.kind === 'group';
    if (!await ask(t(isGroup ? 'deleteMessageForAllAsk' : 'deleteMessageAsk'))) return;
    await attempt(() => this.#session.remove(message));
    if (this.#edited?.message_id === message.message_id) this.#endEdit();
  }

  async #deleteChat() {
    const chatId = this.#chatId;
    const name = chatName(this.#session.chats.get(chatId));
    if (await ask(t('deleteChatAsk', { name }))) await attempt(() => this.#session.deleteChat(chatId));
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
