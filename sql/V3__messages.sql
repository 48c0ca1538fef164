-- New messages.

-- A message by its id. The condition is a range of one id, with its order, which only messages_by_id has: an
-- equality has no order, and could be served by a filter over the whole chat.
CREATE FUNCTION message_by_id(in_chat uuid, in_message uuid) RETURNS SETOF messages
LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT * FROM messages m
     WHERE m.chat_id = in_chat AND m.message_id BETWEEN in_message AND in_message
     ORDER BY m.message_id LIMIT 1
$$;

-- What becomes of a message, decided under the chat's lock. Replays come first: what was stored once is returned
-- whatever has changed since. in_same: whether the content is that of the earlier message with this id; null:
-- there is none. in_all: everybody is mentioned. in_slow_until: when slow mode lets the sender write again.
CREATE FUNCTION judge_send(
    in_member boolean, in_same boolean, blocked boolean, erased boolean, role member_role, admins_post boolean,
    silenced_until timestamptz, in_all boolean, member_count integer, in_slow_until timestamptz,
    instant timestamptz)
RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN in_member IS NOT TRUE THEN 'chat_not_found'
        WHEN in_same THEN 'replayed'
        WHEN NOT in_same THEN 'idempotency_mismatch'
        WHEN blocked THEN 'blocked'
        WHEN erased THEN 'erased'
        WHEN role <> 'member' THEN 'created'
        WHEN admins_post THEN 'forbidden_post'
        WHEN silenced_until > instant THEN 'silenced'
        -- In a larger group only owner and admins address everybody.
        WHEN in_all AND member_count > 32 THEN 'forbidden_all'
        WHEN in_slow_until > instant THEN 'slow_mode'
        ELSE 'created'
    END
$$;

-- Of these users the members of a chat, without the sender, in byte order; null: none of them.
-- in_mentioned: ids divided by chr(31), or chr(1), which is returned as it is: everybody.
CREATE FUNCTION mentioned_members(in_chat uuid, in_sender text, in_mentioned text) RETURNS text[]
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF in_mentioned = chr(1) THEN
        RETURN ARRAY[chr(1)];
    END IF;
    RETURN (
        SELECT array_agg(u.user_id ORDER BY u.user_id)
          FROM (SELECT DISTINCT u.user_id COLLATE "C" AS user_id
                  FROM unnest(string_to_array(in_mentioned, chr(31))) AS u (user_id)) u
         CROSS JOIN LATERAL (SELECT FROM members m
                              WHERE m.chat_id = in_chat AND m.user_id = u.user_id
                                AND coalesce(m.left_ev, 0) = 0 OFFSET 0) m
         WHERE u.user_id <> in_sender);
END
$$;

-- Adds rows for the users whom these messages mention. The caller holds the chat's lock.
CREATE FUNCTION note_mentions(in_chat uuid, in_seqs bigint[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    users text[];
    tops bigint[];
BEGIN
    WITH noted AS (
        INSERT INTO mentions AS x (chat_id, user_id, seq, sender_id)
        SELECT in_chat, u.user_id, g.seq, g.sender_id
          FROM unnest(in_seqs) AS s (seq)
         CROSS JOIN LATERAL (SELECT g.seq, g.sender_id, g.mentions FROM messages g
                              WHERE g.chat_id = in_chat AND g.seq = s.seq AND g.deleted_at IS NULL OFFSET 0) g
         CROSS JOIN LATERAL unnest(g.mentions) AS u (user_id)
            ON CONFLICT DO NOTHING RETURNING x.user_id, x.seq
    ), tops AS (
        SELECT n.user_id, max(n.seq) AS top FROM noted n WHERE n.user_id <> chr(1) GROUP BY n.user_id
    )
    SELECT array_agg(t.user_id), array_agg(t.top) INTO users, tops FROM tops t;
    IF users IS NULL THEN
        RETURN;
    END IF;
    PERFORM lock_members(in_chat, users);
    UPDATE members m SET rev = m.rev + 1, mention_seq = greatest(m.mention_seq, u.top)
      FROM (SELECT x.tid, u.top FROM unnest(users, tops) AS u (user_id, top)
             CROSS JOIN LATERAL (SELECT m.ctid AS tid FROM members m
                                  WHERE m.chat_id = in_chat AND m.user_id = u.user_id OFFSET 0) x) u
     WHERE m.ctid = u.tid;
END
$$;

-- Writes a batch of messages. A batch never has the same message_id twice (the batch writer ensures it).
-- in_mentions: ids divided by chr(31); chr(1): everybody; null: nobody.
--
-- A row for each message, in order, with its place idx; then rows with idx null, which have only a state: of
-- whoever's counters changed by more than the chat's numbers tell. These are senders and mentioned users, and
-- in a direct chat both members. What the caller knows already is not returned.
-- outcome: created, replayed, or the code of the error. wait: until when slow mode or silence lasts.
CREATE FUNCTION send_messages(
    in_chat uuid[], in_sender text[], in_message uuid[], in_key text[], in_digest bytea[],
    in_text text[], in_metadata json[], in_mentions text[])
RETURNS TABLE (
    idx bigint, outcome text, wait timestamptz, kind text, seq bigint, ev bigint, text text, metadata json,
    mentions text[], created_at timestamptz, edited_at timestamptz, deleted_at timestamptz,
    outbox_id bigint, state member_state)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    size integer := cardinality(in_chat);
    instant timestamptz;
    -- Of a batch of one.
    of_chat uuid;
    by_sender text;
    chat record;
    place record;
    whom text[];
    at timestamptz;
    seq_now bigint;
    ev_now bigint;
    counted_now bigint;
    floor_now bigint;
    floor_counted_now bigint;
    own_now bigint;
    dead_now bigint;
    mentions_now bigint;
    -- Of a larger one, by place. Who was not there when the locks were taken is not there for this batch, even
    -- if the next statement sees them: their chat is not locked.
    hits bigint[];
    silent boolean;
    slow boolean;
    grouped boolean;
    directs uuid[];
    locked boolean[];
    mentioned text[];
    of_chats uuid[];
    of_users text[];
BEGIN
    IF current_setting('enable_sort') = 'on' THEN
        PERFORM use_writer_settings();
    END IF;

    -- At everyday rates a batch is one message. Plain statements by whole keys cost less than one of many nodes.
    IF size = 1 THEN
        idx := 1;
        of_chat := in_chat[1];
        by_sender := in_sender[1];
        -- For a stranger nothing is locked: see V5__chats.sql.
        SELECT c.* INTO chat
          FROM (SELECT FROM members m WHERE m.chat_id = of_chat AND m.user_id = by_sender
                                        AND coalesce(m.left_ev, 0) = 0 OFFSET 0) me
         CROSS JOIN LATERAL (
             SELECT c.ctid AS tid, c.kind, c.room_name, c.last_seq, c.last_ev, c.last_counted, c.last_message_at,
                    c.active_at, c.dead, c.last_dead_seq, c.all_mention_seq, c.member_count, c.slow_mode_s,
                    c.admins_post, c.receipts, c.blocked, c.erased
               FROM chats c WHERE c.chat_id = of_chat FOR NO KEY UPDATE) c;
        IF NOT FOUND THEN
            outcome := 'chat_not_found';
            RETURN NEXT;
            RETURN;
        END IF;
        IF in_mentions[1] IS NOT NULL THEN
            whom := mentioned_members(of_chat, by_sender, in_mentions[1]);
        END IF;
        IF NOT chat.receipts THEN
            PERFORM lock_members(of_chat, by_sender || whom);
        END IF;
        SELECT me.tid, me.role, me.silenced_until, me.last_sent_at, me.rev, me.first_seq, me.read_seq,
               me.floor_seq, me.floor_counted, me.own_after, me.mention_seq, me.notify, me.pinned, me.archived,
               peer.user_id AS p_user, peer.rev AS p_rev, peer.first_seq AS p_first_seq,
               peer.read_seq AS p_read_seq, peer.floor_seq AS p_floor_seq,
               peer.floor_counted AS p_floor_counted, peer.own_after AS p_own_after,
               peer.mention_seq AS p_mention_seq, peer.notify AS p_notify, peer.pinned AS p_pinned,
               peer.archived AS p_archived,
               old.seq AS old_seq, old.ev AS old_ev, old.text AS old_text, old.metadata AS old_metadata,
               old.mentions AS old_mentions, old.created_at AS old_created_at, old.edited_at AS old_edited_at,
               old.deleted_at AS old_deleted_at, old.content_digest AS old_digest
          INTO place
          FROM (SELECT m.ctid AS tid, m.* FROM members m
                 WHERE m.chat_id = of_chat AND m.user_id = by_sender AND coalesce(m.left_ev, 0) = 0
                OFFSET 0) me
          LEFT JOIN LATERAL (
              SELECT m.* FROM members m
               WHERE m.chat_id = of_chat AND m.user_id <> by_sender AND chat.kind = 'direct'
               ORDER BY m.chat_id, m.user_id LIMIT 1) peer ON true
          LEFT JOIN LATERAL message_by_id(of_chat, CASE WHEN in_key[1] IS NOT NULL THEN in_message[1] END) old
               ON true;
        IF NOT FOUND THEN
            outcome := 'chat_not_found';
            RETURN NEXT;
            RETURN;
        END IF;
        instant := clock_timestamp();
        outcome := judge_send(
            true,
            CASE WHEN place.old_seq IS NOT NULL
                 THEN place.old_deleted_at IS NOT NULL OR place.old_digest IS NOT DISTINCT FROM in_digest[1] END,
            chat.blocked, chat.erased, place.role, chat.admins_post, place.silenced_until,
            whom = ARRAY[chr(1)], chat.member_count,
            place.last_sent_at + chat.slow_mode_s * interval '1 second', instant);
        IF outcome = 'created' THEN
            kind := chat.kind;
            seq := chat.last_seq + 1;
            ev := chat.last_ev + 1;
            counted_now := chat.last_counted + 1;
            created_at := greatest(instant, chat.last_message_at);
            mentions := whom;
            -- Whoever has nothing to read still has nothing after a message of their own.
            IF place.floor_counted = chat.last_counted THEN
                floor_now := seq;
                floor_counted_now := counted_now;
                own_now := 0;
            ELSE
                floor_now := place.floor_seq;
                floor_counted_now := place.floor_counted;
                own_now := place.own_after + 1;
            END IF;
            seq_now := seq;
            ev_now := ev;
            at := created_at;
            INSERT INTO messages (chat_id, seq, message_id, ev, counted, sender_id, client_msg_id,
                                  content_digest, text, metadata, mentions, created_at)
            VALUES (of_chat, seq_now, in_message[1], ev_now, counted_now, by_sender, in_key[1], in_digest[1],
                    in_text[1], in_metadata[1], whom, at);
            UPDATE chats c
               SET last_seq = seq_now, last_ev = ev_now, last_counted = counted_now, last_message_at = at,
                   active_at = at,
                   all_mention_seq = CASE WHEN whom = ARRAY[chr(1)] THEN seq_now ELSE c.all_mention_seq END
             WHERE c.ctid = chat.tid;
            UPDATE members m
               SET floor_seq = floor_now, floor_counted = floor_counted_now, own_after = own_now,
                   rev = place.rev + 1, last_sent_at = CASE WHEN chat.slow_mode_s > 0 THEN instant END
             WHERE m.ctid = place.tid;
            INSERT INTO outbox AS o (chats) VALUES (in_chat) RETURNING o.outbox_id INTO outbox_id;
            IF whom IS NOT NULL THEN
                PERFORM note_mentions(of_chat, ARRAY[seq_now]);
            END IF;
        ELSIF outcome = 'replayed' THEN
            kind := chat.kind;
            seq := place.old_seq;
            ev := place.old_ev;
            text := place.old_text;
            metadata := place.old_metadata;
            mentions := place.old_mentions;
            created_at := place.old_created_at;
            edited_at := place.old_edited_at;
            deleted_at := place.old_deleted_at;
        ELSIF outcome = 'silenced' THEN
            wait := place.silenced_until;
        ELSIF outcome = 'slow_mode' THEN
            wait := place.last_sent_at + chat.slow_mode_s * interval '1 second';
        END IF;
        RETURN NEXT;
        IF outcome NOT IN ('created', 'replayed') THEN
            RETURN;
        END IF;
        IF outcome = 'replayed' OR whom IS NOT NULL OR chat.kind = 'group' THEN
            of_users := CASE chat.kind WHEN 'direct' THEN ARRAY[by_sender, place.p_user] ELSE by_sender || whom END;
            of_chats := array_fill(of_chat, ARRAY[cardinality(of_users)]);
            RETURN QUERY
            SELECT NULL::bigint, NULL, NULL::timestamptz, NULL, NULL::bigint, NULL::bigint, NULL, NULL::json,
                   NULL::text[], NULL::timestamptz, NULL::timestamptz, NULL::timestamptz, NULL::bigint,
                   s::member_state
              FROM member_states(of_chats, of_users) s;
            RETURN;
        END IF;
        -- Both states of a direct chat, without another look.
        idx := NULL; outcome := NULL; seq := NULL; ev := NULL; created_at := NULL; outbox_id := NULL;
        dead_now := 0;
        IF chat.last_dead_seq > floor_now THEN
            dead_now := count_dead(of_chat, floor_now, chat.dead);
        END IF;
        mentions_now := 0;
        IF greatest(place.mention_seq, chat.all_mention_seq) > floor_now THEN
            mentions_now := count_mentions(of_chat, by_sender, floor_now, place.mention_seq, chat.all_mention_seq);
        END IF;
        state := ROW(of_chat, by_sender, kind, chat.room_name, seq_now, ev_now, at, false,
                     place.rev + 1, place.first_seq, place.read_seq,
                     counted_now - floor_counted_now - own_now - dead_now, mentions_now,
                     place.notify, place.pinned, place.archived)::member_state;
        RETURN NEXT;
        dead_now := 0;
        IF chat.last_dead_seq > place.p_floor_seq THEN
            dead_now := count_dead(of_chat, place.p_floor_seq, chat.dead);
        END IF;
        mentions_now := 0;
        IF greatest(place.p_mention_seq, chat.all_mention_seq) > place.p_floor_seq THEN
            mentions_now := count_mentions(
                of_chat, place.p_user, place.p_floor_seq, place.p_mention_seq, chat.all_mention_seq);
        END IF;
        state := ROW(of_chat, place.p_user, kind, chat.room_name, seq_now, ev_now, at, false,
                     place.p_rev, place.p_first_seq, place.p_read_seq,
                     counted_now - place.p_floor_counted - place.p_own_after - dead_now, mentions_now,
                     place.p_notify, place.p_pinned, place.p_archived)::member_state;
        RETURN NEXT;
        RETURN;
    END IF;

    -- Every function locks chats in the order of their ids, so that no two wait for each other.
    SELECT array_agg(l.idx), bool_or(NOT l.receipts), bool_or(l.slow_mode_s > 0), bool_or(l.kind = 'group'),
           array_agg(DISTINCT l.chat_id) FILTER (WHERE l.kind = 'direct')
      INTO hits, silent, slow, grouped, directs
      FROM (SELECT i.idx, i.chat_id, c.receipts, c.slow_mode_s, c.kind
              FROM (SELECT i.* FROM unnest(in_chat, in_sender) WITH ORDINALITY AS i (chat_id, sender_id, idx)
                     ORDER BY i.chat_id) i
             CROSS JOIN LATERAL (SELECT FROM members m WHERE m.chat_id = i.chat_id AND m.user_id = i.sender_id
                                                         AND coalesce(m.left_ev, 0) = 0 OFFSET 0) me
             CROSS JOIN LATERAL (SELECT c.receipts, c.slow_mode_s, c.kind FROM chats c
                                  WHERE c.chat_id = i.chat_id FOR NO KEY UPDATE) c) l;
    locked := array_fill(coalesce(cardinality(hits), 0) = size, ARRAY[size]);
    IF cardinality(hits) < size THEN
        FOR n IN 1 .. cardinality(hits) LOOP
            locked[hits[n]] := true;
        END LOOP;
    END IF;
    mentioned := array_fill(NULL::text, ARRAY[size]);
    FOR n IN 1 .. CASE WHEN array_to_string(in_mentions, '') <> '' THEN size ELSE 0 END LOOP
        CONTINUE WHEN in_mentions[n] IS NULL OR NOT locked[n];
        mentioned[n] := array_to_string(mentioned_members(in_chat[n], in_sender[n], in_mentions[n]), chr(31));
        IF mentioned[n] IS NOT NULL THEN
            whom := string_to_array(mentioned[n], chr(31));
            of_users := of_users || whom;
            of_chats := of_chats || array_fill(in_chat[n], ARRAY[cardinality(whom)]);
        END IF;
    END LOOP;
    IF silent THEN
        -- Senders and mentioned users together, in order.
        PERFORM FROM (
                SELECT w.chat_id, w.user_id
                  FROM (SELECT i.chat_id, i.user_id COLLATE "C" AS user_id
                          FROM unnest(in_chat, in_sender, locked) AS i (chat_id, user_id, locked) WHERE i.locked
                        UNION SELECT * FROM unnest(of_chats, of_users)) w
                 CROSS JOIN LATERAL (SELECT c.receipts FROM chats c WHERE c.chat_id = w.chat_id OFFSET 0) c
                 WHERE NOT c.receipts
                 ORDER BY w.chat_id, w.user_id) w
          CROSS JOIN LATERAL (SELECT FROM members m WHERE m.chat_id = w.chat_id AND m.user_id = w.user_id
                                 FOR NO KEY UPDATE) m;
    END IF;
    IF slow THEN
        -- In slow mode each message must see the one before it. All locks are held by now.
        FOR n IN 1 .. size LOOP
            RETURN QUERY
            SELECT n::bigint, s.outcome, s.wait, s.kind, s.seq, s.ev, s.text, s.metadata, s.mentions,
                   s.created_at, s.edited_at, s.deleted_at, s.outbox_id, NULL::member_state
              FROM send_messages(
                   ARRAY[CASE WHEN locked[n] THEN in_chat[n] END], in_sender[n:n], in_message[n:n], in_key[n:n],
                   in_digest[n:n], in_text[n:n], in_metadata[n:n], in_mentions[n:n]) s
             WHERE s.idx = 1;
        END LOOP;
    ELSE
        instant := clock_timestamp();
        RETURN QUERY
        WITH judged AS (
            SELECT i.*, c.tid, c.kind, c.last_seq, c.last_ev, c.last_counted,
                   greatest(instant, c.last_message_at) AS at,
                   me.tid AS my_tid, me.floor_counted, me.silenced_until,
                   old.seq AS old_seq, old.ev AS old_ev, old.text AS old_text, old.metadata AS old_metadata,
                   old.mentions AS old_mentions, old.created_at AS old_created_at,
                   old.edited_at AS old_edited_at, old.deleted_at AS old_deleted_at,
                   judge_send(me.tid IS NOT NULL AND c.tid IS NOT NULL,
                              CASE WHEN old.seq IS NOT NULL
                                   THEN old.deleted_at IS NOT NULL
                                        OR old.content_digest IS NOT DISTINCT FROM i.digest END,
                              c.blocked, c.erased, me.role, c.admins_post, me.silenced_until,
                              i.mentioned = chr(1), c.member_count, NULL, instant) AS outcome
              FROM unnest(in_chat, in_sender, in_message, in_key, in_digest, in_text, in_metadata, mentioned,
                          locked)
                   WITH ORDINALITY AS i (chat_id, sender_id, message_id, key, digest, text, metadata, mentioned,
                                         locked, idx)
              LEFT JOIN LATERAL (
                  SELECT m.ctid AS tid, m.role, m.floor_counted, m.silenced_until FROM members m
                   WHERE m.chat_id = i.chat_id AND m.user_id = i.sender_id AND coalesce(m.left_ev, 0) = 0
                     AND i.locked OFFSET 0) me ON true
              LEFT JOIN LATERAL (
                  SELECT c.ctid AS tid, c.kind, c.last_seq, c.last_ev, c.last_counted, c.last_message_at,
                         c.blocked, c.erased, c.admins_post, c.member_count
                    FROM chats c WHERE c.chat_id = i.chat_id AND me.tid IS NOT NULL OFFSET 0) c ON true
              LEFT JOIN LATERAL message_by_id(
                  CASE WHEN c.tid IS NOT NULL THEN i.chat_id END,
                  CASE WHEN i.key IS NOT NULL THEN i.message_id END) old ON true
        ), numbered AS MATERIALIZED (
            -- Of the messages that are created in a chat: n is the ordinal, sent the count.
            SELECT j.*,
                   count(*) FILTER (WHERE j.outcome = 'created') OVER (
                       PARTITION BY j.chat_id ORDER BY j.idx ROWS UNBOUNDED PRECEDING) AS n,
                   count(*) FILTER (WHERE j.outcome = 'created') OVER (PARTITION BY j.chat_id) AS sent
              FROM judged j
        ), inserted AS (
            INSERT INTO messages AS m (chat_id, seq, message_id, ev, counted, sender_id, client_msg_id,
                                       content_digest, text, metadata, mentions, created_at)
            SELECT n.chat_id, n.last_seq + n.n, n.message_id, n.last_ev + n.n, n.last_counted + n.n,
                   n.sender_id, n.key, n.digest, n.text, n.metadata, string_to_array(n.mentioned, chr(31)), n.at
              FROM numbered n WHERE n.outcome = 'created'
        ), bumped AS (
            -- One row a chat: that of the last message created there. The same below.
            UPDATE chats c
               SET last_seq = c.last_seq + n.sent, last_ev = c.last_ev + n.sent,
                   last_counted = c.last_counted + n.sent, last_message_at = n.at, active_at = n.at
              FROM numbered n
             WHERE c.ctid = n.tid AND n.outcome = 'created' AND n.n = n.sent
        ), counted AS (
            -- Whoever had nothing to read and wrote all of this batch still has nothing to read.
            UPDATE members m
               SET floor_seq = CASE WHEN o.alone THEN o.last_seq + o.own ELSE m.floor_seq END,
                   floor_counted = CASE WHEN o.alone THEN o.last_counted + o.own ELSE m.floor_counted END,
                   own_after = CASE WHEN o.alone THEN 0 ELSE m.own_after + o.own END,
                   rev = m.rev + 1, last_sent_at = NULL
              FROM (SELECT n.my_tid, count(*) AS own, min(n.last_seq) AS last_seq,
                           min(n.last_counted) AS last_counted,
                           min(n.floor_counted) = min(n.last_counted) AND count(*) = min(n.sent) AS alone
                      FROM numbered n WHERE n.outcome = 'created' GROUP BY n.my_tid) o
             WHERE m.ctid = o.my_tid
        ), noted AS (
            INSERT INTO outbox AS o (chats)
            SELECT array_agg(n.chat_id) FROM numbered n
             WHERE n.outcome = 'created' AND n.n = n.sent HAVING count(*) > 0
            RETURNING o.outbox_id
        )
        SELECT n.idx, n.outcome, CASE n.outcome WHEN 'silenced' THEN n.silenced_until END, n.kind::text,
               CASE n.outcome WHEN 'created' THEN n.last_seq + n.n ELSE n.old_seq END,
               CASE n.outcome WHEN 'created' THEN n.last_ev + n.n ELSE n.old_ev END,
               n.old_text::text, n.old_metadata::json,
               CASE n.outcome WHEN 'created' THEN string_to_array(n.mentioned, chr(31))
                    ELSE n.old_mentions::text[] END,
               CASE n.outcome WHEN 'created' THEN n.at ELSE n.old_created_at END,
               n.old_edited_at, n.old_deleted_at, (SELECT o.outbox_id FROM noted o), NULL::member_state
          FROM numbered n;
        IF of_users IS NOT NULL THEN
            -- Statements of their own: a sender may be mentioned in the same batch, and one statement changes a
            -- row once.
            UPDATE chats c SET all_mention_seq = c.last_seq
              FROM (SELECT DISTINCT x.tid FROM unnest(in_chat, mentioned) AS i (chat_id, mentioned)
                     CROSS JOIN LATERAL (SELECT c.ctid AS tid FROM chats c
                                          WHERE c.chat_id = i.chat_id OFFSET 0) x
                     WHERE i.mentioned = chr(1)) e
             WHERE c.ctid = e.tid;
            PERFORM note_mentions(g.chat_id, array_agg(g.seq ORDER BY g.seq))
               FROM unnest(in_chat, in_message, mentioned) AS i (chat_id, message_id, mentioned)
              CROSS JOIN LATERAL message_by_id(i.chat_id, i.message_id) g
              WHERE i.mentioned IS NOT NULL AND g.mentions IS NOT NULL
              GROUP BY g.chat_id ORDER BY g.chat_id;
        END IF;
    END IF;
    IF directs IS NOT NULL THEN
        RETURN QUERY
        SELECT NULL::bigint, NULL, NULL::timestamptz, NULL, NULL::bigint, NULL::bigint, NULL, NULL::json,
               NULL::text[], NULL::timestamptz, NULL::timestamptz, NULL::timestamptz, NULL::bigint, s.state
          FROM chat_states(directs) s WHERE s.kind = 'direct';
    END IF;
    IF grouped THEN
        SELECT array_agg(q.chat_id), array_agg(q.user_id) INTO of_chats, of_users
          FROM (SELECT i.chat_id, i.user_id
                  FROM unnest(in_chat, in_sender, locked) AS i (chat_id, user_id, locked) WHERE i.locked
                UNION SELECT * FROM unnest(of_chats, of_users)) q
         WHERE q.chat_id <> ALL (coalesce(directs, '{}'));
        RETURN QUERY
        SELECT NULL::bigint, NULL, NULL::timestamptz, NULL, NULL::bigint, NULL::bigint, NULL, NULL::json,
               NULL::text[], NULL::timestamptz, NULL::timestamptz, NULL::timestamptz, NULL::bigint,
               s::member_state
          FROM member_states(of_chats, of_users) s;
    END IF;
END
$$;
