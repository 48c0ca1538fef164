/** `beseda dev` as a child: two replicas with a Postgres and a Redis of their own, on fresh data. */
import { spawn } from 'node:child_process';
import { createHmac, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';

/** The first start makes a database. */
const START_MS = 60_000;
const STOP_MS = 15_000;

export class Stack {
  /** @type {[string, string]} the replicas' addresses, the same after a restart */
  urls;
  /** @type {{port: number, pid: number}} */
  redis;
  /** @type {string} */
  program;
  /** @type {string} for data and logs */
  folder;
  /** @type {string} */
  postgresUrl;
  #secret = randomBytes(48).toString('base64url');
  #child = null;
  /** @type {Record<string, string>} */
  #more;

  /** @param {string} program @param {string} folder @param {Record<string, string>} [more] settings */
  constructor(program, folder, more = {}) {
    this.program = program;
    this.folder = folder;
    this.#more = more;
    mkdirSync(folder, { recursive: true });
    this.#removeData();
    rmSync(this.#log, { force: true });
  }

  get #data() { return join(this.folder, 'data'); }
  get #log() { return join(this.folder, 'beseda.log'); }

  async start() {
    const log = openSync(this.#log, 'a+');
    const from = readFileSync(this.#log).length;
    const port = this.urls ? ['--port', new URL(this.urls[0]).port] : [];
    this.#child = spawn(this.program, ['dev', '--end-with-parent', '--data', this.#data, ...port], {
      stdio: ['ignore', log, log],
      env: { ...process.env, BESEDA_RATE_LIMITS: 'off', BESEDA_JWT_HS256_SECRET: this.#secret, ...this.#more },
    });
    closeSync(log);
    const deadline = Date.now() + START_MS;
    for (;;) {
      const said = readFileSync(this.#log).subarray(from).toString();
      const urls = [...said.matchAll(/^Replica [AB] +(http:\S+?)\/? /gm)].map(([, url]) => url);
      const redis = /^Redis +redis:\/\/127\.0\.0\.1:(\d+) +\(pid (\d+)\)/m.exec(said);
      const postgres = /^Postgres +(\S+)/m.exec(said);
      if (urls.length === 2 && redis && postgres && said.includes('Ctrl-C')) {
        this.urls = urls;
        this.postgresUrl = postgres[1];
        this.redis = { port: Number(redis[1]), pid: Number(redis[2]) };
        return;
      }
      if (this.#child.exitCode !== null) throw new Error(`beseda dev ended:\n${said}`);
      if (Date.now() > deadline) throw new Error(`beseda dev does not start:\n${said}`);
      await sleep(50);
    }
  }

  /** What another replica of the same installation needs. */
  get settings() {
    return {
      DATABASE_URL: this.postgresUrl,
      REDIS_URL: `redis://127.0.0.1:${this.redis.port}`,
      BESEDA_ATTACHMENTS: pathToFileURL(resolve(this.#data, 'attachments')).href,
      BESEDA_RATE_LIMITS: 'off',
      BESEDA_JWT_HS256_SECRET: this.#secret,
    };
  }

  /** The port of a replica: 0 or 1. */
  port(index) { return Number(new URL(this.urls[index]).port); }

  /** Ends it in order, the sockets told; `SIGKILL`: at once. Its data stays. */
  async stop(signal = 'SIGTERM') {
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill(signal);
    await Promise.race([ended, sleep(STOP_MS, null, { ref: false }).then(() => { throw new Error('beseda dev does not end'); })]);
  }

  /** After a `SIGKILL` the children still end, and hold the data for as long. */
  async startAgain() {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.start();
      } catch (error) {
        if (attempt === 20) throw error;
        await sleep(500);
      }
    }
  }

  async remove() {
    await this.stop();
    this.#removeData();
  }

  /** As root, the database's files lie elsewhere, with a link to them. */
  #removeData() {
    try {
      rmSync(realpathSync(join(this.#data, 'postgres', 'cluster')), { recursive: true, force: true });
    } catch {
      // There is none.
    }
    rmSync(this.#data, { recursive: true, force: true });
  }

  /** What the host application signs. */
  token(user, name, seconds = 3600) {
    const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const claims = { sub: user, name, exp: Math.floor(Date.now() / 1000) + seconds };
    const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
    return `${signed}.${createHmac('sha256', this.#secret).update(signed).digest('base64url')}`;
  }

  /** One command, without spaces in its words. */
  async toRedis(command) {
    const socket = connect(this.redis.port, '127.0.0.1');
    socket.end(`${command}\r\nQUIT\r\n`);
    let answer = '';
    for await (const chunk of socket) answer += chunk;
    if (!answer.startsWith('+OK')) throw new Error(`Redis: ${answer}`);
  }

  /** Redis hangs: its connections stay open, and nobody answers. */
  pauseRedis() { process.kill(this.redis.pid, 'SIGSTOP'); }

  resumeRedis() { process.kill(this.redis.pid, 'SIGCONT'); }
}
