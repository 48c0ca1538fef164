/** The client against real replicas that are killed, drained and cut. Nothing is lost, doubled, or out of order. */
import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from '../../src/index.js';
import { Stack } from '../stack.mjs';
import { Replica, until, Way } from '../world.mjs';

const root = fileURLToPath(new URL('../../../../', import.meta.url));
const stack = new Stack(process.env.BESEDA ?? `${root}target/debug/beseda`, `${process.env.CLIENT_TEST_DIR ?? `${root}target/client-test`}`);
let people = 0;

before(() => stack.start());
after(() => stack.remove());

/** Somebody new. @param {object} [options] of the client */
function somebody(name, options = {}) {
  const id = `${name}-${people += 1}`;
  const client = new Client({ url: stack.urls[0], getToken: () => stack.token(id, name), ...options });
  return Object.assign(client, { id, phases: [] });
}

/** Alice comes by the way, Bob straight to replica A; they have a chat that both have opened. */
async function together(way, options = {}) {
  const bob = somebody('bob');
  await bob.start();
  const aliceId = `alice-${people += 1}`;
  const chat = await bob.openWith(aliceId);
  const alice = new Client({
    url: way.url, getToken: () => stack.token(aliceId, 'alice'), ...(options.single ? { chat } : {}),
  });
  const phases = [];
  alice.on('state', () => phases.push(alice.state.phase));
  await alice.start();
  const [seen, there] = [await alice.open(chat), await bob.open(chat)];
  await until('both are live', () => seen.synced && there.synced);
  return { alice, bob, chat, seen, there, phases };
}

const texts = (timeline) => timeline.messages.map(({ text }) => text);
const numbered = (who, count) => Array.from({ length: count }, (_, index) => `${who} ${index + 1}`);

/** Both talk while something happens; in the end both have all of it, in the same order, once. */
async function talkDuring({ alice, bob, chat, seen, there }, what, count = 40) {
  const said = [numbered('alice', count), numbered('bob', count)];
  const talk = (async () => {
    for (let index = 0; index < count; index += 1) {
      alice.send(chat, said[0][index]);
      bob.send(chat, said[1][index]);
      await sleep(25);
    }
  })();
  await Promise.all([what(), talk]);
  await until('everything has arrived', () => [seen, there].every((timeline) =>
    timeline.pending.length === 0 && timeline.messages.length === 2 * count), 60_000)
    .catch(() => assert.fail(`${texts(seen).length} and ${texts(there).length} of ${2 * count}, `
      + `${seen.pending.length} and ${there.pending.length} on their way, alice is ${alice.state.phase}`));
  assert.deepEqual(texts(seen), texts(there));
  assert.deepEqual(seen.messages.map(({ seq }) => seq), Array.from({ length: 2 * count }, (_, index) => index + 1));
  for (const [index, who] of ['alice', 'bob'].entries()) {
    assert.deepEqual(texts(seen).filter((text) => text.startsWith(who)), said[index], `${who}'s own order`);
  }
}

async function meet(t, options) {
  const way = await Way.to(stack.port(1));
  const world = await together(way, options);
  t.after(() => { world.alice.stop(); world.bob.stop(); way.close(); });
  return { ...world, way };
}

for (const single of [false, true]) {
  const kind = single ? "a chat's own socket" : 'the many-chats socket';

  test(`a replica is killed under ${kind}`, async (t) => {
    const replica = await Replica.start(stack, `killed-${single}`);
    t.after(() => replica.stop());
    const way = await Way.to(replica.port);
    const world = await together(way, { single });
    t.after(() => { world.alice.stop(); world.bob.stop(); way.close(); });
    await talkDuring(world, async () => {
      await sleep(300);
      await replica.stop('SIGKILL');
      way.lead(stack.port(1));
    });
    await until('the return', () => world.phases.at(-1) === 'live');
  });

  test(`the line of ${kind} is cut again and again`, async (t) => {
    const world = await meet(t, { single });
    await talkDuring(world, async () => {
      for (let time = 0; time < 5; time += 1) {
        await sleep(150);
        world.way.lead(stack.port(time % 2));
      }
    });
    assert.ok(world.phases.filter((phase) => phase === 'live').length >= 2, world.phases.join());
  });
}

test('a draining replica says when to come back, and nobody misses a word', async (t) => {
  const replica = await Replica.start(stack, 'drained');
  t.after(() => replica.stop());
  const way = await Way.to(replica.port);
  const world = await together(way);
  t.after(() => { world.alice.stop(); world.bob.stop(); way.close(); });
  await talkDuring(world, async () => {
    await sleep(300);
    // As a balancer does: no new connection goes there, the old ones stay.
    way.target = stack.port(1);
    await replica.stop('SIGTERM');
  });
  // The last word may have come before the leave was taken.
  await until('the leave', () => world.phases.includes('waiting'));
  await until('the return', () => world.alice.state.phase === 'live');
});

test('Redis forgets everything while they talk', async (t) => {
  const world = await meet(t);
  await talkDuring(world, async () => {
    await sleep(300);
    await stack.toRedis('FLUSHALL');
  });
  const { total } = await world.alice.api.unread();
  assert.equal(total, 40);
  await until('the badge', () => world.alice.chats.totalUnread === 40);
});

test('what is written without a network waits, and arrives in order once it is back', async (t) => {
  const { alice, chat, seen, there, way } = await meet(t);
  way.lead(null);
  await until('waiting', () => alice.state.phase === 'waiting');
  const said = numbered('alice', 5);
  for (const text of said) alice.send(chat, text);
  await sleep(4000);
  assert.deepEqual(seen.pending.map(({ text, failed }) => [text, failed]), said.map((text) => [text, false]));
  way.target = stack.port(0);
  alice.wake();
  await until('they are there', () => texts(there).length === 5 && seen.pending.length === 0);
  assert.deepEqual(texts(there), said);
  assert.deepEqual(texts(seen), said);
});

test('a line that went silent is noticed, and given up', async (t) => {
  const { alice, bob, chat, seen, way } = await meet(t);
  way.silent = true;
  bob.send(chat, 'into the silence');
  // As a page that was asleep: its first look is at the line.
  alice.wake();
  await until('it is given up', () => alice.state.phase !== 'live');
  way.silent = false;
  way.cut();
  await until('the message', () => texts(seen).includes('into the silence'));
});

test('edits, deletions and marks made meanwhile are there after a resume', async (t) => {
  const { alice, bob, chat, seen, there, way } = await meet(t);
  for (const text of ['one', 'two', 'three']) bob.send(chat, text);
  await until('all three', () => seen.messages.length === 3 && there.pending.length === 0);
  way.lead(null);
  await until('away', () => alice.state.phase === 'waiting');
  const [one, two] = there.messages;
  await bob.edit(one, 'one, corrected');
  await bob.remove(two);
  const { message_id: never } = await bob.api.sendMessage(chat, { text: 'never seen' });
  await bob.api.deleteMessage(chat, never);
  await bob.markRead(there);
  way.target = stack.port(0);
  alice.wake();
  await until('the same everywhere', () => seen.position.ev === there.position.ev && seen.synced);
  assert.deepEqual(texts(seen), ['one, corrected', '', 'three', '']);
  assert.deepEqual(seen.messages.map(({ deleted_at: at }) => Boolean(at)), [false, true, false, true]);
});

test('a deleted chat is gone, and its client stops', async (t) => {
  const { alice, bob, chat } = await meet(t, { single: true });
  const gone = new Promise((resolve) => { alice.on('gone', resolve); });
  await bob.deleteChat(chat);
  assert.deepEqual(await gone, { chatId: chat, reason: 'deleted' });
  await until('stopped', () => ['stopped', 'idle'].includes(alice.state.phase));
});

test('the badge follows a chat that the other one deletes, without a question', async (t) => {
  const [bob, carol] = [somebody('bob'), somebody('carol')];
  const calls = [];
  const aliceId = `alice-${people += 1}`;
  const alice = new Client({
    url: stack.urls[1],
    getToken: () => stack.token(aliceId, 'alice'),
    fetch: (url, options) => { calls.push(String(url)); return fetch(url, options); },
  });
  t.after(() => { for (const client of [alice, bob, carol]) client.stop(); });
  const chats = [];
  for (const client of [bob, carol]) {
    const chat = await client.openWith(aliceId);
    for (const text of ['one', 'two']) await client.api.sendMessage(chat, { text });
    chats.push(chat);
  }
  await alice.start();
  await until('live', () => alice.state.phase === 'live' && alice.chats.totalUnread === 4 && alice.chats.epoch);
  await sleep(500);
  const before = calls.length;
  await bob.deleteChat(chats[0]);
  await until('the badge', () => alice.chats.totalUnread === 2);
  assert.deepEqual(alice.chats.list().map(({ chat_id: id }) => id), [chats[1]]);
  assert.equal(calls.length, before, calls.slice(before).join());
});

test('a group changes while one of it is away, who then knows what the others know', async (t) => {
  const way = await Way.to(stack.port(1));
  const [alice, bob, carol, dave] = ['alice', 'bob', 'carol', 'dave']
    .map((name) => somebody(name, name === 'alice' ? { url: way.url } : {}));
  t.after(() => { for (const client of [alice, bob, carol, dave]) client.stop(); way.close(); });
  await Promise.all([alice, bob, carol, dave].map((client) => client.start()));
  const chat = await bob.groups.create({ title: 'Rocks', user_ids: [alice.id, carol.id] });
  const [seen, there, hers] = await Promise.all([alice, bob, carol].map((client) => client.open(chat)));
  await until('all are live', () => [seen, there, hers].every((timeline) => timeline.synced));
  const gone = new Promise((resolve) => { carol.on('gone', resolve); });

  way.lead(null);
  await until('she is away', () => alice.state.phase !== 'live');
  bob.send(chat, 'at nine, @alice?', { mentions: [alice.id] });
  await until('carol sees it', () => texts(hers).includes('at nine, @alice?'));
  await carol.markRead(hers);
  await bob.groups.change(chat, { title: 'High rocks' });
  await bob.api.addMembers(chat, [dave.id]);
  await bob.api.changeMember(chat, alice.id, { role: 'admin' });
  await until('dave has it', () => dave.chats.get(chat)?.title === 'High rocks');
  await bob.api.removeMember(chat, carol.id);
  assert.deepEqual(await gone, { chatId: chat, reason: 'removed' });
  dave.send(chat, 'count me in');

  way.lead(stack.port(1));
  alice.wake();
  await until('the same everywhere', () => seen.synced && there.synced && seen.position.ev === there.position.ev
    && texts(seen).at(-1) === 'count me in');
  assert.deepEqual(texts(seen), texts(there));
  assert.deepEqual(seen.messages.filter(({ type }) => type === 'system').map(({ system }) => system.event),
    ['chat.changed', 'member.joined', 'member.removed']);
  await until('the list', () => alice.chats.get(chat).unread_count === 2);
  const { title, role, member_count: count, unread_mentions: mentions } = alice.chats.get(chat);
  assert.deepEqual({ title, role, count, mentions }, { title: 'High rocks', role: 'admin', count: 3, mentions: 1 });
  assert.equal(alice.chats.totalMentions, 1);
  await alice.markRead(seen);
  await until('bob is told', () => there.receipts.get(alice.id) === seen.highSeq);
  assert.deepEqual([alice.chats.get(chat).unread_count, alice.chats.badge], [0, 0]);
});
