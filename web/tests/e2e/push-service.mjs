/**
 * A push service and a browser's end of it: takes what Beseda sends, and reads it as a browser would (RFC 8291),
 * since no browser can subscribe without the internet.
 */
import { createDecipheriv, createECDH, hkdfSync, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';

/** Beside the salt: the record's size, and the length of the sender's key. */
const SALT = 16;
const KEY_AT = SALT + 4 + 1;
const TAG = 16;

export class PushService {
  #keys = createECDH('prime256v1');
  #auth = randomBytes(16);
  #server;

  /** @param {(push: object) => void} onPush */
  constructor(onPush) {
    this.#keys.generateKeys();
    this.#server = createServer(async (request, response) => {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      onPush(JSON.parse(this.#read(Buffer.concat(chunks))));
      response.writeHead(201).end();
    });
  }

  async start() {
    await new Promise((resolve) => { this.#server.listen(0, '127.0.0.1', resolve); });
    return this;
  }

  stop() {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  /** What `PushSubscription.toJSON()` gives. */
  get subscription() {
    const keys = { p256dh: this.#keys.getPublicKey('base64url'), auth: this.#auth.toString('base64url') };
    return { endpoint: `http://127.0.0.1:${this.#server.address().port}/`, expirationTime: null, keys };
  }

  #read(body) {
    const sender = body.subarray(KEY_AT, KEY_AT + body[KEY_AT - 1]);
    const record = body.subarray(KEY_AT + sender.length);
    const derive = (secret, salt, info, length) => Buffer.from(hkdfSync('sha256', secret, salt, Buffer.concat(info), length));
    const info = [Buffer.from('WebPush: info\0'), this.#keys.getPublicKey(), sender];
    const secret = derive(this.#keys.computeSecret(sender), this.#auth, info, 32);
    const part = (name, length) => derive(secret, body.subarray(0, SALT), [Buffer.from(`Content-Encoding: ${name}\0`)], length);
    const decipher = createDecipheriv('aes-128-gcm', part('aes128gcm', 16), part('nonce', 12));
    decipher.setAuthTag(record.subarray(-TAG));
    const padded = Buffer.concat([decipher.update(record.subarray(0, -TAG)), decipher.final()]);
    // A mark stands between the text and what only fills the record.
    return padded.subarray(0, padded.lastIndexOf(2)).toString();
  }
}

/** In the page, before its own scripts: the browser subscribes as asked, and keeps it across reloads. */
export function playSubscriptions(subscription) {
  const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, '+').replace(/_/g, '/')), (char) => char.charCodeAt(0)).buffer;
  const kept = () => {
    const key = localStorage.getItem('played.key');
    if (!key) return null;
    const unsubscribe = async () => { localStorage.removeItem('played.key'); return true; };
    return { options: { applicationServerKey: bytes(key) }, toJSON: () => subscription, unsubscribe };
  };
  PushManager.prototype.getSubscription = async () => kept();
  PushManager.prototype.subscribe = async ({ userVisibleOnly, applicationServerKey }) => {
    if (!userVisibleOnly) throw new DOMException('not without showing it', 'NotAllowedError');
    localStorage.setItem('played.key', applicationServerKey);
    return kept();
  };
}
