import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Rooms } from '../src/rooms.js';

const chat = (id, day, fields = {}) => ({
  chat_id: id, room_name: `room-${id}`, created_at: `2026-05-${day}T10:00:00.000000Z`, created_by: 'alice',
  other_user: { user_id: `user-${id}`, name: null, avatar_url: null, online: false, last_seen_at: null },
  last_message: null, last_seq: 0, last_ev: 0, read_seq: 0, peer_read_seq: 0, unread_count: 0, ...fields,
});
const message = (chatId, seq, day) => ({
  message_id: `${chatId}${seq}`, chat_id: chatId, seq, ev: seq, sender_id: 'bob', text: 'hi',
  created_at: `2026-05-${day}T11:00:00.000000Z`,
});
const order = (rooms) => rooms.list().map(({ chat_id: id }) => id).join('');

test('the latest activity stands first', () => {
  const rooms = new Rooms();
  rooms.setTop([chat('a', '03'), chat('b', '02'), chat('c', '01')], null);
  assert.equal(order(rooms), 'abc');
  const body = message('c', 1, '09');
  assert.equal(rooms.apply({ type: 'message.created', chat_id: 'c', ev: 1, message: body }), true);
  assert.equal(order(rooms), 'cab');
});

test('what should be in the top of the list and is not, is gone; what lies below stays', () => {
  const rooms = new Rooms();
  rooms.setTop([chat('a', '05'), chat('b', '04'), chat('c', '03')], 'cursor');
  rooms.addPage('cursor', [chat('d', '02')], null);
  assert.equal(rooms.next, null);
  rooms.setTop([chat('a', '05'), chat('c', '03')], 'cursor');
  assert.equal(order(rooms), 'acd');
  rooms.setTop([chat('a', '05')], null);
  assert.equal(order(rooms), 'a');
});

test('an answer that was overtaken brings the person up to date, not the messages back', () => {
  const rooms = new Rooms();
  rooms.put(chat('a', '05', { last_ev: 7, unread_count: 3 }));
  const stale = chat('a', '05', { last_ev: 6, unread_count: 2 });
  stale.other_user.online = true;
  rooms.put(stale);
  assert.equal(rooms.get('a').unread_count, 3);
  assert.equal(rooms.get('a').other_user.online, true);
});

test('presence of those who are followed is not taken from a chat that came along', () => {
  const rooms = new Rooms();
  rooms.put(chat('a', '05'));
  rooms.setPresence('user-a', true);
  const user = { user_id: 'user-a', name: 'Ann', avatar_url: null, online: false, last_seen_at: null };
  const told = { type: 'chat.updated', chat: chat('a', '05', { last_ev: 1, other_user: user }), total_unread: 0, epoch: 'e' };
  rooms.tell(told, { keepPresence: true });
  assert.deepEqual(rooms.get('a').other_user, { ...user, online: true });
  rooms.put(told.chat, 0);
  assert.equal(rooms.get('a').other_user.online, true, 'nor from an answer that was asked for before');
  rooms.put(told.chat);
  assert.equal(rooms.get('a').other_user.online, false);
});

test('a room is found by its name as well', () => {
  const rooms = new Rooms();
  rooms.put(chat('a', '05'));
  assert.equal(rooms.get('room-a').chat_id, 'a');
});

test('presence changes the rooms with that person only', () => {
  const rooms = new Rooms();
  rooms.setTop([chat('a', '05'), chat('b', '04')], null);
  assert.equal(rooms.apply({ type: 'presence', user_id: 'user-b', online: true, last_seen_at: null }), true);
  assert.equal(rooms.apply({ type: 'presence', user_id: 'user-b', online: true, last_seen_at: null }), false);
  assert.deepEqual(rooms.list().map(({ other_user: user }) => user.online), [false, true]);
});
