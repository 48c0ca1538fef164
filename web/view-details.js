/** The details of the open chat: one's own settings, and of a group its title, its members and its end. */
import { byId, chatName, ask } from './dom.js';
import { describeError, t } from './i18n.js';
import { BanView } from './view-bans.js';
import { suggestPeople } from './view-group.js';
import { InviteView } from './view-invites.js';
import { MemberList } from './view-members.js';
import { RulesView } from './view-rules.js';

/**
 * How the parts of the details make their calls.
 * @typedef {object} Runners
 * @property {<T>(work: () => Promise<T>) => Promise<T | undefined>} attempt  what a person asked for
 * @property {<T>(work: () => Promise<T>) => Promise<T | undefined>} read     what follows by itself
 */

export class DetailsView {
  #session;
  #members;
  #invites;
  #bans;
  #rules;
  #chatId = '';
  #shown = '';

  /** @param {import('./session.js').Session} session */
  constructor(session) {
    this.#session = session;
    /** @type {Runners} */
    const runners = { attempt: (work) => this.#attempt(work), read: (work) => this.#run(work) };
    this.#members = new MemberList(session, runners);
    this.#invites = new InviteView(session, runners);
    this.#bans = new BanView(session, runners);
    this.#rules = new RulesView({ onChange: (settings) => this.#change({ settings }) });
    byId('details-open').addEventListener('click', () => this.#open());
    byId('details-close').addEventListener('click', () => this.#dialog.close());
    byId('rename-form').addEventListener('submit', (event) => { event.preventDefault(); this.#rename(); });
    byId('add-form').addEventListener('submit', (event) => { event.preventDefault(); this.#add(); });
    byId('own-notify').addEventListener('change', ({ target }) => this.#setOwn({ notify: target.value }));
    byId('own-pinned').addEventListener('change', ({ target }) => this.#setOwn({ pinned: target.checked }));
    byId('own-archived').addEventListener('change', ({ target }) => this.#setOwn({ archived: target.checked }));
    byId('leave').addEventListener('click', () => this.#leave());
    byId('group-delete').addEventListener('click', () => this.#delete());
    session.on('chats', () => this.#render());
    session.on('gone', ({ chatId }) => { if (chatId === this.#chatId) this.#dialog.close(); });
    session.on('open', () => { if (session.openId !== this.#chatId) this.#dialog.close(); });
  }

  get #dialog() { return /** @type {HTMLDialogElement} */ (byId('details')); }

  get #chat() { return this.#session.chats.get(this.#chatId); }

  #open() {
    this.#chatId = this.#session.openId;
    this.#shown = '';
    byId('details-error').textContent = '';
    byId('details-status').textContent = '';
    byId('add-form').reset();
    byId('rules').open = false;
    suggestPeople(this.#session);
    this.#dialog.showModal();
    this.#invites.show(this.#chatId);
    this.#bans.show(this.#chatId);
    this.#render();
    this.#members.show(this.#chatId);
  }

  #render() {
    const chat = this.#chat;
    if (!this.#dialog.open || !chat) return;
    const { title, role, kind, settings, notify, pinned, archived, member_count: count } = chat;
    const shown = JSON.stringify([chatName(chat), role, settings, notify, pinned, archived, count]);
    if (shown === this.#shown) return;
    this.#shown = shown;
    const isGroup = kind === 'group';
    const rules = isGroup && role !== 'member';
    byId('details-title').textContent = chatName(chat);
    byId('rename-form').hidden = !rules;
    if (document.activeElement !== byId('rename-input')) byId('rename-input').value = title ?? '';
    byId('own-notify').value = notify;
    byId('own-pinned').checked = pinned;
    byId('own-archived').checked = archived;
    byId('member-section').hidden = !isGroup;
    byId('members-title').textContent = t('membersCount', { count });
    byId('add-form').hidden = !(rules || settings?.invite === 'members');
    byId('rules').hidden = !isGroup;
    if (isGroup) this.#rules.render(chat);
    this.#invites.render();
    this.#bans.render();
    byId('group-end').hidden = !isGroup;
    byId('group-delete').hidden = role !== 'owner';
  }

  /** Runs what a person asked for: what was told before is over. */
  #attempt(work) {
    byId('details-error').textContent = '';
    byId('details-status').textContent = '';
    return this.#run(work);
  }

  /** A failure is told here, as a notice would lie behind the dialog. */
  async #run(work) {
    try {
      return await work();
    } catch (error) {
      if (error?.name !== 'ApiError') console.error(error);
      byId('details-error').textContent = describeError(error);
      // What was set by hand goes back to what it is.
      this.#shown = '';
      this.#render();
      return undefined;
    }
  }

  #setOwn(settings) {
    return this.#attempt(() => this.#session.setOwn(this.#chatId, settings));
  }

  #change(change) {
    return this.#attempt(() => this.#session.groups.change(this.#chatId, change));
  }

  #rename() {
    const title = byId('rename-input').value.trim();
    if (title && title !== this.#chat?.title) this.#change({ title });
  }

  async #add() {
    const input = byId('add-input');
    const userId = input.value.trim();
    if (!userId) return;
    await this.#attempt(async () => {
      const { added, refused } = await this.#session.api.addMembers(this.#chatId, [userId]);
      const [failed] = refused;
      if (failed) byId('details-error').textContent = t(`refused_${failed.code}`, { name: userId });
      else byId('details-status').textContent = added.length ? t('addedCount', { count: added.length }) : t('alreadyIn', { name: userId });
      if (!failed) input.value = '';
      this.#members.refresh();
    });
    input.focus();
  }

  async #leave() {
    const { title } = this.#chat;
    if (!await ask(t('leaveAsk', { name: title }), t('leave'))) return;
    const chatId = this.#chatId;
    await this.#attempt(() => this.#session.groups.leave(chatId));
  }

  async #delete() {
    const chatId = this.#chatId;
    const name = chatName(this.#chat);
    if (await ask(t('deleteGroupAsk', { name }))) await this.#attempt(() => this.#session.deleteChat(chatId));
  }
}
