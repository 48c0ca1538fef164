-- Mutations of messages and read markers: edits, deletions, markers.

-- Removes mentions, in pairs of message and user. The caller holds the chat's lock.
CREATE FUNCTION drop_mentions(in_chat uuid, in_seqs bigint[], in_users text[])
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    users text[];
BEGIN
    WITH dropped AS (
        DELETE FROM mentions x
         USING (SELECT x.tid FROM unnest(in_seqs, in_users) AS p (seq, user_id)
                 CROSS JOIN LATERAL (SELECT x.ctid AS tid FROM mentions x
                                      WHERE x.chat_id = in_chat AND x.user_id = p.user_id AND x.seq = p.seq
                                     OFFSET 0) x) d
         WHERE x.ctid = d.tid
        RETURNING x.user_id
    )
    SELECT array_agg(DISTINCT d.user_id) INTO users FROM dropped d WHERE d.user_id <> chr(1);
    IF users IS NULL THEN
        RETURN;
    END IF;
    PERFORM lock_members(in_chat, users);
    UPDATE members m SET rev = m.rev + 1
      FROM (SELECT x.tid FROM unnest(users) AS u (user_id)
             CROSS JOIN LATERAL (SELECT m.ctid AS tid FROM members m
                                  WHERE m.chat_id = in_chat AND m.user_id = u.user_id OFFSET 0) x) u
     WHERE m.ctid = u.tid;
END
$$;

-- Turns live messages into tombstones, with revisions after after_ev, and corrects the counters. The caller holds
-- the chat's lock. Returns the users whose own counters changed, in addition to what the chat's numbers tell. The
-- messages are looked up one by one: in one of its two plans, an array of numbers would be a filter over the whole
-- chat.
CREATE FUNCTION tombstone_messages(in_chat uuid, in_seqs bigint[], after_ev bigint)
RETURNS text[] LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    authors text[];
    m_seqs bigint[];
    m_users text[];
BEGIN
    SELECT array_agg(DISTINCT g.sender_id) INTO authors
      FROM unnest(in_seqs) AS s (seq)
     CROSS JOIN LATERAL (SELECT g.sender_id FROM messages g
                          WHERE g.chat_id = in_chat AND g.seq = s.seq OFFSET 0) g;
    SELECT array_agg(g.seq), array_agg(u.user_id) INTO m_seqs, m_users
      FROM unnest(in_seqs) AS s (seq)
     CROSS JOIN LATERAL (SELECT g.seq, g.mentions FROM messages g
                          WHERE g.chat_id = in_chat AND g.seq = s.seq OFFSET 0) g
     CROSS JOIN LATERAL unnest(g.mentions) AS u (user_id);
    PERFORM lock_members(in_chat, authors || m_users);
    IF m_users IS NOT NULL THEN
        PERFORM drop_mentions(in_chat, m_seqs, m_users);
    END IF;
    UPDATE members r SET own_after = r.own_after - a.count, rev = r.rev + 1
      FROM (SELECT p.tid, count(*) AS count
              FROM unnest(in_seqs) AS s (seq)
             CROSS JOIN LATERAL (SELECT g.seq, g.sender_id FROM messages g
                                  WHERE g.chat_id = in_chat AND g.seq = s.seq OFFSET 0) g
             CROSS JOIN LATERAL (SELECT m.ctid AS tid, m.floor_seq FROM members m
                                  WHERE m.chat_id = in_chat AND m.user_id = g.sender_id OFFSET 0) p
             WHERE g.seq > p.floor_seq
             GROUP BY p.tid) a
     WHERE r.ctid = a.tid;
    INSERT INTO dead_blocks AS b (chat_id, block, dead)
    SELECT in_chat, s.seq >> 12, count(*) FROM unnest(in_seqs) AS s (seq) GROUP BY s.seq >> 12
        ON CONFLICT (chat_id, block) DO UPDATE SET dead = b.dead + excluded.dead;
    UPDATE chats c
       SET last_ev = after_ev + cardinality(in_seqs), dead = c.dead + cardinality(in_seqs),
           last_dead_seq = greatest(c.last_dead_seq, (SELECT max(s.seq) FROM unnest(in_seqs) AS s (seq))),
           recount_ev = after_ev + cardinality(in_seqs)
     WHERE c.chat_id = in_chat;
    PERFORM drop_carried(in_chat, in_seqs);
    UPDATE messages m SET text = '', metadata = NULL, content_digest = NULL, mentions = NULL, reply_seq = NULL,
                          attachments = NULL, reactions = NULL, pinned_at = NULL, ev = after_ev + n.n,
                          deleted_at = greatest(clock_timestamp(), m.created_at)
      FROM (SELECT s.n, x.tid FROM unnest(in_seqs) WITH ORDINALITY AS s (seq, n)
             CROSS JOIN LATERAL (SELECT m.ctid AS tid FROM messages m
                                  WHERE m.chat_id = in_chat AND m.seq = s.seq OFFSET 0) x) n
     WHERE m.ctid = n.tid;
    RETURN ARRAY(SELECT DISTINCT u.user_id FROM unnest(authors || m_users) AS u (user_id)
                  WHERE u.user_id <> chr(1));
END
$$;

-- Writes a batch of edits, deletions and read markers. kind: edit, delete, mark. A chat may come often, a reader's
-- mark in a chat once (the batch writer ensures it). in_mentions: of an edit, as in send_messages; null: as they
-- are; '': nobody.
--
-- A row for each, with its place idx. outcome: ok, or the code of the error. wait: until when slow mode or silence
-- lasts. changed_ev is null where nothing changed, and where a mark is silent; moved tells of both. message is null
-- for a mark. Where counters may have changed, a row says from last_seq to recount_ev where the chat stands. A mark's
-- row has its reader's state from room_name on, and, where it moved in a direct chat and the other member's did not,
-- from peer_id on the other's; flags are null for those of most. Whoever else's counters changed is for the caller
-- to ask.
--
-- The chats are locked first. Each later statement has a younger snapshot. Edits and deletions are rare and run
-- one by one; the marks run as a set. In a chat without receipts a mark is silent: it locks and writes its
-- reader's row only, and takes no revision.
--
-- The reader's total of unread messages is not summed here: with many chats that takes longer than all the
-- rest, and delays every mutation behind it. See store.sum_unread.
CREATE FUNCTION mutate_chats(
    in_kind text[], in_chat uuid[], in_user text[], in_message uuid[], in_text text[], in_mentions text[],
    in_admin boolean[], in_up_to bigint[])
RETURNS TABLE (
    idx bigint, outcome text, wait timestamptz, moved boolean, changed_ev bigint, outbox_id bigint,
    kind text, receipts boolean, message messages, last_seq bigint, last_ev bigint, activity timestamptz,
    counted bigint, recount_ev bigint, room_name text, rev bigint, read_seq bigint, unread bigint,
    unread_mentions bigint, flags text, peer_id text, peer_rev bigint, peer_read_seq bigint, peer_unread bigint,
    peer_mentions bigint, peer_flags text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    size integer := cardinality(in_kind);
    hits bigint[];
    silent boolean;
    -- By place, whether what it needs is locked; null: everything is.
    held boolean[];
    instant timestamptz;
    chat chats;
    mine members;
    hit messages;
    whom text[];
    dropped text[];
    touched text[];
    noted bigint;
    changed uuid[] := '{}';
    of_chats uuid[] := '{}';
    of_users text[] := '{}';
    -- Of a mark that is alone.
    of_chat uuid;
    by_reader text;
    place record;
    fresh member_state;
    target bigint;
    ev_now bigint;
    floor_now bigint;
    counted_now bigint;
    own_now bigint;
BEGIN
    IF current_setting('enable_sort') = 'on' THEN
        PERFORM use_writer_settings();
    END IF;

    -- At everyday rates a batch is one mark. As in send_messages.
    IF size = 1 AND in_kind[1] = 'mark' THEN
        idx := 1;
        of_chat := in_chat[1];
        by_reader := in_user[1];
        SELECT least(in_up_to[1], c.last_seq) > me.read_seq AS moves, locked.receipts AS told INTO place
          FROM (SELECT m.read_seq FROM members m
                 WHERE m.chat_id = of_chat AND m.user_id = by_reader AND coalesce(m.left_ev, 0) = 0 OFFSET 0) me
         CROSS JOIN LATERAL (SELECT c.receipts, c.last_seq FROM chats c WHERE c.chat_id = of_chat OFFSET 0) c
          LEFT JOIN LATERAL (SELECT x.receipts FROM chats x
                              WHERE x.chat_id = of_chat AND c.receipts
                                AND least(in_up_to[1], c.last_seq) > me.read_seq
                                FOR NO KEY UPDATE) locked ON true;
        moved := place.moves;
        IF moved AND place.told IS NOT TRUE THEN
            PERFORM FROM members m WHERE m.chat_id = of_chat AND m.user_id = by_reader FOR NO KEY UPDATE;
        END IF;
        SELECT me.tid, me.rev, me.read_seq, me.floor_seq, me.floor_counted, me.own_after, me.mention_seq,
               member_flags(me.notify, me.archived, me.pinned) AS flags,
               c.tid AS c_tid, c.kind, c.room_name, c.receipts, c.last_seq, c.last_ev, c.last_counted, c.active_at,
               c.dead, c.last_dead_seq, c.all_mention_seq, c.recount_ev,
               peer.user_id AS p_user, peer.rev AS p_rev, peer.read_seq AS p_read_seq,
               peer.floor_seq AS p_floor_seq, peer.floor_counted AS p_floor_counted,
               peer.own_after AS p_own_after, peer.mention_seq AS p_mention_seq,
               member_flags(peer.notify, peer.archived, peer.pinned) AS p_flags
          INTO place
          FROM (SELECT m.ctid AS tid, m.* FROM members m
                 WHERE m.chat_id = of_chat AND m.user_id = by_reader AND coalesce(m.left_ev, 0) = 0 OFFSET 0) me
         CROSS JOIN LATERAL (SELECT c.ctid AS tid, c.* FROM chats c WHERE c.chat_id = of_chat OFFSET 0) c
          LEFT JOIN LATERAL (
              SELECT m.* FROM members m
               WHERE m.chat_id = of_chat AND m.user_id <> by_reader AND c.kind = 'direct' AND moved
               ORDER BY m.chat_id, m.user_id LIMIT 1) peer ON true;
        IF NOT FOUND THEN
            outcome := 'chat_not_found';
            moved := false;
            RETURN NEXT;
            RETURN;
        END IF;
        outcome := 'ok';
        kind := place.kind;
        receipts := place.receipts;
        target := least(in_up_to[1], place.last_seq);
        moved := moved AND target > place.read_seq;
        ev_now := place.last_ev;
        floor_now := place.floor_seq;
        counted_now := place.floor_counted;
        own_now := place.own_after;
        IF moved AND target > floor_now THEN
            IF target = place.last_seq THEN
                counted_now := place.last_counted;
                own_now := 0;
            ELSE
                SELECT g.counted INTO counted_now FROM messages g WHERE g.chat_id = of_chat AND g.seq = target;
                -- Count the shorter side: a reader who marks has usually read nearly all.
                IF own_now > 0 AND place.last_seq - target < target - floor_now THEN
                    SELECT count(*) INTO own_now FROM messages g
                     WHERE g.chat_id = of_chat AND g.seq > target AND g.sender_id = by_reader
                       AND g.deleted_at IS NULL;
                ELSIF own_now > 0 THEN
                    SELECT own_now - count(*) INTO own_now FROM messages g
                     WHERE g.chat_id = of_chat AND g.seq > floor_now AND g.seq <= target
                       AND g.sender_id = by_reader AND g.deleted_at IS NULL;
                END IF;
            END IF;
            floor_now := target;
        END IF;
        IF moved THEN
            IF place.receipts THEN
                ev_now := place.last_ev + 1;
                changed_ev := ev_now;
                UPDATE chats c SET last_ev = ev_now WHERE c.ctid = place.c_tid;
            END IF;
            UPDATE members m
               SET read_seq = target, floor_seq = floor_now, floor_counted = counted_now, own_after = own_now,
                   rev = place.rev + 1, read_ev = coalesce(changed_ev, 0)
             WHERE m.ctid = place.tid;
            IF place.receipts THEN
                changed := in_chat;
            END IF;
            IF place.kind = 'group' THEN
                of_chats := in_chat;
                of_users := in_user;
            END IF;
            INSERT INTO outbox AS o (chats, of_chats, of_users) VALUES (changed, of_chats, of_users)
            RETURNING o.outbox_id INTO outbox_id;
        END IF;
        room_name := place.room_name;
        last_seq := place.last_seq;
        last_ev := ev_now;
        activity := place.active_at;
        counted := place.last_counted;
        recount_ev := place.recount_ev;
        rev := place.rev + moved::integer;
        read_seq := CASE WHEN moved THEN target ELSE place.read_seq END;
        flags := place.flags;
        unread := place.last_counted - counted_now - own_now;
        unread_mentions := 0;
        IF changed_ev IS NULL
           AND greatest(place.last_dead_seq, place.mention_seq, place.all_mention_seq) > floor_now THEN
            -- The chat is not locked, and what is counted must be of one snapshot.
            SELECT s.* INTO fresh FROM member_states(in_chat, in_user) s;
            IF fresh.gone IS NOT FALSE THEN
                outcome := 'chat_not_found';
                RETURN NEXT;
                RETURN;
            END IF;
            last_seq := fresh.last_seq;
            last_ev := fresh.last_ev;
            activity := fresh.activity;
            counted := fresh.counted;
            recount_ev := fresh.recount_ev;
            rev := fresh.rev;
            read_seq := fresh.read_seq;
            unread := fresh.unread;
            unread_mentions := fresh.mentions;
            flags := fresh.flags;
        ELSE
            IF place.last_dead_seq > floor_now THEN
                unread := unread - count_dead(of_chat, floor_now, place.dead);
            END IF;
            IF greatest(place.mention_seq, place.all_mention_seq) > floor_now THEN
                unread_mentions := count_mentions(
                    of_chat, by_reader, floor_now, place.mention_seq, place.all_mention_seq);
            END IF;
        END IF;
        -- The revision is news of the other member too.
        IF moved AND place.kind = 'direct' THEN
            peer_id := place.p_user;
            peer_rev := place.p_rev;
            peer_read_seq := place.p_read_seq;
            peer_flags := place.p_flags;
            peer_unread := place.last_counted - place.p_floor_counted - place.p_own_after;
            IF place.last_dead_seq > place.p_floor_seq THEN
                peer_unread := peer_unread - count_dead(of_chat, place.p_floor_seq, place.dead);
            END IF;
            peer_mentions := 0;
            IF greatest(place.p_mention_seq, place.all_mention_seq) > place.p_floor_seq THEN
                peer_mentions := count_mentions(
                    of_chat, place.p_user, place.p_floor_seq, place.p_mention_seq, place.all_mention_seq);
            END IF;
        END IF;
        RETURN NEXT;
        RETURN;
    END IF;

    -- A mark that moves nothing locks nothing, and a silent one not the chat. A chat may lose its receipts while
    -- its lock is waited for.
    SELECT array_agg(l.idx), bool_or(NOT l.receipts) INTO hits, silent
      FROM (SELECT a.idx, c.receipts
              FROM (SELECT a.* FROM unnest(in_kind, in_chat, in_user, in_admin, in_up_to) WITH ORDINALITY
                                    AS a (kind, chat_id, user_id, admin, up_to, idx)
                     ORDER BY a.chat_id) a
              LEFT JOIN LATERAL (SELECT m.read_seq FROM members m
                                  WHERE m.chat_id = a.chat_id AND m.user_id = a.user_id
                                    AND coalesce(m.left_ev, 0) = 0 OFFSET 0) me ON true
             CROSS JOIN LATERAL (SELECT c.receipts FROM chats c
                                  WHERE c.chat_id = a.chat_id AND (a.admin OR me.read_seq IS NOT NULL)
                                    AND (a.kind <> 'mark'
                                         OR c.receipts AND least(a.up_to, c.last_seq) > me.read_seq)
                                    FOR NO KEY UPDATE) c) l;
    IF silent OR cardinality(hits) IS DISTINCT FROM size THEN
        held := array_fill(false, ARRAY[size]);
        FOR n IN 1 .. coalesce(cardinality(hits), 0) LOOP
            held[hits[n]] := true;
        END LOOP;
        -- Readers, authors, and who is mentioned before or after, in order. As a WHERE, the FILTER
        -- would be moved inside, and only readers be locked.
        SELECT array_agg(l.idx) FILTER (WHERE l.idx IS NOT NULL) INTO hits
          FROM (SELECT w.idx
                  FROM (SELECT w.* FROM (
                            SELECT a.idx, a.chat_id, a.user_id COLLATE "C" AS user_id, a.up_to
                              FROM unnest(in_kind, in_chat, in_user, in_up_to, held) WITH ORDINALITY
                                   AS a (kind, chat_id, user_id, up_to, held, idx)
                             WHERE a.kind = 'mark' AND NOT a.held
                             UNION ALL
                            SELECT NULL, a.chat_id, u.user_id, NULL
                              FROM unnest(in_kind, in_chat, in_message, in_mentions, held)
                                   AS a (kind, chat_id, message_id, mentions, held)
                             CROSS JOIN LATERAL message_by_id(a.chat_id, a.message_id) g
                             CROSS JOIN LATERAL unnest(g.sender_id || g.mentions
                                                       || string_to_array(a.mentions, chr(31))) AS u (user_id)
                             WHERE a.kind <> 'mark' AND a.held) w
                         ORDER BY w.chat_id, w.user_id) w
                 CROSS JOIN LATERAL (SELECT c.last_seq FROM chats c
                                      WHERE c.chat_id = w.chat_id AND NOT c.receipts OFFSET 0) c
                 CROSS JOIN LATERAL (SELECT FROM members m
                                      WHERE m.chat_id = w.chat_id AND m.user_id = w.user_id
                                        AND (w.idx IS NULL OR coalesce(m.left_ev, 0) = 0
                                                              AND least(w.up_to, c.last_seq) > m.read_seq)
                                        FOR NO KEY UPDATE) m) l;
        FOR n IN 1 .. coalesce(cardinality(hits), 0) LOOP
            held[hits[n]] := true;
        END LOOP;
    END IF;
    instant := clock_timestamp();

    FOR n IN 1 .. CASE WHEN 'mark' = ALL (in_kind) THEN 0 ELSE size END LOOP
        CONTINUE WHEN in_kind[n] = 'mark';
        chat := NULL; mine := NULL; hit := NULL; touched := NULL; wait := NULL; changed_ev := NULL; last_ev := NULL;
        IF held[n] IS NOT FALSE THEN
            SELECT * INTO chat FROM chats c WHERE c.chat_id = in_chat[n];
            SELECT * INTO mine FROM members m
             WHERE m.chat_id = in_chat[n] AND m.user_id = in_user[n] AND coalesce(m.left_ev, 0) = 0;
            SELECT * INTO hit FROM message_by_id(in_chat[n], in_message[n]);
        END IF;
        outcome := CASE
            WHEN chat.chat_id IS NULL OR mine.chat_id IS NULL AND NOT in_admin[n] THEN 'chat_not_found'
            WHEN hit.seq IS NULL OR NOT in_admin[n] AND hit.seq < mine.first_seq
                                    AND hit.sender_id IS DISTINCT FROM in_user[n] THEN 'message_not_found'
            WHEN hit.system IS NOT NULL THEN 'forbidden'
            WHEN in_kind[n] = 'delete' THEN
                CASE WHEN in_admin[n] OR hit.sender_id = in_user[n]
                          OR chat.kind = 'group' AND mine.role <> 'member' THEN 'ok' ELSE 'not_author' END
            WHEN hit.deleted_at IS NOT NULL THEN 'message_not_found'
            WHEN hit.sender_id IS DISTINCT FROM in_user[n] THEN 'not_author'
            -- Only beside attachments a message needs no text.
            WHEN in_text[n] = '' AND hit.attachments IS NULL THEN 'empty_text'
            ELSE judge_send(
                mine.chat_id IS NOT NULL, NULL, chat.blocked, chat.erased, mine.role, chat.admins_post,
                mine.silenced_until, in_mentions[n] = chr(1), chat.member_count, NULL,
                mine.last_sent_at + chat.slow_mode_s * interval '1 second', instant)
        END;
        IF outcome = 'created' THEN
            outcome := 'ok';
        END IF;
        IF outcome = 'ok' AND in_kind[n] = 'delete' AND hit.deleted_at IS NULL THEN
            touched := tombstone_messages(in_chat[n], ARRAY[hit.seq], chat.last_ev);
            changed_ev := chat.last_ev + 1;
        ELSIF outcome = 'ok' AND in_kind[n] = 'edit' THEN
            whom := CASE
                WHEN in_mentions[n] IS NULL THEN hit.mentions
                WHEN in_mentions[n] = chr(1) THEN ARRAY[chr(1)]
                -- Who joined later was not there to be addressed.
                ELSE (SELECT array_agg(u.user_id ORDER BY u.user_id)
                        FROM unnest(mentioned_members(in_chat[n], in_user[n], in_mentions[n])) AS u (user_id)
                       CROSS JOIN LATERAL (SELECT m.joined_seq FROM members m
                                            WHERE m.chat_id = in_chat[n] AND m.user_id = u.user_id OFFSET 0) m
                       WHERE m.joined_seq < hit.seq) END;
            IF hit.text <> in_text[n] OR whom IS DISTINCT FROM hit.mentions THEN
                changed_ev := chat.last_ev + 1;
                UPDATE chats c
                   SET last_ev = changed_ev,
                       all_mention_seq = CASE WHEN whom = ARRAY[chr(1)] THEN greatest(c.all_mention_seq, hit.seq)
                                              ELSE c.all_mention_seq END,
                       recount_ev = CASE WHEN whom IS DISTINCT FROM hit.mentions THEN changed_ev
                                         ELSE c.recount_ev END
                 WHERE c.chat_id = in_chat[n];
                UPDATE messages g SET text = in_text[n], mentions = whom, ev = changed_ev,
                                      edited_at = greatest(instant, g.created_at)
                 WHERE g.chat_id = in_chat[n] AND g.seq = hit.seq;
                IF whom IS DISTINCT FROM hit.mentions THEN
                    dropped := ARRAY(SELECT u.user_id FROM unnest(hit.mentions) AS u (user_id)
                                      WHERE u.user_id <> ALL (coalesce(whom, '{}')));
                    PERFORM drop_mentions(
                        in_chat[n], array_fill(hit.seq, ARRAY[cardinality(dropped)]), dropped);
                    PERFORM note_mentions(in_chat[n], ARRAY[hit.seq]);
                    touched := ARRAY(SELECT DISTINCT u.user_id FROM unnest(hit.mentions || whom) AS u (user_id)
                                      WHERE u.user_id <> chr(1));
                END IF;
            END IF;
        END IF;
        IF changed_ev IS NOT NULL THEN
            noted := coalesce(noted, nextval('outbox_outbox_id_seq'));
            changed := changed || in_chat[n];
            IF chat.kind = 'group' AND touched IS NOT NULL THEN
                of_chats := of_chats || array_fill(in_chat[n], ARRAY[cardinality(touched)]);
                of_users := of_users || touched;
            END IF;
            SELECT * INTO hit FROM messages g WHERE g.chat_id = in_chat[n] AND g.seq = hit.seq;
            SELECT c.last_seq, c.last_ev, c.active_at, c.last_counted, c.recount_ev
              INTO last_seq, last_ev, activity, counted, recount_ev
              FROM chats c WHERE c.chat_id = in_chat[n];
        ELSIF outcome = 'silenced' THEN
            wait := mine.silenced_until;
        ELSIF outcome = 'slow_mode' THEN
            wait := mine.last_sent_at + chat.slow_mode_s * interval '1 second';
        END IF;
        idx := n;
        moved := changed_ev IS NOT NULL;
        outbox_id := CASE WHEN changed_ev IS NOT NULL THEN noted END;
        kind := chat.kind;
        receipts := chat.receipts;
        message := CASE outcome WHEN 'ok' THEN hit END;
        RETURN NEXT;
    END LOOP;
    IF noted IS NOT NULL THEN
        INSERT INTO outbox (outbox_id, chats, of_chats, of_users) OVERRIDING SYSTEM VALUE
        VALUES (noted, changed, of_chats, of_users);
    END IF;

    IF 'mark' = ANY (in_kind) THEN
        RETURN QUERY
        WITH judged AS (
            SELECT a.idx, a.chat_id, a.user_id, c.tid, c.kind, c.room_name, c.receipts, c.last_seq, c.last_ev,
                   c.last_counted, c.active_at, c.dead, c.last_dead_seq, c.all_mention_seq, c.recount_ev,
                   me.tid AS my_tid, me.rev, me.read_seq, me.floor_seq, me.floor_counted, me.own_after,
                   me.mention_seq, me.flags, least(a.up_to, c.last_seq) AS target,
                   held[a.idx] IS NOT FALSE AND least(a.up_to, c.last_seq) > me.read_seq AS moves
              FROM unnest(in_kind, in_chat, in_user, in_up_to) WITH ORDINALITY
                   AS a (kind, chat_id, user_id, up_to, idx)
              LEFT JOIN LATERAL (
                  SELECT m.ctid AS tid, m.rev, m.read_seq, m.floor_seq, m.floor_counted, m.own_after,
                         m.mention_seq,
                         member_flags(m.notify, m.archived, m.pinned) AS flags
                    FROM members m
                   WHERE m.chat_id = a.chat_id AND m.user_id = a.user_id AND coalesce(m.left_ev, 0) = 0
                  OFFSET 0) me ON true
              LEFT JOIN LATERAL (
                  SELECT c.ctid AS tid, c.kind, c.room_name, c.receipts, c.last_seq, c.last_ev, c.last_counted,
                         c.active_at, c.dead, c.last_dead_seq, c.all_mention_seq, c.recount_ev
                    FROM chats c WHERE c.chat_id = CASE WHEN me.tid IS NOT NULL THEN a.chat_id END OFFSET 0) c
                   ON true
             WHERE a.kind = 'mark'
            OFFSET 0
        ), counted AS MATERIALIZED (
            SELECT p.*,
                   CASE WHEN p.moves AND p.target > p.floor_seq THEN p.target ELSE p.floor_seq END AS new_floor,
                   CASE WHEN p.moves AND p.target > p.floor_seq THEN
                       CASE WHEN p.target = p.last_seq THEN p.last_counted
                            ELSE (SELECT g.counted FROM messages g
                                   WHERE g.chat_id = p.chat_id AND g.seq = p.target) END
                       ELSE p.floor_counted END AS new_counted,
                   CASE WHEN p.own_after > 0 AND p.moves AND p.target > p.floor_seq THEN
                       CASE WHEN p.target = p.last_seq THEN 0
                            -- Count the shorter side: a reader who marks has usually read nearly all.
                            WHEN p.last_seq - p.target < p.target - p.floor_seq
                                THEN (SELECT count(*) FROM messages g
                                       WHERE g.chat_id = p.chat_id AND g.seq > p.target
                                         AND g.sender_id = p.user_id AND g.deleted_at IS NULL)
                            ELSE p.own_after - (SELECT count(*) FROM messages g
                                                 WHERE g.chat_id = p.chat_id AND g.seq > p.floor_seq
                                                   AND g.seq <= p.target AND g.sender_id = p.user_id
                                                   AND g.deleted_at IS NULL)
                       END ELSE p.own_after END AS new_own,
                   -- Of the marks with a revision in a chat: n is the ordinal, told the count.
                   row_number() OVER of_chat AS n, count(*) OVER of_chat AS told
              FROM judged p
            WINDOW of_chat AS (PARTITION BY p.moves AND p.receipts, p.tid ORDER BY p.idx
                               ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
        ), bumped AS (
            UPDATE chats c SET last_ev = k.last_ev + k.told
              FROM (SELECT k.tid, k.last_ev, k.told FROM counted k
                     WHERE k.moves AND k.receipts AND k.n = k.told OFFSET 0) k
             WHERE c.ctid = k.tid
        ), marked AS (
            UPDATE members m
               SET read_seq = k.target, floor_seq = k.new_floor, floor_counted = k.new_counted,
                   own_after = k.new_own, rev = k.rev + 1, read_ev = k.read_ev
              FROM (SELECT k.my_tid, k.target, k.new_floor, k.new_counted, k.new_own, k.rev,
                           CASE WHEN k.receipts THEN k.last_ev + k.n ELSE 0 END AS read_ev
                      FROM counted k WHERE k.moves OFFSET 0) k
             WHERE m.ctid = k.my_tid
        ), told AS (
            INSERT INTO outbox AS o (chats, of_chats, of_users)
            SELECT coalesce(array_agg(k.chat_id) FILTER (WHERE k.receipts AND k.n = k.told), '{}'),
                   coalesce(array_agg(k.chat_id) FILTER (WHERE k.kind = 'group'), '{}'),
                   coalesce(array_agg(k.user_id) FILTER (WHERE k.kind = 'group'), '{}')
              FROM counted k WHERE k.moves HAVING count(*) > 0
            RETURNING o.outbox_id
        )
        SELECT k.idx, CASE WHEN k.tid IS NULL THEN 'chat_not_found' ELSE 'ok' END, NULL::timestamptz,
               coalesce(k.moves, false), CASE WHEN k.moves AND k.receipts THEN k.last_ev + k.n END,
               CASE WHEN k.moves THEN (SELECT o.outbox_id FROM told o) END,
               CASE k.kind WHEN 'direct' THEN 'direct' WHEN 'group' THEN 'group' END, k.receipts,
               NULL::messages, k.last_seq,
               CASE WHEN k.moves AND k.receipts THEN k.last_ev + k.told ELSE k.last_ev END, k.active_at,
               k.last_counted, k.recount_ev, k.room_name, k.rev + k.moves::integer,
               CASE WHEN k.moves THEN k.target ELSE k.read_seq END,
               k.last_counted - k.new_counted - k.new_own
                   - CASE WHEN k.last_dead_seq > k.new_floor
                          THEN count_dead(k.chat_id, k.new_floor, k.dead) ELSE 0 END,
               CASE WHEN greatest(k.mention_seq, k.all_mention_seq) > k.new_floor
                    THEN count_mentions(k.chat_id, k.user_id, k.new_floor, k.mention_seq, k.all_mention_seq)
                    ELSE 0 END,
               k.flags, peer.*
          FROM counted k
          -- The revision is news of the other member too, unless a mark of theirs moves with it.
          LEFT JOIN LATERAL (
              SELECT m.user_id::text, m.rev, m.read_seq,
                     k.last_counted - m.floor_counted - m.own_after
                         - CASE WHEN k.last_dead_seq > m.floor_seq
                                THEN count_dead(k.chat_id, m.floor_seq, k.dead) ELSE 0 END,
                     CASE WHEN greatest(m.mention_seq, k.all_mention_seq) > m.floor_seq
                          THEN count_mentions(k.chat_id, m.user_id, m.floor_seq, m.mention_seq,
                                              k.all_mention_seq) ELSE 0 END,
                     member_flags(m.notify, m.archived, m.pinned)
                FROM members m
               WHERE m.chat_id = CASE WHEN k.moves AND k.kind = 'direct' AND k.told = 1 THEN k.chat_id END
                 AND m.user_id <> k.user_id
               ORDER BY m.chat_id, m.user_id OFFSET 0) peer ON true;
    END IF;
END
$$;
