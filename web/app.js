/**
 * The demo page: an ordinary client of Beseda's public API, nothing else.
 *
 * The client library in `clients/typescript` speaks to the server and keeps what it says;
 * `session.js` adds which chat is open; the `view-*.js` show it. This file signs in and walks
 * between the chats.
 */
import { ask, attempt, byId, toast, translate } from './dom.js';
import { lang, t } from './i18n.js';
import { PushSwitch } from './push.js';
import { Session } from './session.js';
import { SignInView } from './sign-in.js';
import { readFragment } from './text.js';
import { ChatView } from './view-chat.js';
import { ChatListView } from './view-chats.js';
import { FindView } from './view-find.js';
import { readClaims } from '../clients/typescript/src/index.js';

const TOKEN_KEY = 'beseda.token';

/** @type {?Session} */
let session = null;
/** @type {?PushSwitch} */
let push = null;
let expiryNote = null;

document.documentElement.lang = lang;
translate(document);
const signIn = new SignInView({ onToken: useToken });
byId('sign-out').addEventListener('click', signOut);
window.addEventListener('hashchange', onFragment);
window.addEventListener('online', () => session?.wake());
// The browser asks whether one really wants to leave.
window.addEventListener('beforeunload', (event) => { if (session?.isUploading) event.preventDefault(); });
document.addEventListener('visibilitychange', () => { if (document.visibilityState === 'visible') session?.wake(); });

const given = takeToken();
if (given) store(given);
const first = given ?? stored();
if (readClaims(first ?? '')) begin(first);
else signIn.show(first ? t('tokenBad') : '');

/** Takes the token out of the address, so that it is neither seen, nor shared, nor in the history. */
function takeToken() {
  const fragment = readFragment(location.hash);
  if (fragment.token === null) return null;
  const { token, ...rest } = fragment;
  history.replaceState(null, '', addressOf(rest));
  return token.trim();
}

function begin(token) {
  const claims = readClaims(token);
  session = new Session({ url: document.baseURI, token });
  // First of the listeners: a view cannot measure what is not shown yet.
  session.on('open', showPane);
  session.on('token', onTokenTrouble);
  new ChatListView(session, { name: claims.name ?? claims.sub, onOpen: goTo });
  const chatView = new ChatView(session, { onClose: () => goTo(null) });
  new FindView(session, { onPick: (message, ranges) => { goTo(message.chat_id); chatView.showMessage(message, ranges); } });
  push = new PushSwitch(session, { onOpen: goTo });
  session.on('gone', ({ chatId }) => { if (readFragment(location.hash).chat === chatId) leaveAddress(); });
  signIn.hide();
  session.start();
  openFromAddress();
}

// ---- walking between the chats: the address knows which one is open, so "back" works ----

/** @param {Record<string, ?string>} place  what the address says beside the page itself */
function addressOf(place) {
  const known = Object.entries(place).filter(([, value]) => value !== null);
  return location.pathname + location.search + (known.length ? `#${new URLSearchParams(known)}` : '');
}

function goTo(chatId) {
  if (chatId === readFragment(location.hash).chat) return openFromAddress();
  history.pushState(null, '', addressOf({ chat: chatId }));
  openFromAddress();
}

function leaveAddress() {
  history.replaceState(null, '', addressOf({}));
}

window.addEventListener('popstate', openFromAddress);

function openFromAddress() {
  if (!session) return;
  const { chat, token: fresh, invite, join } = readFragment(location.hash);
  if (fresh !== null || (chat !== null && session.openId === chat)) return;
  if (invite ?? join) return enter(() => (invite ? session.groups.accept(invite) : session.groups.join(join)));
  attempt(() => session.show(chat).catch((error) => {
    if (error.code === 'chat_not_found' && readFragment(location.hash).chat === chat) leaveAddress();
    throw error;
  }));
}

/** A link led here: whoever followed it is asked first, as others will see them come in. @param {() => Promise<string>} join */
async function enter(join) {
  history.replaceState(null, '', addressOf({ chat: session.openId }));
  if (!await ask(t('joinAsk'), t('join'), { isHarmless: true })) return;
  const chatId = await attempt(join);
  if (chatId) goTo(chatId);
}

function showPane() {
  byId('shell').dataset.pane = session.openId ? 'chat' : 'chats';
}

// ---- tokens ----

function onFragment() {
  const fresh = takeToken();
  if (fresh !== null) useToken(fresh);
}

function useToken(fresh) {
  const claims = readClaims(fresh);
  if (!claims) return signIn.show(t('tokenBad'));
  store(fresh);
  // Another person begins with a clean page.
  if (!session || claims.sub !== session.me) return location.reload();
  expiryNote?.remove();
  expiryNote = null;
  signIn.hide();
  return session.setToken(fresh);
}

function onTokenTrouble({ refused }) {
  if (refused) return signIn.show(t(refused === 'token_expired' ? 'tokenExpired' : 'error_token_invalid'));
  expiryNote ??= toast(t('tokenExpiring'), { label: t('tokenRenew'), run: () => { expiryNote = null; signIn.show(''); } });
  return undefined;
}

async function signOut() {
  await push?.leave();
  store(null);
  leaveAddress();
  location.reload();
}

/** Storage may be forbidden: then the token lives as long as the page. */
function stored() {
  try {
    return sessionStorage.getItem(TOKEN_KEY);
  } catch {
    return null;
  }
}

function store(value) {
  try {
    if (value) sessionStorage.setItem(TOKEN_KEY, value);
    else sessionStorage.removeItem(TOKEN_KEY);
  } catch {
    // Nothing to be done.
  }
}
