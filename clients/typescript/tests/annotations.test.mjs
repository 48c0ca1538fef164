/** Reactions, replies and pins, with a server that the test plays. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { message, page, sleep, until, world } from './fake.mjs';

const thumbs = (...who) => [{ emoji: '👍', count: who.length, user_ids: who }];
const many = Array.from({ length: 20 }, (_, index) => `user-${index}`);

/** Alice with the chat `c` open, of which she has two messages of Bob; calls wait until the test answers them. */
async function opened(answer = () => null, first = {}) {
  const waiting = [];
  const made = world({}, (call) => {
    const given = answer(call);
    if (given) return given;
    if (call.path.includes('/reactions/')) {
      return new Promise((resolve, reject) => { waiting.push({ ...call, emoji: decodeURIComponent(call.path.split('/')[6]), resolve, reject }); });
    }
    return call.path.endsWith('/messages/') && call.method === 'GET'
      ? page(1, 2, { results: [message(1, { my_reactions: [], ...first }), message(2, { my_reactions: [] })] }) : null;
  });
  await made.live();
  const timeline = await made.client.open('c');
  const subscribe = made.socket().of('subscribe').at(-1);
  made.socket().give({
    type: 'subscribed', id: subscribe.id, chat_id: 'c', head_ev: 2, head_seq: 2, epoch: 'e', read_seq: 0, peer_read_seq: 0,
    receipts: [], online: [], online_count: 1,
  });
  made.socket().give({ type: 'synced', chat_id: 'c', ev: 2 });
  const told = (body) => made.socket().give({ type: 'message.updated', chat_id: 'c', ev: body.ev, message: body });
  const seen = () => ({ reactions: timeline.messages[0].reactions, mine: timeline.messages[0].my_reactions });
  return { ...made, timeline, waiting, told, seen };
}

test('a reaction stands there at once, and is the server\'s own once that has it', async () => {
  const { client, timeline, waiting, told, seen } = await opened();
  const done = client.react(timeline.messages[0], '👍');
  assert.deepEqual(seen(), { reactions: thumbs('alice'), mine: ['👍'] });
  await until(() => waiting.length === 1);
  assert.deepEqual([waiting[0].method, waiting[0].emoji], ['PUT', '👍']);
  // What others do meanwhile hides it not.
  told(message(1, { ev: 3, reactions: thumbs('carol') }));
  assert.deepEqual(seen(), { reactions: thumbs('carol', 'alice'), mine: ['👍'] });
  // A frame that has this one and the next may come before its answer.
  told(message(1, { ev: 4, reactions: thumbs('carol', 'alice', 'dave') }));
  waiting[0].resolve({ reactions: thumbs('carol', 'alice') });
  await done;
  assert.deepEqual(seen(), { reactions: thumbs('carol', 'alice', 'dave'), mine: ['👍'] });
  client.stop();
});

test('a reaction that is refused goes again, and its author hears why', async () => {
  const { client, timeline, waiting, seen } = await opened();
  const refused = assert.rejects(client.react(timeline.messages[0], '👍'), { code: 'limit_reached' });
  await until(() => waiting.length === 1);
  waiting[0].resolve(Response.json({ code: 'limit_reached' }, { status: 409 }));
  await refused;
  assert.deepEqual(seen(), { reactions: [], mine: [] });
  client.stop();
});

test('one that is taken back while it is on its way ends as its author left it', async () => {
  const { client, timeline, waiting, seen } = await opened();
  const [first] = timeline.messages;
  const all = [client.react(first, '👍'), client.unreact(first, '👍'), client.react(first, '👍'), client.unreact(first, '👍')];
  assert.deepEqual(seen(), { reactions: [], mine: [] });
  await until(() => waiting.length === 1);
  waiting[0].resolve({ reactions: thumbs('alice') });
  await until(() => waiting.length === 2);
  assert.deepEqual(waiting.map(({ method }) => method), ['PUT', 'DELETE']);
  assert.deepEqual(seen(), { reactions: [], mine: [] });
  waiting[1].resolve({ reactions: [] });
  await Promise.all(all);
  assert.deepEqual(seen(), { reactions: [], mine: [] });
  client.stop();
});

test('one beyond the first twenty is counted once', async () => {
  const { client, timeline, waiting, told, seen } = await opened(undefined, { reactions: [{ emoji: '👍', count: 30, user_ids: many }] });
  const done = client.react(timeline.messages[0], '👍');
  assert.deepEqual([seen().reactions[0].count, seen().mine], [31, ['👍']]);
  await until(() => waiting.length === 1);
  const reactions = [{ emoji: '👍', count: 31, user_ids: many }];
  // The frame comes before the answer.
  told(message(1, { ev: 3, reactions }));
  waiting[0].resolve({ reactions });
  await done;
  assert.deepEqual([seen().reactions[0].count, seen().mine], [31, ['👍']]);
  told(message(1, { ev: 4, reactions: [{ emoji: '👍', count: 32, user_ids: many }] }));
  assert.deepEqual([seen().reactions[0].count, seen().mine], [32, ['👍']]);
  client.stop();
});

test('a message read anew tells of a reaction from another device', async () => {
  const reactions = [{ emoji: '👍', count: 30, user_ids: many }];
  const { client, timeline, seen } = await opened(
    ({ path }) => path.endsWith('/messages/m1/') && message(1, { ev: 3, reactions, my_reactions: ['👍'] }), { reactions });
  assert.deepEqual(seen().mine, []);
  await client.reread(timeline.messages[0]);
  assert.deepEqual(seen().mine, ['👍']);
  client.stop();
});

test('a reaction waits for a connection', async () => {
  const { client, timeline, waiting, sockets, socket, seen } = await opened();
  const count = sockets.length;
  socket().onclose({ code: 1006 });
  const done = client.react(timeline.messages[0], '👍');
  await until(() => waiting.length === 1);
  waiting[0].reject(new TypeError('no network'));
  await until(() => sockets.length > count);
  assert.deepEqual(seen().mine, ['👍'], 'it is still wanted');
  socket().give({ type: 'hello', epoch: 'e', heartbeat_ms: 25000 });
  await until(() => waiting.length === 2);
  waiting[1].resolve({ reactions: thumbs('alice') });
  await done;
  assert.deepEqual(seen(), { reactions: thumbs('alice'), mine: ['👍'] });
  client.stop();
});

test('who stops, or loses the chat, does not wait for ever', async () => {
  for (const end of [(client) => client.stop(), (client) => client.groups.leave('c')]) {
    const { client, timeline, waiting } = await opened(({ method, path }) =>
      method === 'DELETE' && path.includes('/members/') && new Response(null, { status: 204 }));
    const refused = assert.rejects(client.react(timeline.messages[0], '👍'));
    await until(() => waiting.length === 1);
    await end(client);
    await refused;
    client.stop();
  }
});

test('pins are read once, and follow what frames tell', async () => {
  let reads = 0;
  let answer;
  const { client, timeline, told, socket } = await opened(({ path, method }) => {
    if (!path.endsWith('/pins/') || method !== 'GET') return null;
    reads += 1;
    return new Promise((resolve) => { answer = resolve; });
  });
  assert.equal(timeline.pins, null);
  const loading = client.loadPins(timeline);
  await until(() => reads === 1);
  // Overtakes the answer.
  told(message(2, { ev: 3, pinned_at: '2026-01-03T00:00:00Z' }));
  answer({ results: [message(1, { ev: 2, pinned_at: '2026-01-02T00:00:00Z' })], next: null });
  await loading;
  const seqs = () => timeline.pins.map(({ seq }) => seq);
  assert.deepEqual(seqs(), [2, 1]);
  told(message(1, { ev: 4, pinned_at: '2026-01-02T00:00:00Z', text: 'edited' }));
  assert.deepEqual(timeline.pins.map(({ text }) => text), ['t2', 'edited']);
  told(message(2, { ev: 5 }));
  assert.deepEqual(seqs(), [1]);
  socket().give({ type: 'message.deleted', chat_id: 'c', ev: 6, message_id: 'm1', seq: 1, deleted_at: '2026-01-04T00:00:00Z' });
  assert.deepEqual(seqs(), []);
  assert.equal(reads, 1);
  client.stop();
});

test('pins are read anew where the history is', async () => {
  let reads = 0;
  const { client, timeline, socket } = await opened(({ path }) => {
    if (!path.endsWith('/pins/')) return null;
    reads += 1;
    return { results: reads === 1 ? [message(1, { pinned_at: '2026-01-02T00:00:00Z' })] : [], next: null };
  });
  await client.loadPins(timeline);
  assert.equal(timeline.pins.length, 1);
  socket().give({ type: 'reset', chat_id: 'c', head_ev: 90, epoch: 'e', reason: 'too_far' });
  await until(() => reads === 2);
  await until(() => timeline.pins.length === 0);
  client.stop();
});

test('a reply shows what it answers while it is on its way, as that is now', async () => {
  let answer;
  const { client, timeline, posts, told } = await opened(({ method, path }) =>
    (method === 'POST' && path.endsWith('/messages/') ? new Promise((resolve) => { answer = resolve; }) : null));
  const pending = client.send('c', 'yes', { replyTo: timeline.messages[0] });
  assert.deepEqual(pending.reply_to, { message_id: 'm1', seq: 1, sender_id: 'bob', text: 't1', deleted: false });
  told(message(1, { ev: 3, text: 'edited' }));
  assert.equal(timeline.pending[0].reply_to.text, 'edited');
  await until(() => posts().length === 1);
  assert.equal(posts()[0].body.reply_to, 'm1');
  answer(message(3, { ev: 4, sender_id: 'alice', client_msg_id: pending.client_msg_id, reply_to: pending.reply_to }));
  await until(() => timeline.pending.length === 0);
  assert.equal(timeline.messages.at(-1).reply_to.text, 'edited');
  client.stop();
});
