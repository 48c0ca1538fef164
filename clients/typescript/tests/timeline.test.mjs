import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Timeline } from '../src/timeline.js';

const AT = '2026-05-01T12:00:00.000000Z';
const message = (seq, fields = {}) => ({
  message_id: `m${seq}`, chat_id: 'c', seq, ev: seq, type: 'text', sender_id: 'bob', text: `text ${seq}`, metadata: null,
  mentions: [], system: null, reply_to: null, attachments: [], reactions: [], pinned_at: null, client_msg_id: null, created_at: AT, edited_at: null, deleted_at: null, ...fields,
});
const range = (from, to) => Array.from({ length: to - from + 1 }, (_, index) => message(from + index));
const page = (from, to, { head = to, ev = head } = {}) => ({
  results: range(from, to), has_more_before: from > 1, has_more_after: to < head,
  head_seq: head, head_ev: ev, epoch: 'e', read_seq: 0, peer_read_seq: 0,
});
const created = (body) => ({ type: 'message.created', chat_id: 'c', ev: body.ev, message: body });
const seqs = (timeline) => timeline.messages.map(({ seq }) => seq);
const opened = (...pageOf) => {
  const timeline = new Timeline('c', 'alice');
  timeline.replace(page(...pageOf));
  return timeline;
};

test('an event is taken once', () => {
  const timeline = opened(1, 3);
  assert.equal(timeline.apply(created(message(4))), 'news');
  assert.equal(timeline.apply(created(message(4))), 'old');
  assert.equal(timeline.apply(created(message(2))), 'old');
  assert.deepEqual(seqs(timeline), [1, 2, 3, 4]);
  assert.deepEqual(timeline.position, { ev: 4, epoch: 'e' });
});

test('a resume gives changes by ev, and messages still stand by seq', () => {
  const timeline = opened(1, 2);
  timeline.apply(created(message(4, { ev: 4 })));
  timeline.apply({ ...created(message(3, { ev: 5, edited_at: AT, text: 'new' })), type: 'message.updated' });
  assert.deepEqual(seqs(timeline), [1, 2, 3, 4]);
  assert.equal(timeline.messages[2].text, 'new');
});

test('an older version of a message does not replace a newer one', () => {
  const timeline = opened(1, 2);
  timeline.accept(message(2, { ev: 9, text: 'edited' }));
  timeline.accept(message(2, { ev: 2 }));
  assert.equal(timeline.messages[1].text, 'edited');
});

test('a deletion keeps the place, known message or not', () => {
  const timeline = opened(1, 2);
  timeline.apply({ type: 'message.deleted', chat_id: 'c', ev: 3, message_id: 'm2', seq: 2, deleted_at: AT });
  timeline.apply({ type: 'message.deleted', chat_id: 'c', ev: 5, message_id: 'm3', seq: 3, deleted_at: AT });
  assert.deepEqual(timeline.messages.map(({ text, sender_id }) => [text, sender_id]),
    [['text 1', 'bob'], ['', 'bob'], ['', null]]);
});

test("another person's client_msg_id means nothing here", () => {
  const timeline = opened(1, 1);
  timeline.pending.push({ client_msg_id: 'x', text: 'hi', created_at: AT, failed: false, error: null });
  timeline.apply(created(message(2, { client_msg_id: 'x' })));
  assert.equal(timeline.pending.length, 1);
});

test('a window in the past leaves the newest out, and reaches it page by page', () => {
  const timeline = opened(10, 20, { head: 30 });
  timeline.apply(created(message(31)));
  assert.equal(timeline.highSeq, 20);
  assert.equal(timeline.headSeq, 31);
  timeline.append(page(21, 31));
  assert.equal(timeline.atEnd, true);
  timeline.prepend(page(1, 9, { head: 31 }));
  assert.deepEqual(seqs(timeline), range(1, 31).map(({ seq }) => seq));
  assert.equal(timeline.hasMoreBefore, false);
});

test('a page that was overtaken by a frame does not bring the old text back', async () => {
  const timeline = opened(10, 20, { head: 20 });
  let answer;
  const loading = timeline.load(() => new Promise((resolve) => { answer = resolve; }), (old) => timeline.prepend(old));
  timeline.apply({ type: 'message.updated', chat_id: 'c', ev: 21, message: message(5, { ev: 21, text: 'edited' }) });
  answer(page(1, 9, { head: 20 }));
  await loading;
  assert.equal(timeline.messages[4].text, 'edited');
});

test('a page asked for before a reset is thrown away', async () => {
  const timeline = opened(10, 20);
  let answer;
  const loading = timeline.load(() => new Promise((resolve) => { answer = resolve; }), (old) => timeline.prepend(old));
  timeline.apply({ type: 'reset', chat_id: 'c', head_ev: 3, epoch: 'f', reason: 'unknown_position' });
  answer(page(1, 9));
  assert.equal(await loading, false);
  assert.equal(timeline.lowSeq, 10);
  assert.deepEqual(timeline.position, { ev: 3, epoch: 'f' });
});

test('a jump to another place keeps the position of the socket', () => {
  const timeline = opened(90, 100, { ev: 150 });
  timeline.replace(page(1, 20, { head: 100, ev: 160 }), { keepPosition: true });
  assert.equal(timeline.ev, 150);
  assert.equal(timeline.atEnd, false);
});

test("one's own messages and tombstones are not unread", () => {
  const timeline = opened(1, 2);
  timeline.readSeq = 2;
  timeline.accept(message(3, { sender_id: 'alice' }));
  timeline.accept(message(4, { deleted_at: AT, text: '' }));
  assert.equal(timeline.hasUnread, false);
  timeline.accept(message(5));
  assert.equal(timeline.hasUnread, true);
});

test('a number that is missing while all of them should come is noticed, and nothing is taken', () => {
  const timeline = opened(1, 2);
  timeline.apply({ type: 'synced', chat_id: 'c', ev: 2 });
  assert.equal(timeline.apply(created(message(3))), 'news');
  assert.equal(timeline.apply(created(message(5))), 'gap');
  assert.deepEqual(timeline.position, { ev: 3, epoch: 'e' });
  timeline.apply({ type: 'catchup', chat_id: 'c', after_ev: 3 });
  assert.equal(timeline.apply(created(message(5))), 'news');
});
