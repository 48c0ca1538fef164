/**
 * What of a timeline stands on the screen: days, the "new messages" line, messages set together, ticks, and
 * what happened in a group.
 * Pure: a timeline in, rows out.
 */
import { dayKey } from './text.js';

/** Messages of one person this close together stand together. */
const TOGETHER_MS = 5 * 60_000;

/**
 * @typedef {import('../clients/typescript/src/timeline.js').Timeline} Timeline
 * @typedef {import('../clients/typescript/src/timeline.js').Message} Message
 * @typedef {import('../clients/typescript/src/timeline.js').Pending} Pending
 *
 * @typedef {object} Row
 * @property {'day' | 'new' | 'system' | 'message'} kind
 * @property {string} key                      stays the same while a row lives, through its acknowledgement too
 * @property {string} [at]                     for `day`
 * @property {Message | Pending} [message]
 * @property {boolean} [own]
 * @property {'sending' | 'failed' | 'sent' | 'read' | null} [tick]
 * @property {number} [readers]                how many have read it
 * @property {boolean} [first]                 first and last of those that stand together
 * @property {boolean} [last]
 */

/**
 * @param {Timeline} timeline
 * @returns {Row[]} from top to bottom
 */
export function rowsOf(timeline) {
  /** @type {Row[]} */
  const rows = [];
  let day = null;
  let lined = timeline.lineAfter === null;
  let previous = null;
  for (const message of [...timeline.messages, ...(timeline.atEnd ? timeline.pending : [])]) {
    const isPending = message.seq === undefined;
    const own = isPending || message.sender_id === timeline.me;
    const at = message.created_at ?? previous?.at ?? null;
    if (at && dayKey(new Date(at)) !== day) {
      day = dayKey(new Date(at));
      rows.push({ kind: 'day', key: `day:${day}`, at });
      previous = null;
    }
    if (message.type === 'system') {
      rows.push({ kind: 'system', key: rowKey(message, false), message });
      previous = null;
      continue;
    }
    if (!lined && !own && !message.deleted_at && message.seq > timeline.lineAfter) {
      rows.push({ kind: 'new', key: 'new' });
      lined = true;
      previous = null;
    }
    const sender = isPending ? timeline.me : message.sender_id;
    const first = !previous || previous.sender !== sender || Date.parse(at) - Date.parse(previous.at) > TOGETHER_MS;
    if (previous && !first) previous.row.last = false;
    /** @type {Row} */
    const row = { kind: 'message', key: rowKey(message, own), message, own, tick: null, first, last: true };
    if (own && !message.deleted_at) row.tick = tickOf(message, timeline);
    if (row.tick === 'read') row.readers = [...timeline.receipts.values()].filter((seq) => seq >= message.seq).length;
    rows.push(row);
    previous = { sender, at, row };
  }
  return rows;
}

function tickOf(message, { peerReadSeq }) {
  if (message.seq === undefined) return message.failed ? 'failed' : 'sending';
  return message.seq <= peerReadSeq ? 'read' : 'sent';
}

function rowKey(message, own) {
  return own && message.client_msg_id ? `c:${message.client_msg_id}` : `m:${message.message_id}`;
}
