-- Annotations: reactions to messages, and pins.

-- A message's reactions as clients are given them, after one with this emoji was added (in_step 1) or taken back (-1).
-- Null: none are left.
CREATE FUNCTION reactions_after(in_chat uuid, in_seq bigint, before json, in_emoji text, in_step integer)
RETURNS json LANGUAGE sql STABLE AS $$
    WITH listed AS (
        SELECT e.one, e.n, e.one ->> 'emoji' = in_emoji AS hit FROM json_array_elements(before) WITH ORDINALITY AS e (one, n)
    ), counted AS (
        SELECT l.n, coalesce((l.one ->> 'count')::bigint, 0) + in_step AS count FROM listed l WHERE l.hit
        UNION ALL
        -- A new one comes behind all others, which are 20 at most.
        SELECT 21, in_step WHERE NOT EXISTS (SELECT FROM listed l WHERE l.hit)
    )
    SELECT json_agg(a.one ORDER BY a.n)
      FROM (SELECT l.n, l.one FROM listed l WHERE NOT l.hit
            UNION ALL
            SELECT c.n, json_build_object('emoji', in_emoji, 'count', c.count, 'user_ids', ARRAY(
                       SELECT r.user_id FROM reactions r
                        WHERE r.chat_id = in_chat AND r.seq = in_seq AND r.emoji = in_emoji
                        ORDER BY r.chat_id, r.seq, r.emoji, r.created_at, r.user_id LIMIT 20))
              FROM counted c WHERE c.count > 0) a
$$;

-- Forgets what messages carry that are deleted. The caller holds the chat's lock, and empties the copies in their rows.
CREATE FUNCTION drop_carried(in_chat uuid, in_seqs bigint[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    DELETE FROM reactions r
     USING (SELECT x.tid FROM unnest(in_seqs) AS s (seq)
             CROSS JOIN LATERAL (SELECT r.ctid AS tid FROM reactions r
                                  WHERE r.chat_id = in_chat AND r.seq = s.seq
                                  ORDER BY r.chat_id, r.seq, r.emoji, r.created_at, r.user_id OFFSET 0) x) d
     WHERE r.ctid = d.tid;
    DELETE FROM pins p
     USING (SELECT x.tid FROM unnest(in_seqs) AS s (seq)
             CROSS JOIN LATERAL (SELECT p.ctid AS tid FROM pins p
                                  WHERE p.chat_id = in_chat AND p.seq = s.seq OFFSET 0) x) d
     WHERE p.ctid = d.tid;
    PERFORM drop_attachments(in_chat, in_seqs);
END
$$;

-- Writes a batch of annotations, one by one: they are rare, and each must see those before it. in_kind: react, unreact,
-- pin, unpin. in_host: as the host application, which may pin. A message and its emoji may come often.
--
-- A row for each, with its place idx. outcome: ok, or the code of the error. wait: until when slow mode or silence lasts.
-- changed_ev is null where nothing changed. Reactions to one message that follow each other share one revision; the last
-- of them has its final state.
--
-- The chats are locked first, in the order of their ids. Each later statement has a younger snapshot.
CREATE FUNCTION annotate_messages(
    in_kind text[], in_chat uuid[], in_message uuid[], in_user text[], in_emoji text[], in_host boolean[])
RETURNS TABLE (
    idx bigint, outcome text, wait timestamptz, changed_ev bigint, outbox_id bigint, kind text, message messages)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    hits bigint[];
    instant timestamptz;
    chat chats;
    mine members;
    hit messages;
    -- The latest reaction of this batch: its message and revision.
    shared_chat uuid;
    shared_seq bigint;
    shared_ev bigint;
    changed uuid[] := '{}';
    noted bigint;
BEGIN
    IF current_setting('enable_sort') = 'on' THEN
        PERFORM use_writer_settings();
    END IF;
    SELECT array_agg(l.idx) INTO hits
      FROM (SELECT a.idx
              FROM (SELECT a.* FROM unnest(in_chat, in_user, in_host) WITH ORDINALITY AS a (chat_id, user_id, host, idx)
                     ORDER BY a.chat_id) a
              LEFT JOIN LATERAL (SELECT true AS found FROM members m
                                  WHERE m.chat_id = a.chat_id AND m.user_id = a.user_id
                                    AND coalesce(m.left_ev, 0) = 0 OFFSET 0) me ON true
             CROSS JOIN LATERAL (SELECT FROM chats c WHERE c.chat_id = a.chat_id AND (a.host OR me.found)
                                    FOR NO KEY UPDATE) c) l;
    instant := clock_timestamp();
    FOR n IN 1 .. cardinality(in_kind) LOOP
        chat := NULL; mine := NULL; hit := NULL; wait := NULL; changed_ev := NULL;
        IF n = ANY (hits) THEN
            SELECT * INTO chat FROM chats c WHERE c.chat_id = in_chat[n];
            SELECT * INTO mine FROM members m
             WHERE m.chat_id = in_chat[n] AND m.user_id = in_user[n] AND coalesce(m.left_ev, 0) = 0;
            SELECT * INTO hit FROM message_by_id(in_chat[n], in_message[n]);
        END IF;
        outcome := CASE
            WHEN chat.chat_id IS NULL OR mine.chat_id IS NULL AND NOT in_host[n] THEN 'chat_not_found'
            WHEN hit.seq IS NULL OR NOT in_host[n] AND hit.seq < mine.first_seq OR hit.deleted_at IS NOT NULL
                THEN 'message_not_found'
            WHEN hit.system IS NOT NULL THEN 'forbidden'
            WHEN in_kind[n] IN ('pin', 'unpin') AND chat.kind = 'group' AND NOT in_host[n] AND mine.role = 'member'
                THEN 'forbidden'
            -- What one has done may be undone, whatever has changed since.
            WHEN in_host[n] OR in_kind[n] IN ('unreact', 'unpin') THEN 'ok'
            ELSE judge_send(
                true, NULL, chat.blocked, chat.erased, mine.role, chat.admins_post, mine.silenced_until, false,
                chat.member_count, NULL, mine.last_sent_at + chat.slow_mode_s * interval '1 second', instant)
        END;
        IF outcome = 'created' THEN
            outcome := 'ok';
        END IF;
        IF outcome = 'ok' AND in_kind[n] IN ('react', 'unreact') THEN
            IF EXISTS (SELECT FROM reactions r
                        WHERE r.chat_id = in_chat[n] AND r.seq = hit.seq AND r.emoji = in_emoji[n]
                          AND r.user_id = in_user[n]) <> (in_kind[n] = 'react') THEN
                IF in_kind[n] = 'unreact' THEN
                    DELETE FROM reactions r
                     WHERE r.chat_id = in_chat[n] AND r.seq = hit.seq AND r.emoji = in_emoji[n]
                       AND r.user_id = in_user[n];
                    hit.reactions := reactions_after(in_chat[n], hit.seq, hit.reactions, in_emoji[n], -1);
                    changed_ev := chat.last_ev + 1;
                ELSIF json_array_length(hit.reactions) >= 20
                      AND NOT EXISTS (SELECT FROM json_array_elements(hit.reactions) AS e (one)
                                       WHERE e.one ->> 'emoji' = in_emoji[n]) THEN
                    outcome := 'too_many_emojis';
                ELSE
                    INSERT INTO reactions (chat_id, seq, emoji, user_id)
                    VALUES (in_chat[n], hit.seq, in_emoji[n], in_user[n]);
                    hit.reactions := reactions_after(in_chat[n], hit.seq, hit.reactions, in_emoji[n], 1);
                    changed_ev := chat.last_ev + 1;
                END IF;
            END IF;
            IF changed_ev IS NOT NULL THEN
                IF shared_chat = in_chat[n] AND shared_seq = hit.seq AND shared_ev = chat.last_ev THEN
                    changed_ev := shared_ev;
                END IF;
                shared_chat := in_chat[n]; shared_seq := hit.seq; shared_ev := changed_ev;
            END IF;
        ELSIF outcome = 'ok' AND (hit.pinned_at IS NOT NULL) <> (in_kind[n] = 'pin') THEN
            IF in_kind[n] = 'unpin' THEN
                DELETE FROM pins p WHERE p.chat_id = in_chat[n] AND p.seq = hit.seq;
                hit.pinned_at := NULL;
                changed_ev := chat.last_ev + 1;
            ELSIF (SELECT count(*) FROM pins p WHERE p.chat_id = in_chat[n]) >= 100 THEN
                outcome := 'too_many_pins';
            ELSE
                INSERT INTO pins (chat_id, seq, pinned_at) VALUES (in_chat[n], hit.seq, instant);
                hit.pinned_at := instant;
                changed_ev := chat.last_ev + 1;
            END IF;
        END IF;
        IF changed_ev IS NOT NULL THEN
            hit.ev := changed_ev;
            UPDATE chats c SET last_ev = changed_ev WHERE c.chat_id = in_chat[n] AND c.last_ev < changed_ev;
            UPDATE messages g SET reactions = hit.reactions, pinned_at = hit.pinned_at, ev = hit.ev
             WHERE g.chat_id = in_chat[n] AND g.seq = hit.seq;
            noted := coalesce(noted, nextval('outbox_outbox_id_seq'));
            changed := changed || in_chat[n];
        ELSIF outcome = 'silenced' THEN
            wait := mine.silenced_until;
        ELSIF outcome = 'slow_mode' THEN
            wait := mine.last_sent_at + chat.slow_mode_s * interval '1 second';
        END IF;
        idx := n;
        outbox_id := CASE WHEN changed_ev IS NOT NULL THEN noted END;
        kind := chat.kind;
        message := CASE outcome WHEN 'ok' THEN hit END;
        RETURN NEXT;
    END LOOP;
    IF noted IS NOT NULL THEN
        INSERT INTO outbox (outbox_id, chats) OVERRIDING SYSTEM VALUE
        SELECT noted, array_agg(DISTINCT c.chat_id) FROM unnest(changed) AS c (chat_id);
    END IF;
END
$$;

-- Takes back up to in_limit reactions of an erased user in one chat, each with a revision of its own. No row: none was
-- left.
CREATE FUNCTION erase_reactions(in_chat uuid, in_user text, in_limit bigint) RETURNS TABLE (outbox_id bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    chat chats;
    one record;
    ev_now bigint;
BEGIN
    SELECT * INTO chat FROM chats c WHERE c.chat_id = in_chat FOR NO KEY UPDATE;
    ev_now := chat.last_ev;
    FOR one IN
        SELECT r.seq, r.emoji FROM reactions r
         WHERE r.user_id = in_user COLLATE "POSIX" AND r.chat_id = in_chat ORDER BY r.seq LIMIT in_limit
    LOOP
        ev_now := ev_now + 1;
        DELETE FROM reactions r
         WHERE r.chat_id = in_chat AND r.seq = one.seq AND r.emoji = one.emoji AND r.user_id = in_user;
        UPDATE messages g
           SET reactions = reactions_after(in_chat, g.seq, g.reactions, one.emoji, -1), ev = ev_now
         WHERE g.chat_id = in_chat AND g.seq = one.seq;
    END LOOP;
    IF ev_now > chat.last_ev THEN
        UPDATE chats c SET last_ev = ev_now WHERE c.chat_id = in_chat;
        RETURN QUERY INSERT INTO outbox AS o (chats) VALUES (ARRAY[in_chat]) RETURNING o.outbox_id;
    END IF;
END
$$;
