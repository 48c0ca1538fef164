/** Messages that were found, or that mention one: a row for each, which leads to it. */
import { chatName, displayName, el } from './dom.js';
import { formatFull, formatListTime, t } from './i18n.js';
import { excerpt } from './text.js';
import { markedText } from './view-message.js';

/**
 * @param {import('./session.js').Session} session
 * @param {{message: import('../clients/typescript/src/index.js').Message, highlights: import('./text.js').Range[]}} hit
 * @param {{onPick: () => void, withChat: boolean}} options  `withChat`: it may be of any chat
 */
export function resultRow(session, { message, highlights }, { onPick, withChat }) {
  const { sender_id: sender, text, attachments, chat_id: chatId, created_at: at } = message;
  const part = excerpt(text || attachments?.[0]?.name || '', highlights);
  const name = sender === session.me ? t('you') : displayName(session.person(sender));
  const chat = withChat && session.chats.get(chatId);
  const title = !chat || chat.kind === 'direct' ? name : `${chatName(chat)}: ${name}`;
  // Who wrote in a direct chat is one of two.
  const shown = chat && chat.kind === 'direct' && sender === session.me ? `${chatName(chat)}: ${name}` : title;
  return el('li', {}, el('button', { className: 'result', onclick: onPick },
    el('span', { className: 'chat-line' },
      el('bdi', { className: 'clip' }, shown),
      el('time', { className: 'muted time', dateTime: at, title: formatFull(at) }, formatListTime(at))),
    el('span', { className: 'excerpt' }, ...markedText(part.text, part.ranges))));
}
