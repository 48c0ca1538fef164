// What a client and a message are made of.
import type { SocketClass } from './connection.js';
import type { Mentions } from './schema.js';
import type { Message } from './timeline.js';
import type { GetToken } from './token.js';
import type { Upload } from './uploads.js';

export interface Options {
  /** Where Beseda lives, for example `https://chat.example/`. */
  url: string | URL;
  /** The host application's JWT; or */
  token?: string | null;
  /** how to get one, whenever one is needed. */
  getToken?: GetToken | null;
  /** A `chat_id`: follow this one chat over a socket of its own, instead of all of them with an inbox. */
  chat?: string | null;
  /** How many chats at the top of the list are followed for presence and typing though they are not open (20). */
  followed?: number;
  fetch?: typeof fetch;
  /** Where the platform has none: Node.js 20 with `ws`. */
  WebSocket?: SocketClass;
  random?: () => number;
}

export interface SendOptions {
  metadata?: Record<string, unknown> | null;
  /** User ids, or `all`. */
  mentions?: Mentions;
  /** The message that it answers. */
  replyTo?: Message | null;
  /** Files that are uploaded, or on their way (`Client.upload`): it goes out once they are there. */
  attachments?: Upload[];
}
