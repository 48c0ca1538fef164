import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { createWords, formatDay, pickLanguage, t as own, wordKeys } from '../i18n.js';

test('both languages have the same words', () => {
  assert.deepEqual(wordKeys('ru').sort(), wordKeys('en').sort());
});

test('every word that the page asks for exists', () => {
  const page = readFileSync(new URL('../index.html', import.meta.url), 'utf8');
  const asked = [...page.matchAll(/data-t(?:-\w+)?="(\w+)"/g)].map(([, key]) => key);
  assert.ok(asked.length > 20);
  for (const key of asked) assert.ok(wordKeys('en').includes(key), key);
});

test('Russian counts in three forms', () => {
  const t = createWords('ru');
  assert.equal(t('unread', { count: 1 }), '1 непрочитанное сообщение');
  assert.equal(t('unread', { count: 22 }), '22 непрочитанных сообщения');
  assert.equal(t('unread', { count: 11 }), '11 непрочитанных сообщений');
});

test('a value is put in as it is', () => {
  assert.equal(createWords('en')('signedInAs', { name: '{name} $& <b>' }), 'Signed in as {name} $& <b>');
});

test('the language follows the browser', () => {
  assert.equal(pickLanguage('ru-RU'), 'ru');
  assert.equal(pickLanguage('RU'), 'ru');
  assert.equal(pickLanguage('run'), 'en');
  assert.equal(pickLanguage(undefined), 'en');
});

test('days have names while they are near', () => {
  const now = new Date(2026, 2, 1, 0, 5);
  assert.equal(formatDay(new Date(2026, 2, 1, 0, 1).toISOString(), now), own('today'));
  assert.equal(formatDay(new Date(2026, 1, 28, 23, 59).toISOString(), now), own('yesterday'));
});
