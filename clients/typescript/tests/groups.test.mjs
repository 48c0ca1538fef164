/** Groups: what the vectors do not reach. */
import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { ChatList } from '../src/chats.js';
import { Typing } from '../src/typing.js';
import { chat, message, page, sleep, until, world } from './fake.mjs';

const group = (id, more = {}) => chat(id, {
  kind: 'group', title: `group ${id}`, other_user: null, peer_read_seq: null, member_count: 3, role: 'member',
  settings: { post: 'members', invite: 'admins', history: 'all', join: 'invite', slow_mode_s: 0 }, ...more,
});
const counters = ({ chat_id, unread_count, unread_mentions, notify }) => ({ chat_id, unread_count, unread_mentions, notify });
const told = (body) => ({ type: 'chat.updated', chat: body, total_unread: 0, epoch: 'e' });

test('the badge is that of the last summary, with what has become of the chats since', () => {
  const chats = new ChatList();
  const all = [
    group('a', { unread_count: 5, unread_mentions: 1 }),
    group('b', { unread_count: 7, unread_mentions: 2, notify: 'mentions' }),
    group('c', { unread_count: 9, unread_mentions: 3, notify: 'none' }),
  ];
  chats.setTop(all, 'cursor');
  // Of a chat that is not loaded: four more, one of them a mention.
  chats.setSummary({
    total: 25, total_mentions: 7, badge: 11,
    chats: [...all.map(counters), { chat_id: 'd', unread_count: 4, unread_mentions: 1, notify: 'all' }],
  });
  assert.deepEqual([chats.badge, chats.totalMentions, chats.totalUnread], [11, 7, 25]);
  chats.tell(told(group('a', { unread_count: 6, unread_mentions: 2 })));
  assert.deepEqual([chats.badge, chats.totalMentions], [12, 8]);
  chats.tell(told(group('b', { unread_count: 7, unread_mentions: 2, notify: 'none' })));
  assert.equal(chats.badge, 10);
  chats.tell(told(group('a', { unread_count: 6, unread_mentions: 2, archived: true })));
  assert.equal(chats.badge, 4);
  chats.remove('d');
  assert.deepEqual([chats.badge, chats.totalMentions], [0, 7]);
});

test('who types in a group is known one by one', () => {
  mock.timers.enable({ apis: ['setTimeout'] });
  let changes = 0;
  const typing = new Typing(() => { changes += 1; });
  typing.set('g', 'bob', true);
  typing.set('g', 'carol', true);
  typing.set('g', 'bob', true);
  assert.deepEqual([typing.who('g'), changes], [['bob', 'carol'], 2]);
  typing.take({ type: 'message.created', chat_id: 'g', ev: 1, message: message(1, { sender_id: 'bob' }) });
  assert.deepEqual(typing.who('g'), ['carol']);
  typing.take({ type: 'member.left', chat_id: 'g', ev: 2, user_id: 'carol', by: 'carol', reason: 'left' });
  assert.equal(typing.has('g'), false);
  typing.set('g', 'dave', true);
  mock.timers.tick(60_000);
  assert.deepEqual(typing.who('g'), []);
  mock.timers.reset();
});

test('a group that is made is in the list, and one that is left is gone, once', async () => {
  const gone = [];
  const { client, calls, live, socket } = world({}, ({ method, path }) => {
    if (path === '/chats/' && method === 'POST') return group('g', { role: 'owner' });
    if (path === '/chats/g/members/alice/') return new Response(null, { status: 204 });
    return null;
  });
  client.on('gone', (detail) => gone.push(detail));
  await live();
  assert.equal(await client.groups.create({ title: 'group g', user_ids: ['bob'], client_chat_id: 'k' }), 'g');
  assert.equal(client.chats.get('g').role, 'owner');
  assert.deepEqual(calls.find(({ method, path }) => method === 'POST' && path === '/chats/').body,
    { kind: 'group', title: 'group g', user_ids: ['bob'], client_chat_id: 'k' });
  await client.groups.leave('g');
  socket().give({ type: 'chat.deleted', chat_id: 'g', total_unread: 0, reason: 'left', epoch: 'e' });
  assert.equal(client.chats.get('g'), undefined);
  assert.deepEqual(gone, [{ chatId: 'g', reason: 'left' }]);
  client.stop();
});

test('mentions go out with the message, and an edit leaves them as they are', async () => {
  const { client, calls, posts, live } = world({}, ({ method }) =>
    (method === 'PATCH' ? message(1, { sender_id: 'alice', text: 'new', edited_at: '2026-01-01T00:00:01Z' }) : null));
  await live();
  client.send('c', 'hello @bob', { mentions: ['bob'] });
  client.send('c', 'hello');
  await until(() => posts().length === 2);
  assert.deepEqual(posts().map(({ body }) => body.mentions), [['bob'], undefined]);
  await client.edit(message(1), 'new');
  await client.edit(message(1), 'new', 'all');
  assert.deepEqual(calls.filter(({ method }) => method === 'PATCH').map(({ body }) => body), [{ text: 'new' }, { text: 'new', mentions: 'all' }]);
  client.stop();
});

test('people are asked for once, and those who are told of are not', async () => {
  let changes = 0;
  const { client, calls, live, socket } = world({}, ({ path }) => {
    const [, userId] = /^\/users\/(.+)\/$/.exec(path) ?? [];
    if (userId === 'gone') return Response.json({ code: 'user_not_found' }, { status: 404 });
    return userId ? { user_id: userId, name: userId.toUpperCase(), avatar_url: null, online: false, last_seen_at: null } : null;
  });
  client.on('people', () => { changes += 1; });
  await live();
  await client.open('c');
  client.people.need(['bob', 'gone', 'bob']);
  client.people.need(['bob']);
  await until(() => client.people.get('bob'));
  await sleep(10);
  client.people.need(['bob', 'gone']);
  assert.equal(client.people.get('bob').name, 'BOB');
  assert.equal(client.people.get('gone'), null);
  const { id } = socket().of('subscribe').at(-1);
  socket().give({
    type: 'subscribed', id, chat_id: 'c', head_ev: 0, head_seq: 0, epoch: 'e', read_seq: 0, peer_read_seq: 0, receipts: [], online: ['bob'],
    online_count: 2,
  });
  assert.equal(client.people.get('bob').online, true);
  const user = { user_id: 'carol', name: 'Carol', avatar_url: null, online: true, last_seen_at: null };
  const member = { user, role: 'member', joined_at: '2026-01-01T00:00:00Z', read_seq: 0, silenced_until: null };
  socket().give({ type: 'member.joined', chat_id: 'c', ev: 1, members: [member], by: 'bob' });
  client.people.need(['carol']);
  assert.deepEqual(client.people.get('carol'), user);
  assert.deepEqual(calls.filter(({ path }) => path.startsWith('/users/')).map(({ path }) => path), ['/users/bob/', '/users/gone/']);
  assert.equal(changes, 3);
  client.stop();
});

test('archived chats are read when they are asked for, page by page', async () => {
  const { client, live } = world({}, ({ path, query }) => {
    if (path !== '/chats/' || query.get('filter') !== 'archived') return null;
    return query.has('cursor') ? { results: [group('y', { archived: true })], next: null }
      : { results: [group('x', { archived: true })], next: 'more' };
  });
  await live();
  await client.loadArchived();
  assert.deepEqual(client.chats.archived().map(({ chat_id: id }) => id).sort(), ['x', 'y']);
  assert.deepEqual(client.chats.list().map(({ chat_id: id }) => id), ['c']);
  await client.refresh();
  assert.equal(client.chats.archived().length, 2, 'a list that leaves them out does not take them away');
  client.stop();
});

test('a page that frames overtook does not take the position back', async () => {
  let answer;
  let pages = 0;
  const { client, live, socket } = world({}, ({ path }) => {
    if (!path.endsWith('/messages/')) return null;
    pages += 1;
    return pages === 1 ? page(1, 3) : new Promise((resolve) => { answer = resolve; });
  });
  await live();
  const timeline = await client.open('c');
  const { id } = socket().of('subscribe').at(-1);
  socket().give({ type: 'subscribed', id, chat_id: 'c', head_ev: 3, head_seq: 3, epoch: 'e', read_seq: 0, peer_read_seq: 0, receipts: [], online: [], online_count: 2 });
  socket().give({ type: 'reset', chat_id: 'c', head_ev: 3, epoch: 'e', reason: 'too_far' });
  socket().give({ type: 'synced', chat_id: 'c', ev: 3 });
  await until(() => answer);
  socket().give({ type: 'message.created', chat_id: 'c', ev: 4, message: message(4) });
  answer(page(1, 3));
  await until(() => timeline.messages.length === 4);
  socket().give({ type: 'message.created', chat_id: 'c', ev: 5, message: message(5) });
  assert.deepEqual(timeline.position, { ev: 5, epoch: 'e' });
  assert.equal(socket().of('subscribe').length, 1, 'nothing was missing');
  client.stop();
});
