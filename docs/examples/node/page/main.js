import { Client } from 'beseda-client';

const $ = (id) => document.getElementById(id);
let client;
let opened = null;   // the chat_id of the open chat

const post = (path, body) =>
  fetch(path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body ?? {}) });

onSubmit('sign-in', async ({ login }) => {
  if (!(await post('/sign-in', { login })).ok) return;
  $('sign-in').hidden = true;
  $('contact').hidden = false;
  const { url } = await (await fetch('/settings')).json();
  client = new Client({
    url,
    getToken: async () => {
      const answer = await fetch('/chat-token');
      if (answer.status === 401) return null;
      if (!answer.ok) throw new Error(`no token: ${answer.status}`);
      return (await answer.json()).token;
    },
  });
  client.on('state', () => { $('state').textContent = client.state.phase; });
  client.on('chats', showChats);
  client.on('chat', ({ chatId }) => { if (chatId === opened) showMessages(); });
  await client.start();
});

onSubmit('contact', async ({ login }) => {
  const answer = await post(`/contact/${encodeURIComponent(login)}`);
  if (answer.ok) await open((await answer.json()).chat_id);
});

document.addEventListener('visibilitychange', () => { if (opened) showMessages(); });

onSubmit('send', ({ text }) => { client.send(opened, text); });

async function open(chatId) {
  opened = chatId;
  await client.open(chatId);
  $('send').hidden = false;
  showMessages();
}

function showChats() {
  $('chats').replaceChildren(...client.chats.list().map((chat) => {
    const button = document.createElement('button');
    button.textContent = `${chat.other_user.name ?? chat.other_user.user_id} (${chat.unread_count})`;
    button.addEventListener('click', () => open(chat.chat_id));
    const item = document.createElement('li');
    item.append(button);
    return item;
  }));
}

function showMessages() {
  const timeline = client.timelineOf(opened);
  const line = (text) => {
    const item = document.createElement('li');
    item.textContent = text;   // never as HTML
    return item;
  };
  const waiting = (message) => {
    if (!message.failed) return line(`${message.text} …`);
    const item = line(`${message.text} (not sent) `);
    const button = document.createElement('button');
    button.textContent = 'Try again';
    button.addEventListener('click', () => client.retry(timeline.chatId, message));
    item.append(button);
    return item;
  };
  $('messages').replaceChildren(
    ...timeline.messages.map((message) => line(message.deleted_at ? '(deleted)' : message.text)),
    ...timeline.pending.map(waiting),
  );
  if (document.visibilityState === 'visible') client.markRead(timeline);
}

function onSubmit(id, act) {
  $(id).addEventListener('submit', (event) => {
    event.preventDefault();
    act(Object.fromEntries(new FormData(event.target)));
    event.target.reset();
  });
}
