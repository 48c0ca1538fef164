import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { Api } from '../src/api.js';
import { Credentials, readClaims } from '../src/token.js';

const token = (claims) => `e30.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.sig`;

/** A server that takes some tokens; it remembers what was asked with which. */
function server(good) {
  const asked = [];
  const fetch = async (url, { headers }) => {
    const sent = headers.Authorization?.slice('Bearer '.length) ?? null;
    asked.push(sent);
    return good.includes(sent)
      ? new Response('{"total":0,"chats":[]}')
      : new Response('{"code":"token_expired","detail":"expired"}', { status: 401 });
  };
  return { asked, fetch };
}

test('claims are read from a token, and nothing else passes for one', () => {
  assert.equal(readClaims(token({ sub: 'алиса', name: 'Алиса ✓' })).sub, 'алиса');
  for (const bad of ['', 'a.b', 'a.b.c', token({}), token({ sub: '' }), token({ sub: 5 }), token(null)]) {
    assert.equal(readClaims(bad), null);
  }
});

test('calls that meet an old token together ask for one new token, and are made once more', async () => {
  const reasons = [];
  const credentials = new Credentials({ token: 'old', getToken: async (reason) => { reasons.push(reason); return 'new'; } });
  const { asked, fetch } = server(['new']);
  const api = new Api({ url: 'http://x', credentials, fetch });
  await Promise.all([api.unread(), api.unread(), api.unread()]);
  assert.deepEqual(reasons, ['token_expired']);
  assert.deepEqual(asked, ['old', 'old', 'old', 'new', 'new', 'new']);
});

test('the first call asks for the first token', async () => {
  const reasons = [];
  const credentials = new Credentials({ getToken: (reason) => { reasons.push(reason); return 'new'; } });
  const { asked, fetch } = server(['new']);
  await new Api({ url: 'http://x', credentials, fetch }).unread();
  assert.deepEqual([reasons, asked], [['start'], ['new']]);
});

test('where no token does, it is told; where the host application is away, it is temporary', async () => {
  const told = [];
  const { fetch } = server([]);
  const make = (getToken) => new Api({
    url: 'http://x', credentials: new Credentials({ token: 'old', getToken }), fetch, onUnauthenticated: ({ code }) => told.push(code),
  });
  await assert.rejects(make(null).unread(), { status: 401 });
  await assert.rejects(make(() => null).unread(), { status: 401 });
  await assert.rejects(make(() => 'also old').unread(), { status: 401 });
  assert.deepEqual(told, ['token_expired', 'token_expired', 'token_expired']);
  await assert.rejects(make(() => { throw new Error('no network'); }).unread(), { status: 0, temporary: true });
  assert.equal(told.length, 3);
});

test('a path is filled in, a query leaves out what is not given', async () => {
  let seen = '';
  const fetch = async (url) => { seen = String(url); return new Response('{}'); };
  const api = new Api({ url: 'https://chat.example/base', credentials: new Credentials({ token: 't' }), fetch });
  await api.history('a/b?c', { before: undefined, limit: 5 });
  assert.equal(seen, 'https://chat.example/base/api/v1/chats/a%2Fb%3Fc/messages/?limit=5');
});

test('a question for a token that is never answered ends, and is asked anew', async () => {
  mock.timers.enable({ apis: ['setTimeout'] });
  let asked = 0;
  const credentials = new Credentials({ getToken: () => { asked += 1; return asked === 1 ? new Promise(() => {}) : 'new'; } });
  const first = credentials.current();
  mock.timers.tick(15_000);
  await assert.rejects(Promise.race([first, new Promise((resolve) => { setImmediate(resolve); })]), /too long/);
  assert.equal(await credentials.current(), 'new');
  mock.timers.reset();
});

/** Calls ten times a second for so long, by a clock of the test's; how often getToken was asked for it. */
async function asked(getToken, ms, { fetch = server([]).fetch } = {}) {
  mock.timers.reset();
  mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  let count = 0;
  const credentials = new Credentials({ token: 'old', getToken: () => { count += 1; return getToken(count); } });
  const api = new Api({ url: 'http://x', credentials, fetch });
  for (let passed = 0; passed < ms; passed += 100) {
    await api.unread().catch(() => {});
    mock.timers.tick(100);
  }
  return { count, credentials, api };
}

test('a host application that has no token, is away, or gives dead ones is asked ever less often', async () => {
  const minute = 60_000;
  // At 0, 0.1, 1.1, 3, 7, 15 and 31 s.
  assert.equal((await asked(() => null, minute)).count, 7);
  assert.equal((await asked(() => { throw new Error('away'); }, minute)).count, 7);
  assert.equal((await asked((count) => `dead ${count}`, minute)).count, 7);
});

test('what it answered in vain stands until it is asked again, and a wake asks at once', async () => {
  let answer = () => { throw new Error('away'); };
  const { credentials, api } = await asked(() => answer(), 5_000, { fetch: server(['new']).fetch });
  answer = () => 'new';
  await assert.rejects(api.unread(), { status: 0, message: 'away' });
  credentials.wake();
  await api.unread();
  assert.equal(credentials.token, 'new');
});

test('tokens that the server takes are asked for as soon as one has ended, however short they live', async () => {
  const fetch = async (url, { headers }) => (Date.now() - Number(headers.Authorization.slice('Bearer '.length)) < 500
    ? new Response('{"total":0,"chats":[]}')
    : new Response('{"code":"token_expired","detail":"expired"}', { status: 401 }));
  assert.equal((await asked(() => String(Date.now()), 10_000, { fetch })).count, 20);
});
