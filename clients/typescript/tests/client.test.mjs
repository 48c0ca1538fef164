import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { Client } from '../src/index.js';
import { chat, message, page, sleep, tokenOf, until, world } from './fake.mjs';

const token = `e30.${Buffer.from('{"sub":"alice"}').toString('base64url')}.sig`;

class Socket {
  static last = null;
  readyState = 1;
  constructor() { Socket.last = this; }
  send() {}
  close() { this.readyState = 3; }
}

/** Lets time pass and what was promised happen; bodies are read in turns of the real loop. */
async function pass(ms) {
  for (let turn = 0; turn < 3; turn += 1) await new Promise((resolve) => { setImmediate(resolve); });
  mock.timers.tick(ms);
  for (let turn = 0; turn < 3; turn += 1) await new Promise((resolve) => { setImmediate(resolve); });
}

test('a client that was stopped tries nothing any more; what was left goes out after a start', async () => {
  mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  let away = true;
  const calls = [];
  const client = new Client({
    url: 'http://x', token, WebSocket: Socket,
    fetch: async (url, { method, body }) => {
      const { pathname } = new URL(url);
      calls.push(`${method} ${pathname}`);
      if (away) throw new TypeError('no network');
      if (pathname.endsWith('/connect/')) return Response.json({ ws_url: 'ws://x/ws/?ticket=t' });
      if (pathname.endsWith('/chats/')) return Response.json({ results: [], next: null });
      return Response.json({ ...JSON.parse(body), chat_id: 'c', message_id: 'm', seq: 1, ev: 1, sender_id: 'alice' });
    },
  });
  client.start();
  const pending = client.send('c', 'hello');
  await pass(60_000);
  assert.equal(pending.failed, false, 'it waits for a connection');
  client.stop();
  await pass(1000);
  const before = calls.length;
  for (let turn = 0; turn < 10; turn += 1) await pass(60_000);
  assert.equal(calls.length, before);
  away = false;
  client.start();
  await pass(0);
  Socket.last.onmessage({ data: '{"type":"hello","heartbeat_ms":25000,"epoch":"e"}' });
  await pass(0);
  await pass(0);
  assert.equal(calls.filter((call) => call === 'POST /api/v1/chats/c/messages/').length >= 2, true);
  assert.deepEqual(client.timelineOf('c').pending, []);
  client.stop();
  mock.timers.reset();
});

test('a token of somebody else is refused', () => {
  const client = new Client({ url: 'http://x', token, WebSocket: Socket, fetch: () => Promise.reject(new Error('unused')) });
  const other = `e30.${Buffer.from('{"sub":"bob"}').toString('base64url')}.sig`;
  assert.throws(() => client.setToken(other), /somebody else/);
});

test('what was written goes out as its author, whoever signed in meanwhile', async () => {
  let who = 'alice';
  let answer = () => null;
  const { client, posts, live, socket } = world({ getToken: async () => tokenOf(who) }, (call) => answer(call));
  await live();
  await client.open('c');
  answer = () => { throw new TypeError('no network'); };
  socket().onclose({ code: 1006 });
  client.send('c', 'of alice');
  await sleep(5);
  who = 'bob';
  answer = ({ sub }) => (sub === 'alice' ? Response.json({ code: 'token_expired' }, { status: 401 }) : null);
  await until(() => client.state.phase === 'token');
  await sleep(600);
  assert.deepEqual(posts().filter(({ sub }) => sub !== 'alice'), []);
  assert.equal(client.me, 'alice');
  assert.equal(client.timelineOf('c').pending.length, 1);
  client.stop();
});

test('a mistake in a listener is told, and ends neither the sending nor the reconnecting', async () => {
  const told = [];
  globalThis.reportError = (error) => told.push(error.message);
  let refused = true;
  const { client, posts, live, reconnect } = world({}, ({ method, path }) =>
    (refused && method === 'POST' && path.endsWith('/messages/') ? Response.json({ code: 'blocked' }, { status: 403 }) : null));
  await live();
  const off = client.on('chat', () => { throw new Error('of chat'); });
  const first = client.send('c', 'one');
  await until(() => first.failed);
  off();
  refused = false;
  client.send('c', 'two');
  await until(() => posts().length === 2);
  client.on('state', () => { throw new Error('of state'); });
  await reconnect();
  assert.equal(client.state.phase, 'live');
  assert.deepEqual([...new Set(told)], ['of chat', 'of state']);
  client.stop();
  delete globalThis.reportError;
});

test('a chat that is opened twice at once is read once, and followed from there', async () => {
  const { client, calls, live, socket } = world({}, async ({ path }) => {
    if (!path.endsWith('/messages/')) return null;
    await sleep(20);
    return page(1, 10);
  });
  await live();
  const [first, second] = await Promise.all([client.open('c'), client.open('c')]);
  assert.equal(first, second);
  assert.equal(first.loaded, true);
  assert.equal(calls.filter(({ path }) => path.endsWith('/messages/')).length, 1);
  assert.deepEqual(socket().of('subscribe').map(({ after_ev }) => after_ev), [10]);
  client.stop();
});

test('pages that no longer fit the window when they come are not taken', async () => {
  const pages = [];
  let first = true;
  const { client, live, socket } = world({}, ({ path, query }) => {
    if (!path.endsWith('/messages/')) return null;
    if (first) { first = false; return page(51, 650); }
    return new Promise((resolve) => { pages.push(() => resolve(query.has('before') ? page(1, 50) : page(651, 660))); });
  });
  await live();
  const timeline = await client.open('c');
  const before = client.loadBefore(timeline);
  await until(() => pages.length === 1);
  timeline.synced = true;
  timeline.apply({ type: 'message.created', chat_id: 'c', ev: 651, message: message(651) });
  pages[0]();
  await before;
  const seqs = timeline.messages.map(({ seq }) => seq);
  assert.deepEqual([seqs[0], seqs.length, timeline.hasMoreBefore], [52, 600, true]);
  client.stop();
});

test('marking in a handler of `chat` ends where the window does', async () => {
  const marks = [];
  const { client, live } = world({}, ({ path, body }) => {
    if (path.endsWith('/mark_read/')) {
      marks.push(body.up_to_seq);
      return { read_seq: body.up_to_seq, unread_count: 50, total_unread: 50 };
    }
    return path.endsWith('/messages/') ? page(1, 50, { has_more_after: true, head_ev: 100, head_seq: 100 }) : null;
  });
  await live();
  const timeline = await client.open('c');
  client.on('chat', () => { client.markRead(timeline); });
  client.emit('chat', { chatId: 'c' });
  await sleep(100);
  assert.deepEqual(marks, [50]);
  client.stop();
});

test('what was written before the first token is known as one\'s own', async () => {
  let away = true;
  const { client, live, posts } = world({ getToken: async () => {
    if (away) throw new TypeError('no network');
    return tokenOf('alice');
  } }, () => { if (away) throw new TypeError('no network'); return null; });
  await client.start();
  client.send('c', 'hello');
  away = false;
  await live();
  await until(() => posts().length > 0);
  await until(() => client.timelineOf('c').pending.length === 0);
  assert.equal(client.timelineOf('c').me, 'alice');
  client.stop();
});

test('closing a chat forgets nothing that is still to be sent', async () => {
  const { client, live } = world({}, async ({ method, path }) => {
    if (method !== 'POST' || !path.endsWith('/messages/')) return null;
    await sleep(20);
    return Response.json({ code: 'blocked' }, { status: 403 });
  });
  await live();
  await client.open('c');
  const pending = client.send('c', 'hello');
  client.close('c');
  const timeline = await client.open('c');
  assert.deepEqual(timeline.pending, [pending]);
  await until(() => pending.failed);
  client.stop();
});

test('what failed over a living line is not sent again unasked', async () => {
  let busy = true;
  const { client, posts, live, reconnect } = world({}, ({ method, path }) =>
    (busy && method === 'POST' && path.endsWith('/messages/') ? Response.json({ code: 'unavailable', retry_after_ms: 1 }, { status: 503 }) : null));
  await live();
  const pending = client.send('c', 'hello');
  await until(() => pending.failed);
  busy = false;
  const before = posts().length;
  await reconnect();
  await sleep(20);
  assert.deepEqual([pending.failed, posts().length], [true, before]);
  client.stop();
});

test('a start after a stop follows again what is open', async () => {
  const { client, live, socket } = world({}, ({ path }) => (path.endsWith('/messages/') ? page(1, 3) : null));
  await live();
  await client.open('c');
  client.stop();
  await live();
  assert.deepEqual(socket().of('subscribe').map(({ chat_id, after_ev }) => [chat_id, after_ev]), [['c', 3]]);
  client.stop();
});

test('a getToken that is merely away is asked again when a token expires, and no trouble is told', async () => {
  let asked = 0;
  const told = [];
  const { client, live, socket } = world({ getToken: async () => {
    asked += 1;
    if (asked === 2) throw new TypeError('no network');
    return tokenOf('alice', { asked });
  } });
  client.on('token', (detail) => told.push(detail));
  await live();
  socket().give({ type: 'token.expiring', expires_in: 1 });
  await until(() => socket().of('auth').length === 1);
  assert.deepEqual([asked, told], [3, []]);
  client.stop();
});

test('only the top of the list and what is open is followed', async () => {
  const chats = ['a', 'b', 'z'].map((id, index) => chat(id, { created_at: `2026-01-0${5 - index}T00:00:00Z` }));
  const { client, live, socket } = world({ followed: 2 }, ({ path }) => {
    if (path === '/chats/') return { results: chats, next: null };
    return path.endsWith('/messages/') ? page(1, 3) : null;
  });
  await live();
  await client.open('b');
  assert.deepEqual(client.live.followed().sort(), ['a', 'b']);
  for (const id of ['k', 'l']) {
    socket().give({ type: 'chat.updated', total_unread: 1, chat: chat(id, { last_ev: 1, created_at: '2026-02-01T00:00:00Z' }) });
  }
  assert.deepEqual(client.live.followed().sort(), ['b', 'k', 'l'], 'b is open');
  assert.deepEqual(socket().of('unsubscribe').map(({ chat_id }) => chat_id).filter((id) => id !== 'b'), ['a']);
  client.stop();
});

test('a chat too many is asked for again once another is given up', async () => {
  const { client, live, socket } = world({});
  await live();
  await client.open('c');
  await client.open('d');
  const { id } = socket().of('subscribe')[1];
  socket().give({ type: 'error', id, code: 'forbidden', retry_after_ms: 1 });
  await sleep(20);
  assert.equal(socket().of('subscribe').length, 2);
  client.close('c');
  assert.deepEqual(socket().of('subscribe').map(({ chat_id }) => chat_id), ['c', 'd', 'd']);
  client.stop();
});

test('with one chat only, a start settles while the network is away, and the chat opens once it is back', async () => {
  let away = true;
  const { client } = world({ chat: 'c' }, () => {
    if (away) return Response.json({ code: 'unavailable', retry_after_ms: 20 }, { status: 503 });
    return null;
  });
  await client.start();
  assert.equal(client.timelineOf('c').loaded, false);
  away = false;
  await until(() => client.timelineOf('c').loaded);
  client.stop();
});

test('with one chat only, a history that is away holds up no start either', async () => {
  let away = true;
  const { client } = world({ chat: 'c' }, ({ path }) =>
    (away && path.endsWith('/messages/') ? Response.json({ code: 'unavailable', retry_after_ms: 20 }, { status: 503 }) : null));
  await client.start();
  assert.deepEqual([client.chats.size, client.timelineOf('c').loaded], [1, false]);
  away = false;
  await until(() => client.timelineOf('c').loaded);
  client.stop();
});

test('a chat that is not there is told by the start', async () => {
  const { client } = world({ chat: 'c' }, () => Response.json({ code: 'chat_not_found' }, { status: 404 }));
  await assert.rejects(client.start(), { code: 'chat_not_found' });
  client.stop();
});

/** A list of so many chats, the latest first, as pages. */
function paged(list) {
  return ({ path, query }) => {
    if (path === '/chats/unread/') return { total: list.reduce((sum, { unread_count: count }) => sum + count, 0), chats: [] };
    if (path !== '/chats/') return null;
    const from = Number(query.get('cursor') ?? 0);
    const to = from + Number(query.get('limit') ?? 30);
    return { results: list.slice(from, to), next: to < list.length ? String(to) : null };
  };
}

test('after a reconnect all chats that were loaded are right, however many', async () => {
  const at = (index) => new Date(Date.UTC(2026, 0, 1) - index * 60_000).toISOString();
  let list = Array.from({ length: 320 }, (_, index) => chat(`c${index}`, { created_at: at(index), last_ev: 1, last_seq: 1 }));
  const { client, live, reconnect } = world({}, (call) => paged(list)(call));
  await live();
  while (client.chats.size < 250) await client.loadMoreChats();
  const loaded = client.chats.size;
  // Meanwhile one far below was deleted, another one has news, and nobody told.
  list = list.filter(({ chat_id: id }) => id !== 'c200').map((chat) =>
    (chat.chat_id === 'c220' ? { ...chat, last_ev: 2, last_seq: 2, unread_count: 1 } : chat));
  await reconnect();
  await until(() => client.chats.get('c220').unread_count === 1);
  assert.equal(client.chats.get('c200'), undefined);
  assert.deepEqual([client.chats.size >= loaded - 1, client.chats.totalUnread], [true, 1]);
  while (client.chats.next) await client.loadMoreChats();
  assert.equal(client.chats.size, 319);
  client.stop();
});

test('a list that could not be read over a living line is read again', async () => {
  let busy = true;
  const { client, live } = world({}, ({ path }) =>
    (busy && path === '/chats/' ? Response.json({ code: 'unavailable', retry_after_ms: 20 }, { status: 503 }) : null));
  await live();
  assert.equal(client.chats.size, 0);
  busy = false;
  await until(() => client.chats.size === 1);
  client.stop();
});

test('presence that was told meanwhile is not taken back by the list', async () => {
  let answer;
  const { client, live, reconnect, socket } = world({ followed: 1 }, ({ path }) =>
    (answer && path === '/chats/' ? new Promise((resolve) => { answer.push(resolve); }) : null));
  await live();
  answer = [];
  await reconnect();
  await until(() => answer.length === 1);
  const { id } = socket().of('subscribe')[0];
  socket().give({
    type: 'subscribed', id, chat_id: 'c', head_ev: 0, head_seq: 0, epoch: 'e', read_seq: 0, peer_read_seq: 0, online: ['other of c'], online_count: 2,
  });
  answer[0]({ results: [chat('c')], next: null });
  await sleep(20);
  assert.equal(client.chats.get('c').other_user.online, true);
  client.stop();
});
