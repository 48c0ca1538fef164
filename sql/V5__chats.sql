-- Direct chats are opened and blocked; chats of either kind are deleted.
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

-- Opens the pair's chat, or finds it. outcome: created, found, blocked, user_not_found.
CREATE FUNCTION open_direct(
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
    SELECT p.chat_id INTO found_chat FROM pairs p WHERE p.user_lo = lo AND p.user_hi = hi;
    IF found_chat IS NULL THEN
        PERFORM lock_pair(lo, hi);
        SELECT p.chat_id INTO found_chat FROM pairs p WHERE p.user_lo = lo AND p.user_hi = hi;
    END IF;
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
    INSERT INTO pairs (user_lo, user_hi, chat_id) VALUES (lo, hi, in_chat);
    INSERT INTO chat_names (room_name, chat_id) VALUES (in_room_name, in_chat);
    INSERT INTO chats (chat_id, kind, room_name, created_by, member_count)
    VALUES (in_chat, 'direct', in_room_name, in_creator, 2);
    INSERT INTO members (chat_id, user_id) VALUES (in_chat, lo), (in_chat, hi);
    INSERT INTO outbox AS o (chats) VALUES (ARRAY[in_chat]) RETURNING o.outbox_id INTO noted;
    RETURN QUERY SELECT 'created', in_chat, noted;
END
$$;

-- Who a caller is in a chat: a member's role, 'host' for the host application, null for anybody else. To be asked
-- again after the chat's lock.
CREATE FUNCTION actor_role(in_chat uuid, in_actor text, in_host boolean) RETURNS text
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF in_host THEN
        RETURN 'host';
    END IF;
    RETURN (SELECT m.role::text FROM members m
             WHERE m.chat_id = in_chat AND m.user_id = in_actor AND coalesce(m.left_ev, 0) = 0);
END
$$;

-- Locks a chat for the host application or a member, and returns it; for a stranger locks and returns nothing.
-- Membership may end while the lock is waited for.
CREATE FUNCTION lock_chat(in_chat uuid, in_actor text, in_host boolean) RETURNS chats
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    chat chats;
BEGIN
    IF actor_role(in_chat, in_actor, in_host) IS NOT NULL THEN
        SELECT * INTO chat FROM chats c WHERE c.chat_id = in_chat FOR NO KEY UPDATE;
    END IF;
    RETURN chat;
END
$$;

-- Deletes a chat's rows of members, up to a user, and keeps whose they were. As many that nobody can ask for any more
-- are cleared, so that their number stays that of a month. Returns how many members there were.
CREATE FUNCTION delete_members(in_chat uuid, in_last_user text) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    deleted bigint;
BEGIN
    WITH deleted AS (
        DELETE FROM members m WHERE m.chat_id = in_chat AND m.user_id <= in_last_user RETURNING m.user_id
    )
    INSERT INTO departures (user_id, chat_id) SELECT d.user_id, in_chat FROM deleted d;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    DELETE FROM departures d WHERE d.ctid = ANY (ARRAY(
        SELECT d.ctid FROM departures d WHERE d.gone_at < clock_timestamp() - interval '31 days'
         ORDER BY d.gone_at LIMIT 2 * deleted FOR UPDATE SKIP LOCKED));
    RETURN deleted;
END
$$;

-- Makes a chat gone for everybody at once, however many members it has: without its row in `chats` nobody sees
-- the rest, which purge_chat deletes. The caller holds the chat's lock.
CREATE FUNCTION drop_chat(in_chat chats) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    two text[];
BEGIN
    IF in_chat.kind = 'direct' THEN
        SELECT array_agg(m.user_id ORDER BY m.user_id) INTO two
          FROM members m WHERE m.chat_id = in_chat.chat_id;
        DELETE FROM pairs p WHERE p.user_lo = two[1] AND p.user_hi = two[2];
        -- So few that nobody need look past them until the purge.
        PERFORM delete_members(in_chat.chat_id, two[2]);
    END IF;
    DELETE FROM chat_names n WHERE n.room_name = in_chat.room_name;
    DELETE FROM invites i WHERE i.chat_id = in_chat.chat_id;
    DELETE FROM groups g WHERE g.chat_id = in_chat.chat_id;
    DELETE FROM chats c WHERE c.chat_id = in_chat.chat_id;
    PERFORM forget_webhooks(ARRAY[in_chat.chat_id]);
    INSERT INTO purges (chat_id) VALUES (in_chat.chat_id);
END
$$;

-- Deletes a chat and forgets its events. in_rule, of direct chats: creator, member, admin; a group is its owner's.
-- outcome: ok, chat_not_found, forbidden. members: of a direct chat.
CREATE FUNCTION delete_chat(in_chat uuid, in_user text, in_host boolean, in_rule text)
RETURNS TABLE (outcome text, kind text, members text[], outbox_id bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    chat chats := lock_chat(in_chat, in_user, in_host);
    actor text := actor_role(in_chat, in_user, in_host);
BEGIN
    outcome := CASE
        WHEN chat.chat_id IS NULL OR actor IS NULL THEN 'chat_not_found'
        WHEN in_host THEN 'ok'
        WHEN chat.kind = 'group' THEN CASE actor WHEN 'owner' THEN 'ok' ELSE 'forbidden' END
        WHEN in_rule = 'member' OR in_rule = 'creator' AND chat.created_by = in_user THEN 'ok'
        ELSE 'forbidden'
    END;
    IF outcome = 'ok' THEN
        kind := chat.kind;
        members := '{}';
        IF chat.kind = 'direct' THEN
            members := ARRAY(SELECT m.user_id FROM members m WHERE m.chat_id = in_chat ORDER BY m.user_id);
        END IF;
        PERFORM drop_chat(chat);
        INSERT INTO outbox AS o (chats, of_chats, of_users)
        VALUES (ARRAY[in_chat], array_fill(in_chat, ARRAY[cardinality(members)]), members)
        RETURNING o.outbox_id INTO outbox_id;
    END IF;
    RETURN NEXT;
END
$$;

-- Deletes up to in_limit rows of a deleted chat, its messages first; true: none is left.
CREATE FUNCTION purge_chat(in_chat uuid, in_limit bigint)
RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    up_to bigint;
    last_user text;
    deleted bigint;
BEGIN
    -- One purger at a time: each of two would take the other's deletions for the end of its own.
    PERFORM FROM purges p WHERE p.chat_id = in_chat FOR UPDATE;
    IF NOT FOUND THEN
        RETURN true;
    END IF;
    DELETE FROM reactions r
     USING (SELECT r.ctid AS tid FROM reactions r WHERE r.chat_id = in_chat
             ORDER BY r.chat_id, r.seq, r.emoji, r.created_at, r.user_id LIMIT in_limit) d
     WHERE r.ctid = d.tid;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    IF deleted = in_limit THEN
        RETURN false;
    END IF;
    DELETE FROM pins p WHERE p.chat_id = in_chat;
    SELECT max(n.seq) INTO up_to FROM (
        SELECT m.seq FROM messages m WHERE m.chat_id = in_chat ORDER BY m.chat_id, m.seq LIMIT in_limit) n;
    DELETE FROM messages m WHERE m.chat_id = in_chat AND m.seq <= up_to;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    IF deleted = in_limit THEN
        RETURN false;
    END IF;
    SELECT max(n.user_id) INTO last_user FROM (
        SELECT m.user_id FROM members m WHERE m.chat_id = in_chat ORDER BY m.chat_id, m.user_id LIMIT in_limit) n;
    IF delete_members(in_chat, last_user) = in_limit THEN
        RETURN false;
    END IF;
    -- By place: one user may be mentioned more often than a step is long.
    DELETE FROM mentions x WHERE x.ctid = ANY (ARRAY(
        SELECT x.ctid FROM mentions x WHERE x.chat_id = in_chat
         ORDER BY x.chat_id, x.user_id, x.seq LIMIT in_limit));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    IF deleted = in_limit THEN
        RETURN false;
    END IF;
    SELECT max(n.user_id) INTO last_user FROM (
        SELECT b.user_id FROM bans b WHERE b.chat_id = in_chat ORDER BY b.chat_id, b.user_id LIMIT in_limit) n;
    DELETE FROM bans b WHERE b.chat_id = in_chat AND b.user_id <= last_user;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    IF deleted = in_limit THEN
        RETURN false;
    END IF;
    IF purge_attachments(in_chat, in_limit) = in_limit THEN
        RETURN false;
    END IF;
    -- One row for 4,096 messages.
    DELETE FROM dead_blocks b WHERE b.chat_id = in_chat;
    DELETE FROM purges p WHERE p.chat_id = in_chat;
    RETURN true;
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
    chat uuid;
BEGIN
    IF in_on
       AND NOT EXISTS (SELECT FROM blocks b
                        WHERE b.blocker_id = in_blocker AND b.blocked_id = in_blocked)
       AND (SELECT count(*) FROM (SELECT FROM blocks b WHERE b.blocker_id = in_blocker
                                   LIMIT in_most) AS own) >= in_most THEN
        RETURN false;
    END IF;
    PERFORM lock_pair(lo, hi);
    SELECT p.chat_id INTO chat FROM pairs p WHERE p.user_lo = lo AND p.user_hi = hi;
    PERFORM FROM chats c WHERE c.chat_id = chat FOR NO KEY UPDATE;
    IF in_on THEN
        INSERT INTO blocks (blocker_id, blocked_id) VALUES (in_blocker, in_blocked)
        ON CONFLICT DO NOTHING;
    ELSE
        DELETE FROM blocks b WHERE b.blocker_id = in_blocker AND b.blocked_id = in_blocked;
    END IF;
    UPDATE chats c SET blocked = is_blocked(lo, hi) WHERE c.chat_id = chat;
    RETURN true;
END
$$;

-- Changes a member's own settings; null: as they are. It takes no revision, and is told to the member only. The
-- chat's lock is held all the same: where the chat has receipts, nothing changes a member's row without it.
-- outcome: ok, chat_not_found.
CREATE FUNCTION set_own(in_chat uuid, in_user text, in_notify text, in_pinned boolean, in_archived boolean)
RETURNS TABLE (outcome text, outbox_id bigint) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    chat chats := lock_chat(in_chat, in_user, false);
BEGIN
    outcome := 'chat_not_found';
    IF chat.chat_id IS NOT NULL AND actor_role(in_chat, in_user, false) IS NOT NULL THEN
        outcome := 'ok';
        UPDATE members m
           SET notify = coalesce(in_notify::notify_level, m.notify), pinned = coalesce(in_pinned, m.pinned),
               archived = coalesce(in_archived, m.archived), rev = m.rev + 1
         WHERE m.chat_id = in_chat AND m.user_id = in_user
           AND (m.notify, m.pinned, m.archived)
               <> (coalesce(in_notify::notify_level, m.notify), coalesce(in_pinned, m.pinned),
                   coalesce(in_archived, m.archived));
        IF FOUND THEN
            INSERT INTO outbox AS o (chats, of_chats, of_users)
            VALUES ('{}', ARRAY[in_chat], ARRAY[in_user]) RETURNING o.outbox_id INTO outbox_id;
        END IF;
    END IF;
    RETURN NEXT;
END
$$;
