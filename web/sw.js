/**
 * The page's service worker: shows what a push tells, whether or not a window of the page is open.
 *
 * It has no token and asks the server nothing: a push says all that is shown.
 */
import { t } from './i18n.js';

/** Longest wait for a window's answer: one that the browser has put to sleep, or where nobody is signed in, gives none. */
const ANSWER_MS = 1_000;

/** Settles once the pushes so far are done with: Chromium forgets one that it begins to show while it is asked for the list. */
let done = Promise.resolve();

addEventListener('install', () => skipWaiting());
addEventListener('push', (event) => {
  const next = () => onPush(event.data.json());
  done = done.then(next, next);
  event.waitUntil(done);
});
addEventListener('notificationclick', (event) => event.waitUntil(onClick(event.notification)));
addEventListener('pushsubscriptionchange', (event) => event.waitUntil(renew(event)));

/** @param {{type: string, title?: string, chat_id?: string, badge?: number}} push  docs/run/push.md has all of it */
async function onPush(push) {
  // Installed applications have a badge; a browser may know the call and still refuse it.
  if (push.badge !== undefined) await navigator.setAppBadge?.(push.badge).catch(() => {});
  const tag = push.chat_id;
  if (push.type === 'message') {
    // The newest takes the place of what is shown of its chat, and is heard all the same.
    return registration.showNotification(push.title, { body: wordsOf(push), tag, renotify: true, data: { chatId: tag } });
  }
  if (push.type === 'test') return registration.showNotification(push.title, { body: push.text });
  if (push.type === 'read') for (const shown of await registration.getNotifications({ tag })) shown.close();
  return undefined;
}

/** Who wrote in a group, and what, as far as this device is told. */
function wordsOf({ sender_name: name, text, attachments = 0 }) {
  const what = text || (attachments > 0 ? t('attachment') : t('newMessage'));
  return name ? `${name}: ${what}` : what;
}

function windows() {
  return clients.matchAll({ type: 'window', includeUncontrolled: true });
}

/** The latest window of whom this browser is notified for: somebody else may be signed in beside them. */
async function ownersWindow() {
  const all = await windows();
  const answers = await Promise.all(all.map(isOwners));
  return all.find((_, at) => answers[at]);
}

/** @param {WindowClient} window @returns {Promise<boolean>} */
function isOwners(window) {
  return new Promise((resolve) => {
    const { port1: answer, port2: way } = new MessageChannel();
    answer.onmessage = ({ data }) => resolve(data);
    setTimeout(() => resolve(false), ANSWER_MS);
    window.postMessage({ type: 'whose' }, [way]);
  });
}

async function onClick(notification) {
  notification.close();
  const { chatId } = notification.data ?? {};
  const open = await ownersWindow();
  if (!open) return clients.openWindow(new URL(chatId ? `#${new URLSearchParams({ chat: chatId })}` : '', registration.scope).href);
  if (chatId) open.postMessage({ type: 'open', chatId });
  return open.focus();
}

/** The push service has given up the subscription. The pages have a token to register the next one with. */
async function renew({ oldSubscription, newSubscription }) {
  const applicationServerKey = oldSubscription?.options.applicationServerKey;
  if (!newSubscription && applicationServerKey) {
    await registration.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey });
  }
  for (const window of await windows()) window.postMessage({ type: 'subscription' });
}
