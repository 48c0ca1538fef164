/** Groups: made, talked in, changed and left, by people on two replicas. */
import { act, fits, happened, meeting, NARROW } from './gather.mjs';
import { REFUSED, until } from './person.mjs';

export async function a_group_is_made_and_all_of_it_hear_each_other({ meet }) {
  const { alice, bob, carol } = await meeting(meet, 'Climbing');
  await alice.reads('#chat-status', '3 members');
  await alice.write('Sunday at nine');
  await bob.pick('Climbing');
  await bob.sees('Sunday at nine');
  await bob.reads('.author bdi', 'Alice');
  await alice.isTicked('Sunday at nine', 'read');
  await carol.reads('.chat-entry .last', 'Alice: Sunday at nine');
  await carol.reads('.chat-entry .badge', /^1/);
  await bob.page.type('#draft', 'Sure');
  await alice.reads('#chat-status', 'Bob typing…');
  await bob.page.press('#draft', 'Enter');
  await alice.sees('Sure');
  await alice.reads('#chat-status', '3 members');
  await carol.pick('Climbing');
  await carol.seesExactly(['Sunday at nine', 'Sure']);
  await until('read by two', async () => /read by 2/.test(await alice.row('Sunday at nine').locator('.tick').textContent()));
}

export async function who_is_mentioned_is_told_so({ meet }) {
  const { alice, bob, carol } = await meeting(meet, 'Office');
  await alice.page.type('#draft', 'Ask @bo');
  await alice.is('who can be mentioned', '#mention-list [role=option]');
  await alice.reads('#mention-list [role=option]', /^B.*Bob/);
  await alice.isAccessible();
  await alice.page.press('#draft', 'Enter');
  await until('the name', async () => (await alice.page.inputValue('#draft')) === 'Ask @Bob ');
  await alice.page.type('#draft', 'about it');
  await alice.page.press('#draft', 'Enter');
  await bob.reads('.chat-entry .badge', /^@1 mention of you/);
  await carol.reads('.chat-entry .badge', /^1/);
  await bob.pick('Office');
  await bob.is('a message to him', '.message.to-me');
  await bob.reads('.mention', '@Bob');
  await alice.page.type('#draft', '@al');
  await alice.is('everybody', '#mention-list [role=option]');
  await alice.page.press('#draft', 'Escape');
  await alice.is('no list', '#mention-list', { state: 'hidden' });
}

export async function members_come_go_and_get_roles({ meet }) {
  const { alice, bob, carol } = await meeting(meet, 'Band');
  const dave = await meet('Dave').arrive();
  await bob.pick('Band');
  await carol.pick('Band');
  await alice.$('#details-open').click();
  await alice.reads('#members-title', '3 members');
  await alice.page.fill('#add-input', dave.id);
  await alice.page.press('#add-input', 'Enter');
  await alice.reads('#details-status', '1 person added');
  await alice.reads('#members-title', '4 members');
  await dave.pick('Band');
  await happened(bob, 'Alice added Dave');
  await act(alice, 'Bob', 'Make an admin');
  await until('an admin', async () => /admin/.test(await alice.$('#member-list li').filter({ hasText: 'Bob' }).textContent()));
  await bob.$('#details-open').click();
  await bob.is('his right', '#rename-form');
  await bob.page.fill('#rename-input', 'The band');
  await bob.page.press('#rename-input', 'Enter');
  await carol.reads('#chat-name', 'The band');
  await happened(carol, 'Bob changed the title to “The band”');
  await act(bob, 'Carol', 'Remove');
  await bob.reads('#confirm-text', 'Remove Carol from the group?');
  await bob.$('#confirm-yes').click();
  await carol.reads('.toast', 'You were removed from the group.');
  await carol.is('no chat', '#no-chats');
  await happened(dave, 'Bob removed Carol');
  await bob.$('#details-close').click();
  await alice.isAccessible();
}

export async function a_group_is_left_pinned_and_put_away({ meet }) {
  const { alice, bob, carol } = await meeting(meet, 'Trip');
  bob.expected.push(REFUSED);
  await alice.write('Who is in?');
  await bob.pick('Trip');
  await bob.$('#details-open').click();
  await bob.$('#leave').click();
  await bob.reads('#confirm-text', 'Leave “Trip”?');
  await bob.$('#confirm-yes').click();
  await bob.is('an empty list', '#no-chats');
  await happened(alice, 'Bob left');
  await alice.reads('#chat-status', '2 members');
  await carol.chatWith(bob.id);
  await carol.pick('Trip');
  await carol.$('#details-open').click();
  await carol.page.check('#own-pinned');
  await carol.is('a pin', '.chat-entry .time .icon');
  await carol.page.check('#own-archived');
  await until('only Bob', async () => (await carol.$('#chat-list .chat-entry').count()) === 1);
  await carol.$('#details-close').click();
  await carol.$('#archive').click();
  await carol.reads('#archive-list .chat-name', 'Trip');
}

export async function groups_fit_a_narrow_screen_and_everybody({ meet }) {
  const [alice, bob] = ['Alice', 'Боб'].map((name) => meet(name));
  await bob.arrive({ ...NARROW, locale: 'ru-RU', colorScheme: 'dark' });
  await alice.arrive(NARROW);
  await alice.$('#new-group').click();
  await alice.page.fill('#group-title', 'A title that is rather long for a window of three hundred and twenty pixels');
  await alice.page.fill('#group-person', bob.id);
  await alice.$('#group-add').click();
  await fits(alice);
  await alice.isAccessible();
  await alice.shot('narrow-new-group');
  await alice.$('#group-make').click();
  await alice.is('the chat', '#chat');
  await alice.page.fill('#draft', 'First!');
  await alice.$('#send').click();
  await alice.$('#details-open').click();
  await until('both', async () => (await alice.$('#member-list li').count()) === 2);
  await fits(alice);
  await alice.isAccessible();
  await alice.shot('narrow-details');
  await bob.$('.chat-entry').click();
  await bob.sees('First!');
  await fits(bob);
  await bob.isAccessible();
  await bob.$('#details-open').click();
  await bob.reads('#members-title', '2 участника');
  await fits(bob);
  await bob.isAccessible();
  await bob.shot('narrow-details-russian');
  // With the keyboard alone.
  await bob.page.keyboard.press('Escape');
  await bob.is('no dialog', '#details', { state: 'hidden' });
}
