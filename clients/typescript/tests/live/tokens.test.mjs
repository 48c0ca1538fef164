/** The client against real replicas, with tokens that end. */
import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from '../../src/index.js';
import { Stack } from '../stack.mjs';
import { until } from '../world.mjs';

const root = fileURLToPath(new URL('../../../../', import.meta.url));
const stack = new Stack(process.env.BESEDA ?? `${root}target/debug/beseda`, `${process.env.CLIENT_TEST_DIR ?? `${root}target/client-test`}`);

before(() => stack.start());
after(() => stack.remove());

/** A client that asks for tokens; `lifetimes` in seconds, the last one for all that follow. */
function asking(t, id, lifetimes) {
  const reasons = [];
  const phases = [];
  const client = new Client({
    url: stack.urls[0],
    getToken: (reason) => {
      reasons.push(reason);
      const seconds = lifetimes.length > 1 ? lifetimes.shift() : lifetimes[0];
      if (seconds === null) throw new Error('the host application is away');
      return stack.token(id, id, seconds);
    },
  });
  client.on('state', () => phases.push(client.state.phase));
  t.after(() => client.stop());
  return { client, reasons, phases };
}

test('a token that expires soon is renewed in band, and the socket stays', async (t) => {
  const { client, reasons, phases } = asking(t, 'early', [20, 3600]);
  await client.start();
  await until('a new token was asked for', () => reasons.length === 2);
  assert.deepEqual(reasons, ['start', 'expiring']);
  const chat = await client.openWith('friend');
  await client.open(chat);
  client.send(chat, 'still here');
  await until('it is sent', () => client.timelineOf(chat).messages.length === 1);
  assert.deepEqual(phases, ['connecting', 'live']);
});

test('tokens of a few seconds are asked for once in a life, not without end', async (t) => {
  const { client, reasons, phases } = asking(t, 'short', [6]);
  await client.start();
  const chat = await client.openWith('friend-of-short');
  const timeline = await client.open(chat);
  const began = Date.now();
  for (let said = 0; Date.now() - began < 12_000; said += 1) {
    client.send(chat, `still here ${said}`);
    await sleep(500);
  }
  await until('all is sent', () => timeline.pending.length === 0);
  // The replica says so when a third is left, and not twice within 5 s: after 4 and 9 s.
  assert.ok(reasons.length >= 3 && reasons.length <= 4, reasons.join());
  assert.deepEqual([...new Set(reasons)], ['start', 'expiring']);
  assert.deepEqual(phases, ['connecting', 'live'], 'over one socket');
});

test('a token that has expired is replaced before anything is lost', async (t) => {
  const { client, reasons, phases } = asking(t, 'late', [-3600, 3600]);
  await client.start();
  await until('live', () => client.state.phase === 'live');
  assert.deepEqual(reasons, ['start', 'token_expired']);
  assert.ok(!phases.includes('token'), phases.join());
});

test('a host application that is away is asked again, and sends wait', async (t) => {
  const { client } = asking(t, 'lonely', [null, null, null, 3600]);
  await client.start();
  await until('live', () => client.state.phase === 'live');
  assert.equal(client.me, 'lonely');
});

test('a socket whose token ran out comes back with a new one', async (t) => {
  // Renewing fails for as long as there is time, so the server closes the socket at the end: 4101.
  const lifetimes = [3, null];
  const { client, reasons, phases } = asking(t, 'closed', lifetimes);
  await client.start();
  await until('the first life', () => phases.includes('live'));
  const chat = await client.openWith('friend-of-closed');
  const timeline = await client.open(chat);
  await until('the end', () => client.state.phase !== 'live', 60_000);
  lifetimes[0] = 3600;
  // Within the second in which the old token ends it may open one more socket, which is closed at once.
  await until('a second life', () => phases.filter((phase) => phase === 'live').length >= 2, 60_000);
  client.send(chat, 'hello again');
  await until('it is sent', () => timeline.messages.length === 1 && timeline.pending.length === 0);
  assert.deepEqual(reasons.slice(0, 2), ['start', 'expiring']);
});

test('without anybody to ask, the page is told, and goes on with the token that it is given', async (t) => {
  const token = stack.token('manual', 'Manual', -3600);
  const client = new Client({ url: stack.urls[1], token });
  t.after(() => client.stop());
  const told = new Promise((resolve) => { client.on('token', resolve); });
  await client.start();
  assert.deepEqual(await told, { refused: 'token_expired' });
  await until('it waits for one', () => client.state.phase === 'token');
  assert.throws(() => client.setToken(stack.token('somebody-else', 'Else')), TypeError);
  client.setToken(stack.token('manual', 'Manual'));
  await until('live', () => client.state.phase === 'live');
});
