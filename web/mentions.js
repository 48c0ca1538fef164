/** Mentions as they stand in a text: `@` and a name. Pure. */

/** Longest part of a name that is looked for. */
const QUERY = 40;
/** Most people whom one message may mention, the server's bound. */
const MOST = 50;
/** What everybody is called, in each language of the page. */
export const EVERYBODY = ['all', 'все'];

/** @typedef {import('./text.js').Range} Range */
/** @typedef {import('../clients/typescript/src/index.js').Mentions} Mentions */

/**
 * The mention that is being written at the caret.
 * @param {string} text
 * @param {number} caret
 * @returns {{start: number, query: string} | null} where its `@` stands, and what follows
 */
export function mentionAt(text, caret) {
  const match = /(?:^|[\s(])@([^\s@]*)$/u.exec(text.slice(0, caret));
  if (!match || match[1].length > QUERY) return null;
  return { start: caret - match[1].length - 1, query: match[1] };
}

/**
 * Where these names are mentioned.
 * @param {string} text
 * @param {Iterable<string>} names
 * @returns {Range[]}
 */
export function mentionRanges(text, names) {
  /** @type {Range[]} */
  const ranges = [];
  // The longest first: "Ann Lee" is not "Ann".
  for (const name of [...names].sort((a, b) => b.length - a.length)) {
    const sign = `@${name}`;
    for (let at = text.indexOf(sign); at >= 0; at = text.indexOf(sign, at + 1)) {
      const end = at + sign.length;
      const isWhole = !/[\p{L}\p{N}]/u.test(text.slice(end, end + 2).match(/^./u)?.[0] ?? '');
      if (isWhole && !ranges.some(([start, length]) => at < start + length && start < end)) ranges.push([at, sign.length]);
    }
  }
  return ranges;
}

/**
 * Whom a text mentions, of those who were chosen for it.
 * @param {string} text
 * @param {Map<string, string>} chosen  names, and whose they are; `all`: everybody's
 * @returns {Mentions}
 */
export function mentionsIn(text, chosen) {
  const ranges = mentionRanges(text, chosen.keys());
  const names = ranges.map(([start, length]) => text.slice(start + 1, start + length));
  const ids = [...new Set(names.map((name) => /** @type {string} */ (chosen.get(name))))];
  return ids.includes('all') && EVERYBODY.some((name) => names.includes(name)) ? 'all' : ids.slice(0, MOST);
}

/** Whether somebody is mentioned. @param {Mentions | undefined} mentions @param {string} userId */
export function isMentioned(mentions, userId) {
  return mentions === 'all' || Boolean(mentions?.includes(userId));
}
