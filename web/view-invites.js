/** The links that lead into a group: made, copied, withdrawn. */
import { ask, byId, el, icon } from './dom.js';
import { FoldList } from './fold.js';
import { formatDuration, formatUntil, t } from './i18n.js';

/** How long a link may be good for, in seconds: an hour, a day, a week, 30 days. */
const LIVES_S = [3_600, 86_400, 604_800, 2_592_000];
const WEEK_S = 604_800;
/** How many may come in by a link; 0: any number. */
const USES = [0, 1, 10, 100];

/**
 * @typedef {import('../clients/typescript/src/index.js').Operations['POST /chats/{chat}/invites/']['result']} Invite
 * @typedef {{chat: string}} OpenDoor  the link into a group that anybody may join
 */

const linkTo = (place) => new URL(`#${new URLSearchParams(place)}`, location.href).href;

export class InviteView {
  #session;
  #attempt;
  #list;
  #chatId = '';

  /**
   * @param {import('./session.js').Session} session
   * @param {import('./view-details.js').Runners} runners
   */
  constructor(session, { attempt, read }) {
    this.#session = session;
    this.#attempt = attempt;
    this.#list = new FoldList('invites', { run: read, page: (cursor) => this.#page(cursor), row: (item) => this.#row(item) });
    byId('invite-life').append(...LIVES_S.map((seconds) =>
      el('option', { value: seconds, selected: seconds === WEEK_S }, formatDuration(seconds))));
    byId('invite-uses').append(...USES.map((uses) => el('option', { value: uses }, uses ? String(uses) : t('anyNumber'))));
    byId('invite-form').addEventListener('submit', (event) => { event.preventDefault(); this.#make(); });
  }

  get #chat() { return this.#session.chats.get(this.#chatId); }

  /** Plain members where the rules say so. */
  get #mayInvite() { return this.#chat?.role !== 'member' || this.#chat.settings?.invite === 'members'; }

  get #isOpen() { return this.#chat?.settings?.join === 'open'; }

  /** @param {string} chatId */
  show(chatId) {
    this.#chatId = chatId;
    this.#list.close();
  }

  render() {
    byId('invites').hidden = this.#chat?.kind !== 'group' || !(this.#mayInvite || this.#isOpen);
    byId('invite-form').hidden = !this.#mayInvite;
    this.#list.refresh();
  }

  /** @returns {Promise<{results: (Invite | OpenDoor)[], next: ?string}>} */
  async #page(cursor) {
    const chat = this.#chatId;
    const page = this.#mayInvite ? await this.#session.api.listInvites(chat, cursor ? { cursor } : {}) : { results: [], next: null };
    return this.#isOpen && !cursor ? { ...page, results: [{ chat }, ...page.results] } : page;
  }

  async #make() {
    const uses = Number(byId('invite-uses').value);
    const made = await this.#attempt(() => this.#session.api.createInvite(this.#chatId, {
      expires_in_s: Number(byId('invite-life').value), max_uses: uses || null,
    }));
    if (!made) return;
    await this.#list.refresh();
    byId('invites-list').querySelector(`[data-code="${made.code}"] input`)?.focus();
    byId('details-status').textContent = t('inviteMade');
  }

  /** @param {Invite | OpenDoor} item */
  #row(item) {
    const isDoor = 'chat' in item;
    const link = linkTo(isDoor ? { join: item.chat } : { invite: item.code });
    const facts = isDoor ? t('openDoor') : [
      t(item.max_uses ? 'inviteUsedOf' : 'inviteUsed', { uses: item.uses, max: item.max_uses }),
      t('until', { when: formatUntil(item.expires_at) }),
    ].join(' · ');
    const field = el('input', { value: link, readOnly: true, 'aria-label': `${t('inviteLink')}: ${facts}`, onfocus: ({ target }) => target.select() });
    const button = (sign, word, run) => el('button', {
      type: 'button', className: 'plain', title: t(word), 'aria-label': `${t(word)}: ${facts}`, onclick: run,
    }, icon(sign));
    const line = el('div', { className: 'link-line' }, field, button('copy', 'copy', () => this.#copy(field)));
    if (!isDoor) line.append(button('trash', 'withdraw', () => this.#withdraw(item)));
    return el('li', isDoor ? {} : { 'data-code': item.code }, line, el('p', { className: 'muted facts' }, facts));
  }

  /** @param {HTMLInputElement} field */
  async #copy(field) {
    field.select();
    // Over plain HTTP there is no clipboard; what is selected can be copied by hand.
    const isCopied = await navigator.clipboard?.writeText(field.value).then(() => true, () => false);
    byId('details-status').textContent = t(isCopied ? 'copied' : 'copyByHand');
  }

  /** @param {Invite} invite */
  async #withdraw({ invite_id: inviteId }) {
    if (!await ask(t('withdrawAsk'), t('withdraw'))) return;
    await this.#attempt(() => this.#session.api.deleteInvite(this.#chatId, inviteId));
    await this.#list.refresh();
  }
}
