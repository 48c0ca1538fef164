import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ApiError } from '../beseda.js';
import { Outbox } from '../outbox.js';

const pending = (id) => ({ client_msg_id: id, text: id, created_at: '', failed: false, error: null });

function outbox(answers) {
  const attempts = [];
  const pauses = [];
  const box = new Outbox({
    send: async ({ client_msg_id: id }) => {
      attempts.push(id);
      const answer = answers.shift();
      if (answer) throw answer;
    },
    onChange: () => {},
    sleep: async (ms) => { pauses.push(ms); },
  });
  return { box, attempts, pauses };
}

test('a message overtakes no other, however often the first one is tried', async () => {
  const { box, attempts, pauses } = outbox([
    new ApiError(0, {}), new ApiError(503, { retry_after_ms: 700 }), null, null,
  ]);
  const first = box.push(pending('a'));
  box.push(pending('b'));
  await first;
  assert.deepEqual(attempts, ['a', 'a', 'a', 'b']);
  assert.equal(pauses[1], 700);
});

test('what cannot get better is not tried again', async () => {
  const { box, attempts } = outbox([new ApiError(403, { code: 'blocked' })]);
  const message = pending('a');
  await box.push(message);
  assert.deepEqual(attempts, ['a']);
  assert.equal(message.failed, true);
  assert.equal(message.error.code, 'blocked');
});

test('after some attempts the author is asked, and a retry keeps the id', async () => {
  const { box, attempts } = outbox(Array.from({ length: 4 }, () => new ApiError(0, {})));
  const message = pending('a');
  await box.push(message);
  assert.equal(message.failed, true);
  await box.push(message);
  assert.equal(message.failed, false);
  assert.deepEqual(attempts, Array(5).fill('a'));
});
