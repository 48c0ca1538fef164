/** The calls that this application makes to Beseda, and the tokens that it issues. */
import { Api, ApiError, Credentials } from 'beseda-client';
import jwt from 'jsonwebtoken';
import { setTimeout as sleep } from 'node:timers/promises';

/** A leaked token can be used for this long at most. The page fetches the next one by itself. */
const TOKEN_SECONDS = 600;
/** Attempts per call, with a pause between two of them. */
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

  /** Issues a token for this user's browser. `user.id` must never change and never be given to another user. */
  tokenFor(user) {
    return this.#sign({ sub: user.id, name: user.name }, TOKEN_SECONDS);
  }

  /** Sends a new user, or a user's new name, to Beseda. */
  name(user) {
    return repeat(() => this.#api.putUser(user.id, { name: user.name, avatar_url: null }));
  }

  /** Opens the chat of two users, unless they have one, and returns its `chat_id`. */
  async openChat(first, second) {
    return (await repeat(() => this.#api.openChatOf(first.id, second.id))).chat_id;
  }

  /** Revokes all tokens issued so far, and closes the sockets opened with them. */
  revokeTokens(user) {
    return repeat(() => this.#api.call('POST /users/{user_id}/revoke_tokens/', { path: { user_id: user.id } }));
  }

  /** Erases a user. Their texts are gone when this is done. */
  async erase(user) {
    try {
      await repeat(() => this.#api.deleteUser(user.id));
    } catch (error) {
      // Beseda has never known this user, so there is nothing to erase.
      if (error.code !== 'user_not_found') throw error;
    }
  }

  #sign(claims, seconds) {
    // `iat` keeps its fraction of a second: a token issued right after a revocation must be newer.
    const now = Date.now() / 1000;
    return jwt.sign({ ...claims, iat: now, exp: now + seconds }, this.#secret, { algorithm: 'HS256' });
  }
}

/** Repeats a call that failed temporarily, as all calls made here are idempotent. */
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
