-- Edits, deletions and read markers in batches, as sends are. Replicas of the release before this one
-- keep calling edit_message, delete_message and mark_read one at a time.
--
-- What locks a row writes to the log, and waits for its flush. So only a member's chat is locked: else
-- the time that a refusal takes would tell others that the room is there.

-- What the writer's connections are opened with, for this transaction: where something in between (a
-- PgBouncer) keeps it away. Asked for only there, as it costs 0.2 ms.
CREATE FUNCTION use_writer_settings() RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM set_config(s.name, s.value, true)
       FROM (VALUES ('plan_cache_mode', 'force_generic_plan'), ('enable_seqscan', 'off'),
                    ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'), ('jit', 'off'),
                    ('lock_timeout', '500ms')) AS s (name, value);
END
$$;

-- As in V2, but for what it locks, and this.
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
    IF current_setting('enable_hashjoin') = 'on' THEN
        PERFORM use_writer_settings();
    END IF;
    PERFORM FROM unnest(in_chat, in_sender) AS i (chat_id, sender_id)
       JOIN chats c ON c.chat_id = i.chat_id AND i.sender_id IN (c.user_lo, c.user_hi)
      ORDER BY c.chat_id FOR NO KEY UPDATE OF c;
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

-- A batch, in order; a row each. kind: edit, delete, mark. A batch never holds one chat twice (the writer
-- sees to it). outcome: ok, or the code of the error; changed_ev is null where nothing changed;
-- total_unread is a mark's, message is not.
--
-- The members' chats are locked first, in the order that everybody locks in. Each statement after that has a
-- younger snapshot. Edits and deletions are few and go one by one; the marks go as a set.
CREATE FUNCTION amend_chats(
    in_kind text[], in_chat uuid[], in_user text[], in_message uuid[], in_text text[],
    in_admin boolean[], in_up_to bigint[])
RETURNS TABLE (
    idx bigint, outcome text, changed_ev bigint, outbox_id bigint, total_unread bigint,
    state chat_state, message messages)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    IF current_setting('enable_hashjoin') = 'on' THEN
        PERFORM use_writer_settings();
    END IF;
    PERFORM FROM unnest(in_chat, in_user, in_admin) AS a (chat_id, user_id, admin)
       JOIN chats c ON c.chat_id = a.chat_id AND (a.admin OR a.user_id IN (c.user_lo, c.user_hi))
      ORDER BY c.chat_id FOR NO KEY UPDATE OF c;
    FOR i IN 1 .. cardinality(in_kind) LOOP
        CONTINUE WHEN in_kind[i] = 'mark';
        IF NOT in_admin[i] AND NOT EXISTS (
            SELECT FROM chats c WHERE c.chat_id = in_chat[i] AND in_user[i] IN (c.user_lo, c.user_hi))
        THEN
            RETURN QUERY SELECT i::bigint, 'chat_not_found', NULL::bigint, NULL::bigint, NULL::bigint,
                                NULL::chat_state, NULL::messages;
        ELSIF in_kind[i] = 'edit' THEN
            RETURN QUERY
            SELECT i::bigint, e.outcome, CASE WHEN e.changed THEN (e.message).ev END, e.outbox_id,
                   NULL::bigint, e.state, e.message
              FROM edit_message(in_chat[i], in_message[i], in_user[i], in_text[i]) e;
        ELSIF in_kind[i] = 'delete' THEN
            RETURN QUERY
            SELECT i::bigint, d.outcome, CASE WHEN d.changed THEN (d.message).ev END, d.outbox_id,
                   NULL::bigint, d.state, d.message
              FROM delete_message(in_chat[i], in_message[i], in_user[i], in_admin[i]) d;
        END IF;
    END LOOP;
    IF NOT 'mark' = ANY (in_kind) THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH judged AS (
        SELECT a.idx, a.user_id, c.chat_id, c.room_name, c.user_lo, c.user_hi, c.last_seq, c.last_ev,
               coalesce(c.last_message_at, c.created_at) AS activity,
               lo.read_seq AS lo_read, lo.unread AS lo_unread,
               hi.read_seq AS hi_read, hi.unread AS hi_unread,
               CASE a.user_id WHEN c.user_lo THEN lo.read_seq WHEN c.user_hi THEN hi.read_seq END AS had,
               CASE a.user_id WHEN c.user_lo THEN lo.unread ELSE hi.unread END AS unread,
               least(a.up_to, c.last_seq) AS target
          FROM unnest(in_kind, in_chat, in_user, in_up_to) WITH ORDINALITY
               AS a (kind, chat_id, user_id, up_to, idx)
          LEFT JOIN chats c ON c.chat_id = a.chat_id AND a.user_id IN (c.user_lo, c.user_hi)
          LEFT JOIN members lo ON lo.chat_id = c.chat_id AND lo.user_id = c.user_lo
          LEFT JOIN members hi ON hi.chat_id = c.chat_id AND hi.user_id = c.user_hi
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
          FROM counted k WHERE c.chat_id = k.chat_id AND k.moves
    ), marked AS (
        UPDATE members m
           SET read_seq = k.target, unread = k.unread - k.newly_read, ev = k.last_ev + 1
          FROM counted k WHERE m.chat_id = k.chat_id AND m.user_id = k.user_id AND k.moves
    ), noted AS (
        INSERT INTO outbox AS o (chats)
        SELECT array_agg(k.chat_id) FROM counted k WHERE k.moves HAVING count(*) > 0
        RETURNING o.outbox_id
    )
    SELECT k.idx, CASE WHEN k.had IS NULL THEN 'chat_not_found' ELSE 'ok' END,
           CASE WHEN k.moves THEN k.last_ev + 1 END,
           CASE WHEN k.moves THEN (SELECT o.outbox_id FROM noted o) END,
           -- The rows as they were, less what this batch reads of all the reader's rooms.
           ((SELECT sum(m.unread) FROM members m WHERE m.user_id = k.user_id)
             - sum(k.newly_read) OVER (PARTITION BY k.user_id))::bigint,
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
