/**
 * One row of the timeline: a day, the "new messages" line, what happened in a group, or a message with what
 * can be done to it.
 */
import { itemsOf } from './attachments.js';
import { avatar, displayName, el, icon } from './dom.js';
import { COLUMNS, EMOJI } from './emoji.js';
import { describeError, formatDay, formatFull, formatTime, t } from './i18n.js';
import { Menu } from './menu.js';
import { segments } from './text.js';
import { AttachmentsView } from './view-attachments.js';
import { quoteLines } from './view-quote.js';
import { ReactionBar } from './view-reactions.js';

/** @typedef {import('./rows.js').Row} Row */

/**
 * @typedef {object} MessageActions
 * @property {(message: object) => void} reply
 * @property {(message: object, emoji: string, on: boolean) => void} react
 * @property {(message: object) => void} listReactions
 * @property {(message: object, on: boolean) => void} pin
 * @property {import('./view-attachments.js').Files} files
 * @property {() => string} chatId               which one is open
 * @property {(quote: {seq: number, message_id: string}) => void} jump
 * @property {(message: object) => void} edit
 * @property {(message: object) => void} remove
 * @property {(pending: object) => void} retry
 * @property {(pending: object) => void} discard
 */

/**
 * What a row is to show beside its message.
 * @typedef {object} Context
 * @property {string} sender
 * @property {?import('../clients/typescript/src/index.js').User} author  shown above the first of their messages in a group
 * @property {string} happened                   of a system message
 * @property {import('./text.js').Range[]} hits
 * @property {import('./text.js').Range[]} mentions
 * @property {boolean} mentionsMe
 * @property {boolean} mayDelete                 somebody else's message, too
 * @property {boolean} mayPin
 * @property {boolean} mayWrite
 * @property {string} quoted                     whose message it answers
 * @property {import('./view-reactions.js').Shown[]} reactions
 */

/** Text with its hits marked; never anything but text. */
export function markedText(text, ranges) {
  return segments(text, ranges).map((part) => (part.hit ? el('mark', {}, part.text) : document.createTextNode(part.text)));
}

/** The same, with the names of those who are mentioned set off. */
function mentioningText(text, hits, mentions) {
  let at = 0;
  return segments(text, mentions).flatMap((part) => {
    const shift = at;
    at += part.text.length;
    const nodes = markedText(part.text, hits.map(([start, length]) => [start - shift, length]));
    return part.hit ? [el('span', { className: 'mention' }, ...nodes)] : nodes;
  });
}

export class RowView {
  /** @type {HTMLLIElement} */
  element;
  #row;
  /** @type {Context} */
  #context;
  #actions;
  #shown = {};
  /** @type {Menu} */
  #menu;
  /** @type {Menu} */
  #picker;

  /** @param {Row} row @param {MessageActions} actions */
  constructor(row, actions) {
    this.#actions = actions;
    this.element = el('li', { className: row.kind });
    if (row.kind === 'day') this.element.append(el('span', {}));
    if (row.kind === 'system') this.element.append(el('span', {}));
    if (row.kind === 'new') this.element.append(el('span', {}, t('newMessages')));
    if (row.kind === 'message') this.#build();
  }

  #build() {
    this.sender = el('span', { className: 'sr' });
    this.author = el('p', { className: 'author', 'aria-hidden': 'true' });
    this.text = el('p', { className: 'text', dir: 'auto' });
    this.time = el('time', {});
    this.edited = el('span', {});
    this.tick = el('span', { className: 'tick' });
    this.trouble = el('span', { className: 'trouble' });
    this.more = el('button', {
      className: 'plain more-actions',
      title: t('actions'),
      'aria-label': t('actions'),
    }, icon('more'));
    this.reactOpen = el('button', { className: 'plain react-open', title: t('react'), 'aria-label': t('react') }, icon('react'));
    const place = { holder: this.element, within: '.scroller' };
    this.#menu = new Menu(this.more, { ...place, label: t('actions'), items: () => this.#menuItems() });
    this.#picker = new Menu(this.reactOpen, {
      ...place, label: t('react'), columns: COLUMNS, items: () => EMOJI.map((emoji) => this.#emojiItem(emoji)),
    });
    this.quote = el('button', { className: 'quote', hidden: true, onclick: () => this.#actions.jump(this.#row.message.reply_to) });
    this.reactions = new ReactionBar((emoji, on) => this.#actions.react(this.#row.message, emoji, on));
    this.attachments = new AttachmentsView(this.#actions.files);
    this.pinned = el('span', { className: 'pinned-mark' });
    this.meta = el('span', { className: 'meta' }, this.pinned, this.edited, this.time, this.tick);
    this.bubble = el('div', { className: 'bubble' }, this.sender, this.quote, this.attachments.element, this.text, this.meta);
    this.element.append(this.author, this.bubble, this.reactOpen, this.more, this.reactions.element, this.trouble);
  }

  #menuItems() {
    const { message, own } = this.#row;
    const { mayDelete, mayPin, mayWrite, reactions } = this.#context;
    const actions = this.#actions;
    const isPinned = Boolean(message.pinned_at);
    const items = [
      mayWrite && { label: t('reply'), run: () => actions.reply(message) },
      mayWrite && { label: t('react'), run: () => this.#picker.open(this.more) },
      reactions.length > 0 && { label: t('whoReacted'), run: () => actions.listReactions(message) },
      mayPin && { label: t(isPinned ? 'unpin' : 'pin'), run: () => actions.pin(message, !isPinned) },
      own && mayWrite && { label: t('edit'), run: () => actions.edit(message) },
      (own || mayDelete) && { label: t('delete'), danger: true, run: () => actions.remove(message) },
    ];
    return items.filter(Boolean);
  }

  #emojiItem(emoji) {
    const { message } = this.#row;
    const checked = Boolean(message.my_reactions?.includes(emoji));
    return { label: emoji, checked, run: () => this.#actions.react(message, emoji, !checked) };
  }

  /**
   * Brings the row up to date, touching only what differs, so that focus and selection survive.
   * @param {Row} row
   * @param {Context} context
   */
  update(row, context) {
    const { sender, author, happened, hits, mentions, mentionsMe, quoted, reactions } = context;
    this.#row = row;
    this.#context = context;
    if (row.kind === 'day') this.#set('day', formatDay(row.at), (text) => { this.element.firstChild.textContent = text; });
    if (row.kind === 'system') this.#set('system', happened, (text) => { this.element.firstChild.textContent = text; });
    if (row.kind !== 'message') return;
    const { message, own, tick, first, last } = row;
    const isDeleted = Boolean(message.deleted_at);
    const classes = ['message', own ? 'own' : 'theirs', first && 'first', last && 'last', isDeleted && 'deleted', mentionsMe && 'to-me', tick];
    this.#set('classes', classes.filter(Boolean).join(' '), (value) => {
      this.element.className = value;
    });
    this.#set('sender', `${sender}: `, (value) => { this.sender.textContent = value; });
    const shownAuthor = first && !own ? author : null;
    this.#set('author', JSON.stringify(shownAuthor && [shownAuthor.user_id, shownAuthor.name, shownAuthor.avatar_url]), () => {
      this.author.hidden = !shownAuthor;
      this.author.replaceChildren(...(shownAuthor ? [avatar(shownAuthor), el('bdi', { className: 'clip' }, displayName(shownAuthor))] : []));
    });
    this.#set('text', JSON.stringify([isDeleted, message.text, hits, mentions]), () => {
      this.text.replaceChildren(...(isDeleted ? [t('deleted')] : mentioningText(message.text, hits, mentions)));
    });
    const quote = message.reply_to ?? null;
    this.#set('quote', JSON.stringify([quote, quoted]), () => {
      this.quote.hidden = !quote;
      this.quote.replaceChildren(...(quote ? [el('span', { className: 'sr' }, `${t('inReplyTo')} `), ...quoteLines(quote, quoted)] : []));
    });
    this.attachments.update(isDeleted ? [] : itemsOf(message), this.#actions.chatId());
    this.#set('reactions', JSON.stringify(reactions), () => this.reactions.update(reactions));
    this.#set('pinned', message.pinned_at ?? '', (at) => {
      this.pinned.replaceChildren(...(at ? [icon('pin'), el('span', { className: 'sr' }, `${t('pinned')}, `)] : []));
    });
    this.#set('time', message.created_at ?? '', (value) => {
      this.time.dateTime = value;
      this.time.textContent = value && formatTime(value);
      this.time.title = value && formatFull(value);
    });
    const isEdited = Boolean(message.edited_at) && !isDeleted;
    this.#set('edited', isEdited ? message.edited_at : '', (value) => {
      this.edited.textContent = value ? t('edited') : '';
      this.edited.title = value && formatFull(value);
    });
    this.#set('tick', JSON.stringify([tick, row.readers]), () => this.#showTick(tick, row.readers));
    const hasActions = !isDeleted && message.seq !== undefined && this.#menuItems().length > 0;
    this.more.hidden = !hasActions;
    this.reactOpen.hidden = !hasActions || !context.mayWrite;
    if (hasActions) return;
    this.#menu.close();
    this.#picker.close();
  }

  #set(part, value, show) {
    if (this.#shown[part] === value) return;
    this.#shown[part] = value;
    show(value);
  }

  #showTick(tick, readers) {
    this.tick.replaceChildren();
    this.trouble.replaceChildren();
    if (!tick) return;
    const said = readers > 1 ? t('readBy', { count: readers }) : t(`tick_${tick}`);
    this.tick.append(icon(tick), el('span', { className: 'sr' }, said));
    this.tick.title = said;
    if (tick !== 'failed') return;
    const { error } = this.#row.message;
    this.trouble.append(
      // Why the server does not want it; that it could not be reached shows in the list's head.
      el('span', {}, error.temporary ? t('tick_failed') : `${t('tick_failed')}. ${describeError(error)}`),
      el('button', { className: 'small', onclick: () => this.#actions.retry(this.#row.message) }, t('retry')),
      el('button', { className: 'small', onclick: () => this.#actions.discard(this.#row.message) }, t('discard')),
    );
  }
}
