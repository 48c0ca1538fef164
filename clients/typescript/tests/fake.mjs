/** A server that the test plays: calls by `answer`, the socket by hand. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from '../src/index.js';

export const tokenOf = (sub, more = {}) => `e30.${Buffer.from(JSON.stringify({ sub, ...more })).toString('base64url')}.sig`;

export const message = (seq, more = {}) => ({
  chat_id: 'c', message_id: `m${seq}`, seq, ev: seq, type: 'text', sender_id: 'bob', text: `t${seq}`, metadata: null,
  mentions: [], system: null, reply_to: null, attachments: [], reactions: [], pinned_at: null, client_msg_id: null, created_at: '2026-01-01T00:00:00Z', edited_at: null, deleted_at: null, ...more,
});

export const chat = (id, more = {}) => ({
  chat_id: id, room_name: `chat ${id}`, kind: 'direct', title: null, avatar_url: null, metadata: null, member_count: 2,
  role: 'member', settings: null, receipts: true, first_seq: 1, unread_mentions: 0, notify: 'all', pinned: false, archived: false,
  other_user: { user_id: `other of ${id}`, name: null, online: false, last_seen_at: null },
  last_message: null, last_seq: 0, last_ev: 0, read_seq: 0, peer_read_seq: 0, unread_count: 0,
  created_at: '2026-01-01T00:00:00Z', ...more,
});

export const page = (from, to, more = {}) => ({
  results: Array.from({ length: to - from + 1 }, (_, index) => message(from + index)),
  has_more_before: from > 1, has_more_after: false, head_ev: to, head_seq: to, epoch: 'e', read_seq: 0, peer_read_seq: 0, ...more,
});

/** Waits, within reason, until something is so. */
export async function until(check) {
  for (let turn = 0; turn < 2000; turn += 1) {
    if (check()) return;
    await sleep(5);
  }
  throw new Error('it never came to be');
}

/**
 * @param {Partial<import('../src/options.js').Options>} options
 * @param {(call: {method: string, path: string, query: URLSearchParams, body: any, sub: string}) => unknown} answer
 *   null: what a server with the one empty chat `c` would say
 */
export function world(options, answer = () => null) {
  const sockets = [];
  const calls = [];
  class Socket {
    readyState = 1;
    sent = [];
    constructor(url) { this.url = url; sockets.push(this); }
    send(text) {
      const frame = JSON.parse(text);
      this.sent.push(frame);
      // Later, as over a line.
      setImmediate(() => this.onsent?.(frame));
    }
    close() { this.readyState = 3; }
    give(frame) { this.onmessage({ data: JSON.stringify(frame) }); }
    of(type) { return this.sent.filter((frame) => frame.type === type); }
  }
  const client = new Client({
    url: 'http://x', followed: 0, WebSocket: Socket, random: () => 0,
    ...(options.getToken ? {} : { token: tokenOf('alice') }),
    fetch: async (address, { method, body, headers = {}, signal }) => {
      const { pathname, searchParams: query } = new URL(address);
      const path = pathname.replace('/api/v1', '');
      const sub = JSON.parse(Buffer.from(headers.Authorization?.split('.')[1] ?? 'e30', 'base64url')).sub;
      const call = { method, path, query, body: typeof body === 'string' ? JSON.parse(body) : body, sub, headers, signal };
      calls.push(call);
      const given = await answer(call);
      if (given) return given instanceof Response ? given : Response.json(given);
      if (path.endsWith('/connect/')) return Response.json({ ws_url: 'ws://x/' });
      if (path === '/chats/unread/') return Response.json({ total: 0, total_mentions: 0, badge: 0, chats: [] });
      if (path === '/chats/') return Response.json({ results: [chat('c')], next: null });
      if (method === 'POST') {
        const seq = calls.filter((other) => other.path === path).length;
        return Response.json(message(seq, { ...call.body, sender_id: sub }));
      }
      return Response.json(path.endsWith('/messages/') ? page(1, 0) : chat(path.split('/')[2]));
    },
    ...options,
  });
  /** Begins, with a live connection. */
  const live = async () => {
    const started = client.start();
    await until(() => sockets.at(-1)?.readyState === 1);
    sockets.at(-1).give({ type: 'hello', epoch: 'e', heartbeat_ms: 25000 });
    await started;
    // The list that the hello asks for.
    await sleep(5);
  };
  /** The line is cut, and comes back. */
  const reconnect = async () => {
    const count = sockets.length;
    sockets.at(-1).onclose({ code: 1006 });
    await until(() => sockets.length > count);
    sockets.at(-1).give({ type: 'hello', epoch: 'e', heartbeat_ms: 25000 });
  };
  const posts = () => calls.filter(({ method, path }) => method === 'POST' && path.endsWith('/messages/'));
  return { client, sockets, calls, posts, live, reconnect, socket: () => sockets.at(-1) };
}

export { sleep };
