/** A group's rules: set by its owner and admins, read by everybody else. */
import { byId, el } from './dom.js';
import { formatDuration, t } from './i18n.js';

/** The settings with what the page offers; of slow mode the seconds. */
const RULES = {
  post: ['members', 'admins'],
  invite: ['admins', 'members'],
  history: ['all', 'joined'],
  join: ['invite', 'open'],
  slow_mode_s: ['0', '10', '30', '60', '300', '900', '3600'],
};

const wordOf = (name, value) => {
  if (name !== 'slow_mode_s') return t(`${name}_${value}`);
  return value === '0' ? t('off') : formatDuration(Number(value));
};

export class RulesView {
  /** @type {[string, HTMLSelectElement][]} */
  #selects;

  /** @param {{onChange: (settings: object) => void}} options */
  constructor({ onChange }) {
    this.#selects = Object.entries(RULES).map(([name, values]) => {
      const select = el('select', {
        onchange: ({ target: { value } }) => onChange({ [name]: name === 'slow_mode_s' ? Number(value) : value }),
      }, ...values.map((value) => el('option', { value }, wordOf(name, value))));
      return [name, select];
    });
    byId('rules-form').append(...this.#selects.map(([name, select]) =>
      el('label', { className: 'choice' }, el('span', {}, t(`rule_${name}`)), select)));
  }

  /** @param {import('../clients/typescript/src/index.js').Chat} chat a group */
  render({ settings, role }) {
    const isReader = role === 'member';
    byId('rules-form').hidden = isReader;
    byId('rules-read').hidden = !isReader;
    for (const [name, select] of this.#selects) {
      const value = String(settings[name]);
      // Set by another application.
      if (![...select.options].some((option) => option.value === value)) select.append(el('option', { value }, wordOf(name, value)));
      select.value = value;
    }
    byId('rules-read').replaceChildren(...this.#selects.map(([name, { value }]) =>
      el('div', { className: 'choice' }, el('dt', {}, t(`rule_${name}`)), el('dd', { className: 'muted' }, wordOf(name, value)))));
  }
}
