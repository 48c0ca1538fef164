-- Tables: what Beseda keeps of users, chats and messages. Those of reports, webhooks, attachments and push stand
-- beside their functions. Redis and the replicas hold only copies.
--
-- Rules for every table:
--  * User ids are the host application's own and are compared byte for byte: COLLATE "C".
--  * A transaction that changes a chat first locks its row in `chats`, so that the order of commits is the
--    order of seq and ev. One that changes several chats locks them in the order of their ids. Rows of
--    `members` come after all chats, in the order (chat_id, user_id).
--  * A statement that looks comes after the statement that locks: its snapshot is then younger than the lock.
--  * Every key begins with `chat_id` or `user_id`, so that chats and users can be divided among databases.
--    What cannot is a directory: `pairs`, `chat_names`, `group_keys`, `invites`.
--  * The hot path has no foreign keys, and no index covers a column that changes with every send: the
--    updates stay HOT.
--  * A statement that writes a row parses each CHECK of its table anew, some 15 us. The tables of the hot path have
--    none: closed sets are enum types, and bounds are those of domains, which are parsed once a connection, and
--    checked where a column is given a value.
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
    -- The epoch as the primary's replicas saw it last. A standby that has the present one has replayed a commit of the
    -- present timeline. Null: there are no standbys to read from.
    seen_epoch      text,
    -- The oldest schema whose program runs on this one, so that replicas of both releases serve side by
    -- side. A migration that takes away what an older program uses raises it; see README.md.
    compatible_from integer NOT NULL
);
INSERT INTO instance (secret, incarnation, compatible_from)
VALUES (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()), left(gen_random_uuid()::text, 8), 12);

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

-- Of two users, or of any number of them.
CREATE TYPE chat_kind AS ENUM ('direct', 'group');
-- Ascending by what they allow. In a direct chat both are members.
CREATE TYPE member_role AS ENUM ('member', 'admin', 'owner');
-- How a membership ended.
CREATE TYPE left_reason AS ENUM ('left', 'removed', 'banned', 'erased');
-- What a member wants to be notified of.
CREATE TYPE notify_level AS ENUM ('all', 'mentions', 'none');
-- Least seconds between two messages of a plain member; 0: any.
CREATE DOMAIN slow_mode AS integer CHECK (VALUE BETWEEN 0 AND 21600);
-- How many of something there are.
CREATE DOMAIN amount AS bigint CHECK (VALUE >= 0);
-- A client's idempotency key.
CREATE DOMAIN client_key AS text COLLATE "C" CHECK (char_length(VALUE) BETWEEN 1 AND 64);
-- A message's text, and the host application's own JSON beside it.
CREATE DOMAIN message_text AS text CHECK (char_length(VALUE) <= 4000);
CREATE DOMAIN small_json AS json CHECK (octet_length(VALUE::text) <= 4096);
-- Ids of users whom a message mentions, or chr(1), which is no user's id: everybody.
CREATE DOMAIN mention_list AS text[] COLLATE "C" CHECK (cardinality(VALUE) BETWEEN 1 AND 50);

-- Chats: what a message reads and moves. What members are shown of a group is in `groups`, so that no message
-- writes it again.
CREATE TABLE chats (
    chat_id         uuid PRIMARY KEY,
    kind            chat_kind NOT NULL,
    -- The chat's public name, which says nothing about its members; `chat_names` leads back.
    room_name       text COLLATE "C" NOT NULL,
    -- Who created the chat: the member who opened it, or the first owner of a group.
    created_by      text COLLATE "C" NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The highest number that a message has; numbers are dense.
    last_seq        bigint NOT NULL DEFAULT 0,
    -- The highest revision that a change has.
    last_ev         bigint NOT NULL DEFAULT 0,
    -- The number of messages that count as unread for somebody: tombstones too, system messages not.
    last_counted    bigint NOT NULL DEFAULT 0,
    -- created_at of message last_seq. The next message's is never earlier, even if the clock jumps back.
    last_message_at timestamptz,
    -- What lists are ordered by: created_at of the last counted message, else of the chat.
    active_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Tombstones: how many, and the highest seq of one. Neither ever decreases.
    dead            bigint NOT NULL DEFAULT 0,
    last_dead_seq   bigint NOT NULL DEFAULT 0,
    -- No message above it mentions everybody.
    all_mention_seq bigint NOT NULL DEFAULT 0,
    -- The revision of the last change that moved members' counters in another way than by one more message for
    -- all but its sender: a deletion, everybody mentioned, mentions edited. A copy of a counter from before it
    -- cannot be brought up to date from this row.
    recount_ev      bigint NOT NULL DEFAULT 0,
    -- The revision that last changed what `groups` says, a setting here, or `receipts`, or that told how many
    -- members there are; 0: none.
    info_ev         bigint NOT NULL DEFAULT 0,
    member_count    integer NOT NULL DEFAULT 0,
    -- Of a group: slow mode, and whether only owner and admins post.
    slow_mode_s     slow_mode NOT NULL DEFAULT 0,
    admins_post     boolean NOT NULL DEFAULT false,
    -- Read markers take a revision and are told to all members. A group that outgrows this loses it for good.
    receipts        boolean NOT NULL DEFAULT true,
    -- Of a direct chat: whether either member has blocked the other, and whether either was erased. Copies of
    -- what `blocks` and `users` say, kept under this row's lock, so that a send reads one row instead of five.
    blocked         boolean NOT NULL DEFAULT false,
    erased          boolean NOT NULL DEFAULT false
) WITH (fillfactor = 70);

-- What a group shows, and how one comes in.
CREATE TABLE groups (
    chat_id        uuid PRIMARY KEY,
    title          text NOT NULL CHECK (char_length(title) BETWEEN 1 AND 200),
    avatar_url     text CHECK (char_length(avatar_url) <= 2048),
    -- The host application's own; null: none.
    metadata       small_json,
    -- Plain members may add members and invite, not only owner and admins.
    members_invite boolean NOT NULL DEFAULT false,
    -- A new member sees what was written before.
    history_all    boolean NOT NULL DEFAULT true,
    -- Anybody who knows the chat may join.
    open           boolean NOT NULL DEFAULT false,
    -- When chats.info_ev changed last.
    info_at        timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Directory: the direct chat of a pair. The two are in byte order, so that a pair has one chat.
CREATE TABLE pairs (
    user_lo text COLLATE "C" NOT NULL,
    user_hi text COLLATE "C" NOT NULL,
    chat_id uuid NOT NULL,
    PRIMARY KEY (user_lo, user_hi),
    CHECK (user_lo < user_hi)
);

-- Directory: the chat behind a room_name, which is 128 random bits in base64url.
CREATE TABLE chat_names (
    room_name text COLLATE "C" PRIMARY KEY CHECK (char_length(room_name) = 22),
    chat_id   uuid NOT NULL
);

-- Directory: the group behind its creator's idempotency key. A row outlives its group, so that a late repeat
-- does not create another.
CREATE TABLE group_keys (
    creator_id     text COLLATE "C" NOT NULL,
    client_chat_id client_key NOT NULL,
    chat_id        uuid NOT NULL,
    PRIMARY KEY (creator_id, client_chat_id)
);

-- A user's place in a chat. The row stays when the member leaves, so that a resume can tell of it as state, and
-- the user's messages are found for an export or an erasure.
CREATE TABLE members (
    chat_id        uuid NOT NULL,
    user_id        text COLLATE "C" NOT NULL,
    role           member_role NOT NULL DEFAULT 'member',
    -- When they joined last, and the revision of that; 0: with a direct chat.
    joined_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    joined_ev      bigint NOT NULL DEFAULT 0,
    -- last_seq when they joined.
    joined_seq     bigint NOT NULL DEFAULT 0,
    -- The first message that they may see.
    first_seq      bigint NOT NULL DEFAULT 1,
    -- The read marker: all messages up to this seq are read.
    read_seq       bigint NOT NULL DEFAULT 0,
    -- What unread messages are counted from (V2__counters.sql): at least read_seq, and no live message of others
    -- lies between the two.
    floor_seq      bigint NOT NULL DEFAULT 0,
    -- The number of counted messages up to floor_seq.
    floor_counted  bigint NOT NULL DEFAULT 0,
    -- Own live messages past floor_seq.
    own_after      amount NOT NULL DEFAULT 0,
    -- No message above it mentions them by id.
    mention_seq    bigint NOT NULL DEFAULT 0,
    -- Increases with every change of this row that a counter or the member's own settings depend on.
    rev            bigint NOT NULL DEFAULT 0,
    -- The revision that last moved read_seq; 0: none, or the chat has no receipts.
    read_ev        bigint NOT NULL DEFAULT 0,
    -- The revision that last changed membership, role or silence, and who did it; null: the host application.
    member_ev      bigint NOT NULL DEFAULT 0,
    changed_by     text COLLATE "C",
    -- The revision that ended the membership, and how; null: they are a member.
    left_ev        bigint,
    left_reason    left_reason,
    -- Until when they may not post.
    silenced_until timestamptz,
    -- When they last wrote in slow mode.
    last_sent_at   timestamptz,
    -- The member's own settings.
    notify         notify_level NOT NULL DEFAULT 'all',
    pinned         boolean NOT NULL DEFAULT false,
    archived       boolean NOT NULL DEFAULT false,
    PRIMARY KEY (chat_id, user_id)
) WITH (fillfactor = 70);
-- A look-up of one member asks for the whole primary key and says coalesce(left_ev, 0) = 0, which none of the
-- predicates below follows from. By the primary key a chat's members lie together.
--
-- Serves a user's chats: look-ups by the user, which say COLLATE "POSIX" and left_ev IS NULL. It orders as "C"
-- does, but the planner takes neither for the other: no look-up by (chat_id, user_id) can use this index, and
-- none by the user the primary key.
CREATE INDEX members_by_user ON members (user_id COLLATE "POSIX") WHERE left_ev IS NULL;
-- The chats that a user has left, for an export or an erasure.
CREATE INDEX members_left ON members (user_id COLLATE "POSIX") WHERE left_ev IS NOT NULL;
-- The list of a chat's members: the owner, admins, then in the order of joining.
-- Its predicate does not follow from left_ev IS NULL, so that no look-up by the user can use it.
CREATE INDEX members_by_role ON members (chat_id, role DESC, joined_ev, user_id) WHERE coalesce(left_ev, -1) = -1;
-- What a resume asks for; its statements say member_ev > 0.
CREATE INDEX members_by_ev ON members (chat_id, member_ev) WHERE member_ev > 0;

-- Messages, deleted ones as tombstones.
CREATE TABLE messages (
    chat_id        uuid NOT NULL,
    -- The message's number in its chat, from 1 on without gaps.
    seq            bigint NOT NULL,
    -- Derived from the client_msg_id where there is one, so that a retry finds its first message for ever.
    message_id     uuid NOT NULL,
    -- The revision of the latest change of this message.
    ev             bigint NOT NULL,
    -- The number of counted messages in the chat up to this one, itself included.
    counted        bigint NOT NULL,
    -- Null: a system message.
    sender_id      text COLLATE "C",
    -- The sender's idempotency key; null: the send had none.
    client_msg_id  client_key,
    -- Keyed digest of the content as first sent, which tells a retry from a reuse of the key. Null without
    -- a client_msg_id, and in a tombstone.
    content_digest bytea,
    -- '' in a tombstone and in a system message.
    text           message_text NOT NULL,
    -- The host application's own; null: none, or a tombstone.
    metadata       small_json,
    -- Whom the message mentions: members at that time, without its sender. Null: nobody, or a tombstone.
    mentions       mention_list,
    -- What a system message tells of; else null.
    system         json,
    -- The number of the message that it answers. Null: none, or a tombstone.
    reply_seq      bigint,
    -- Its attachments, in the order of the send, as clients are given them. A copy of what `attachments` says.
    -- Null: none, or a tombstone.
    attachments    json,
    -- Its reactions, in the order of the first of each emoji, as clients are given them: how many, and the first 20
    -- users. A copy of what `reactions` says, kept under the chat's lock. Null: none, or a tombstone.
    reactions      json,
    -- When it was pinned; null: it is not. A copy of what `pins` says.
    pinned_at      timestamptz,
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
-- Serves counts of tombstones, which say ORDER BY seq NULLS FIRST: an order that the primary key has not.
CREATE INDEX messages_dead ON messages (chat_id, seq NULLS FIRST) WHERE deleted_at IS NOT NULL;

-- Tombstones counted by blocks of 4,096 numbers: however many there are, one block's are looked through.
CREATE TABLE dead_blocks (
    chat_id uuid NOT NULL,
    -- seq >> 12.
    block   bigint NOT NULL,
    dead    bigint NOT NULL,
    PRIMARY KEY (chat_id, block)
) WITH (fillfactor = 70);

-- One row for each live message and user whom it mentions; chr(1) is everybody.
CREATE TABLE mentions (
    chat_id   uuid NOT NULL,
    user_id   text COLLATE "C" NOT NULL,
    seq       bigint NOT NULL,
    sender_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (chat_id, user_id, seq)
);

-- One row for each user's reaction to a live message with one emoji.
CREATE TABLE reactions (
    chat_id    uuid NOT NULL,
    seq        bigint NOT NULL,
    emoji      text COLLATE "C" NOT NULL,
    user_id    text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (chat_id, seq, emoji, user_id)
);
-- Who reacted, first ones first.
CREATE INDEX reactions_by_time ON reactions (chat_id, seq, emoji, created_at, user_id);
-- A user's own: for those of one message, an export and an erasure.
CREATE INDEX reactions_by_user ON reactions (user_id COLLATE "POSIX", chat_id, seq, emoji);

-- Pinned messages, all of them live.
CREATE TABLE pins (
    chat_id   uuid NOT NULL,
    seq       bigint NOT NULL,
    pinned_at timestamptz NOT NULL,
    PRIMARY KEY (chat_id, seq)
);

-- Who is kept out of a group. A ban that has expired is none.
CREATE TABLE bans (
    chat_id    uuid NOT NULL,
    user_id    text COLLATE "C" NOT NULL,
    -- In the words of whoever banned them.
    reason     text CHECK (char_length(reason) <= 1000),
    -- Null: for good.
    until      timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Who banned them; null: the host application.
    banned_by  text COLLATE "C",
    PRIMARY KEY (chat_id, user_id)
);

-- Directory: invitations. Whoever has the code may join.
CREATE TABLE invites (
    -- 128 random bits in base64url.
    code       text COLLATE "C" PRIMARY KEY CHECK (char_length(code) = 22),
    chat_id    uuid NOT NULL,
    invite_id  uuid NOT NULL,
    -- Who made it; null: the host application.
    created_by text COLLATE "C",
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    -- How many members have joined with it.
    uses       integer NOT NULL DEFAULT 0,
    -- Null: without a bound.
    max_uses   integer CHECK (max_uses BETWEEN 1 AND 100000)
);
-- Ids ascend with time, so this is also the order of the list.
CREATE UNIQUE INDEX invites_by_chat ON invites (chat_id, invite_id);

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
    -- Members whose own state changed by more than the chat's, or whose place or chat is gone: pairs, the first
    -- of the one with the first of the other. In a direct chat both members are concerned by any change, and
    -- are listed only where the chat is gone.
    of_chats   uuid[] NOT NULL DEFAULT '{}',
    of_users   text[] COLLATE "C" NOT NULL DEFAULT '{}'
);

-- Deleted chats whose rows are still being deleted: a huge chat takes longer than one statement may. Its row in
-- `chats` is gone already, so nobody can see them.
CREATE TABLE purges (
    chat_id uuid PRIMARY KEY,
    -- When a sweeper may continue. The replica that deleted the chat has half a minute to finish.
    due_at  timestamptz NOT NULL DEFAULT clock_timestamp() + interval '30 seconds'
);

-- Whose a chat was whose rows of members are gone: for clients that were away (src/store/sync.rs). Written where
-- such rows are deleted, and kept for longer than a cursor lives, which is 30 days.
CREATE TABLE departures (
    user_id text COLLATE "C" NOT NULL,
    chat_id uuid NOT NULL,
    gone_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (user_id, chat_id)
);
-- What is cleared first.
CREATE INDEX departures_by_time ON departures (gone_at);
