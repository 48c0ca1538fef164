import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { ApiError } from '../src/errors.js';
import { afterClose, backoff, Connection } from '../src/connection.js';

/** A socket whose other end is the test. */
class FakeWebSocket {
  static opened = [];
  readyState = 1;
  sent = [];
  closed = false;

  constructor(url, protocol) {
    Object.assign(this, { url, protocol });
    FakeWebSocket.opened.push(this);
  }

  send(text) { this.sent.push(JSON.parse(text)); }
  close() { this.closed = true; }
  give(frame) { this.onmessage({ data: JSON.stringify(frame) }); }
}

/** Lets what was promised happen; the clock itself is the test's. */
const settle = async () => { for (let turn = 0; turn < 5; turn += 1) await Promise.resolve(); };

async function begin(options = {}) {
  mock.timers.reset();
  mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  FakeWebSocket.opened = [];
  const phases = [];
  const frames = [];
  const socket = new Connection({
    connect: async () => ({ ws_url: 'wss://chat.example/ws/?ticket=t' }),
    onFrame: (frame) => frames.push(frame.type),
    onState: ({ phase }) => phases.push(phase),
    WebSocket: FakeWebSocket,
    random: () => 1,
    ...options,
  });
  socket.start();
  await settle();
  return { socket, phases, frames, last: () => FakeWebSocket.opened.at(-1), count: () => FakeWebSocket.opened.length };
}

test('a close code says what to do', () => {
  for (const code of [1003, 1009, 4000, 4003, 4004, 4006, 4009]) assert.equal(afterClose(code), 'stop');
  for (const code of [4101, 4102]) assert.equal(afterClose(code), 'token');
  for (const code of [1000, 1001, 1006, 1011, 1012, 4200, 4201, 4202, 4203, 4204]) assert.equal(afterClose(code), 'retry');
});

test('back-off doubles, has a ceiling, and is spread', () => {
  assert.deepEqual([0, 1, 2, 20].map((n) => backoff(n, () => 1)), [500, 1000, 2000, 30_000]);
  assert.equal(backoff(1, () => 0), 500);
});

test('the position goes into the address, read anew for each attempt', async () => {
  let ev = 5;
  const { last, count } = await begin({ query: () => ({ after_ev: ev, epoch: 'e' }) });
  assert.equal(last().url, 'wss://chat.example/ws/?ticket=t&after_ev=5&epoch=e');
  assert.equal(last().protocol, 'chat.v1');
  last().give({ type: 'hello', heartbeat_ms: 25_000 });
  ev = 9;
  last().onclose({ code: 4201 });
  mock.timers.tick(500);
  await settle();
  assert.equal(count(), 2);
  assert.match(last().url, /after_ev=9/);
});

test('a drain is followed at the time that the server gave', async () => {
  const { last, count, phases } = await begin();
  last().give({ type: 'hello' });
  last().give({ type: 'bye', code: 4200, reason: 'draining', reconnect_in_ms: 1500 });
  last().onclose({ code: 4200 });
  mock.timers.tick(1499);
  await settle();
  assert.equal(count(), 1);
  mock.timers.tick(1);
  await settle();
  assert.equal(count(), 2);
  assert.deepEqual(phases, ['connecting', 'live', 'waiting', 'connecting']);
});

test('failures in a row wait longer, and a healthy while forgets them', async () => {
  const { socket, last } = await begin();
  const delays = [];
  for (const healthy of [false, false, true]) {
    last().give({ type: 'hello' });
    if (healthy) mock.timers.tick(6000);
    last().onclose({ code: 1006 });
    delays.push(socket.state.retryAt - Date.now());
    mock.timers.tick(delays.at(-1));
    await settle();
  }
  assert.deepEqual(delays, [500, 1000, 500]);
});

test('a page that is back does not wait for its back-off, but for a pause that was asked for', async () => {
  const { socket, last, count } = await begin();
  last().onclose({ code: 1006 });
  socket.wake();
  await settle();
  assert.equal(count(), 2);
  last().give({ type: 'bye', code: 4200, reason: 'draining', reconnect_in_ms: 1500 });
  last().onclose({ code: 4200 });
  socket.wake();
  await settle();
  assert.equal(count(), 2);
});

test('40xx ends it; a start at the user\'s request begins anew', async () => {
  const { socket, last, count } = await begin();
  last().onclose({ code: 4009 });
  assert.deepEqual(socket.state, { phase: 'stopped', code: 4009 });
  mock.timers.tick(120_000);
  await settle();
  assert.equal(count(), 1);
  socket.start();
  await settle();
  assert.equal(count(), 2);
});

test('41xx tries one new ticket, then waits for a token', async () => {
  const { socket, last, count, phases } = await begin();
  last().onclose({ code: 4102 });
  await settle();
  assert.equal(count(), 2);
  last().onclose({ code: 4102 });
  await settle();
  assert.equal(phases.at(-1), 'token');
  socket.wake();
  await settle();
  assert.equal(count(), 3);
});

test('a refused ticket: 401 waits for a token, 404 is the end, the rest is retried', async () => {
  const refuse = (status, code, retry) => ({
    connect: async () => { throw new ApiError(status, { code, retry_after_ms: retry }); },
  });
  assert.equal((await begin(refuse(401, 'token_expired'))).phases.at(-1), 'token');
  const lost = await begin(refuse(404, 'route_not_found'));
  assert.deepEqual(lost.socket.state, { phase: 'stopped', code: 404 });
  const gone = await begin(refuse(404, 'chat_not_found'));
  assert.deepEqual(gone.socket.state, { phase: 'stopped', code: 4004 });
  const busy = await begin(refuse(503, 'unavailable', 7000));
  assert.equal(busy.socket.state.retryAt - Date.now(), 7000);
});

test('a line that went silent is noticed', async () => {
  const { last, phases } = await begin();
  const silent = last();
  silent.give({ type: 'hello', heartbeat_ms: 25_000 });
  mock.timers.tick(25_000);
  assert.deepEqual(silent.sent, [{ type: 'ping' }]);
  silent.give({ type: 'pong' });
  mock.timers.tick(25_000);
  assert.equal(phases.at(-1), 'live');
  mock.timers.tick(10_000);
  assert.equal(phases.at(-1), 'waiting');
  assert.equal(silent.closed, true);
});

test('nothing of an abandoned attempt is heard', async () => {
  const { socket, last, frames, phases } = await begin();
  const old = last();
  old.give({ type: 'hello' });
  socket.stop();
  old.give({ type: 'typing' });
  old.onclose({ code: 1006 });
  assert.deepEqual(frames, ['hello']);
  assert.equal(phases.at(-1), 'idle');
});

test('where a token can be had, 41xx asks for it, at once and then ever more slowly', async () => {
  const asked = [];
  const { last, socket } = await begin({
    canRenew: true,
    connect: async ({ renew }) => { asked.push(renew); return { ws_url: 'wss://chat.example/ws/?ticket=t' }; },
  });
  last().onclose({ code: 4101 });
  await settle();
  assert.deepEqual(asked, [false, true]);
  last().onclose({ code: 4102 });
  assert.equal(socket.state.phase, 'waiting');
  mock.timers.tick(500);
  await settle();
  assert.deepEqual(asked, [false, true, true]);
});

test('an error of the socket is heard to its end: the package `ws` throws those that nobody hears', async () => {
  const { socket, last } = await begin();
  const ws = last();
  ws.onerror({});
  socket.stop();
  ws.onerror({});
});
