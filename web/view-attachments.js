/** The files of one message: pictures in a grid, sound and video in place, others by their names. */
import { blurred } from './blurhash.js';
import { attempt, el, icon } from './dom.js';
import { formatSize, t } from './i18n.js';

/** A picture is asked for when it is this close to being seen. */
const NEAR = '400px';

/** @typedef {import('./attachments.js').Item} Item */

/**
 * @typedef {object} Files
 * @property {import('./attachments.js').Links} links
 * @property {import('./attachments.js').Previews} previews
 * @property {(pictures: Item[], at: number, chatId: string) => void} open  in the whole window
 */

/** @type {WeakMap<Element, () => void>} what to do once an element is near */
const arrivals = new WeakMap();
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    watcher.unobserve(target);
    arrivals.get(target)?.();
  }
}, { rootMargin: NEAR });

/** @param {Element} element @param {() => void} then */
function onceNear(element, then) {
  arrivals.set(element, then);
  watcher.observe(element);
}

export class AttachmentsView {
  element = el('div', { className: 'attachments' });
  #files;
  #shown = '';
  /** @type {Map<Item['upload'], HTMLProgressElement>} */
  #bars = new Map();

  /** @param {Files} files */
  constructor(files) {
    this.#files = files;
  }

  /** @param {Item[]} items @param {string} chatId */
  update(items, chatId) {
    // Progress comes often, and must not take the focus or start a film anew.
    const shown = JSON.stringify(items.map(({ attachment, status, name, upload }) => [attachment, status, name, upload?.phase]));
    if (shown !== this.#shown) this.#build(items, chatId);
    this.#shown = shown;
    for (const [upload, bar] of this.#bars) if (upload) bar.value = upload.sent;
  }

  #build(items, chatId) {
    this.#bars.clear();
    this.element.hidden = items.length === 0;
    const pictures = items.filter(({ kind, status }) => kind === 'picture' && status !== 'blocked');
    const rest = items.filter((item) => !pictures.includes(item));
    const grid = pictures.length > 0 && el('div', { className: `pictures${pictures.length === 1 ? ' single' : ''}` },
      ...pictures.map((item, at) => this.#withProgress(item, this.#picture(item, chatId, () => this.#files.open(pictures, at, chatId)))));
    this.element.replaceChildren(...(grid ? [grid] : []), ...rest.map((item) => this.#withProgress(item, this.#other(item, chatId))));
  }

  #withProgress({ upload, name }, element) {
    if (!upload || upload.phase === 'done') return element;
    const bar = el('progress', { max: upload.file.size, value: upload.sent, 'aria-label': t('uploading', { name }) });
    this.#bars.set(upload, bar);
    return el('div', { className: 'uploading' }, element, bar);
  }

  /** Where the file is on this machine. @param {Item} item */
  #local({ upload, attachment }) {
    return upload ? this.#files.previews.of(upload) : attachment && this.#files.previews.ofSent(attachment.attachment_id);
  }

  #picture(item, chatId, open) {
    const { name, width, height, blurhash, attachment, status } = item;
    const image = el('img', { alt: name, decoding: 'async', draggable: false });
    const button = el('button', { type: 'button', className: 'picture', title: name, onclick: open }, ...[blurred(blurhash)].filter(Boolean), image);
    if (width && height) button.style.aspectRatio = `${width} / ${height}`;
    const local = this.#local(item);
    image.onload = () => button.classList.add('loaded');
    if (local) image.src = local;
    else if (attachment) onceNear(button, () => this.#load(image, chatId, attachment));
    return status === 'scanning' ? el('div', { className: 'scanned' }, button, el('span', { className: 'scan-note' }, t('scanning'))) : button;
  }

  async #load(image, chatId, { attachment_id: id, thumbnail }) {
    // The caption says what it is; a thumbnail that does not come leaves what was painted for it.
    image.src = await this.#files.links.of(chatId, id, thumbnail ? 'thumbnail' : undefined).catch(() => '');
  }

  #other(item, chatId) {
    const { name, size, kind, status, upload } = item;
    const facts = el('span', { className: 'file-facts' },
      el('bdi', { className: 'clip file-name' }, name),
      el('span', { className: 'muted file-size' }, status === 'blocked' ? t('scanBlocked') : status === 'scanning' ? `${formatSize(size)}, ${t('scanning')}` : formatSize(size)));
    if (status === 'blocked' || upload) return el('div', { className: 'file' }, icon(status === 'blocked' ? 'failed' : 'file'), facts);
    const isMedium = kind === 'video' || kind === 'audio';
    const save = el('button', {
      type: 'button', className: isMedium ? 'plain' : 'file', title: t('download'), onclick: () => attempt(() => this.#files.links.save(chatId, item)),
    }, icon(isMedium ? 'download' : 'file'), ...(isMedium ? [el('span', { className: 'sr' }, t('downloadName', { name }))] : [el('span', { className: 'sr' }, t('download')), facts]));
    if (!isMedium) return save;
    const place = el('div', { className: 'medium' });
    const play = el('button', { type: 'button', className: 'file', onclick: () => this.#play(place, item, chatId) }, icon('play'), el('span', { className: 'sr' }, t('play')), facts);
    place.append(play, save);
    return place;
  }

  /** A player in the place of the button. Its link ends after a minute: then it goes on with another one. */
  #play(place, item, chatId) {
    const player = el(item.kind, { controls: true, autoplay: true, preload: 'metadata', playsInline: true, 'aria-label': item.name });
    let renewed = -1;
    const load = async (at) => {
      player.src = this.#local(item) ?? await this.#files.links.of(chatId, item.attachment.attachment_id);
      if (at) player.currentTime = at;
      await player.play().catch(() => {});
    };
    player.onerror = () => {
      const { currentTime } = player;
      // The same place again: it is not the link.
      if (renewed === currentTime) return;
      renewed = currentTime;
      attempt(() => load(currentTime));
    };
    place.classList.add('playing');
    place.firstElementChild.replaceWith(player);
    attempt(() => load(0));
    player.focus();
  }
}
