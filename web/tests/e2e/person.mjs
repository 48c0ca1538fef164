/** A person at the page: a browser window of their own, and a token for the API. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';

/** Longest wait for anything; a machine of a CI may be slow, and a replica may have to come back. */
const PATIENCE_MS = 20_000;

/** A judge of accessibility; the page's own policy lets nobody add a script, the debugger may. */
const AXE = readFileSync(fileURLToPath(import.meta.resolve('axe-core/axe.min.js')), 'utf8');
const RULES = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];

/** What the browser itself says of a call that failed on purpose. */
export const REFUSED = /Failed to load resource|WebSocket connection to/;

/** Polls until `check` gives something true, and returns it. */
export async function until(what, check, patience = PATIENCE_MS) {
  const deadline = Date.now() + patience;
  for (;;) {
    const result = await check();
    if (result) return result;
    if (Date.now() > deadline) assert.fail(`not seen: ${what}`);
    await sleep(40);
  }
}

export class Person {
  /** @type {import('playwright-core').Page} */
  page;
  /** @type {string[]} what the browser complained about */
  complaints = [];
  /** @type {RegExp[]} complaints that belong to a test */
  expected = [];
  /** @type {(() => void)[]} */
  #ends = [];

  /**
   * @param {object} world
   * @param {import('playwright-core').Browser} world.browser
   * @param {import('../../../clients/typescript/tests/stack.mjs').Stack} world.stack
   * @param {{id: string, name: string, replica: number, way?: {url: string}}} who  on one of the
   *   stack's replicas, or wherever a way leads
   */
  constructor({ browser, stack }, { id, name, replica, way }) {
    Object.assign(this, { browser, stack, id, name, replica, way });
    this.token = stack.token(id, name);
  }

  get url() { return this.way?.url ?? this.stack.urls[this.replica]; }

  /**
   * @param {import('playwright-core').BrowserContextOptions & {
   *   token?: ?string, prepare?: (context: import('playwright-core').BrowserContext) => Promise<void>}} [options]
   *   `prepare`: what is to be done to the browser before it shows the page
   */
  async arrive({ token = this.token, prepare, ...options } = {}) {
    this.context = await this.browser.newContext({
      viewport: { width: 1180, height: 760 }, locale: 'en-GB', timezoneId: 'UTC', colorScheme: 'light', ...options,
    });
    await prepare?.(this.context);
    this.page = await this.context.newPage();
    this.page.setDefaultTimeout(PATIENCE_MS);
    this.page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) this.complaints.push(message.text());
    });
    this.page.on('pageerror', (error) => this.complaints.push(String(error.stack)));
    await this.page.goto(`${this.url}/${token ? `#token=${token}` : ''}`);
    if (token) await this.is('online', '#link-dot[data-phase=live]');
    return this;
  }

  /** @param {() => void} work  to be done when they leave */
  atLeave(work) { this.#ends.push(work); }

  /** Ends the visit; nothing but what the test expected may have gone wrong in it. */
  async leave() {
    await this.context?.close();
    this.context = null;
    for (const end of this.#ends.splice(0)) end();
    const surprising = this.complaints.filter((text) => !this.expected.some((pattern) => pattern.test(text)));
    this.complaints = [];
    assert.deepEqual(surprising, [], `complaints in ${this.id}'s browser`);
  }

  // ---- what is on the screen ----

  $(selector) { return this.page.locator(selector); }

  async is(what, selector, options = {}) {
    await this.$(selector).first().waitFor({ state: 'visible', ...options });
    return what;
  }

  /** @returns {Promise<string[]>} the chat's messages from top to bottom */
  texts() {
    return this.$('#rows .message:not(.deleted) .text').allTextContents();
  }

  async text(selector) { return (await this.$(selector).first().textContent())?.trim() ?? ''; }

  sees(text) {
    return until(`"${text}" in the window of ${this.id}`, async () => (await this.texts()).includes(text));
  }

  async seesExactly(expected) {
    let seen = [];
    await until('these messages', async () => {
      seen = await this.texts();
      return JSON.stringify(seen) === JSON.stringify(expected);
    }).catch(() => assert.deepEqual(seen, expected));
  }

  async reads(selector, expected) {
    let seen = '';
    const matches = () => (expected instanceof RegExp ? expected.test(seen) : seen === expected);
    await until(selector, async () => { seen = await this.text(selector); return matches(); })
      .catch(() => assert.fail(`${selector} of ${this.id} reads "${seen}", not ${expected}`));
  }

  /** A message of this text. */
  row(text) {
    return this.$('#rows .message').filter({ has: this.page.locator('.text', { hasText: new RegExp(`^${text.replace(/[.?+*^$()[\]{}|\\]/g, '\\$&')}$`) }) });
  }

  async isTicked(text, tick) {
    await until(`"${text}" ${tick}`, async () => {
      const rows = await this.row(text).all();
      assert(rows.length < 2, `"${text}" stands there twice`);
      return rows.length === 1 && (await rows[0].getAttribute('class')).split(' ').includes(tick);
    });
  }

  /** Nothing that axe knows of keeps anybody out. */
  async isAccessible() {
    // Colours on their way from one to the other are neither.
    await this.page.evaluate(() => Promise.allSettled(document.getAnimations().map((animation) => animation.finished)));
    await this.page.evaluate(AXE);
    const { violations } = await this.page.evaluate((values) =>
      window.axe.run(document, { runOnly: { type: 'tag', values } }), RULES);
    assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.target).join(', ')}`), [],
      `accessibility for ${this.id}`);
  }

  shot(name) {
    return this.page.screenshot({ path: `${process.env.SHOTS}/${name}.png` });
  }

  // ---- what a person does ----

  /** @param {string} id of somebody */
  async openWith(id) {
    await this.page.fill('#open-input', id);
    await this.page.press('#open-input', 'Enter');
    await this.is('chat', '#chat');
    await this.is('its messages', '#loading', { state: 'hidden' });
  }

  async pick(name) {
    await this.$('.chat-entry').filter({ hasText: name }).click();
    await this.reads('#chat-name', name);
    await this.is('its messages', '#loading', { state: 'hidden' });
  }

  async write(text) {
    await this.page.fill('#draft', text);
    await this.page.press('#draft', 'Enter');
  }

  /** What a message's menu offers; it stays open. @returns {Promise<string[]>} */
  async offers(text) {
    const row = this.row(text);
    await row.hover();
    await row.locator('.more-actions').click();
    return row.locator('[role=menuitem]').allTextContents();
  }

  /** Chooses from a message's menu. */
  async choose(text, label) {
    await this.offers(text);
    await this.row(text).getByRole('menuitem', { name: label, exact: true }).click();
  }

  /** The window is there, and somebody looks elsewhere. */
  async lookAway() {
    await this.page.evaluate(() => { document.hasFocus = () => false; });
  }

  async lookBack() {
    await this.page.evaluate(() => { delete document.hasFocus; window.dispatchEvent(new Event('focus')); });
  }

  // ---- what they do elsewhere, in another application ----

  async call(method, path, body) {
    const response = await fetch(`${this.url}/api/v1/${path}`, {
      method,
      headers: { Authorization: `Bearer ${this.token}`, 'Content-Type': 'application/json' },
      body: body && JSON.stringify(body),
    });
    assert(response.ok, `${method} ${path}: ${response.status}`);
    return response.status === 204 ? null : response.json();
  }

  /** The chat with somebody. @returns {Promise<string>} its id */
  async chatWith(id) {
    return (await this.call('POST', 'chats/', { user_id: id })).chat_id;
  }

  async say(chat, text) {
    return this.call('POST', `chats/${chat}/messages/`, { text });
  }
}
