import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ChatList } from '../src/chats.js';

const chat = (id, day, fields = {}) => ({
  chat_id: id, room_name: `chat-${id}`, created_at: `2026-05-${day}T10:00:00.000000Z`, created_by: 'alice',
  other_user: { user_id: `user-${id}`, name: null, avatar_url: null, online: false, last_seen_at: null },
  last_message: null, last_seq: 0, last_ev: 0, read_seq: 0, peer_read_seq: 0, unread_count: 0, ...fields,
});
const message = (chatId, seq, day) => ({
  message_id: `${chatId}${seq}`, chat_id: chatId, seq, ev: seq, sender_id: 'bob', text: 'hi',
  created_at: `2026-05-${day}T11:00:00.000000Z`,
});
const order = (chats) => chats.list().map(({ chat_id: id }) => id).join('');

test('the latest activity stands first', () => {
  const chats = new ChatList();
  chats.setTop([chat('a', '03'), chat('b', '02'), chat('c', '01')], null);
  assert.equal(order(chats), 'abc');
  const body = message('c', 1, '09');
  assert.equal(chats.apply({ type: 'message.created', chat_id: 'c', ev: 1, message: body }), true);
  assert.equal(order(chats), 'cab');
});

test('what should be in the top of the list and is not, is gone; what lies below stays', () => {
  const chats = new ChatList();
  chats.setTop([chat('a', '05'), chat('b', '04'), chat('c', '03')], 'cursor');
  chats.addPage('cursor', [chat('d', '02')], null);
  assert.equal(chats.next, null);
  chats.setTop([chat('a', '05'), chat('c', '03')], 'cursor');
  assert.equal(order(chats), 'acd');
  chats.setTop([chat('a', '05')], null);
  assert.equal(order(chats), 'a');
});

test('an answer that was overtaken brings the person up to date, not the messages back', () => {
  const chats = new ChatList();
  chats.put(chat('a', '05', { last_ev: 7, unread_count: 3 }));
  const stale = chat('a', '05', { last_ev: 6, unread_count: 2 });
  stale.other_user.online = true;
  chats.put(stale);
  assert.equal(chats.get('a').unread_count, 3);
  assert.equal(chats.get('a').other_user.online, true);
});

test('presence of those who are followed is not taken from a chat that came along', () => {
  const chats = new ChatList();
  chats.put(chat('a', '05'));
  chats.setPresence('user-a', true);
  const user = { user_id: 'user-a', name: 'Ann', avatar_url: null, online: false, last_seen_at: null };
  const told = { type: 'chat.updated', chat: chat('a', '05', { last_ev: 1, other_user: user }), total_unread: 0, epoch: 'e' };
  chats.tell(told, { keepPresence: true });
  assert.deepEqual(chats.get('a').other_user, { ...user, online: true });
  chats.put(told.chat, 0);
  assert.equal(chats.get('a').other_user.online, true, 'nor from an answer that was asked for before');
  chats.put(told.chat);
  assert.equal(chats.get('a').other_user.online, false);
});

test('a chat is found by its name as well', () => {
  const chats = new ChatList();
  chats.put(chat('a', '05'));
  assert.equal(chats.get('chat-a').chat_id, 'a');
});

test('presence changes the chats with that person only', () => {
  const chats = new ChatList();
  chats.setTop([chat('a', '05'), chat('b', '04')], null);
  assert.equal(chats.apply({ type: 'presence', user_id: 'user-b', online: true, last_seen_at: null }), true);
  assert.equal(chats.apply({ type: 'presence', user_id: 'user-b', online: true, last_seen_at: null }), false);
  assert.deepEqual(chats.list().map(({ other_user: user }) => user.online), [false, true]);
});
