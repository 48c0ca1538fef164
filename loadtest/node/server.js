#!/usr/bin/env node
// A plain chat service, as one would write it with fastify, pg, ioredis and ws: what Beseda is compared with.
//
//   npm ci && cd .. && loadtest local --against node/server.js latency --rate 200
//
// It answers the calls of the load test with the same fields and takes the same settings, and does the same
// work once: a message, its chat's number, both counters, a publication. It has none of the promises: no
// outbox, so a crash or a fault of Redis loses what was to be published; no resume; no retry that finds the
// message of before; no groups, presence, limits or validation.

import { createHmac, randomUUID, timingSafeEqual } from 'node:crypto';
import { createServer } from 'node:http';
import fastify from 'fastify';
import { Redis } from 'ioredis';
import pg from 'pg';
import { WebSocketServer } from 'ws';

const { DATABASE_URL, REDIS_URL, BESEDA_JWT_HS256_SECRET, BESEDA_LISTEN, BESEDA_INTERNAL_LISTEN } = process.env;

// bigint as a number: the numbers of a chat stay far below 2^53. Times as Postgres writes them.
pg.types.setTypeParser(20, Number);
pg.types.setTypeParser(1184, (text) => `${text.replace(' ', 'T').replace(/\+00$/, '')}Z`);

const pool = new pg.Pool({ connectionString: DATABASE_URL, max: 10, options: '-c TimeZone=UTC' });
const redis = new Redis(REDIS_URL);
const subscriber = new Redis(REDIS_URL);

// A named statement is prepared once a connection.
const query = (name, text, values) => pool.query({ name, text, values });

await pool.query(`
  SELECT pg_advisory_xact_lock(1);
  CREATE TABLE IF NOT EXISTS chats (
    chat_id uuid PRIMARY KEY, room_name text NOT NULL, user_lo text NOT NULL, user_hi text NOT NULL,
    last_seq bigint NOT NULL DEFAULT 0, active_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(), UNIQUE (user_lo, user_hi));
  CREATE TABLE IF NOT EXISTS members (
    chat_id uuid NOT NULL, user_id text NOT NULL, read_seq bigint NOT NULL DEFAULT 0,
    unread bigint NOT NULL DEFAULT 0, PRIMARY KEY (chat_id, user_id));
  CREATE INDEX IF NOT EXISTS members_by_user ON members (user_id, chat_id);
  CREATE TABLE IF NOT EXISTS messages (
    chat_id uuid NOT NULL, seq bigint NOT NULL, message_id uuid NOT NULL, sender_id text NOT NULL,
    client_msg_id text, text text NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (chat_id, seq));`);

// Verified tokens, as Beseda remembers them too.
const verified = new Map();

function userOf(request) {
  const token = request.headers.authorization?.slice('Bearer '.length) ?? '';
  let user = verified.get(token);
  if (user === undefined) {
    const [head, claims, signature] = token.split('.');
    const expected = createHmac('sha256', BESEDA_JWT_HS256_SECRET).update(`${head}.${claims}`).digest();
    const given = Buffer.from(signature ?? '', 'base64url');
    const { sub, exp } = JSON.parse(Buffer.from(claims ?? '', 'base64url').toString() || '{}');
    if (given.length !== expected.length || !timingSafeEqual(given, expected) || exp * 1000 < Date.now()) {
      throw Object.assign(new Error('unauthorized'), { statusCode: 401 });
    }
    user = sub;
    verified.set(token, user);
  }
  return user;
}

const message = (row) => ({
  message_id: row.message_id, chat_id: row.chat_id, seq: row.seq, ev: row.seq, type: 'text',
  sender_id: row.sender_id, text: row.text, metadata: null, mentions: [], system: null,
  client_msg_id: row.client_msg_id, created_at: row.sent_at, edited_at: null, deleted_at: null,
});

const chat = (row) => ({
  chat_id: row.chat_id, room_name: row.room_name, kind: 'direct', title: null, avatar_url: null, metadata: null,
  member_count: 2, created_at: row.created_at, created_by: row.user_lo,
  other_user: { user_id: row.other, name: null, avatar_url: null, online: false, last_seen_at: null },
  role: 'member', settings: null, receipts: true, last_message: row.seq === null ? null : message(row),
  last_seq: row.last_seq, last_ev: row.last_seq, first_seq: 1, read_seq: row.read_seq, peer_read_seq: 0,
  unread_count: row.unread, unread_mentions: 0, notify: 'all', pinned: false, archived: false,
});

const CHATS = `
  SELECT c.*, m.read_seq, m.unread, CASE WHEN c.user_lo = $1 THEN c.user_hi ELSE c.user_lo END AS other,
         g.seq, g.message_id, g.sender_id, g.client_msg_id, g.text, g.created_at AS sent_at
    FROM members m JOIN chats c USING (chat_id)
    LEFT JOIN messages g ON g.chat_id = c.chat_id AND g.seq = c.last_seq
   WHERE m.user_id = $1`;

const app = fastify();

app.post('/api/v1/chats/', async (request, reply) => {
  const users = [userOf(request), request.body.user_id].sort();
  const room = randomUUID().replaceAll('-', '').slice(0, 22);
  const { rowCount } = await query('open', `
    WITH c AS (INSERT INTO chats (chat_id, room_name, user_lo, user_hi) VALUES (gen_random_uuid(), $1, $2, $3)
               ON CONFLICT DO NOTHING RETURNING chat_id)
    INSERT INTO members (chat_id, user_id) SELECT chat_id, unnest(ARRAY[$2, $3]) FROM c`, [room, ...users]);
  const { rows } = await query('opened', `${CHATS} AND c.user_lo = $2 AND c.user_hi = $3`, [userOf(request), ...users]);
  reply.code(rowCount > 0 ? 201 : 200);
  return { ...chat(rows[0]), created: rowCount > 0 };
});

app.get('/api/v1/chats/', async (request) => {
  const { rows } = await query('list', `${CHATS} ORDER BY c.active_at DESC LIMIT $2`,
    [userOf(request), request.query.limit ?? 20]);
  return { results: rows.map(chat), next: null };
});

app.get('/api/v1/chats/unread/', async (request) => {
  const { rows } = await query('unread', `
    SELECT c.chat_id, c.room_name, m.unread AS unread_count, c.last_seq, m.read_seq
      FROM members m JOIN chats c USING (chat_id) WHERE m.user_id = $1 ORDER BY c.active_at DESC`, [userOf(request)]);
  const chats = rows.map((row) => ({ ...row, unread_mentions: 0, notify: 'all' }));
  const total = chats.reduce((sum, one) => sum + one.unread_count, 0);
  return { total, total_mentions: 0, badge: total, chats };
});

app.get('/api/v1/chats/:chat/', async (request, reply) => {
  const { rows } = await query('chat', `${CHATS} AND c.chat_id = $2`, [userOf(request), request.params.chat]);
  return rows.length > 0 ? chat(rows[0]) : reply.code(404).send({});
});

app.post('/api/v1/chats/:chat/messages/', async (request, reply) => {
  const { text, client_msg_id: key = null } = request.body;
  const { rows } = await query('send', `
    WITH me AS (SELECT chat_id FROM members WHERE chat_id = $1 AND user_id = $2),
         c AS (UPDATE chats SET last_seq = last_seq + 1, active_at = now()
                WHERE chat_id = (SELECT chat_id FROM me) RETURNING chat_id, last_seq),
         u AS (UPDATE members m SET unread = unread + 1 FROM c WHERE m.chat_id = c.chat_id AND m.user_id <> $2)
    INSERT INTO messages (chat_id, seq, message_id, sender_id, client_msg_id, text)
    SELECT chat_id, last_seq, $3, $2, $4, $5 FROM c RETURNING *, created_at AS sent_at`,
  [request.params.chat, userOf(request), randomUUID(), key, text]);
  if (rows.length === 0) return reply.code(404).send({});
  const created = message(rows[0]);
  await redis.publish(`chat:${created.chat_id}`,
    JSON.stringify({ type: 'message.created', chat_id: created.chat_id, ev: created.ev, message: created }));
  return reply.code(201).send(created);
});

app.get('/api/v1/chats/:chat/messages/', async (request, reply) => {
  const user = userOf(request);
  const limit = Number(request.query.limit ?? 50);
  const { rows } = await query('history', `
    SELECT c.last_seq, g.* FROM members me JOIN chats c USING (chat_id)
      LEFT JOIN LATERAL (SELECT g.*, g.created_at AS sent_at FROM messages g
                          WHERE g.chat_id = c.chat_id AND g.seq < $3 ORDER BY g.seq DESC LIMIT $4) g ON true
     WHERE me.chat_id = $1 AND me.user_id = $2`,
  [request.params.chat, user, request.query.before ?? Number.MAX_SAFE_INTEGER, limit]);
  if (rows.length === 0) return reply.code(404).send({});
  const results = rows.filter((row) => row.seq !== null).reverse().map(message);
  const first = results[0]?.seq ?? 1;
  const { last_seq: head } = rows[0];
  return {
    results, has_more_before: first > 1, has_more_after: false, before: first > 1 ? first : null, after: null,
    head_seq: head, head_ev: head, epoch: '1', read_seq: 0, peer_read_seq: 0,
  };
});

// Sockets by chat; the first one of a chat subscribes.
const sockets = new Map();
subscriber.on('messageBuffer', (channel, frame) => {
  for (const socket of sockets.get(channel.toString()) ?? []) socket.send(frame, { binary: false });
});

const sides = new WebSocketServer({ noServer: true, perMessageDeflate: false });

app.server.on('upgrade', async (request, line, head) => {
  const url = new URL(request.url, 'http://localhost');
  const chatId = url.pathname.split('/')[3];
  const { rows } = await query('enter', `
    SELECT c.last_seq FROM members JOIN chats c USING (chat_id) WHERE chat_id = $1 AND user_id = $2`,
  [chatId, userOf(request)]);
  if (rows.length === 0) return line.destroy();
  const channel = `chat:${chatId}`;
  return sides.handleUpgrade(request, line, head, async (socket) => {
    const present = sockets.get(channel);
    if (present === undefined) sockets.set(channel, new Set([socket]));
    else present.add(socket);
    socket.on('close', () => sockets.get(channel)?.delete(socket));
    await subscriber.subscribe(channel);
    socket.send(JSON.stringify({ type: 'hello', heartbeat_ms: 25000 }));
    socket.send(JSON.stringify({ type: 'subscribed', chat_id: chatId, ev: rows[0].last_seq, epoch: '1' }));
    socket.send(JSON.stringify({ type: 'synced', chat_id: chatId, ev: rows[0].last_seq }));
  });
});

setInterval(() => sides.clients.forEach((socket) => socket.ping()), 25_000);

const [host, port] = BESEDA_LISTEN.split(':');
await app.listen({ host, port });
const [, internal] = BESEDA_INTERNAL_LISTEN.split(':');
createServer((_, answer) => answer.end('ready')).listen(internal, host);
