import assert from 'node:assert/strict';
import { test } from 'node:test';
import { happened } from '../happened.js';
import { isMentioned, mentionAt, mentionRanges, mentionsIn } from '../mentions.js';

test('a mention is written from its @ on, which begins a word', () => {
  assert.deepEqual(mentionAt('@', 1), { start: 0, query: '' });
  assert.deepEqual(mentionAt('hi @an', 6), { start: 3, query: 'an' });
  assert.deepEqual(mentionAt('hi @an there', 6), { start: 3, query: 'an' });
  assert.deepEqual(mentionAt('(@Ёл', 4), { start: 1, query: 'Ёл' });
  assert.equal(mentionAt('mail@example.com', 16), null);
  assert.equal(mentionAt('@ann and', 8), null);
  assert.equal(mentionAt('no', 2), null);
});

test('names are found whole, the longest first', () => {
  const found = (text, names) => mentionRanges(text, names).map(([start, length]) => text.slice(start, start + length)).sort();
  assert.deepEqual(found('@Ann Lee and @Ann, not @Anna', ['Ann', 'Ann Lee']), ['@Ann', '@Ann Lee']);
  assert.deepEqual(found('@Аня!', ['Аня']), ['@Аня']);
  assert.deepEqual(found('@Анями', ['Аня']), []);
  assert.deepEqual(found('@🙂x', ['🙂']), []);
  assert.deepEqual(found('nobody', ['Ann']), []);
});

test('a text mentions those who were chosen for it and whose names still stand in it', () => {
  const chosen = new Map([['Ann', 'ann-1'], ['Bob', 'bob-2'], ['all', 'all']]);
  assert.deepEqual(mentionsIn('@Ann, @Ann and @Carol', chosen), ['ann-1']);
  assert.deepEqual(mentionsIn('nobody', chosen), []);
  assert.equal(mentionsIn('@Ann and @all', chosen), 'all');
  assert.deepEqual(mentionsIn('@all', new Map([['all', 'a-person-called-all']])), ['a-person-called-all']);
});

test('everybody is also oneself', () => {
  assert.equal(isMentioned('all', 'alice'), true);
  assert.equal(isMentioned(['alice'], 'alice'), true);
  assert.equal(isMentioned(['bob'], 'alice'), false);
  assert.equal(isMentioned(undefined, 'alice'), false);
});

test('a system message has words for whatever happened', () => {
  const say = (event, userIds, by, more = {}) => happened({ event, user_ids: userIds, by, ...more }, (id, isGone) => (isGone ? `late ${id}` : id.toUpperCase()));
  assert.equal(say('member.joined', ['dave'], 'bob'), 'BOB added DAVE');
  assert.equal(say('member.joined', ['dave'], 'dave'), 'DAVE joined');
  assert.equal(say('member.joined', ['dave'], null), 'DAVE joined');
  assert.match(say('member.joined', ['a', 'b', 'c', 'd', 'e', 'f', 'g'], 'bob'), /^BOB added A, B, C, D, E,? and 2 others$/);
  assert.equal(say('member.left', ['dave'], 'dave'), 'late dave left');
  assert.equal(say('member.removed', ['dave'], 'bob'), 'BOB removed late dave');
  assert.equal(say('owner.changed', ['dave'], 'bob'), 'New owner: DAVE');
  assert.equal(say('chat.changed', [], 'bob', { title: 'Rocks' }), 'BOB changed the title to “Rocks”');
  assert.equal(say('chat.changed', [], null), 'The group was changed');
  assert.equal(say('of.the.future', [], 'bob'), 'BOB changed the group');
  assert.equal(happened(null, String), '');
});
