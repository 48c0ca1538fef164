/** Reactions, replies, pins, mentions and the search over all chats, by people on two replicas. */
import assert from 'node:assert/strict';
import { meeting, mention, NARROW } from './gather.mjs';
import { REFUSED, until } from './person.mjs';

/** Two people in a chat, both with the page open. */
async function two(meet, options = {}) {
  const alice = await meet('Alice').arrive(options);
  const bob = await meet('Bob').arrive();
  await alice.openWith(bob.id);
  await bob.pick('Alice');
  return { alice, bob };
}

/** What stands below a message: each emoji with its count, marked where it is one's own. */
const reactions = (person, text) => person.row(text).locator('.reaction').evaluateAll((all) =>
  all.map((one) => one.textContent + (one.getAttribute('aria-pressed') === 'true' ? '*' : '')));

const shows = (person, text, expected) => until(`${expected} below "${text}" for ${person.id}`, async () =>
  JSON.stringify(await reactions(person, text)) === JSON.stringify(expected))
  .catch(async () => assert.deepEqual(await reactions(person, text), expected));

async function react(person, text, emoji) {
  await person.choose(text, 'React');
  await person.row(text).getByRole('menuitemcheckbox', { name: emoji, exact: true }).click();
}

export async function reactions_are_seen_by_both_and_taken_back({ meet }) {
  const { alice, bob } = await two(meet);
  await alice.write('Done!');
  await bob.sees('Done!');
  await react(bob, 'Done!', '🎉');
  await shows(bob, 'Done!', ['🎉1*']);
  await shows(alice, 'Done!', ['🎉1']);
  await alice.row('Done!').locator('.reaction').click();
  await shows(alice, 'Done!', ['🎉2*']);
  await shows(bob, 'Done!', ['🎉2*']);
  await alice.row('Done!').locator('.reaction').hover();
  await alice.reads('.who-reacted', 'You and Bob');
  await alice.is('their names', '.who-reacted');
  await alice.isAccessible();
  await bob.row('Done!').locator('.reaction').click();
  await shows(bob, 'Done!', ['🎉1']);
  await shows(alice, 'Done!', ['🎉1*']);
  // On another device of hers.
  const chat = await alice.chatWith(bob.id);
  const [{ message_id: id }] = (await alice.call('GET', `chats/${chat}/messages/`)).results;
  await alice.call('PUT', `chats/${chat}/messages/${id}/reactions/${encodeURIComponent('👍')}/`, {});
  await shows(alice, 'Done!', ['🎉1*', '👍1*']);
  await shows(bob, 'Done!', ['🎉1', '👍1']);
  await bob.choose('Done!', 'Who reacted');
  await until('who it was', async () => JSON.stringify(await bob.$('#reacted-list li').allTextContents()) === '["AAlice🎉","AAlice👍"]');
  await bob.isAccessible();
  await bob.$('#reacted-close').click();
  await alice.page.reload();
  await shows(alice, 'Done!', ['🎉1*', '👍1*']);
}

export async function a_reaction_stands_there_at_once_and_goes_where_it_is_refused({ meet }) {
  const { alice, bob } = await two(meet);
  alice.expected.push(REFUSED);
  await alice.write('Well?');
  await bob.sees('Well?');
  let refuse;
  const held = new Promise((resolve) => { refuse = resolve; });
  await alice.page.route('**/reactions/**', async (route) => {
    await held;
    await route.fulfill({ status: 409, contentType: 'application/problem+json', body: '{"code":"limit_reached","title":"limit"}' });
  });
  await react(alice, 'Well?', '👍');
  await shows(alice, 'Well?', ['👍1*']);
  await react(bob, 'Well?', '🔥');
  await shows(alice, 'Well?', ['🔥1', '👍1*']);
  refuse();
  await alice.reads('.toast', 'There are as many as possible already.');
  await shows(alice, 'Well?', ['🔥1']);
}

export async function a_reaction_is_chosen_with_the_keyboard({ meet }) {
  const { alice, bob } = await two(meet);
  await bob.write('Coffee?');
  await alice.sees('Coffee?');
  const press = async (...keys) => { for (const key of keys) await alice.page.keyboard.press(key); };
  await alice.row('Coffee?').locator('.more-actions').focus();
  await press('Enter', 'ArrowDown', 'Enter');
  await alice.is('the emoji', '.menu.grid');
  await alice.isAccessible();
  await press('ArrowRight', 'ArrowDown', 'ArrowUp', 'ArrowLeft', 'Enter');
  await shows(alice, 'Coffee?', ['👍1*']);
  assert.equal(await alice.page.evaluate(() => document.activeElement.className), 'plain more-actions');
  await alice.row('Coffee?').locator('.reaction').focus();
  await alice.is('who it was', '.who-reacted');
  await press('Space');
  await shows(alice, 'Coffee?', []);
}

export async function a_reply_quotes_and_leads_to_what_it_answers({ meet }) {
  const { alice, bob } = await two(meet);
  const chat = await alice.chatWith(bob.id);
  await alice.write('Where do we meet?');
  await bob.sees('Where do we meet?');
  await bob.choose('Where do we meet?', 'Reply');
  await bob.reads('#replying .quote-text', 'Where do we meet?');
  await bob.isAccessible();
  await bob.page.keyboard.press('Escape');
  await bob.is('no quote', '#replying', { state: 'hidden' });
  await bob.choose('Where do we meet?', 'Reply');
  await bob.write('At the station');
  await bob.is('no quote', '#replying', { state: 'hidden' });
  await alice.sees('At the station');
  const quote = (person) => person.row('At the station').locator('.quote-text').textContent();
  assert.equal(await quote(alice), 'Where do we meet?');
  assert.match(await alice.row('At the station').locator('.quote').textContent(), /^In reply to You/);
  await alice.choose('Where do we meet?', 'Edit');
  await alice.write('Where shall we meet?');
  for (const person of [alice, bob]) await until('the new words', async () => (await quote(person)) === 'Where shall we meet?');

  // Far below it, and after a start that has not loaded it.
  for (let n = 1; n <= 120; n += 1) await alice.say(chat, `message ${n}`);
  const reply = await bob.call('GET', `chats/${chat}/messages/?limit=2`);
  await bob.call('POST', `chats/${chat}/messages/`, { text: 'Found it?', reply_to: (await bob.call('GET', `chats/${chat}/messages/?around=1&limit=3`)).results[0].message_id });
  assert.equal(reply.results.length, 2);
  await alice.page.reload();
  await alice.is('the chat', '#chat');
  await alice.sees('Found it?');
  assert.equal((await alice.texts()).includes('Where shall we meet?'), false);
  await alice.row('Found it?').locator('.quote').click();
  await alice.is('the message, lit', '.message.flash');
  await alice.sees('Where shall we meet?');
  await alice.choose('Where shall we meet?', 'Delete');
  await alice.$('#confirm-yes').click();
  for (const person of [alice, bob]) await until('no words', async () => (await quote(person)) === 'Message deleted');
}

export async function pins_stand_above_the_messages_of_both({ meet }) {
  const { alice, bob } = await two(meet);
  const chat = await alice.chatWith(bob.id);
  await alice.write('The address: 5 Elm Street');
  for (let n = 1; n <= 60; n += 1) await alice.say(chat, `message ${n}`);
  await bob.sees('message 60');
  await bob.choose('message 60', 'Pin');
  await alice.reads('#pins-text', 'message 60');
  await alice.$('#scroller').evaluate((scroller) => { scroller.scrollTop = 0; });
  await alice.choose('The address: 5 Elm Street', 'Pin');
  for (const person of [alice, bob]) {
    await person.reads('#pins-text', 'The address: 5 Elm Street');
    await person.reads('#pins-count', '2 pinned');
  }
  await bob.$('#pins-latest').click();
  await bob.is('the message, lit', '.message.flash');
  await bob.sees('The address: 5 Elm Street');
  await bob.$('#pins-open').click();
  await until('both', async () => (await bob.$('#pins-list .excerpt').allTextContents()).join() === 'The address: 5 Elm Street,message 60');
  await bob.isAccessible();
  await bob.$('#pins-list .plain').first().click();
  await until('one', async () => (await bob.$('#pins-list .excerpt').allTextContents()).join() === 'message 60');
  await alice.reads('#pins-text', 'message 60');
  const [{ message_id: id }] = (await alice.call('GET', `chats/${chat}/pins/`)).results;
  await alice.call('DELETE', `chats/${chat}/messages/${id}/`);
  for (const person of [alice, bob]) await person.is('no pins', '#pins', { state: 'hidden' });
  await bob.is('no list', '#pins-dialog', { state: 'hidden' });
}

export async function in_a_group_pins_are_for_its_owner_and_admins({ meet }) {
  const { alice, bob } = await meeting(meet, 'Walks');
  await alice.write('Sunday, nine');
  await bob.pick('Walks');
  await bob.sees('Sunday, nine');
  assert.deepEqual(await bob.offers('Sunday, nine'), ['Reply', 'React']);
  await bob.page.keyboard.press('Escape');
  await alice.choose('Sunday, nine', 'Pin');
  await bob.reads('#pins-text', 'Sunday, nine');
  await bob.$('#pins-open').click();
  await bob.is('the list', '#pins-list .result');
  assert.equal(await bob.$('#pins-list .plain').count(), 0);
}

export async function what_was_said_anywhere_is_found_and_opened({ meet }) {
  const { alice, bob, carol } = await meeting(meet, 'Garden');
  await alice.write('The lilac is in flower');
  const chat = await bob.chatWith(carol.id);
  await bob.say(chat, 'Lilac for Carol');
  for (let n = 1; n <= 120; n += 1) await bob.say(chat, `message ${n}`);
  await carol.$('#find-open').click();
  await carol.page.fill('#find-input', 'lilac');
  await until('both hits', async () => {
    // A page ends with its time.
    if (await carol.$('#find-more').isVisible()) await carol.$('#find-more').click();
    return (await carol.$('#find-results .result').count()) === 2;
  });
  await carol.reads('#find-results .result', /^Bob.*Lilac for Carol$/);
  assert.match(await carol.$('#find-results .result').last().textContent(), /^Garden: Alice/);
  await carol.isAccessible();
  await carol.shot('find');
  await carol.$('#find-results .result').first().click();
  await carol.reads('#chat-name', 'Bob');
  await carol.sees('Lilac for Carol');
  await carol.reads('#rows mark', 'Lilac');
  await carol.is('the message, lit', '.message.flash');
  await carol.$('#find-results .result').last().click();
  await carol.reads('#chat-name', 'Garden');
  await carol.reads('#rows mark', 'lilac');
  await carol.page.press('#find-input', 'Escape');
  await carol.is('the list', '#chat-list');
  assert.equal(await carol.page.evaluate(() => document.activeElement.id), 'find-open');
}

export async function mentions_of_all_chats_are_in_one_list({ meet }) {
  const { alice, bob, carol } = await meeting(meet, 'Office');
  await mention(alice, 'Carol', 'Ask');
  await bob.pick('Office');
  await mention(bob, 'Carol', 'And call');
  await carol.reads('#mentions-count', /^2/);
  await carol.$('#mentions-open').click();
  await until('both', async () => (await carol.$('#mentions-results .excerpt').allTextContents()).join() === 'And call @Carol ,Ask @Carol ');
  await carol.isAccessible();
  await carol.$('#mentions-results .result').last().click();
  await carol.reads('#chat-name', 'Office');
  await carol.is('the message, lit', '.message.flash');
  await carol.page.press('#mentions-close', 'Escape');
  await carol.is('the list', '#chat-list');
  await alice.$('#mentions-open').click();
  await alice.reads('#mentions-status', 'Nobody has mentioned you yet.');
}

export async function what_messages_carry_fits_a_narrow_screen_and_everybody({ meet }) {
  const { alice, bob } = await two(meet, { ...NARROW, locale: 'ru-RU', colorScheme: 'dark' });
  const chat = await bob.chatWith(alice.id);
  const first = await bob.say(chat, 'A question that is long enough to need two lines or more of a quote in a window of three hundred and twenty pixels');
  await alice.call('POST', `chats/${chat}/messages/`, { text: 'да', reply_to: first.message_id });
  for (const emoji of ['👍', '👎', '❤️', '😂', '😊', '😍', '😮', ':a_very_long_name_of_an_emoji_that_somebody_else_has_made:']) {
    await bob.call('PUT', `chats/${chat}/messages/${first.message_id}/reactions/${encodeURIComponent(emoji)}/`, {});
  }
  await bob.call('PUT', `chats/${chat}/pins/${first.message_id}/`, {});
  await alice.is('the reactions', '.reaction:nth-child(1)');
  await until('all of them', async () => (await alice.$('.reaction').count()) === 8);
  await alice.is('the pin', '#pins');
  const fits = async () => assert.deepEqual(await alice.page.evaluate(() => ['html', '#scroller', '.pins', '#pins-dialog', '#reacted']
    .filter((selector) => { const { scrollWidth, clientWidth } = document.querySelector(selector); return scrollWidth > clientWidth; })), []);
  await fits();
  await alice.isAccessible();
  await alice.shot('narrow-carried');
  await alice.$('.message.theirs .more-actions').click();
  await alice.$('[role=menuitem]').nth(1).click();
  await alice.is('the emoji', '.menu.grid');
  await fits();
  await alice.shot('narrow-emoji');
  await alice.page.keyboard.press('Escape');
  await alice.$('.message.theirs .more-actions').click();
  await alice.$('[role=menuitem]').first().click();
  await alice.is('the quote', '#replying');
  await fits();
  await alice.isAccessible();
  await alice.$('#reply-cancel').click();
  await alice.$('#pins-open').click();
  await fits();
  await alice.isAccessible();
  await bob.shot('carried');
}
