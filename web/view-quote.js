/** What a message answers, as it stands above its text and above the composer. */
import { el } from './dom.js';
import { t } from './i18n.js';

/**
 * @param {import('../clients/typescript/src/schema.js').Quote} quote
 * @param {string} name  whose it is
 */
export function quoteLines({ text, deleted }, name) {
  return [
    el('bdi', { className: 'quote-name clip' }, name),
    el('span', { className: `quote-text${deleted || !text ? ' dim' : ''}`, dir: 'auto' }, deleted ? t('deleted') : text || t('attachment')),
  ];
}
