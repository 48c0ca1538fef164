/** The open chat: its header, its search, its pins, its messages, and the composer below them. */
import { Links, Previews } from './attachments.js';
import { attempt, byId, chatAvatar, chatName, ask, displayName, toast } from './dom.js';
import { formatAgo, formatDuration, formatList, formatUntil, t } from './i18n.js';
import { closedBy } from './rights.js';
import { ComposerView } from './view-composer.js';
import { DetailsView } from './view-details.js';
import { LightboxView } from './view-lightbox.js';
import { PinsView } from './view-pins.js';
import { ReactedView } from './view-reactions.js';
import { SearchView } from './view-search.js';
import { TimelineView } from './view-timeline.js';

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
  #pins;
  #composer;
  /** @type {?string} */
  #chatId = null;
  #headerShown = '';

  /**
   * @param {import('./session.js').Session} session
   * @param {{onClose: () => void}} options
   */
  constructor(session, { onClose }) {
    this.#session = session;
    const reacted = new ReactedView(session);
    const [links, previews] = [new Links(session), new Previews()];
    const lightbox = new LightboxView(links, previews);
    this.#composer = new ComposerView(session, { previews });
    this.#timelineView = new TimelineView(session, {
      reply: (message) => this.#composer.reply(message),
      react: (message, emoji, on) => attempt(() => (on ? session.react(message, emoji) : session.unreact(message, emoji))),
      listReactions: (message) => reacted.show(message),
      pin: (message, on) => attempt(() => (on ? session.pin(message) : session.unpin(message))),
      jump: (quote) => this.#jumpTo(quote),
      files: { links, previews, open: (pictures, at, chatId) => lightbox.open(pictures, at, chatId) },
      chatId: () => this.#chatId,
      edit: (message) => this.#composer.edit(message),
      remove: (message) => this.#remove(message),
      retry: (pending) => session.retry(this.#chatId, pending),
      discard: (pending) => session.discard(this.#chatId, pending),
    });
    this.#search = new SearchView(session, 'search', {
      withChat: false,
      page: (query, before, signal) => session.api.search(session.openId, { query, limit: 20, before }, signal),
      onPick: ({ message, highlights }) => this.#jumpTo(message, highlights),
      onOpen: () => {},
      onClose: () => this.#timelineView.clearHit(),
    });
    this.#pins = new PinsView(session, { onPick: (message) => this.#jumpTo(message) });
    new DetailsView(session);
    byId('back').addEventListener('click', onClose);
    byId('chat-delete').addEventListener('click', () => this.#deleteChat());
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
    this.#composer.show(chatId);
    this.#chatId = chatId;
    this.#search.close();
    this.#headerShown = '';
    byId('chat').hidden = chatId === null;
    byId('no-chat').hidden = chatId !== null;
    this.#timelineView.show(chatId && this.#session.timelineOf(chatId));
    this.#pins.show(chatId && this.#session.timelineOf(chatId));
    this.#renderHeader();
    if (!chatId) return;
    // On a touch screen the composer would bring its keyboard along.
    byId(matchMedia('(pointer: coarse)').matches ? 'chat-name' : 'draft').focus({ preventScroll: true });
  }

  /**
   * Brings a message of the open chat into sight.
   * @param {{seq: number, message_id: string}} message @param {import('./text.js').Range[]} [ranges] marked in it
   */
  #jumpTo({ seq, message_id: id }, ranges) {
    return attempt(() => this.#timelineView.jumpTo(seq, id, ranges));
  }

  /** The same, of any chat. @param {import('../clients/typescript/src/index.js').Message} message @param {import('./text.js').Range[]} ranges */
  async showMessage(message, ranges) {
    const opened = await attempt(() => this.#session.show(message.chat_id).then(() => true));
    if (opened && this.#chatId === message.chat_id) await this.#jumpTo(message, ranges);
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
  #closed(chat) {
    const closed = closedBy(chat, this.#session);
    if (!closed) return '';
    return closed.until ? t('silencedHere', { when: formatUntil(closed.until) }) : t('composerClosed');
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

  async #remove(message) {
    const isGroup = this.#session.chats.get(message.chat_id)?.kind === 'group';
    if (!await ask(t(isGroup ? 'deleteMessageForAllAsk' : 'deleteMessageAsk'))) return;
    await attempt(() => this.#session.remove(message));
    this.#composer.forget(message);
  }

  async #deleteChat() {
    const chatId = this.#chatId;
    const name = chatName(this.#session.chats.get(chatId));
    if (await ask(t('deleteChatAsk', { name }))) await attempt(() => this.#session.deleteChat(chatId));
  }
}
