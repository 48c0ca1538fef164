-- Chats: opened, blocked, deleted, and their state after a change.
--
-- Every write is one VOLATILE function: one of its statements takes the lock, and the next statement's snapshot
-- is younger than the lock (READ COMMITTED), so it sees what the lock waited for. A single statement would
-- number from a snapshot older than its lock.
--
-- A row lock writes WAL and waits for its flush. Where outsiders can ask, only a member's chat is locked:
-- otherwise the time of a refusal would reveal that the chat exists.

-- Locks a pair while their chat may not exist yet. chr(1) can't be part of a user id.
CREATE FUNCTION lock_pair(a text, b text) RETURNS void LANGUAGE sql VOLATILE AS $$
    SELECT pg_advisory_xact_lock(hashtextextended(
        least(a COLLATE "C", b COLLATE "C") || chr(1) || greatest(a COLLATE "C", b COLLATE "C"), 0))
$$;

-- Whether either of two users has blocked the other.
CREATE FUNCTION is_blocked(a text, b text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM blocks WHERE blocker_id = a AND blocked_id = b)
        OR EXISTS (SELECT FROM blocks WHERE blocker_id = b AND blocked_id = a)
$$;

-- The state of a chat after a change: all that Redis and the members' inboxes need.
CREATE TYPE chat_state AS (
    chat_id uuid, room_name text, user_lo text, user_hi text,
    last_seq bigint, last_ev bigint, activity timestamptz,
    lo_read bigint, lo_unread bigint, hi_read bigint, hi_unread bigint
);

-- The present state of these chats; those that are gone are missing.
CREATE FUNCTION chat_states(of_chats uuid[]) RETURNS SETOF chat_state LANGUAGE sql STABLE AS $$
    SELECT c.chat_id, c.room_name, c.user_lo, c.user_hi,
           c.last_seq, c.last_ev, coalesce(c.last_message_at, c.created_at),
           lo.read_seq, lo.unread, hi.read_seq, hi.unread
      FROM chats c
     CROSS JOIN LATERAL (SELECT m.read_seq, m.unread FROM members m
                          WHERE m.chat_id = c.chat_id AND m.user_id = c.user_lo OFFSET 0) lo
     CROSS JOIN LATERAL (SELECT m.read_seq, m.unread FROM members m
                          WHERE m.chat_id = c.chat_id AND m.user_id = c.user_hi OFFSET 0) hi
     WHERE c.chat_id = ANY (of_chats)
$$;

-- Opens the pair's chat, or finds it. outcome: created, found, blocked, user_not_found.
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
    -- A concurrent erasure either has marked the user before this lock is taken, or waits for it and
    -- then finds the new chat.
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

-- Deletes a chat and forgets its events; purge_messages deletes the messages. in_rule: creator, member, admin.
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
        PERFORM forget_webhooks(ARRAY[in_chat]);
        INSERT INTO purges (chat_id) VALUES (in_chat);
        INSERT INTO outbox AS o (chats, users) VALUES (ARRAY[in_chat], ARRAY[chat.user_lo, chat.user_hi])
        RETURNING o.outbox_id INTO noted;
    END IF;
    RETURN QUERY SELECT verdict, chat.user_lo, chat.user_hi, noted;
END
$$;

-- Blocks a user, or takes a block back. False: the blocker has in_most others blocked already. Concurrent
-- blocks are not counted: the limit need not be exact. The locks let a send or an opening that has begun
-- finish first, so that none commits after the block.
CREATE FUNCTION set_block(in_blocker text, in_blocked text, in_on boolean, in_most bigint)
RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    lo text := least(in_blocker COLLATE "C", in_blocked COLLATE "C");
    hi text := greatest(in_blocker COLLATE "C", in_blocked COLLATE "C");
BEGIN
    IF in_on
       AND NOT EXISTS (SELECT FROM blocks b
                        WHERE b.blocker_id = in_blocker AND b.blocked_id = in_blocked)
       AND (SELECT count(*) FROM (SELECT FROM blocks b WHERE b.blocker_id = in_blocker
                                   LIMIT in_most) AS own) >= in_most THEN
        RETURN false;
    END IF;
    PERFORM lock_pair(lo, hi);
    PERFORM FROM chats c WHERE c.user_lo = lo AND c.user_hi = hi FOR NO KEY UPDATE;
    IF in_on THEN
        INSERT INTO blocks (blocker_id, blocked_id) VALUES (in_blocker, in_blocked)
        ON CONFLICT DO NOTHING;
    ELSE
        DELETE FROM blocks b WHERE b.blocker_id = in_blocker AND b.blocked_id = in_blocked;
    END IF;
    UPDATE chats c SET blocked = is_blocked(lo, hi) WHERE c.user_lo = lo AND c.user_hi = hi;
    RETURN true;
END
$$;
