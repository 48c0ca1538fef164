/** What a system message says, in words. */
import { formatList, t } from './i18n.js';

/** More names than this are counted. */
const NAMED = 5;

/**
 * @param {?import('../clients/typescript/src/schema.js').SystemEvent} system
 * @param {(userId: string, isGone: boolean) => string} nameOf  of who is gone nobody can be asked any more
 */
export function happened(system, nameOf) {
  if (!system) return '';
  const { event, user_ids: userIds, by, title } = system;
  const isGone = event === 'member.left' || event === 'member.removed';
  const names = userIds.slice(0, NAMED).map((userId) => nameOf(userId, isGone));
  if (userIds.length > NAMED) names.push(t('others', { count: userIds.length - NAMED }));
  const values = { names: formatList(names), by: by ? nameOf(by, isGone && userIds.includes(by)) : '', title: title ?? '' };
  // By the host application, or by themselves.
  const alone = !by || userIds.includes(by);
  switch (event) {
    case 'member.joined': return t(alone ? 'joined' : 'added', values);
    case 'member.left': return t('left', values);
    case 'member.removed': return t(alone ? 'left' : 'removed', values);
    case 'owner.changed': return t('newOwner', values);
    default:
      if (title) return t(by ? 'renamed' : 'renamedByHost', values);
      return t(by ? 'changed' : 'changedByHost', values);
  }
}
