/**
 * Notifications of what is unread. The push service is the test's, as is what a browser does with it; the worker
 * gets each push through the debugger, as from the network.
 */
import assert from 'node:assert/strict';
import { until } from './person.mjs';
import { PushService, playSubscriptions } from './push-service.mjs';

/** Somebody whose browser can be pushed to; what is shown to them, and their service worker. */
class Notified {
  /** @param {import('./person.mjs').Person} person */
  constructor(person) {
    this.person = person;
  }

  static async arrive(person, options = {}) {
    const self = new Notified(person);
    self.service = await new PushService((push) => self.#deliver(push)).start();
    person.atLeave(() => self.service.stop());
    await person.arrive({
      permissions: ['notifications'],
      prepare: (context) => context.addInitScript(playSubscriptions, self.service.subscription),
      ...options,
    });
    return self;
  }

  async turnOn() {
    await this.person.$('#push').click();
    await this.person.is('on', '#push[aria-checked=true]');
    const workers = this.person.context.serviceWorkers();
    this.worker = workers[0] ?? await this.person.context.waitForEvent('serviceworker');
    await this.worker.evaluate(() => {
      self.badges = [];
      navigator.setAppBadge = async (count) => { self.badges.push(count); };
      // The worker is not asked what is shown while it shows something, see there.
      const { showNotification, getNotifications } = ServiceWorkerRegistration.prototype;
      self.bare = { showNotification, getNotifications };
      let last = Promise.resolve();
      const inTurn = (work) => function call(...values) {
        const next = () => work.apply(this, values);
        last = last.then(next, next);
        return last;
      };
      Object.assign(ServiceWorkerRegistration.prototype, {
        showNotification: inTurn(showNotification), getNotifications: inTurn(getNotifications),
      });
    });
    const debug = await this.person.context.newCDPSession(this.person.page);
    debug.on('ServiceWorker.workerRegistrationUpdated', ({ registrations }) => {
      this.registrationId = registrations.find(({ isDeleted }) => !isDeleted)?.registrationId ?? this.registrationId;
    });
    await debug.send('ServiceWorker.enable');
    await until('the registration', () => this.registrationId);
    this.debug = debug;
    return this;
  }

  #deliver(push) {
    const data = JSON.stringify(push);
    const { origin } = new URL(this.person.url);
    this.debug.send('ServiceWorker.deliverPushMessage', { origin, registrationId: this.registrationId, data });
  }

  /** @returns {Promise<string[]>} the notifications */
  shown() {
    return this.worker.evaluate(async () => (await registration.getNotifications()).map(({ title, body }) => `${title}: ${body}`));
  }

  async isShown(...expected) {
    let seen;
    await until('notifications', async () => {
      seen = await this.shown();
      return JSON.stringify(seen) === JSON.stringify(expected);
    }).catch(() => assert.deepEqual(seen, expected));
  }

  /** Something happens to the worker that only a browser can make happen. */
  tell(type, more) {
    return this.worker.evaluate(([name, values]) => {
      let done;
      const event = Object.assign(new ExtendableEvent(name), values);
      Object.defineProperty(event, 'waitUntil', { value: (promise) => { done = promise; } });
      self.dispatchEvent(event);
      return done;
    }, [type, more]);
  }

  /** No script may move the focus, nor open a window: a person's click may. */
  letClick() {
    return this.worker.evaluate(() => {
      WindowClient.prototype.focus = async function focus() { self.focused = this.url; };
      clients.openWindow = async (url) => { self.opened = url; };
    });
  }

  /** Clicks on what is shown of a chat, once it is. */
  async click(chat) {
    const click = () => this.worker.evaluate(async (id) => {
      const shown = (await registration.getNotifications()).find(({ data }) => data.chatId === id);
      if (!shown) return false;
      let done;
      const event = new NotificationEvent('notificationclick', { notification: shown });
      Object.defineProperty(event, 'waitUntil', { value: (promise) => { done = promise; } });
      self.dispatchEvent(event);
      await done;
      return true;
    }, chat);
    await until('a notification', click);
  }

  async devices() {
    return (await this.person.call('GET', 'devices/')).results;
  }
}

export async function what_is_unread_is_shown_and_goes_when_it_is_read_elsewhere({ meet }) {
  const [alice, bob] = [meet('Alice'), meet('Bob')];
  const notified = await Notified.arrive(bob);
  // By the keyboard, and for those who listen.
  await bob.is('the switch', '#push[aria-checked=false]');
  await bob.$('#push').focus();
  await bob.page.keyboard.press('Space');
  await bob.reads('#announcer p', 'Notifications are on.');
  await bob.isAccessible();
  await bob.page.keyboard.press('Space');
  await bob.is('off', '#push[aria-checked=false]');
  await notified.turnOn();
  const [device] = await notified.devices();
  assert.deepEqual([device.platform, device.preview], ['webpush', true]);
  const chat = await alice.chatWith(bob.id);
  await alice.say(chat, 'Hello, Bob');
  await notified.isShown('Alice: Hello, Bob');
  await alice.say(chat, 'Are you there?');
  await notified.isShown('Alice: Are you there?');
  const carol = meet('Carol');
  const group = await carol.call('POST', 'chats/', { kind: 'group', title: 'Band', user_ids: [bob.id] });
  await carol.say(group.chat_id, 'At nine');
  await until('both chats', async () => (await notified.shown()).sort().join() === 'Alice: Are you there?,Band: Carol: At nine');
  await bob.call('POST', `chats/${chat}/mark_read/`);
  await notified.isShown('Band: Carol: At nine');
  await bob.call('POST', `chats/${group.chat_id}/mark_read/`);
  await notified.isShown();
  assert.deepEqual(await notified.worker.evaluate(() => self.badges), [1, 2, 3, 1, 0]);
}

export async function nothing_that_comes_at_once_with_a_withdrawal_is_lost({ meet }) {
  const bob = meet('Bob');
  const notified = await (await Notified.arrive(bob)).turnOn();
  const count = 40;
  const shown = await notified.worker.evaluate(async (last) => {
    Object.assign(ServiceWorkerRegistration.prototype, self.bare);
    const push = (data) => {
      const event = new PushEvent('push', { data: JSON.stringify(data) });
      return new Promise((resolve) => {
        Object.defineProperty(event, 'waitUntil', { value: resolve });
        self.dispatchEvent(event);
      });
    };
    for (let number = 1; number <= last; number += 1) {
      const message = { type: 'message', chat_id: `chat-${number}`, title: 'Alice', text: `${number}`, badge: number };
      await Promise.all([push(message), push({ type: 'read', chat_id: 'another', badge: number })]);
    }
    return (await registration.getNotifications()).length;
  }, count);
  assert.equal(shown, count);
}

export async function a_click_on_a_notification_opens_its_chat({ meet }) {
  const [alice, bob, carol] = [meet('Alice'), meet('Bob'), meet('Carol')];
  const notified = await (await Notified.arrive(bob)).turnOn();
  const [chat, other] = [await alice.chatWith(bob.id), await carol.chatWith(bob.id)];
  await alice.say(chat, 'Look');
  await notified.isShown('Alice: Look');
  await notified.letClick();
  await notified.click(chat);
  await bob.reads('#chat-name', 'Alice');
  await bob.sees('Look');
  await notified.isShown();
  assert.match(await notified.worker.evaluate(() => self.focused), new RegExp(`^${bob.url}/`));

  await carol.say(other, 'And here');
  await notified.isShown('Carol: And here');
  await notified.worker.evaluate(() => { clients.matchAll = async () => []; });
  await notified.click(other);
  const address = await notified.worker.evaluate(() => self.opened);
  assert.equal(address, `${bob.url}/#chat=${other}`);
  await bob.page.goto(address);
  await bob.reads('#chat-name', 'Carol');
}

export async function a_click_leads_to_whom_it_was_for_and_to_nobody_beside_them({ meet }) {
  const [alice, bob, carol] = [meet('Alice'), meet('Bob'), meet('Carol')];
  const notified = await (await Notified.arrive(bob)).turnOn();
  await notified.letClick();
  // The latest window stands first, and it is hers.
  const hers = await bob.context.newPage();
  await hers.goto(`${bob.url}/#token=${carol.token}`);
  await hers.locator('#link-dot[data-phase=live]').waitFor();
  const chat = await alice.chatWith(bob.id);
  await alice.say(chat, 'Look');
  await notified.click(chat);
  await bob.reads('#chat-name', 'Alice');
  assert.equal(new URL(hers.url()).hash, '');

  // Hers is the only one left.
  await bob.page.goto('about:blank');
  await alice.say(chat, 'Look again');
  await notified.click(chat);
  assert.equal(await notified.worker.evaluate(() => self.opened), `${bob.url}/#chat=${chat}`);
  assert.equal(new URL(hers.url()).hash, '');

  // She takes the device over: what is shown is not for her.
  await alice.say(chat, 'And again');
  await notified.isShown('Alice: And again');
  await hers.locator('#push').click();
  await hers.locator('#push[aria-checked=true]').waitFor();
  await notified.isShown();
}

export async function who_turns_it_off_or_signs_out_is_notified_no_more({ meet }) {
  const [alice, bob] = [meet('Alice'), meet('Bob')];
  const notified = await (await Notified.arrive(bob)).turnOn();
  const chat = await alice.chatWith(bob.id);
  await alice.say(chat, 'Hello');
  await notified.isShown('Alice: Hello');
  const subscribed = () => bob.page.evaluate(() => 'played.key' in localStorage);
  await bob.$('#push').click();
  await bob.is('off', '#push[aria-checked=false]');
  assert.deepEqual([await notified.devices(), await notified.shown(), await subscribed()], [[], [], false]);
  await bob.$('#push').click();
  await bob.is('on', '#push[aria-checked=true]');
  assert.equal((await notified.devices()).length, 1);
  await bob.$('#sign-out').click();
  await bob.is('the form', '#token-input');
  assert.deepEqual([await notified.devices(), await notified.shown(), await subscribed()], [[], [], false]);
}

export async function a_subscription_is_registered_at_each_start_and_when_it_is_renewed({ meet }) {
  const bob = meet('Bob');
  const notified = await (await Notified.arrive(bob)).turnOn();
  let [last] = await notified.devices();
  const isRegisteredAnew = () => until('a registration', async () => {
    const [device] = await notified.devices();
    assert.equal(device.device_id, last.device_id);
    const anew = device.updated_at !== last.updated_at;
    last = device;
    return anew;
  });
  await bob.page.reload();
  await isRegisteredAnew();
  await notified.tell('pushsubscriptionchange', { newSubscription: {} });
  await isRegisteredAnew();
  // The server has another key now than the one that the browser has subscribed with.
  const { vapid_public_key: key } = await bob.call('GET', 'push/');
  await bob.page.evaluate(() => localStorage.setItem('played.key', 'AAAA'));
  await bob.page.reload();
  await isRegisteredAnew();
  assert.equal(await bob.page.evaluate(() => localStorage.getItem('played.key')), key);
}

export async function what_the_browser_or_the_server_does_not_have_is_not_offered({ meet }) {
  const [alice, bob, carol] = [meet('Alice'), meet('Bob'), meet('Carol')];
  const refused = await Notified.arrive(alice, { permissions: [] });
  await alice.$('#push').click();
  await alice.reads('.toast', /^The browser does not let/);
  await alice.is('off', '#push[aria-checked=false]');
  assert.deepEqual(await refused.devices(), []);

  await bob.arrive({ prepare: (context) => context.addInitScript(() => { delete window.PushManager; }) });
  const asked = new Promise((resolve) => { carol.asked = resolve; });
  const body = { platforms: ['fcm'], vapid_public_key: null };
  await carol.arrive({
    prepare: (context) => context.route('**/api/v1/push/', (route) => route.fulfill({ json: body }).then(carol.asked)),
  });
  await asked;
  for (const person of [bob, carol]) assert.equal(await person.$('#push').isVisible(), false);
}
