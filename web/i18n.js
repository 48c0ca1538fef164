/** The page's language: its words, and how it writes numbers, lists and times. */
import { dayKey } from './text.js';
import { EN } from './words-en.js';
import { RU } from './words-ru.js';

const WORDS = { en: EN, ru: RU };

/** @param {string} [tag] a BCP 47 language tag */
export function pickLanguage(tag) {
  return /^ru\b/i.test(tag ?? '') ? 'ru' : 'en';
}

/** @param {'en' | 'ru'} lang */
export function createWords(lang) {
  const words = WORDS[lang];
  const plural = new Intl.PluralRules(lang);
  /**
   * @param {string} key
   * @param {Record<string, string | number>} [values]
   */
  return (key, values = {}) => {
    let word = words[key] ?? WORDS.en[key] ?? key;
    if (typeof word === 'object') word = word[plural.select(Number(values.count))] ?? word.other;
    return word.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ''));
  };
}

const navigatorLanguage = globalThis.navigator?.language ?? 'en';
export const lang = pickLanguage(navigatorLanguage);
export const t = createWords(lang);

/** The keys of a language, for the test that none is missing. */
export function wordKeys(language) {
  return Object.keys(WORDS[language]);
}

/** What to tell a person about a failed call: our words for it, else the server's own. */
export function describeError(error) {
  const key = `error_${error.code}`;
  return key in WORDS.en ? t(key, { when: error.retryAt ? formatUntil(error.retryAt) : '' }) : error.message;
}

/** The person's own variety of the language: an Englishman reads 16:05, an American 4:05 PM. */
const locale = pickLanguage(navigatorLanguage) === 'ru' || /^en\b/i.test(navigatorLanguage) ? navigatorLanguage : lang;
const timeFormat = new Intl.DateTimeFormat(locale, { timeStyle: 'short' });
const weekdayFormat = new Intl.DateTimeFormat(locale, { weekday: 'short' });
const shortDayFormat = new Intl.DateTimeFormat(locale, { day: 'numeric', month: 'short' });
const dayFormat = new Intl.DateTimeFormat(locale, { day: 'numeric', month: 'long' });
const oldDayFormat = new Intl.DateTimeFormat(locale, { day: 'numeric', month: 'long', year: 'numeric' });
const fullFormat = new Intl.DateTimeFormat(locale, { dateStyle: 'long', timeStyle: 'short' });
const secondFormat = new Intl.DateTimeFormat(locale, { timeStyle: 'medium' });
const listFormat = new Intl.ListFormat(locale, { type: 'conjunction' });
const relativeFormat = new Intl.RelativeTimeFormat(locale, { numeric: 'auto' });

export const formatTime = (iso) => timeFormat.format(new Date(iso));
export const formatList = (words) => listFormat.format(words);
export const formatFull = (iso) => fullFormat.format(new Date(iso));

/** A moment to come: of this hour with its seconds, of another day with its date. @param {string | number} at */
export function formatUntil(at, now = new Date()) {
  const date = new Date(at);
  if (date.getTime() - now.getTime() < 3_600_000) return secondFormat.format(date);
  return (dayKey(date) === dayKey(now) ? timeFormat : fullFormat).format(date);
}

/** Seconds in the largest unit that holds them whole. @param {number} seconds */
export function formatDuration(seconds) {
  const [unit, length] = [['day', 86_400], ['hour', 3_600], ['minute', 60]].find(([, whole]) => seconds % whole === 0) ?? ['second', 1];
  return new Intl.NumberFormat(locale, { style: 'unit', unit, unitDisplay: 'long' }).format(seconds / length);
}

/** A size of a file, in units of 1,000. @param {number} bytes */
export function formatSize(bytes) {
  const [unit, length] = [['gigabyte', 1e9], ['megabyte', 1e6], ['kilobyte', 1e3]].find(([, whole]) => bytes >= whole) ?? ['byte', 1];
  const digits = { maximumFractionDigits: bytes / length < 10 && length > 1 ? 1 : 0 };
  return new Intl.NumberFormat(locale, { style: 'unit', unit, unitDisplay: 'short', ...digits }).format(bytes / length);
}

export function formatDay(iso, now = new Date()) {
  const date = new Date(iso);
  const age = daysBetween(date, now);
  if (age === 0) return t('today');
  if (age === 1) return t('yesterday');
  return (date.getFullYear() === now.getFullYear() ? dayFormat : oldDayFormat).format(date);
}

/** Short enough for a line of the list: the time, the weekday, or the date. */
export function formatListTime(iso, now = new Date()) {
  const date = new Date(iso);
  const age = daysBetween(date, now);
  if (age <= 0) return timeFormat.format(date);
  return (age < 7 ? weekdayFormat : shortDayFormat).format(date);
}

export function formatAgo(iso, now = Date.now()) {
  const minutes = Math.round((Date.parse(iso) - now) / 60_000);
  if (minutes > -60) return relativeFormat.format(Math.min(0, minutes), 'minute');
  if (minutes > -24 * 60) return relativeFormat.format(Math.round(minutes / 60), 'hour');
  return relativeFormat.format(Math.round(minutes / 1440), 'day');
}

function daysBetween(date, now) {
  if (dayKey(date) === dayKey(now)) return 0;
  const midnight = (value) => Date.UTC(value.getFullYear(), value.getMonth(), value.getDate());
  return Math.round((midnight(now) - midnight(date)) / 86_400_000);
}
