-- Mutations of messages and read markers: edits, deletions, markers.

-- Edits a message. changed is false where it has this text already.
-- outcome: ok, chat_not_found, message_not_found, not_author, blocked, forbidden.
CREATE FUNCTION edit_message(in_chat uuid, in_message uuid, in_user text, in_text text)
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

-- Turns messages into tombstones, with revisions after after_ev, and corrects the unread counters. The caller
-- holds the chat's lock. The messages are looked up one by one: in one of its two plans, an array of numbers
-- would be a filter over the whole chat.
CREATE FUNCTION tombstone_messages(in_chat uuid, in_seqs bigint[], after_ev bigint)
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

-- Deletes one message; in_admin: regardless of its sender. changed is false where it is a tombstone already.
-- outcome: ok, chat_not_found, message_not_found, not_author.
CREATE FUNCTION delete_message(in_chat uuid, in_message uuid, in_user text, in_admin boolean)
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
        SELECT * INTO hit FROM tombstone_messages(in_chat, ARRAY[hit.seq], chat.last_ev);
        INSERT INTO outbox AS o (chats) VALUES (ARRAY[in_chat]) RETURNING o.outbox_id INTO noted;
    END IF;
    RETURN QUERY SELECT verdict, noted IS NOT NULL, noted,
                        (SELECT s::chat_state FROM chat_states(ARRAY[in_chat]) s), hit;
END
$$;

-- Writes a batch of edits, deletions and read markers: a row for each. kind: edit, delete, mark. A batch never
-- has two of one chat (the batch writer ensures it). outcome: ok, or the code of the error. changed_ev is null
-- where nothing changed, message is null for a mark.
--
-- The chats are locked first. Each later statement has a younger snapshot. Edits and deletions are rare and run
-- one by one; the marks run as a set.
--
-- The reader's total of unread messages is not summed here: with many chats that takes longer than all the
-- rest, and delays every mutation behind it. See store.sum_unread.
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
                   -- Count the shorter side: a reader who marks has usually read nearly all.
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
