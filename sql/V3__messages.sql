-- New messages.

-- Sets for this transaction what the writers' connections are opened with: a pooler such as PgBouncer may
-- have kept it away. Called only then, as it takes 0.2 ms.
CREATE FUNCTION use_writer_settings() RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM set_config(s.name, s.value, true)
       FROM (VALUES ('plan_cache_mode', 'force_generic_plan'), ('enable_seqscan', 'off'),
                    ('enable_bitmapscan', 'off'), ('enable_sort', 'off'), ('enable_hashjoin', 'off'),
                    ('enable_mergejoin', 'off'), ('jit', 'off'), ('lock_timeout', '500ms'))
            AS s (name, value);
END
$$;

-- A message by its id. The condition is a range of one id, with its order, which only messages_by_id has: an
-- equality has no order, and could be served by a filter over the whole chat.
CREATE FUNCTION message_by_id(in_chat uuid, in_message uuid) RETURNS SETOF messages
LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT * FROM messages m
     WHERE m.chat_id = in_chat AND m.message_id BETWEEN in_message AND in_message
     ORDER BY m.message_id LIMIT 1
$$;

-- Writes a batch of messages: a row for each, in order. A batch never has the same message_id twice (the batch
-- writer ensures it). outcome: created, replayed, or the code of the error. What the caller knows already is not
-- returned.
CREATE FUNCTION send_messages(
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
    -- Every function locks chats in the order of their ids, so that no two deadlock. The next statement's
    -- snapshot is younger than these locks: see the head of V2.
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
        -- Of the messages that are created in a chat: n is the ordinal, sent the count, by_lo how many
        -- of them user_lo sent.
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
        -- One row a chat: that of the last message created there. The same below.
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
