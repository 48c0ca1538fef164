/** Who is kept out of a group, for its owner and admins. */
import { ask, avatar, byId, displayName, el } from './dom.js';
import { FoldList } from './fold.js';
import { formatUntil, t } from './i18n.js';

/** @typedef {import('../clients/typescript/src/index.js').Operations['PUT /chats/{chat}/bans/{user_id}/']['result']} Ban */

export class BanView {
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
    this.#list = new FoldList('bans', {
      run: read,
      page: (cursor) => session.api.listBans(this.#chatId, cursor ? { cursor } : {}),
      row: (ban) => this.#row(ban),
    });
    byId('ban-form').addEventListener('submit', (event) => { event.preventDefault(); this.#ban(); });
    session.on('chat', ({ chatId, frame }) => {
      if (chatId === this.#chatId && frame?.type === 'member.left') this.#list.refresh();
    });
  }

  /** @param {string} chatId */
  show(chatId) {
    this.#chatId = chatId;
    byId('ban-form').reset();
    this.#list.close();
  }

  render() {
    const chat = this.#session.chats.get(this.#chatId);
    byId('bans').hidden = chat?.kind !== 'group' || chat.role === 'member';
  }

  async #ban() {
    const userId = byId('ban-input').value.trim();
    if (!userId || !await ask(t('banAsk', { name: userId }), t('ban'))) return;
    const ban = await this.#attempt(() => this.#session.api.ban(this.#chatId, userId));
    if (ban) byId('ban-form').reset();
    await this.#list.refresh();
  }

  /** @param {Ban} ban */
  #row({ user, until, reason, by }) {
    const name = displayName(user);
    const facts = [
      reason ?? '',
      until ? t('until', { when: formatUntil(until) }) : '',
      by && by !== this.#session.me ? t('bannedBy', { name: displayName(this.#session.person(by)) }) : '',
    ].filter(Boolean).join(' · ');
    const lift = async () => {
      await this.#attempt(() => this.#session.api.unban(this.#chatId, user.user_id));
      await this.#list.refresh();
    };
    return el('li', { className: 'member' }, avatar(user),
      el('bdi', { className: 'clip chat-name', title: user.user_id }, name),
      el('button', { type: 'button', className: 'small', 'aria-label': t('unbanName', { name }), onclick: lift }, t('unban')),
      el('p', { className: 'muted facts' }, facts));
  }
}
