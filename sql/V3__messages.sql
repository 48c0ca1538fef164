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
-- there is none. in_all: everybody is mentioned. in_unseen: it answers a message that its sender can't see.
-- in_slow_until: when slow mode lets the sender write again.
CREATE FUNCTION judge_send(
    in_member boolean, in_same boolean, blocked boolean, erased boolean, role member_role, admins_post boolean,
    silenced_until timestamptz, in_all boolean, member_count integer, in_unseen boolean,
    in_slow_until timestamptz, instant timestamptz)
RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN in_member IS NOT TRUE THEN 'chat_not_found'
        WHEN in_same THEN 'replayed'
        WHEN NOT in_same THEN 'idempotency_mismatch'
        WHEN blocked THEN 'blocked'
        WHEN erased THEN 'erased'
        WHEN role <> 'member' THEN CASE WHEN in_unseen THEN 'reply_not_found' ELSE 'created' END
        WHEN admins_post THEN 'forbidden_post'
        WHEN silenced_until > instant THEN 'silenced'
        -- In a larger group only owner and admins address everybody.
        WHEN in_all AND member_count > 32 THEN 'forbidden_all'
        WHEN in_slow_until > instant THEN 'slow_mode'
        WHEN in_unseen THEN 'reply_not_found'
        ELSE 'created'
    END
$$;

-- A message as those that answer it show it.
CREATE FUNCTION quote_json(q messages) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object('message_id', q.message_id, 'seq', q.seq, 'sender_id', q.sender_id,
                             'text', left(q.text, 200), 'deleted', q.deleted_at IS NOT NULL)
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
-- in_mentions: ids divided by chr(31); chr(1): everybody; null: nobody. in_reply: the message that it answers. in_attachments: ids divided by commas; null: none.
--
-- A row for each message, with its place idx. outcome: created, replayed, or the code of the error. wait: until when
-- slow mode or silence lasts. What the caller knows already is not returned, and of a replayed message, which is
-- rare, only where it is.
--
-- A row of a created message also has states of members after the batch, the sender's from room_name on, the other's
-- from peer_id on; flags are null for those of most. In a direct chat the last message has those of both, in a group
-- each message its sender's. There is none in a batch of several that mentions somebody in that chat.
CREATE FUNCTION send_messages(
    in_chat uuid[], in_sender text[], in_message uuid[], in_key text[], in_digest bytea[],
    in_text text[], in_metadata json[], in_mentions text[], in_reply uuid[], in_attachments text[])
RETURNS TABLE (
    idx bigint, outcome text, wait timestamptz, kind text, seq bigint, ev bigint, mentions text[], reply_to json,
    attachments json,
    created_at timestamptz, outbox_id bigint, last_seq bigint, last_ev bigint, counted bigint, recount_ev bigint,
    room_name text, rev bigint, read_seq bigint, unread bigint, unread_mentions bigint, flags text, peer_id text,
    peer_rev bigint, peer_read_seq bigint, peer_unread bigint, peer_mentions bigint, peer_flags text)
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
    answered messages;
    files uuid[];
    at timestamptz;
    seq_now bigint;
    ev_now bigint;
    counted_now bigint;
    floor_now bigint;
    floor_counted_now bigint;
    own_now bigint;
    mention_now bigint;
    all_mention_now bigint;
    -- Whose own rows it changes in a group.
    own text[];
    -- Of a larger one.
    held bigint;
    -- The places whose senders were members when the locks were taken. Who was not is not there for this batch,
    -- even if the next statement sees them: their chat is not locked. Null: all were.
    hits bigint[];
    silent boolean;
    slow boolean;
    -- By place, the members whom a message mentions; null: none does.
    mentioned text[];
    -- By place, the number of the message that a message answers, and what is shown of it.
    replied bigint[];
    quotes text[];
    -- The chats of these messages, and in pairs of chat and user the members whom they name.
    mentioning uuid[];
    of_chats uuid[] := '{}';
    of_users text[] := '{}';
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
                    c.active_at, c.dead, c.last_dead_seq, c.all_mention_seq, c.recount_ev, c.member_count,
                    c.slow_mode_s, c.admins_post, c.receipts, c.blocked, c.erased
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
        SELECT me.tid, me.role, me.silenced_until, me.last_sent_at, me.rev, me.read_seq, me.floor_seq,
               me.floor_counted, me.own_after, me.mention_seq, me.first_seq,
               member_flags(me.notify, me.archived, me.pinned) AS flags,
               peer.user_id AS p_user, peer.rev AS p_rev, peer.read_seq AS p_read_seq,
               peer.floor_seq AS p_floor_seq, peer.floor_counted AS p_floor_counted,
               peer.own_after AS p_own_after, peer.mention_seq AS p_mention_seq,
               member_flags(peer.notify, peer.archived, peer.pinned) AS p_flags,
               old.seq AS old_seq, old.deleted_at AS old_deleted_at, old.content_digest AS old_digest
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
        IF in_reply[1] IS NOT NULL THEN
            SELECT q.* INTO answered FROM message_by_id(of_chat, in_reply[1]) q WHERE q.seq >= place.first_seq;
        END IF;
        instant := clock_timestamp();
        outcome := judge_send(
            true,
            CASE WHEN place.old_seq IS NOT NULL
                 THEN place.old_deleted_at IS NOT NULL OR place.old_digest IS NOT DISTINCT FROM in_digest[1] END,
            chat.blocked, chat.erased, place.role, chat.admins_post, place.silenced_until,
            whom = ARRAY[chr(1)], chat.member_count, in_reply[1] IS NOT NULL AND answered.seq IS NULL,
            place.last_sent_at + chat.slow_mode_s * interval '1 second', instant);
        IF outcome = 'created' AND in_attachments[1] IS NOT NULL THEN
            files := string_to_array(in_attachments[1], ',')::uuid[];
            attachments := sendable_attachments(of_chat, by_sender, files);
            IF attachments IS NULL THEN
                outcome := 'attachment_not_found';
            END IF;
        END IF;
        IF outcome = 'created' THEN
            kind := chat.kind;
            seq := chat.last_seq + 1;
            ev := chat.last_ev + 1;
            counted_now := chat.last_counted + 1;
            created_at := greatest(instant, chat.last_message_at);
            mentions := whom;
            reply_to := CASE WHEN answered.seq IS NOT NULL THEN quote_json(answered) END;
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
                                  content_digest, text, metadata, mentions, reply_seq, attachments, created_at)
            VALUES (of_chat, seq_now, in_message[1], ev_now, counted_now, by_sender, in_key[1], in_digest[1],
                    in_text[1], in_metadata[1], whom, answered.seq, attachments, at);
            IF files IS NOT NULL THEN
                PERFORM send_attachments(of_chat, files, seq_now);
            END IF;
            UPDATE chats c
               SET last_seq = seq_now, last_ev = ev_now, last_counted = counted_now, last_message_at = at,
                   active_at = at,
                   all_mention_seq = CASE WHEN whom = ARRAY[chr(1)] THEN seq_now ELSE c.all_mention_seq END,
                   recount_ev = CASE WHEN whom = ARRAY[chr(1)] THEN ev_now ELSE c.recount_ev END
             WHERE c.ctid = chat.tid;
            UPDATE members m
               SET floor_seq = floor_now, floor_counted = floor_counted_now, own_after = own_now,
                   rev = place.rev + 1, last_sent_at = CASE WHEN chat.slow_mode_s > 0 THEN instant END
             WHERE m.ctid = place.tid;
            IF chat.kind = 'direct' THEN
                INSERT INTO outbox AS o (chats) VALUES (in_chat) RETURNING o.outbox_id INTO outbox_id;
            ELSE
                own := CASE WHEN whom = ARRAY[chr(1)] THEN in_sender ELSE in_sender || whom END;
                INSERT INTO outbox AS o (chats, of_chats, of_users)
                VALUES (in_chat, array_fill(of_chat, ARRAY[cardinality(own)]), own)
                RETURNING o.outbox_id INTO outbox_id;
            END IF;
            IF whom IS NOT NULL THEN
                PERFORM note_mentions(of_chat, ARRAY[seq_now]);
            END IF;
        ELSIF outcome = 'replayed' THEN
            kind := chat.kind;
            seq := place.old_seq;
        ELSIF outcome = 'silenced' THEN
            wait := place.silenced_until;
        ELSIF outcome = 'slow_mode' THEN
            wait := place.last_sent_at + chat.slow_mode_s * interval '1 second';
        END IF;
        IF outcome = 'created' THEN
            last_seq := seq_now;
            last_ev := ev_now;
            counted := counted_now;
            recount_ev := CASE WHEN whom = ARRAY[chr(1)] THEN ev_now ELSE chat.recount_ev END;
            room_name := chat.room_name;
            rev := place.rev + 1;
            read_seq := place.read_seq;
            flags := place.flags;
            unread := counted_now - floor_counted_now - own_now;
            IF chat.last_dead_seq > floor_now THEN
                unread := unread - count_dead(of_chat, floor_now, chat.dead);
            END IF;
            -- Bounds: either may be too high.
            all_mention_now := CASE WHEN whom IS NULL THEN chat.all_mention_seq ELSE seq_now END;
            unread_mentions := 0;
            IF greatest(place.mention_seq, all_mention_now) > floor_now THEN
                unread_mentions := count_mentions(
                    of_chat, by_sender, floor_now, place.mention_seq, all_mention_now);
            END IF;
        END IF;
        IF outcome = 'created' AND kind = 'direct' THEN
            peer_id := place.p_user;
            -- Whoever of two is mentioned by id is the other.
            peer_rev := place.p_rev + (whom <> ARRAY[chr(1)] IS TRUE)::integer;
            peer_read_seq := place.p_read_seq;
            peer_flags := place.p_flags;
            peer_unread := counted_now - place.p_floor_counted - place.p_own_after;
            IF chat.last_dead_seq > place.p_floor_seq THEN
                peer_unread := peer_unread - count_dead(of_chat, place.p_floor_seq, chat.dead);
            END IF;
            mention_now := greatest(place.p_mention_seq, all_mention_now);
            peer_mentions := 0;
            IF mention_now > place.p_floor_seq THEN
                peer_mentions := count_mentions(
                    of_chat, place.p_user, place.p_floor_seq, mention_now, all_mention_now);
            END IF;
        END IF;
        RETURN NEXT;
        RETURN;
    END IF;

    -- Every function locks chats in the order of their ids, so that no two wait for each other.
    SELECT count(*), bool_or(NOT l.receipts), bool_or(l.slow_mode_s > 0) INTO held, silent, slow
      FROM (SELECT c.receipts, c.slow_mode_s
              FROM (SELECT i.* FROM unnest(in_chat, in_sender) AS i (chat_id, sender_id) ORDER BY i.chat_id) i
             CROSS JOIN LATERAL (SELECT FROM members m WHERE m.chat_id = i.chat_id AND m.user_id = i.sender_id
                                                         AND coalesce(m.left_ev, 0) = 0 OFFSET 0) me
             CROSS JOIN LATERAL (SELECT c.receipts, c.slow_mode_s FROM chats c
                                  WHERE c.chat_id = i.chat_id FOR NO KEY UPDATE) c) l;
    IF held < size THEN
        -- Whoever has joined since is not waited for, or two might wait for each other.
        SELECT coalesce(array_agg(l.idx), '{}'), bool_or(NOT l.receipts), bool_or(l.slow_mode_s > 0)
          INTO hits, silent, slow
          FROM (SELECT i.idx, c.receipts, c.slow_mode_s
                  FROM unnest(in_chat, in_sender) WITH ORDINALITY AS i (chat_id, sender_id, idx)
                 CROSS JOIN LATERAL (SELECT FROM members m
                                      WHERE m.chat_id = i.chat_id AND m.user_id = i.sender_id
                                        AND coalesce(m.left_ev, 0) = 0 OFFSET 0) me
                 CROSS JOIN LATERAL (SELECT c.receipts, c.slow_mode_s FROM chats c
                                      WHERE c.chat_id = i.chat_id FOR NO KEY UPDATE SKIP LOCKED) c) l;
    END IF;
    IF array_to_string(in_mentions, '') <> '' THEN
        mentioned := array_fill(NULL::text, ARRAY[size]);
        FOR n IN 1 .. size LOOP
            CONTINUE WHEN in_mentions[n] IS NULL OR n <> ALL (hits);
            whom := mentioned_members(in_chat[n], in_sender[n], in_mentions[n]);
            IF whom IS NOT NULL THEN
                mentioned[n] := array_to_string(whom, chr(31));
                mentioning := mentioning || in_chat[n];
                IF whom <> ARRAY[chr(1)] THEN
                    of_users := of_users || whom;
                    of_chats := of_chats || array_fill(in_chat[n], ARRAY[cardinality(whom)]);
                END IF;
            END IF;
        END LOOP;
    END IF;
    IF array_to_string(in_reply, '') <> '' THEN
        replied := array_fill(NULL::bigint, ARRAY[size]);
        quotes := array_fill(NULL::text, ARRAY[size]);
        FOR n IN 1 .. size LOOP
            CONTINUE WHEN in_reply[n] IS NULL OR n <> ALL (hits);
            SELECT q.* INTO answered
              FROM (SELECT m.first_seq FROM members m
                     WHERE m.chat_id = in_chat[n] AND m.user_id = in_sender[n] AND coalesce(m.left_ev, 0) = 0
                    OFFSET 0) me
             CROSS JOIN LATERAL message_by_id(in_chat[n], in_reply[n]) q
             WHERE q.seq >= me.first_seq;
            IF FOUND THEN
                replied[n] := answered.seq;
                quotes[n] := quote_json(answered);
            END IF;
        END LOOP;
    END IF;
    IF silent THEN
        -- Senders and mentioned users together, in order.
        PERFORM FROM (
                SELECT w.chat_id, w.user_id
                  FROM (SELECT i.chat_id, i.user_id COLLATE "C" AS user_id
                          FROM unnest(in_chat, in_sender) WITH ORDINALITY AS i (chat_id, user_id, idx)
                         WHERE hits IS NULL OR i.idx = ANY (hits)
                        UNION SELECT * FROM unnest(of_chats, of_users)) w
                 CROSS JOIN LATERAL (SELECT c.receipts FROM chats c WHERE c.chat_id = w.chat_id OFFSET 0) c
                 WHERE NOT c.receipts
                 ORDER BY w.chat_id, w.user_id) w
          CROSS JOIN LATERAL (SELECT FROM members m WHERE m.chat_id = w.chat_id AND m.user_id = w.user_id
                                 FOR NO KEY UPDATE) m;
    END IF;
    IF slow OR array_to_string(in_attachments, '') <> '' THEN
        -- In slow mode each message must see the one before it, and an attachment can be sent once. All locks are
        -- held by now.
        FOR n IN 1 .. size LOOP
            RETURN QUERY
            SELECT n::bigint, s.outcome, s.wait, s.kind, s.seq, s.ev, s.mentions, s.reply_to, s.attachments,
                   s.created_at, s.outbox_id, s.last_seq, s.last_ev, s.counted, s.recount_ev, s.room_name, s.rev, s.read_seq, s.unread,
                   s.unread_mentions, s.flags, s.peer_id, s.peer_rev, s.peer_read_seq, s.peer_unread,
                   s.peer_mentions, s.peer_flags
              FROM send_messages(
                   ARRAY[CASE WHEN hits IS NULL OR n = ANY (hits) THEN in_chat[n] END], in_sender[n:n],
                   in_message[n:n], in_key[n:n], in_digest[n:n], in_text[n:n], in_metadata[n:n],
                   in_mentions[n:n], in_reply[n:n], in_attachments[n:n]) s;
        END LOOP;
    ELSE
        instant := clock_timestamp();
        RETURN QUERY
        -- What is wide is read by its place where it is needed, and not carried from step to step.
        WITH judged AS (
            SELECT i.idx, i.chat_id, i.sender_id, c.tid, c.kind, c.last_seq, c.last_ev, c.last_counted,
                   greatest(instant, c.last_message_at) AS at, c.room_name, c.dead, c.last_dead_seq,
                   c.all_mention_seq, c.recount_ev, me.tid AS my_tid, me.silenced_until, me.rev, me.read_seq,
                   me.floor_seq, me.floor_counted, me.own_after, me.mention_seq, me.flags, old.seq AS old_seq,
                   judge_send(me.tid IS NOT NULL AND c.tid IS NOT NULL,
                              CASE WHEN old.seq IS NOT NULL
                                   THEN old.deleted_at IS NOT NULL
                                        OR old.content_digest IS NOT DISTINCT FROM in_digest[i.idx] END,
                              c.blocked, c.erased, me.role, c.admins_post, me.silenced_until,
                              mentioned[i.idx] = chr(1), c.member_count,
                              in_reply[i.idx] IS NOT NULL AND replied[i.idx] IS NULL, NULL, instant) AS outcome
              FROM unnest(in_chat, in_sender) WITH ORDINALITY AS i (chat_id, sender_id, idx)
              LEFT JOIN LATERAL (
                  SELECT m.ctid AS tid, m.role, m.silenced_until, m.rev, m.read_seq, m.floor_seq,
                         m.floor_counted, m.own_after, m.mention_seq,
                         member_flags(m.notify, m.archived, m.pinned) AS flags
                    FROM members m
                   WHERE m.chat_id = CASE WHEN hits IS NULL OR i.idx = ANY (hits) THEN i.chat_id END
                     AND m.user_id = i.sender_id AND coalesce(m.left_ev, 0) = 0 OFFSET 0) me ON true
              LEFT JOIN LATERAL (
                  SELECT c.ctid AS tid, c.kind, c.last_seq, c.last_ev, c.last_counted, c.last_message_at,
                         c.blocked, c.erased, c.admins_post, c.member_count, c.room_name, c.dead,
                         c.last_dead_seq, c.all_mention_seq, c.recount_ev
                    FROM chats c WHERE c.chat_id = CASE WHEN me.tid IS NOT NULL THEN i.chat_id END OFFSET 0) c
                   ON true
              LEFT JOIN LATERAL (
                  SELECT o.seq, o.deleted_at, o.content_digest
                    FROM message_by_id(CASE WHEN c.tid IS NOT NULL THEN i.chat_id END,
                                       CASE WHEN in_key[i.idx] IS NOT NULL THEN in_message[i.idx] END) o
                  ) old ON true
            OFFSET 0
        ), numbered AS MATERIALIZED (
            -- Of the messages that are created in a chat: n is the ordinal, sent the count, own the sender's. Those
            -- of a sender follow each other, so that one sort serves all three.
            SELECT j.*, row_number() OVER of_chat AS n, count(*) OVER of_chat AS sent,
                   count(*) OVER (PARTITION BY j.outcome = 'created', j.tid, j.my_tid) AS own
              FROM judged j
            WINDOW of_chat AS (PARTITION BY j.outcome = 'created', j.tid ORDER BY j.my_tid, j.idx
                               ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
        ), inserted AS (
            INSERT INTO messages AS m (chat_id, seq, message_id, ev, counted, sender_id, client_msg_id,
                                       content_digest, text, metadata, mentions, reply_seq, created_at)
            SELECT n.chat_id, n.last_seq + n.n, in_message[n.idx], n.last_ev + n.n, n.last_counted + n.n,
                   n.sender_id, in_key[n.idx], in_digest[n.idx], in_text[n.idx], in_metadata[n.idx],
                   string_to_array(mentioned[n.idx], chr(31)), replied[n.idx], n.at
              FROM numbered n WHERE n.outcome = 'created'
        ), bumped AS (
            -- One row a chat: that of the last message created there. The same below.
            UPDATE chats c
               SET last_seq = c.last_seq + n.sent, last_ev = c.last_ev + n.sent,
                   last_counted = c.last_counted + n.sent, last_message_at = n.at, active_at = n.at
              FROM (SELECT n.tid, n.sent, n.at FROM numbered n
                     WHERE n.outcome = 'created' AND n.n = n.sent OFFSET 0) n
             WHERE c.ctid = n.tid
        ), counted AS (
            -- Whoever had nothing to read and wrote all of this batch still has nothing to read. A sender's messages
            -- say the same, and the first of them writes it.
            UPDATE members m
               SET floor_seq = CASE WHEN o.alone THEN o.last_seq + o.own ELSE m.floor_seq END,
                   floor_counted = CASE WHEN o.alone THEN o.last_counted + o.own ELSE m.floor_counted END,
                   own_after = CASE WHEN o.alone THEN 0 ELSE m.own_after + o.own END,
                   rev = m.rev + 1, last_sent_at = NULL
              FROM (SELECT n.my_tid, n.own, n.last_seq, n.last_counted,
                           n.own = n.sent AND n.floor_counted = n.last_counted AS alone
                      FROM numbered n WHERE n.outcome = 'created' OFFSET 0) o
             WHERE m.ctid = o.my_tid
        ), noted AS (
            INSERT INTO outbox AS o (chats, of_chats, of_users)
            SELECT k.chats, of_chats || k.groups, of_users || k.senders
              FROM (SELECT array_agg(n.chat_id) FILTER (WHERE n.n = n.sent) AS chats,
                           array_agg(n.chat_id) FILTER (WHERE n.kind = 'group') AS groups,
                           array_agg(n.sender_id) FILTER (WHERE n.kind = 'group') AS senders
                      FROM numbered n WHERE n.outcome = 'created') k
             WHERE k.chats IS NOT NULL
            RETURNING o.outbox_id
        )
        SELECT n.idx, n.outcome, CASE n.outcome WHEN 'silenced' THEN n.silenced_until END,
               CASE n.kind WHEN 'direct' THEN 'direct' WHEN 'group' THEN 'group' END,
               CASE n.outcome WHEN 'created' THEN n.last_seq + n.n ELSE n.old_seq END,
               CASE n.outcome WHEN 'created' THEN n.last_ev + n.n END,
               string_to_array(mentioned[n.idx], chr(31)), quotes[n.idx]::json, NULL::json, n.at, (SELECT o.outbox_id FROM noted o),
               n.last_seq + n.sent, n.last_ev + n.sent, n.last_counted + n.sent, n.recount_ev,
               CASE WHEN n.tells THEN n.room_name END, n.rev + 1, n.read_seq,
               CASE WHEN n.tells THEN
                   n.last_counted + n.sent - n.floor_counted - n.own_after - n.own
                       - CASE WHEN n.last_dead_seq > n.floor_seq
                              THEN count_dead(n.chat_id, n.floor_seq, n.dead) ELSE 0 END END,
               CASE WHEN n.tells THEN
                   CASE WHEN greatest(n.mention_seq, n.all_mention_seq) > n.floor_seq
                        THEN count_mentions(n.chat_id, n.sender_id, n.floor_seq, n.mention_seq,
                                            n.all_mention_seq) ELSE 0 END END,
               n.flags, peer.*
          FROM (SELECT n.*,
                       n.outcome = 'created' AND (n.n = n.sent OR n.kind = 'group')
                           AND (mentioning IS NULL OR n.chat_id <> ALL (mentioning)) AS tells
                  FROM numbered n) n
          LEFT JOIN LATERAL (
              SELECT m.user_id::text, m.rev + (n.own < n.sent)::integer, m.read_seq,
                     n.last_counted + n.own - m.floor_counted - m.own_after
                         - CASE WHEN n.last_dead_seq > m.floor_seq
                                THEN count_dead(n.chat_id, m.floor_seq, n.dead) ELSE 0 END,
                     CASE WHEN greatest(m.mention_seq, n.all_mention_seq) > m.floor_seq
                          THEN count_mentions(n.chat_id, m.user_id, m.floor_seq, m.mention_seq,
                                              n.all_mention_seq) ELSE 0 END,
                     member_flags(m.notify, m.archived, m.pinned)
                FROM members m
               WHERE m.chat_id = CASE WHEN n.tells AND n.kind = 'direct' THEN n.chat_id END
                 AND m.user_id <> n.sender_id
               ORDER BY m.chat_id, m.user_id OFFSET 0) peer ON true;
        IF mentioning IS NOT NULL THEN
            -- Statements of their own: a sender may be mentioned in the same batch, and one statement changes a
            -- row once.
            UPDATE chats c SET all_mention_seq = e.seq, recount_ev = c.last_ev
              FROM (SELECT x.tid, max(g.seq) AS seq
                      FROM unnest(in_chat, in_message, mentioned) AS i (chat_id, message_id, mentioned)
                     CROSS JOIN LATERAL (SELECT c.ctid AS tid FROM chats c
                                          WHERE c.chat_id = i.chat_id OFFSET 0) x
                     CROSS JOIN LATERAL message_by_id(i.chat_id, i.message_id) g
                     WHERE i.mentioned = chr(1)
                     GROUP BY x.tid) e
             -- A retry's message is not above what its first attempt has set.
             WHERE c.ctid = e.tid AND e.seq > c.all_mention_seq;
            PERFORM note_mentions(g.chat_id, array_agg(g.seq ORDER BY g.seq))
               FROM unnest(in_chat, in_message, mentioned) AS i (chat_id, message_id, mentioned)
              CROSS JOIN LATERAL message_by_id(i.chat_id, i.message_id) g
              WHERE i.mentioned IS NOT NULL AND g.mentions IS NOT NULL
              GROUP BY g.chat_id ORDER BY g.chat_id;
        END IF;
    END IF;
END
$$;
