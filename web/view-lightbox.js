/** The pictures of a message in the whole window, one at a time. */
import { attempt, byId } from './dom.js';
import { formatSize, t } from './i18n.js';

/** @typedef {import('./attachments.js').Item} Item */

export class LightboxView {
  #links;
  #previews;
  /** @type {Item[]} */
  #pictures = [];
  #at = 0;
  #chatId = '';

  /** @param {import('./attachments.js').Links} links @param {import('./attachments.js').Previews} previews */
  constructor(links, previews) {
    this.#links = links;
    this.#previews = previews;
    byId('lightbox-close').addEventListener('click', () => this.#dialog.close());
    byId('lightbox-next').addEventListener('click', () => this.#go(1));
    byId('lightbox-previous').addEventListener('click', () => this.#go(-1));
    byId('lightbox-save').addEventListener('click', () => attempt(() => links.save(this.#chatId, this.#pictures[this.#at])));
    this.#dialog.addEventListener('keydown', ({ key }) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
      if (step) this.#go(step);
    });
    this.#dialog.addEventListener('close', () => {
      // It may be told late, when the next image is open.
      if (!this.#dialog.open) this.#image.removeAttribute('src');
    });
    // Beside the picture.
    this.#dialog.addEventListener('click', ({ target }) => { if (target === this.#dialog) this.#dialog.close(); });
  }

  get #dialog() { return /** @type {HTMLDialogElement} */ (byId('lightbox')); }

  get #image() { return /** @type {HTMLImageElement} */ (byId('lightbox-image')); }

  /** @param {Item[]} pictures @param {number} at @param {string} chatId */
  open(pictures, at, chatId) {
    this.#pictures = pictures;
    this.#chatId = chatId;
    this.#at = at;
    this.#dialog.showModal();
    this.#go(0);
  }

  /** @param {number} step */
  async #go(step) {
    const count = this.#pictures.length;
    this.#at = (this.#at + step + count) % count;
    const picture = this.#pictures[this.#at];
    const { name, size, upload, attachment } = picture;
    for (const id of ['lightbox-next', 'lightbox-previous']) byId(id).hidden = count < 2;
    byId('lightbox-save').hidden = !attachment;
    byId('lightbox-name').textContent = name;
    byId('lightbox-facts').textContent = count > 1
      ? t('pictureOf', { at: this.#at + 1, count, size: formatSize(size) }) : formatSize(size);
    this.#image.alt = name;
    this.#image.removeAttribute('src');
    const local = upload ? this.#previews.of(upload) : attachment && this.#previews.ofSent(attachment.attachment_id);
    const url = local ?? await attempt(() => this.#links.of(this.#chatId, attachment.attachment_id));
    if (url && picture === this.#pictures[this.#at] && this.#dialog.open) this.#image.src = url;
  }
}
