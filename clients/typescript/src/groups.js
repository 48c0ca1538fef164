/** Groups: made, joined, changed and left. Calls about their members are those of `client.api`. */

/**
 * @typedef {import('./schema.js').ChatChange} ChatChange
 * @typedef {import('./schema.js').NewChat} NewChat
 */

export class Groups {
  #options;

  /**
   * @param {object} options
   * @param {import('./api.js').Api} options.api
   * @param {import('./list.js').ListSync} options.list
   * @param {() => string} options.me
   * @param {(chatId: string) => void} options.onLeft
   * @param {<T>(chatId: string, call: Promise<T>) => Promise<T>} options.unlessGone
   */
  constructor(options) {
    this.#options = options;
  }

  /** Makes a group, of which one is the owner. @param {Omit<NewChat, 'kind'>} group @returns {Promise<string>} its id */
  create(group) {
    const { api, list } = this.#options;
    return list.take(() => api.createGroup(group));
  }

  /** What it shows, and its settings. @param {string} chatId @param {ChatChange} change */
  change(chatId, change) {
    const { api, list, unlessGone } = this.#options;
    return list.take(() => unlessGone(chatId, api.changeChat(chatId, change)));
  }

  /** Joins a group that is open to anybody. @param {string} chatId @returns {Promise<string>} its id */
  join(chatId) {
    const { api, list } = this.#options;
    return list.take(() => api.joinChat(chatId));
  }

  /** Joins the group of an invitation. @param {string} code @returns {Promise<string>} its id */
  accept(code) {
    const { api, list } = this.#options;
    return list.take(() => api.acceptInvite(code));
  }

  /** @param {string} chatId */
  async leave(chatId) {
    const { api, me, onLeft, unlessGone } = this.#options;
    await unlessGone(chatId, api.removeMember(chatId, me()));
    onLeft(chatId);
  }
}
