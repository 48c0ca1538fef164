/** Things break: answers are lost, Redis forgets or hangs, replicas end. No message is lost or doubled. */
import assert from 'node:assert/strict';
import { Replica, Way } from '../../../clients/typescript/tests/world.mjs';
import { act, happened, make, memberOf, mention } from './gather.mjs';
import { REFUSED, until } from './person.mjs';

/** Two people in one chat, on two replicas. */
async function together(meet, options = {}) {
  const alice = meet('Alice', options);
  const bob = meet('Bob');
  for (const person of [alice, bob]) {
    person.expected.push(REFUSED);
    await person.arrive();
  }
  await alice.openWith(bob.id);
  await bob.pick('Alice');
  await alice.write('before');
  await bob.sees('before');
  return { alice, bob };
}

export async function a_message_that_failed_is_sent_on_request({ meet }) {
  const { alice, bob } = await together(meet);
  await alice.page.route('**/messages/', (route) => route.abort());
  await alice.write('again');
  await alice.write('never mind');
  await alice.isTicked('never mind', 'failed');
  await alice.isTicked('again', 'failed');
  await alice.row('never mind').locator('.trouble button').nth(1).click();
  await alice.page.unroute('**/messages/');
  await alice.row('again').locator('.trouble button').first().click();
  await alice.isTicked('again', 'read');
  await alice.seesExactly(['before', 'again']);
  await bob.seesExactly(['before', 'again']);
}

export async function a_message_that_is_refused_says_why({ meet }) {
  const { alice, bob } = await together(meet);
  await bob.call('PUT', `users/${alice.id}/block/`);
  await alice.write('unwelcome');
  await alice.isTicked('unwelcome', 'failed');
  await alice.reads('.trouble span', 'Not sent. One of you has blocked the other.');
  await bob.call('DELETE', `users/${alice.id}/block/`);
  await alice.row('unwelcome').locator('.trouble button').first().click();
  await bob.seesExactly(['before', 'unwelcome']);
}

export async function a_message_whose_answer_was_lost_is_stored_once({ meet }) {
  const { alice, bob } = await together(meet);
  let lost = 0;
  await alice.page.route('**/messages/', async (route) => {
    if (lost++ > 1) return route.continue();
    await route.fetch();
    return route.abort();
  });
  await alice.write('once');
  await bob.sees('once');
  await until('the retry', () => lost > 2);
  await alice.isTicked('once', 'read');
  await alice.write('after');
  for (const person of [alice, bob]) await person.seesExactly(['before', 'once', 'after']);
}

export async function redis_may_forget_everything({ meet, stack }) {
  const { alice, bob } = await together(meet);
  await bob.lookAway();
  await alice.write('counted');
  await bob.reads('.chat-entry .badge [aria-hidden]', '1');
  await stack.toRedis('FLUSHALL');
  await alice.write('counted too');
  await bob.sees('counted too');
  await bob.reads('.chat-entry .badge [aria-hidden]', '2');
  await bob.page.reload();
  await until('the count', async () => (await bob.call('GET', 'chats/unread/')).total === 0);
  await bob.write('still here');
  await alice.seesExactly(['before', 'counted', 'counted too', 'still here']);
  await alice.reads('#chat-status', 'online');
}

export async function talk_goes_on_while_redis_hangs({ meet, stack }) {
  const { alice, bob } = await together(meet);
  stack.pauseRedis();
  try {
    await alice.write('without Redis');
    await bob.sees('without Redis');
    await alice.isTicked('without Redis', 'read');
    await bob.write('indeed');
    await alice.sees('indeed');
  } finally {
    stack.resumeRedis();
  }
  await alice.write('with it');
  await bob.seesExactly(['before', 'without Redis', 'indeed', 'with it']);
  await alice.seesExactly(['before', 'without Redis', 'indeed', 'with it']);
}

/** Both replicas end, in order or not, and come again on the same data. */
async function outage({ meet, stack }, signal) {
  const { alice, bob } = await together(meet);
  await stack.stop(signal);
  await bob.is('waiting', '#link-dot[data-phase=waiting]');
  await alice.write('into the void');
  await alice.isTicked('into the void', 'sending');
  await stack.startAgain();
  await alice.isTicked('into the void', 'read');
  await bob.write('and back');
  await alice.sees('and back');
  for (const person of [alice, bob]) {
    await person.seesExactly(['before', 'into the void', 'and back']);
    await person.is('online', '#link-dot[data-phase=live]');
    await person.reads('#chat-status', 'online');
  }
}

export const replicas_may_restart = (world) => outage(world, 'SIGTERM');

export const replicas_may_be_killed = (world) => outage(world, 'SIGKILL');

/** One of three replicas goes, and Redis forgets, in the middle of talking; the balancer leads elsewhere. */
export async function a_replica_is_killed_and_redis_flushed_while_they_talk({ meet, stack }) {
  const replica = await Replica.start(stack, 'killed');
  const way = await Way.to(replica.port);
  try {
    const { alice, bob } = await together(meet, { way });
    const said = ['before'];
    for (let number = 1; number <= 12; number += 1) {
      const speaker = number % 2 ? alice : bob;
      said.push(`word ${number}`);
      await speaker.write(said.at(-1));
      await speaker.sees(said.at(-1));
      if (number === 4) {
        await replica.stop('SIGKILL');
        way.lead(stack.port(1));
      }
      if (number === 8) await stack.toRedis('FLUSHALL');
    }
    for (const person of [alice, bob]) {
      await until('all of it', async () => (await person.texts()).length === said.length);
      assert.deepEqual((await person.texts()).toSorted(), said.toSorted(), 'nothing is missing, nothing twice');
    }
    assert.deepEqual(await alice.texts(), await bob.texts(), 'in one order');
    await alice.isTicked('word 11', 'read');
    await alice.is('online', '#link-dot[data-phase=live]');
    await alice.leave();
  } finally {
    way.close();
    await replica.stop();
  }
}

/**
 * A group on two replicas: one of them is killed, and Redis forgets, in the middle of talking. Alice and Carol
 * were on that one, and Dave, who is removed meanwhile; Erin is added meanwhile.
 */
export async function a_group_talks_on_while_a_replica_is_killed_and_redis_flushed({ meet, stack }) {
  const replica = await Replica.start(stack, 'killed-group');
  const way = await Way.to(replica.port);
  try {
    const [alice, carol, dave] = ['Alice', 'Carol', 'Dave'].map((name) => meet(name, { way }));
    const [bob, erin] = ['Bob', 'Erin'].map((name) => meet(name, { replica: 1 }));
    for (const person of [alice, bob, carol, dave, erin]) {
      person.expected.push(REFUSED);
      await person.arrive();
    }
    await make(bob, 'Crew', [alice, carol, dave]);
    for (const person of [alice, carol, dave]) await person.pick('Crew');
    const said = [];
    /** All at once, so that their order is the server's to make. */
    const round = async (number, ...speakers) => {
      const texts = speakers.map(({ name }) => `${name} says ${number}`);
      said.push(...texts);
      await Promise.all(speakers.map((person, index) => person.write(texts[index])));
      for (const [index, person] of speakers.entries()) await person.sees(texts[index]);
    };
    const address = async (speaker, text) => {
      said.push(`${text} @Carol `);
      await mention(speaker, 'Carol', text);
    };

    await round(1, alice, bob, carol);
    await until('all of it for Dave', async () => (await dave.texts()).length === said.length);
    await until('nothing unread', async () => (await carol.call('GET', 'chats/unread/')).total === 0);
    await carol.lookAway();
    const before = said.length;
    await address(bob, 'Are you there,');

    await replica.stop('SIGKILL');
    way.lead(null);
    await stack.toRedis('FLUSHALL');
    for (const person of [alice, carol, dave]) await person.is('waiting', '#link-dot[data-phase=waiting]');
    await round(2, bob, alice);
    await alice.isTicked('Alice says 2', 'sending');
    await bob.$('#details-open').click();
    await act(bob, 'Dave', 'Remove');
    await bob.$('#confirm-yes').click();
    await memberOf(bob, 'Dave').waitFor({ state: 'detached' });
    await bob.page.fill('#add-input', erin.id);
    await bob.page.press('#add-input', 'Enter');
    await bob.reads('#details-status', '1 person added');
    await bob.$('#details-close').click();
    await bob.choose('Bob says 1', 'Edit');
    await bob.write('Bob said 1');
    await bob.sees('Bob said 1');
    said[said.indexOf('Bob says 1')] = 'Bob said 1';
    await address(bob, 'Still not,');
    await erin.reads('.chat-entry .badge .sr', '1 unread message');

    way.lead(stack.port(0));
    await dave.reads('.toast', 'You are not in this chat any more.');
    await dave.is('no chat', '#no-chats');
    for (const person of [alice, carol]) await person.is('online', '#link-dot[data-phase=live]');
    await stack.toRedis('FLUSHALL');
    await erin.pick('Crew');
    await round(3, alice, bob, erin);
    await address(erin, 'And now,');
    await round(4, alice, bob, erin);
    await alice.isTicked('Alice says 2', 'read');

    // Nothing lost or twice, in the server's order.
    const here = [alice, bob, carol, erin];
    const { chat_id: chat } = (await bob.call('GET', 'chats/')).results[0];
    const order = await until('all of it on the server', async () => {
      const { results } = await bob.call('GET', `chats/${chat}/messages/?limit=100`);
      const texts = results.filter(({ type }) => type === 'text').map(({ text }) => text);
      return texts.length >= said.length && texts;
    });
    assert.deepEqual(order.toSorted(), said.toSorted(), 'what was said');
    for (const person of here) await person.seesExactly(order);

    // Counters: of Carol all that others said since she looked away, of the others nothing.
    const missed = said.length - before;
    await until('her counters', async () => JSON.stringify(await carol.$('.chat-entry .badge .sr').allTextContents())
      === JSON.stringify(['3 mentions of you', `${missed} unread messages`]));
    assert.equal(await carol.page.title(), `(${missed}) Beseda`);
    const { total, total_mentions: mentions } = await carol.call('GET', 'chats/unread/');
    assert.deepEqual({ total, mentions }, { total: missed, mentions: 3 });
    for (const person of [alice, bob, erin]) {
      await until(`nothing unread for ${person.id}`, async () => await person.$('.chat-entry .badge').count() === 0
        && (await person.call('GET', 'chats/unread/')).total === 0);
    }
    await carol.lookBack();
    await until('she has read it', async () => await carol.$('.chat-entry .badge').count() === 0);
    await until('read by all', async () => /read by 3/.test(await alice.row('Alice says 4').locator('.tick').textContent()));

    // Members: the same for all.
    for (const person of here) {
      await person.reads('#chat-status', '4 members');
      // Erin came after he left: nobody tells her his name.
      await happened(person, `${person === bob ? 'You' : 'Bob'} removed ${person === erin ? dave.id : 'Dave'}`);
      await person.$('#details-open').click();
      await until('the members', async () => JSON.stringify((await person.$('#member-list .chat-name').allTextContents()).toSorted())
        === JSON.stringify(['Alice', 'Bob', 'Carol', 'Erin']));
      await person.$('#details-close').click();
    }
    for (const person of [...here, dave]) await person.leave();
  } finally {
    way.close();
    await replica.stop();
  }
}

export async function a_token_is_renewed_in_place({ meet, stack }) {
  const alice = meet('Alice');
  const bob = meet('Bob');
  const chat = await bob.chatWith(alice.id);
  await bob.say(chat, 'before');
  // The notice comes when a third of it is left.
  alice.token = stack.token(alice.id, 'Alice', 24);
  await alice.arrive();
  await alice.pick('Bob');
  await alice.page.fill('#draft', 'half a thought');
  await alice.reads('.toast span', /expires within a minute/);
  await alice.$('.toast button').click();
  await alice.page.fill('#token-input', stack.token(alice.id, 'Alice'));
  await alice.$('#token-form button').click();
  await alice.is('the chat', '#chat');
  await alice.is('online', '#link-dot[data-phase=live]');
  assert.equal(await alice.page.inputValue('#draft'), 'half a thought');
  await bob.say(chat, 'after');
  await alice.seesExactly(['before', 'after']);
}

export async function an_expired_token_asks_for_another_one({ meet, stack }) {
  const alice = meet('Alice');
  alice.expected.push(REFUSED);
  await alice.arrive({ token: null });
  await alice.page.fill('#token-input', stack.token(alice.id, 'Alice', -60));
  await alice.$('#token-form button').click();
  await alice.reads('#token-error', /expired/);
  await alice.page.fill('#token-input', alice.token);
  await alice.$('#token-form button').click();
  await alice.is('online', '#link-dot[data-phase=live]');
}
