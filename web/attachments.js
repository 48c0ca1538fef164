/** What the page knows of files: of which kind they are, and where their bytes can be had. */

/** What is painted as a picture; others are files, whatever they say. */
const PICTURES = ['image/png', 'image/jpeg', 'image/webp', 'image/gif'];
/** A link is not used in its last seconds. */
const MARGIN_MS = 5_000;
/** So many files of one's own are shown from this machine after they were sent; then from the server. */
const PREVIEWS = 50;

/**
 * A file of a message, or one on its way.
 * @typedef {object} Item
 * @property {string} name
 * @property {number} size
 * @property {string} type
 * @property {'picture' | 'video' | 'audio' | 'file'} kind
 * @property {?number} width
 * @property {?number} height
 * @property {?string} blurhash
 * @property {?import('../clients/typescript/src/schema.js').Attachment} attachment
 * @property {?import('../clients/typescript/src/index.js').Upload} upload
 * @property {'ready' | 'scanning' | 'blocked'} status
 */

/** @param {string} contentType */
export function kindOf(contentType) {
  const type = contentType.split(';')[0].trim().toLowerCase();
  if (PICTURES.includes(type)) return 'picture';
  return type.startsWith('video/') ? 'video' : type.startsWith('audio/') ? 'audio' : 'file';
}

/**
 * The files of a message, sent or not.
 * @param {{attachments?: import('../clients/typescript/src/schema.js').Attachment[], uploads?: import('../clients/typescript/src/index.js').Upload[]}} message
 * @returns {Item[]}
 */
export function itemsOf({ attachments, uploads }) {
  if (attachments) {
    return attachments.map((attachment) => {
      const { name, size, content_type: type, width, height, blurhash, status } = attachment;
      // Statuses to come are of what cannot be had.
      const known = status === 'ready' || status === 'scanning' ? status : 'blocked';
      return { name, size, type, kind: kindOf(type), width, height, blurhash, attachment, upload: null, status: known };
    });
  }
  return (uploads ?? []).map((upload) => ({
    name: upload.name, size: upload.file.size, type: upload.contentType, kind: kindOf(upload.contentType),
    width: null, height: null, blurhash: null, attachment: null, upload, status: 'ready',
  }));
}

/** One's own files from this machine: before they are sent, and for a while after that. */
export class Previews {
  /** @type {Map<import('../clients/typescript/src/index.js').Upload, string>} */
  #urls = new Map();

  /** @param {import('../clients/typescript/src/index.js').Upload} upload */
  of(upload) {
    const known = this.#urls.get(upload);
    if (known) return known;
    const [oldest] = this.#urls.size >= PREVIEWS ? this.#urls.keys() : [];
    if (oldest) this.forget(oldest);
    const made = URL.createObjectURL(upload.file);
    this.#urls.set(upload, made);
    return made;
  }

  /** @param {string} attachmentId @returns {?string} */
  ofSent(attachmentId) {
    return [...this.#urls].find(([upload]) => upload.attachmentId === attachmentId)?.[1] ?? null;
  }

  /** @param {import('../clients/typescript/src/index.js').Upload} upload */
  forget(upload) {
    const url = this.#urls.get(upload);
    if (url) URL.revokeObjectURL(url);
    this.#urls.delete(upload);
  }
}

/** Links to bytes, for elements that send no token: asked for when they are needed, as they are good for a minute only. */
export class Links {
  #session;
  /** @type {Map<string, Promise<{url: string, until: number}>>} */
  #known = new Map();

  /** @param {import('./session.js').Session} session */
  constructor(session) {
    this.#session = session;
  }

  /**
   * @param {string} chatId @param {string} attachmentId @param {'thumbnail'} [variant]
   * @returns {Promise<string>}
   */
  async of(chatId, attachmentId, variant) {
    const key = `${attachmentId} ${variant ?? ''}`;
    const known = await this.#known.get(key)?.catch(() => null);
    if (known && known.until > Date.now()) return known.url;
    const asked = this.#session.api.linkAttachment(chatId, attachmentId, variant)
      .then(({ url, expires_at: end }) => ({ url, until: Date.parse(end) - MARGIN_MS }));
    this.#known.set(key, asked);
    asked.catch(() => this.#known.delete(key));
    return (await asked).url;
  }

  /** @param {string} chatId @param {Item} item */
  async save(chatId, { name, attachment }) {
    if (!attachment) return;
    const link = document.createElement('a');
    link.href = await this.of(chatId, attachment.attachment_id);
    link.download = name;
    // Where the bytes lie elsewhere, the browser shows what it can.
    link.target = '_blank';
    link.rel = 'noopener noreferrer';
    link.click();
  }
}
