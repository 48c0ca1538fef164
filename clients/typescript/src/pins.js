/** A chat's pinned messages: read once, then kept by frames. Pure. */
import { requoted } from './carried.js';

/** @typedef {import('./timeline.js').Message} Message */

export class Pins {
  /** Latest pin first; null: not read. @type {Message[] | null} */
  list = null;

  /** @param {readonly Message[]} messages all of them */
  set(messages) {
    this.list = [...messages].sort(byPin);
  }

  /** Takes a version of a message of the chat. @param {Message} message */
  take(message) {
    if (!this.list) return;
    const known = this.list.find(({ message_id: id }) => id === message.message_id);
    if (known && known.ev > message.ev) return;
    const others = this.list.filter((other) => other !== known).map((other) => requoted(other, message));
    this.list = message.pinned_at && !message.deleted_at ? [...others, message].sort(byPin) : others;
  }
}

/** @param {Message} a @param {Message} b */
function byPin(a, b) {
  const [first, second] = [String(a.pinned_at), String(b.pinned_at)];
  return Number(first < second) - Number(first > second) || b.seq - a.seq;
}
