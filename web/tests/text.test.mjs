import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  dayKey, excerpt, hue, initials, isComposing, isSendable, readFragment, scalarLength, segments,
} from '../text.js';

test('highlights cut a text without losing or doubling a part of it', () => {
  assert.deepEqual(segments('find me here', [[5, 2]]), [
    { text: 'find ', hit: false }, { text: 'me', hit: true }, { text: ' here', hit: false },
  ]);
  assert.deepEqual(segments('abcdef', [[3, 2], [1, 3]]), [
    { text: 'a', hit: false }, { text: 'bcde', hit: true }, { text: 'f', hit: false },
  ]);
  assert.deepEqual(segments('ab', [[1, 99], [50, 2]]), [{ text: 'a', hit: false }, { text: 'b', hit: true }]);
  assert.deepEqual(segments('ab', []), [{ text: 'ab', hit: false }]);
  assert.deepEqual(segments('', [[0, 1]]), []);
});

test('highlights count UTF-16 code units', () => {
  const text = '🗺️ map';
  assert.deepEqual(segments(text, [[text.indexOf('map'), 3]]).at(-1), { text: 'map', hit: true });
});

test('an excerpt keeps its first hit marked and no surrogate pair apart', () => {
  const text = '🙂'.repeat(60) + 'needle' + '🙂'.repeat(200);
  for (let before = 38; before < 42; before += 1) {
    const part = excerpt(text, [[120, 6]], before, 100);
    const [[start, length]] = part.ranges;
    assert.equal(part.text.slice(start, start + length), 'needle');
    assert.ok(part.text.isWellFormed?.() ?? true);
    assert.ok(part.text.startsWith('…🙂') && part.text.endsWith('🙂…'));
  }
  assert.deepEqual(excerpt('short', [[0, 5]]), { text: 'short', ranges: [[0, 5]] });
});

test('length is counted as the server counts it', () => {
  assert.equal(scalarLength('a🙂é'), 3);
  assert.ok(isSendable('🙂'.repeat(4000)));
  assert.ok(!isSendable('a'.repeat(4001)));
  assert.ok(!isSendable(' \n\t\u00a0'));
  assert.ok(!isSendable('a\0b'));
});

test('a fragment may carry a token, a chat, and the way into one', () => {
  const nothing = { token: null, chat: null, invite: null, join: null };
  assert.deepEqual(readFragment('#token=a.b-c_d.e&chat=x'), { ...nothing, token: 'a.b-c_d.e', chat: 'x' });
  assert.deepEqual(readFragment('#invite=a-b_c'), { ...nothing, invite: 'a-b_c' });
  assert.deepEqual(readFragment('#join=x'), { ...nothing, join: 'x' });
  assert.deepEqual(readFragment(''), nothing);
});

test('people without a picture get letters and a colour', () => {
  assert.equal(initials('Anna Maria Lind'), 'AM');
  assert.equal(initials('анна'), 'А');
  assert.equal(initials('🙂 smile'), '🙂S');
  assert.equal(initials('  '), '?');
  assert.ok(hue('someone') >= 0 && hue('someone') < 360);
});

test('a day is the local one', () => {
  assert.equal(dayKey(new Date(2026, 0, 5, 23, 59)), '2026-01-05');
});

test('a key of an input method is known, also the one with which Safari has ended the composition', () => {
  assert.equal(isComposing({ isComposing: true, keyCode: 229 }), true);
  assert.equal(isComposing({ isComposing: false, keyCode: 229 }), true);
  assert.equal(isComposing({ isComposing: false, keyCode: 13 }), false);
});
