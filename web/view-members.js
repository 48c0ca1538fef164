/** The list of a group's members, with what one may do to each. */
import { avatar, byId, ask, displayName, el, icon } from './dom.js';
import { formatUntil, t } from './i18n.js';
import { Menu } from './menu.js';

/** Changes of one burst are read once. */
const REFRESH_MS = 200;
const HOUR_MS = 3_600_000;

/** @typedef {import('../clients/typescript/src/index.js').Member} Member */

export class MemberList {
  #session;
  #attempt;
  #run;
  #chatId = '';
  /** @type {Member[]} */
  #members = [];
  #next = null;
  /** What stands on the screen, by user. @type {Map<string, {element: HTMLElement, signature: string}>} */
  #rows = new Map();
  #timer = null;
  #reads = 0;

  /**
   * @param {import('./session.js').Session} session
   * @param {import('./view-details.js').Runners} runners
   */
  constructor(session, { attempt, read }) {
    this.#session = session;
    this.#attempt = attempt;
    this.#run = read;
    byId('more-members').addEventListener('click', () => this.#run(() => this.#read(this.#next)));
    session.on('chat', ({ chatId, frame }) => {
      if (chatId === this.#chatId && /^(member|chat\.changed)/.test(frame?.type ?? '')) this.refresh();
    });
    session.on('people', () => this.#onPeople());
  }

  /** @param {string} chatId */
  show(chatId) {
    this.#chatId = chatId;
    this.#members = [];
    this.#next = null;
    this.#render();
    if (this.#chat?.kind === 'group') this.#run(() => this.#read());
  }

  /** Something changed: it is read anew. */
  refresh() {
    clearTimeout(this.#timer);
    if (!this.#isOpen || this.#chat?.kind !== 'group') return;
    this.#timer = setTimeout(() => this.#run(() => this.#read()), REFRESH_MS);
  }

  get #isOpen() { return byId('details').open; }

  get #chat() { return this.#session.chats.get(this.#chatId); }

  /** @param {?string} [cursor] of the page after the first */
  async #read(cursor = null) {
    this.#reads += 1;
    const read = this.#reads;
    const page = await this.#session.api.listMembers(this.#chatId, cursor ? { cursor } : {});
    if (read !== this.#reads) return;
    this.#members = cursor ? [...this.#members, ...page.results] : page.results;
    this.#next = page.next ?? null;
    this.#session.people.learn(page.results.map(({ user }) => user));
    this.#render();
  }

  /** Presence comes in frames of its own. */
  #onPeople() {
    if (!this.#isOpen) return;
    const now = this.#members.map((member) => ({ ...member, user: this.#session.people.get(member.user.user_id) ?? member.user }));
    if (JSON.stringify(now) === JSON.stringify(this.#members)) return;
    this.#members = now;
    this.#render();
  }

  /** Touches only what differs, so that an open menu and the focus survive. */
  #render() {
    const list = byId('member-list');
    const rows = new Map(this.#members.map((member) => [member.user.user_id, this.#rowOf(member)]));
    for (const [userId, { element }] of this.#rows) if (rows.get(userId)?.element !== element) element.remove();
    this.#rows = rows;
    [...rows.values()].forEach(({ element }, index) => {
      if (list.children[index] !== element) list.insertBefore(element, list.children[index] ?? null);
    });
    byId('more-members').hidden = this.#next === null;
  }

  /** @param {Member} member */
  #rowOf(member) {
    const known = this.#rows.get(member.user.user_id);
    const signature = JSON.stringify([member, this.#chat?.role]);
    if (known?.signature === signature) return known;
    const hadFocus = known?.element.contains(document.activeElement);
    const element = this.#row(member);
    if (hadFocus) queueMicrotask(() => element.querySelector('button')?.focus());
    return { element, signature };
  }

  /** @param {Member} member */
  #row(member) {
    const { user, role, silenced_until: silenced } = member;
    const name = displayName(user);
    const isSilenced = silenced !== null && Date.parse(silenced) > Date.now();
    const facts = [
      user.user_id === this.#session.me ? t('you') : '',
      role === 'member' ? '' : t(`role_${role}`),
      user.online ? t('online') : '',
      isSilenced ? t('silencedUntil', { when: formatUntil(silenced) }) : '',
    ].filter(Boolean);
    const row = el('li', { className: 'member' },
      el('span', { className: `face${user.online ? ' online' : ''}` }, avatar(user)),
      el('span', { className: 'chat-lines' },
        el('bdi', { className: 'clip chat-name', title: user.user_id }, name),
        el('span', { className: 'muted clip facts' }, facts.join(' · '))));
    if (this.#items(member, isSilenced).length) {
      const label = t('memberActions', { name });
      const more = el('button', { type: 'button', className: 'plain', title: label, 'aria-label': label }, icon('more'));
      row.append(more);
      new Menu(more, { holder: row, within: '#details', label, items: () => this.#items(member, isSilenced) });
    }
    return row;
  }

  /** @param {Member} member @returns {import('./menu.js').MenuItem[]} */
  #items({ user, role }, isSilenced) {
    const mine = this.#chat?.role ?? 'member';
    const { user_id: userId } = user;
    if (userId === this.#session.me || mine === 'member' || role === 'owner' || (mine === 'admin' && role === 'admin')) return [];
    const { api } = this.#session;
    /** @param {string} label @param {() => object} fields */
    const change = (label, fields) =>
      ({ label: t(label), run: () => this.#do(() => api.changeMember(this.#chatId, userId, fields())) });
    /** @param {string} label @param {number} hours */
    const silence = (label, hours) => change(label, () => ({ silenced_until: new Date(Date.now() + hours * HOUR_MS).toISOString() }));
    const asking = (label, question, work) => ({
      label: t(label),
      danger: true,
      run: async () => {
        const words = { name: displayName(user), title: this.#chat?.title ?? '' };
        if (await ask(t(question, words), t(label))) this.#do(work);
      },
    });
    const items = [
      ...(isSilenced ? [change('unsilence', () => ({ silenced_until: null }))] : [silence('silence', 1), silence('silenceDay', 24)]),
      asking('remove', 'removeAsk', () => api.removeMember(this.#chatId, userId)),
      asking('ban', 'banAsk', () => api.ban(this.#chatId, userId)),
    ];
    if (mine !== 'owner') return items;
    return [
      role === 'admin' ? change('makeMember', () => ({ role: 'member' })) : change('makeAdmin', () => ({ role: 'admin' })),
      asking('handOver', 'handOverAsk', () => api.changeMember(this.#chatId, userId, { role: 'owner' })),
      ...items,
    ];
  }

  /** @param {() => Promise<unknown>} work */
  async #do(work) {
    await this.#attempt(work);
    this.refresh();
  }
}
