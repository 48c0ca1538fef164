/** The little the views share: building elements, icons, people's pictures, questions, notices. */
import { describeError, t } from './i18n.js';
import { hue, initials } from './text.js';

/** How long a notice stays. */
const TOAST_MS = 6_000;

/** @param {string} id */
export const byId = (id) => document.getElementById(id);

/**
 * An element with properties, attributes and children; a text child is always text.
 * @param {string} tag
 * @param {Record<string, unknown>} [props]
 * @param {...(Node | string)} children
 */
export function el(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, String(value));
  }
  element.append(...children);
  return element;
}

/** @param {string} name of a symbol in the page */
export function icon(name) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  use.setAttribute('href', `#i-${name}`);
  svg.append(use);
  return svg;
}

/** Puts the words in their places: `data-t`, `data-t-label`, `data-t-placeholder`. */
export function translate(root) {
  for (const node of root.querySelectorAll('[data-t]')) node.textContent = t(node.dataset.t);
  for (const node of root.querySelectorAll('[data-t-label]')) {
    node.setAttribute('aria-label', t(node.dataset.tLabel));
    if (node.matches('button')) node.title = t(node.dataset.tLabel);
  }
  for (const node of root.querySelectorAll('[data-t-placeholder]')) node.placeholder = t(node.dataset.tPlaceholder);
}

/** @param {import('../clients/typescript/src/index.js').User} user */
export function displayName(user) {
  return user.name || user.user_id;
}

/** What a chat is called: a group by its title, a direct chat by the other one. @param {import('../clients/typescript/src/index.js').Chat} chat */
export function chatName(chat) {
  return chat.other_user ? displayName(chat.other_user) : (chat.title ?? '');
}

/** A person's picture, or their initials where there is none or it does not load. */
export function avatar(user) {
  return picture(user.user_id, displayName(user), user.avatar_url);
}

/** @param {import('../clients/typescript/src/index.js').Chat} chat */
export function chatAvatar(chat) {
  if (chat.other_user) return avatar(chat.other_user);
  const holder = picture(chat.chat_id, chatName(chat), chat.avatar_url);
  holder.classList.add('group');
  return holder;
}

/** @param {string} id @param {string} name @param {?string} url */
function picture(id, name, url) {
  const holder = el('span', { className: 'avatar', 'aria-hidden': 'true' }, initials(name));
  holder.style.setProperty('--hue', String(hue(id)));
  if (/^(https:|data:image\/)/.test(url ?? '')) {
    const image = el('img', { alt: '', referrerPolicy: 'no-referrer', decoding: 'async' });
    image.onload = () => holder.replaceChildren(image);
    image.src = url;
  }
  return holder;
}

/**
 * Asks before something that cannot be undone.
 * @param {string} question
 * @param {string} [yes]  the word for going on
 * @param {{isHarmless?: boolean}} [options]
 * @returns {Promise<boolean>}
 */
export function ask(question, yes = t('delete'), { isHarmless = false } = {}) {
  const dialog = byId('confirm');
  byId('confirm-text').textContent = question;
  byId('confirm-yes').textContent = yes;
  byId('confirm-yes').classList.toggle('danger', !isHarmless);
  dialog.returnValue = '';
  byId('confirm-no').onclick = () => dialog.close();
  byId('confirm-yes').onclick = () => dialog.close('yes');
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      // A busy browser may tell late that the question before this one was closed.
      if (!dialog.open) resolve(dialog.returnValue === 'yes');
    };
  });
}

/**
 * @param {string} text
 * @param {{label: string, run: () => void}} [action]  a notice with an action stays until it is taken
 */
export function toast(text, action) {
  const note = el('div', { className: 'toast' }, el('span', {}, text));
  if (action) {
    note.append(el('button', { className: 'small', onclick: () => { note.remove(); action.run(); } }, action.label));
  } else {
    setTimeout(() => note.remove(), TOAST_MS);
  }
  byId('toasts').append(note);
  return note;
}

/** Runs what a person asked for; a failure is told, not thrown. */
export async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    if (error?.name !== 'ApiError') console.error(error);
    toast(describeError(error));
    return undefined;
  }
}

/** Reads something out to those who listen to the page. */
export function announce(text) {
  const log = byId('announcer');
  log.append(el('p', {}, text));
  while (log.childElementCount > 5) log.firstElementChild.remove();
}
