/**
 * The order of the list: pinned chats first, then latest activity first. Pure.
 *
 * When the last message was sent that lifts a chat, which a system message does not.
 * @typedef {object} Activity
 * @property {string} at     one format, so times compare as text
 * @property {number} below  of chats whose own time is not known: how far below the one with this time they stand
 *
 * @typedef {{chat: import('./schema.js').Chat, activity: Activity}} Ranked
 */

/** Highest first. @param {Ranked} a @param {Ranked} b */
export function byPlace(a, b) {
  return Number(b.chat.pinned) - Number(a.chat.pinned)
    || compare(b.activity.at, a.activity.at) || a.activity.below - b.activity.below;
}

/** @param {Ranked} a @param {Ranked} b */
export function byRank(a, b) {
  return byPlace(a, b) || compare(b.chat.chat_id, a.chat.chat_id);
}

/** @param {string} a @param {string} b */
function compare(a, b) {
  return a < b ? -1 : Number(a > b);
}
