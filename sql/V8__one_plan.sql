-- No statement of the hot path has a second plan to choose. A connection plans a statement once, and on
-- tables that are empty or young as many plans cost the same: one that reads a whole index then stays.
-- Three rules, here and in src/store:
--  * A look into a table is a subquery that the planner can neither flatten nor turn round: LATERAL with
--    OFFSET 0 (or a lock, or a limit). Join order and method are then given.
--  * Its condition is the whole key of one index, or its beginning and its order (the connections of the
--    service do not sort where an index has the order), and no other index can serve it: see below.
--  * A set is updated by ctid, which the same statement, or one under the same lock, has looked up.

-- For looks by the user, which say COLLATE "POSIX". The order is that of "C", the planner takes neither for
-- the other: so no look by (chat_id, user_id) can use this index, and none by the user the primary key.
DROP INDEX members_by_user;
CREATE INDEX members_by_user ON members (user_id COLLATE "POSIX");

-- The conditions are always true: an index can only serve looks that ask for its own column. So a look by
-- (chat_id, seq) has the primary key only.
ALTER TABLE messages DROP CONSTRAINT messages_chat_id_message_id_key;
CREATE UNIQUE INDEX messages_by_id ON messages (chat_id, message_id) WHERE message_id IS NOT NULL;
DROP INDEX messages_by_ev;
CREATE INDEX messages_by_ev ON messages (chat_id, ev) WHERE ev IS NOT NULL;

-- A range of one id and its order, for which the primary key would have to be sorted: an equality would have
-- no order, and could be served by a filter over all of the chat.
CREATE FUNCTION message_by_id(in_chat uuid, in_message uuid) RETURNS SETOF messages
LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT * FROM messages m
     WHERE m.chat_id = in_chat AND m.message_id BETWEEN in_message AND in_message
     ORDER BY m.message_id LIMIT 1
$$;

CREATE OR REPLACE FUNCTION use_writer_settings() RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM set_config(s.name, s.value, true)
       FROM (VALUES ('plan_cache_mode', 'force_generic_plan'), ('enable_seqscan', 'off'),
                    ('enable_bitmapscan', 'off'), ('enable_sort', 'off'), ('enable_hashjoin', 'off'),
                    ('enable_mergejoin', 'off'), ('jit', 'off'), ('lock_timeout', '500ms'))
            AS s (name, value);
END
$$;

CREATE OR REPLACE FUNCTION chat_states(of_chats uuid[]) RETURNS SETOF chat_state LANGUAGE sql STABLE AS $$
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

-- As in V6.
CREATE OR REPLACE FUNCTION send_messages(
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
    IF current_setting('enable_sort') = 'on' THEN
        PERFORM use_writer_settings();
    END IF;
    -- In the order in which everybody locks.
    PERFORM FROM (SELECT i.chat_id, i.sender_id FROM unnest(in_chat, in_sender) AS i (chat_id, sender_id)
                   ORDER BY i.chat_id) i
      CROSS JOIN LATERAL (
          SELECT FROM chats c WHERE c.chat_id = i.chat_id AND i.sender_id IN (c.user_lo, c.user_hi)
             FOR NO KEY UPDATE) c;
    instant := clock_timestamp();
    RETURN QUERY
    WITH judged AS (
        SELECT i.*, c.tid, c.room_name, c.user_lo, c.user_hi, c.last_seq, c.last_ev, c.last_message_at,
               c.created_at AS opened_at,
               lo.tid AS lo_tid, lo.read_seq AS lo_read, lo.unread AS lo_unread,
               hi.tid AS hi_tid, hi.read_seq AS hi_read, hi.unread AS hi_unread,
               m.seq AS old_seq, m.ev AS old_ev, m.text AS old_text, m.metadata AS old_metadata,
               m.created_at AS old_created_at, m.edited_at AS old_edited_at,
               m.deleted_at AS old_deleted_at,
               CASE
                   WHEN c.tid IS NULL OR i.sender_id NOT IN (c.user_lo, c.user_hi)
                       THEN 'chat_not_found'
                   WHEN m.deleted_at IS NOT NULL OR m.content_digest = i.digest THEN 'replayed'
                   WHEN m.seq IS NOT NULL THEN 'idempotency_mismatch'
                   WHEN c.blocked THEN 'blocked'
                   WHEN c.erased THEN 'forbidden'
                   ELSE 'created'
               END AS outcome
          FROM unnest(in_chat, in_sender, in_message, in_key, in_digest, in_text, in_metadata)
               WITH ORDINALITY AS i (chat_id, sender_id, message_id, key, digest, text, metadata, idx)
          LEFT JOIN LATERAL (SELECT c.ctid AS tid, c.* FROM chats c
                              WHERE c.chat_id = i.chat_id OFFSET 0) c ON true
          LEFT JOIN LATERAL (SELECT m.ctid AS tid, m.read_seq, m.unread FROM members m
                              WHERE m.chat_id = i.chat_id AND m.user_id = c.user_lo OFFSET 0) lo ON true
          LEFT JOIN LATERAL (SELECT m.ctid AS tid, m.read_seq, m.unread FROM members m
                              WHERE m.chat_id = i.chat_id AND m.user_id = c.user_hi OFFSET 0) hi ON true
          LEFT JOIN LATERAL message_by_id(i.chat_id, CASE WHEN i.key IS NOT NULL THEN i.message_id END) m
               ON true
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
         WHERE c.ctid = n.tid AND n.outcome = 'created' AND n.n = n.sent
    ), counted AS (
        UPDATE members m SET unread = m.unread + u.more
          FROM numbered n
         CROSS JOIN LATERAL (VALUES (n.lo_tid, n.sent - n.by_lo), (n.hi_tid, n.by_lo)) AS u (tid, more)
         WHERE m.ctid = u.tid AND u.more > 0 AND n.outcome = 'created' AND n.n = n.sent
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

-- As in V2.
CREATE OR REPLACE FUNCTION edit_message(in_chat uuid, in_message uuid, in_user text, in_text text)
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
    SELECT * INTO hit FROM message_by_id(in_chat, in_message);
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

-- As in V2. Many messages are found one by one: their numbers as an array would be a filter over all of the
-- chat in one of two plans.
CREATE OR REPLACE FUNCTION bury_messages(in_chat uuid, in_seqs bigint[], after_ev bigint)
RETURNS SETOF messages LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    UPDATE members r SET unread = r.unread - u.count
      FROM (SELECT p.ctid AS tid,
                   (SELECT count(*) FROM unnest(in_seqs) AS s (seq)
                     CROSS JOIN LATERAL (
                         SELECT FROM messages m
                          WHERE m.chat_id = in_chat AND m.seq = s.seq AND m.deleted_at IS NULL
                            AND m.sender_id <> p.user_id AND m.seq > p.read_seq OFFSET 0) m) AS count
              FROM members p WHERE p.chat_id = in_chat OFFSET 0) u
     WHERE r.ctid = u.tid AND u.count > 0;
    UPDATE chats SET last_ev = after_ev + cardinality(in_seqs) WHERE chat_id = in_chat;
    RETURN QUERY
    UPDATE messages m SET text = '', metadata = NULL, content_digest = NULL, ev = after_ev + n.n,
                          deleted_at = greatest(clock_timestamp(), m.created_at)
      FROM (SELECT s.n, x.tid FROM unnest(in_seqs) WITH ORDINALITY AS s (seq, n)
             CROSS JOIN LATERAL (SELECT m.ctid AS tid FROM messages m
                                  WHERE m.chat_id = in_chat AND m.seq = s.seq OFFSET 0) x) n
     WHERE m.ctid = n.tid
    RETURNING m.*;
END
$$;

-- As in V2.
CREATE OR REPLACE FUNCTION delete_message(in_chat uuid, in_message uuid, in_user text, in_admin boolean)
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
    SELECT * INTO hit FROM message_by_id(in_chat, in_message);
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

-- A batch of edits, deletions and read markers, in order; a row each. kind: edit, delete, mark. A batch never
-- holds one chat twice (the writer sees to it). outcome: ok, or the code of the error; changed_ev is null
-- where nothing changed; a mark has no message.
--
-- What a reader has not read in all rooms is not summed up here: with many rooms it takes longer than all
-- else, and others would wait for it in the only lane. See store.sum_unread.
--
-- The members' chats are locked first, in the order that everybody locks in. Each statement after that has a
-- younger snapshot. Edits and deletions are few and go one by one; the marks go as a set.
CREATE FUNCTION mutate_chats(
    in_kind text[], in_chat uuid[], in_user text[], in_message uuid[], in_text text[],
    in_admin boolean[], in_up_to bigint[])
RETURNS TABLE (
    idx bigint, outcome text, changed_ev bigint, outbox_id bigint, state chat_state, message messages)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    IF current_setting('enable_sort') = 'on' THEN
        PERFORM use_writer_settings();
    END IF;
    PERFORM FROM (SELECT a.chat_id, a.user_id, a.admin
                    FROM unnest(in_chat, in_user, in_admin) AS a (chat_id, user_id, admin)
                   ORDER BY a.chat_id) a
      CROSS JOIN LATERAL (
          SELECT FROM chats c
           WHERE c.chat_id = a.chat_id AND (a.admin OR a.user_id IN (c.user_lo, c.user_hi))
             FOR NO KEY UPDATE) c;
    FOR i IN 1 .. cardinality(in_kind) LOOP
        CONTINUE WHEN in_kind[i] = 'mark';
        IF NOT in_admin[i] AND NOT EXISTS (
            SELECT FROM chats c WHERE c.chat_id = in_chat[i] AND in_user[i] IN (c.user_lo, c.user_hi))
        THEN
            RETURN QUERY SELECT i::bigint, 'chat_not_found', NULL::bigint, NULL::bigint,
                                NULL::chat_state, NULL::messages;
        ELSIF in_kind[i] = 'edit' THEN
            RETURN QUERY
            SELECT i::bigint, e.outcome, CASE WHEN e.changed THEN (e.message).ev END, e.outbox_id,
                   e.state, e.message
              FROM edit_message(in_chat[i], in_message[i], in_user[i], in_text[i]) e;
        ELSIF in_kind[i] = 'delete' THEN
            RETURN QUERY
            SELECT i::bigint, d.outcome, CASE WHEN d.changed THEN (d.message).ev END, d.outbox_id,
                   d.state, d.message
              FROM delete_message(in_chat[i], in_message[i], in_user[i], in_admin[i]) d;
        END IF;
    END LOOP;
    IF NOT 'mark' = ANY (in_kind) THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH judged AS (
        SELECT a.idx, a.user_id, c.tid, c.chat_id, c.room_name, c.user_lo, c.user_hi, c.last_seq, c.last_ev,
               coalesce(c.last_message_at, c.created_at) AS activity,
               lo.read_seq AS lo_read, lo.unread AS lo_unread,
               hi.read_seq AS hi_read, hi.unread AS hi_unread,
               CASE a.user_id WHEN c.user_lo THEN lo.tid WHEN c.user_hi THEN hi.tid END AS my_tid,
               CASE a.user_id WHEN c.user_lo THEN lo.read_seq WHEN c.user_hi THEN hi.read_seq END AS had,
               CASE a.user_id WHEN c.user_lo THEN lo.unread ELSE hi.unread END AS unread,
               least(a.up_to, c.last_seq) AS target
          FROM unnest(in_kind, in_chat, in_user, in_up_to) WITH ORDINALITY
               AS a (kind, chat_id, user_id, up_to, idx)
          LEFT JOIN LATERAL (SELECT c.ctid AS tid, c.* FROM chats c
                              WHERE c.chat_id = a.chat_id AND a.user_id IN (c.user_lo, c.user_hi)
                             OFFSET 0) c ON true
          LEFT JOIN LATERAL (SELECT m.ctid AS tid, m.read_seq, m.unread FROM members m
                              WHERE m.chat_id = a.chat_id AND m.user_id = c.user_lo OFFSET 0) lo ON true
          LEFT JOIN LATERAL (SELECT m.ctid AS tid, m.read_seq, m.unread FROM members m
                              WHERE m.chat_id = a.chat_id AND m.user_id = c.user_hi OFFSET 0) hi ON true
         WHERE a.kind = 'mark'
    ), counted AS MATERIALIZED (
        SELECT j.*, j.had IS NOT NULL AND j.target > j.had AS moves,
               CASE
                   WHEN j.had IS NULL OR j.target <= j.had THEN 0
                   -- The shorter side is counted: whoever marks has mostly read nearly all.
                   WHEN j.last_seq - j.target < j.target - j.had
                       THEN j.unread - (SELECT count(*) FROM messages m
                                         WHERE m.chat_id = j.chat_id AND m.seq > j.target
                                           AND m.sender_id <> j.user_id AND m.deleted_at IS NULL)
                   ELSE (SELECT count(*) FROM messages m
                          WHERE m.chat_id = j.chat_id AND m.seq > j.had AND m.seq <= j.target
                            AND m.sender_id <> j.user_id AND m.deleted_at IS NULL)
               END AS newly_read
          FROM judged j
    ), bumped AS (
        UPDATE chats c SET last_ev = k.last_ev + 1
          FROM counted k WHERE c.ctid = k.tid AND k.moves
    ), marked AS (
        UPDATE members m
           SET read_seq = k.target, unread = k.unread - k.newly_read, ev = k.last_ev + 1
          FROM counted k WHERE m.ctid = k.my_tid AND k.moves
    ), noted AS (
        INSERT INTO outbox AS o (chats)
        SELECT array_agg(k.chat_id) FROM counted k WHERE k.moves HAVING count(*) > 0
        RETURNING o.outbox_id
    )
    SELECT k.idx, CASE WHEN k.had IS NULL THEN 'chat_not_found' ELSE 'ok' END,
           CASE WHEN k.moves THEN k.last_ev + 1 END,
           CASE WHEN k.moves THEN (SELECT o.outbox_id FROM noted o) END,
           ROW(k.chat_id, k.room_name, k.user_lo, k.user_hi, k.last_seq,
               k.last_ev + k.moves::integer, k.activity,
               CASE k.user_id WHEN k.user_lo THEN greatest(k.target, k.lo_read) ELSE k.lo_read END,
               k.lo_unread - CASE k.user_id WHEN k.user_lo THEN k.newly_read ELSE 0 END,
               CASE k.user_id WHEN k.user_hi THEN greatest(k.target, k.hi_read) ELSE k.hi_read END,
               k.hi_unread - CASE k.user_id WHEN k.user_hi THEN k.newly_read ELSE 0 END)::chat_state,
           NULL::messages
      FROM counted k;
END
$$;

-- For replicas of the release before: with the sum, after the batch.
CREATE OR REPLACE FUNCTION amend_chats(
    in_kind text[], in_chat uuid[], in_user text[], in_message uuid[], in_text text[],
    in_admin boolean[], in_up_to bigint[])
RETURNS TABLE (
    idx bigint, outcome text, changed_ev bigint, outbox_id bigint, total_unread bigint,
    state chat_state, message messages)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT c.* FROM mutate_chats(in_kind, in_chat, in_user, in_message, in_text, in_admin, in_up_to) c
    LOOP
        RETURN QUERY
        SELECT one.idx, one.outcome, one.changed_ev, one.outbox_id,
               CASE in_kind[one.idx] WHEN 'mark' THEN
                   (SELECT sum(m.unread)::bigint FROM members m
                     WHERE m.user_id = in_user[one.idx] COLLATE "POSIX") END,
               one.state, one.message;
    END LOOP;
END
$$;

-- As in V2, for replicas of releases before.
CREATE OR REPLACE FUNCTION mark_read(in_chat uuid, in_user text, in_up_to bigint)
RETURNS TABLE (outcome text, moved_ev bigint, outbox_id bigint, state chat_state, total_unread bigint)
LANGUAGE sql VOLATILE AS $$
    SELECT a.outcome, a.changed_ev, a.outbox_id, a.state, a.total_unread
      FROM amend_chats(ARRAY['mark'], ARRAY[in_chat], ARRAY[in_user], ARRAY[NULL]::uuid[],
                       ARRAY[NULL]::text[], ARRAY[false], ARRAY[in_up_to]) a
$$;

-- As in V4.
CREATE OR REPLACE FUNCTION report_message(
    in_chat uuid, in_message uuid, in_user text, in_report uuid, in_reason text)
RETURNS TABLE (outcome text, report reports)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    chat chats;
    hit messages;
    known reports;
BEGIN
    SELECT * INTO chat FROM chats c WHERE c.chat_id = in_chat FOR NO KEY UPDATE;
    IF chat.chat_id IS NULL OR in_user NOT IN (chat.user_lo, chat.user_hi) THEN
        RETURN QUERY SELECT 'chat_not_found', NULL::reports;
        RETURN;
    END IF;
    -- A retry finds its report whatever has become of the message.
    SELECT * INTO known FROM reports r
     WHERE r.reporter_id = in_user AND r.chat_id = in_chat AND r.message_id = in_message;
    IF known.report_id IS NOT NULL THEN
        RETURN QUERY SELECT 'found', known;
        RETURN;
    END IF;
    SELECT * INTO hit FROM message_by_id(in_chat, in_message);
    IF hit.seq IS NULL OR hit.deleted_at IS NOT NULL
       OR EXISTS (SELECT FROM users u WHERE u.user_id IN (in_user, hit.sender_id)
                                        AND u.erased_at IS NOT NULL) THEN
        RETURN QUERY SELECT 'message_not_found', NULL::reports;
        RETURN;
    END IF;
    RETURN QUERY
    WITH made AS (
        INSERT INTO reports AS r (report_id, chat_id, message_id, seq, sender_id, reporter_id,
                                  reason, text, metadata)
        VALUES (in_report, in_chat, in_message, hit.seq, hit.sender_id, in_user,
                in_reason, hit.text, hit.metadata)
        RETURNING r
    )
    SELECT 'created', made.r FROM made;
END
$$;

-- As in V2.
CREATE OR REPLACE FUNCTION purge_messages(in_chat uuid, in_limit bigint)
RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    up_to bigint;
    deleted bigint;
BEGIN
    -- One at a time: two that delete the same rows would each think the other's work the end.
    PERFORM FROM purges p WHERE p.chat_id = in_chat FOR UPDATE;
    IF NOT FOUND THEN
        RETURN true;
    END IF;
    SELECT max(n.seq) INTO up_to FROM (
        SELECT m.seq FROM messages m WHERE m.chat_id = in_chat ORDER BY m.seq LIMIT in_limit) n;
    DELETE FROM messages m WHERE m.chat_id = in_chat AND m.seq <= up_to;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    IF deleted < in_limit THEN
        DELETE FROM purges p WHERE p.chat_id = in_chat;
    END IF;
    RETURN deleted < in_limit;
END
$$;

-- As in V2.
CREATE OR REPLACE FUNCTION mark_rooms_erased(of_users text[])
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    of_chats uuid[] := ARRAY(
        SELECT DISTINCT m.chat_id FROM members m WHERE m.user_id = ANY (of_users COLLATE "POSIX"));
BEGIN
    PERFORM FROM chats c WHERE c.chat_id = ANY (of_chats) ORDER BY c.chat_id FOR NO KEY UPDATE;
    UPDATE chats c SET erased = NOT c.erased
     WHERE c.chat_id = ANY (of_chats)
       AND c.erased <> EXISTS (SELECT FROM users u WHERE u.user_id IN (c.user_lo, c.user_hi)
                                  AND u.erased_at IS NOT NULL);
END
$$;

-- As in V5.
CREATE OR REPLACE FUNCTION mark_erased(in_user text)
RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    UPDATE users SET erased_at = coalesce(erased_at, clock_timestamp()), name = NULL,
                     avatar_url = NULL, last_seen_at = NULL
     WHERE user_id = in_user;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM mark_rooms_erased(ARRAY[in_user]);
    UPDATE reports SET text = '', metadata = NULL WHERE sender_id = in_user;
    UPDATE reports SET reporter_id = NULL, reason = NULL WHERE reporter_id = in_user;
    PERFORM forget_webhooks(
        ARRAY(SELECT m.chat_id FROM members m WHERE m.user_id = in_user COLLATE "POSIX"));
    RETURN true;
END
$$;

-- As in V5. The order names the index, which begins with the chat: by its number alone an event could be
-- looked for among those of all chats.
CREATE OR REPLACE FUNCTION settle_webhook(
    in_chat uuid, in_turn bigint, in_webhook bigint, in_outcome text, in_pause interval, in_error text)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    ours boolean;
    next_due timestamptz;
BEGIN
    SELECT l.turn = in_turn INTO ours FROM webhook_lanes l WHERE l.chat_id = in_chat FOR UPDATE;
    -- What was sent is sent, even if it took so long that another one has the lane by now.
    IF in_outcome = 'done' THEN
        DELETE FROM webhooks w WHERE w.webhook_id = in_webhook;
    ELSIF in_outcome <> 'none' AND ours THEN
        UPDATE webhooks w
           SET attempts = w.attempts + 1, last_error = in_error,
               due_at = clock_timestamp() + in_pause,
               dead_at = CASE in_outcome WHEN 'dead' THEN clock_timestamp() END
         WHERE w.webhook_id = in_webhook;
    END IF;
    IF ours THEN
        SELECT w.due_at INTO next_due FROM webhooks w
         WHERE w.chat_id BETWEEN in_chat AND in_chat AND w.dead_at IS NULL
         ORDER BY w.chat_id, w.webhook_id LIMIT 1;
        IF FOUND THEN
            UPDATE webhook_lanes l SET due_at = next_due WHERE l.chat_id = in_chat;
        ELSE
            DELETE FROM webhook_lanes l WHERE l.chat_id = in_chat;
        END IF;
    END IF;
END
$$;

-- As in V7.
CREATE OR REPLACE FUNCTION name_users(
    in_users text[], in_names text[], in_avatar_urls text[], in_revive boolean)
RETURNS TABLE (outcome text) LANGUAGE plpgsql VOLATILE AS $$
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
      FROM (SELECT x.tid, n.name, n.avatar_url
              FROM unnest(in_users, in_names, in_avatar_urls) AS n (user_id, name, avatar_url)
             CROSS JOIN LATERAL (SELECT u.ctid AS tid FROM users u
                                  WHERE u.user_id = n.user_id OFFSET 0) x) n
     WHERE u.ctid = n.tid AND (in_revive OR u.erased_at IS NULL);
    IF in_revive AND were_erased IS NOT NULL THEN
        PERFORM mark_rooms_erased(were_erased);
    END IF;
    RETURN QUERY
    SELECT CASE WHEN n.user_id = ANY (were_erased) AND NOT in_revive THEN 'erased'
                WHEN n.user_id = ANY (known) THEN 'updated'
                ELSE 'created' END
      FROM unnest(in_users) WITH ORDINALITY AS n (user_id, idx) ORDER BY n.idx;
END
$$;
