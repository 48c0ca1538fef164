/** A group's rules: who writes, who comes in and how, who is kept out, who has to wait. */
import assert from 'node:assert/strict';
import { act, fits, happened, make, meeting, memberOf, NARROW } from './gather.mjs';
import { REFUSED, until } from './person.mjs';

/** Opens a part of the details that is folded away. */
async function unfold(person, name) {
  if (!await person.$('#details').isVisible()) await person.$('#details-open').click();
  await person.$(`#${name} summary`).click();
}

const set = (person, rule, value) => person.page.getByRole('combobox', { name: rule, exact: true }).selectOption({ label: value });

/** A rule as a plain member reads it. */
const reading = (person, rule, value) => until(`${rule}: ${value} for ${person.id}`, async () =>
  (await person.$('#rules-read .choice').allTextContents()).includes(rule + value));

/** The last link that was made; on the replica of whoever opens it. */
async function linkFor(person, maker) {
  const link = await maker.$('#invites-list input').first().inputValue();
  return `${person.url}/${new URL(link).hash}`;
}

async function follow(person, link) {
  await person.page.goto(link);
  await person.reads('#confirm[open] #confirm-text', 'This link leads into a group. Join it?');
}

export async function an_invitation_leads_into_the_group({ meet }) {
  const [alice, bob, carol, dave] = ['Alice', 'Bob', 'Carol', 'Dave'].map((name) => meet(name));
  for (const person of [carol, dave]) person.expected.push(REFUSED);
  await alice.arrive({ permissions: ['clipboard-read', 'clipboard-write'] });
  await bob.arrive();
  await carol.arrive();
  await make(alice, 'Book club', [bob]);
  await unfold(alice, 'invites');
  await alice.is('an empty list', '#invites-none');
  await set(alice, 'How many may join', '1');
  await alice.page.getByRole('button', { name: 'Make a link' }).click();
  await alice.reads('#details-status', 'Here is the link. Whoever has it may join.');
  await alice.reads('#invites-list .facts', /^joined: 0 of 1 · until \d+ \S+ \d{4}\b/);
  await alice.$('#invites-list button').first().click();
  await alice.reads('#details-status', 'Copied.');
  assert.equal(await alice.page.evaluate(() => navigator.clipboard.readText()), await alice.$('#invites-list input').inputValue());

  const link = await linkFor(carol, alice);
  await follow(carol, link);
  assert(!carol.page.url().includes('invite'), 'a code does not stay in the address');
  await carol.$('#confirm-no').click();
  await carol.is('still nothing', '#no-chats');
  await follow(carol, link);
  // As late as a busy browser may tell that the question before was closed.
  await carol.page.evaluate(() => document.getElementById('confirm').dispatchEvent(new Event('close')));
  await carol.isAccessible();
  await carol.shot('rules-invited');
  await carol.$('#confirm-yes').click();
  await carol.reads('#chat-name', 'Book club');
  await happened(alice, 'Carol joined');
  await alice.reads('#members-title', '3 members');
  await alice.is('it is used up', '#invites-none');

  // Who is not signed in yet does that first.
  await dave.arrive({ token: null });
  await dave.page.goto(link.replace(carol.url, dave.url));
  await dave.page.fill('#token-input', dave.token);
  await dave.$('#token-form button').click();
  await dave.reads('#confirm-text', 'This link leads into a group. Join it?');
  await dave.$('#confirm-yes').click();
  await dave.reads('.toast', 'This invitation is not valid any more.');
  await dave.is('no chat', '#no-chats');

  await alice.page.getByRole('button', { name: 'Make a link' }).click();
  await alice.is('a second link', '#invites-list input');
  const withdrawn = await linkFor(dave, alice);
  await alice.$('#invites-list button').nth(1).click();
  await alice.$('#confirm-yes').click();
  await alice.is('none again', '#invites-none');
  await dave.page.reload();
  await dave.is('online', '#link-dot[data-phase=live]');
  await follow(dave, withdrawn);
  await dave.$('#confirm-yes').click();
  await dave.reads('.toast', 'This invitation is not valid any more.');
}

export async function members_invite_where_the_rules_say_so({ meet }) {
  const { alice, bob, carol } = await meeting(meet, 'Choir');
  await bob.pick('Choir');
  await bob.$('#details-open').click();
  await bob.is('the members', '#member-list li');
  await bob.is('no invitations', '#invites', { state: 'hidden' });
  await bob.is('no form to add by', '#add-form', { state: 'hidden' });
  await unfold(alice, 'rules');
  await set(alice, 'Who adds people', 'all members');
  await bob.is('a form to add by', '#add-form');
  await unfold(bob, 'invites');
  await bob.page.getByRole('button', { name: 'Make a link' }).click();
  await bob.reads('#invites-list .facts', /^joined: 0 ·/);
  // Whoever is in already is led there.
  await follow(carol, await linkFor(carol, bob));
  await carol.$('#confirm-yes').click();
  await carol.reads('#chat-name', 'Choir');
  await bob.reads('#invites-list .facts', /^joined: 0 ·/);
}

export async function an_open_group_is_joined_by_its_link({ meet }) {
  const { alice, bob } = await meeting(meet, 'Park run');
  const dave = meet('Dave');
  const erin = meet('Erin');
  for (const person of [dave, erin]) {
    person.expected.push(REFUSED);
    await person.arrive();
  }
  await alice.write('Before the newcomers');
  await unfold(alice, 'rules');
  await set(alice, 'Newcomers see', 'only new messages');
  await set(alice, 'Who may join', 'who has the link');
  await bob.pick('Park run');
  await unfold(bob, 'rules');
  await reading(bob, 'Newcomers see', 'only new messages');
  await reading(bob, 'Who may join', 'who has the link');
  await unfold(bob, 'invites');
  await bob.reads('#invites-list .facts', 'open to anybody with this link');
  await follow(dave, await linkFor(dave, bob));
  await dave.$('#confirm-yes').click();
  await dave.reads('#chat-name', 'Park run');
  await happened(bob, 'Dave joined');
  await alice.$('#details-close').click();
  await alice.write('After them');
  await dave.seesExactly(['After them']);
  await unfold(alice, 'rules');
  await set(alice, 'Who may join', 'who is invited');
  const link = await linkFor(erin, bob);
  await reading(bob, 'Who may join', 'who is invited');
  await bob.is('no link', '#invites', { state: 'hidden' });
  await follow(erin, link);
  await erin.$('#confirm-yes').click();
  await erin.reads('.toast', 'There is no such chat.');
}

export async function who_is_kept_out_is_listed_and_let_in_again({ meet }) {
  const { alice, bob, carol } = await meeting(meet, 'Chess');
  const dave = meet('Dave');
  for (const person of [alice, bob]) person.expected.push(REFUSED);
  await bob.pick('Chess');
  await unfold(alice, 'bans');
  await alice.is('an empty list', '#bans-none');
  await act(alice, 'Bob', 'Remove and keep out');
  await alice.reads('#confirm-text', 'Remove Bob and keep them out?');
  await alice.$('#confirm-yes').click();
  await bob.reads('.toast', 'You were removed from the group.');
  await alice.reads('#bans-list .chat-name', 'Bob');
  await alice.page.fill('#add-input', bob.id);
  await alice.page.press('#add-input', 'Enter');
  await alice.reads('#details-error', `${bob.id} is banned from this group.`);
  await unfold(alice, 'invites');
  await alice.page.getByRole('button', { name: 'Make a link' }).click();
  await alice.is('a link', '#invites-list input');
  const link = await linkFor(bob, alice);
  await follow(bob, link);
  await bob.$('#confirm-yes').click();
  await until('a refusal', async () => (await bob.$('.toast').allTextContents()).includes('You are banned from this group.'));

  // Somebody who never was in it.
  await dave.chatWith(alice.id);
  await alice.page.fill('#ban-input', dave.id);
  await alice.page.press('#ban-input', 'Enter');
  await alice.$('#confirm-yes').click();
  await until('both', async () => await alice.$('#bans-list li').count() === 2);

  // The second of its admins sees the same.
  await act(alice, 'Carol', 'Make an admin');
  await carol.pick('Chess');
  await unfold(carol, 'bans');
  await until('both, for an admin', async () => await carol.$('#bans-list li').count() === 2);
  await carol.reads('#bans-list .facts', 'by Alice');
  await carol.page.getByRole('button', { name: 'Let in: Bob' }).click();
  await until('one of them', async () => await carol.$('#bans-list li').count() === 1);
  await follow(bob, link);
  await bob.$('#confirm-yes').click();
  await bob.reads('#chat-name', 'Chess');
}

export async function slow_mode_says_when_one_may_write_again({ meet }) {
  const { alice, bob } = await meeting(meet, 'Questions');
  bob.expected.push(REFUSED);
  await bob.pick('Questions');
  await bob.is('nothing of it yet', '#composer-note', { state: 'hidden' });
  await unfold(alice, 'rules');
  await set(alice, 'Slow mode', '1 hour');
  await bob.reads('#composer-note', 'Slow mode: 1 hour between your messages.');
  // By another application, to what the page does not offer.
  const { results: [{ chat_id: chat }] } = await alice.call('GET', 'chats/');
  await alice.call('PATCH', `chats/${chat}/`, { settings: { slow_mode_s: 4 } });
  await bob.reads('#composer-note', 'Slow mode: 4 seconds between your messages.');
  await until('the owner sees it', async () => await alice.page.getByRole('combobox', { name: 'Slow mode' }).inputValue() === '4');
  await bob.write('One');
  await bob.isTicked('One', 'read');
  await bob.write('Two');
  await bob.isTicked('Two', 'failed');
  await bob.isAccessible();
  await bob.shot('rules-slow-mode');
  const said = await bob.text('.trouble span');
  const [, when] = /^Not sent\. Slow mode: you may write again after (\d\d:\d\d:\d\d)\.$/.exec(said) ?? assert.fail(said);
  // The browser is in UTC. It is cut to whole seconds, so the second is to be over.
  const at = new Date(`${new Date().toISOString().slice(0, 10)}T${when}Z`).getTime() + 1_000;
  assert(Math.abs(at - Date.now()) < 6_000, said);
  await until('that moment', () => Date.now() > at);
  await bob.row('Two').locator('.trouble button').first().click();
  await bob.seesExactly(['One', 'Two']);
  await until('it is sent', async () => await bob.$('.message.failed').count() === 0);
  await alice.$('#details-close').click();
  for (const text of ['Three', 'Four']) await alice.write(text);
  await bob.seesExactly(['One', 'Two', 'Three', 'Four']);
}

export async function who_is_silenced_is_told_until_when({ meet }) {
  const { alice, bob } = await meeting(meet, 'Debate');
  bob.expected.push(REFUSED);
  await bob.pick('Debate');
  await alice.$('#details-open').click();
  await act(alice, 'Bob', 'Silence for an hour');
  await until('the list says so', async () => /silenced until \d\d:\d\d/.test(await memberOf(alice, 'Bob').textContent()));
  await bob.reads('#composer-closed', /^You may not write here until \d\d:\d\d(:\d\d)?\.$/);
  await bob.is('no composer', '#draft', { state: 'hidden' });
  await bob.isAccessible();
  await bob.shot('rules-silenced');
  await bob.page.reload();
  await bob.reads('#composer-closed', /^You may not write here until/);
  await act(alice, 'Bob', 'Let write again');
  await bob.is('a composer', '#draft');
  await bob.write('Back again');
  await alice.sees('Back again');

  // Where the page did not hear of it: the refusal says so.
  const names = '**/members/?*';
  await bob.page.goto('about:blank');
  await act(alice, 'Bob', 'Silence for a day');
  await until('it is done', async () => /silenced/.test(await memberOf(alice, 'Bob').textContent()));
  await bob.page.route(names, (route) => route.abort());
  await bob.page.goto(`${bob.url}/#token=${bob.token}`);
  await bob.pick('Debate');
  await bob.is('a composer', '#draft');
  await bob.page.unroute(names);
  await bob.write('And another thing');
  await bob.isTicked('And another thing', 'failed');
  await bob.reads('.trouble span', 'Not sent. You may not write here for now.');
  await bob.reads('#composer-closed', /^You may not write here until \d+ \S+ \d{4}\b/);
}

export async function only_admins_write_where_it_is_set_so({ meet }) {
  const { alice, bob } = await meeting(meet, 'News');
  await bob.pick('News');
  await bob.is('a composer', '#draft');
  await unfold(alice, 'rules');
  await set(alice, 'Who writes', 'owner and admins');
  await bob.reads('#composer-closed', 'Only the owner and admins write here.');
  await bob.is('no composer', '#draft', { state: 'hidden' });
  await unfold(bob, 'rules');
  await reading(bob, 'Who writes', 'owner and admins');
  await bob.is('nothing to change', '#rules-form', { state: 'hidden' });
  await bob.is('nobody to ban', '#bans', { state: 'hidden' });
  await set(alice, 'Who writes', 'all members');
  await reading(bob, 'Who writes', 'all members');
  await bob.is('a composer', '#composer-line:not([hidden])');
}

/** All folds open, with something in each. */
async function unfoldAll(person) {
  await person.$('#details-open').click();
  for (const name of ['rules', 'invites', 'bans']) await person.$(`#${name} summary`).press('Enter');
  await person.is('an invitation', '#invites-list li');
  await person.is('a ban', '#bans-list li');
}

export async function the_rules_fit_a_narrow_screen_and_everybody({ meet }) {
  const { alice, bob } = await meeting(meet, 'Everything');
  const dave = meet('Dave-with-a-name-that-does-not-fit-into-a-line');
  const { results: [{ chat_id: chat }] } = await alice.call('GET', 'chats/');
  await dave.chatWith(alice.id);
  await alice.call('PUT', `chats/${chat}/bans/${dave.id}/`, { reason: 'Advertises, again and again', until: '2099-01-01T00:00:00Z' });
  await alice.call('POST', `chats/${chat}/invites/`, { max_uses: 10 });
  await alice.call('PATCH', `chats/${chat}/`, { settings: { join: 'open', slow_mode_s: 30 } });
  await alice.leave();
  for (const [name, options] of [
    ['narrow', NARROW],
    ['narrow-russian-dark', { ...NARROW, locale: 'ru-RU', colorScheme: 'dark' }],
    ['desktop', { viewport: { width: 1180, height: 1100 } }],
    ['desktop-dark', { viewport: { width: 1180, height: 1100 }, colorScheme: 'dark' }],
  ]) {
    await alice.arrive(options);
    await alice.$('.chat-entry').filter({ hasText: 'Everything' }).click();
    await unfoldAll(alice);
    await alice.$('#invite-form button').click();
    await until('a word on it', async () => await alice.text('#details-status') !== '');
    const { y } = await alice.$('#details-status').boundingBox();
    assert(y >= 0 && y < alice.page.viewportSize().height, 'it is said in sight');
    await fits(alice);
    await alice.isAccessible();
    await alice.shot(`rules-${name}-made`);
    // A tall window shows all of it in one picture.
    const { width, height } = alice.page.viewportSize();
    await alice.page.setViewportSize({ width, height: Math.max(height, 1500) });
    await alice.shot(`rules-${name}`);
    await alice.leave();
  }
  await bob.leave();
  for (const [name, options] of [['narrow', NARROW], ['desktop-dark', { colorScheme: 'dark', locale: 'ru-RU' }]]) {
    await bob.arrive(options);
    await bob.$('.chat-entry').filter({ hasText: 'Everything' }).click();
    await bob.is('a note', '#composer-note');
    await fits(bob);
    await bob.isAccessible();
    await bob.shot(`rules-member-note-${name}`);
    await bob.$('#details-open').click();
    await bob.$('#rules summary').press('Enter');
    await bob.is('the rules', '#rules-read .choice');
    await fits(bob);
    await bob.isAccessible();
    await bob.shot(`rules-member-${name}`);
    await bob.leave();
  }
}
