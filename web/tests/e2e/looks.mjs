/** How it looks: wide and narrow, light and dark, English and Russian. The pictures are for people. */
import assert from 'node:assert/strict';
import { REFUSED, until } from './person.mjs';

const PHONE = { viewport: { width: 360, height: 700 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 };

/** From elsewhere, one after another: [who, text]. */
const SAID = [
  ['bob', 'Morning! Is the parcel with the sensors already with you?'],
  ['alice', 'It came at nine. Two of the twelve are broken, the rest works.'],
  ['alice', 'Photos are in the ticket.'],
  ['bob', 'Thanks. I’ll ask for replacements; they usually answer the same day.'],
  ['alice', 'Could you also ask for the longer cables? The ones we have don’t reach the second rack.'],
  ['bob', 'Sure. Three metres?'],
  ['alice', 'Five, to be safe.'],
  ['bob', 'Ordered: 2 sensors, 4 × 5 m. They say Thursday.'],
];

/** A small office: Alice has chats with three people, one of them talks. */
async function office(meet) {
  const [alice, bob, carol, dima] = ['Alice Ray', 'Bob Marsh', 'Carol Ng', 'Дмитрий Орлов'].map((name) => meet(name));
  const withDima = await dima.chatWith(alice.id);
  await dima.say(withDima, 'Отчёт за неделю готов, посмотришь?');
  const withCarol = await carol.chatWith(alice.id);
  for (const text of ['Lunch at one?', 'The new place round the corner', 'My treat']) await carol.say(withCarol, text);
  const withBob = await bob.chatWith(alice.id);
  for (const [who, text] of SAID) await { alice, bob }[who].say(withBob, text);
  await alice.call('POST', `chats/${withBob}/mark_read/`);
  await bob.call('POST', `chats/${withBob}/mark_read/`);
  return { alice, bob, carol, dima };
}

async function fits(person) {
  const [content, window] = await person.page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert(content <= window, `${content} px wide in a window of ${window}`);
}

export async function the_page_fits_every_screen({ meet }) {
  const { alice, bob, dima } = await office(meet);
  await bob.arrive(PHONE);
  await fits(bob);
  await bob.isAccessible();
  await bob.shot('phone-chats');
  await bob.$('.chat-entry').tap();
  await bob.sees(SAID.at(-1)[1]);
  await fits(bob);

  await alice.arrive();
  await alice.pick('Bob Marsh');
  await alice.reads('#chat-status', 'online');
  await bob.page.type('#draft', 'And');
  await alice.reads('#chat-status', 'typing…');
  await alice.shot('desktop');
  await fits(alice);
  await alice.isAccessible();
  await bob.page.fill('#draft', 'And a very-long-word-'.repeat(9));
  await bob.$('#send').tap();
  await alice.sees('And a very-long-word-'.repeat(9));
  await fits(alice);
  await fits(bob);
  await bob.isAccessible();
  await bob.shot('phone');
  await bob.$('#back').tap();
  await bob.is('the list', '.chat-entry');
  await bob.is('no chat', '#chat', { state: 'hidden' });

  await dima.arrive({ locale: 'ru-RU', colorScheme: 'dark' });
  await dima.pick('Alice Ray');
  await dima.reads('#rows .day', 'Сегодня');
  await dima.reads('#link-text', 'На связи');
  await dima.$('#search-open').click();
  await dima.page.fill('#search-input', 'неделя');
  await dima.reads('.result mark', 'неделю');
  await dima.shot('dark-russian');
  await fits(dima);
  await dima.isAccessible();
}

/** Each is one sign for a line breaker: there is no place within it to break at. */
const UNBREAKABLE = {
  'a letter under marks': `Z${'\u0300\u0489\u20dd'.repeat(70)}`,
  'a letter beside marks': `Z${'\u0363'.repeat(200)}`,
  'a syllable of jamo': `${'\u1100'.repeat(120)}\u1161\u11a8`,
  'a conjunct': `${'\u0915\u094d'.repeat(120)}\u0937`,
  'joined emoji': Array(60).fill('👩').join('\u200d'),
  'words held together': Array(60).fill('never').join('\u2060'),
  'a word without end': 'ж'.repeat(600),
};

export async function no_sign_is_too_wide_for_the_timeline({ meet }) {
  const alice = meet('Alice');
  const bob = meet(`Z${'\u1100'.repeat(90)}`);
  const chat = await bob.chatWith(alice.id);
  for (const [kind, text] of Object.entries(UNBREAKABLE)) await bob.say(chat, `${text} ${kind}`);
  for (const options of [PHONE, {}]) {
    await alice.arrive(options);
    await fits(alice);
    await alice.$('.chat-entry').click();
    await alice.sees(`${UNBREAKABLE['a word without end']} a word without end`);
    await alice.$('#search-open').click();
    await alice.page.fill('#search-input', 'a');
    await alice.is('the hits', '.result');
    const wide = await alice.page.evaluate(() => ['#scroller', '#search-results', '#chat-list', 'html']
      .filter((selector) => { const { scrollWidth, clientWidth } = document.querySelector(selector); return scrollWidth > clientWidth; }));
    assert.deepEqual(wide, [], 'what scrolls sideways');
    await alice.shot(`unbreakable-${options === PHONE ? 'phone' : 'desktop'}`);
    await alice.leave();
  }
}

export async function everything_that_opens_is_for_everybody({ meet }) {
  const { alice, bob, carol } = await office(meet);
  for (const colorScheme of ['light', 'dark']) {
    await alice.arrive({ colorScheme });
    await alice.pick('Carol Ng');
    await alice.is('the line', '#rows .new');
    await alice.pick('Bob Marsh');
    await alice.row('Five, to be safe.').hover();
    await alice.row('Five, to be safe.').locator('.more-actions').click();
    await alice.is('the menu', '[role=menu]');
    await alice.isAccessible();
    await alice.shot(`menu-${colorScheme}`);
    await alice.$('[role=menuitem].danger').click();
    await alice.is('the question', '#confirm');
    await alice.isAccessible();
    await alice.shot(`question-${colorScheme}`);
    await alice.$('#confirm-no').click();
    await alice.$('#search-open').click();
    await alice.page.fill('#search-input', 'sensors');
    await alice.is('a hit', '.result mark');
    await alice.$('.result').last().click();
    await alice.is('it is marked', '#rows mark');
    await alice.isAccessible();
    await alice.shot(`search-${colorScheme}`);
    await alice.page.press('#search-input', 'Escape');
    await alice.page.route('**/messages/', (route) => route.abort());
    alice.expected.push(REFUSED);
    await alice.write('Not yet out');
    await alice.isTicked('Not yet out', 'failed');
    await alice.isAccessible();
    await alice.shot(`failed-${colorScheme}`);
    await alice.leave();
    await carol.say(await carol.chatWith(alice.id), 'And bring the map');
  }
  await bob.leave();
}

/** Without a mouse: signing in, walking to a chat, writing, editing, searching, and back. */
export async function the_keyboard_is_enough({ meet }) {
  const { alice } = await office(meet);
  await alice.arrive();
  const press = async (...keys) => { for (const key of keys) await alice.page.keyboard.press(key); };
  await alice.$('#open-input').focus();
  await press('Tab', 'Tab', 'Tab', 'ArrowDown', 'Enter');
  await alice.reads('#chat-name', 'Carol Ng');
  await alice.page.keyboard.type('Yes, with pleasure');
  await press('Enter');
  await alice.isTicked('Yes, with pleasure', 'sent');
  await press('ArrowUp', 'End');
  await alice.page.keyboard.type('!');
  await press('Enter');
  await alice.sees('Yes, with pleasure!');
  await press('Shift+Tab', 'Shift+Tab');
  const here = await alice.page.evaluate(() => document.activeElement.className);
  assert.match(here, /more-actions|react-open|scroller/, 'backwards from the composer stand the messages');
  await alice.$('#search-open').focus();
  await press('Enter');
  await alice.page.keyboard.type('treat');
  await alice.is('a hit', '.result mark');
  await press('Tab', 'Tab', 'Enter');
  await alice.is('it is marked', '#rows mark');
  await press('Escape');
  await alice.is('search is closed', '#search', { state: 'hidden' });
  assert.equal(await alice.page.evaluate(() => document.activeElement.id), 'search-open');
}

/** Two windows side by side: what `docs/page.png` is a copy of. */
export async function the_picture_of_the_documentation({ meet }) {
  const { alice, bob, carol } = await office(meet);
  const sharp = { deviceScaleFactor: 1.25 };
  await carol.arrive();
  await bob.arrive({ ...PHONE, ...sharp, viewport: { width: 328, height: 600 } });
  await bob.pick('Alice Ray');
  await alice.arrive({ ...sharp, viewport: { width: 848, height: 600 } });
  await alice.pick('Bob Marsh');
  await bob.reads('#chat-status', 'online');
  await bob.page.type('#draft', 'Thursday it is');
  await alice.reads('#chat-status', 'typing…');
  await alice.$('#draft').blur();
  const [left, right] = await Promise.all([alice, bob].map(({ page }) => page.screenshot()));
  const image = (picture, width) => `<img width="${width}" src="data:image/png;base64,${picture.toString('base64')}">`;
  const context = await alice.browser.newContext({ ...sharp, viewport: { width: 1248, height: 648 } });
  const page = await context.newPage();
  await page.setContent(`<style>
    body { margin: 0; padding: 24px; display: flex; gap: 24px; background: #dfe5e2 }
    img { border-radius: 12px; outline: 1px solid #c9d2ce }
  </style>${image(left, 848)}${image(right, 328)}`);
  await page.screenshot({ path: `${process.env.SHOTS}/page.png` });
  await context.close();
}

export async function an_empty_page_says_what_to_do({ meet }) {
  const alice = meet('Alice');
  await alice.arrive({ token: null, ...PHONE });
  await alice.is('the form', '#token-input');
  await fits(alice);
  await alice.isAccessible();
  await alice.shot('sign-in');
  await alice.leave();
  await alice.arrive({ colorScheme: 'dark' });
  await alice.is('a hint', '#no-chats');
  await alice.isAccessible();
  await alice.shot('empty-dark');
}

export async function somebody_of_the_demo_is_chosen_with_one_click({ meet }) {
  const visitor = meet('Visitor');
  await visitor.arrive({ token: null, colorScheme: 'dark' });
  await visitor.is('the people', '.person');
  assert.deepEqual(await visitor.$('.person').allTextContents(), ['AAlice', 'BBob', 'CCarol']);
  await visitor.isAccessible();
  await visitor.shot('sign-in-dark');
  await visitor.$('.person').nth(1).click();
  await visitor.is('online', '#link-dot[data-phase=live]');
  await visitor.reads('#me-name', 'Bob');
  await visitor.page.reload();
  await until('still Bob', async () => await visitor.text('#me-name') === 'Bob');
}

/** The socket protocol's page: on any screen, in both schemes, and reached from the API's page. */
export async function the_page_of_the_socket_is_for_everybody({ meet }) {
  const reader = meet('Rita Reader');
  for (const [name, options] of [['light', {}], ['dark', { colorScheme: 'dark' }], ['phone', PHONE]]) {
    await reader.arrive({ token: null, ...options });
    await reader.page.goto(`${reader.url}/docs/`);
    // The API's page writes its links itself; this one opens in place.
    await reader.page.locator('.info a[href="/docs/socket/"]').evaluate((link) => link.removeAttribute('target'));
    await reader.page.locator('.info a[href="/docs/socket/"]').click();
    await reader.is('the title', 'h1');
    await fits(reader);
    await reader.isAccessible();
    await reader.shot(`socket-${name}`);
    await reader.page.locator('nav a[href="#server-hello"]').click();
    await reader.is('hello', '#server-hello:target');
    await reader.shot(`socket-${name}-frames`);
    await reader.leave();
  }
}
