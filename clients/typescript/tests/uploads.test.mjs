/** Files on their way, to a server that the test plays: it takes bytes, breaks off, forgets and refuses. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sleep, until, world } from './fake.mjs';

const FILE = new Blob(['0123456789']);

/** What has become of the uploads, by the ids that the server gave. */
class Store {
  announced = [];
  /** @type {string[]} what is there */
  bytes = [];
  /** @type {string[]} each request at an upload's URL */
  asked = [];
  /** Takes so many bytes and breaks off, once. @type {number[]} */
  breaks = [];
  /** Answers instead, once. @type {Response[]} */
  refusals = [];
  /** As an object store: whole, and it tells nothing. */
  isWhole = false;
  away = false;

  async answer({ method, path, body, headers, signal }) {
    if (this.away) throw new TypeError('no network');
    if (path.endsWith('/attachments/')) {
      const id = this.announced.push(body) - 1;
      this.bytes[id] = '';
      return Response.json({ attachment_id: `a${id}`, upload: { method: 'PUT', url: `http://x/up/${id}`, headers: { 'Content-Type': body.content_type }, expires_at: '' } }, { status: 201 });
    }
    if (!path.startsWith('/up/')) return null;
    const id = Number(path.slice('/up/'.length));
    const range = headers['Content-Range'];
    this.asked.push([method, ...(range ? [range] : [])].join(' '));
    if (method === 'HEAD') return this.isWhole ? new Response(null, { status: 403 }) : this.#told(id);
    signal.throwIfAborted();
    const refusal = this.refusals.shift();
    if (refusal) return refusal;
    const from = Number(/^bytes (\d+)/.exec(range ?? '')?.[1] ?? 0);
    const text = await body.text();
    const taken = this.breaks.shift();
    if (!this.isWhole || taken === undefined) this.bytes[id] = this.bytes[id].slice(0, from) + text.slice(0, taken);
    if (taken !== undefined) throw new TypeError('broken off');
    return this.#told(id);
  }

  #told(id) {
    const { length } = this.bytes[id];
    if (length === FILE.size) return new Response(null, { status: 204 });
    return new Response(null, { status: 308, headers: length ? { Range: `bytes=0-${length - 1}` } : {} });
  }
}

async function opened(store = new Store(), answer = () => null) {
  const made = world({}, async (call) => await answer(call) ?? store.answer(call));
  await made.live();
  await made.client.open('c');
  const upload = made.client.upload('c', FILE, { name: 'ten.txt', contentType: 'text/plain' });
  return { ...made, store, upload };
}

test('a message goes out once its files are there, and what is written later does not wait', async () => {
  const store = new Store();
  let release;
  const held = new Promise((resolve) => { release = resolve; });
  const { client, upload, posts } = await opened(store, async ({ path }) => { if (path.startsWith('/up/')) await held; return null; });
  const pending = client.send('c', '', { attachments: [upload] });
  client.send('c', 'later');
  await until(() => posts().length === 1);
  assert.equal(posts()[0].body.text, 'later');
  assert.deepEqual([pending.failed, upload.phase], [false, 'sending']);
  assert.deepEqual(client.timelineOf('c').pending, [pending]);
  release();
  await until(() => posts().length === 2);
  assert.deepEqual(store.announced, [{ name: 'ten.txt', content_type: 'text/plain', size: 10 }]);
  assert.deepEqual([posts()[1].body.text, posts()[1].body.attachments], ['', ['a0']]);
  assert.deepEqual([upload.phase, upload.sent, store.bytes], ['done', 10, ['0123456789']]);
  await until(() => client.timelineOf('c').pending.length === 0);
  client.stop();
});

test('what broke off goes on from where it was', async () => {
  const store = new Store();
  store.breaks = [4, 3];
  const { client, upload } = await opened(store);
  const sent = [];
  client.on('upload', () => sent.push(upload.sent));
  await until(() => upload.phase === 'done');
  assert.deepEqual(store.bytes, ['0123456789']);
  assert.equal(store.announced.length, 1);
  assert.deepEqual(store.asked.filter((line) => line.startsWith('PUT')), ['PUT', 'PUT bytes 4-9/10', 'PUT bytes 7-9/10']);
  assert.deepEqual([...new Set(sent)], [0, 4, 7, 10]);
  client.stop();
});

test('an object store, which does not tell how far it is, gets the whole again', async () => {
  const store = Object.assign(new Store(), { isWhole: true, breaks: [4] });
  const { client, upload } = await opened(store);
  await until(() => upload.phase === 'done');
  assert.deepEqual([store.bytes, store.asked.filter((line) => line.startsWith('PUT'))], [['0123456789'], ['PUT', 'PUT']]);
  client.stop();
});

test('a URL that has expired is asked for anew, once', async () => {
  const store = new Store();
  store.refusals = [new Response(null, { status: 404 })];
  const { client, upload } = await opened(store);
  await until(() => upload.phase === 'done');
  assert.deepEqual([store.bytes, upload.attachmentId], [['', '0123456789'], 'a1']);
  store.refusals = [new Response(null, { status: 403 }), new Response(null, { status: 403 })];
  const second = client.upload('c', FILE);
  await until(() => second.phase === 'failed');
  assert.equal(second.error.status, 403);
  client.stop();
});

test('a file that is refused holds up its message, which can be sent again or discarded', async () => {
  const store = new Store();
  store.refusals = [Response.json({ code: 'validation_failed' }, { status: 422 })];
  const { client, upload, posts } = await opened(store);
  const pending = client.send('c', 'see', { attachments: [upload] });
  await until(() => pending.failed);
  assert.deepEqual([upload.phase, pending.error.code], ['failed', 'validation_failed']);
  client.retry('c', pending);
  assert.equal(pending.failed, false);
  await until(() => posts().length === 1);
  assert.deepEqual(posts()[0].body.attachments, ['a0']);
  client.stop();
});

test('what is given up is not sent any more', async () => {
  const store = new Store();
  let aborted = false;
  const { client, upload, posts } = await opened(store, ({ path, method, signal }) => {
    if (!path.startsWith('/up/') || method !== 'PUT') return null;
    return new Promise((_, reject) => { signal.onabort = () => { aborted = true; reject(signal.reason); }; });
  });
  const pending = client.send('c', 'see', { attachments: [upload] });
  await until(() => upload.phase === 'sending');
  await sleep(5);
  client.discard('c', pending);
  await until(() => aborted);
  await sleep(20);
  assert.deepEqual([upload.phase, posts().length, store.asked.length], ['aborted', 0, 0]);
  assert.deepEqual(client.timelineOf('c').pending, []);
  client.stop();
});

test('files and their message wait for the network', async () => {
  const { client, store, upload: first, posts, sockets, socket } = await opened();
  await until(() => first.phase === 'done');
  const count = sockets.length;
  store.away = true;
  socket().onclose({ code: 1006 });
  const upload = client.upload('c', FILE);
  const pending = client.send('c', 'see', { attachments: [upload] });
  await sleep(1000);
  assert.deepEqual([upload.failed, pending.failed], [false, false]);
  store.away = false;
  await until(() => sockets.length > count);
  socket().give({ type: 'hello', epoch: 'e', heartbeat_ms: 25000 });
  await until(() => posts().length === 1);
  assert.deepEqual(posts()[0].body.attachments, ['a1']);
  client.stop();
});

test('what a stop held up goes on after a start', async () => {
  const store = new Store();
  store.breaks = [4];
  let first = true;
  const { client, upload, posts, live } = await opened(store, ({ path, method }) => {
    if (!first || !path.startsWith('/up/') || method !== 'HEAD') return null;
    first = false;
    return new Promise(() => {});
  });
  const pending = client.send('c', 'see', { attachments: [upload] });
  await until(() => !first);
  client.stop();
  await sleep(5);
  assert.deepEqual([upload.phase, pending.failed], ['failed', true]);
  await live();
  await until(() => posts().length === 1);
  assert.deepEqual([store.bytes, posts()[0].body.attachments], [['0123456789'], ['a0']]);
  client.stop();
});

test('files that the server has let go of are uploaded anew where their message is sent again', async () => {
  let refused = 1;
  const { client, upload, posts, store } = await opened(new Store(), ({ path, method }) =>
    (method === 'POST' && path.endsWith('/messages/') && refused-- > 0 ? Response.json({ code: 'attachment_not_found' }, { status: 404 }) : null));
  const pending = client.send('c', 'see', { attachments: [upload] });
  await until(() => pending.failed);
  assert.equal(pending.error.code, 'attachment_not_found');
  client.retry('c', pending);
  await until(() => posts().length === 2);
  assert.deepEqual([posts()[1].body.attachments, store.bytes], [['a1'], ['0123456789', '0123456789']]);
  client.stop();
});

test('two are under way at a time', async () => {
  let [now, most] = [0, 0];
  const { client, upload } = await opened(new Store(), async ({ path, method }) => {
    if (!path.startsWith('/up/') || method !== 'PUT') return null;
    now += 1;
    most = Math.max(most, now);
    await sleep(5);
    now -= 1;
    return null;
  });
  const all = [upload, ...Array.from({ length: 6 }, () => client.upload('c', FILE))];
  await until(() => all.every(({ phase }) => phase === 'done'));
  assert.equal(most, 2);
  client.stop();
});

test('a chat that is gone takes its uploads along', async () => {
  const { client, upload } = await opened(new Store(), ({ path }) => (path.startsWith('/up/') ? new Promise(() => {}) : null));
  await until(() => upload.phase === 'sending');
  await client.groups.leave('c').catch(() => {});
  assert.equal(upload.phase, 'aborted');
  client.stop();
});
