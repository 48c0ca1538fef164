/**
 * Drives the page as people do, in a real browser, against a real `beseda dev`: two replicas, each
 * person on one of them. `make page-test` runs it; arguments choose tests by a part of their name.
 *
 * Every test has people and chats of its own, so none depends on another one, and two run at a time;
 * those that break what all of them use run alone.
 */
import { mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { Person } from './person.mjs';
import { Stack } from '../../../clients/typescript/tests/stack.mjs';
import * as carrying from './carrying.mjs';
import * as faults from './faults.mjs';
import * as files from './files.mjs';
import * as groups from './groups.mjs';
import * as looks from './looks.mjs';
import * as notifying from './notifying.mjs';
import * as reading from './reading.mjs';
import * as rules from './rules.mjs';
import * as talking from './talking.mjs';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const folder = process.env.PAGE_TEST_DIR ?? `${root}target/page-test`;
const program = process.env.BESEDA ?? `${root}target/debug/beseda`;
const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
/** It talks to nobody but the replicas, and a container's root may run it. */
const ARGUMENTS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
];

/** Chromium drops what is under way when an interface comes or goes, as with any container's start. */
const NETWORK_CHANGED = /ERR_NETWORK_CHANGED/;
/** Attempts that a test has where that happened. */
const ATTEMPTS = 3;

process.env.SHOTS = folder;
mkdirSync(folder, { recursive: true });
const wanted = process.argv.slice(2);
const tests = Object.entries({ ...talking, ...carrying, ...files, ...groups, ...rules, ...notifying, ...reading, ...looks, ...faults })
  .map(([key, run], index) => ({ name: key.replaceAll('_', ' '), number: index + 1, run, alone: key in faults }))
  .filter(({ name }) => wanted.length === 0 || wanted.some((part) => name.includes(part)));

/** The push services of the tests are on this machine, and nobody has time to wait. */
const PUSH = { BESEDA_PUSH_ALLOW_PRIVATE: 'on', BESEDA_PUSH_DELAY: '300ms' };

const stack = new Stack(program, folder, PUSH);
let browser = null;
let failures = 0;
try {
  await stack.start();
  browser = await chromium.launch({ executablePath: CHROMIUM, args: ARGUMENTS });
  const together = tests.filter(({ alone }) => !alone).values();
  const worker = async () => { for (const test of together) await run(test); };
  await Promise.all([worker(), worker()]);
  for (const test of tests.filter(({ alone }) => alone)) await run(test);
} finally {
  await browser?.close();
  await stack.remove();
}
console.log(failures ? `${failures} of ${tests.length} failed; see ${folder}` : `all ${tests.length} passed`);
process.exit(failures || tests.length === 0 ? 1 : 0);

async function run(chosen, attempt = 1) {
  const { name, number, run: test } = chosen;
  const people = [];
  /** Somebody new, known by a name; the first one is on replica A, the second one on B. */
  const meet = (first, options = {}) => {
    const id = `${first.split(' ')[0].toLowerCase()}-${number}${attempt > 1 ? `-${attempt}` : ''}`;
    const person = new Person({ browser, stack }, { id, name: first, replica: people.length % 2, ...options });
    people.push(person);
    return person;
  };
  const began = Date.now();
  try {
    await test({ meet, stack });
    for (const person of people) await person.leave();
    console.log(`ok    ${name} (${Date.now() - began} ms)`);
  } catch (error) {
    const seen = [error.message, ...people.flatMap(({ complaints }) => complaints)];
    if (attempt < ATTEMPTS && seen.some((text) => NETWORK_CHANGED.test(text))) {
      console.log(`again ${name}: the machine's network changed`);
      for (const person of people) await person.leave().catch(() => {});
      return run(chosen, attempt + 1);
    }
    failures += 1;
    console.log(`FAIL  ${name} (${Date.now() - began} ms)\n${error.stack ?? error}`);
    for (const person of people.filter(({ context }) => context)) {
      await person.shot(`failed-${number}-${person.id}`).catch(() => {});
      console.log(`  ${person.id}: ${person.complaints.join(' | ') || 'no complaints'}`);
      await person.leave().catch(() => {});
    }
  }
}
