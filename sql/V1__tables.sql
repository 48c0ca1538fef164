-- Tables: everything that Beseda keeps. Redis and the replicas hold only copies of it.
--
-- Rules for every table:
--  * User ids are the host application's own and are compared byte for byte: COLLATE "C".
--  * A transaction that changes a chat first locks its row in `chats`, so that the order of commits is the
--    order of seq and ev. One that changes several chats locks them in the order of their ids.
--  * The hot path has no foreign keys, and no index covers a column that changes with every send: the
--    updates stay HOT.
--
-- Rules for every statement of the hot path, here and in src/store, so that it has only one plan. A
-- connection plans a statement once, and on tables that are empty or young many plans cost the same: one
-- that reads a whole index would then stay for as long as the connection lives.
--  * A look-up is a subquery that the planner can neither flatten nor reorder: LATERAL with OFFSET 0 (or
--    with a lock, or a limit). This fixes the order and the method of the joins.
--  * Its condition is the whole key of one index, or the key's beginning and its order (the service's
--    connections do not sort where an index has the order). No other index can serve it: see the predicates
--    and the collation of the indexes below.
--  * A set of rows is updated by ctid, which the same statement has looked up, or one under the same lock.

-- The installation as a whole: exactly one row.
CREATE TABLE instance (
    -- Admits one row only.
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- Keys tickets, derived message ids and content digests; 32 bytes.
    secret          bytea NOT NULL CHECK (length(secret) = 32),
    -- Part of the epoch. An operator changes it after a restore from a backup.
    incarnation     text NOT NULL,
    -- The oldest schema whose program runs on this one, so that replicas of both releases serve side by
    -- side. A migration that takes away what an older program uses raises it; see README.md.
    compatible_from integer NOT NULL
);
INSERT INTO instance (secret, incarnation, compatible_from)
VALUES (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()), left(gen_random_uuid()::text, 8), 7);

-- Names the history that positions (ev, seq) belong to. The first eight digits of a WAL file's name are the
-- timeline, which changes when a standby is promoted. Statements of src/store contain the expression itself:
-- a call would be planned with every statement.
CREATE FUNCTION epoch() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT incarnation || '-' || left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM instance
$$;

-- Users that the host application has named, or that came with a valid token.
CREATE TABLE users (
    -- The host application's id.
    user_id           text COLLATE "C" PRIMARY KEY CHECK (char_length(user_id) BETWEEN 1 AND 128),
    -- Shown to other members; null: unknown.
    name              text CHECK (char_length(name) <= 256),
    avatar_url        text CHECK (char_length(avatar_url) <= 2048),
    -- When the user became known.
    created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When the last socket of the user closed; null: never seen.
    last_seen_at      timestamptz,
    -- When the user was erased; their tokens are refused until the host application names them again.
    erased_at         timestamptz,
    -- Tokens issued before this moment are void; null: none was ever revoked.
    tokens_revoked_at timestamptz
) WITH (fillfactor = 90);

-- Chats of two users.
CREATE TABLE chats (
    chat_id         uuid PRIMARY KEY,
    -- 128 random bits in base64url: the chat's public name, which says nothing about its members.
    room_name       text COLLATE "C" NOT NULL UNIQUE CHECK (char_length(room_name) = 22),
    -- The two members in byte order, so that a pair has one chat.
    user_lo         text COLLATE "C" NOT NULL,
    user_hi         text COLLATE "C" NOT NULL,
    -- The member who opened the chat.
    created_by      text COLLATE "C" NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The highest number that a message has; numbers are dense.
    last_seq        bigint NOT NULL DEFAULT 0,
    -- The highest revision that a change has.
    last_ev         bigint NOT NULL DEFAULT 0,
    -- created_at of message last_seq. The next message's is never earlier, even if the clock jumps back.
    last_message_at timestamptz,
    -- Whether either member has blocked the other, and whether either was erased: copies of what `blocks`
    -- and `users` say, kept under this row's lock, so that a send reads one row instead of five.
    blocked         boolean NOT NULL DEFAULT false,
    erased          boolean NOT NULL DEFAULT false,
    CHECK (user_lo < user_hi),
    UNIQUE (user_lo, user_hi)
) WITH (fillfactor = 70);

-- A user's place in a chat.
CREATE TABLE members (
    chat_id  uuid NOT NULL,
    user_id  text COLLATE "C" NOT NULL,
    -- The read marker: all messages up to this seq are read.
    read_seq bigint NOT NULL DEFAULT 0,
    -- The peer's live messages past read_seq, kept exact under the chat's lock.
    unread   bigint NOT NULL DEFAULT 0 CHECK (unread >= 0),
    -- The revision that last moved read_seq; 0: none.
    ev       bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (chat_id, user_id)
) WITH (fillfactor = 70);
-- Serves look-ups by the user, which say COLLATE "POSIX". It orders as "C" does, but the planner takes neither
-- for the other: no look-up by (chat_id, user_id) can use this index, and none by the user the primary key.
CREATE INDEX members_by_user ON members (user_id COLLATE "POSIX");

-- Messages, deleted ones as tombstones.
CREATE TABLE messages (
    chat_id        uuid NOT NULL,
    -- The message's number in its chat, from 1 on without gaps.
    seq            bigint NOT NULL CHECK (seq > 0),
    -- Derived from the client_msg_id where there is one, so that a retry finds its first message for ever.
    message_id     uuid NOT NULL,
    -- The revision of the latest change of this message.
    ev             bigint NOT NULL,
    sender_id      text COLLATE "C" NOT NULL,
    -- The sender's idempotency key; null: the send had none.
    client_msg_id  text COLLATE "C" CHECK (char_length(client_msg_id) BETWEEN 1 AND 64),
    -- Keyed digest of text and metadata as first sent, which tells a retry from a reuse of the key. Null
    -- without a client_msg_id, and in a tombstone.
    content_digest bytea,
    -- '' in a tombstone.
    text           text NOT NULL CHECK (char_length(text) <= 4000),
    -- The host application's own; null: none, or a tombstone.
    metadata       json CHECK (octet_length(metadata::text) <= 4096),
    created_at     timestamptz NOT NULL,
    -- When the text was last edited; null: never.
    edited_at      timestamptz,
    -- When the message became a tombstone; null: it is live.
    deleted_at     timestamptz,
    PRIMARY KEY (chat_id, seq)
);
-- The predicates are always true. With them an index serves only look-ups that ask for its own column, so
-- that a look-up by (chat_id, seq) has only the primary key.
CREATE UNIQUE INDEX messages_by_id ON messages (chat_id, message_id) WHERE message_id IS NOT NULL;
CREATE INDEX messages_by_ev ON messages (chat_id, ev) WHERE ev IS NOT NULL;

-- Who has blocked whom.
CREATE TABLE blocks (
    blocker_id text COLLATE "C" NOT NULL,
    blocked_id text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (blocker_id, blocked_id)
);
-- Serves a page of a user's blocks, latest first.
CREATE INDEX blocks_by_time ON blocks (blocker_id, created_at, blocked_id);

-- Changes that are committed and may not have reached Redis yet. A row is deleted once Redis has all of it.
CREATE TABLE outbox (
    outbox_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When a sweeper may take the row. The delay gives its writer time to publish it; a sweeper postpones it,
    -- so that one works on it at a time, and a sweeper that dies strands nothing.
    due_at     timestamptz NOT NULL DEFAULT clock_timestamp() + interval '500 milliseconds',
    -- The chats that changed.
    chats      uuid[] NOT NULL,
    -- The former members of chats that were deleted, who must be told; otherwise empty.
    users      text[] NOT NULL DEFAULT '{}'
);

-- Deleted chats whose messages are still being deleted: a huge chat takes longer than one statement may. Its
-- row in `chats` is gone already, so nobody can see them.
CREATE TABLE purges (
    chat_id uuid PRIMARY KEY,
    -- When a sweeper may continue. The replica that deleted the chat has half a minute to finish.
    due_at  timestamptz NOT NULL DEFAULT clock_timestamp() + interval '30 seconds'
);

-- Reported messages. A report keeps a copy of its message, so that neither an edit nor a deletion, of the
-- message or of its chat, takes it from the host application. An erasure does: the erased user's words, or
-- name, leave every report.
CREATE TABLE reports (
    report_id   uuid PRIMARY KEY,
    chat_id     uuid NOT NULL,
    message_id  uuid NOT NULL,
    -- The message's number.
    seq         bigint NOT NULL,
    -- The message's sender.
    sender_id   text COLLATE "C" NOT NULL,
    -- Null: the reporter was erased.
    reporter_id text COLLATE "C",
    -- The reporter's reason, in their own words; erased with them.
    reason      text CHECK (char_length(reason) <= 1000),
    -- The message as it was when it was reported; '' and null once its sender was erased.
    text        text NOT NULL CHECK (char_length(text) <= 4000),
    metadata    json CHECK (octet_length(metadata::text) <= 4096),
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- One report a message and reporter; also serves the reports of one reporter.
    UNIQUE (reporter_id, chat_id, message_id)
);
CREATE INDEX reports_by_time ON reports (created_at, report_id);
CREATE INDEX reports_by_sender ON reports (sender_id);

-- Events for the host application's server. Written only where a webhook URL is configured. A row has ids
-- only: the content is read when the event is sent, so that no copy outlives a deletion.
CREATE TABLE webhooks (
    -- The order within a chat, as the number is given under the chat's lock.
    webhook_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The receiver's idempotency key: the same however often the event is sent.
    event_id     uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    kind         text NOT NULL CHECK (kind IN ('message.created', 'report.created')),
    chat_id      uuid NOT NULL,
    -- The recipient and the number of a message.created's message.
    recipient_id text COLLATE "C",
    seq          bigint,
    -- The report of a report.created.
    report_id    uuid,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When the event may be sent; after a failure, sent again.
    due_at       timestamptz NOT NULL,
    -- The start of the attempts; a replay sets it anew.
    begun_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The number of failed attempts.
    attempts     integer NOT NULL DEFAULT 0,
    -- Why the last attempt failed.
    last_error   text CHECK (char_length(last_error) <= 200),
    -- When the event became a dead letter, which holds up no other event; null: it waits.
    dead_at      timestamptz,
    CHECK (CASE kind WHEN 'message.created' THEN recipient_id IS NOT NULL AND seq IS NOT NULL
                     ELSE report_id IS NOT NULL END)
);
CREATE INDEX webhooks_waiting ON webhooks (chat_id, webhook_id) WHERE dead_at IS NULL;
CREATE INDEX webhooks_dead ON webhooks (chat_id, webhook_id) WHERE dead_at IS NOT NULL;

-- Chats with waiting events. The replica that holds a chat's lane sends its first event, so that one event
-- of a chat is sent at a time, in order, from any replica.
CREATE TABLE webhook_lanes (
    chat_id uuid PRIMARY KEY,
    -- When the first event is due. Taking the lane postpones this by the lease, so that a replica that dies
    -- strands nothing.
    due_at  timestamptz NOT NULL,
    -- Counts how often the lane was taken: a replica whose lease ran out finds another number.
    turn    bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 70);
CREATE INDEX webhook_lanes_by_due ON webhook_lanes (due_at);
