/** What messages carry, against real replicas, over a line that breaks. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { after, before, test } from 'node:test';
import { Client } from '../../src/index.js';
import { Stack } from '../stack.mjs';
import { until, Way } from '../world.mjs';

const root = fileURLToPath(new URL('../../../../', import.meta.url));
const stack = new Stack(process.env.BESEDA ?? `${root}target/debug/beseda`, `${process.env.CLIENT_TEST_DIR ?? `${root}target/client-test`}`);
/** Long enough that it breaks off while it is on its way. */
const LARGE = 48_000_000;

before(() => stack.start());
after(() => stack.remove());

/** Alice on replica B, by a way that can be cut; Bob on replica A. */
async function together(t, name) {
  const way = await Way.to(stack.port(1));
  const asked = [];
  const [aliceId, bobId] = [`alice-${name}`, `bob-${name}`];
  const alice = new Client({
    url: way.url,
    getToken: () => stack.token(aliceId, 'Alice'),
    fetch: (url, options) => {
      asked.push([options.method, new URL(url).pathname, options.headers?.['Content-Range']]);
      return fetch(url, options);
    },
  });
  const bob = new Client({ url: stack.urls[0], getToken: () => stack.token(bobId, 'Bob') });
  t.after(() => { alice.stop(); bob.stop(); way.close(); });
  await Promise.all([alice.start(), bob.start()]);
  const chat = await bob.openWith(aliceId);
  const [seen, there] = [await alice.open(chat), await bob.open(chat)];
  await until('both are live', () => seen.synced && there.synced);
  return { alice, bob, aliceId, bobId, chat, seen, there, way, asked };
}

test('reactions, quotes and pins reach the other replica, and survive a cut', async (t) => {
  const { alice, bob, aliceId, bobId, chat, seen, there, way } = await together(t, 'carried');
  bob.send(chat, 'hello');
  await until('hello', () => seen.messages.length === 1);
  await alice.react(seen.messages[0], '👍');
  await until('the reaction', () => there.messages[0].reactions.length === 1);
  assert.deepEqual(there.messages[0].reactions, [{ emoji: '👍', count: 1, user_ids: [aliceId] }]);
  await bob.react(there.messages[0], '❤');
  await until('both', () => seen.messages[0].reactions.length === 2);
  // The server writes it with its variation selector.
  assert.deepEqual([there.messages[0].my_reactions, seen.messages[0].my_reactions], [['❤️'], ['👍']]);

  way.target = null;
  way.cut();
  const done = [alice.unreact(seen.messages[0], '👍'), alice.react(seen.messages[0], '🎉')];
  alice.send(chat, 'hello yourself', { replyTo: seen.messages[0] });
  assert.deepEqual(seen.messages[0].my_reactions, ['🎉']);
  await bob.edit(there.messages[0], 'hello, Alice');
  await bob.react(there.messages[0], '🔥');
  way.lead(stack.port(1));
  await Promise.all(done);
  await until('the reply', () => there.messages.length === 2 && there.messages[1].reply_to?.text === 'hello, Alice');
  await until('all of it', () => [seen, there].every(({ messages: [first] }) =>
    JSON.stringify(first.reactions.map(({ emoji, user_ids: [who] }) => [emoji, who])) === JSON.stringify([['❤️', bobId], ['🔥', bobId], ['🎉', aliceId]])));
  assert.deepEqual([seen.messages[0].my_reactions, there.messages[0].my_reactions], [['🎉'], ['❤️', '🔥']]);
  await until('the quote', () => seen.messages[1]?.reply_to?.text === 'hello, Alice');

  await Promise.all([alice.loadPins(seen), bob.loadPins(there)]);
  await alice.pin(seen.messages[0]);
  await until('the pin', () => there.pins.length === 1 && seen.pins.length === 1);
  assert.equal(there.pins[0].text, 'hello, Alice');
  await bob.remove(there.messages[0]);
  await until('nothing of it', () => [seen, there].every(({ pins, messages: [first, second] }) =>
    pins.length === 0 && first.reactions.length === 0 && second.reply_to.deleted));
});

test('an upload that breaks off goes on where it was, on another replica', async (t) => {
  const { alice, bob, chat, there, way, asked } = await together(t, 'upload');
  const bytes = randomBytes(LARGE);
  const begun = way.passed;
  const upload = alice.upload(chat, new Blob([bytes]), { name: 'large.bin' });
  const pending = alice.send(chat, 'as promised', { attachments: [upload] });
  await until('a good part of it', () => way.passed - begun > LARGE / 4);
  way.lead(stack.port(0));
  await until('all of it', () => there.messages.length === 1, 60_000);
  assert.deepEqual([upload.phase, pending.failed], ['done', false]);
  const puts = asked.filter(([method]) => method === 'PUT');
  assert.ok(puts.length >= 2, 'it broke off');
  assert.match(puts.at(-1)[2], /^bytes [1-9]\d*-47999999\/48000000$/);
  assert.equal(asked.filter(([method, path]) => method === 'POST' && path.endsWith('/attachments/')).length, 1);
  const [{ attachments: [attachment] }] = there.messages;
  assert.deepEqual([attachment.name, attachment.size, attachment.status], ['large.bin', LARGE, 'ready']);
  const { url } = await bob.api.linkAttachment(chat, attachment.attachment_id);
  const answer = await fetch(url);
  assert.equal(Buffer.compare(Buffer.from(await answer.arrayBuffer()), bytes), 0);
});

test('what the server refuses is told, and what is given up is not sent', async (t) => {
  const { alice, chat, seen } = await together(t, 'refused');
  const lie = alice.upload(chat, new Blob(['no picture at all']), { name: 'a.png', contentType: 'image/png' });
  const pending = alice.send(chat, '', { attachments: [lie] });
  await until('the refusal', () => pending.failed);
  assert.deepEqual([lie.phase, pending.error.status], ['failed', 422]);
  alice.discard(chat, pending);
  assert.deepEqual([seen.pending, lie.phase], [[], 'aborted']);
});
