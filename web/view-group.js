/** The making of a group: its title, and who is in it. */
import { byId, displayName, el, icon } from './dom.js';
import { describeError, t } from './i18n.js';
import { isComposing } from './text.js';

/** Names that a list of suggestions has at most. */
const SUGGESTED = 50;

export class NewGroupView {
  #session;
  #onMade;
  /** @type {string[]} user ids */
  #people = [];
  /** Stays through every attempt, so that one group is made. */
  #key = '';

  /**
   * @param {import('./session.js').Session} session
   * @param {{onMade: (chatId: string) => void}} options
   */
  constructor(session, { onMade }) {
    this.#session = session;
    this.#onMade = onMade;
    byId('new-group').addEventListener('click', () => this.#open());
    byId('group-close').addEventListener('click', () => byId('group-dialog').close());
    byId('group-add').addEventListener('click', () => this.#add());
    byId('group-person').addEventListener('keydown', (event) => {
      // Enter adds this one, and does not make the group yet.
      if (event.key !== 'Enter' || isComposing(event) || !event.target.value.trim()) return;
      event.preventDefault();
      this.#add();
    });
    byId('group-form').addEventListener('submit', (event) => { event.preventDefault(); this.#make(); });
  }

  #open() {
    this.#people = [];
    this.#key = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
    byId('group-form').reset();
    byId('group-error').textContent = '';
    suggestPeople(this.#session);
    this.#render();
    byId('group-dialog').showModal();
    byId('group-title').focus();
  }

  #add() {
    const input = byId('group-person');
    const userId = input.value.trim();
    input.value = '';
    input.focus();
    if (!userId || userId === this.#session.me || this.#people.includes(userId)) return;
    this.#people.push(userId);
    this.#render();
  }

  #render() {
    byId('group-people').replaceChildren(...this.#people.map((userId) => {
      const known = this.#session.chats.otherUser(userId);
      const name = known ? displayName(known) : userId;
      const label = t('takeOut', { name });
      return el('li', { className: 'chip' }, el('bdi', { className: 'clip' }, name),
        el('button', {
          type: 'button', className: 'plain', title: label, 'aria-label': label,
          onclick: () => {
            this.#people = this.#people.filter((other) => other !== userId);
            this.#render();
            byId('group-person').focus();
          },
        }, icon('close')));
    }));
  }

  async #make() {
    this.#add();
    const title = byId('group-title').value.trim();
    if (!title) return byId('group-title').focus();
    byId('group-error').textContent = '';
    byId('group-make').disabled = true;
    try {
      const chatId = await this.#session.groups.create({ title, user_ids: this.#people, client_chat_id: this.#key });
      byId('group-dialog').close();
      this.#onMade(chatId);
    } catch (failure) {
      byId('group-error').textContent = describeError(failure);
      byId('group-title').focus();
    }
    byId('group-make').disabled = false;
    return undefined;
  }
}

/** Offers those whom one has chats with. @param {import('./session.js').Session} session */
export function suggestPeople(session) {
  const people = session.chats.list().flatMap(({ other_user: other }) => other ?? []).slice(0, SUGGESTED);
  byId('known-people').replaceChildren(...people.map((user) =>
    el('option', { value: user.user_id }, user.name ?? '')));
}
