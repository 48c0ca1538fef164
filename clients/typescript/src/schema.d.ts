// Made from the OpenAPI document by scripts/schema.mjs. Do not edit.

/** A blocked user. */
export type Block = {
  created_at: Time;
  user_id: UserId;
};

/** A page of blocked users. */
export type BlockPage = {
  /** The `cursor` of the next page; null on the last one. */
  next: string | null;
  /** Latest first. */
  results: Block[];
};

/** The outcome of a bulk request, in users. */
export type BulkResult = {
  created: number;
  /** Skipped, because they were erased: only `PUT` restores a user. */
  erased: number;
  updated: number;
};

/** A chat of two members, as one of them sees it. */
export type Chat = {
  chat_id: string;
  created_at: Time;
  created_by: UserId;
  kind: ChatKind;
  last_ev: number;
  last_message: Message | null;
  last_seq: number;
  other_user: User;
  /** The `seq` up to which the other member has read. */
  peer_read_seq: number;
  /** The `seq` up to which the caller has read. */
  read_seq: number;
  /** 22 base64url characters, unguessable. */
  room_name: string;
  /** The other member's messages after `read_seq`, without tombstones. */
  unread_count: number;
};

/** The kind of a chat. There is one kind now; clients must expect others. */
export type ChatKind = "direct";

/** A page of chats. */
export type ChatPage = {
  /** The `cursor` of the next page; null on the last one. */
  next: string | null;
  /** Latest activity first. */
  results: Chat[];
};

/** A ticket for the socket of one chat. */
export type ChatTicket = {
  epoch: string;
  /** Life of the ticket, in seconds. */
  expires_in: number;
  head_ev: number;
  head_seq: number;
  heartbeat_ms: number;
  protocol: string;
  ticket: string;
  /** Contains the ticket; opens one socket. */
  ws_url: string;
};

/** The new text of a message. */
export type Edit = {
  text: string;
};

/** The number of lines of each kind. */
export type ExportEnd = {
  blocks: number;
  chats: number;
  messages: number;
  reports: number;
};

/** A line of an export. */
export type ExportLine = ExportedProfile & {
  type: "profile";
} | ExportedBlock & {
  type: "block";
} | ExportedChat & {
  type: "chat";
} | Message & {
  type: "message";
} | ExportedReport & {
  type: "report";
} | ExportEnd & {
  type: "end";
};

/** A user whom the exported user has blocked. */
export type ExportedBlock = {
  created_at: Time;
  user_id: UserId;
};

/** A chat of the exported user. */
export type ExportedChat = {
  chat_id: string;
  created_at: Time;
  created_by: UserId;
  /** The newest `seq` of the chat. The user's own messages up to it follow. */
  last_seq: number;
  other_user_id: UserId;
  /** The `seq` up to which the user has read. */
  read_seq: number;
  room_name: string;
};

/** The user. */
export type ExportedProfile = {
  avatar_url: string | null;
  /** When the user was created. */
  created_at: Time;
  last_seen_at: Time | null;
  name: string | null;
  user_id: UserId;
};

/** A report by the exported user, without the message's text, which is another user's data. */
export type ExportedReport = {
  chat_id: string;
  created_at: Time;
  message_id: string;
  reason: string | null;
  report_id: string;
  /** The sender of the message. */
  sender_id: UserId;
  seq: number;
};

/** What is wrong with one field of a request. */
export type FieldError = {
  /** The field's name as sent; `body` for the whole document. */
  field: string;
  /** A text for programmers; not stable. */
  message: string;
};

/** A page of the history, with the position at which it was read. */
export type HistoryView = {
  /** The `after` of the next page; null on the last one. */
  after: number | null;
  /** The `before` of the previous page; null on the first one. */
  before: number | null;
  epoch: string;
  has_more_after: boolean;
  has_more_before: boolean;
  /** Never newer than `results`, so a socket that resumes from it as `after_ev` misses nothing. */
  head_ev: number;
  head_seq: number;
  peer_read_seq: number;
  read_seq: number;
  /** Ascending by `seq`. */
  results: Message[];
};

/** A ticket for the many-chats socket. */
export type ManyChatsTicket = {
  epoch: string;
  /** Life of the ticket, in seconds. */
  expires_in: number;
  heartbeat_ms: number;
  protocol: string;
  ticket: string;
  /** Contains the ticket; opens one socket. */
  ws_url: string;
};

/** A move of the read marker. */
export type MarkRead = {
  /** A safeguard: if it names another chat than the path, the call fails and nothing is marked. */
  room_name?: string | null;
  /** The `seq` up to which messages are read; by default the newest. */
  up_to_seq?: number | null;
};

/** A message, or its tombstone. */
export type Message = {
  chat_id: string;
  client_msg_id: string | null;
  /** Never earlier than that of the previous message. */
  created_at: Time;
  deleted_at: Time | null;
  edited_at: Time | null;
  /** The number of its latest change, among all changes of the chat. */
  ev: number;
  message_id: string;
  /** The host application's JSON object, as sent. One of more than 4 KiB is compacted: without white space and needless escapes. */
  metadata: Record<string, unknown> | null;
  sender_id: UserId;
  /** Its number in the chat: 1, 2, 3 … without gaps, in commit order. */
  seq: number;
  /** As sent, 1 to 4,000 characters; empty in a tombstone. */
  text: string;
};

/** A chat to open. */
export type NewChat = {
  user_id?: UserId | null;
  /** Both members, for a token with `chat:admin`. */
  user_ids?: UserId[] | null;
};

/** A message to send. */
export type NewMessage = {
  /** Makes a retry safe, without a time limit: the same id never makes a second message. */
  client_msg_id?: string | null;
  /** The host application's JSON object, up to 4 KiB. */
  metadata?: Record<string, unknown> | null;
  /** 1 to 4,000 Unicode scalar values, not only white space, no U+0000; stored as sent. */
  text: string;
};

/** The profile of a user, from the host application. */
export type NewProfile = {
  avatar_url?: string | null;
  name?: string | null;
};

/** A report of a message. */
export type NewReport = {
  reason?: string | null;
};

/** A user with a profile, from the host application. */
export type NewUser = {
  avatar_url?: string | null;
  name?: string | null;
  user_id: UserId;
};

/** A bulk request: up to 1,000 users. */
export type NewUsers = {
  users: NewUser[];
};

/** A chat, and whether it is new. */
export type OpenedChat = Chat & {
  created: boolean;
};

/** The body of a failed call: `application/problem+json` (RFC 9457). */
export type Problem = {
  /** The stable name of the failure. */
  code: string;
  detail: string;
  /** For `validation_failed`: every invalid field. */
  errors?: FieldError[] | null;
  request_id: string;
  /** For 429 and 503: when to retry, in milliseconds. The header `Retry-After` has it in whole seconds. */
  retry_after_ms?: number | null;
  status: number;
  title: string;
  type: string;
};

/** The read marker and the counters after a mark. */
export type ReadResult = {
  chat_id: string;
  read_seq: number;
  room_name: string;
  total_unread: number;
  unread_count: number;
};

/** A report of a message to the host application. */
export type Report = {
  chat_id: string;
  created_at: Time;
  message_id: string;
  /** The message's metadata when it was reported; null after its sender was erased. */
  metadata: Record<string, unknown> | null;
  /** The reporter's reason, up to 1,000 characters. */
  reason: string | null;
  report_id: string;
  reporter_id: UserId | null;
  /** The sender of the message. */
  sender_id: UserId;
  seq: number;
  /** The message's text when it was reported, even if it was edited or deleted since; empty after its sender was erased. */
  text: string;
};

/** A page of reports. */
export type ReportPage = {
  /** The `cursor` of the next page; null on the last one. */
  next: string | null;
  /** Latest first. */
  results: Report[];
};

/** A message that a search found. */
export type SearchHit = {
  /** Start and length of each match, in UTF-16 code units of `text`. */
  highlights: number[][];
  message: Message;
};

/** A page of search results. */
export type SearchPage = {
  /** False if the time budget ended before the page was full or the whole chat was searched. */
  complete: boolean;
  /** The `before` of the next page; null after the whole chat was searched. */
  next: number | null;
  /** Newest first. */
  results: SearchHit[];
};

/** A time of Postgres's clock. Written as RFC 3339 in UTC with microseconds, Postgres's precision. */
export type Time = string;

/** The unread counter of a chat. */
export type UnreadChat = {
  chat_id: string;
  last_seq: number;
  read_seq: number;
  room_name: string;
  unread_count: number;
};

/** All unread counters of a user, latest activity first. */
export type UnreadSummary = {
  chats: UnreadChat[];
  total: number;
};

/** A user. */
export type User = {
  avatar_url: string | null;
  last_seen_at: Time | null;
  name: string | null;
  online: boolean;
  user_id: UserId;
};

/** The host application's id of a user, compared byte for byte. */
export type UserId = string;

/** Every call: what goes into its path, query and body, and what comes back. */
export interface Operations {
  'GET /blocks/': {
    path: {};
    query: { limit?: number; cursor?: string };
    body: undefined;
    result: BlockPage;
  };
  'GET /chats/': {
    path: {};
    query: { limit?: number; cursor?: string };
    body: undefined;
    result: ChatPage;
  };
  'POST /chats/': {
    path: {};
    query: {};
    body: NewChat;
    result: OpenedChat;
  };
  'GET /chats/unread/': {
    path: {};
    query: {};
    body: undefined;
    result: UnreadSummary;
  };
  'GET /chats/{chat}/': {
    path: { chat: string };
    query: {};
    body: undefined;
    result: Chat;
  };
  'DELETE /chats/{chat}/': {
    path: { chat: string };
    query: {};
    body: undefined;
    result: null;
  };
  'GET /chats/{chat}/connect/': {
    path: { chat: string };
    query: {};
    body: undefined;
    result: ChatTicket;
  };
  'POST /chats/{chat}/mark_read/': {
    path: { chat: string };
    query: {};
    body: MarkRead | null;
    result: ReadResult;
  };
  'GET /chats/{chat}/messages/': {
    path: { chat: string };
    query: { before?: number; after?: number; around?: number; limit?: number };
    body: undefined;
    result: HistoryView;
  };
  'POST /chats/{chat}/messages/': {
    path: { chat: string };
    query: {};
    body: NewMessage;
    result: Message;
  };
  'GET /chats/{chat}/messages/{message_id}/': {
    path: { chat: string; message_id: string };
    query: {};
    body: undefined;
    result: Message;
  };
  'PATCH /chats/{chat}/messages/{message_id}/': {
    path: { chat: string; message_id: string };
    query: {};
    body: Edit;
    result: Message;
  };
  'DELETE /chats/{chat}/messages/{message_id}/': {
    path: { chat: string; message_id: string };
    query: {};
    body: undefined;
    result: null;
  };
  'POST /chats/{chat}/messages/{message_id}/report/': {
    path: { chat: string; message_id: string };
    query: {};
    body: NewReport | null;
    result: Report;
  };
  'GET /chats/{chat}/search/': {
    path: { chat: string };
    query: { query: string; limit?: number; before?: number };
    body: undefined;
    result: SearchPage;
  };
  'POST /connect/': {
    path: {};
    query: {};
    body: undefined;
    result: ManyChatsTicket;
  };
  'GET /reports/': {
    path: {};
    query: { limit?: number; cursor?: string };
    body: undefined;
    result: ReportPage;
  };
  'POST /users/': {
    path: {};
    query: {};
    body: NewUsers;
    result: BulkResult;
  };
  'GET /users/{user_id}/': {
    path: { user_id: string };
    query: {};
    body: undefined;
    result: User;
  };
  'PUT /users/{user_id}/': {
    path: { user_id: string };
    query: {};
    body: NewProfile;
    result: User;
  };
  'DELETE /users/{user_id}/': {
    path: { user_id: string };
    query: {};
    body: undefined;
    result: null;
  };
  'PUT /users/{user_id}/block/': {
    path: { user_id: string };
    query: {};
    body: undefined;
    result: null;
  };
  'DELETE /users/{user_id}/block/': {
    path: { user_id: string };
    query: {};
    body: undefined;
    result: null;
  };
  'GET /users/{user_id}/export/': {
    path: { user_id: string };
    query: {};
    body: undefined;
    result: ExportLine;
  };
  'POST /users/{user_id}/revoke_tokens/': {
    path: { user_id: string };
    query: {};
    body: undefined;
    result: null;
  };
}
