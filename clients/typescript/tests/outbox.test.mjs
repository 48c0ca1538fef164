import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { ApiError } from '../src/errors.js';
import { Outbox } from '../src/outbox.js';

const pending = (id) => ({ client_msg_id: id, text: id, metadata: null, created_at: '', failed: false, error: null });
const away = () => new ApiError(0, {});

/** The clock is the test's; `answers` are errors, null where the server takes the message. */
function outbox(answers, { isConnected = () => true } = {}) {
  mock.timers.reset();
  mock.timers.enable({ apis: ['setTimeout'] });
  const attempts = [];
  const box = new Outbox({
    send: async ({ client_msg_id: id }) => {
      attempts.push(id);
      const answer = answers.shift();
      if (answer) throw answer;
    },
    isConnected,
    onFailed: () => {},
  });
  return { box, attempts };
}

/** Lets time pass and what was promised happen. */
async function pass(ms) {
  for (let turn = 0; turn < 10; turn += 1) await Promise.resolve();
  mock.timers.tick(ms);
  for (let turn = 0; turn < 10; turn += 1) await Promise.resolve();
}

test('a message overtakes no other, however often the first one is tried', async () => {
  const { box, attempts } = outbox([away(), new ApiError(503, { retry_after_ms: 7000 })]);
  box.push(pending('a'));
  box.push(pending('b'));
  await pass(500);
  assert.deepEqual(attempts, ['a', 'a']);
  await pass(6999);
  assert.deepEqual(attempts, ['a', 'a'], 'the server said when');
  await pass(1);
  assert.deepEqual(attempts, ['a', 'a', 'a', 'b']);
});

test('what cannot get better is not tried again', async () => {
  const { box, attempts } = outbox([new ApiError(403, { code: 'blocked' })]);
  const message = pending('a');
  await box.push(message);
  assert.deepEqual(attempts, ['a']);
  assert.equal(message.failed, true);
  assert.equal(message.error.code, 'blocked');
});

test('over a working connection the author is asked after some attempts, and a retry keeps the id', async () => {
  const { box, attempts } = outbox(Array.from({ length: 4 }, away));
  const message = pending('a');
  box.push(message);
  for (let turn = 0; turn < 4; turn += 1) await pass(30_000);
  assert.equal(message.failed, true);
  await box.push(message);
  assert.equal(message.failed, false);
  assert.deepEqual(attempts, Array(5).fill('a'));
});

test('without a connection a message waits for it, however long, and goes out as soon as it is there', async () => {
  let connected = false;
  const { box, attempts } = outbox(Array.from({ length: 50 }, away), { isConnected: () => connected });
  const message = pending('a');
  box.push(message);
  for (let turn = 0; turn < 20; turn += 1) await pass(30_000);
  assert.equal(message.failed, false);
  connected = true;
  const before = attempts.length;
  box.wake();
  await pass(0);
  assert.equal(attempts.length, before + 1);
});

test('a token that ran out says nothing of the message', async () => {
  const { box, attempts } = outbox(Array.from({ length: 9 }, () => new ApiError(401, { code: 'token_expired' })));
  const message = pending('a');
  box.push(message);
  for (let turn = 0; turn < 10; turn += 1) await pass(30_000);
  assert.equal(message.failed, false);
  assert.equal(attempts.length, 10);
});

test('a mistake in whoever hears of a failure does not stop what is sent afterwards', async () => {
  const attempts = [];
  const box = new Outbox({
    send: async ({ client_msg_id: id }) => {
      attempts.push(id);
      if (id === 'a') throw new ApiError(403, { code: 'blocked' });
    },
    isConnected: () => true,
    onFailed: () => { throw new Error('a mistake'); },
  });
  await assert.rejects(box.push(pending('a')), /a mistake/);
  await box.push(pending('b'));
  assert.deepEqual(attempts, ['a', 'b']);
});
