-- The whole of Beseda's durable state. Rules that hold for every table:
--  * user ids are the host application's own, compared byte for byte: COLLATE "C";
--  * whoever changes a chat locks its row in `chats` first: commit order is number order;
--  * no foreign keys on the hot path, and no index on what changes with every send (HOT updates).

-- What belongs to this installation as a whole; exactly one row.
CREATE TABLE instance (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- Keys tickets, derived message ids and content digests; 32 bytes.
    secret      bytea NOT NULL CHECK (length(secret) = 32),
    -- Part of the epoch: an operator changes it after a restore from a backup.
    incarnation text NOT NULL
);
INSERT INTO instance (secret, incarnation)
VALUES (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()), left(gen_random_uuid()::text, 8));

-- Names the history that positions (ev, seq) belong to. The first eight digits of a WAL file's name
-- are the timeline, which changes when a standby is promoted.
CREATE FUNCTION epoch() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT incarnation || '-' || left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM instance
$$;

CREATE TABLE users (
    user_id      text COLLATE "C" PRIMARY KEY CHECK (char_length(user_id) BETWEEN 1 AND 128),
    name         text CHECK (char_length(name) <= 256),
    avatar_url   text CHECK (char_length(avatar_url) <= 2048),
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen_at timestamptz,
    -- Set: the person was erased; their tokens are refused until the host names them again.
    erased_at    timestamptz
) WITH (fillfactor = 90);

CREATE TABLE chats (
    chat_id         uuid PRIMARY KEY,
    -- 128 random bits in base64url.
    room_name       text COLLATE "C" NOT NULL UNIQUE CHECK (char_length(room_name) = 22),
    -- The pair, in byte order, so that there is one room whoever opens it.
    user_lo         text COLLATE "C" NOT NULL,
    user_hi         text COLLATE "C" NOT NULL,
    created_by      text COLLATE "C" NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The highest number given to a message, and to a change.
    last_seq        bigint NOT NULL DEFAULT 0,
    last_ev         bigint NOT NULL DEFAULT 0,
    -- created_at of message last_seq: the next one's is never before it, even if the clock jumps back.
    last_message_at timestamptz,
    -- Copies of what `blocks` and `users` say of the two, kept under this row's lock, so that a send
    -- reads one row and not five: one has blocked the other; one was erased.
    blocked         boolean NOT NULL DEFAULT false,
    erased          boolean NOT NULL DEFAULT false,
    CHECK (user_lo < user_hi),
    UNIQUE (user_lo, user_hi)
) WITH (fillfactor = 70);

CREATE TABLE members (
    chat_id  uuid NOT NULL,
    user_id  text COLLATE "C" NOT NULL,
    -- All messages up to this seq are read.
    read_seq bigint NOT NULL DEFAULT 0,
    -- Live messages of the other past read_seq, kept exact under the chat's lock.
    unread   bigint NOT NULL DEFAULT 0 CHECK (unread >= 0),
    -- The change that moved read_seq last; 0: never.
    ev       bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (chat_id, user_id)
) WITH (fillfactor = 70);
CREATE INDEX members_by_user ON members (user_id, chat_id);

CREATE TABLE messages (
    chat_id        uuid NOT NULL,
    seq            bigint NOT NULL CHECK (seq > 0),
    message_id     uuid NOT NULL,
    -- The latest change of this message.
    ev             bigint NOT NULL,
    sender_id      text COLLATE "C" NOT NULL,
    client_msg_id  text COLLATE "C" CHECK (char_length(client_msg_id) BETWEEN 1 AND 64),
    -- Keyed digest of text and metadata as first sent, to tell a retry from a reuse; null without
    -- a client_msg_id and once deleted.
    content_digest bytea,
    text           text NOT NULL CHECK (char_length(text) <= 4000),
    metadata       json CHECK (octet_length(metadata::text) <= 4096),
    created_at     timestamptz NOT NULL,
    edited_at      timestamptz,
    -- Set: a tombstone; text is '' and metadata null.
    deleted_at     timestamptz,
    PRIMARY KEY (chat_id, seq),
    -- Also what makes a retry find its first message, for ever: the id is derived from client_msg_id.
    UNIQUE (chat_id, message_id)
);
CREATE INDEX messages_by_ev ON messages (chat_id, ev);

CREATE TABLE blocks (
    blocker_id text COLLATE "C" NOT NULL,
    blocked_id text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (blocker_id, blocked_id)
);

-- What was committed and may not have reached Redis yet; a row is deleted once Redis has all of it.
CREATE TABLE outbox (
    outbox_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When a sweeper may take it: time enough for whoever wrote it to publish it, and pushed on by
    -- whoever takes it, so that one sweeper at a time works on it and none can strand it.
    due_at     timestamptz NOT NULL DEFAULT clock_timestamp() + interval '500 milliseconds',
    chats      uuid[] NOT NULL,
    -- Members of chats that are gone by now, who must be told; else empty.
    users      text[] NOT NULL DEFAULT '{}'
);

-- Rooms that were deleted, whose messages are being deleted: a huge room takes longer than one
-- statement may. The room itself is gone already, so nobody can see them.
CREATE TABLE purges (
    chat_id uuid PRIMARY KEY,
    -- Whoever deleted the room has half a minute to do it all.
    due_at  timestamptz NOT NULL DEFAULT clock_timestamp() + interval '30 seconds'
);

-- A pair's lock for what concerns a room that may not exist yet. chr(1) can't be part of a user id.
CREATE FUNCTION lock_pair(a text, b text) RETURNS void LANGUAGE sql VOLATILE AS $$
    SELECT pg_advisory_xact_lock(hashtextextended(
        least(a COLLATE "C", b COLLATE "C") || chr(1) || greatest(a COLLATE "C", b COLLATE "C"), 0))
$$;

CREATE FUNCTION is_blocked(a text, b text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM blocks WHERE blocker_id = a AND blocked_id = b)
        OR EXISTS (SELECT FROM blocks WHERE blocker_id = b AND blocked_id = a)
$$;
