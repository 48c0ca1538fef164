import { Client } from 'beseda-client';

const { chat_id: chatId, url } = JSON.parse(document.getElementById('context').textContent);

const client = new Client({
  url,
  chat: chatId,
  getToken: async () => {
    const answer = await fetch('/chat-token/');
    if (answer.status === 401) return null;
    if (!answer.ok) throw new Error(`no token: ${answer.status}`);
    return (await answer.json()).token;
  },
});
client.on('state', () => { document.getElementById('state').textContent = client.state.phase; });
client.on('chat', show);
document.getElementById('form').addEventListener('submit', (event) => {
  event.preventDefault();
  const input = document.getElementById('text');
  client.send(chatId, input.value);
  input.value = '';
});

// Last, because without a network it waits. What is written meanwhile is sent later.
await client.start();
show();

function show() {
  const timeline = client.timelineOf(chatId);
  if (!timeline) return;
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
  document.getElementById('messages').replaceChildren(
    ...timeline.messages.map((message) => line(message.deleted_at ? '(deleted)' : message.text)),
    ...timeline.pending.map(waiting),
  );
}
