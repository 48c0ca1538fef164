/** What was said before: history in pages, days, the first unread message, search. */
import assert from 'node:assert/strict';
import { until } from './person.mjs';

const DAY_MS = 86_400_000;

/** Fills a chat from elsewhere; `text` of a number from 1. */
async function fill(person, chat, count, text) {
  for (let number = 1; number <= count; number += 1) await person.say(chat, text(number));
}

/** Where the first row in sight stands, to be compared after more has come. */
function mark(person) {
  return person.page.evaluate(() => {
    const scroller = document.getElementById('scroller');
    const top = scroller.getBoundingClientRect().top;
    window.marked = [...document.querySelectorAll('#rows .message')].find((row) => row.getBoundingClientRect().top >= top);
    window.markedTop = window.marked.getBoundingClientRect().top;
  });
}

const shift = (person) => person.page.evaluate(() => window.marked.getBoundingClientRect().top - window.markedTop);
const distanceToBottom = (person) => person.page.evaluate(() => {
  const { scrollHeight, scrollTop, clientHeight } = document.getElementById('scroller');
  return scrollHeight - scrollTop - clientHeight;
});

export async function history_comes_while_scrolling_up_and_the_place_is_kept({ meet }) {
  const alice = meet('Alice');
  const bob = meet('Bob');
  const chat = await alice.chatWith(bob.id);
  await fill(bob, chat, 170, (number) => `line ${number}`);
  await alice.call('POST', `chats/${chat}/mark_read/`);
  await alice.arrive();
  await alice.pick('Bob');
  await alice.sees('line 170');
  assert(await distanceToBottom(alice) < 4, 'a chat opens at its end');
  for (let seen = 0; seen < 170;) {
    await alice.page.evaluate(() => { document.getElementById('scroller').scrollTop = 300; });
    await mark(alice);
    await until('more rows', async () => {
      const now = (await alice.texts()).length;
      return now === 170 || now > seen ? (seen = now) : 0;
    });
    const moved = await shift(alice);
    assert(Math.abs(moved) < 2, `what was read moved by ${moved} px`);
  }
  await alice.seesExactly(Array.from({ length: 170 }, (_, index) => `line ${index + 1}`));

  await alice.page.evaluate(() => { document.getElementById('scroller').scrollTop = 500; });
  await mark(alice);
  await bob.say(chat, 'while you were up');
  await alice.sees('while you were up');
  await alice.reads('#to-newest-count', '1');
  assert.equal(await shift(alice), 0, 'a new message moved what was read');
  await alice.$('#to-newest').click();
  await alice.is('at the end', '#to-newest', { state: 'hidden' });
  await until('it is read', async () => (await alice.call('GET', 'chats/unread/')).total === 0);
}

export async function a_chat_with_much_unread_opens_where_one_stopped({ meet }) {
  const alice = meet('Alice');
  const bob = meet('Bob');
  const chat = await alice.chatWith(bob.id);
  await fill(bob, chat, 120, (number) => `line ${number}`);
  await alice.call('POST', `chats/${chat}/mark_read/`, { up_to_seq: 20 });
  await alice.arrive();
  await alice.reads('.chat-entry .badge [aria-hidden]', '100');
  await alice.pick('Bob');
  await alice.is('the line', '#rows .new');
  const after = await alice.$('#rows .new + .message .text').textContent();
  assert.equal(after, 'line 21');
  const { read_seq: read } = await alice.call('GET', `chats/${chat}/`);
  assert.equal(read, 20, 'nothing below was seen yet');
  await until('the end', async () => {
    await alice.page.evaluate(() => { const scroller = document.getElementById('scroller'); scroller.scrollTop = scroller.scrollHeight; });
    return (await alice.call('GET', 'chats/unread/')).total === 0;
  });
  await alice.seesExactly(Array.from({ length: 120 }, (_, index) => `line ${index + 1}`));
}

export async function days_are_told_apart({ meet }) {
  const alice = meet('Alice');
  const bob = meet('Bob');
  const chat = await alice.chatWith(bob.id);
  await bob.say(chat, 'said today');
  await bob.arrive();
  await bob.pick('Alice');
  await bob.reads('#rows .day', 'Today');
  // The server's clock stays; the reader's own goes ahead.
  for (const [days, locale, day] of [[1, 'en-GB', /^Yesterday$/], [1, 'ru-RU', /^Вчера$/], [40, 'ru-RU', /^\d+ \p{L}+( \d{4} г\.)?$/u]]) {
    await alice.arrive({ locale, token: null });
    await alice.page.clock.setFixedTime(Date.now() + days * DAY_MS);
    await alice.page.goto(`${alice.url}/?${days}#token=${alice.token}`);
    await alice.pick('Bob');
    await alice.reads('#rows .day', day);
    await alice.leave();
  }
}

export async function search_marks_what_it_found_and_leads_there({ meet }) {
  const alice = meet('Alice');
  const bob = meet('Bob');
  const chat = await alice.chatWith(bob.id);
  await bob.say(chat, 'Где мои книги?');
  await bob.say(chat, '😀 The running shoes are here');
  await fill(bob, chat, 130, (number) => `filler ${number}`);
  await alice.call('POST', `chats/${chat}/mark_read/`);
  await alice.arrive();
  await alice.pick('Bob');
  await alice.sees('filler 130');
  await alice.$('#search-open').click();
  const search = async (query, count) => {
    await alice.page.fill('#search-input', query);
    await until(`${count} results for ${query}`, async () => await alice.$('.result').count() === count);
  };
  await search('книга', 1);
  await alice.reads('.result mark', 'книги');
  await search('run', 1);
  await alice.reads('.result mark', 'running');
  await search('"running shoes" -book', 1);
  await search('no such thing', 0);
  await alice.reads('#search-status', 'Nothing found');
  await search('filler', 20);
  await alice.$('#search-more').click();
  await until('more of them', async () => await alice.$('.result').count() === 40);
  await search('running', 1);
  await alice.$('.result').click();
  await alice.reads('#rows .message mark', 'running');
  const placed = await alice.$('#rows mark').evaluate((hit) => {
    const [at, around] = [hit.getBoundingClientRect(), document.getElementById('scroller').getBoundingClientRect()];
    return at.top >= around.top && at.bottom <= around.bottom;
  });
  assert(placed, 'the hit is in sight');
  await bob.say(chat, 'said meanwhile');
  await alice.reads('.chat-entry .last', 'said meanwhile');
  await alice.page.press('#search-input', 'Escape');
  await alice.is('no marks', '#rows mark', { state: 'detached' });
  await alice.$('#to-newest').click();
  await alice.sees('said meanwhile');
}
