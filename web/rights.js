/** What somebody may do in a chat, as far as the page offers it; the server decides. Pure. */

/** Either one pins in a direct chat, the owner and the admins in a group. @param {?import('../clients/typescript/src/index.js').Chat | undefined} chat */
export function mayPin(chat) {
  return Boolean(chat && (chat.kind === 'direct' || chat.role !== 'member'));
}

/**
 * Why one may not write in a chat; null: one may.
 * @param {import('../clients/typescript/src/index.js').Chat} chat
 * @param {{silencedUntil: (chatId: string) => ?string}} known
 * @returns {{until: ?string} | null} `until`: silenced so long; else only others write
 */
export function closedBy({ chat_id: chatId, settings, role }, known) {
  if (role !== 'member' || !settings) return null;
  if (settings.post === 'admins') return { until: null };
  const until = known.silencedUntil(chatId);
  return until ? { until } : null;
}
