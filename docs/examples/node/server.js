/** A shop whose users write to each other: its accounts and pages; Beseda has the chat. */
import express from 'express';
import { randomBytes, randomUUID } from 'node:crypto';
import { fileURLToPath } from 'node:url';

import { Beseda } from './beseda.js';

const PAGE = fileURLToPath(new URL('page', import.meta.url));
const CLIENT = fileURLToPath(new URL('.', import.meta.resolve('beseda-client')));

/**
 * @param {{url: string, publicUrl?: string, secret: string}} settings
 *   `url` is Beseda's address for this server, `publicUrl` the one for browsers, where that is another
 */
export function makeApp({ url, publicUrl = url, secret }) {
  const beseda = new Beseda({ url, secret });
  // A database in real life.
  const users = new Map();      // name they sign in with → { id, login, name }
  const sessions = new Map();   // cookie → login

  const app = express();
  app.use(express.json());
  app.use('/beseda-client', express.static(CLIENT));
  app.use(express.static(PAGE));
  app.get('/settings', (request, response) => response.json({ url: publicUrl }));

  // Passwords are left out: whoever gives a name is it.
  app.post('/sign-in', async (request, response) => {
    const { login } = request.body;
    if (typeof login !== 'string' || !/^\w{1,30}$/.test(login)) return response.sendStatus(422);
    if (!users.has(login)) {
      const user = { id: randomUUID(), login, name: login };
      users.set(login, user);
      // While Beseda is away people can sign up all the same: their token names them when they come.
      await beseda.name(user).catch((error) => console.error('not named yet:', error.message));
    }
    const cookie = randomBytes(32).toString('base64url');
    sessions.set(cookie, login);
    // Development is plain HTTP, where a browser would not keep a secure one.
    const secure = app.get('env') !== 'development';
    response.cookie('session', cookie, { httpOnly: true, sameSite: 'strict', secure }).sendStatus(204);
  });

  const signedIn = (request, response, next) => {
    const cookie = /(?:^|; )session=([\w-]+)/.exec(request.headers.cookie ?? '')?.[1];
    request.user = users.get(sessions.get(cookie));
    return request.user ? next() : response.sendStatus(401);
  };

  // Asked by the page, now and whenever its token runs out.
  app.get('/chat-token', signedIn, (request, response) => {
    response.set('Cache-Control', 'no-store').json({ token: beseda.tokenFor(request.user) });
  });

  // Who may write to whom is this application's to say: here, everybody to everybody.
  app.post('/contact/:login', signedIn, async (request, response) => {
    const other = users.get(request.params.login);
    if (!other || other === request.user) return response.sendStatus(404);
    response.json({ chat_id: await beseda.openChat(request.user, other) });
  });

  app.put('/me', signedIn, async (request, response) => {
    const { name } = request.body;
    if (typeof name !== 'string' || !name.trim() || name.length > 100) return response.sendStatus(422);
    request.user.name = name;
    await beseda.name(request.user);
    response.sendStatus(204);
  });

  const endSessions = ({ login }) => {
    for (const [cookie, whose] of sessions) if (whose === login) sessions.delete(cookie);
  };

  app.post('/sign-out-everywhere', signedIn, async (request, response) => {
    // First no new tokens, then no old ones.
    endSessions(request.user);
    await beseda.revokeTokens(request.user);
    response.sendStatus(204);
  });

  // First there, then here: if it fails, the user is still here to be deleted once more.
  app.delete('/me', signedIn, async (request, response) => {
    await beseda.erase(request.user);
    users.delete(request.user.login);
    // Or they would be those of whoever takes the name next.
    endSessions(request.user);
    response.sendStatus(204);
  });

  return app;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { BESEDA_URL = 'http://127.0.0.1:8080', BESEDA_JWT_HS256_SECRET: secret, PORT = '3000' } = process.env;
  if (!secret) throw new Error('BESEDA_JWT_HS256_SECRET is missing: the secret that Beseda has too');
  makeApp({ url: BESEDA_URL, publicUrl: process.env.BESEDA_PUBLIC_URL, secret })
    .listen(Number(PORT), '127.0.0.1', () => console.log(`http://127.0.0.1:${PORT}/`));
}
