/** The pinned messages of the open chat: the latest in a bar above the messages, all of them in a list. */
import { attempt, byId, displayName, el, icon } from './dom.js';
import { formatFull, formatListTime, t } from './i18n.js';
import { mayPin } from './rights.js';

/** Longest text of a pinned message that is shown, in UTF-16 code units. */
const SHOWN = 200;

/** @typedef {import('../clients/typescript/src/index.js').Message} Message */

export class PinsView {
  #session;
  #onPick;
  /** @type {?import('../clients/typescript/src/index.js').Timeline} */
  #timeline = null;
  #shown = '';

  /**
   * @param {import('./session.js').Session} session
   * @param {{onPick: (message: Message) => void}} options
   */
  constructor(session, { onPick }) {
    this.#session = session;
    this.#onPick = onPick;
    byId('pins-latest').addEventListener('click', () => { const [latest] = this.#pins; if (latest) onPick(latest); });
    byId('pins-open').addEventListener('click', () => { byId('pins-dialog').showModal(); this.#render(); });
    byId('pins-close').addEventListener('click', () => byId('pins-dialog').close());
    session.on('chat', ({ chatId }) => { if (chatId === this.#timeline?.chatId) this.#render(); });
    session.on('people', () => this.#render());
  }

  /** @param {?import('../clients/typescript/src/index.js').Timeline} timeline of the chat that is open now */
  async show(timeline) {
    this.#timeline = timeline;
    byId('pins-dialog').close();
    this.#render();
    // Frames keep them right from then on. Where it fails, the bar is not there, and the messages are.
    if (timeline && !timeline.pins) await this.#session.loadPins(timeline).catch(() => {});
  }

  /** @returns {readonly Message[]} */
  get #pins() { return this.#timeline?.pins ?? []; }

  #render() {
    const pins = this.#pins;
    const chat = this.#timeline && this.#session.chats.get(this.#timeline.chatId);
    const shown = JSON.stringify([pins.map((pin) => [pin.message_id, pin.ev, this.#nameOf(pin)]), chat?.role, byId('pins-dialog').open]);
    if (shown === this.#shown) return;
    this.#shown = shown;
    byId('pins').hidden = pins.length === 0;
    if (!pins.length) byId('pins-dialog').close();
    byId('pins-text').textContent = pins.length ? this.#textOf(pins[0]) : '';
    byId('pins-count').textContent = t('pinsCount', { count: pins.length });
    if (!byId('pins-dialog').open) return;
    const list = byId('pins-list');
    const focused = [...list.children].findIndex((row) => row.contains(document.activeElement));
    list.replaceChildren(...pins.map((pin) => this.#row(pin, mayPin(chat))));
    if (focused >= 0) (list.children[focused]?.querySelector('button') ?? byId('pins-close')).focus();
  }

  /** @param {Message} pin @param {boolean} mayUnpin */
  #row(pin, mayUnpin) {
    const open = el('button', { className: 'result', onclick: () => { byId('pins-dialog').close(); this.#onPick(pin); } },
      el('span', { className: 'chat-line' },
        el('bdi', { className: 'clip' }, this.#nameOf(pin)),
        el('time', { className: 'muted time', dateTime: pin.created_at, title: formatFull(pin.created_at) }, formatListTime(pin.created_at))),
      el('span', { className: 'excerpt' }, this.#textOf(pin)));
    const unpin = el('button', {
      className: 'plain', title: t('unpin'), 'aria-label': t('unpin'), onclick: () => attempt(() => this.#session.unpin(pin)),
    }, icon('close'));
    return el('li', { className: 'pin' }, open, ...(mayUnpin ? [unpin] : []));
  }

  #textOf({ text, attachments }) {
    return text.slice(0, SHOWN) || attachments?.[0]?.name || '';
  }

  #nameOf({ sender_id: sender }) {
    if (sender === this.#session.me) return t('you');
    return sender ? displayName(this.#session.person(sender)) : t('someone');
  }
}
