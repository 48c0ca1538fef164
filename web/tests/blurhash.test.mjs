import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decode } from '../blurhash.js';

test('a blurhash is painted from its waves', () => {
  // Of one colour: its mean, everywhere.
  const red = decode('00' + 'TI:j', 4, 4);
  assert.equal(red.length, 64);
  const pixels = Array.from({ length: 16 }, (_, at) => [...red.slice(4 * at, 4 * at + 4)]);
  for (const pixel of pixels) assert.deepEqual(pixel, pixels[0]);
  assert.equal(pixels[0][3], 255);
  // The example of its specification: a photo with a light sky and a dark foot.
  const photo = decode('LEHV6nWB2yk8pyo0adR*.7kCMdnj', 32, 32);
  const mean = [0, 1, 2].map((colour) => photo.reduce((sum, value, at) => (at % 4 === colour ? sum + value : sum), 0) / 1024);
  assert.ok(mean.every((value) => value > 80 && value < 190), String(mean));
  assert.notDeepEqual([...photo.slice(0, 4)], [...photo.slice(-4)]);
});

test('what is no blurhash is not painted', () => {
  for (const text of ['', 'L', 'LEHV6nWB2yk8pyo0adR*.7kCMdn', 'LEHV6nWB2yk8pyo0adR*.7kCMdn"', 'ж'.repeat(28)]) assert.equal(decode(text, 4, 4), null, text);
});
