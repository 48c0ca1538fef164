/** Tests the application with a running Beseda at BESEDA_URL. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { Api, Client, Credentials } from 'beseda-client';

import { makeApp } from '../server.js';

const url = process.env.BESEDA_URL ?? 'http://127.0.0.1:8080';
const secret = process.env.BESEDA_JWT_HS256_SECRET;
/** Longest wait for a change to reach the other replica; generous. */
const WAIT_MS = 15_000;

let server;
before(async () => {
  server = makeApp({ url, secret }).listen(0, '127.0.0.1');
  await once(server, 'listening');
});
after(() => server.close());

/** Signs in a new user, as a browser would. */
async function person() {
  const login = `p_${randomBytes(6).toString('hex')}`;
  let cookie = '';
  const ask = async (method, path, body) => {
    const answer = await fetch(`http://127.0.0.1:${server.address().port}${path}`, {
      method,
      headers: { 'Content-Type': 'application/json', cookie },
      body: body && JSON.stringify(body),
    });
    cookie = answer.headers.get('set-cookie')?.split(';')[0] ?? cookie;
    return answer;
  };
  const getToken = async () => {
    const answer = await ask('GET', '/chat-token');
    return answer.ok ? (await answer.json()).token : null;
  };
  assert.equal((await ask('POST', '/sign-in', { login })).status, 204);
  const api = new Api({ url, credentials: new Credentials({ token: await getToken() }) });
  const contact = async (other) => (await (await ask('POST', `/contact/${other.login}`)).json()).chat_id;
  return { login, ask, getToken, api, contact };
}

async function until(what) {
  const deadline = Date.now() + WAIT_MS;
  for (;;) {
    const value = await what();
    if (value) return value;
    assert.ok(Date.now() < deadline, `not so in time: ${what}`);
    await sleep(20);
  }
}

test('two users talk, live', async () => {
  const [alice, bob] = [await person(), await person()];
  const chat = await alice.contact(bob);
  assert.equal(await bob.contact(alice), chat);
  const client = new Client({ url, getToken: bob.getToken });
  try {
    await client.start();
    const timeline = await client.open(chat);
    await until(() => client.state.phase === 'live');
    await alice.api.sendMessage(chat, { text: 'Is it still there?', client_msg_id: '1' });
    await alice.api.sendMessage(chat, { text: 'Is it still there?', client_msg_id: '1' });
    await until(() => timeline.messages.length > 0);
    client.send(chat, 'It is.');
    await until(() => timeline.messages.length > 1);
    assert.deepEqual(timeline.messages.map(({ text }) => text), ['Is it still there?', 'It is.']);
    await until(async () => (await alice.api.unread()).total === 1);
  } finally {
    client.stop();
  }
});

test('a new name is seen by others', async () => {
  const [alice, bob] = [await person(), await person()];
  const chat = await alice.contact(bob);
  assert.equal((await bob.ask('PUT', '/me', { name: 'Robert' })).status, 204);
  assert.equal((await alice.api.getChat(chat)).other_user.name, 'Robert');
});

test('strangers see nothing', async () => {
  const [alice, bob, eve] = [await person(), await person(), await person()];
  const chat = await alice.contact(bob);
  await assert.rejects(eve.api.history(chat), { status: 404, code: 'chat_not_found' });
  assert.equal((await fetch(`http://127.0.0.1:${server.address().port}/chat-token`)).status, 401);
});

test('who signs out everywhere is out, and in again with a new token', async () => {
  const alice = await person();
  const client = new Client({ url, getToken: alice.getToken });
  try {
    await client.start();
    await until(() => client.state.phase === 'live');
    assert.equal((await alice.ask('POST', '/sign-out-everywhere')).status, 204);
    await until(() => client.state.phase === 'token');
    await until(() => alice.api.listChats().then(() => false, ({ code }) => code === 'token_invalid'));
    assert.equal((await alice.ask('POST', '/sign-in', { login: alice.login })).status, 204);
    client.setToken(await alice.getToken());
    await until(() => client.state.phase === 'live');
  } finally {
    client.stop();
  }
});

test('who deletes their account leaves no text', async () => {
  const [alice, bob] = [await person(), await person()];
  const chat = await alice.contact(bob);
  await alice.api.sendMessage(chat, { text: 'my address is …' });
  assert.equal((await alice.ask('DELETE', '/me')).status, 204);
  const { results } = await bob.api.history(chat);
  assert.deepEqual(results.map(({ text }) => text), ['']);
  assert.equal((await bob.api.getChat(chat)).other_user.name, null);
  // The next user of the name is another one.
  await (await person()).ask('POST', '/sign-in', { login: alice.login });
  assert.equal((await alice.ask('GET', '/chat-token')).status, 401);
});

test('the page has what it needs', async () => {
  for (const path of ['/', '/main.js', '/beseda-client/index.js', '/settings']) {
    assert.equal((await fetch(`http://127.0.0.1:${server.address().port}${path}`)).status, 200, path);
  }
});
