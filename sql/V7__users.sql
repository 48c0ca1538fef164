-- Users: admitted, named by the host application, erased.

-- Admits the bearer of a valid token: the user is known from now on, and the profile follows the token's
-- claims (null: not claimed). in_issued_at is null where the token does not say, which counts as older than
-- any revocation. A user who was erased, or whose token was issued before revoked_at, is left as they are:
-- the caller refuses them.
CREATE FUNCTION admit_bearer(
    in_user text, in_name text, in_avatar_url text, in_issued_at timestamptz)
RETURNS TABLE (erased boolean, revoked_at timestamptz) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    known users;
BEGIN
    SELECT * INTO known FROM users u WHERE u.user_id = in_user;
    erased := known.erased_at IS NOT NULL;
    revoked_at := known.tokens_revoked_at;
    IF known.user_id IS NULL THEN
        INSERT INTO users (user_id, name, avatar_url) VALUES (in_user, in_name, in_avatar_url)
        ON CONFLICT DO NOTHING;
    ELSIF NOT erased AND (revoked_at IS NULL OR in_issued_at >= revoked_at)
      AND (coalesce(in_name, known.name) IS DISTINCT FROM known.name
           OR coalesce(in_avatar_url, known.avatar_url) IS DISTINCT FROM known.avatar_url) THEN
        UPDATE users SET name = coalesce(in_name, name), avatar_url = coalesce(in_avatar_url, avatar_url)
         WHERE user_id = in_user AND erased_at IS NULL;
    END IF;
    RETURN NEXT;
END
$$;

-- Creates or replaces users; the ids must differ. outcome: created, updated, or erased for those who were
-- erased and stay so unless in_revive: a long list is often older than an erasure, so only a user who is named
-- alone comes back.
CREATE FUNCTION name_users(
    in_users text[], in_names text[], in_avatar_urls text[], in_revive boolean)
RETURNS TABLE (outcome text) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    known text[];
    were_erased text[];
BEGIN
    SELECT array_agg(u.user_id) INTO known FROM users u
     WHERE u.user_id = ANY (in_users) AND u.erased_at IS NULL;
    -- New rows first, then locks, in the same order as open_direct, so that the two never deadlock.
    INSERT INTO users (user_id) SELECT n.user_id FROM unnest(in_users) AS n (user_id)
     ORDER BY n.user_id COLLATE "C" ON CONFLICT DO NOTHING;
    PERFORM FROM users u WHERE u.user_id = ANY (in_users) ORDER BY u.user_id FOR NO KEY UPDATE;
    SELECT array_agg(u.user_id) INTO were_erased FROM users u
     WHERE u.user_id = ANY (in_users) AND u.erased_at IS NOT NULL;
    UPDATE users u SET name = n.name, avatar_url = n.avatar_url, erased_at = NULL
      FROM (SELECT x.tid, n.name, n.avatar_url
              FROM unnest(in_users, in_names, in_avatar_urls) AS n (user_id, name, avatar_url)
             CROSS JOIN LATERAL (SELECT u.ctid AS tid FROM users u
                                  WHERE u.user_id = n.user_id OFFSET 0) x) n
     WHERE u.ctid = n.tid AND (in_revive OR u.erased_at IS NULL);
    IF in_revive AND were_erased IS NOT NULL THEN
        PERFORM mark_chats_erased(were_erased);
    END IF;
    RETURN QUERY
    SELECT CASE WHEN n.user_id = ANY (were_erased) AND NOT in_revive THEN 'erased'
                WHEN n.user_id = ANY (known) THEN 'updated'
                ELSE 'created' END
      FROM unnest(in_users) WITH ORDINALITY AS n (user_id, idx) ORDER BY n.idx;
END
$$;

-- Copies the erasure of users, or its end, to all their direct chats. The same transaction has changed `users`
-- before. Groups are not locked here: whoever adds a member to one holds its lock, and waits for the user.
CREATE FUNCTION mark_chats_erased(of_users text[])
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    of_chats uuid[] := ARRAY(
        SELECT DISTINCT m.chat_id
          FROM unnest(of_users) AS u (user_id)
         CROSS JOIN LATERAL (SELECT m.chat_id FROM members m
                              WHERE m.user_id = u.user_id COLLATE "POSIX" AND m.left_ev IS NULL OFFSET 0) m
         CROSS JOIN LATERAL (SELECT c.kind FROM chats c WHERE c.chat_id = m.chat_id OFFSET 0) c
         WHERE c.kind = 'direct');
BEGIN
    PERFORM FROM chats c WHERE c.chat_id = ANY (of_chats) ORDER BY c.chat_id FOR NO KEY UPDATE;
    UPDATE chats c SET erased = NOT c.erased
     WHERE c.chat_id = ANY (of_chats)
       AND c.erased <> EXISTS (
           SELECT FROM members m
            CROSS JOIN LATERAL (SELECT u.erased_at FROM users u WHERE u.user_id = m.user_id OFFSET 0) u
            WHERE m.chat_id = c.chat_id AND u.erased_at IS NOT NULL);
END
$$;

-- Marks a user as erased, and removes their profile, their words and name from reports, the events of their
-- direct chats and for themselves, and their devices; false: the user is unknown. A concurrent report locks the
-- user first: it is either seen here, or sees the mark.
CREATE FUNCTION mark_erased(in_user text)
RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    UPDATE users SET erased_at = coalesce(erased_at, clock_timestamp()), name = NULL,
                     avatar_url = NULL, last_seen_at = NULL
     WHERE user_id = in_user;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM mark_chats_erased(ARRAY[in_user]);
    DELETE FROM report_attachments k USING reports r
     WHERE r.sender_id = in_user AND k.report_id = r.report_id;
    UPDATE reports SET text = '', metadata = NULL WHERE sender_id = in_user;
    UPDATE reports SET reporter_id = NULL, reason = NULL WHERE reporter_id = in_user;
    PERFORM drop_unsent_attachments(in_user);
    PERFORM forget_webhooks_of(in_user);
    PERFORM drop_devices(in_user);
    RETURN true;
END
$$;

-- Turns up to in_limit live messages of an erased user in one chat, a member or not, into tombstones, each with a
-- revision of its own; where there are none, takes back their reactions. No row: nothing was left.
CREATE FUNCTION erase_in_chat(in_chat uuid, in_user text, in_limit bigint)
RETURNS TABLE (outbox_id bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    chat chats;
    seqs bigint[];
    touched text[];
BEGIN
    SELECT * INTO chat FROM chats c WHERE c.chat_id = in_chat FOR NO KEY UPDATE;
    SELECT array_agg(l.seq ORDER BY l.seq) INTO seqs FROM (
        SELECT m.seq FROM messages m
         WHERE m.chat_id = in_chat AND m.sender_id = in_user AND m.deleted_at IS NULL
         ORDER BY m.chat_id, m.seq LIMIT in_limit) l;
    IF chat.chat_id IS NOT NULL AND seqs IS NOT NULL THEN
        touched := tombstone_messages(in_chat, seqs, chat.last_ev);
        IF chat.kind = 'direct' THEN
            touched := '{}';
        END IF;
        RETURN QUERY
        INSERT INTO outbox AS o (chats, of_chats, of_users)
        VALUES (ARRAY[in_chat], array_fill(in_chat, ARRAY[cardinality(touched)]), touched)
        RETURNING o.outbox_id;
    ELSIF chat.chat_id IS NOT NULL THEN
        RETURN QUERY SELECT e.outbox_id FROM erase_reactions(in_chat, in_user, in_limit) e;
    END IF;
END
$$;

-- Ends an erased user's membership of a group. outcome: ok, dropped (the last one: the chat is gone), absent (no
-- member of it, or no group).
CREATE FUNCTION leave_as_erased(in_chat uuid, in_user text, in_note uuid, in_small boolean)
RETURNS TABLE (outcome text, ev bigint, outbox_id bigint) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    chat chats := lock_chat(in_chat, in_user, false);
BEGIN
    outcome := 'absent';
    IF chat.kind = 'group' AND actor_role(in_chat, in_user, false) IS NOT NULL THEN
        SELECT p.outcome, p.ev, p.outbox_id INTO outcome, ev, outbox_id
          FROM put_out(chat, in_user, 'erased', NULL, in_note, in_small) p;
    END IF;
    RETURN NEXT;
END
$$;
