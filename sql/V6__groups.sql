-- Groups: created and changed, and who belongs to them. Each row that a call changes takes a revision of its own,
-- in the order in which it is to be told: members, what all are shown of the group, the system message about it.
-- Users who join with one call share one.
--
-- Common parameters. in_actor, in_host: who acts, a user or the host application. in_note: the id of the system
-- message; null: none is wanted. in_small: none in a chat without receipts. in_most: how many members a group
-- may have. in_receipt_members: with more members than these a group loses its receipts, for good.
--
-- ev, the first revision of the change, and outbox_id are null where nothing changed.

-- Takes the next revision for what all are shown of a group. The caller holds the chat's lock.
CREATE FUNCTION touch_info(in_chat uuid) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    UPDATE chats c SET last_ev = c.last_ev + 1, info_ev = c.last_ev + 1 WHERE c.chat_id = in_chat;
    UPDATE groups g SET info_at = clock_timestamp() WHERE g.chat_id = in_chat;
END
$$;

-- After a change of members: without receipts plain members are not told who came and went, but how many there are
-- now, once in 10 s at most.
CREATE FUNCTION tell_count(in_chat uuid) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF EXISTS (SELECT FROM chats c WHERE c.chat_id = in_chat AND NOT c.receipts)
       AND EXISTS (SELECT FROM groups g
                    WHERE g.chat_id = in_chat AND g.info_at <= clock_timestamp() - interval '10 seconds') THEN
        PERFORM touch_info(in_chat);
    END IF;
END
$$;

-- Adds a system message, after a change that took the chat's last revision. It counts as unread for nobody, so it
-- changes no counter, and lifts the chat in no list. The caller holds the chat's lock.
CREATE FUNCTION add_note(in_chat uuid, in_note uuid, in_small boolean, in_system json) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    chat chats;
BEGIN
    IF in_note IS NULL THEN
        RETURN;
    END IF;
    UPDATE chats c SET last_seq = c.last_seq + 1, last_ev = c.last_ev + 1,
                       last_message_at = greatest(clock_timestamp(), c.last_message_at)
     WHERE c.chat_id = in_chat AND (c.receipts OR NOT in_small)
    RETURNING c.* INTO chat;
    IF FOUND THEN
        INSERT INTO messages (chat_id, seq, message_id, ev, counted, text, system, created_at)
        VALUES (in_chat, chat.last_seq, in_note, chat.last_ev, chat.last_counted, '', in_system,
                chat.last_message_at);
    END IF;
END
$$;

-- Makes users known, unless in_reject_unknown, and returns those who may come in: known and not erased. A
-- concurrent erasure either has marked a user before, or waits and then finds the new membership.
CREATE FUNCTION admit_members(in_users text[], in_reject_unknown boolean) RETURNS text[]
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT in_reject_unknown THEN
        INSERT INTO users (user_id)
        SELECT u.user_id FROM unnest(in_users) AS u (user_id) ORDER BY u.user_id COLLATE "C"
            ON CONFLICT DO NOTHING;
    END IF;
    PERFORM FROM users u WHERE u.user_id = ANY (in_users) ORDER BY u.user_id FOR SHARE;
    RETURN ARRAY(SELECT u.user_id FROM users u WHERE u.user_id = ANY (in_users) AND u.erased_at IS NULL);
END
$$;

-- Users come in, new or again, with one revision, which is returned. Where they are too many for receipts, these
-- end with the next one. The caller holds the chat's lock, and has seen that they may.
CREATE FUNCTION let_in(
    in_chat uuid, in_users text[], in_role member_role, in_by text, in_receipt_members integer)
RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    chat chats;
    history_all boolean;
    ev bigint;
BEGIN
    SELECT * INTO chat FROM chats c WHERE c.chat_id = in_chat;
    SELECT g.history_all INTO history_all FROM groups g WHERE g.chat_id = in_chat;
    ev := chat.last_ev + 1;
    INSERT INTO members AS m (chat_id, user_id, role, joined_ev, joined_seq, first_seq, read_seq, floor_seq,
                              floor_counted, rev, member_ev, changed_by)
    SELECT in_chat, u.user_id, in_role, ev, chat.last_seq,
           CASE WHEN history_all THEN 1 ELSE chat.last_seq + 1 END, chat.last_seq, chat.last_seq,
           chat.last_counted,
           -- Above any rev that copies of an earlier row have: a change raises it by two at most, and a silent
           -- mark, which takes no revision, moves on by a message at least.
           4 * ev, ev, in_by
      FROM unnest(in_users) AS u (user_id)
     ORDER BY u.user_id COLLATE "C"
        ON CONFLICT (chat_id, user_id) DO UPDATE
       SET role = excluded.role, joined_at = excluded.joined_at, joined_ev = excluded.joined_ev,
           joined_seq = excluded.joined_seq, first_seq = excluded.first_seq, read_seq = excluded.read_seq,
           floor_seq = excluded.floor_seq, floor_counted = excluded.floor_counted, own_after = 0,
           rev = greatest(m.rev + 1, excluded.rev), read_ev = 0, member_ev = excluded.member_ev,
           changed_by = excluded.changed_by, left_ev = NULL, left_reason = NULL, silenced_until = NULL,
           last_sent_at = NULL;
    UPDATE chats c SET last_ev = ev, member_count = c.member_count + cardinality(in_users)
     WHERE c.chat_id = in_chat;
    IF chat.receipts AND chat.member_count + cardinality(in_users) > in_receipt_members THEN
        UPDATE chats c SET receipts = false WHERE c.chat_id = in_chat;
        PERFORM touch_info(in_chat);
    ELSE
        PERFORM tell_count(in_chat);
    END IF;
    RETURN ev;
END
$$;

-- Ends a membership, with the chat's next revision; where it is the owner's, the admin, else the member, who joined
-- first becomes the owner with the one after. Where nobody is left, the chat is deleted. The caller holds the chat's
-- lock, and in_user is a member. outcome: ok, dropped (the chat is gone).
CREATE FUNCTION put_out(
    in_chat chats, in_user text, in_reason left_reason, in_by text, in_note uuid, in_small boolean)
RETURNS TABLE (outcome text, ev bigint, outbox_id bigint) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    of_chat uuid := in_chat.chat_id;
    had member_role;
    heir text;
    told text[] := ARRAY[in_user];
BEGIN
    IF in_chat.member_count = 1 THEN
        outcome := 'dropped';
        PERFORM drop_chat(in_chat);
    ELSE
        outcome := 'ok';
        ev := in_chat.last_ev + 1;
        SELECT m.role INTO had FROM members m WHERE m.chat_id = of_chat AND m.user_id = in_user;
        IF had = 'owner' THEN
            -- There is one, as others are left.
            SELECT m.user_id INTO heir FROM members m
             WHERE m.chat_id = of_chat AND coalesce(m.left_ev, -1) = -1 AND m.user_id <> in_user
             ORDER BY m.chat_id, m.role DESC, m.joined_ev, m.user_id LIMIT 1;
            told := told || heir;
        END IF;
        PERFORM lock_members(of_chat, told);
        UPDATE members m SET left_ev = in_chat.last_ev + 1, left_reason = in_reason,
                             member_ev = in_chat.last_ev + 1, changed_by = in_by, rev = m.rev + 1,
                             role = 'member', pinned = false, archived = false
         WHERE m.chat_id = of_chat AND m.user_id = in_user;
        UPDATE members m SET role = 'owner', member_ev = in_chat.last_ev + 2, changed_by = in_by,
                             rev = m.rev + 1, silenced_until = NULL
         WHERE m.chat_id = of_chat AND m.user_id = heir;
        UPDATE chats c SET last_ev = in_chat.last_ev + cardinality(told), member_count = c.member_count - 1
         WHERE c.chat_id = of_chat;
        PERFORM tell_count(of_chat);
        PERFORM add_note(of_chat, in_note, in_small, json_build_object(
            'event', CASE WHEN in_reason IN ('removed', 'banned') THEN 'member.removed' ELSE 'member.left' END,
            'user_ids', ARRAY[in_user], 'by', in_by));
    END IF;
    INSERT INTO outbox AS o (chats, of_chats, of_users)
    VALUES (ARRAY[of_chat], array_fill(of_chat, ARRAY[cardinality(told)]), told)
    RETURNING o.outbox_id INTO outbox_id;
    RETURN NEXT;
END
$$;

-- Creates a group, or finds the one that this caller created with this key. in_key null: no key.
-- outcome: created, found, chat_not_found (it is gone, or the caller is no member any more), user_not_found,
-- chat_full.
CREATE FUNCTION create_group(
    in_chat uuid, in_room_name text, in_caller text, in_host boolean, in_owner text, in_key text,
    in_title text, in_avatar_url text, in_metadata json, in_admins_post boolean, in_members_invite boolean,
    in_history_all boolean, in_open boolean, in_slow_mode_s integer, in_users text[], in_reject_unknown boolean,
    in_most integer, in_receipt_members integer)
RETURNS TABLE (outcome text, chat_id uuid, outbox_id bigint) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    everybody text[] := ARRAY(SELECT DISTINCT u.user_id COLLATE "C"
                                FROM unnest(in_users || in_owner) AS u (user_id) ORDER BY 1);
    known uuid;
BEGIN
    IF in_key IS NOT NULL THEN
        INSERT INTO group_keys (creator_id, client_chat_id, chat_id) VALUES (in_caller, in_key, in_chat)
        ON CONFLICT DO NOTHING;
        SELECT k.chat_id INTO known FROM group_keys k
         WHERE k.creator_id = in_caller AND k.client_chat_id = in_key;
        IF known <> in_chat THEN
            chat_id := known;
            outcome := CASE WHEN actor_role(known, in_caller, in_host) IS NOT NULL
                                 AND EXISTS (SELECT FROM chats c WHERE c.chat_id = known)
                            THEN 'found' ELSE 'chat_not_found' END;
            RETURN NEXT;
            RETURN;
        END IF;
    END IF;
    outcome := CASE
        WHEN cardinality(everybody) > in_most THEN 'chat_full'
        WHEN cardinality(admit_members(everybody, in_reject_unknown)) < cardinality(everybody)
            THEN 'user_not_found'
        ELSE 'created'
    END;
    IF outcome <> 'created' THEN
        -- A repeat must not find a group that was never made.
        DELETE FROM group_keys k WHERE k.creator_id = in_caller AND k.client_chat_id = in_key;
        RETURN NEXT;
        RETURN;
    END IF;
    chat_id := in_chat;
    INSERT INTO chat_names (room_name, chat_id) VALUES (in_room_name, in_chat);
    INSERT INTO chats (chat_id, kind, room_name, created_by, admins_post, slow_mode_s, receipts)
    VALUES (in_chat, 'group', in_room_name, in_owner, in_admins_post, in_slow_mode_s,
            cardinality(everybody) <= in_receipt_members);
    INSERT INTO groups (chat_id, title, avatar_url, metadata, members_invite, history_all, open)
    VALUES (in_chat, in_title, in_avatar_url, in_metadata, in_members_invite, in_history_all, in_open);
    PERFORM let_in(in_chat, everybody, 'member', CASE WHEN NOT in_host THEN in_owner END, in_receipt_members);
    UPDATE members m SET role = 'owner' WHERE m.chat_id = in_chat AND m.user_id = in_owner;
    PERFORM touch_info(in_chat);
    INSERT INTO outbox AS o (chats, of_chats, of_users)
    VALUES (ARRAY[in_chat], array_fill(in_chat, ARRAY[cardinality(everybody)]), everybody)
    RETURNING o.outbox_id INTO outbox_id;
    RETURN NEXT;
END
$$;

-- Adds users to a group. outcome: ok, chat_not_found, forbidden. With ok: those who came in, those who were there,
-- and those who were refused, with the code of each: banned, user_not_found, chat_full.
CREATE FUNCTION add_members(
    in_chat uuid, in_actor text, in_host boolean, in_users text[], in_role text, in_reject_unknown boolean,
    in_most integer, in_receipt_members integer, in_note uuid, in_small boolean)
RETURNS TABLE (outcome text, added text[], present text[], refused text[], codes text[], ev bigint,
               outbox_id bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    chat chats := lock_chat(in_chat, in_actor, in_host);
    actor text := actor_role(in_chat, in_actor, in_host);
    by_user text := CASE WHEN NOT in_host THEN in_actor END;
    known text[];
BEGIN
    outcome := CASE
        WHEN chat.chat_id IS NULL OR actor IS NULL THEN 'chat_not_found'
        WHEN chat.kind = 'direct' THEN 'forbidden'
        WHEN actor IN ('host', 'owner') THEN 'ok'
        WHEN in_role <> 'member' THEN 'forbidden'
        WHEN actor = 'admin'
             OR EXISTS (SELECT FROM groups g WHERE g.chat_id = in_chat AND g.members_invite) THEN 'ok'
        ELSE 'forbidden'
    END;
    IF outcome <> 'ok' THEN
        RETURN NEXT;
        RETURN;
    END IF;
    known := admit_members(in_users, in_reject_unknown);
    WITH asked AS (
        SELECT u.user_id COLLATE "C" AS user_id, min(u.idx) AS idx
          FROM unnest(in_users) WITH ORDINALITY AS u (user_id, idx) GROUP BY u.user_id COLLATE "C"
    ), judged AS (
        SELECT a.user_id, a.idx,
               CASE WHEN m.role IS NOT NULL THEN 'present'
                    WHEN k.user_id IS NULL THEN 'user_not_found'
                    WHEN b.banned THEN 'banned'
                    ELSE 'new' END AS code
          FROM asked a
          LEFT JOIN unnest(known) AS k (user_id) ON k.user_id = a.user_id
          LEFT JOIN LATERAL (SELECT m.role FROM members m
                              WHERE m.chat_id = in_chat AND m.user_id = a.user_id
                                AND coalesce(m.left_ev, 0) = 0 OFFSET 0) m ON true
          LEFT JOIN LATERAL (SELECT b.until IS NULL OR b.until > clock_timestamp() AS banned FROM bans b
                              WHERE b.chat_id = in_chat AND b.user_id = a.user_id OFFSET 0) b ON true
    ), ranked AS (
        SELECT j.*, count(*) FILTER (WHERE j.code = 'new') OVER (ORDER BY j.idx) AS n FROM judged j
    ), settled AS (
        SELECT r.user_id, r.idx,
               CASE WHEN r.code = 'new' AND chat.member_count + r.n > in_most THEN 'chat_full'
                    ELSE r.code END AS code
          FROM ranked r
    )
    SELECT coalesce(array_agg(s.user_id ORDER BY s.idx) FILTER (WHERE s.code = 'new'), '{}'),
           coalesce(array_agg(s.user_id ORDER BY s.idx) FILTER (WHERE s.code = 'present'), '{}'),
           coalesce(array_agg(s.user_id ORDER BY s.idx) FILTER (WHERE s.code NOT IN ('new', 'present')), '{}'),
           coalesce(array_agg(s.code ORDER BY s.idx) FILTER (WHERE s.code NOT IN ('new', 'present')), '{}')
      INTO added, present, refused, codes
      FROM settled s;
    IF added <> '{}' THEN
        ev := let_in(in_chat, added, in_role::member_role, by_user, in_receipt_members);
        -- Their bans, if any, have expired.
        DELETE FROM bans b WHERE b.chat_id = in_chat AND b.user_id = ANY (added);
        PERFORM add_note(in_chat, in_note, in_small, json_build_object(
            'event', 'member.joined', 'user_ids', added, 'by', by_user));
        INSERT INTO outbox AS o (chats, of_chats, of_users)
        VALUES (ARRAY[in_chat], array_fill(in_chat, ARRAY[cardinality(added)]), added)
        RETURNING o.outbox_id INTO outbox_id;
    END IF;
    RETURN NEXT;
END
$$;

-- A user joins by themselves: a group that is open, or, whatever in_chat says, the one of an invite's code.
-- outcome: joined, present, banned, chat_full, chat_not_found, invite_not_found.
CREATE FUNCTION join_chat(
    in_chat uuid, in_code text, in_user text, in_most integer, in_receipt_members integer, in_note uuid,
    in_small boolean)
RETURNS TABLE (outcome text, chat_id uuid, ev bigint, outbox_id bigint) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    missing text := CASE WHEN in_code IS NULL THEN 'chat_not_found' ELSE 'invite_not_found' END;
    of_chat uuid := in_chat;
    chat chats;
    invite invites;
BEGIN
    IF in_code IS NOT NULL THEN
        SELECT i.chat_id INTO of_chat FROM invites i WHERE i.code = in_code;
    END IF;
    outcome := missing;
    chat_id := of_chat;
    -- Read first: whoever may not join locks nothing. A member's repeat uses up no invite.
    IF NOT EXISTS (SELECT FROM groups g WHERE g.chat_id = of_chat) THEN
        RETURN NEXT;
        RETURN;
    END IF;
    IF actor_role(of_chat, in_user, false) IS NOT NULL THEN
        outcome := 'present';
        RETURN NEXT;
        RETURN;
    END IF;
    IF in_code IS NULL AND NOT EXISTS (SELECT FROM groups g WHERE g.chat_id = of_chat AND g.open) THEN
        RETURN NEXT;
        RETURN;
    END IF;
    SELECT * INTO chat FROM chats c WHERE c.chat_id = of_chat FOR NO KEY UPDATE;
    IF in_code IS NOT NULL THEN
        SELECT * INTO invite FROM invites i WHERE i.code = in_code FOR NO KEY UPDATE;
    END IF;
    outcome := CASE
        WHEN chat.chat_id IS NULL THEN missing
        WHEN actor_role(of_chat, in_user, false) IS NOT NULL THEN 'present'
        WHEN in_code IS NULL AND NOT EXISTS (SELECT FROM groups g WHERE g.chat_id = of_chat AND g.open)
            THEN missing
        WHEN in_code IS NOT NULL
             AND (invite.code IS NULL OR invite.expires_at <= clock_timestamp()
                  OR invite.uses >= invite.max_uses) THEN missing
        WHEN EXISTS (SELECT FROM bans b WHERE b.chat_id = of_chat AND b.user_id = in_user
                        AND (b.until IS NULL OR b.until > clock_timestamp())) THEN 'banned'
        WHEN chat.member_count >= in_most THEN 'chat_full'
        WHEN admit_members(ARRAY[in_user], false) = '{}' THEN missing
        ELSE 'joined'
    END;
    IF outcome = 'joined' THEN
        UPDATE invites i SET uses = i.uses + 1 WHERE i.code = in_code;
        -- It has expired.
        DELETE FROM bans b WHERE b.chat_id = of_chat AND b.user_id = in_user;
        ev := let_in(of_chat, ARRAY[in_user], 'member', in_user, in_receipt_members);
        PERFORM add_note(of_chat, in_note, in_small, json_build_object(
            'event', 'member.joined', 'user_ids', ARRAY[in_user], 'by', in_user));
        INSERT INTO outbox AS o (chats, of_chats, of_users)
        VALUES (ARRAY[of_chat], ARRAY[of_chat], ARRAY[in_user]) RETURNING o.outbox_id INTO outbox_id;
    END IF;
    RETURN NEXT;
END
$$;

-- A user leaves a group (in_user is in_actor), or is removed from it.
-- outcome: ok, dropped (the last one: the chat is gone), absent (no member), chat_not_found, forbidden.
CREATE FUNCTION remove_member(
    in_chat uuid, in_actor text, in_host boolean, in_user text, in_note uuid, in_small boolean)
RETURNS TABLE (outcome text, ev bigint, outbox_id bigint) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    chat chats := lock_chat(in_chat, in_actor, in_host);
    actor text := actor_role(in_chat, in_actor, in_host);
    target text := actor_role(in_chat, in_user, false);
    leaves boolean := NOT in_host AND in_user = in_actor;
BEGIN
    outcome := CASE
        WHEN chat.chat_id IS NULL OR actor IS NULL THEN 'chat_not_found'
        WHEN chat.kind = 'direct' THEN 'forbidden'
        WHEN leaves THEN 'ok'
        WHEN actor = 'member' THEN 'forbidden'
        WHEN target IS NULL THEN 'absent'
        WHEN actor IN ('host', 'owner') OR target = 'member' THEN 'ok'
        ELSE 'forbidden'
    END;
    IF outcome = 'ok' THEN
        SELECT p.outcome, p.ev, p.outbox_id INTO outcome, ev, outbox_id
          FROM put_out(chat, in_user, CASE WHEN leaves THEN 'left' ELSE 'removed' END::left_reason,
                       CASE WHEN NOT in_host THEN in_actor END, in_note, in_small) p;
    END IF;
    RETURN NEXT;
END
$$;

-- Changes a member's role or silence. in_role null: as it is. in_silence: in_silenced_until is given, and its null
-- means none. outcome: ok, chat_not_found, member_not_found, forbidden.
CREATE FUNCTION set_member(
    in_chat uuid, in_actor text, in_host boolean, in_user text, in_role text, in_silence boolean,
    in_silenced_until timestamptz, in_note uuid, in_small boolean)
RETURNS TABLE (outcome text, ev bigint, outbox_id bigint) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    chat chats := lock_chat(in_chat, in_actor, in_host);
    actor text := actor_role(in_chat, in_actor, in_host);
    by_user text := CASE WHEN NOT in_host THEN in_actor END;
    instant timestamptz := clock_timestamp();
    target members;
    new_role member_role;
    -- A silence that has expired is none.
    was timestamptz;
    becomes timestamptz;
    former text;
    last bigint;
BEGIN
    SELECT * INTO target FROM members m
     WHERE m.chat_id = in_chat AND m.user_id = in_user AND coalesce(m.left_ev, 0) = 0;
    new_role := coalesce(in_role::member_role, target.role);
    outcome := CASE
        WHEN chat.chat_id IS NULL OR actor IS NULL THEN 'chat_not_found'
        WHEN chat.kind = 'direct' OR actor = 'member' THEN 'forbidden'
        WHEN target.user_id IS NULL THEN 'member_not_found'
        WHEN actor IN ('host', 'owner') THEN
            -- The owner's role only passes to somebody else, and nobody silences them.
            CASE WHEN target.role = 'owner' AND (new_role <> 'owner' OR in_silence) THEN 'forbidden' ELSE 'ok' END
        WHEN target.role = 'member' AND new_role = 'member' THEN 'ok'
        ELSE 'forbidden'
    END;
    was := CASE WHEN target.silenced_until > instant THEN target.silenced_until END;
    becomes := CASE WHEN in_silence THEN CASE WHEN in_silenced_until > instant THEN in_silenced_until END
                    WHEN new_role > target.role THEN NULL
                    ELSE was END;
    IF outcome <> 'ok' OR new_role = target.role AND becomes IS NOT DISTINCT FROM was THEN
        RETURN NEXT;
        RETURN;
    END IF;
    ev := chat.last_ev + 1;
    IF new_role = 'owner' AND target.role <> 'owner' THEN
        SELECT m.user_id INTO former FROM members m
         WHERE m.chat_id = in_chat AND coalesce(m.left_ev, -1) = -1 AND m.role = 'owner'
         ORDER BY m.chat_id, m.role DESC, m.joined_ev, m.user_id LIMIT 1;
    END IF;
    PERFORM lock_members(in_chat, ARRAY[in_user, former]);
    last := ev + CASE WHEN former IS NOT NULL THEN 1 ELSE 0 END;
    UPDATE members m SET role = 'admin', member_ev = ev, changed_by = by_user
     WHERE m.chat_id = in_chat AND m.user_id = former;
    UPDATE members m SET role = new_role, member_ev = last, changed_by = by_user, silenced_until = becomes
     WHERE m.chat_id = in_chat AND m.user_id = in_user;
    UPDATE chats c SET last_ev = last WHERE c.chat_id = in_chat;
    IF former IS NOT NULL THEN
        PERFORM add_note(in_chat, in_note, in_small, json_build_object(
            'event', 'owner.changed', 'user_ids', ARRAY[in_user], 'by', by_user));
    END IF;
    INSERT INTO outbox AS o (chats) VALUES (ARRAY[in_chat]) RETURNING o.outbox_id INTO outbox_id;
    RETURN NEXT;
END
$$;

-- Bans a user, who need not be a member, or changes their ban; a member goes out.
-- outcome: ok, dropped (it was the last member: the chat is gone), chat_not_found, forbidden.
CREATE FUNCTION ban_member(
    in_chat uuid, in_actor text, in_host boolean, in_user text, in_reason text, in_until timestamptz,
    in_note uuid, in_small boolean)
RETURNS TABLE (outcome text, ban bans, ev bigint, outbox_id bigint) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    chat chats := lock_chat(in_chat, in_actor, in_host);
    actor text := actor_role(in_chat, in_actor, in_host);
    target text := actor_role(in_chat, in_user, false);
    by_user text := CASE WHEN NOT in_host THEN in_actor END;
BEGIN
    outcome := CASE
        WHEN chat.chat_id IS NULL OR actor IS NULL THEN 'chat_not_found'
        WHEN chat.kind = 'direct' OR actor = 'member' OR in_user = by_user THEN 'forbidden'
        WHEN actor IN ('host', 'owner') OR coalesce(target, 'member') = 'member' THEN 'ok'
        ELSE 'forbidden'
    END;
    IF outcome = 'ok' AND target IS NOT NULL THEN
        SELECT p.outcome, p.ev, p.outbox_id INTO outcome, ev, outbox_id
          FROM put_out(chat, in_user, 'banned', by_user, in_note, in_small) p;
    END IF;
    IF outcome = 'ok' THEN
        INSERT INTO bans AS b (chat_id, user_id, reason, until, banned_by)
        VALUES (in_chat, in_user, in_reason, in_until, by_user)
            ON CONFLICT (chat_id, user_id) DO UPDATE
           SET reason = excluded.reason, until = excluded.until, banned_by = excluded.banned_by
        RETURNING b.* INTO ban;
    END IF;
    RETURN NEXT;
END
$$;

-- Lifts a ban. Returns ok (also where there was none), chat_not_found or forbidden.
CREATE FUNCTION unban_member(in_chat uuid, in_actor text, in_host boolean, in_user text) RETURNS text
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    chat chats := lock_chat(in_chat, in_actor, in_host);
    actor text := actor_role(in_chat, in_actor, in_host);
BEGIN
    IF chat.chat_id IS NULL OR actor IS NULL THEN
        RETURN 'chat_not_found';
    ELSIF chat.kind = 'direct' OR actor = 'member' THEN
        RETURN 'forbidden';
    END IF;
    DELETE FROM bans b WHERE b.chat_id = in_chat AND b.user_id = in_user;
    RETURN 'ok';
END
$$;

-- Changes what a group shows, and its settings. in_set names those of title, avatar_url and metadata that are given;
-- a setting that is null stays as it is. outcome: ok, chat_not_found, forbidden.
CREATE FUNCTION change_group(
    in_chat uuid, in_actor text, in_host boolean, in_set text[], in_title text, in_avatar_url text,
    in_metadata json, in_admins_post boolean, in_members_invite boolean, in_history_all boolean,
    in_open boolean, in_slow_mode_s integer, in_note uuid, in_small boolean)
RETURNS TABLE (outcome text, ev bigint, outbox_id bigint) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    chat chats := lock_chat(in_chat, in_actor, in_host);
    actor text := actor_role(in_chat, in_actor, in_host);
    was groups;
    becomes groups;
BEGIN
    outcome := CASE
        WHEN chat.chat_id IS NULL OR actor IS NULL THEN 'chat_not_found'
        WHEN chat.kind = 'direct' OR actor = 'member' THEN 'forbidden'
        ELSE 'ok'
    END;
    IF outcome <> 'ok' THEN
        RETURN NEXT;
        RETURN;
    END IF;
    SELECT * INTO was FROM groups g WHERE g.chat_id = in_chat;
    becomes := ROW(
        in_chat,
        CASE WHEN 'title' = ANY (in_set) THEN in_title ELSE was.title END,
        CASE WHEN 'avatar_url' = ANY (in_set) THEN in_avatar_url ELSE was.avatar_url END,
        CASE WHEN 'metadata' = ANY (in_set) THEN in_metadata ELSE was.metadata END,
        coalesce(in_members_invite, was.members_invite), coalesce(in_history_all, was.history_all),
        coalesce(in_open, was.open), was.info_at);
    -- As text, since json has no equality.
    IF becomes::text <> was::text
       OR coalesce(in_admins_post, chat.admins_post) <> chat.admins_post
       OR coalesce(in_slow_mode_s, chat.slow_mode_s) <> chat.slow_mode_s THEN
        ev := chat.last_ev + 1;
        UPDATE groups g
           SET title = becomes.title, avatar_url = becomes.avatar_url, metadata = becomes.metadata,
               members_invite = becomes.members_invite, history_all = becomes.history_all, open = becomes.open
         WHERE g.chat_id = in_chat;
        UPDATE chats c
           SET admins_post = coalesce(in_admins_post, c.admins_post),
               slow_mode_s = coalesce(in_slow_mode_s, c.slow_mode_s)
         WHERE c.chat_id = in_chat;
        PERFORM touch_info(in_chat);
        PERFORM add_note(in_chat, in_note, in_small, json_strip_nulls(json_build_object(
            'event', 'chat.changed', 'user_ids', '{}'::text[], 'by', CASE WHEN NOT in_host THEN in_actor END,
            'title', CASE WHEN becomes.title <> was.title THEN becomes.title END)));
        INSERT INTO outbox AS o (chats) VALUES (ARRAY[in_chat]) RETURNING o.outbox_id INTO outbox_id;
    END IF;
    RETURN NEXT;
END
$$;

-- Makes an invite. outcome: ok, chat_not_found, forbidden.
CREATE FUNCTION create_invite(
    in_chat uuid, in_actor text, in_host boolean, in_invite uuid, in_code text, in_expires_in_s integer,
    in_max_uses integer)
RETURNS TABLE (outcome text, invite invites) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    chat chats := lock_chat(in_chat, in_actor, in_host);
    actor text := actor_role(in_chat, in_actor, in_host);
BEGIN
    outcome := CASE
        WHEN chat.chat_id IS NULL OR actor IS NULL THEN 'chat_not_found'
        WHEN chat.kind = 'direct' THEN 'forbidden'
        WHEN actor <> 'member'
             OR EXISTS (SELECT FROM groups g WHERE g.chat_id = in_chat AND g.members_invite) THEN 'ok'
        ELSE 'forbidden'
    END;
    IF outcome = 'ok' THEN
        INSERT INTO invites AS i (code, chat_id, invite_id, created_by, expires_at, max_uses)
        VALUES (in_code, in_chat, in_invite, CASE WHEN NOT in_host THEN in_actor END,
                clock_timestamp() + in_expires_in_s * interval '1 second', in_max_uses)
        RETURNING i.* INTO invite;
    END IF;
    RETURN NEXT;
END
$$;

-- Withdraws an invite. A plain member withdraws their own. Returns ok, chat_not_found, forbidden or
-- invite_not_found.
CREATE FUNCTION delete_invite(in_chat uuid, in_actor text, in_host boolean, in_invite uuid) RETURNS text
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    chat chats := lock_chat(in_chat, in_actor, in_host);
    actor text := actor_role(in_chat, in_actor, in_host);
    invite invites;
BEGIN
    SELECT * INTO invite FROM invites i WHERE i.chat_id = in_chat AND i.invite_id = in_invite;
    IF chat.chat_id IS NULL OR actor IS NULL THEN
        RETURN 'chat_not_found';
    ELSIF chat.kind = 'direct' OR actor = 'member' AND invite.created_by IS DISTINCT FROM in_actor THEN
        RETURN 'forbidden';
    ELSIF invite.code IS NULL THEN
        RETURN 'invite_not_found';
    END IF;
    DELETE FROM invites i WHERE i.code = invite.code;
    RETURN 'ok';
END
$$;
