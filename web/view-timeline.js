/**
 * The messages of the open chat on the screen: rows by key, history as one scrolls, and the place
 * kept whatever is added above or below.
 */
import { announce, attempt, byId, displayName, toast } from './dom.js';
import { happened } from './happened.js';
import { t } from './i18n.js';
import { EVERYBODY, isMentioned, mentionRanges } from './mentions.js';
import { closedBy, mayPin } from './rights.js';
import { rowsOf } from './rows.js';
import { RowView } from './view-message.js';
import { shownReactions } from './view-reactions.js';

/** Closer to an end of what is loaded than this, the next page is asked for. */
const LOAD_WITHIN_PX = 600;
/** Closer to the bottom than this, one is at the bottom. */
const BOTTOM_PX = 32;
/** How often the progress of uploads is shown. */
const PROGRESS_MS = 100;
/** A page that failed is not asked for again at once. */
const LOAD_PAUSE_MS = 2_000;
/** How long a message that was jumped to stays lit; the style sheet's animation lasts as long. */
const FLASH_MS = 1_600;

export class TimelineView {
  #session;
  #actions;
  #scroller = byId('scroller');
  #list = byId('rows');
  /** @type {?import('../clients/typescript/src/index.js').Timeline} */
  #timeline = null;
  /** @type {Map<string, RowView>} */
  #rows = new Map();
  /** @type {{message_id: string, ranges: import('./text.js').Range[]} | null} */
  #hit = null;
  /** Whether the end is to stay in sight, and where it was put last. */
  #stick = true;
  #bottomTop = 0;
  /** @type {?ReturnType<typeof setTimeout>} */
  #soon = null;
  #paging = false;
  #placed = false;

  /**
   * @param {import('./session.js').Session} session
   * @param {import('./view-message.js').MessageActions} actions
   */
  constructor(session, actions) {
    this.#session = session;
    this.#actions = actions;
    this.#scroller.addEventListener('scroll', () => this.#onScroll(), { passive: true });
    byId('to-newest').addEventListener('click', () => attempt(() => this.toNewest()));
    // A keyboard that slides in, a growing composer: the last message stays in sight.
    new ResizeObserver(() => { if (this.#stick) this.#toBottom(); }).observe(this.#scroller);
    for (const type of ['focus', 'online']) window.addEventListener(type, () => this.#markIfSeen());
    document.addEventListener('visibilitychange', () => this.#markIfSeen());
    session.on('chat', (change) => this.#onChange(change));
    session.on('chats', () => { if (this.#timeline?.loaded) this.#showNewestButton(); });
    session.on('people', () => { if (this.#timeline?.loaded) this.render(); });
    session.on('upload', () => this.#renderSoon());
  }

  /** @param {?import('../clients/typescript/src/index.js').Timeline} timeline of the chat that is open now */
  show(timeline) {
    this.#timeline = timeline;
    this.#hit = null;
    this.#stickToBottom();
    this.#placed = false;
    this.#rows.clear();
    this.#list.replaceChildren();
    this.render();
  }

  /** @param {number} seq @param {string} messageId @param {import('./text.js').Range[]} [ranges] */
  async jumpTo(seq, messageId, ranges = []) {
    const timeline = this.#timeline;
    this.#hit = { message_id: messageId, ranges };
    this.#stick = false;
    await this.#session.showAround(timeline, seq);
    if (timeline !== this.#timeline) return;
    this.render();
    const row = rowsOf(timeline).find(({ message }) => message?.message_id === messageId);
    const element = row && this.#rows.get(row.key)?.element;
    // From before one came, or deleted with its chat's history.
    if (!element) return void toast(t('notThere'));
    element.scrollIntoView({ block: 'center' });
    element.classList.add('flash');
    setTimeout(() => element.classList.remove('flash'), FLASH_MS);
  }

  clearHit() {
    this.#hit = null;
    this.render();
  }

  async toNewest() {
    this.#stickToBottom();
    await this.#session.showNewest(this.#timeline);
    this.render();
    this.#toBottom();
  }

  #onChange({ chatId, frame, sent }) {
    if (chatId !== this.#timeline?.chatId) return;
    if (sent) this.#stickToBottom();
    const message = frame?.type === 'message.created' ? frame.message : null;
    if (message?.type === 'system') {
      announce(this.#happened(message));
    } else if (message && message.sender_id !== this.#session.me) {
      if (!this.#isWatched()) this.#timeline.drawLine();
      announce(`${this.#nameOf(message)}: ${message.text || t('attachment')}`);
    }
    this.render();
  }

  /** Progress comes more often than it can be seen. */
  #renderSoon() {
    this.#soon ??= setTimeout(() => { this.#soon = null; if (this.#timeline?.loaded && this.#timeline.pending.length) this.render(); }, PROGRESS_MS);
  }

  render() {
    const timeline = this.#timeline;
    byId('loading').hidden = timeline === null || timeline.loaded;
    byId('no-messages').hidden = !timeline?.loaded || rowsOf(timeline).length > 0;
    if (!timeline?.loaded) return;
    // The browser tells of a scroll a frame late: one may have left the bottom already.
    if (this.#scroller.scrollTop < this.#bottomTop - 1 && this.#distanceToBottom() > BOTTOM_PX) this.#stick = false;
    const anchor = this.#stick ? null : this.#anchor();
    this.#reconcile(rowsOf(timeline));
    if (!this.#placed) this.#place();
    else if (this.#stick) this.#toBottom();
    else this.#restore(anchor);
    this.#showNewestButton();
    this.#markIfSeen();
    this.#fillScreen();
  }

  #reconcile(rows) {
    const present = new Set(rows.map((row) => row.key));
    for (const [key, view] of this.#rows) {
      if (present.has(key)) continue;
      view.element.remove();
      this.#rows.delete(key);
    }
    let place = this.#list.firstElementChild;
    for (const row of rows) {
      let view = this.#rows.get(row.key);
      if (!view) {
        view = new RowView(row, this.#actions);
        this.#rows.set(row.key, view);
      }
      if (view.element === place) place = place.nextElementSibling;
      else this.#list.insertBefore(view.element, place);
      view.update(row, this.#contextOf(row));
    }
  }

  /** @returns {import('./view-message.js').Context} */
  #contextOf({ kind, message }) {
    if (kind !== 'message' && kind !== 'system') return /** @type {any} */ ({});
    const chat = this.#session.chats.get(this.#timeline.chatId);
    const isGroup = chat?.kind === 'group';
    const nameOf = (/** @type {string} */ userId) => displayName(this.#session.person(userId));
    const isHit = this.#hit && message.message_id === this.#hit.message_id;
    return {
      sender: kind === 'message' ? this.#nameOf(message) : '',
      author: isGroup && message.sender_id ? this.#session.person(message.sender_id) : null,
      happened: kind === 'system' ? this.#happened(message) : '',
      hits: isHit ? this.#hit.ranges : [],
      mentions: mentionRanges(message.text, this.#namesIn(message)),
      mentionsMe: message.sender_id !== this.#session.me && isMentioned(message.mentions, this.#session.me),
      mayDelete: isGroup && chat.role !== 'member',
      mayPin: mayPin(chat),
      mayWrite: Boolean(chat) && !closedBy(chat, this.#session),
      quoted: message.reply_to ? this.#nameOf(message.reply_to) : '',
      reactions: kind === 'message' ? shownReactions(message, nameOf, this.#session.me) : [],
    };
  }

  #nameOf({ sender_id: sender }) {
    if (sender === this.#session.me || sender === undefined) return t('you');
    return sender === null ? t('someone') : displayName(this.#session.person(sender));
  }

  /** As the names stand in the text of those who mentioned them. */
  #namesIn({ mentions }) {
    if (mentions === 'all') return EVERYBODY;
    return (mentions ?? []).map((userId) => displayName(this.#session.person(userId)));
  }

  #happened({ system }) {
    return happened(system, (userId, isGone) =>
      (userId === this.#session.me ? t('you') : displayName(this.#session.person(userId, { ask: !isGone }))));
  }

  // ---- the place ----

  /** The first time: at the line of what is new, else at the end. */
  #place() {
    this.#placed = true;
    const line = this.#rows.get('new')?.element;
    if (!line) return this.#toBottom();
    this.#scroller.scrollTop = line.offsetTop - this.#scroller.clientHeight / 4;
    this.#stick = this.#timeline.atEnd && this.#distanceToBottom() < BOTTOM_PX;
  }

  #stickToBottom() {
    this.#stick = true;
    this.#bottomTop = 0;
  }

  #toBottom() {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#bottomTop = this.#scroller.scrollTop;
  }

  #distanceToBottom() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    return scrollHeight - scrollTop - clientHeight;
  }

  /** A row in sight and where it stands, to be put back there. */
  #anchor() {
    const top = this.#scroller.scrollTop;
    for (const [key, { element }] of this.#rows) {
      if (key.startsWith('day:') || key === 'new') continue;
      if (element.offsetTop + element.offsetHeight > top && element.offsetTop < top + this.#scroller.clientHeight) {
        return { element, offset: element.offsetTop - top };
      }
    }
    return null;
  }

  #restore(anchor) {
    if (anchor?.element.isConnected) this.#scroller.scrollTop = anchor.element.offsetTop - anchor.offset;
  }

  #onScroll() {
    if (!this.#timeline?.loaded) return;
    this.#stick = this.#timeline.atEnd && this.#distanceToBottom() < BOTTOM_PX;
    this.#showNewestButton();
    this.#markIfSeen();
    this.#fillScreen();
  }

  async #fillScreen() {
    const timeline = this.#timeline;
    if (this.#paging || !timeline.messages.length) return;
    const before = timeline.hasMoreBefore && this.#scroller.scrollTop < LOAD_WITHIN_PX;
    const after = !timeline.atEnd && this.#distanceToBottom() < LOAD_WITHIN_PX;
    if (!before && !after) return;
    this.#paging = true;
    try {
      if (before) await this.#session.loadBefore(timeline);
      else await this.#session.loadAfter(timeline);
    } catch (error) {
      await new Promise((resolve) => setTimeout(resolve, error.retryAfterMs ?? LOAD_PAUSE_MS));
    }
    this.#paging = false;
    if (this.#timeline?.loaded) this.#fillScreen();
  }

  // ---- reading ----

  /** Whether somebody looks at the end of this chat. */
  #isWatched() {
    return document.visibilityState === 'visible' && document.hasFocus()
      && this.#scroller.checkVisibility?.() !== false && this.#scroller.offsetHeight > 0
      && this.#timeline.atEnd && (this.#stick || this.#distanceToBottom() < BOTTOM_PX);
  }

  #markIfSeen() {
    if (this.#timeline?.loaded && this.#timeline.hasUnread && this.#isWatched()) this.#session.markRead(this.#timeline);
  }

  #showNewestButton() {
    const away = !this.#timeline.atEnd || this.#distanceToBottom() > this.#scroller.clientHeight / 2;
    const unread = this.#session.chats.get(this.#timeline.chatId)?.unread_count ?? 0;
    byId('to-newest').hidden = !away;
    byId('to-newest-count').hidden = unread === 0;
    byId('to-newest-count').textContent = String(unread);
  }
}
