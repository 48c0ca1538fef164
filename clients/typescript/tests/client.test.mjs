import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { Client } from '../src/index.js';
import { sleep, tokenOf, until, world } from './fake.mjs';

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
