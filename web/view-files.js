/** The files that are to go with what is written: picked, pasted or dropped; shown, and uploaded at once. */
import { kindOf } from './attachments.js';
import { byId, el, icon, toast } from './dom.js';
import { describeError, formatSize, t } from './i18n.js';

/** Most files of a message, the server's bound. */
const MOST = 10;

/** @typedef {import('../clients/typescript/src/index.js').Upload} Upload */

export class FilesView {
  #session;
  #options;
  /** @type {Upload[]} */
  #uploads = [];
  /** @type {Map<Upload, {element: HTMLElement, show: () => void}>} */
  #rows = new Map();

  /**
   * @param {import('./session.js').Session} session
   * @param {object} options
   * @param {import('./attachments.js').Previews} options.previews
   * @param {() => boolean} options.mayAttach
   * @param {() => void} options.onChange
   */
  constructor(session, options) {
    this.#session = session;
    this.#options = options;
    const input = /** @type {HTMLInputElement} */ (byId('attach-input'));
    byId('attach').addEventListener('click', () => input.click());
    input.addEventListener('change', () => { this.add(input.files); input.value = ''; });
    byId('draft').addEventListener('paste', (event) => {
      const files = event.clipboardData?.files;
      if (!files?.length || !options.mayAttach()) return;
      event.preventDefault();
      this.add(files);
    });
    this.#takeDrops(byId('chat'));
    session.on('upload', ({ upload }) => this.#onUpload(upload));
  }

  /** @param {HTMLElement} area */
  #takeDrops(area) {
    const isFiles = (event) => event.dataTransfer?.types.includes('Files');
    const mark = (on) => area.classList.toggle('dropping', on);
    area.addEventListener('dragover', (event) => {
      if (!isFiles(event)) return;
      event.preventDefault();
      const may = this.#options.mayAttach();
      event.dataTransfer.dropEffect = may ? 'copy' : 'none';
      mark(may);
    });
    area.addEventListener('dragleave', (event) => { if (!area.contains(event.relatedTarget)) mark(false); });
    area.addEventListener('drop', (event) => {
      if (!isFiles(event)) return;
      event.preventDefault();
      mark(false);
      if (this.#options.mayAttach()) this.add(event.dataTransfer.files);
    });
  }

  /** @param {?Iterable<File>} files */
  add(files) {
    for (const file of files ?? []) {
      if (this.#uploads.length >= MOST) { toast(t('tooManyFiles', { count: MOST })); break; }
      if (file.size === 0) toast(t('emptyFile', { name: file.name }));
      else this.#uploads.push(this.#session.upload(this.#session.openId, file));
    }
    this.#render();
    byId('draft').focus();
  }

  /** Those of another draft. @param {Upload[]} uploads */
  show(uploads) {
    this.#uploads = uploads;
    this.#render();
  }

  /** @returns {Upload[]} */
  get uploads() { return this.#uploads; }

  #render() {
    for (const [upload, { element }] of this.#rows) {
      if (this.#uploads.includes(upload)) continue;
      element.remove();
      this.#rows.delete(upload);
    }
    const list = byId('files');
    list.hidden = this.#uploads.length === 0;
    for (const upload of this.#uploads) {
      if (!this.#rows.has(upload)) this.#rows.set(upload, this.#row(upload));
      list.append(this.#rows.get(upload).element);
    }
    this.#options.onChange();
  }

  /** @param {Upload} upload */
  #row(upload) {
    const { name, file, contentType } = upload;
    const thumbnail = kindOf(contentType) === 'picture'
      ? el('img', { alt: '', src: this.#options.previews.of(upload) }) : icon('file');
    const note = el('span', { className: 'muted file-size' });
    const bar = el('progress', { max: file.size, value: 0, 'aria-label': t('uploading', { name }) });
    const again = el('button', { type: 'button', className: 'small', onclick: () => this.#session.uploads.retry(upload) }, t('retry'));
    const remove = el('button', {
      type: 'button', className: 'plain', title: t('removeFile', { name }), 'aria-label': t('removeFile', { name }), onclick: () => this.#remove(upload),
    }, icon('close'));
    const element = el('li', { className: 'file-draft' },
      el('span', { className: 'file-thumbnail', 'aria-hidden': 'true' }, thumbnail),
      el('span', { className: 'file-facts' }, el('bdi', { className: 'clip file-name' }, name), note, bar), again, remove);
    const show = () => {
      const { phase, sent, error } = upload;
      bar.value = sent;
      bar.hidden = phase === 'done' || phase === 'failed';
      again.hidden = phase !== 'failed';
      element.classList.toggle('failed', phase === 'failed');
      note.textContent = phase === 'failed' && error ? describeError(error) : formatSize(file.size);
    };
    show();
    return { element, show };
  }

  /** @param {Upload} upload */
  #onUpload(upload) {
    this.#rows.get(upload)?.show();
    if (!this.#rows.has(upload) || (upload.phase !== 'done' && upload.phase !== 'failed')) return;
    byId('files-status').textContent = t(upload.phase === 'done' ? 'uploaded' : 'uploadFailed', { name: upload.name });
    this.#options.onChange();
  }

  /** @param {Upload} upload */
  #remove(upload) {
    this.#session.uploads.abort(upload);
    this.#options.previews.forget(upload);
    this.#uploads = this.#uploads.filter((other) => other !== upload);
    this.#render();
    byId('draft').focus();
  }
}
