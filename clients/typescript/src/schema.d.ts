// Made from the OpenAPI document by scripts/schema.mjs. Do not edit.

/** The outcome of adding members. */
export type AddedMembers = {
  added: UserId[];
  /** Those who were members already. */
  present: UserId[];
  refused: RefusedMember[];
};

/** A file that was sent with a message. */
export type Attachment = {
  attachment_id: string;
  /** A [short text](https://blurha.sh) to paint until the image is there; null: none. */
  blurhash: string | null;
  content_type: string;
  /** Of audio and video, in milliseconds; null: unknown. */
  duration_ms: number | null;
  height: number | null;
  /** As its sender named it: 1 to 255 characters, no path. */
  name: string;
  /** In bytes. */
  size: number;
  status: AttachmentStatus;
  /** Whether it can be had in small, as `?variant=thumbnail`. */
  thumbnail: boolean;
  /** Of an image, in pixels; null: unknown. */
  width: number | null;
};

/** A URL of an attachment's bytes, for whoever has it. */
export type AttachmentLink = {
  expires_at: Time;
  url: string;
};

/** Whether an attachment can be had. Clients must expect others. */
export type AttachmentStatus = "ready" | "scanning" | "blocked";

/** An announced attachment, and where its bytes go. */
export type AttachmentTicket = {
  attachment_id: string;
  upload: UploadLink;
};

/** A user who is kept out of a group. */
export type Ban = {
  by: UserId | null;
  created_at: Time;
  /** Up to 1,000 characters. */
  reason: string | null;
  until: Time | null;
  user: User;
};

/** A page of bans. */
export type BanPage = {
  /** The `cursor` of the next page; null on the last one. */
  next: string | null;
  /** Latest first. */
  results: Ban[];
};

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

/** A page of all that changed in a chat since a position. */
export type ChangePage = {
  /** The history that each `ev` belongs to. */
  epoch: string;
  has_more: boolean;
  head_ev: number;
  /** [Frames of the socket](/docs/socket/) that have an `ev`, ascending by it: each row that changed, as it is now. The last one's `ev` is the `after_ev` of the next page. */
  results: Record<string, unknown>[];
};

/** A chat, as one of its members sees it. */
export type Chat = {
  /** Whether the caller has archived the chat. */
  archived: boolean;
  avatar_url: string | null;
  chat_id: string;
  created_at: Time;
  created_by: UserId;
  /** The `seq` of the first message that the caller may see; 1: all. */
  first_seq: number;
  kind: ChatKind;
  last_ev: number;
  last_message: Message | null;
  last_seq: number;
  member_count: number;
  /** The host application's JSON object, up to 4 KiB; null in a direct chat. */
  metadata: Record<string, unknown> | null;
  /** What the caller wants to be notified of. */
  notify: Notify;
  other_user: User | null;
  /** The `seq` up to which the other member has read; null in a group. */
  peer_read_seq: number | null;
  /** Whether the caller has pinned the chat. */
  pinned: boolean;
  /** The `seq` up to which the caller has read. */
  read_seq: number;
  /** Whether read markers are told to all members. */
  receipts: boolean;
  /** The caller's role; `member` in a direct chat. */
  role: Role;
  /** 22 base64url characters, unguessable. */
  room_name: string;
  settings: GroupSettings | null;
  /** 1 to 200 characters; null in a direct chat. */
  title: string | null;
  /** Messages of other members after `read_seq`, without tombstones and system messages. */
  unread_count: number;
  /** Those of them that mention the caller. */
  unread_mentions: number;
};

/** A change of a group; what is not given stays as it is. */
export type ChatChange = {
  /** Null removes it. */
  avatar_url?: string | null;
  /** Null removes it. */
  metadata?: Record<string, unknown> | null;
  settings?: NewSettings | null;
  title?: string | null;
};

/** The kind of a chat. Clients must expect others. */
export type ChatKind = "direct" | "group";

/** A page of chats. */
export type ChatPage = {
  /** The `cursor` of the next page; null on the last one. */
  next: string | null;
  /** Pinned chats first, then latest activity first. */
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

/** A registered device of the caller's. Its token or subscription is not shown. */
export type Device = {
  created_at: Time;
  device_id: string;
  locale: string | null;
  platform: PushPlatform;
  /** Messages' texts are sent to it. */
  preview: boolean;
  /** When it was registered last. */
  updated_at: Time;
};

/** The caller's devices. */
export type DeviceList = {
  /** Latest registered first. */
  results: Device[];
};

/** The new content of a message. */
export type Edit = {
  mentions?: Mentions | null;
  /** As in a message: empty only beside attachments. */
  text: string;
};

/** The number of lines of each kind. */
export type ExportEnd = {
  attachments: number;
  blocks: number;
  chats: number;
  devices: number;
  messages: number;
  reactions: number;
  reports: number;
};

/** A line of an export. */
export type ExportLine = ExportedProfile & {
  type: "profile";
} | Device & {
  type: "device";
} | ExportedBlock & {
  type: "block";
} | ExportedChat & {
  type: "chat";
} | ExportedMessage & {
  type: "message";
} | ExportedReaction & {
  type: "reaction";
} | ExportedAttachment & {
  type: "attachment";
} | ExportedReport & {
  type: "report";
} | ExportEnd & {
  type: "end";
};

/** An attachment that the exported user has announced, sent or not. */
export type ExportedAttachment = {
  attachment: Attachment;
  chat_id: string;
  created_at: Time;
  expires_at: Time | null;
  /** The number of the message that it was sent with; null: it was not sent. */
  seq: number | null;
  /** Where its bytes can be read until `expires_at`; null: there are none. */
  url: string | null;
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
  joined_at: Time;
  kind: ChatKind;
  /** The newest `seq` of the chat. The user's own messages up to it follow. */
  last_seq: number;
  other_user_id: UserId | null;
  /** The `seq` up to which the user has read. */
  read_seq: number;
  /** The user's role, the last one where they have left. */
  role: Role;
  room_name: string;
  /** Null in a direct chat. */
  title: string | null;
};

/** A message of the exported user. It has a `type` of its own, so it is a member of its line. */
export type ExportedMessage = {
  message: Message;
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

/** A reaction of the exported user. */
export type ExportedReaction = {
  chat_id: string;
  created_at: Time;
  emoji: string;
  message_id: string;
  seq: number;
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

/** The settings of a group. */
export type GroupSettings = {
  history: HistoryRule;
  invite: InviteRule;
  join: JoinRule;
  post: PostRule;
  /** Least time between two messages of a plain member, in seconds: 0, or 1 to 21,600. */
  slow_mode_s: number;
};

/** Which messages a new member of a group may see. */
export type HistoryRule = "all" | "joined";

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
  /** Null in a group. */
  peer_read_seq: number | null;
  read_seq: number;
  /** Ascending by `seq`. */
  results: Message[];
};

/** An invitation to a group. Whoever knows its code may accept it. */
export type Invite = {
  /** 128 random bits in base64url: 22 characters. */
  code: string;
  expires_at: Time;
  invite_id: string;
  /** Null: without a bound. */
  max_uses: number | null;
  /** How many members have joined with it. */
  uses: number;
};

/** A page of a group's invitations. */
export type InvitePage = {
  /** The `cursor` of the next page; null on the last one. */
  next: string | null;
  /** Latest first, without those that are spent or expired. */
  results: Invite[];
};

/** Who may add members to a group and invite to it. */
export type InviteRule = "admins" | "members";

/** How one becomes a member of a group. */
export type JoinRule = "invite" | "open";

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

/** A member of a chat. */
export type Member = {
  joined_at: Time;
  /** Null in a chat without receipts. */
  read_seq: number | null;
  role: Role;
  silenced_until: Time | null;
  user: User;
};

/** A change of a member; what is not given stays as it is. */
export type MemberChange = {
  role?: Role | null;
  silenced_until?: Time | null;
};

/** A page of a chat's members. */
export type MemberPage = {
  member_count: number;
  /** The `cursor` of the next page; null on the last one. */
  next: string | null;
  /** The owner, then admins, then by joining. */
  results: Member[];
};

/** Up to 50 members' ids, or `all`. */
export type Mentions = string[] | "all";

/** A message, or its tombstone. */
export type Message = {
  /** In the order of the send; empty in a tombstone. */
  attachments: Attachment[];
  chat_id: string;
  client_msg_id: string | null;
  /** Never earlier than that of the previous message. */
  created_at: Time;
  deleted_at: Time | null;
  edited_at: Time | null;
  /** The number of its latest change, among all changes of the chat. */
  ev: number;
  /** Whom it mentions; empty in a tombstone. */
  mentions: Mentions;
  message_id: string;
  /** The host application's JSON object, as sent. One of more than 4 KiB is compacted: without white space and needless escapes. */
  metadata: Record<string, unknown> | null;
  /** The caller's own reactions; in answers of REST only, as frames are for all members alike. */
  my_reactions?: string[] | null;
  pinned_at: Time | null;
  /** In the order of the first reaction with each emoji; empty in a tombstone. */
  reactions: Reaction[];
  reply_to: Quote | null;
  sender_id: UserId | null;
  /** Its number in the chat: 1, 2, 3 … without gaps, in commit order. */
  seq: number;
  system: SystemEvent | null;
  /** As sent, 1 to 4,000 characters; empty in a tombstone and in a system message. */
  text: string;
  type: MessageKind;
};

/** The kind of a message. Clients must expect others. */
export type MessageKind = "text" | "system";

/** A page of messages, of one chat or of several. */
export type MessagePage = {
  /** The `cursor` of the next page; null on the last one. */
  next: string | null;
  results: Message[];
};

/** A file that is to be uploaded. */
export type NewAttachment = {
  /** Like `image/png`; the content must bear it out. */
  content_type: string;
  /** The file's name, without a path. */
  name: string;
  /** In bytes. */
  size: number;
};

/** A ban. */
export type NewBan = {
  reason?: string | null;
  until?: Time | null;
};

/** A chat to open: a direct one by `user_id` (or `user_ids`), or a group by `kind`. */
export type NewChat = {
  avatar_url?: string | null;
  /** Makes a retry safe, without a time limit: the same caller and id never make a second group. */
  client_chat_id?: string | null;
  kind?: ChatKind | null;
  /** The host application's JSON object, up to 4 KiB. */
  metadata?: Record<string, unknown> | null;
  owner_id?: UserId | null;
  settings?: NewSettings | null;
  /** The title of a group. */
  title?: string | null;
  user_id?: UserId | null;
  /** Both members of a direct chat, for a token with `chat:admin`; the members of a group beside its owner, up to 1,000. */
  user_ids?: UserId[] | null;
};

/** A device to register: with a `token`, or for `webpush` with a `subscription`. */
export type NewDevice = {
  /** The language that the device shows, as BCP 47 writes it. */
  locale?: string | null;
  platform: PushPlatform;
  /** Send the messages' texts to it; without, only who wrote, and where. `false` where it is not given. */
  preview?: boolean | null;
  subscription?: Subscription | null;
  /** What the platform calls the device: of `fcm` its registration token, of `apns` its device token in hexadecimal digits. */
  token?: string | null;
};

/** An invitation to make. */
export type NewInvite = {
  /** Its life in seconds: 60 to 31,536,000 (a year), by default 604,800 (a week). */
  expires_in_s?: number | null;
  /** How many may join with it: 1 to 100,000, by default any number. */
  max_uses?: number | null;
};

/** Members to add to a group. */
export type NewMembers = {
  role?: Role | null;
  user_ids: UserId[];
};

/** A message to send. */
export type NewMessage = {
  /** 1 to 10 attachments that the sender has uploaded to this chat, in this order; beside them `text` may be empty. */
  attachments?: string[];
  /** Makes a retry safe, without a time limit: the same id never makes a second message. */
  client_msg_id?: string | null;
  mentions?: Mentions | null;
  /** The host application's JSON object, up to 4 KiB. */
  metadata?: Record<string, unknown> | null;
  /** The message of the same chat that it answers. */
  reply_to?: string | null;
  /** 1 to 4,000 Unicode scalar values, not only white space, no U+0000; stored as sent. Beside attachments it may be empty. */
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

/** Settings of a group to be set; what is not given stays as it is, or is the default. */
export type NewSettings = {
  history?: HistoryRule | null;
  invite?: InviteRule | null;
  join?: JoinRule | null;
  post?: PostRule | null;
  slow_mode_s?: number | null;
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

/** What a member wants to be notified of. */
export type Notify = "all" | "mentions" | "none";

/** A chat, and whether it is new. */
export type OpenedChat = Chat & {
  created: boolean;
};

/** A change of the caller's own settings of a chat; what is not given stays as it is. */
export type OwnSettings = {
  archived?: boolean | null;
  notify?: Notify | null;
  pinned?: boolean | null;
};

/** Who may post in a group. */
export type PostRule = "members" | "admins";

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

/** What a client needs to know before it registers a device. */
export type PushInfo = {
  /** The platforms that are set up here. */
  platforms: PushPlatform[];
  /** The `applicationServerKey` for a browser's subscription, in base64url; null without `webpush`. */
  vapid_public_key: string | null;
};

/** Who carries a push to a device. */
export type PushPlatform = "webpush" | "fcm" | "apns";

/** The message that another one answers, as it is now. */
export type Quote = {
  deleted: boolean;
  message_id: string;
  sender_id: UserId | null;
  seq: number;
  /** The first 200 characters of its text; empty once it is deleted. */
  text: string;
};

/** Those who reacted to a message with one emoji. */
export type Reaction = {
  count: number;
  /** One emoji, or a name such as `:party:`. */
  emoji: string;
  /** The first 20 of them, in the order of their reactions. */
  user_ids: UserId[];
};

/** A page of who reacted to a message. */
export type ReactionPage = {
  /** The `cursor` of the next page; null on the last one. */
  next: string | null;
  /** By emoji, then in the order of the reactions. */
  results: UserReaction[];
};

/** The reactions of a message. */
export type Reactions = {
  reactions: Reaction[];
};

/** The read marker and the counters after a mark. */
export type ReadResult = {
  chat_id: string;
  read_seq: number;
  room_name: string;
  total_unread: number;
  unread_count: number;
};

/** A member who has read a message. */
export type Reader = {
  user_id: UserId;
};

/** Who has read a message. */
export type ReaderPage = {
  /** How many members have read it. */
  count: number;
  /** The `cursor` of the next page; null on the last one. */
  next: string | null;
  results: Reader[];
};

/** A user who was not added. */
export type RefusedMember = {
  /** `banned`, `user_not_found` or `chat_full`. */
  code: string;
  user_id: UserId;
};

/** A report of a message to the host application. */
export type Report = {
  /** The message's attachments when it was reported. They can be read until the report is decided; none after its sender was erased. */
  attachments: Attachment[];
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

/** What a member may do in a group. */
export type Role = "member" | "admin" | "owner";

/** A page of what a search over all chats found. */
export type SearchAllPage = {
  /** False if the time budget ended before the page was full or all chats were searched. */
  complete: boolean;
  /** The `cursor` of the next page; null after all chats were searched. */
  next: string | null;
  /** Newest first. */
  results: SearchHit[];
};

/** A message that a search found. */
export type SearchHit = {
  /** Start and length of each match, in UTF-16 code units of `text`. A match in the name of an attachment has none. */
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

/** A subscription of Web Push. */
export type Subscription = {
  /** An `https://` URL of the push service. */
  endpoint: string;
  keys: SubscriptionKeys;
};

/** The keys of a subscription, in base64url. */
export type SubscriptionKeys = {
  /** 16 bytes that only the device and this service know. */
  auth: string;
  /** The device's public key: an uncompressed point of P-256. */
  p256dh: string;
};

/** A page of the chats that changed since a cursor was given. */
export type SyncPage = {
  /** Chats that are the caller's no longer. */
  gone: string[];
  has_more: boolean;
  /** The `cursor` of the next page; on the last one, of the next time. */
  next: string;
  /** A list of all chats begins with this page: once it ends, what the client has of any other chat is of no use. */
  reset: boolean;
  /** As they are now. */
  results: Chat[];
};

/** What a system message tells of. */
export type SystemEvent = {
  by?: UserId | null;
  event: SystemEventKind;
  /** The new title of a `chat.changed` that changed it. */
  title?: string | null;
  /** Whom it is about. */
  user_ids: UserId[];
};

/** The kind of a system message. Clients must expect others. */
export type SystemEventKind = "member.joined" | "member.left" | "member.removed" | "owner.changed" | "chat.changed";

/** A time of Postgres's clock. Written as RFC 3339 in UTC with microseconds, Postgres's precision. */
export type Time = string;

/** The unread counters of a chat. */
export type UnreadChat = {
  chat_id: string;
  last_seq: number;
  notify: Notify;
  read_seq: number;
  room_name: string;
  unread_count: number;
  unread_mentions: number;
};

/** All unread counters of a user, latest activity first. */
export type UnreadSummary = {
  /** What an app's badge shows: unread messages of chats with `notify` `all` and unread mentions of those with `mentions`, without archived chats. */
  badge: number;
  chats: UnreadChat[];
  /** Unread messages of all chats. */
  total: number;
  /** Unread mentions of all chats. */
  total_mentions: number;
};

/** A request that uploads the bytes. It takes no token: the URL is the right. */
export type UploadLink = {
  expires_at: Time;
  /** Headers that the request must have, with these values. */
  headers: Record<string, string>;
  /** `PUT`. */
  method: string;
  url: string;
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

/** One user's reaction to a message. */
export type UserReaction = {
  created_at: Time;
  emoji: string;
  user_id: UserId;
};

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
    query: { limit?: number; cursor?: string; filter?: string };
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
  'PATCH /chats/{chat}/': {
    path: { chat: string };
    query: {};
    body: ChatChange;
    result: Chat;
  };
  'DELETE /chats/{chat}/': {
    path: { chat: string };
    query: {};
    body: undefined;
    result: null;
  };
  'POST /chats/{chat}/attachments/': {
    path: { chat: string };
    query: {};
    body: NewAttachment;
    result: AttachmentTicket;
  };
  'GET /chats/{chat}/attachments/{attachment_id}/': {
    path: { chat: string; attachment_id: string };
    query: { variant?: string; link?: boolean };
    body: undefined;
    result: AttachmentLink | null;
  };
  'GET /chats/{chat}/bans/': {
    path: { chat: string };
    query: { limit?: number; cursor?: string };
    body: undefined;
    result: BanPage;
  };
  'PUT /chats/{chat}/bans/{user_id}/': {
    path: { chat: string; user_id: string };
    query: {};
    body: NewBan | null;
    result: Ban;
  };
  'DELETE /chats/{chat}/bans/{user_id}/': {
    path: { chat: string; user_id: string };
    query: {};
    body: undefined;
    result: null;
  };
  'GET /chats/{chat}/changes/': {
    path: { chat: string };
    query: { after_ev?: number; limit?: number };
    body: undefined;
    result: ChangePage;
  };
  'GET /chats/{chat}/connect/': {
    path: { chat: string };
    query: {};
    body: undefined;
    result: ChatTicket;
  };
  'GET /chats/{chat}/invites/': {
    path: { chat: string };
    query: { limit?: number; cursor?: string };
    body: undefined;
    result: InvitePage;
  };
  'POST /chats/{chat}/invites/': {
    path: { chat: string };
    query: {};
    body: NewInvite | null;
    result: Invite;
  };
  'DELETE /chats/{chat}/invites/{invite_id}/': {
    path: { chat: string; invite_id: string };
    query: {};
    body: undefined;
    result: null;
  };
  'POST /chats/{chat}/join/': {
    path: { chat: string };
    query: {};
    body: undefined;
    result: Chat;
  };
  'POST /chats/{chat}/mark_read/': {
    path: { chat: string };
    query: {};
    body: MarkRead | null;
    result: ReadResult;
  };
  'PATCH /chats/{chat}/me/': {
    path: { chat: string };
    query: {};
    body: OwnSettings;
    result: Chat;
  };
  'GET /chats/{chat}/members/': {
    path: { chat: string };
    query: { limit?: number; cursor?: string; role?: Role; query?: string };
    body: undefined;
    result: MemberPage;
  };
  'POST /chats/{chat}/members/': {
    path: { chat: string };
    query: {};
    body: NewMembers;
    result: AddedMembers;
  };
  'PATCH /chats/{chat}/members/{user_id}/': {
    path: { chat: string; user_id: string };
    query: {};
    body: MemberChange;
    result: Member;
  };
  'DELETE /chats/{chat}/members/{user_id}/': {
    path: { chat: string; user_id: string };
    query: {};
    body: undefined;
    result: null;
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
  'GET /chats/{chat}/messages/{message_id}/reactions/': {
    path: { chat: string; message_id: string };
    query: { emoji?: string; limit?: number; cursor?: string };
    body: undefined;
    result: ReactionPage;
  };
  'PUT /chats/{chat}/messages/{message_id}/reactions/{emoji}/': {
    path: { chat: string; message_id: string; emoji: string };
    query: {};
    body: undefined;
    result: Reactions;
  };
  'DELETE /chats/{chat}/messages/{message_id}/reactions/{emoji}/': {
    path: { chat: string; message_id: string; emoji: string };
    query: {};
    body: undefined;
    result: Reactions;
  };
  'GET /chats/{chat}/messages/{message_id}/readers/': {
    path: { chat: string; message_id: string };
    query: { limit?: number; cursor?: string };
    body: undefined;
    result: ReaderPage;
  };
  'POST /chats/{chat}/messages/{message_id}/report/': {
    path: { chat: string; message_id: string };
    query: {};
    body: NewReport | null;
    result: Report;
  };
  'GET /chats/{chat}/pins/': {
    path: { chat: string };
    query: { limit?: number; cursor?: string };
    body: undefined;
    result: MessagePage;
  };
  'PUT /chats/{chat}/pins/{message_id}/': {
    path: { chat: string; message_id: string };
    query: {};
    body: undefined;
    result: null;
  };
  'DELETE /chats/{chat}/pins/{message_id}/': {
    path: { chat: string; message_id: string };
    query: {};
    body: undefined;
    result: null;
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
  'GET /devices/': {
    path: {};
    query: {};
    body: undefined;
    result: DeviceList;
  };
  'PUT /devices/{device_id}/': {
    path: { device_id: string };
    query: {};
    body: NewDevice;
    result: Device;
  };
  'DELETE /devices/{device_id}/': {
    path: { device_id: string };
    query: {};
    body: undefined;
    result: null;
  };
  'POST /invites/{code}/': {
    path: { code: string };
    query: {};
    body: undefined;
    result: Chat;
  };
  'GET /mentions/': {
    path: {};
    query: { limit?: number; cursor?: string };
    body: undefined;
    result: MessagePage;
  };
  'GET /push/': {
    path: {};
    query: {};
    body: undefined;
    result: PushInfo;
  };
  'GET /reports/': {
    path: {};
    query: { limit?: number; cursor?: string };
    body: undefined;
    result: ReportPage;
  };
  'DELETE /reports/{report_id}/': {
    path: { report_id: string };
    query: {};
    body: undefined;
    result: null;
  };
  'GET /reports/{report_id}/attachments/{attachment_id}/': {
    path: { report_id: string; attachment_id: string };
    query: { variant?: string; link?: boolean };
    body: undefined;
    result: AttachmentLink | null;
  };
  'GET /search/': {
    path: {};
    query: { query: string; limit?: number; cursor?: string };
    body: undefined;
    result: SearchAllPage;
  };
  'GET /sync/': {
    path: {};
    query: { limit?: number; cursor?: string };
    body: undefined;
    result: SyncPage;
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
