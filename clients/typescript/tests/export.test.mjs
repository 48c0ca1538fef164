import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Api } from '../src/api.js';
import { Credentials } from '../src/token.js';

/** An API whose every answer is these pieces of JSON lines. */
function answering(...pieces) {
  const encoder = new TextEncoder();
  const fetch = async () => new Response(
    new ReadableStream({
      start(controller) {
        for (const piece of pieces) controller.enqueue(encoder.encode(piece));
        controller.close();
      },
    }),
    { headers: { 'Content-Type': 'application/x-ndjson' } },
  );
  const credentials = new Credentials({ token: 't' });
  return new Api({ url: 'https://chat.example/', credentials, fetch });
}

async function gather(api) {
  const lines = [];
  for await (const line of await api.exportUser('alice')) lines.push(line);
  return lines;
}

test('an export comes line by line, however it is cut into pieces', async () => {
  const api = answering('{"type":"profile","name":"\u00c4', 'nne"}\n{"type":"chat"}\n{"ty', 'pe":"end"}\n');
  assert.deepEqual(await gather(api), [{ type: 'profile', name: '\u00c4nne' }, { type: 'chat' }, { type: 'end' }]);
});

test('an export without its end broke off', async () => {
  for (const pieces of [['{"type":"profile"}\n'], ['{"type":"profile"}\n{"type":"end"'], []]) {
    await assert.rejects(gather(answering(...pieces)), { code: 'network' });
  }
});
