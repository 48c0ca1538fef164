/** A shop whose users write to each other. It has the accounts and the pages, Beseda has the chats. */
import express from 'express';
import { randomBytes, randomUUID } from 'node:crypto';
import { fileURLToPath } from 'node:url';

import { Beseda } from './beseda.js';

const PAGE = fileURLToPath(new URL('page', import.meta.url));
const CLIENT = fileURLToPath(new URL('.', import.meta.resolve('beseda-client')));

/**
 * @param {{url: string, publicUrl?: string, secret: string}} settings
 *   `url` is Beseda's address for this server, `publicUrl` the one for browsers, if they differ
 */
export function makeApp({ url, publicUrl = url, secret }) {
  const beseda = new Beseda({ url, secret });
  // A real application has a database.
  const users = new Map();      // name they sign in with → { id, login, name }
  const sessions = new Map();   // cookie → login

  const app = express();
  app.use(express.json());
  app.use('/beseda-client', express.static(CLIENT));
  app.use(express.static(PAGE));
  app.get('/settings', (request, response) => response.json({ url: publicUrl }));

  // The example has no passwords: a name is enough to sign in.
  app.post('/sign-in', async (request, response) => {
    const { login } = request.body;
    if (typeof login !== 'string' || !/^\w{1,30}$/.test(login)) return response.sendStatus(422);
    if (!users.has(login)) {
      const user = { id: randomUUID(), login, name: login };
      users.set(login, user);
      // Users can sign up while Beseda is unavailable, because their tokens carry their names too.
      await beseda.name(user).catch((error) => console.error('not named yet:', error.message));
    }
    const cookie = randomBytes(32).toString('base64url');
    sessions.set(cookie, login);
    // Over plain HTTP, as in development, a browser does not keep secure cookies.
    const secure = app.get('env') !== 'development';
    response.cookie('session', cookie, { httpOnly: true, sameSite: 'strict', secure }).sendStatus(204);
  });

  const signedIn = (request, response, next) => {
    const cookie = /(?:^|; )session=([\w-]+)/.exec(request.headers.cookie ?? '')?.[1];
    request.user = users.get(sessions.get(cookie));
    return request.user ? next() : response.sendStatus(401);
  };

  // The page asks for a token at first, and whenever its token expires.
  app.get('/chat-token', signedIn, (request, response) => {
    response.set('Cache-Control', 'no-store').json({ token: beseda.tokenFor(request.user) });
  });

  // This application decides who may write to whom; here everybody may.
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
    // Sessions end first, so that no new token is issued after the revocation.
    endSessions(request.user);
    await beseda.revokeTokens(request.user);
    response.sendStatus(204);
  });

  // Erases the user in Beseda first. If that fails, the user still exists and can be deleted again.
  app.delete('/me', signedIn, async (request, response) => {
    await beseda.erase(request.user);
    users.delete(request.user.login);
    // Otherwise the sessions would belong to the next user of this name.
    endSessions(request.user);
    response.sendStatus(204);
  });

  return app;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { BESEDA_URL = 'http://127.0.0.1:8080', BESEDA_JWT_HS256_SECRET: secret, PORT = '3000' } = process.env;
  if (!secret) throw new Error('BESEDA_JWT_HS256_SECRET is missing: set the same secret as for Beseda');
  makeApp({ url: BESEDA_URL, publicUrl: process.env.BESEDA_PUBLIC_URL, secret })
    .listen(Number(PORT), '127.0.0.1', () => console.log(`http://127.0.0.1:${PORT}/`));
}
