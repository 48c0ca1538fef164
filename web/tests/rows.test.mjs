import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Timeline } from '../../clients/typescript/src/timeline.js';
import { rowsOf } from '../rows.js';

const AT = '2026-05-01T12:00:00.000000Z';
const message = (seq, fields = {}) => ({
  message_id: `m${seq}`, chat_id: 'c', seq, ev: seq, type: 'text', sender_id: 'bob', text: `text ${seq}`, metadata: null,
  mentions: [], system: null, client_msg_id: null, created_at: AT, edited_at: null, deleted_at: null, ...fields,
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

test('the echo gives way to the message, whichever way it comes first, under the same key', () => {
  const timeline = opened(1, 1);
  timeline.pending.push({ client_msg_id: 'x', text: 'hi', created_at: AT, failed: false, error: null });
  assert.deepEqual(rowsOf(timeline).filter(({ own }) => own).map(({ key, tick }) => [key, tick]), [['c:x', 'sending']]);
  const sent = message(2, { sender_id: 'alice', client_msg_id: 'x' });
  timeline.apply(created(sent));
  timeline.accept(sent);
  assert.deepEqual(rowsOf(timeline).filter(({ own }) => own).map(({ key, tick }) => [key, tick]), [['c:x', 'sent']]);
  timeline.apply({ type: 'chat.read', chat_id: 'c', ev: 3, user_id: 'bob', read_seq: 2 });
  assert.equal(rowsOf(timeline).at(-1).tick, 'read');
});

test('the line stands above the first message of the other that is not read', () => {
  const timeline = opened(1, 4);
  timeline.readSeq = 2;
  timeline.drawLine();
  const kinds = rowsOf(timeline).map(({ kind, message: body }) => body?.seq ?? kind);
  assert.deepEqual(kinds, ['day', 1, 2, 'new', 3, 4]);
  timeline.lineAfter = null;
  assert.ok(rowsOf(timeline).every(({ kind }) => kind !== 'new'));
});

test('messages of one person that are close together form a group', () => {
  const timeline = opened(1, 2);
  timeline.accept(message(3, { created_at: '2026-05-01T12:20:00.000000Z' }));
  timeline.accept(message(4, { created_at: '2026-05-01T12:21:00.000000Z', sender_id: 'alice' }));
  const groups = rowsOf(timeline).filter(({ kind }) => kind === 'message').map(({ first, last }) => [first, last]);
  assert.deepEqual(groups, [[true, false], [false, true], [true, true], [true, true]]);
});

test('what happened in a group stands between the messages, is not new, and parts what stands together', () => {
  const timeline = opened(1, 1);
  timeline.accept(message(2, { type: 'system', sender_id: null, text: '', system: { event: 'member.left', user_ids: ['dave'], by: 'dave' } }));
  timeline.accept(message(3));
  timeline.readSeq = 1;
  timeline.drawLine();
  assert.deepEqual(rowsOf(timeline).map(({ kind, message: body }) => [kind, body?.seq]),
    [['day', undefined], ['message', 1], ['system', 2], ['new', undefined], ['message', 3]]);
  assert.equal(rowsOf(timeline).at(-1).first, true);
  timeline.readSeq = 3;
  assert.equal(timeline.hasUnread, false);
});

test('in a group a message is read by as many as have read that far', () => {
  const timeline = opened(1, 1);
  timeline.accept(message(2, { sender_id: 'alice' }));
  const read = (user_id, ev) => timeline.apply({ type: 'chat.read', chat_id: 'c', ev, user_id, read_seq: 2 });
  assert.equal(rowsOf(timeline).at(-1).tick, 'sent');
  read('bob', 3);
  read('carol', 4);
  assert.deepEqual([rowsOf(timeline).at(-1).tick, rowsOf(timeline).at(-1).readers], ['read', 2]);
  timeline.apply({ type: 'member.left', chat_id: 'c', ev: 5, user_id: 'bob', by: 'bob', reason: 'left' });
  assert.equal(rowsOf(timeline).at(-1).readers, 1);
});
