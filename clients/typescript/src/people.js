/** Who is who: the names and pictures of those whom one shares a chat with, asked for where they are needed. */
import { asApiError } from './errors.js';

/** Calls under way at a time. */
const AT_ONCE = 4;

/** @typedef {import('./schema.js').User} User */

export class People {
  #options;
  /** Null: nobody that one may know of. @type {Map<string, User | null>} */
  #known = new Map();
  /** @type {Set<string>} who is asked for, or waits for it */
  #asked = new Set();
  /** @type {string[]} */
  #queue = [];
  #running = 0;

  /**
   * @param {object} options
   * @param {import('./api.js').Api} options.api
   * @param {() => void} options.onChanged
   */
  constructor(options) {
    this.#options = options;
  }

  /** @param {string} userId @returns {User | null} null while they are not known */
  get(userId) {
    return this.#known.get(userId) ?? null;
  }

  /** Takes what is known of people from elsewhere. @param {(User | null)[]} users */
  learn(users) {
    let changed = false;
    for (const user of users) {
      if (!user) continue;
      const known = this.#known.get(user.user_id);
      changed ||= known?.name !== user.name || known?.avatar_url !== user.avatar_url || known?.online !== user.online;
      this.#known.set(user.user_id, user);
    }
    if (changed) this.#options.onChanged();
  }

  /** Takes what a frame says of people. @param {import('./frames.js').ServerFrame} frame */
  take(frame) {
    switch (frame.type) {
      case 'member.joined':
        return this.learn(frame.members.map(({ user }) => user));
      case 'member.updated':
        return this.learn([frame.member.user]);
      case 'presence':
        return this.#setPresence(frame.user_id, frame.online, frame.last_seen_at);
      case 'subscribed':
        return frame.online.forEach((userId) => this.#setPresence(userId, true, null));
      default:
        return undefined;
    }
  }

  /** @param {string} userId @param {boolean} online @param {string | null} lastSeenAt */
  #setPresence(userId, online, lastSeenAt) {
    const known = this.#known.get(userId);
    if (known) this.learn([{ ...known, online, last_seen_at: lastSeenAt }]);
  }

  /** Asks for those who are not known yet. @param {Iterable<string>} userIds */
  need(userIds) {
    for (const userId of userIds) {
      if (this.#known.has(userId) || this.#asked.has(userId)) continue;
      this.#asked.add(userId);
      this.#queue.push(userId);
    }
    while (this.#running < AT_ONCE && this.#queue.length) this.#work();
  }

  async #work() {
    this.#running += 1;
    for (let userId = this.#queue.shift(); userId !== undefined; userId = this.#queue.shift()) {
      try {
        const user = await this.#options.api.getUser(userId);
        // A frame may have told of them meanwhile.
        if (!this.#known.get(userId)) this.learn([user]);
      } catch (cause) {
        // Somebody who left, or was erased; else they are asked for when they are needed again.
        if (!asApiError(cause).temporary && !this.#known.has(userId)) this.#known.set(userId, null);
      }
      this.#asked.delete(userId);
    }
    this.#running -= 1;
  }
}
