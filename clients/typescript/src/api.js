/**
 * The REST calls. Their types come from the server's OpenAPI document: a path, a field or an answer
 * that the document does not have is an error of the type checker.
 *
 * @typedef {import('./schema.js').Operations} Operations
 * @typedef {import('./schema.js').AttachmentLink} AttachmentLink
 * @typedef {import('./token.js').Credentials} Credentials
 */

import { ApiError, asApiError, parseObject } from './errors.js';

/** How long a call may take: as long as the server gives itself. */
const CALL_TIMEOUT_MS = 15_000;

/** Values one by one: more than one would wait for, or hold at once. */
const LINES = 'application/x-ndjson';

export class Api {
  #base;
  #credentials;
  #fetch;
  #onUnauthenticated;

  /**
   * @param {object} options
   * @param {string | URL} options.url         where Beseda lives, for example `https://chat.example/`
   * @param {Credentials} options.credentials
   * @param {typeof fetch} [options.fetch]
   * @param {(error: ApiError) => void} [options.onUnauthenticated]  no token does any more
   */
  constructor({ url, credentials, fetch: fetcher, onUnauthenticated }) {
    this.#base = new URL('api/v1/', String(url).replace(/\/*$/, '/')).href;
    this.#credentials = credentials;
    this.#fetch = fetcher ?? ((...args) => fetch(...args));
    this.#onUnauthenticated = onUnauthenticated ?? (() => {});
  }

  /** @param {Operations['GET /chats/']['query']} [query] */
  listChats(query) { return this.call('GET /chats/', { query }); }

  /** Opens the chat with a person, or finds it. @param {string} userId */
  openChat(userId) { return this.call('POST /chats/', { body: { user_id: userId } }); }

  /** For the host application's server: the chat of two others. @param {string} first @param {string} second */
  openChatOf(first, second) { return this.call('POST /chats/', { body: { user_ids: [first, second] } }); }

  /** With a `client_chat_id` it is safe to call again. @param {Omit<Operations['POST /chats/']['body'], 'kind'>} group */
  createGroup(group) { return this.call('POST /chats/', { body: { ...group, kind: 'group' } }); }

  /** @param {string} chat a `chat_id` or a `room_name`, here and below */
  getChat(chat) { return this.call('GET /chats/{chat}/', { path: { chat } }); }

  /** @param {string} chat */
  deleteChat(chat) { return this.call('DELETE /chats/{chat}/', { path: { chat } }); }

  /** What a group shows, and its settings. @param {string} chat @param {Operations['PATCH /chats/{chat}/']['body']} change */
  changeChat(chat, change) { return this.call('PATCH /chats/{chat}/', { path: { chat }, body: change }); }

  /** What the caller alone sees of a chat. @param {string} chat @param {Operations['PATCH /chats/{chat}/me/']['body']} settings */
  setOwn(chat, settings) { return this.call('PATCH /chats/{chat}/me/', { path: { chat }, body: settings }); }

  unread() { return this.call('GET /chats/unread/', {}); }

  /** @param {string} chat @param {Operations['GET /chats/{chat}/messages/']['query']} [query] */
  history(chat, query) { return this.call('GET /chats/{chat}/messages/', { path: { chat }, query }); }

  /**
   * For a client with a store: all that changed in a chat since a position, however old; on from the last
   * frame's `ev` while `has_more`. Where `epoch` is another than the position's: from 0 on again.
   * @param {string} chat @param {Operations['GET /chats/{chat}/changes/']['query']} [query]
   */
  async listChanges(chat, query) {
    const page = await this.call('GET /chats/{chat}/changes/', { path: { chat }, query });
    return { ...page, results: /** @type {import('./frames.js').ChangeFrame[]} */ (/** @type {unknown} */ (page.results)) };
  }

  /**
   * For a client with a store: the chats that changed since the cursor `next` of the last time; on while
   * `has_more`. With `reset` a list of all chats begins.
   * @param {Operations['GET /sync/']['query']} [query]
   */
  sync(query) { return this.call('GET /sync/', { query }); }

  /**
   * With a `client_msg_id` it is safe to call again, however the first time ended.
   * @param {string} chat
   * @param {Operations['POST /chats/{chat}/messages/']['body']} message
   */
  sendMessage(chat, message) { return this.call('POST /chats/{chat}/messages/', { path: { chat }, body: message }); }

  /** @param {string} chat @param {string} id */
  getMessage(chat, id) {
    return this.call('GET /chats/{chat}/messages/{message_id}/', { path: { chat, message_id: id } });
  }

  /**
   * @param {string} chat @param {string} id @param {string} text
   * @param {import('./schema.js').Mentions} [mentions] left out: whom it mentions stays
   */
  editMessage(chat, id, text, mentions) {
    return this.call('PATCH /chats/{chat}/messages/{message_id}/', { path: { chat, message_id: id }, body: { text, mentions } });
  }

  /** @param {string} chat @param {string} id */
  deleteMessage(chat, id) {
    return this.call('DELETE /chats/{chat}/messages/{message_id}/', { path: { chat, message_id: id } });
  }

  /**
   * Reports a message to the host application; again: the report that there is.
   * @param {string} chat @param {string} id @param {string} [reason]
   */
  reportMessage(chat, id, reason) {
    return this.call('POST /chats/{chat}/messages/{message_id}/report/', { path: { chat, message_id: id }, body: { reason } });
  }

  /** Who has read a message. @param {string} chat @param {string} id @param {Operations['GET /chats/{chat}/messages/{message_id}/readers/']['query']} [query] */
  listReaders(chat, id, query) {
    return this.call('GET /chats/{chat}/messages/{message_id}/readers/', { path: { chat, message_id: id }, query });
  }

  // ---- attachments ----

  /**
   * Announces a file, whose bytes then go to `upload.url`; `Client.upload` does all of it.
   * @param {string} chat @param {import('./schema.js').NewAttachment} file
   */
  announceAttachment(chat, file) { return this.call('POST /chats/{chat}/attachments/', { path: { chat }, body: file }); }

  /**
   * A URL of an attachment's bytes that is good for a minute, for what sends no token: `<img>`, `<video>`, `<a>`.
   * @param {string} chat @param {string} attachmentId @param {'thumbnail'} [variant]
   */
  async linkAttachment(chat, attachmentId, variant) {
    const input = { path: { chat, attachment_id: attachmentId }, query: { link: true, variant } };
    return /** @type {AttachmentLink} */ (await this.call('GET /chats/{chat}/attachments/{attachment_id}/', input));
  }

  // ---- what members put on messages ----

  /** A repeat changes nothing. @param {string} chat @param {string} id @param {string} emoji one, or a name such as `:party:` */
  react(chat, id, emoji) {
    return this.call('PUT /chats/{chat}/messages/{message_id}/reactions/{emoji}/', { path: { chat, message_id: id, emoji } });
  }

  /** Takes one's reaction back. @param {string} chat @param {string} id @param {string} emoji */
  unreact(chat, id, emoji) {
    return this.call('DELETE /chats/{chat}/messages/{message_id}/reactions/{emoji}/', { path: { chat, message_id: id, emoji } });
  }

  /** Who reacted. @param {string} chat @param {string} id @param {Operations['GET /chats/{chat}/messages/{message_id}/reactions/']['query']} [query] */
  listReactions(chat, id, query) {
    return this.call('GET /chats/{chat}/messages/{message_id}/reactions/', { path: { chat, message_id: id }, query });
  }

  /** @param {string} chat @param {string} id */
  pin(chat, id) { return this.call('PUT /chats/{chat}/pins/{message_id}/', { path: { chat, message_id: id } }); }

  /** @param {string} chat @param {string} id */
  unpin(chat, id) { return this.call('DELETE /chats/{chat}/pins/{message_id}/', { path: { chat, message_id: id } }); }

  /** The latest pin first. @param {string} chat @param {Operations['GET /chats/{chat}/pins/']['query']} [query] */
  listPins(chat, query) { return this.call('GET /chats/{chat}/pins/', { path: { chat }, query }); }

  /** Messages of all chats that mention one, newest first. @param {Operations['GET /mentions/']['query']} [query] */
  listMentions(query) { return this.call('GET /mentions/', { query }); }

  // ---- the members of a group ----

  /** @param {string} chat @param {Operations['GET /chats/{chat}/members/']['query']} [query] @param {AbortSignal} [signal] */
  listMembers(chat, query, signal) { return this.call('GET /chats/{chat}/members/', { path: { chat }, query, signal }); }

  /** @param {string} chat @param {string[]} userIds @param {import('./schema.js').Role} [role] */
  addMembers(chat, userIds, role) {
    return this.call('POST /chats/{chat}/members/', { path: { chat }, body: { user_ids: userIds, role } });
  }

  /** The role `owner` hands the group over. @param {string} chat @param {string} userId @param {Operations['PATCH /chats/{chat}/members/{user_id}/']['body']} change */
  changeMember(chat, userId, change) {
    return this.call('PATCH /chats/{chat}/members/{user_id}/', { path: { chat, user_id: userId }, body: change });
  }

  /** Oneself: leaves. @param {string} chat @param {string} userId */
  removeMember(chat, userId) {
    return this.call('DELETE /chats/{chat}/members/{user_id}/', { path: { chat, user_id: userId } });
  }

  /** Removes somebody, and keeps them out. @param {string} chat @param {string} userId @param {Operations['PUT /chats/{chat}/bans/{user_id}/']['body']} [ban] */
  ban(chat, userId, ban = {}) {
    return this.call('PUT /chats/{chat}/bans/{user_id}/', { path: { chat, user_id: userId }, body: ban });
  }

  /** @param {string} chat @param {string} userId */
  unban(chat, userId) { return this.call('DELETE /chats/{chat}/bans/{user_id}/', { path: { chat, user_id: userId } }); }

  /** @param {string} chat @param {Operations['GET /chats/{chat}/bans/']['query']} [query] */
  listBans(chat, query) { return this.call('GET /chats/{chat}/bans/', { path: { chat }, query }); }

  /** Where anybody may. @param {string} chat */
  joinChat(chat) { return this.call('POST /chats/{chat}/join/', { path: { chat } }); }

  /** @param {string} chat @param {Operations['POST /chats/{chat}/invites/']['body']} [invite] */
  createInvite(chat, invite = {}) { return this.call('POST /chats/{chat}/invites/', { path: { chat }, body: invite }); }

  /** @param {string} chat @param {Operations['GET /chats/{chat}/invites/']['query']} [query] */
  listInvites(chat, query) { return this.call('GET /chats/{chat}/invites/', { path: { chat }, query }); }

  /** Withdraws it. @param {string} chat @param {string} inviteId */
  deleteInvite(chat, inviteId) {
    return this.call('DELETE /chats/{chat}/invites/{invite_id}/', { path: { chat, invite_id: inviteId } });
  }

  /** @param {string} code of an invitation */
  acceptInvite(code) { return this.call('POST /invites/{code}/', { path: { code } }); }

  // ---- for the host application's server, and sockets ----

  /** For the host application's server: what people have reported, latest first. @param {Operations['GET /reports/']['query']} [query] */
  listReports(query) { return this.call('GET /reports/', { query }); }

  /** For the host application's server: decides a report, which ends. @param {string} reportId */
  deleteReport(reportId) { return this.call('DELETE /reports/{report_id}/', { path: { report_id: reportId } }); }

  /** For the host application's server: as `linkAttachment`, of a reported message. @param {string} reportId @param {string} attachmentId */
  async linkReported(reportId, attachmentId) {
    const input = { path: { report_id: reportId, attachment_id: attachmentId }, query: { link: true } };
    return /** @type {AttachmentLink} */ (await this.call('GET /reports/{report_id}/attachments/{attachment_id}/', input));
  }

  /** @param {string} chat @param {number} [upToSeq] without it: all that was sent up to now */
  markRead(chat, upToSeq) {
    return this.call('POST /chats/{chat}/mark_read/', { path: { chat }, body: { up_to_seq: upToSeq } });
  }

  /** @param {string} chat @param {Operations['GET /chats/{chat}/search/']['query']} query @param {AbortSignal} [signal] */
  search(chat, query, signal) { return this.call('GET /chats/{chat}/search/', { path: { chat }, query, signal }); }

  /** In all chats, newest first. @param {Operations['GET /search/']['query']} query @param {AbortSignal} [signal] */
  searchAll(query, signal) { return this.call('GET /search/', { query, signal }); }

  /** A ticket for a socket that follows one chat. @param {string} chat */
  connectChat(chat) { return this.call('GET /chats/{chat}/connect/', { path: { chat } }); }

  /** A ticket for the socket that carries many chats and the inbox. */
  connect() { return this.call('POST /connect/', {}); }

  /** @param {string} userId */
  getUser(userId) { return this.call('GET /users/{user_id}/', { path: { user_id: userId } }); }

  /** For the host application's server. @param {string} userId @param {Operations['PUT /users/{user_id}/']['body']} profile */
  putUser(userId, profile) { return this.call('PUT /users/{user_id}/', { path: { user_id: userId }, body: profile }); }

  /** For the host application's server. @param {Operations['POST /users/']['body']['users']} users */
  putUsers(users) { return this.call('POST /users/', { body: { users } }); }

  /** For the host application's server: erases the person. @param {string} userId */
  deleteUser(userId) { return this.call('DELETE /users/{user_id}/', { path: { user_id: userId } }); }

  /** For the host application's server: voids the person's tokens. @param {string} userId */
  revokeTokens(userId) { return this.call('POST /users/{user_id}/revoke_tokens/', { path: { user_id: userId } }); }

  /**
   * For the host application's server: all that is kept of a person, line by line as it comes. It throws
   * where the export broke off; the last line is `end`.
   * @param {string} userId
   */
  async exportUser(userId) {
    const lines = await this.call('GET /users/{user_id}/export/', { path: { user_id: userId } });
    return /** @type {AsyncGenerator<typeof lines, void>} */ (/** @type {unknown} */ (lines));
  }

  /** @param {string} userId */
  block(userId) { return this.call('PUT /users/{user_id}/block/', { path: { user_id: userId } }); }

  /** @param {string} userId */
  unblock(userId) { return this.call('DELETE /users/{user_id}/block/', { path: { user_id: userId } }); }

  /** @param {{limit?: number, cursor?: string}} [query] */
  listBlocks(query) { return this.call('GET /blocks/', { query }); }

  /** Which platforms are set up for push, and the key for a browser's subscription. */
  getPush() { return this.call('GET /push/', {}); }

  /** Registers a device of one's own, or registers it anew. @param {string} deviceId @param {Operations['PUT /devices/{device_id}/']['body']} device */
  putDevice(deviceId, device) {
    return this.call('PUT /devices/{device_id}/', { path: { device_id: deviceId }, body: device });
  }

  /** One's devices, latest registered first. */
  listDevices() { return this.call('GET /devices/', {}); }

  /** @param {string} deviceId */
  deleteDevice(deviceId) { return this.call('DELETE /devices/{device_id}/', { path: { device_id: deviceId } }); }

  /**
   * Any call of the document. A token that the server no longer takes is renewed, and the call made
   * once more.
   * @template {keyof Operations} Name
   * @param {Name} name  for example `GET /chats/{chat}/`
   * @param {{path?: Operations[Name]['path'], query?: Operations[Name]['query'],
   *   body?: Operations[Name]['body'], signal?: AbortSignal}} input
   * @returns {Promise<Operations[Name]['result']>}
   */
  async call(name, input) {
    const token = await this.#token(() => this.#credentials.current());
    try {
      return await this.#request(name, input, token);
    } catch (error) {
      const failure = asApiError(error);
      if (failure.status !== 401) throw failure;
      const reason = /** @type {import('./token.js').TokenReason} */ (failure.code);
      if (await this.#token(() => this.#credentials.renew(token, reason))) {
        try {
          return await this.#request(name, input, this.#credentials.token);
        } catch (again) {
          if (asApiError(again).status === 401) this.#onUnauthenticated(asApiError(again));
          throw again;
        }
      }
      this.#onUnauthenticated(failure);
      throw failure;
    }
  }

  /** A host application that cannot be asked is as temporary a fault as a lost network. @template T @param {() => Promise<T>} ask */
  async #token(ask) {
    try {
      return await ask();
    } catch (error) {
      throw asApiError(error);
    }
  }

  /**
   * @param {string} name
   * @param {{path?: object, query?: object, body?: unknown, signal?: AbortSignal}} input
   * @param {string | null} token
   */
  async #request(name, { path = {}, query = {}, body, signal }, token) {
    const [method, template] = /** @type {[string, string]} */ (name.split(' '));
    const values = /** @type {Record<string, string>} */ (path);
    const filled = template.slice(1).replace(/\{(\w+)\}/g, (_, field) => encodeURIComponent(values[field] ?? ''));
    const url = new URL(filled, this.#base);
    for (const [field, value] of Object.entries(query)) {
      if (value !== undefined && value !== null) url.searchParams.set(field, String(value));
    }
    /** @type {Record<string, string>} */
    const headers = { Accept: 'application/json' };
    if (token) headers.Authorization = `Bearer ${token}`;
    if (body !== undefined) headers['Content-Type'] = 'application/json';
    const abort = new AbortController();
    const onAbort = () => abort.abort();
    const timer = setTimeout(onAbort, CALL_TIMEOUT_MS);
    if (signal?.aborted) onAbort();
    signal?.addEventListener('abort', onAbort);
    try {
      const response = await this.#fetch(url, {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        signal: abort.signal,
        credentials: 'omit',
        cache: 'no-store',
      });
      if (response.ok) this.#credentials.prove(token);
      if (response.ok && response.headers.get('Content-Type') === LINES) return linesOf(response);
      const answer = await response.text();
      if (!response.ok) throw new ApiError(response.status, parseObject(answer));
      return answer === '' ? null : JSON.parse(answer);
    } catch (error) {
      throw asApiError(error);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
    }
  }
}

/**
 * The values of JSON lines, as they come. A body without its last line broke off.
 * @param {Response} response
 */
async function* linesOf(response) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  const decoder = new TextDecoder();
  let rest = '';
  let last = null;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const lines = (rest + decoder.decode(value, { stream: true })).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        last = JSON.parse(line);
        yield last;
      }
    }
  } catch (error) {
    throw asApiError(error);
  } finally {
    reader.cancel().catch(() => {});
  }
  if (last?.type !== 'end') throw new ApiError(0, { detail: 'the export broke off' });
}
