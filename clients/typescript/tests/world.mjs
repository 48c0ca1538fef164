/** More of the world for tests with faults: replicas as processes of their own, and a way to them. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const START_MS = 30_000;

/** Longest wait for anything; a machine of a CI may be slow, and a replica may have to come back. */
export const PATIENCE_MS = 30_000;

/** Polls until `check` gives something true, and returns it. */
export async function until(what, check, patience = PATIENCE_MS) {
  const deadline = Date.now() + patience;
  for (;;) {
    const result = await check();
    if (result) return result;
    if (Date.now() > deadline) throw new Error(`not seen: ${what}`);
    await sleep(20);
  }
}

/** One `beseda serve` on a stack's Postgres and Redis. */
export class Replica {
  #child;
  #log;

  /** @param {import('./stack.mjs').Stack} stack @param {string} name */
  static async start(stack, name) {
    const replica = new Replica();
    replica.port = await freePort();
    const internal = await freePort();
    replica.#log = `${stack.folder}/${name}.log`;
    const log = openSync(replica.#log, 'w');
    replica.#child = spawn(stack.program, ['serve'], {
      stdio: ['ignore', log, log],
      env: {
        ...process.env,
        ...stack.settings,
        BESEDA_LISTEN: `127.0.0.1:${replica.port}`,
        BESEDA_INTERNAL_LISTEN: `127.0.0.1:${internal}`,
        // No balancer has to notice, and the tests wait.
        BESEDA_DRAIN_DELAY: '0s',
        BESEDA_SHUTDOWN_GRACE: '3s',
      },
    });
    closeSync(log);
    await until(`${name} is ready`, async () => {
      if (replica.#child.exitCode !== null) throw new Error(readFileSync(replica.#log, 'utf8'));
      const answer = await fetch(`http://127.0.0.1:${replica.port}/readyz`).catch(() => null);
      return answer?.ok;
    }, START_MS);
    return replica;
  }

  /** `SIGKILL`: at once; `SIGTERM`: it takes leave of its sockets first. */
  async stop(signal = 'SIGKILL') {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill(signal);
    await ended;
  }
}

/** A port that nobody listens on at the moment. */
async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** What stands between a client and the replicas: it can lead elsewhere, be cut, closed, or go silent. */
export class Way {
  /** The port that connections are led to; null: they are dropped at once. */
  target;
  /** Nothing passes, and nobody is told. */
  silent = false;
  /** Bytes that came in from the near side. */
  passed = 0;
  #server;
  #pairs = new Set();

  static async to(target) {
    const way = new Way();
    way.target = target;
    way.#server = createServer((near) => way.#join(near)).listen(0, '127.0.0.1');
    await once(way.#server, 'listening');
    return way;
  }

  get url() { return `http://127.0.0.1:${this.#server.address().port}`; }

  #join(near) {
    near.on('error', () => {});
    if (this.target === null) return near.destroy();
    const far = connect(this.target, '127.0.0.1');
    const pair = [near, far];
    this.#pairs.add(pair);
    const end = () => { this.#pairs.delete(pair); near.destroy(); far.destroy(); };
    for (const [from, to] of [[near, far], [far, near]]) {
      from.on('data', (bytes) => {
        if (from === near) this.passed += bytes.length;
        if (this.silent) return;
        // As slow as the slower side.
        if (!to.write(bytes)) { from.pause(); to.once('drain', () => from.resume()); }
      });
      for (const event of ['error', 'close', 'end']) from.on(event, end);
    }
    return undefined;
  }

  /** Every connection breaks; the next one passes. */
  cut() {
    for (const pair of this.#pairs) for (const socket of pair) socket.destroy();
    this.#pairs.clear();
  }

  /** Like a replica that is gone: what there is breaks, and leads to another one. */
  lead(target) {
    this.target = target;
    this.cut();
  }

  close() {
    this.target = null;
    this.cut();
    this.#server.close();
  }
}
