/** Two people talk: each sees at once what the other one does, on another replica. */
import assert from 'node:assert/strict';
import { REFUSED, until } from './person.mjs';

export async function a_token_signs_in_and_leaves_no_trace_in_the_address({ meet }) {
  const alice = meet('Alice');
  await alice.arrive({ token: null });
  await alice.is('the form', '#token-input');
  await alice.page.fill('#token-input', 'not a token');
  await alice.$('#token-form button').click();
  await alice.reads('#token-error', /not a token/);
  await alice.page.fill('#token-input', alice.token);
  await alice.$('#token-form button').click();
  await alice.is('online', '#link-dot[data-phase=live]');
  await alice.reads('#me-name', 'Alice');
  await alice.page.reload();
  await alice.is('still there', '#link-dot[data-phase=live]');
  await alice.page.goto(`${alice.url}/#token=${alice.token}`);
  await until('a clean address', () => !alice.page.url().includes('token'));
  await alice.$('#sign-out').click();
  await alice.is('the form', '#token-input');
}

export async function a_token_of_somebody_else_is_not_taken({ meet }) {
  const alice = meet('Alice');
  alice.expected.push(REFUSED);
  const forged = `${alice.token.slice(0, -4)}${alice.token.endsWith('AAAA') ? 'BBBB' : 'AAAA'}`;
  await alice.arrive({ token: null });
  await alice.page.fill('#token-input', forged);
  await alice.$('#token-form button').click();
  await alice.reads('#token-error', /not accept/);
}

export async function a_chat_opens_by_user_id_and_talk_reaches_the_other_replica({ meet }) {
  const alice = await meet('Alice').arrive();
  const bob = await meet('Bob').arrive();
  await bob.is('empty list', '#no-chats');
  await alice.openWith(bob.id);
  await alice.is('an empty chat', '#no-messages');
  await bob.pick('Alice');
  await alice.reads('#chat-name', 'Bob');
  await alice.reads('#chat-status', 'online');
  await alice.write('Hello, Bob');
  await bob.sees('Hello, Bob');
  await bob.write('Hello yourself\nwith a second line');
  await alice.sees('Hello yourself\nwith a second line');
  await alice.write('<b>& "quotes" 👩‍👩‍👧 привет</b>');
  await bob.sees('<b>& "quotes" 👩‍👩‍👧 привет</b>');
  await bob.reads('.chat-entry .last', '<b>& "quotes" 👩‍👩‍👧 привет</b>');
  await bob.leave();
  await alice.reads('#chat-status', /^seen/);
}

export async function what_cannot_be_opened_is_told({ meet }) {
  const alice = meet('Alice');
  alice.expected.push(REFUSED);
  await alice.arrive();
  await alice.page.fill('#open-input', alice.id);
  await alice.page.press('#open-input', 'Enter');
  await alice.reads('#open-error', /That is you/);
  await alice.page.goto(`${alice.url}/#chat=nobody-knows`);
  await alice.is('a notice', '.toast');
  await alice.reads('.toast', 'There is no such chat.');
  await until('a clean address', () => !alice.page.url().includes('chat='));
}

export async function an_own_message_stands_there_before_the_server_answers({ meet }) {
  const alice = await meet('Alice').arrive();
  const bob = await meet('Bob').arrive();
  await alice.openWith(bob.id);
  let release;
  const held = new Promise((resolve) => { release = resolve; });
  await alice.page.route('**/messages/', async (route) => { await held; await route.continue(); });
  await alice.write('slow');
  await alice.write('slower');
  await alice.isTicked('slow', 'sending');
  await alice.isTicked('slower', 'sending');
  release();
  await alice.isTicked('slower', 'sent');
  await alice.isTicked('slow', 'sent');
  await bob.pick('Alice');
  await bob.seesExactly(['slow', 'slower']);
  await alice.isTicked('slower', 'read');
}

/** Chinese, Japanese, Korean: the key that ends a composition chooses a word, and is no command. */
export async function the_enter_of_an_input_method_sends_nothing({ meet }) {
  const alice = await meet('Alice').arrive();
  const bob = meet('Bob');
  await alice.openWith(bob.id);
  await alice.page.fill('#draft', 'にほんご');
  const enter = (init) => alice.page.evaluate((more) => {
    const event = new KeyboardEvent('keydown', { key: 'Enter', bubbles: true, cancelable: true, ...more });
    document.querySelector('#draft').dispatchEvent(event);
  }, init);
  await enter({ isComposing: true, keyCode: 229 });
  // As Safari has it: the composition is over already.
  await enter({ isComposing: false, keyCode: 229 });
  assert.equal(await alice.page.inputValue('#draft'), 'にほんご');
  assert.deepEqual(await alice.texts(), []);
  await enter({ keyCode: 13 });
  await alice.seesExactly(['にほんご']);
}

export async function typing_is_shown_and_ends({ meet }) {
  const alice = await meet('Alice').arrive();
  const bob = await meet('Bob').arrive();
  await alice.openWith(bob.id);
  await bob.pick('Alice');
  await alice.reads('#chat-status', 'online');
  await bob.page.type('#draft', 'hm');
  await alice.reads('#chat-status', 'typing…');
  await alice.reads('.chat-entry .last', 'typing…');
  await bob.page.press('#draft', 'Enter');
  await alice.sees('hm');
  await alice.reads('#chat-status', 'online');
  await bob.page.type('#draft', 'never sent');
  await alice.reads('#chat-status', 'typing…');
  await bob.page.fill('#draft', '');
  await alice.reads('#chat-status', 'online');
}

export async function an_edit_and_a_deletion_show_on_both_sides({ meet }) {
  const alice = await meet('Alice').arrive();
  const bob = await meet('Bob').arrive();
  await alice.openWith(bob.id);
  await bob.pick('Alice');
  await alice.write('frist');
  await alice.write('second');
  await bob.seesExactly(['frist', 'second']);
  await alice.choose('frist', 'Edit');
  await alice.is('editing', '#editing');
  await alice.write('first');
  await alice.is('done', '#editing', { state: 'hidden' });
  await bob.seesExactly(['first', 'second']);
  await bob.reads('#rows .message .meta', /^edited/);
  await alice.isTicked('second', 'read');
  await alice.page.press('#draft', 'ArrowUp');
  assert.equal(await alice.page.inputValue('#draft'), 'second');
  await alice.page.press('#draft', 'Escape');
  await alice.choose('second', 'Delete');
  await alice.$('#confirm-yes').click();
  for (const person of [alice, bob]) {
    await person.seesExactly(['first']);
    await person.reads('#rows .message.deleted .text', 'Message deleted');
    await person.reads('.chat-entry .last', 'Message deleted');
  }
  assert.deepEqual(await bob.offers('first'), ['Reply', 'React', 'Pin']);
  assert.equal(await bob.$('#rows .message.deleted .more-actions:visible').count(), 0);
}

export async function badges_and_the_line_of_new_messages_follow_what_was_read({ meet }) {
  const alice = await meet('Alice').arrive();
  const bob = await meet('Bob').arrive();
  const carol = meet('Carol');
  await bob.openWith(carol.id);
  await alice.openWith(bob.id);
  for (const text of ['one', 'two', 'three']) await alice.write(text);
  await bob.reads('.chat-entry .badge [aria-hidden]', '3');
  await until('the title', async () => await bob.page.title() === '(3) Beseda');
  await alice.isTicked('three', 'sent');
  await bob.pick('Alice');
  await bob.is('the line', '#rows .new');
  await bob.is('no badge', '.chat-entry .badge', { state: 'detached' });
  await until('the title', async () => await bob.page.title() === 'Beseda');
  await alice.isTicked('three', 'read');

  await bob.lookAway();
  await alice.write('four');
  await bob.sees('four');
  await bob.reads('.chat-entry .badge [aria-hidden]', '1');
  await alice.isTicked('four', 'sent');
  const order = await bob.$('#rows > li').evaluateAll((rows) => rows.map((row) => row.querySelector('.text')?.textContent ?? row.className));
  assert.deepEqual(order, ['day', 'one', 'two', 'three', 'new', 'four']);
  await bob.lookBack();
  await alice.isTicked('four', 'read');
  await bob.is('no badge', '.chat-entry .badge', { state: 'detached' });
}

export async function a_badge_goes_where_the_same_person_read_elsewhere({ meet }) {
  const alice = meet('Alice');
  const bob = await meet('Bob').arrive();
  const chat = await alice.chatWith(bob.id);
  const { message_id: id } = await alice.say(chat, 'one');
  await alice.say(chat, 'two');
  await bob.reads('.chat-entry .badge [aria-hidden]', '2');
  await alice.call('DELETE', `chats/${chat}/messages/${id}/`);
  await bob.reads('.chat-entry .badge [aria-hidden]', '1');
  await bob.call('POST', `chats/${chat}/mark_read/`);
  await bob.is('no badge', '.chat-entry .badge', { state: 'detached' });
}

export async function a_deleted_chat_is_gone_for_both_and_can_be_opened_anew({ meet }) {
  const alice = await meet('Alice').arrive();
  const bob = await meet('Bob').arrive();
  await alice.openWith(bob.id);
  await alice.write('to be forgotten');
  await bob.pick('Alice');
  await bob.sees('to be forgotten');
  await alice.$('#chat-delete').click();
  await alice.$('#confirm-yes').click();
  for (const person of [alice, bob]) {
    await person.is('no chat', '#no-chat');
    await person.is('an empty list', '#no-chats');
    await until('a clean address', () => !person.page.url().includes('chat='));
  }
  await bob.reads('.toast', 'The chat was deleted.');
  await bob.openWith(alice.id);
  await bob.is('an empty chat', '#no-messages');
  await bob.write('once more');
  await alice.pick('Bob');
  await alice.seesExactly(['once more']);
}
