// Made from the OpenAPI document by scripts/schema.mjs. Do not edit.

export type Block = {
  created_at: Time;
  user_id: UserId;
};

export type BlockPage = {
  /** The `cursor` of the next page; null where there is none. */
  next: string | null;
  /** Latest first. */
  results: Block[];
};

export type BulkResult = {
  created: number;
  /** Passed over, as they were erased: only `PUT` brings somebody back. */
  erased: number;
  updated: number;
};

/** A chat of two, as one of them sees it. */
export type Chat = {
  chat_id: string;
  created_at: Time;
  created_by: UserId;
  kind: ChatKind;
  last_ev: number;
  last_message: Message | null;
  last_seq: number;
  other_user: User;
  /** Up to which `seq` the other has read. */
  peer_read_seq: number;
  /** Up to which `seq` the caller has read. */
  read_seq: number;
  /** 22 base64url characters, unguessable. */
  room_name: string;
  /** Live messages of the other past `read_seq`. */
  unread_count: number;
};

/** What kind of chat it is. There is one kind; clients must be ready for others. */
export type ChatKind = "direct";

/** A page of chats. */
export type ChatPage = {
  /** The `cursor` of the next page; null where there is none. */
  next: string | null;
  /** Latest activity first. */
  results: Chat[];
};

/** How to open a chat's socket. */
export type ChatTicket = {
  epoch: string;
  /** Seconds. */
  expires_in: number;
  head_ev: number;
  head_seq: number;
  heartbeat_ms: number;
  protocol: string;
  ticket: string;
  /** With the ticket in it; opens one socket. */
  ws_url: string;
};

/** An edit. */
export type Edit = {
  text: string;
};

/** How many lines of each kind there were. */
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

/** Somebody whom the person has blocked. */
export type ExportedBlock = {
  created_at: Time;
  user_id: UserId;
};

/** A chat of the person's. */
export type ExportedChat = {
  chat_id: string;
  created_at: Time;
  created_by: UserId;
  /** How many messages the chat has, of both; the person's own up to it follow. */
  last_seq: number;
  other_user_id: UserId;
  /** Up to which `seq` the person has read. */
  read_seq: number;
  room_name: string;
};

/** The person. */
export type ExportedProfile = {
  avatar_url: string | null;
  /** When they became known. */
  created_at: Time;
  last_seen_at: Time | null;
  name: string | null;
  user_id: UserId;
};

/** A report that the person has made; without the message, which is somebody else's words. */
export type ExportedReport = {
  chat_id: string;
  created_at: Time;
  message_id: string;
  reason: string | null;
  report_id: string;
  /** Whose message it is. */
  sender_id: UserId;
  seq: number;
};

/** What was wrong with one field of a request. */
export type FieldError = {
  /** The field's name as sent; `body` where the whole document is at fault. */
  field: string;
  /** A sentence for the programmer; not stable. */
  message: string;
};

/** A page of history with the position it was read at. */
export type HistoryView = {
  /** The `after` of the page after this one; null where there is none. */
  after: number | null;
  /** The `before` of the page before this one; null where there is none. */
  before: number | null;
  epoch: string;
  has_more_after: boolean;
  has_more_before: boolean;
  /** Never newer than `results`: a socket with `after_ev` of this loses nothing. */
  head_ev: number;
  head_seq: number;
  peer_read_seq: number;
  read_seq: number;
  /** Ascending by `seq`. */
  results: Message[];
};

/** How to open the many-chats socket. */
export type ManyChatsTicket = {
  epoch: string;
  /** Seconds. */
  expires_in: number;
  heartbeat_ms: number;
  protocol: string;
  ticket: string;
  /** With the ticket in it; opens one socket. */
  ws_url: string;
};

/** How far a reader has read. */
export type MarkRead = {
  /** A safeguard: of another chat than the path's, nothing is marked. */
  room_name?: string | null;
  /** Up to which `seq`; without it all sent up to now. */
  up_to_seq?: number | null;
};

/** A message, or its tombstone. */
export type Message = {
  chat_id: string;
  client_msg_id: string | null;
  /** Never before the previous message's. */
  created_at: Time;
  deleted_at: Time | null;
  edited_at: Time | null;
  /** The number of its latest change among all changes of the chat. */
  ev: number;
  message_id: string;
  /** The host application's own JSON object, as sent; where that had more than 4 KiB, without white space and escapes that need not be. */
  metadata: Record<string, unknown> | null;
  sender_id: UserId;
  /** Its number in the chat: 1, 2, 3 … without a hole, in commit order. */
  seq: number;
  /** As sent; empty once deleted. */
  text: string;
};

/** With whom a chat is to be opened. */
export type NewChat = {
  user_id?: UserId | null;
  /** Both, for `chat:admin`. */
  user_ids?: UserId[] | null;
};

/** A message to send. */
export type NewMessage = {
  /** Makes a retry safe, for ever: the same id never makes a second message. */
  client_msg_id?: string | null;
  /** The host application's own JSON object, up to 4 KiB. */
  metadata?: Record<string, unknown> | null;
  /** 1 to 4,000 Unicode scalar values, not only white space, no U+0000; kept as sent. */
  text: string;
};

/** What the host application says of a person. */
export type NewProfile = {
  avatar_url?: string | null;
  name?: string | null;
};

/** Why a message is reported. */
export type NewReport = {
  reason?: string | null;
};

export type NewUser = {
  avatar_url?: string | null;
  name?: string | null;
  user_id: UserId;
};

export type NewUsers = {
  users: NewUser[];
};

/** A chat, and whether it is new. */
export type OpenedChat = Chat & {
  created: boolean;
};

/** What a client is told of a failure. */
export type Problem = {
  /** Stable. */
  code: string;
  detail: string;
  /** For 422: every field at fault. */
  errors?: FieldError[] | null;
  request_id: string;
  /** For 429 and 503, also in the header `Retry-After` in whole seconds. */
  retry_after_ms?: number | null;
  status: number;
  title: string;
  type: string;
};

/** Where a read marker stands after a mark. */
export type ReadResult = {
  chat_id: string;
  read_seq: number;
  room_name: string;
  total_unread: number;
  unread_count: number;
};

/** A message that somebody has reported to the host application. */
export type Report = {
  chat_id: string;
  created_at: Time;
  message_id: string;
  /** Likewise; null once its sender was erased. */
  metadata: Record<string, unknown> | null;
  /** In the reporter's words. */
  reason: string | null;
  report_id: string;
  reporter_id: UserId | null;
  /** Whose message it is. */
  sender_id: UserId;
  seq: number;
  /** As it was when it was reported, whatever became of the message; empty once its sender was erased. */
  text: string;
};

/** A page of reports. */
export type ReportPage = {
  /** The `cursor` of the next page; null where there is none. */
  next: string | null;
  /** Latest first. */
  results: Report[];
};

export type SearchHit = {
  /** Start and length of each, in UTF-16 code units of `text`. */
  highlights: number[][];
  message: Message;
};

export type SearchPage = {
  /** False where the time was up before the chat's beginning or enough hits. */
  complete: boolean;
  /** The `before` to go on with; null where all was searched. */
  next: number | null;
  /** Newest first. */
  results: SearchHit[];
};

/** A moment of Postgres's clock. Written as RFC 3339 in UTC with microseconds, which is what Postgres keeps. */
export type Time = string;

/** One chat's counter. */
export type UnreadChat = {
  chat_id: string;
  last_seq: number;
  read_seq: number;
  room_name: string;
  unread_count: number;
};

/** All counters of a user, latest activity first. */
export type UnreadSummary = {
  chats: UnreadChat[];
  total: number;
};

/** A person. */
export type User = {
  avatar_url: string | null;
  last_seen_at: Time | null;
  name: string | null;
  online: boolean;
  user_id: UserId;
};

/** The host application's own id of a person, compared byte for byte. */
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
