-- Edits, deletions and read markers in batches, as sends are. Replicas of the release before this one
-- keep calling edit_message, delete_message and mark_read one at a time.

-- A batch, in order; a row each. kind: edit, delete, mark. A batch never holds one chat twice (the writer
-- sees to it). outcome: ok, or the code of the error; changed_ev is null where nothing changed;
-- total_unread is a mark's, message is not.
--
-- The chats are locked first, in the order that everybody locks in. Each statement after that has a
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
    -- As in send_messages: where something keeps the connection's own settings away.
    IF current_setting('enable_hashjoin') = 'on' THEN
        PERFORM set_config(s.name, s.value, true)
           FROM (VALUES ('plan_cache_mode', 'force_generic_plan'), ('enable_seqscan', 'off'),
                        ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'), ('jit', 'off'),
                        ('lock_timeout', '500ms')) AS s (name, value);
    END IF;
    PERFORM FROM chats c WHERE c.chat_id = ANY (in_chat) ORDER BY c.chat_id FOR NO KEY UPDATE;
    FOR i IN 1 .. cardinality(in_kind) LOOP
        IF in_kind[i] = 'edit' THEN
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
          LEFT JOIN chats c ON c.chat_id = a.chat_id
          LEFT JOIN members lo ON lo.chat_id = c.chat_id AND lo.user_id = c.user_lo
          LEFT JOIN members hi ON hi.chat_id = c.chat_id AND hi.user_id = c.user_hi
         WHERE a.kind = 'mark'
    ), counted AS MATERIALIZED (
        SELECT j.*, j.had IS NOT NULL AND j.target > j.had AS moves,
               CASE
                   WHEN j.had IS NULL OR j.target <= j.had THEN 0
                   WHEN j.target = j.last_seq THEN j.unread
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
