// The frames of `chat.v1`, as the socket's document (/asyncapi.json) has them.
import type { Chat, GroupSettings, Member, Mentions, Message } from './schema.js';

/** Where one is in a chat's changes. */
export interface Position { ev: number; epoch: string }

export type ServerFrame =
  | { type: 'hello'; connection_id: string; user_id: string; heartbeat_ms: number; token_expires_at: string; epoch: string }
  | { type: 'subscribed'; id?: string | number; chat_id: string; head_ev: number; head_seq: number; epoch: string;
      read_seq: number; peer_read_seq: number | null; receipts: Receipt[]; online: string[];
      online_count: number | null }
  | ChangeFrame
  | SilentMark
  | { type: 'synced'; chat_id: string; ev: number }
  | { type: 'catchup'; chat_id: string; after_ev: number }
  | { type: 'reset'; chat_id: string; head_ev: number; epoch: string; reason: 'too_far' | 'unknown_position' }
  | { type: 'chat.created' | 'chat.updated'; chat: Chat; total_unread: number; epoch: string }
  | { type: 'chat.deleted'; chat_id: string; total_unread?: number; reason: GoneReason; epoch: string }
  | { type: 'typing'; chat_id: string; user_id: string; typing: boolean }
  | { type: 'presence'; user_id: string; online: boolean; last_seen_at: string | null }
  | { type: 'ack'; id?: string | number }
  | { type: 'error'; id?: string | number; code: string; detail: string; retry_after_ms?: number }
  | { type: 'token.expiring'; expires_in: number }
  | { type: 'bye'; code: number; reason: string; reconnect_in_ms: number }
  | { type: 'pong' };

/** A change of a chat: each has the chat's next `ev`. */
export type ChangeFrame =
  | { type: 'message.created'; chat_id: string; ev: number; message: Message }
  /** The message is whole. `changed` says what this revision changed; without it, in a resume, it may be anything. */
  | { type: 'message.updated'; chat_id: string; ev: number; message: Message; changed?: ChangedPart[] }
  | { type: 'message.deleted'; chat_id: string; ev: number; message_id: string; seq: number; deleted_at: string | null }
  | { type: 'chat.read'; chat_id: string; ev: number; user_id: string; read_seq: number }
  | { type: 'member.joined'; chat_id: string; ev: number; members: Member[]; by: string | null }
  | { type: 'member.updated'; chat_id: string; ev: number; member: Member; by: string | null }
  | { type: 'member.left'; chat_id: string; ev: number; user_id: string; by: string | null;
      reason: 'left' | 'removed' | 'banned' | 'erased' }
  | { type: 'chat.changed'; chat_id: string; ev: number; title: string; avatar_url: string | null;
      metadata: Record<string, unknown> | null; settings: GroupSettings; member_count: number; receipts: boolean }
  /** The changes up to `ev` are not for this client. */
  | { type: 'skipped'; chat_id: string; ev: number };

/** What a revision changed in a message. Clients must expect others. */
export type ChangedPart = 'text' | 'reactions' | 'pinned' | 'attachments';

/** In a chat without receipts: one's own marker moved, on whichever device. It is no change of the chat. */
export type SilentMark = { type: 'chat.read'; chat_id: string; ev: null; user_id: string; read_seq: number };

/** How far a member has read; who is missing has read nothing. */
export interface Receipt { user_id: string; read_seq: number }

/** Why a chat is no longer one's own. */
export type GoneReason = 'deleted' | 'left' | 'removed' | 'banned';

export type ClientFrame =
  | { type: 'subscribe'; id: string | number; chat_id: string; after_ev?: number; epoch?: string }
  | { type: 'unsubscribe'; id: string | number; chat_id: string }
  | { type: 'send'; id: string | number; chat_id: string; text: string; metadata?: Record<string, unknown>; mentions?: Mentions;
      reply_to?: string; attachments?: string[]; client_msg_id?: string }
  | { type: 'mark_read'; id: string | number; chat_id: string; up_to_seq?: number }
  | { type: 'typing'; chat_id: string; typing: boolean }
  | { type: 'auth'; id: string | number; token: string }
  | { type: 'ping' };
