/** People in a group: how it is made, and what they do and see in it. */
import assert from 'node:assert/strict';
import { until } from './person.mjs';

export const NARROW = { viewport: { width: 320, height: 640 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 };

export async function make(person, title, people) {
  await person.$('#new-group').click();
  await person.page.fill('#group-title', title);
  for (const { id } of people) {
    await person.page.fill('#group-person', id);
    await person.page.press('#group-person', 'Enter');
  }
  await until('their names', async () => (await person.$('#group-people li').count()) === people.length);
  await person.$('#group-make').click();
  await person.reads('#chat-name', title);
}

/** Three people in a group, each with the page open; Alice is its owner. */
export async function meeting(meet, title, options = {}) {
  const [alice, bob, carol] = ['Alice', 'Bob', 'Carol'].map((name) => meet(name));
  await bob.arrive();
  await carol.arrive();
  await alice.arrive(options);
  await make(alice, title, [bob, carol]);
  return { alice, bob, carol };
}

/** Somebody's line in the list of members. */
export const memberOf = (person, name) => person.$('#member-list li').filter({ hasText: name });

/** Chooses from what can be done to a member. */
export async function act(person, member, label) {
  const row = memberOf(person, member);
  await row.locator('button').first().click();
  await row.getByRole('menuitem', { name: label, exact: true }).click();
}

/** Writes to the group, and mentions a member as the list offers them. */
export async function mention(person, name, text) {
  await person.page.fill('#draft', `${text} @`);
  await person.page.type('#draft', name.slice(0, 3).toLowerCase());
  await person.reads('#mention-list [role=option]', new RegExp(name));
  await person.page.press('#draft', 'Enter');
  await until('the name', async () => (await person.page.inputValue('#draft')) === `${text} @${name} `);
  await person.page.press('#draft', 'Enter');
}

export const happened = (person, text) => until(`"${text}" for ${person.id}`, async () =>
  (await person.$('#rows .system').allTextContents()).some((line) => (text instanceof RegExp ? text.test(line) : line === text)));

export async function fits(person) {
  const wide = await person.page.evaluate(() => ['html', '#details', '#group-dialog', '#scroller', '#chat-list']
    .filter((selector) => { const { scrollWidth, clientWidth } = document.querySelector(selector); return scrollWidth > clientWidth; }));
  assert.deepEqual(wide, [], 'what scrolls sideways');
}
