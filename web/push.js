/** Notifications of what is unread: the switch for them, and this browser as a device of who has turned it on. */
import { announce, byId, toast } from './dom.js';
import { describeError, t } from './i18n.js';

/** What the browser keeps for the page: which device it is, and whose. It can be of one person only. */
const DEVICE_KEY = 'beseda.device';
const OWNER_KEY = 'beseda.device.owner';

/** Longest wait of somebody who signs out. The browser drops the subscription in any case. */
const LEAVE_MS = 2_000;

const isPossible = 'serviceWorker' in navigator && 'PushManager' in window && 'Notification' in window;

export class PushSwitch {
  #session;
  /** The server's public key. @type {?string} */
  #key = null;
  /** One thing at a time: who clicks twice has it on and off again. */
  #last = Promise.resolve();

  /**
   * @param {import('./session.js').Session} session
   * @param {{onOpen: (chatId: string) => void}} options  somebody has clicked on a notification
   */
  constructor(session, { onOpen }) {
    this.#session = session;
    if (!isPossible) return;
    byId('push').addEventListener('click', () => this.#next(() => (this.#isOn ? this.#turnOff() : this.#turnOn())));
    // Somebody else has taken the device over, in another window.
    window.addEventListener('storage', () => this.#render());
    navigator.serviceWorker.addEventListener('message', ({ data, ports: [answer] }) => {
      if (data.type === 'whose') answer.postMessage(this.#isOn);
      if (data.type === 'open') onOpen(data.chatId);
      if (data.type === 'subscription') this.#next(() => this.#renew());
    });
    this.#next(() => this.#begin());
  }

  /** Signs the device off. */
  async leave() {
    if (!isPossible || !this.#isOn) return;
    await Promise.race([this.#next(() => this.#drop()), new Promise((resolve) => { setTimeout(resolve, LEAVE_MS); })]);
  }

  get #isOn() { return read(OWNER_KEY) === this.#session.me; }

  /** @param {() => Promise<unknown>} work */
  #next(work) {
    this.#last = this.#last.then(work).catch((error) => toast(error.name === 'ApiError' ? describeError(error) : t('pushFailed')))
      .finally(() => this.#render());
    return this.#last;
  }

  #render() {
    byId('push').hidden = !this.#key;
    byId('push').setAttribute('aria-checked', String(this.#isOn));
  }

  async #begin() {
    const info = await this.#session.api.getPush().catch(() => null);
    this.#key = info?.vapid_public_key ?? null;
    if (this.#key) await this.#renew();
  }

  /** Subscriptions change, and the server asks for a registration at each start. */
  async #renew() {
    if (!this.#isOn) return;
    if (Notification.permission === 'granted') await this.#register();
    else await this.#drop();
  }

  async #turnOn() {
    if (await Notification.requestPermission() !== 'granted') {
      toast(t('pushDenied'));
      return;
    }
    await this.#register();
    write(OWNER_KEY, this.#session.me);
    // It was for somebody else.
    await closeShown();
    announce(t('pushOn'));
  }

  async #turnOff() {
    await this.#drop();
    announce(t('pushOff'));
  }

  async #register() {
    const subscription = await this.#subscribe();
    await this.#session.api.putDevice(deviceId(), {
      platform: 'webpush', subscription: subscription.toJSON(), locale: navigator.language, preview: true,
    });
  }

  async #subscribe() {
    await navigator.serviceWorker.register('assets/sw.js', { scope: './', type: 'module' });
    const { pushManager } = await navigator.serviceWorker.ready;
    const old = await pushManager.getSubscription();
    if (old && base64url(old.options.applicationServerKey) === this.#key) return old;
    // One of another key is of no use to the server any more.
    await old?.unsubscribe();
    return pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: this.#key });
  }

  /** Where the server cannot be told, the push service will: it refuses what is sent to the subscription. */
  async #drop() {
    write(OWNER_KEY, null);
    const registration = await navigator.serviceWorker.getRegistration();
    const subscription = await registration?.pushManager.getSubscription();
    await Promise.allSettled([this.#session.api.deleteDevice(deviceId()), subscription?.unsubscribe()]);
    await closeShown();
    await navigator.clearAppBadge?.().catch(() => {});
  }
}

async function closeShown() {
  const registration = await navigator.serviceWorker.getRegistration();
  for (const shown of await registration?.getNotifications() ?? []) shown.close();
}

function deviceId() {
  const id = read(DEVICE_KEY) ?? `web-${crypto.randomUUID()}`;
  write(DEVICE_KEY, id);
  return id;
}

/** @param {ArrayBuffer} bytes */
function base64url(bytes) {
  return btoa(String.fromCharCode(...new Uint8Array(bytes))).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
}

/** Where storage is forbidden there is no subscription either. @param {string} key */
function read(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

/** @param {string} key @param {?string} value */
function write(key, value) {
  if (value === null) localStorage.removeItem(key);
  else localStorage.setItem(key, value);
}
