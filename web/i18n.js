/** The page's words, in English and Russian, and how it writes numbers and times. */
import { dayKey } from './text.js';

const WORDS = {
  en: {
    signInTitle: 'Sign in',
    demoTitle: 'Try it as somebody',
    demoHint: 'Choose one here and another one in a second window, and let them talk.',
    or: 'or with a token',
    signInHint: 'The application that owns your account issues the token (a JWT). It stays in this tab only.',
    token: 'Token',
    signIn: 'Continue',
    signOut: 'Sign out',
    tokenBad: 'This is not a token: a JWT with a “sub” is expected.',
    tokenExpired: 'Your token has expired. Paste a new one to go on.',
    tokenExpiring: 'Your token expires within a minute.',
    tokenRenew: 'Renew',
    signedInAs: 'Signed in as {name}',
    chats: 'Chats',
    openWith: 'Open a chat by user ID',
    userId: 'User ID',
    open: 'Open',
    noChats: 'No chats yet. Enter somebody’s user ID above to begin.',
    moreChats: 'More chats',
    pickChat: 'Choose a chat, or start a new one.',
    back: 'Back to the chats',
    online: 'online',
    offline: 'offline',
    lastSeen: 'seen {when}',
    typing: 'typing…',
    messages: 'Messages',
    message: 'Message',
    send: 'Send',
    noMessages: 'No messages yet. Say something.',
    newMessages: 'New messages',
    toNewest: 'To the newest message',
    loading: 'Loading…',
    you: 'You',
    someone: 'Somebody',
    unread: { one: '{count} unread message', other: '{count} unread messages' },
    actions: 'Message actions',
    edit: 'Edit',
    delete: 'Delete',
    retry: 'Retry',
    discard: 'Discard',
    cancel: 'Cancel',
    save: 'Save',
    editing: 'Editing a message',
    edited: 'edited',
    deleted: 'Message deleted',
    tick_sending: 'sending',
    tick_sent: 'sent',
    tick_read: 'read',
    tick_failed: 'Not sent',
    deleteMessageAsk: 'Delete this message for both of you?',
    deleteChat: 'Delete chat',
    deleteChatAsk: 'Delete the chat with {name}? All its messages will be gone for both of you.',
    chatGone: 'The chat was deleted.',
    search: 'Search',
    searchIn: 'Search in this chat',
    closeSearch: 'Close search',
    searching: 'Searching…',
    nothingFound: 'Nothing found',
    found: { one: '{count} message found', other: '{count} messages found' },
    foundSome: { one: '{count} message found so far', other: '{count} messages found so far' },
    searchOn: 'Search further back',
    tooLong: { one: '{count} character too many', other: '{count} characters too many' },
    charsLeft: { one: '{count} character left', other: '{count} characters left' },
    state_connecting: 'Connecting…',
    state_live: 'Connected',
    state_waiting: 'Reconnecting in {seconds} s',
    state_offline: 'No network',
    state_token: 'Token expired',
    state_stopped: 'Disconnected ({code})',
    state_idle: 'Connecting…',
    tryNow: 'Try now',
    today: 'Today',
    yesterday: 'Yesterday',
    error_network: 'The server cannot be reached.',
    error_user_not_found: 'There is no such user.',
    error_self_chat: 'That is you. Enter somebody else’s user ID.',
    error_blocked: 'One of you has blocked the other.',
    error_forbidden: 'You may not do this.',
    error_rate_limited: 'Too fast. Try again in a moment.',
    error_chat_not_found: 'There is no such chat.',
    error_unavailable: 'The service is not available right now.',
    error_token_expired: 'Your token has expired.',
    error_token_invalid: 'The server does not accept this token.',
  },
  ru: {
    signInTitle: 'Вход',
    demoTitle: 'Попробовать от чужого имени',
    demoHint: 'Выберите одного здесь, другого — во втором окне, и пусть побеседуют.',
    or: 'или по токену',
    signInHint: 'Токен (JWT) выдаёт приложение, в котором заведена ваша учётная запись. Он хранится только в этой вкладке.',
    token: 'Токен',
    signIn: 'Продолжить',
    signOut: 'Выйти',
    tokenBad: 'Это не токен: нужен JWT с полем «sub».',
    tokenExpired: 'Срок токена истёк. Вставьте новый, чтобы продолжить.',
    tokenExpiring: 'Срок токена истечёт меньше чем через минуту.',
    tokenRenew: 'Обновить',
    signedInAs: 'Вы вошли как {name}',
    chats: 'Беседы',
    openWith: 'Открыть беседу по ID пользователя',
    userId: 'ID пользователя',
    open: 'Открыть',
    noChats: 'Бесед пока нет. Введите выше ID собеседника, чтобы начать.',
    moreChats: 'Ещё беседы',
    pickChat: 'Выберите беседу или начните новую.',
    back: 'К списку бесед',
    online: 'в сети',
    offline: 'не в сети',
    lastSeen: 'был(а) в сети {when}',
    typing: 'печатает…',
    messages: 'Сообщения',
    message: 'Сообщение',
    send: 'Отправить',
    noMessages: 'Сообщений пока нет. Напишите первое.',
    newMessages: 'Новые сообщения',
    toNewest: 'К последнему сообщению',
    loading: 'Загрузка…',
    you: 'Вы',
    someone: 'Кто-то',
    unread: {
      one: '{count} непрочитанное сообщение',
      few: '{count} непрочитанных сообщения',
      other: '{count} непрочитанных сообщений',
    },
    actions: 'Действия с сообщением',
    edit: 'Изменить',
    delete: 'Удалить',
    retry: 'Повторить',
    discard: 'Убрать',
    cancel: 'Отмена',
    save: 'Сохранить',
    editing: 'Изменение сообщения',
    edited: 'изменено',
    deleted: 'Сообщение удалено',
    tick_sending: 'отправляется',
    tick_sent: 'отправлено',
    tick_read: 'прочитано',
    tick_failed: 'Не отправлено',
    deleteMessageAsk: 'Удалить это сообщение у обоих?',
    deleteChat: 'Удалить беседу',
    deleteChatAsk: 'Удалить беседу с {name}? Все сообщения исчезнут у обоих.',
    chatGone: 'Беседа удалена.',
    search: 'Поиск',
    searchIn: 'Поиск в беседе',
    closeSearch: 'Закрыть поиск',
    searching: 'Поиск…',
    nothingFound: 'Ничего не найдено',
    found: {
      one: 'Найдено {count} сообщение',
      few: 'Найдено {count} сообщения',
      other: 'Найдено {count} сообщений',
    },
    foundSome: {
      one: 'Пока найдено {count} сообщение',
      few: 'Пока найдено {count} сообщения',
      other: 'Пока найдено {count} сообщений',
    },
    searchOn: 'Искать дальше',
    tooLong: { one: 'Лишний {count} знак', few: 'Лишние {count} знака', other: 'Лишних {count} знаков' },
    charsLeft: { one: 'Остался {count} знак', few: 'Осталось {count} знака', other: 'Осталось {count} знаков' },
    state_connecting: 'Подключение…',
    state_live: 'На связи',
    state_waiting: 'Новая попытка через {seconds} с',
    state_offline: 'Нет сети',
    state_token: 'Срок токена истёк',
    state_stopped: 'Отключено ({code})',
    state_idle: 'Подключение…',
    tryNow: 'Сейчас',
    today: 'Сегодня',
    yesterday: 'Вчера',
    error_network: 'Сервер недоступен.',
    error_user_not_found: 'Такого пользователя нет.',
    error_self_chat: 'Это вы. Введите ID другого человека.',
    error_blocked: 'Один из вас заблокировал другого.',
    error_forbidden: 'Это вам недоступно.',
    error_rate_limited: 'Слишком часто. Попробуйте чуть позже.',
    error_chat_not_found: 'Такой беседы нет.',
    error_unavailable: 'Сервис сейчас недоступен.',
    error_token_expired: 'Срок токена истёк.',
    error_token_invalid: 'Сервер не принимает этот токен.',
  },
};

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
  return key in WORDS.en ? t(key) : error.message;
}

/** The person's own variety of the language: an Englishman reads 16:05, an American 4:05 PM. */
const locale = pickLanguage(navigatorLanguage) === 'ru' || /^en\b/i.test(navigatorLanguage) ? navigatorLanguage : lang;
const timeFormat = new Intl.DateTimeFormat(locale, { timeStyle: 'short' });
const weekdayFormat = new Intl.DateTimeFormat(locale, { weekday: 'short' });
const shortDayFormat = new Intl.DateTimeFormat(locale, { day: 'numeric', month: 'short' });
const dayFormat = new Intl.DateTimeFormat(locale, { day: 'numeric', month: 'long' });
const oldDayFormat = new Intl.DateTimeFormat(locale, { day: 'numeric', month: 'long', year: 'numeric' });
const fullFormat = new Intl.DateTimeFormat(locale, { dateStyle: 'long', timeStyle: 'short' });
const relativeFormat = new Intl.RelativeTimeFormat(locale, { numeric: 'auto' });

export const formatTime = (iso) => timeFormat.format(new Date(iso));
export const formatFull = (iso) => fullFormat.format(new Date(iso));

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
