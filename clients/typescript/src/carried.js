/** What a message carries beside its text: reactions, a quote, and what a deletion leaves of it. Pure. */

/**
 * @typedef {import('./timeline.js').Message} Message
 * @typedef {import('./schema.js').Quote} Quote
 * @typedef {import('./schema.js').Reaction} Reaction
 */

/** Longest quoted text in Unicode scalar values, as the server quotes. */
const QUOTED = 200;

/**
 * A message once it is deleted: it keeps its place, its sender and its time.
 * @template {Message} M
 * @param {M} message
 * @param {{ev?: number, deleted_at: string | null}} how
 */
export function emptied(message, how) {
  return {
    ...message, text: '', metadata: null, mentions: [], reply_to: null, attachments: [], reactions: [], my_reactions: [],
    pinned_at: null, ...how,
  };
}

/** A message as others quote it. @param {Message} message @returns {Quote} */
export function quoteOf({ message_id, seq, sender_id, text, deleted_at: deletedAt }) {
  return { message_id, seq, sender_id, text: [...text].slice(0, QUOTED).join(''), deleted: Boolean(deletedAt) };
}

/**
 * A message with its quote as the quoted one is now.
 * @template {{reply_to: Quote | null}} M
 * @param {M} message @param {Message} quoted
 * @returns {M} the same one if it does not quote that
 */
export function requoted(message, quoted) {
  const { reply_to: quote } = message;
  if (quote?.message_id !== quoted.message_id) return message;
  // A tombstone of a message never seen does not know whose it was.
  const { sender_id, ...now } = quoteOf(quoted);
  return { ...message, reply_to: { ...now, sender_id: sender_id ?? quote.sender_id } };
}

/**
 * Which of the reactions are one's own. REST says it. A frame is the same for all members, so it is in the first
 * names of each emoji; past these what was known before stays.
 * @param {Message} message
 * @param {readonly string[] | null | undefined} before
 * @param {string} me
 * @returns {string[]}
 */
export function ownReactions({ my_reactions: given, reactions }, before, me) {
  // A server of before has neither.
  return given ?? (reactions ?? []).filter(({ emoji, count, user_ids: first }) =>
    first.includes(me) || (count > first.length && before?.includes(emoji))).map(({ emoji }) => emoji);
}

/**
 * A message with one's own reaction set or taken back, ahead of the server's word.
 * @template {Message} M
 * @param {M} message @param {string} emoji @param {boolean} on @param {string} me
 * @returns {M}
 */
export function withReaction(message, emoji, on, me) {
  const own = message.my_reactions ?? [];
  if (message.deleted_at || own.some((one) => isSameEmoji(one, emoji)) === on) return message;
  const others = message.reactions.filter((one) => !isSameEmoji(one.emoji, emoji));
  const found = message.reactions.find((one) => isSameEmoji(one.emoji, emoji)) ?? { emoji, count: 0, user_ids: [] };
  const user_ids = found.user_ids.filter((userId) => userId !== me);
  if (on && user_ids.length === found.count) user_ids.push(me);
  const changed = { ...found, count: found.count + (on ? 1 : -1), user_ids };
  const reactions = others.length === message.reactions.length
    ? [...others, changed]
    : message.reactions.map((one) => (one === found ? changed : one));
  return {
    ...message,
    reactions: reactions.filter(({ count }) => count > 0),
    my_reactions: on ? [...own, found.emoji] : own.filter((one) => !isSameEmoji(one, emoji)),
  };
}

/**
 * A message with the server's answer to one's own reaction, which has no number to order it by: what frames have
 * told meanwhile is newer, unless it is without that reaction.
 * @template {Message} M
 * @param {M} message @param {{reactions: Reaction[], told: number | undefined, emoji: string}} answer
 * @param {boolean} on @param {string} me
 * @returns {M}
 */
export function answered(message, { reactions, told, emoji }, on, me) {
  if (message.deleted_at) return message;
  const found = message.reactions.find((one) => one.emoji === emoji);
  const isNamed = found?.user_ids.includes(me) ?? false;
  const mayBeBeyond = found !== undefined && found.count > found.user_ids.length;
  const isOlder = message.ev === told || (isNamed !== on && !mayBeBeyond) || (isNamed && !on);
  const others = (message.my_reactions ?? []).filter((one) => one !== emoji);
  return { ...message, reactions: isOlder ? reactions : message.reactions, my_reactions: on ? [...others, emoji] : others };
}

/** The server knows an emoji with and without its variation selector as one. @param {string} a @param {string} b */
export function isSameEmoji(a, b) {
  return a.replaceAll('\uFE0F', '') === b.replaceAll('\uFE0F', '');
}
