// The frames of `chat.v1`, as the socket's document (/asyncapi.json) has them.
import type { Chat, Message } from './schema.js';

/** Where one is in a chat's changes. */
export interface Position { ev: number; epoch: string }

export type ServerFrame =
  | { type: 'hello'; connection_id: string; user_id: string; heartbeat_ms: number; token_expires_at: string; epoch: string }
  | { type: 'subscribed'; id?: string | number; chat_id: string; head_ev: number; head_seq: number; epoch: string;
      read_seq: number; peer_read_seq: number; online: string[] }
  | ChangeFrame
  | { type: 'synced'; chat_id: string; ev: number }
  | { type: 'catchup'; chat_id: string; after_ev: number }
  | { type: 'reset'; chat_id: string; head_ev: number; epoch: string; reason: 'too_far' | 'unknown_position' }
  | { type: 'chat.created' | 'chat.updated'; chat: Chat; total_unread: number; epoch: string }
  | { type: 'chat.deleted'; chat_id: string; total_unread?: number; epoch: string }
  | { type: 'typing'; chat_id: string; user_id: string; typing: boolean }
  | { type: 'presence'; user_id: string; online: boolean; last_seen_at: string | null }
  | { type: 'ack'; id?: string | number }
  | { type: 'error'; id?: string | number; code: string; detail: string; retry_after_ms?: number }
  | { type: 'token.expiring'; expires_in: number }
  | { type: 'bye'; code: number; reason: string; reconnect_in_ms: number }
  | { type: 'pong' };

/** A change of a chat: each has the chat's next `ev`. */
export type ChangeFrame =
  | { type: 'message.created' | 'message.updated'; chat_id: string; ev: number; message: Message }
  | { type: 'message.deleted'; chat_id: string; ev: number; message_id: string; seq: number; deleted_at: string | null }
  | { type: 'chat.read'; chat_id: string; ev: number; user_id: string; read_seq: number };

export type ClientFrame =
  | { type: 'subscribe'; id: string | number; chat_id: string; after_ev?: number; epoch?: string }
  | { type: 'unsubscribe'; id: string | number; chat_id: string }
  | { type: 'send'; id: string | number; chat_id: string; text: string; metadata?: Record<string, unknown>; client_msg_id?: string }
  | { type: 'mark_read'; id: string | number; chat_id: string; up_to_seq?: number }
  | { type: 'typing'; chat_id: string; typing: boolean }
  | { type: 'auth'; id: string | number; token: string }
  | { type: 'ping' };
