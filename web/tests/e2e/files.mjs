/** Files: picked, dropped, pasted, uploaded through trouble, shown and saved, by people on two replicas. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { deflateSync, crc32 as zlibCrc } from 'node:zlib';
import { Replica, Way } from '../../../clients/typescript/tests/world.mjs';
import { NARROW } from './gather.mjs';
import { REFUSED, until } from './person.mjs';

function crc32(bytes) {
  if (zlibCrc) return zlibCrc(bytes);
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (0xedb88320 & -(crc & 1));
  }
  return ~crc >>> 0;
}

/** A PNG with a colour that runs. */
function png(width, height, blue = 128) {
  const chunk = (kind, body) => {
    const bytes = Buffer.concat([Buffer.from(kind, 'latin1'), body]);
    const [length, check] = [Buffer.alloc(4), Buffer.alloc(4)];
    length.writeUInt32BE(body.length);
    check.writeUInt32BE(crc32(bytes));
    return Buffer.concat([length, bytes, check]);
  };
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head.set([8, 2, 0, 0, 0], 8);
  const lines = Buffer.alloc(height * (1 + 3 * width));
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) lines.set([255 * x / width, 255 * y / height, blue], y * (1 + 3 * width) + 1 + 3 * x);
  }
  return Buffer.concat([Buffer.from('89504e470d0a1a0a', 'hex'), chunk('IHDR', head), chunk('IDAT', deflateSync(lines)), chunk('IEND', Buffer.alloc(0))]);
}

/** A second of a tone. */
function wav() {
  const [rate, head] = [8000, Buffer.alloc(44)];
  const data = Buffer.from(Array.from({ length: rate }, (_, at) => 128 + Math.round(60 * Math.sin(at / 3))));
  head.write('RIFF', 0, 'latin1');
  head.writeUInt32LE(36 + data.length, 4);
  head.write('WAVEfmt ', 8, 'latin1');
  head.writeUInt32LE(16, 16);
  for (const [at, value] of [[20, 1], [22, 1], [32, 1], [34, 8]]) head.writeUInt16LE(value, at);
  for (const [at, value] of [[24, rate], [28, rate], [40, data.length]]) head.writeUInt32LE(value, at);
  head.write('data', 36, 'latin1');
  return Buffer.concat([head, data]);
}

const PICTURE = { name: 'view.png', mimeType: 'image/png', buffer: png(900, 600) };
const NOTES = { name: 'notes.txt', mimeType: 'text/plain', buffer: Buffer.from('What was said, and by whom.\n') };

async function two(meet, options = {}) {
  const alice = await meet('Alice').arrive(options);
  const bob = await meet('Bob').arrive();
  await alice.openWith(bob.id);
  await bob.pick('Alice');
  return { alice, bob };
}

const pick = (person, ...files) => person.$('#attach-input').setInputFiles(files);

const uploaded = (person, count) => until(`${count} uploaded`, async () =>
  (await person.$('#files .file-draft:not(.failed) progress:visible').count()) === 0
  && (await person.$('#files .file-draft').count()) === count);

const pictures = (person, count) => until(`${count} pictures for ${person.id}`, async () => (await person.$('#rows .picture.loaded').count()) === count);

/** A file as a page gives it: in what is dropped, or pasted. */
const give = (person, selector, type, { name, mimeType, buffer }) => person.$(selector).evaluate((target, [kind, given]) => {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(atob(given.bytes), (char) => char.charCodeAt(0))], given.name, { type: given.mimeType }));
  const event = kind === 'paste'
    ? new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true })
    : new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true });
  target.dispatchEvent(event);
}, [type, { name, mimeType, bytes: buffer.toString('base64') }]);

export async function a_picture_is_sent_seen_opened_and_saved({ meet }) {
  const { alice, bob } = await two(meet);
  await pick(alice, PICTURE, NOTES);
  await alice.is('its thumbnail', '#files .file-thumbnail img');
  await uploaded(alice, 2);
  await alice.isAccessible();
  await alice.write('From the hill');
  await alice.is('no draft', '#files', { state: 'hidden' });
  await pictures(alice, 1);
  await bob.sees('From the hill');
  await pictures(bob, 1);
  await alice.isTicked('From the hill', 'read');
  await bob.isAccessible();
  await bob.shot('files');
  assert.equal(await bob.$('#rows .picture img').getAttribute('alt'), 'view.png');
  const [saved] = await Promise.all([bob.page.waitForEvent('download'), bob.$('#rows button.file').click()]);
  assert.equal(saved.suggestedFilename(), 'notes.txt');
  assert.deepEqual(readFileSync(await saved.path()), NOTES.buffer);
  await bob.$('#rows .picture').click();
  await bob.is('the picture', '#lightbox');
  await until('all of it', () => bob.$('#lightbox-image').evaluate((image) => image.complete && image.naturalWidth === 900));
  await bob.isAccessible();
  await bob.shot('lightbox');
  await bob.page.keyboard.press('Escape');
  assert.equal(await bob.page.evaluate(() => document.activeElement.className), 'picture loaded');
  await alice.choose('From the hill', 'Delete');
  await alice.$('#confirm-yes').click();
  for (const person of [alice, bob]) await until('nothing left', async () => (await person.$('#rows :is(.picture, .file)').count()) === 0);
}

export async function files_are_dropped_and_pasted_and_go_without_words({ meet }) {
  const { alice, bob } = await two(meet);
  await give(alice, '#scroller', 'dragover', PICTURE);
  await alice.is('where it may be dropped', '#chat.dropping');
  await give(alice, '#scroller', 'drop', PICTURE);
  await give(alice, '#draft', 'paste', { ...PICTURE, name: 'pasted.png', buffer: png(700, 700, 20) });
  await give(alice, '#draft', 'paste', { ...NOTES, name: 'empty.txt', buffer: Buffer.alloc(0) });
  await alice.reads('.toast', 'empty.txt is empty.');
  await uploaded(alice, 2);
  await alice.$('#send').click();
  await pictures(bob, 2);
  await bob.reads('.chat-entry .last', 'view.png');
  await bob.$('#rows .picture').first().click();
  await bob.reads('#lightbox-facts', /^1 of 2, /);
  await bob.page.keyboard.press('ArrowRight');
  await bob.reads('#lightbox-name', 'pasted.png');
  await bob.page.keyboard.press('ArrowRight');
  await bob.reads('#lightbox-name', 'view.png');
}

export async function an_upload_tells_how_far_it_is_and_can_be_cancelled_or_tried_again({ meet }) {
  const { alice, bob } = await two(meet);
  alice.expected.push(REFUSED);
  let release;
  const held = new Promise((resolve) => { release = resolve; });
  await alice.page.route('**/uploads/**', async (route) => { await held; await route.continue().catch(() => {}); });
  await pick(alice, NOTES, PICTURE);
  await alice.is('its progress', '#files progress');
  await alice.isAccessible();
  await alice.$('#files .file-draft').first().locator('.plain').click();
  await until('one left', async () => (await alice.$('#files .file-name').allTextContents()).join() === 'view.png');
  await alice.write('Soon');
  await alice.isTicked('Soon', 'sending');
  await alice.is('its progress', '#rows progress');
  await alice.write('Later, but first');
  await bob.sees('Later, but first');
  release();
  await pictures(bob, 1);
  await bob.seesExactly(['Later, but first', 'Soon']);
  await alice.page.unroute('**/uploads/**');

  await alice.page.route('**/uploads/**', (route) => route.fulfill({
    status: 422, contentType: 'application/problem+json', body: '{"code":"validation_failed","title":"This is no text."}',
  }));
  await pick(alice, NOTES);
  await alice.is('a failure', '#files .file-draft.failed');
  await alice.reads('#files .failed .file-size', 'This is no text.');
  await alice.isAccessible();
  await alice.page.unroute('**/uploads/**');
  await alice.$('#files .failed .small').click();
  await uploaded(alice, 1);
  await alice.$('#send').click();
  await bob.reads('#rows button.file .file-name', 'notes.txt');
}

export async function files_wait_for_the_network_and_go_on({ meet }) {
  const { alice, bob } = await two(meet);
  alice.expected.push(REFUSED);
  await alice.page.context().setOffline(true);
  await pick(alice, PICTURE);
  await alice.write('Written in the tunnel');
  await alice.isTicked('Written in the tunnel', 'sending');
  await alice.page.context().setOffline(false);
  await pictures(bob, 1);
  await bob.sees('Written in the tunnel');
  await alice.isTicked('Written in the tunnel', 'read');
}

/** A replica is killed in the middle of an upload and of a download; both go on, or begin anew, on another. */
export async function files_go_both_ways_while_a_replica_is_killed({ meet, stack }) {
  const replica = await Replica.start(stack, 'killed-files');
  const way = await Way.to(replica.port);
  try {
    const alice = meet('Alice', { way });
    alice.expected.push(REFUSED);
    await alice.arrive();
    const bob = await meet('Bob').arrive();
    await alice.openWith(bob.id);
    await bob.pick('Alice');
    const [sent, got] = ['sent.bin', 'got.bin'].map((name) => (
      { name, mimeType: 'application/octet-stream', buffer: randomBytes(12 * 1024 * 1024) }));
    await pick(bob, got);
    await uploaded(bob, 1);
    await bob.write('For you');
    await alice.sees('For you');

    // Some three seconds each way.
    const line = await alice.page.context().newCDPSession(alice.page);
    const speed = 4 * 1024 * 1024;
    await line.send('Network.enable');
    await line.send('Network.emulateNetworkConditions', { offline: false, latency: 0, downloadThroughput: speed, uploadThroughput: speed });
    const before = way.passed;
    await pick(alice, sent);
    await alice.write('And for you');
    await until('a part of it', () => way.passed > before + speed);
    await replica.stop('SIGKILL');
    way.lead(stack.port(1));
    await bob.sees('And for you');
    await alice.isTicked('And for you', 'read');
    assert(way.passed < before + 1.9 * sent.buffer.length, 'the upload went on where it broke off');
    const save = async (person) => {
      const [saved] = await Promise.all([person.page.waitForEvent('download'), person.$('#rows .theirs button.file').click()]);
      return readFileSync(await saved.path());
    };
    assert(sent.buffer.equals(await save(bob)), 'what Alice sent');
    assert(got.buffer.equals(await save(alice)), 'what Bob sent');
    for (const person of [alice, bob]) await person.seesExactly(['For you', 'And for you']);
    await alice.leave();
  } finally {
    way.close();
    await replica.stop();
  }
}

export async function sound_and_video_play_in_their_place({ meet }) {
  const { alice, bob } = await two(meet);
  await pick(alice, { name: 'tone.wav', mimeType: 'audio/wav', buffer: wav() });
  // A short film of a canvas.
  await alice.page.evaluate(async () => {
    const canvas = Object.assign(document.createElement('canvas'), { width: 160, height: 120 });
    const context = canvas.getContext('2d');
    const recorder = new MediaRecorder(canvas.captureStream(20), { mimeType: 'video/webm;codecs=vp8' });
    const parts = [];
    recorder.ondataavailable = ({ data }) => parts.push(data);
    recorder.start();
    for (let frame = 0; frame < 20; frame += 1) {
      context.fillStyle = `hsl(${frame * 18} 80% 50%)`;
      context.fillRect(0, 0, 160, 120);
      await new Promise((resolve) => { setTimeout(resolve, 40); });
    }
    await new Promise((resolve) => { recorder.onstop = resolve; recorder.stop(); });
    const data = new DataTransfer();
    data.items.add(new File(parts, 'film.webm', { type: 'video/webm' }));
    const input = document.querySelector('#attach-input');
    input.files = data.files;
    input.dispatchEvent(new Event('change'));
  });
  await uploaded(alice, 2);
  await alice.write('Listen');
  await bob.sees('Listen');
  for (const kind of ['audio', 'video']) {
    await bob.$('#rows .medium:not(.playing) button.file').first().click();
    await until(`the ${kind} plays`, () => bob.$(`#rows ${kind}`).evaluate((player) => player.readyState >= 2));
  }
  await bob.isAccessible();
  await bob.shot('media');
}

export async function what_is_being_checked_or_was_refused_says_so({ meet }) {
  const { alice, bob } = await two(meet);
  await pick(alice, PICTURE, NOTES);
  await uploaded(alice, 2);
  await alice.write('Two files');
  await bob.sees('Two files');
  await bob.page.route(/\/messages\/(\?.*)?$/, async (route) => {
    const response = await route.fetch();
    const page = await response.json();
    for (const { attachments } of page.results) {
      if (attachments.length) [attachments[0].status, attachments[1].status] = ['scanning', 'blocked'];
    }
    await route.fulfill({ response, json: page });
  });
  await bob.page.reload();
  await bob.sees('Two files');
  await bob.reads('#rows .scan-note', 'being checked');
  await bob.reads('#rows .file .file-size', 'Refused by the virus scanner');
  assert.equal(await bob.$('#rows button.file').count(), 0);
  await bob.isAccessible();
}

export async function files_fit_a_narrow_screen({ meet }) {
  const { alice, bob } = await two(meet, { ...NARROW, locale: 'ru-RU', colorScheme: 'dark' });
  const long = `${'a-name-without-end-'.repeat(8)}.txt`;
  await pick(alice, PICTURE, { ...PICTURE, name: 'second.png', buffer: png(300, 900) }, { ...NOTES, name: long }, { name: 'tone.wav', mimeType: 'audio/wav', buffer: wav() });
  await uploaded(alice, 4);
  const fits = async () => assert.deepEqual(await alice.page.evaluate(() => ['html', '#scroller', '#files', '.composer', '#lightbox']
    .filter((selector) => { const { scrollWidth, clientWidth } = document.querySelector(selector); return scrollWidth > clientWidth; })), []);
  await fits();
  await alice.isAccessible();
  await alice.shot('narrow-files-draft');
  await alice.$('#send').click();
  await pictures(alice, 2);
  await pictures(bob, 2);
  await alice.is('sent', '.message.own.read, .message.own.sent');
  await fits();
  await alice.isAccessible();
  await alice.shot('narrow-files');
  await alice.$('#rows .picture').first().click();
  await fits();
  await alice.isAccessible();
  await alice.shot('narrow-lightbox');
}
