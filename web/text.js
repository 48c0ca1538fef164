/** Small pure helpers on text, tokens and days. */

/** Longest message, in Unicode scalar values: the server's bound. */
export const MAX_TEXT = 4000;

/** @typedef {[start: number, length: number]} Range in UTF-16 code units, JavaScript's own */

/**
 * Cuts `text` at its highlights. Ranges may overlap, touch or lie outside: nothing of the text is
 * lost or doubled.
 * @param {string} text
 * @param {Range[]} ranges
 * @returns {{text: string, hit: boolean}[]}
 */
export function segments(text, ranges) {
  const parts = [];
  let at = 0;
  for (const [start, length] of [...ranges].sort((a, b) => a[0] - b[0])) {
    const from = Math.min(Math.max(start, at), text.length);
    const to = Math.min(start + length, text.length);
    if (to <= from) continue;
    if (from > at) parts.push({ text: text.slice(at, from), hit: false });
    const last = parts.at(-1);
    if (last?.hit && from === at) last.text += text.slice(from, to);
    else parts.push({ text: text.slice(from, to), hit: true });
    at = to;
  }
  if (at < text.length) parts.push({ text: text.slice(at), hit: false });
  return parts;
}

/**
 * A part of a long text around its first highlight, with the ranges moved along.
 * @param {string} text
 * @param {Range[]} ranges
 * @returns {{text: string, ranges: Range[]}}
 */
export function excerpt(text, ranges, before = 40, width = 160) {
  const first = ranges.length ? Math.min(...ranges.map(([start]) => start)) : 0;
  let from = Math.max(0, first - before);
  let to = Math.min(text.length, from + width);
  if (isLowSurrogate(text, from)) from -= 1;
  if (isLowSurrogate(text, to)) to += 1;
  const lead = from > 0 ? '…' : '';
  const shift = from - lead.length;
  const moved = ranges
    .map(([start, length]) => [Math.max(start, from), Math.min(start + length, to)])
    .filter(([start, end]) => end > start)
    .map(([start, end]) => /** @type {Range} */ ([start - shift, end - start]));
  return { text: lead + text.slice(from, to) + (to < text.length ? '…' : ''), ranges: moved };
}

function isLowSurrogate(text, index) {
  const unit = text.charCodeAt(index);
  return index > 0 && unit >= 0xdc00 && unit <= 0xdfff;
}

/**
 * Whether a key belongs to an input method, which composes a word of it. Safari has ended that before
 * it tells of the key that did it, and marks the key with 229 only.
 * @param {KeyboardEvent} event
 */
export function isComposing(event) {
  return event.isComposing || event.keyCode === 229;
}

/** Length as the server counts it. */
export function scalarLength(text) {
  let length = 0;
  for (const _ of text) length += 1;
  return length;
}

export function isSendable(text) {
  return text.trim() !== '' && scalarLength(text) <= MAX_TEXT && !text.includes('\0');
}

/**
 * What a URL fragment says: `#token=…`, `#chat=…`, `#invite=…` with an invitation's code, and `#join=…` with
 * the chat_id of an open group.
 * @param {string} hash
 */
export function readFragment(hash) {
  const values = new URLSearchParams(hash.replace(/^#/, ''));
  return { token: values.get('token'), chat: values.get('chat'), invite: values.get('invite'), join: values.get('join') };
}

/** Up to two letters that stand for a person without a picture. */
export function initials(name) {
  const words = name.trim().split(/[\s._@-]+/).filter(Boolean);
  const letters = words.length > 1 ? [words[0], words[1]] : words;
  return letters.map((word) => [...word][0].toUpperCase()).join('') || '?';
}

/** A colour's hue that stays with an id (FNV-1a, spread over the circle). */
export function hue(id) {
  let hash = 0x811c9dc5;
  for (const char of id) hash = Math.imul(hash ^ char.codePointAt(0), 0x01000193);
  return (hash >>> 8) % 360;
}

/** The local day of an instant, as a comparable key. */
export function dayKey(date) {
  const two = (number) => String(number).padStart(2, '0');
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}
