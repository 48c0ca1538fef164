/** All that this application has to say to Beseda, and the tokens that it issues. */
import { Api, ApiError, Credentials } from 'beseda-client';
import jwt from 'jsonwebtoken';
import { setTimeout as sleep } from 'node:timers/promises';

/** A token that got lost does no harm for longer than this. The page gets the next one by itself. */
const TOKEN_SECONDS = 600;
/** Calls of ours are tried so often in all; between two of them there is a pause. */
const ATTEMPTS = 3;
const PAUSE_MS = 200;

export class Beseda {
  #secret;
  #api;

  /** @param {{url: string, secret: string}} options  the secret is Beseda's BESEDA_JWT_HS256_SECRET */
  constructor({ url, secret }) {
    this.#secret = secret;
    const getToken = () => this.#sign({ sub: 'shop', scope: 'chat:admin' }, TOKEN_SECONDS);
    this.#api = new Api({ url, credentials: new Credentials({ getToken }) });
  }

  /** A token for this user's browser. `user.id` is who they are in Beseda, for ever. */
  tokenFor(user) {
    return this.#sign({ sub: user.id, name: user.name }, TOKEN_SECONDS);
  }

  /** Tells Beseda of a user, or of their new name. */
  name(user) {
    return repeat(() => this.#api.putUser(user.id, { name: user.name, avatar_url: null }));
  }

  /** The chat of two users, a new one if need be: its `chat_id`. */
  async openChat(first, second) {
    return (await repeat(() => this.#api.openChatOf(first.id, second.id))).chat_id;
  }

  /** All tokens issued so far are void, and the sockets opened with them close. */
  revokeTokens(user) {
    return repeat(() => this.#api.call('POST /users/{user_id}/revoke_tokens/', { path: { user_id: user.id } }));
  }

  /** The user's texts are gone when this is done. */
  async erase(user) {
    try {
      await repeat(() => this.#api.deleteUser(user.id));
    } catch (error) {
      // Never named and never there: nothing to erase.
      if (error.code !== 'user_not_found') throw error;
    }
  }

  #sign(claims, seconds) {
    // With its fraction of a second, so that a token issued right after a revocation is a new one.
    const now = Date.now() / 1000;
    return jwt.sign({ ...claims, iat: now, exp: now + seconds }, this.#secret, { algorithm: 'HS256' });
  }
}

/** Every call made here can be repeated without harm. */
async function repeat(call) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof ApiError && error.temporary) || attempt === ATTEMPTS) throw error;
      await sleep(Math.max(PAUSE_MS * attempt, Math.min(error.retryAfterMs ?? 0, 2_000)));
    }
  }
}
