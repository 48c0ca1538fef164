/** Runs the protocol's test vectors, `clients/vectors`, against the whole client. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { mock, test } from 'node:test';
import { Client } from '../src/index.js';

const FOLDER = new URL('../../vectors/', import.meta.url);
const CLAIMS = Buffer.from(JSON.stringify({ sub: 'alice' })).toString('base64url');
/** Longer than any back-off. */
const RECONNECT_MS = 60_000;

for (const file of readdirSync(FOLDER).filter((name) => name.endsWith('.json'))) {
  const { title, given = [], scenarios } = JSON.parse(readFileSync(new URL(file, FOLDER), 'utf8'));
  for (const { name, steps } of scenarios) {
    test(`${title}: ${name}`, async () => {
      mock.timers.reset();
      mock.timers.enable({ apis: ['setTimeout', 'Date'] });
      const world = new World();
      for (const [index, step] of [...given, ...steps].entries()) {
        const [[kind, value]] = Object.entries(step);
        await world[kind](value, `step ${index + 1}`);
        await settle();
      }
      world.client.stop();
    });
  }
}

/** Lets what was promised happen, without time passing. */
async function settle() {
  for (let turn = 0; turn < 60; turn += 1) await Promise.resolve();
}

/** The server as a script plays it, with the client that it talks to. Its methods are the steps. */
class World {
  /** Sockets in the order of opening. */
  #sockets = [];
  /** Calls that wait for a step to answer them. */
  #waiting = { history: [], send: [], list: [], unread: [], mark: [] };
  #listWaits = false;
  /** What the client sent, over all sockets. */
  #sent = [];
  #list = [];
  #tokens = 0;
  #keys = [];
  #chat = null;

  async chats(list) {
    this.#list = list;
    const world = this;
    class Socket {
      readyState = 1;
      constructor() { world.#sockets.push(this); }
      send(text) { world.#sent.push(JSON.parse(text)); }
      close() { this.readyState = 3; }
    }
    this.client = new Client({
      url: 'https://chat.example',
      getToken: () => `e30.${CLAIMS}.${this.#tokens += 1}`,
      fetch: (url, options) => this.#onCall(new URL(url).pathname, options),
      WebSocket: Socket,
      random: () => 1,
    });
    await settle();
    this.client.start();
  }

  async #onCall(path, { method, body }) {
    if (path.endsWith('/connect/')) return Response.json({ ws_url: 'wss://chat.example/ws/?ticket=t' });
    if (path.endsWith('/mark_read/')) return this.#wait('mark');
    if (path.endsWith('/unread/')) return this.#listWaits ? this.#wait('unread') : Response.json(summary(this.#list));
    if (path.endsWith('/chats/')) {
      return this.#listWaits ? this.#wait('list') : Response.json({ results: this.#list, next: null });
    }
    if (method === 'POST') this.#keys.push(JSON.parse(body).client_msg_id);
    return this.#wait(method === 'POST' ? 'send' : 'history');
  }

  #wait(kind) {
    return new Promise((resolve) => this.#waiting[kind].push(resolve));
  }

  async frame(frame) {
    const subscribe = this.#subscribes().at(-1);
    const text = JSON.stringify(frame)
      .replaceAll('"$subscribe"', () => JSON.stringify(subscribe.id))
      .replaceAll('"$sent-1"', () => JSON.stringify(this.#keys[0]));
    this.#sockets.at(-1).onmessage({ data: text });
  }

  async open(chatId) {
    this.#chat = chatId;
    this.client.open(chatId);
    await settle();
  }

  async list_waits(waits) { this.#listWaits = waits; }

  async list(chats, at) {
    await this.#answer('list', Response.json({ results: chats, next: null }), at);
    await this.#answer('unread', Response.json(summary(chats)), at);
  }

  async mark_read() { this.client.markRead(this.client.timelineOf(this.#chat)); }

  async marked(body, at) { await this.#answer('mark', Response.json(body), at); }

  async history(page, at) { await this.#answer('history', Response.json(page), at); }

  async answer(body, at) {
    const text = JSON.stringify(body).replaceAll('"$sent-1"', JSON.stringify(this.#keys[0]));
    await this.#answer('send', new Response(text, { status: body.status ?? 201 }), at);
  }

  async #answer(kind, response, at) {
    const resolve = this.#waiting[kind].shift();
    assert.ok(resolve, `${at}: the client waits for an answer to its ${kind}`);
    resolve(response);
    await realTurn();
  }

  async send(text) { this.client.send(this.#chat, text); }

  async close(code) { this.#sockets.at(-1).onclose({ code }); await realTurn(); }

  async wait_ms(ms) { mock.timers.tick(ms); await realTurn(); }

  async reconnect(_, at) {
    const before = this.#sockets.length;
    for (let passed = 0; passed < RECONNECT_MS && this.#sockets.length === before; passed += 500) await this.wait_ms(500);
    assert.ok(this.#sockets.length > before, `${at}: no other socket was opened`);
  }

  #subscribes() { return this.#sent.filter(({ type }) => type === 'subscribe'); }

  async expect(expected, at) {
    await realTurn();
    for (const [what, value] of Object.entries(expected)) {
      assert.deepEqual(this.#seen(what, value), value, `${at}: ${what}`);
    }
  }

  /** The client's state in the words of the vectors; as much of it as `like` names. */
  #seen(what, like) {
    const { client } = this;
    const timeline = this.#chat && client.timelineOf(this.#chat);
    const ofChat = () => this.#subscribes().filter((frame) => frame.chat_id === this.#chat && 'after_ev' in frame);
    switch (what) {
      case 'messages':
        return timeline.messages.map(({ seq, text, sender_id, deleted_at }) =>
          ({ seq, text, sender_id, ...(deleted_at ? { deleted: true } : {}) }));
      case 'carried':
        return Object.fromEntries(Object.entries(like).map(([seq, fields]) =>
          [seq, Object.fromEntries(Object.keys(fields).map((name) =>
            [name, timeline.messages.find((message) => message.seq === Number(seq))?.[name]]))]));
      case 'pending': return timeline.pending.map(({ text }) => text);
      case 'failed': return timeline.pending.filter(({ failed }) => failed).map(({ text }) => text);
      case 'position': return timeline.position;
      case 'read_seq': return timeline.readSeq;
      case 'peer_read_seq': return timeline.peerReadSeq;
      case 'chats': return client.chats.list().map((chat) => chat.chat_id);
      case 'unread':
        return Object.fromEntries(Object.keys(like).map((id) =>
          [id, id === 'total' ? client.chats.totalUnread : client.chats.get(id)?.unread_count]));
      case 'online_count': return timeline.onlineCount;
      case 'receipts': return Object.fromEntries(timeline.receipts);
      case 'chat':
        return Object.fromEntries(Object.entries(like).map(([id, fields]) =>
          [id, Object.fromEntries(Object.keys(fields).map((name) => [name, client.chats.get(id)?.[name]]))]));
      case 'phase': return client.state.phase;
      case 'subscribe': return (({ after_ev, epoch }) => ({ after_ev, epoch }))(this.#subscribes().at(-1));
      case 'subscribes': return ofChat().length;
      case 'sockets': return this.#sockets.length;
      case 'tokens': return this.#tokens;
      case 'auth': return this.#sent.filter(({ type }) => type === 'auth').length;
      case 'keys': return new Set(this.#keys).size;
      default: throw new Error(`unknown expectation ${what}`);
    }
  }
}

/** The counters of all chats, of which the list has all. */
function summary(chats) {
  const sum = (field) => chats.reduce((total, chat) => total + chat[field], 0);
  return { total: sum('unread_count'), total_mentions: sum('unread_mentions'), badge: sum('unread_count'), chats };
}

/** Bodies of answers are read in turns of the real event loop. */
async function realTurn() {
  for (let turn = 0; turn < 3; turn += 1) await new Promise((resolve) => { setImmediate(resolve); });
}
