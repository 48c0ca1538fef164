-- The writes. Each is one VOLATILE function: the lock is taken in one statement, and the next
-- statement's snapshot is younger than the lock (READ COMMITTED), so it sees what the lock waited for.
-- One statement for both would number from a snapshot older than the lock and burn numbers.

-- What the rest of the service needs to know of a chat after a change.
CREATE TYPE chat_state AS (
    chat_id uuid, room_name text, user_lo text, user_hi text,
    last_seq bigint, last_ev bigint, activity timestamptz,
    lo_read bigint, lo_unread bigint, hi_read bigint, hi_unread bigint
);

CREATE FUNCTION chat_states(of_chats uuid[]) RETURNS SETOF chat_state LANGUAGE sql STABLE AS $$
    SELECT c.chat_id, c.room_name, c.user_lo, c.user_hi,
           c.last_seq, c.last_ev, coalesce(c.last_message_at, c.created_at),
           lo.read_seq, lo.unread, hi.read_seq, hi.unread
      FROM chats c
      JOIN members lo ON lo.chat_id = c.chat_id AND lo.user_id = c.user_lo
      JOIN members hi ON hi.chat_id = c.chat_id AND hi.user_id = c.user_hi
     WHERE c.chat_id = ANY (of_chats)
$$;

-- A batch of sends, in order; a row each. A batch never holds the same message_id twice (the writer
-- sees to it). outcome: created, replayed, or the code of the error. What the caller knows already is
-- not given back.
--
-- Every join is a look into an index for each message, never a table read whole, and nothing is
-- planned more than once a connection: planning costs more than running. The settings that see to it
-- are the writer's connections' own (they cost 0.2 ms a batch as a part of the function); where
-- something in between keeps them away (PgBouncer), they are made here, for this transaction.
CREATE FUNCTION send_messages(
    in_chat uuid[], in_sender text[], in_message uuid[], in_key text[], in_digest bytea[],
    in_text text[], in_metadata json[])
RETURNS TABLE (
    outcome text, seq bigint, ev bigint, text text, metadata json,
    created_at timestamptz, edited_at timestamptz, deleted_at timestamptz, outbox_id bigint,
    chat_id uuid, room_name text, user_lo text, user_hi text, last_seq bigint, last_ev bigint,
    activity timestamptz, lo_read bigint, lo_unread bigint, hi_read bigint, hi_unread bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    instant timestamptz;
BEGIN
    IF current_setting('enable_hashjoin') = 'on' THEN
        PERFORM set_config(s.name, s.value, true)
           FROM (VALUES ('plan_cache_mode', 'force_generic_plan'), ('enable_seqscan', 'off'),
                        ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'), ('jit', 'off'),
                        ('lock_timeout', '500ms')) AS s (name, value);
    END IF;
    PERFORM FROM chats WHERE chat_id = ANY (in_chat) ORDER BY chat_id FOR NO KEY UPDATE;
    instant := clock_timestamp();
    RETURN QUERY
    WITH judged AS (
        SELECT i.*, c.room_name, c.user_lo, c.user_hi, c.last_seq, c.last_ev, c.last_message_at,
               c.created_at AS opened_at,
               lo.read_seq AS lo_read, lo.unread AS lo_unread,
               hi.read_seq AS hi_read, hi.unread AS hi_unread,
               m.seq AS old_seq, m.ev AS old_ev, m.text AS old_text, m.metadata AS old_metadata,
               m.created_at AS old_created_at, m.edited_at AS old_edited_at,
               m.deleted_at AS old_deleted_at,
               CASE
                   WHEN c.chat_id IS NULL OR i.sender_id NOT IN (c.user_lo, c.user_hi)
                       THEN 'chat_not_found'
                   WHEN m.deleted_at IS NOT NULL OR m.content_digest = i.digest THEN 'replayed'
                   WHEN m.seq IS NOT NULL THEN 'idempotency_mismatch'
                   WHEN c.blocked THEN 'blocked'
                   WHEN c.erased THEN 'forbidden'
                   ELSE 'created'
               END AS outcome
          FROM unnest(in_chat, in_sender, in_message, in_key, in_digest, in_text, in_metadata)
               WITH ORDINALITY AS i (chat_id, sender_id, message_id, key, digest, text, metadata, idx)
          LEFT JOIN chats c ON c.chat_id = i.chat_id
          LEFT JOIN members lo ON lo.chat_id = c.chat_id AND lo.user_id = c.user_lo
          LEFT JOIN members hi ON hi.chat_id = c.chat_id AND hi.user_id = c.user_hi
          LEFT JOIN messages m ON m.chat_id = i.chat_id AND m.message_id = i.message_id
                              AND i.key IS NOT NULL
    ), numbered AS MATERIALIZED (
        -- Of those created in a chat: the how manieth it is, how many in all, how many of user_lo's.
        SELECT j.*,
               count(*) FILTER (WHERE j.outcome = 'created') OVER (
                   PARTITION BY j.chat_id ORDER BY j.idx ROWS UNBOUNDED PRECEDING) AS n,
               count(*) FILTER (WHERE j.outcome = 'created') OVER (PARTITION BY j.chat_id) AS sent,
               count(*) FILTER (WHERE j.outcome = 'created' AND j.sender_id = j.user_lo)
                   OVER (PARTITION BY j.chat_id) AS by_lo
          FROM judged j
    ), inserted AS (
        INSERT INTO messages AS m (chat_id, seq, message_id, ev, sender_id, client_msg_id,
                                   content_digest, text, metadata, created_at)
        SELECT n.chat_id, n.last_seq + n.n, n.message_id, n.last_ev + n.n, n.sender_id, n.key,
               n.digest, n.text, n.metadata, greatest(instant, n.last_message_at)
          FROM numbered n WHERE n.outcome = 'created'
    ), bumped AS (
        -- The last one created stands for its chat, here and below.
        UPDATE chats c
           SET last_seq = c.last_seq + n.sent, last_ev = c.last_ev + n.sent,
               last_message_at = greatest(instant, c.last_message_at)
          FROM numbered n
         WHERE c.chat_id = n.chat_id AND n.outcome = 'created' AND n.n = n.sent
    ), counted AS (
        UPDATE members m
           SET unread = m.unread
                      + CASE m.user_id WHEN n.user_lo THEN n.sent - n.by_lo ELSE n.by_lo END
          FROM numbered n
         WHERE m.chat_id = n.chat_id AND n.outcome = 'created' AND n.n = n.sent
           AND m.user_id IN (CASE WHEN n.sent > n.by_lo THEN n.user_lo END,
                             CASE WHEN n.by_lo > 0 THEN n.user_hi END)
    ), noted AS (
        INSERT INTO outbox AS o (chats)
        SELECT array_agg(n.chat_id) FROM numbered n
         WHERE n.outcome = 'created' AND n.n = n.sent HAVING count(*) > 0
        RETURNING o.outbox_id
    )
    SELECT n.outcome,
           CASE n.outcome WHEN 'created' THEN n.last_seq + n.n ELSE n.old_seq END,
           CASE n.outcome WHEN 'created' THEN n.last_ev + n.n ELSE n.old_ev END,
           n.old_text, n.old_metadata,
           CASE n.outcome WHEN 'created' THEN greatest(instant, n.last_message_at)
                ELSE n.old_created_at END,
           n.old_edited_at, n.old_deleted_at,
           (SELECT o.outbox_id FROM noted o),
           n.chat_id, n.room_name, n.user_lo, n.user_hi, n.last_seq + n.sent, n.last_ev + n.sent,
           CASE n.sent WHEN 0 THEN coalesce(n.last_message_at, n.opened_at)
                ELSE greatest(instant, n.last_message_at) END,
           n.lo_read, n.lo_unread + n.sent - n.by_lo, n.hi_read, n.hi_unread + n.by_lo
      FROM numbered n
     ORDER BY n.idx;
END
$$;

-- Opens the pair's room, or finds it. outcome: created, found, blocked, user_not_found.
CREATE FUNCTION open_chat(
    in_a text, in_b text, in_creator text, in_chat uuid, in_room_name text, in_reject_unknown boolean)
RETURNS TABLE (outcome text, chat_id uuid, outbox_id bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    lo text := least(in_a COLLATE "C", in_b COLLATE "C");
    hi text := greatest(in_a COLLATE "C", in_b COLLATE "C");
    found_chat uuid;
    noted bigint;
BEGIN
    SELECT c.chat_id INTO found_chat FROM chats c WHERE c.user_lo = lo AND c.user_hi = hi;
    IF found_chat IS NOT NULL THEN
        RETURN QUERY SELECT 'found', found_chat, NULL::bigint;
        RETURN;
    END IF;
    PERFORM lock_pair(lo, hi);
    SELECT c.chat_id INTO found_chat FROM chats c WHERE c.user_lo = lo AND c.user_hi = hi;
    IF found_chat IS NOT NULL THEN
        RETURN QUERY SELECT 'found', found_chat, NULL::bigint;
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM users u WHERE u.user_id IN (lo, hi) AND u.erased_at IS NOT NULL)
       OR in_reject_unknown AND (SELECT count(*) FROM users u WHERE u.user_id IN (lo, hi)) < 2 THEN
        RETURN QUERY SELECT 'user_not_found', NULL::uuid, NULL::bigint;
        RETURN;
    END IF;
    IF is_blocked(lo, hi) THEN
        RETURN QUERY SELECT 'blocked', NULL::uuid, NULL::bigint;
        RETURN;
    END IF;
    INSERT INTO users (user_id) VALUES (lo), (hi) ON CONFLICT DO NOTHING;
    -- Against an erasure under way: it has marked the person before this looks, or it will find the
    -- new room when it marks their rooms.
    PERFORM FROM users u WHERE u.user_id IN (lo, hi) ORDER BY u.user_id FOR SHARE;
    IF EXISTS (SELECT FROM users u WHERE u.user_id IN (lo, hi) AND u.erased_at IS NOT NULL) THEN
        RETURN QUERY SELECT 'user_not_found', NULL::uuid, NULL::bigint;
        RETURN;
    END IF;
    INSERT INTO chats (chat_id, room_name, user_lo, user_hi, created_by)
    VALUES (in_chat, in_room_name, lo, hi, in_creator);
    INSERT INTO members (chat_id, user_id) VALUES (in_chat, lo), (in_chat, hi);
    INSERT INTO outbox AS o (chats) VALUES (ARRAY[in_chat]) RETURNING o.outbox_id INTO noted;
    RETURN QUERY SELECT 'created', in_chat, noted;
END
$$;

-- Moves a reader's marker forward; null in_up_to: to the head. moved_ev is null where nothing moved.
-- outcome: ok, chat_not_found.
CREATE FUNCTION mark_read(in_chat uuid, in_user text, in_up_to bigint)
RETURNS TABLE (outcome text, moved_ev bigint, outbox_id bigint, state chat_state, total_unread bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    chat chats;
    mine members;
    target bigint;
    newly_read bigint;
    moved bigint;
    noted bigint;
BEGIN
    SELECT * INTO chat FROM chats c WHERE c.chat_id = in_chat FOR NO KEY UPDATE;
    SELECT * INTO mine FROM members m WHERE m.chat_id = in_chat AND m.user_id = in_user;
    IF chat.chat_id IS NULL OR mine.chat_id IS NULL THEN
        RETURN QUERY SELECT 'chat_not_found', NULL::bigint, NULL::bigint, NULL::chat_state, NULL::bigint;
        RETURN;
    END IF;
    target := least(coalesce(in_up_to, chat.last_seq), chat.last_seq);
    IF target > mine.read_seq THEN
        moved := chat.last_ev + 1;
        IF target = chat.last_seq THEN
            newly_read := mine.unread;
        ELSE
            SELECT count(*) INTO newly_read FROM messages m
             WHERE m.chat_id = in_chat AND m.seq > mine.read_seq AND m.seq <= target
               AND m.sender_id <> in_user AND m.deleted_at IS NULL;
        END IF;
        UPDATE chats SET last_ev = moved WHERE chat_id = in_chat;
        UPDATE members SET read_seq = target, unread = unread - newly_read, ev = moved
         WHERE chat_id = in_chat AND user_id = in_user;
        INSERT INTO outbox AS o (chats) VALUES (ARRAY[in_chat]) RETURNING o.outbox_id INTO noted;
    END IF;
    RETURN QUERY SELECT 'ok', moved, noted, s::chat_state,
                        (SELECT sum(m.unread)::bigint FROM members m WHERE m.user_id = in_user)
                   FROM chat_states(ARRAY[in_chat]) s;
END
$$;

-- Edits a message. changed is false where the text was the same already.
-- outcome: ok, chat_not_found, message_not_found, not_author, blocked, forbidden.
CREATE FUNCTION edit_message(in_chat uuid, in_message uuid, in_user text, in_text text)
RETURNS TABLE (outcome text, changed boolean, outbox_id bigint, state chat_state, message messages)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    chat chats;
    hit messages;
    verdict text;
    noted bigint;
BEGIN
    SELECT * INTO chat FROM chats c WHERE c.chat_id = in_chat FOR NO KEY UPDATE;
    SELECT * INTO hit FROM messages m WHERE m.chat_id = in_chat AND m.message_id = in_message;
    verdict := CASE
        WHEN chat.chat_id IS NULL OR in_user NOT IN (chat.user_lo, chat.user_hi) THEN 'chat_not_found'
        WHEN hit.seq IS NULL OR hit.deleted_at IS NOT NULL THEN 'message_not_found'
        WHEN hit.sender_id <> in_user THEN 'not_author'
        WHEN chat.blocked THEN 'blocked'
        WHEN chat.erased THEN 'forbidden'
        ELSE 'ok'
    END;
    IF verdict = 'ok' AND hit.text <> in_text THEN
        UPDATE chats SET last_ev = last_ev + 1 WHERE chat_id = in_chat;
        UPDATE messages m SET text = in_text, ev = chat.last_ev + 1,
                              edited_at = greatest(clock_timestamp(), m.created_at)
         WHERE m.chat_id = in_chat AND m.seq = hit.seq RETURNING m.* INTO hit;
        INSERT INTO outbox AS o (chats) VALUES (ARRAY[in_chat]) RETURNING o.outbox_id INTO noted;
    END IF;
    RETURN QUERY SELECT verdict, noted IS NOT NULL, noted,
                        (SELECT s::chat_state FROM chat_states(ARRAY[in_chat]) s), hit;
END
$$;

-- Turns messages into tombstones: numbers from first_ev on, counters put right. The caller holds the
-- chat's lock.
CREATE FUNCTION bury_messages(in_chat uuid, in_seqs bigint[], after_ev bigint)
RETURNS SETOF messages LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    UPDATE members r SET unread = r.unread - u.count
      FROM (SELECT p.user_id, count(*) AS count
              FROM members p JOIN messages m ON m.chat_id = p.chat_id
             WHERE p.chat_id = in_chat AND m.seq = ANY (in_seqs) AND m.deleted_at IS NULL
               AND m.sender_id <> p.user_id AND m.seq > p.read_seq
             GROUP BY p.user_id) u
     WHERE r.chat_id = in_chat AND r.user_id = u.user_id;
    UPDATE chats SET last_ev = after_ev + cardinality(in_seqs) WHERE chat_id = in_chat;
    RETURN QUERY
    UPDATE messages m SET text = '', metadata = NULL, content_digest = NULL, ev = after_ev + n.n,
                          deleted_at = greatest(clock_timestamp(), m.created_at)
      FROM unnest(in_seqs) WITH ORDINALITY AS n (seq, n)
     WHERE m.chat_id = in_chat AND m.seq = n.seq
    RETURNING m.*;
END
$$;

-- Deletes one message. changed is false where it was gone already.
-- outcome: ok, chat_not_found, message_not_found, not_author.
CREATE FUNCTION delete_message(in_chat uuid, in_message uuid, in_user text, in_admin boolean)
RETURNS TABLE (outcome text, changed boolean, outbox_id bigint, state chat_state, message messages)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    chat chats;
    hit messages;
    verdict text;
    noted bigint;
BEGIN
    SELECT * INTO chat FROM chats c WHERE c.chat_id = in_chat FOR NO KEY UPDATE;
    SELECT * INTO hit FROM messages m WHERE m.chat_id = in_chat AND m.message_id = in_message;
    verdict := CASE
        WHEN chat.chat_id IS NULL OR NOT in_admin AND in_user NOT IN (chat.user_lo, chat.user_hi)
            THEN 'chat_not_found'
        WHEN hit.seq IS NULL THEN 'message_not_found'
        WHEN NOT in_admin AND hit.sender_id <> in_user THEN 'not_author'
        ELSE 'ok'
    END;
    IF verdict = 'ok' AND hit.deleted_at IS NULL THEN
        SELECT * INTO hit FROM bury_messages(in_chat, ARRAY[hit.seq], chat.last_ev);
        INSERT INTO outbox AS o (chats) VALUES (ARRAY[in_chat]) RETURNING o.outbox_id INTO noted;
    END IF;
    RETURN QUERY SELECT verdict, noted IS NOT NULL, noted,
                        (SELECT s::chat_state FROM chat_states(ARRAY[in_chat]) s), hit;
END
$$;

-- Deletes a room; its messages follow, see purge_messages. in_rule: creator, member, admin.
-- outcome: ok, chat_not_found, forbidden.
CREATE FUNCTION delete_chat(in_chat uuid, in_user text, in_admin boolean, in_rule text)
RETURNS TABLE (outcome text, user_lo text, user_hi text, outbox_id bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    chat chats;
    verdict text;
    noted bigint;
BEGIN
    SELECT * INTO chat FROM chats c WHERE c.chat_id = in_chat FOR UPDATE;
    verdict := CASE
        WHEN chat.chat_id IS NULL OR NOT in_admin AND in_user NOT IN (chat.user_lo, chat.user_hi)
            THEN 'chat_not_found'
        WHEN in_admin OR in_rule = 'member' OR in_rule = 'creator' AND chat.created_by = in_user
            THEN 'ok'
        ELSE 'forbidden'
    END;
    IF verdict = 'ok' THEN
        DELETE FROM members m WHERE m.chat_id = in_chat;
        DELETE FROM chats c WHERE c.chat_id = in_chat;
        INSERT INTO purges (chat_id) VALUES (in_chat);
        INSERT INTO outbox AS o (chats, users) VALUES (ARRAY[in_chat], ARRAY[chat.user_lo, chat.user_hi])
        RETURNING o.outbox_id INTO noted;
    END IF;
    RETURN QUERY SELECT verdict, chat.user_lo, chat.user_hi, noted;
END
$$;

-- Deletes up to in_limit messages of a deleted room; true where that was the last of it.
CREATE FUNCTION purge_messages(in_chat uuid, in_limit bigint)
RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    deleted bigint;
BEGIN
    -- One at a time: two that delete the same rows would each think the other's work the end.
    PERFORM FROM purges p WHERE p.chat_id = in_chat FOR UPDATE;
    IF NOT FOUND THEN
        RETURN true;
    END IF;
    DELETE FROM messages m
     WHERE m.chat_id = in_chat
       AND m.seq IN (SELECT p.seq FROM messages p WHERE p.chat_id = in_chat ORDER BY p.seq LIMIT in_limit);
    GET DIAGNOSTICS deleted = ROW_COUNT;
    IF deleted < in_limit THEN
        DELETE FROM purges p WHERE p.chat_id = in_chat;
    END IF;
    RETURN deleted < in_limit;
END
$$;

-- Up to in_limit live messages of an erased person in one chat become tombstones, each with its own
-- ev. No row: there was none left.
CREATE FUNCTION erase_in_chat(in_chat uuid, in_user text, in_limit bigint)
RETURNS TABLE (outbox_id bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    chat chats;
    seqs bigint[];
BEGIN
    SELECT * INTO chat FROM chats c WHERE c.chat_id = in_chat FOR NO KEY UPDATE;
    SELECT array_agg(l.seq ORDER BY l.seq) INTO seqs FROM (
        SELECT m.seq FROM messages m
         WHERE m.chat_id = in_chat AND m.sender_id = in_user AND m.deleted_at IS NULL
         ORDER BY m.seq LIMIT in_limit) l;
    IF chat.chat_id IS NOT NULL AND seqs IS NOT NULL THEN
        PERFORM bury_messages(in_chat, seqs, chat.last_ev);
        RETURN QUERY INSERT INTO outbox AS o (chats) VALUES (ARRAY[in_chat]) RETURNING o.outbox_id;
    END IF;
END
$$;

-- Blocks somebody, or takes that back. The locks let a send or an opening under way end first, so
-- that none commits after the block did.
CREATE FUNCTION set_block(in_blocker text, in_blocked text, in_on boolean)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM lock_pair(in_blocker, in_blocked);
    PERFORM FROM chats c
      WHERE c.user_lo = least(in_blocker COLLATE "C", in_blocked COLLATE "C")
        AND c.user_hi = greatest(in_blocker COLLATE "C", in_blocked COLLATE "C")
        FOR NO KEY UPDATE;
    IF in_on THEN
        INSERT INTO blocks (blocker_id, blocked_id) VALUES (in_blocker, in_blocked)
        ON CONFLICT DO NOTHING;
    ELSE
        DELETE FROM blocks b WHERE b.blocker_id = in_blocker AND b.blocked_id = in_blocked;
    END IF;
    UPDATE chats c SET blocked = is_blocked(c.user_lo, c.user_hi)
      WHERE c.user_lo = least(in_blocker COLLATE "C", in_blocked COLLATE "C")
        AND c.user_hi = greatest(in_blocker COLLATE "C", in_blocked COLLATE "C");
END
$$;

-- Marks people erased, or named again, in all their rooms; the rows of `users` are changed already
-- by the same transaction. Locks in the order that everybody locks in.
CREATE FUNCTION mark_rooms_erased(of_users text[])
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM chats c
      WHERE c.chat_id IN (SELECT m.chat_id FROM members m WHERE m.user_id = ANY (of_users))
      ORDER BY c.chat_id FOR NO KEY UPDATE;
    UPDATE chats c SET erased = e.erased
      FROM (SELECT r.chat_id, EXISTS (SELECT FROM users u WHERE u.user_id IN (r.user_lo, r.user_hi)
                                         AND u.erased_at IS NOT NULL) AS erased
              FROM chats r
             WHERE r.chat_id IN (SELECT m.chat_id FROM members m WHERE m.user_id = ANY (of_users))) e
     WHERE c.chat_id = e.chat_id AND c.erased <> e.erased;
END
$$;

-- Marks a person erased and forgets their profile; false where nobody such is known.
CREATE FUNCTION mark_erased(in_user text)
RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    UPDATE users SET erased_at = coalesce(erased_at, clock_timestamp()), name = NULL,
                     avatar_url = NULL, last_seen_at = NULL
     WHERE user_id = in_user;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM mark_rooms_erased(ARRAY[in_user]);
    RETURN true;
END
$$;

-- Creates or replaces people, erased ones too; true for each who is new. Ids must differ.
CREATE FUNCTION name_users(in_users text[], in_names text[], in_avatar_urls text[])
RETURNS TABLE (created boolean) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    known text[];
    were_erased text[];
BEGIN
    SELECT array_agg(u.user_id) INTO known FROM users u
     WHERE u.user_id = ANY (in_users) AND u.erased_at IS NULL;
    -- New rows first, then locks: in the order in which rooms are opened, so that neither waits for
    -- the other in a circle.
    INSERT INTO users (user_id) SELECT n.user_id FROM unnest(in_users) AS n (user_id)
     ORDER BY n.user_id COLLATE "C" ON CONFLICT DO NOTHING;
    PERFORM FROM users u WHERE u.user_id = ANY (in_users) ORDER BY u.user_id FOR NO KEY UPDATE;
    SELECT array_agg(u.user_id) INTO were_erased FROM users u
     WHERE u.user_id = ANY (in_users) AND u.erased_at IS NOT NULL;
    UPDATE users u SET name = n.name, avatar_url = n.avatar_url, erased_at = NULL
      FROM unnest(in_users, in_names, in_avatar_urls) AS n (user_id, name, avatar_url)
     WHERE u.user_id = n.user_id;
    IF were_erased IS NOT NULL THEN
        PERFORM mark_rooms_erased(were_erased);
    END IF;
    RETURN QUERY SELECT NOT n.user_id = ANY (coalesce(known, '{}'))
                   FROM unnest(in_users) WITH ORDINALITY AS n (user_id, idx) ORDER BY n.idx;
END
$$;

-- Somebody came with a valid token: they are known from now on, and their profile follows the
-- token's claims (null: not claimed). False: they were erased, and must not come in.
CREATE FUNCTION admit_user(in_user text, in_name text, in_avatar_url text)
RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    known users;
BEGIN
    SELECT * INTO known FROM users u WHERE u.user_id = in_user;
    IF known.user_id IS NULL THEN
        INSERT INTO users (user_id, name, avatar_url) VALUES (in_user, in_name, in_avatar_url)
        ON CONFLICT DO NOTHING;
    ELSIF known.erased_at IS NOT NULL THEN
        RETURN false;
    ELSIF coalesce(in_name, known.name) IS DISTINCT FROM known.name
       OR coalesce(in_avatar_url, known.avatar_url) IS DISTINCT FROM known.avatar_url THEN
        UPDATE users SET name = coalesce(in_name, name), avatar_url = coalesce(in_avatar_url, avatar_url)
         WHERE user_id = in_user AND erased_at IS NULL;
    END IF;
    RETURN true;
END
$$;
