-- Attachments.

-- What becomes of an attachment: bytes are awaited; they are there, whole, and of the type that they claim; a scanner
-- has yet to judge them; it refused them.
CREATE TYPE attachment_state AS ENUM ('awaited', 'ready', 'scanning', 'blocked');

-- Files that were announced for a chat. The bytes lie in the store of attachments, under a key made of chat_id and
-- attachment_id.
CREATE TABLE attachments (
    chat_id       uuid NOT NULL,
    attachment_id uuid NOT NULL,
    -- Who announced it, uploads it, and alone may send it.
    owner_id      text COLLATE "C" NOT NULL,
    -- As the owner names it: no path, no control characters.
    name          text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 255),
    content_type  text NOT NULL CHECK (char_length(content_type) BETWEEN 1 AND 255),
    -- In bytes.
    size          bigint NOT NULL CHECK (size >= 1),
    state         attachment_state NOT NULL DEFAULT 'awaited',
    -- Of an image or a video, in pixels, and of audio or video; null: unknown, or none.
    width         integer,
    height        integer,
    duration_ms   bigint,
    -- A few characters that stand for the image until it is there; see blurha.sh.
    blurhash      text CHECK (char_length(blurhash) <= 64),
    -- A smaller image lies beside it.
    thumbnail     boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The message that it was sent with; null: it was not sent yet, and goes a day after it was made.
    seq           bigint,
    -- Until when a replica has it to itself, to check the bytes or to have them scanned; in the state scanning also
    -- when that is tried again. Null: nobody has it, and no scan is due.
    busy_until    timestamptz,
    -- When its bytes were found to be right; null: they were not yet.
    checked_at    timestamptz,
    -- The number of scans that failed.
    attempts      integer NOT NULL DEFAULT 0,
    PRIMARY KEY (chat_id, attachment_id)
);
-- What a scanner has yet to judge.
CREATE INDEX attachments_scanning ON attachments (busy_until) WHERE state = 'scanning';
-- What was never sent, oldest first.
CREATE INDEX attachments_unsent ON attachments (created_at) WHERE seq IS NULL;
-- A message's attachments, for its deletion.
CREATE INDEX attachments_by_seq ON attachments (chat_id, seq) WHERE seq IS NOT NULL;
-- What a user uploads in a day, and all of theirs, for an export and an erasure.
CREATE INDEX attachments_by_owner ON attachments (owner_id COLLATE "POSIX", created_at, attachment_id);

-- How many bytes a user has announced today. Deletions do not lower it.
CREATE TABLE attachment_days (
    user_id text COLLATE "C" PRIMARY KEY,
    -- Of UTC.
    day     date NOT NULL,
    bytes   bigint NOT NULL
) WITH (fillfactor = 90);

-- Uploads that a replica passes on to an object store in parts, so that any other may take the next part.
CREATE TABLE attachment_uploads (
    chat_id       uuid NOT NULL,
    attachment_id uuid NOT NULL,
    -- The store's name for the upload.
    upload_id     text NOT NULL,
    -- The store's names for the parts that it has, in order; all of one size.
    part_ids      text[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (chat_id, attachment_id)
);

-- Attachments whose row is gone and whose bytes are still to be deleted: durable, so that a crash or a store that is
-- away leaves nothing behind.
CREATE TABLE attachment_removals (
    chat_id       uuid NOT NULL,
    attachment_id uuid NOT NULL,
    -- When the bytes may be deleted; after a failure, tried again. Infinity: a report that is not decided keeps them.
    due_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The number of failed attempts.
    attempts      integer NOT NULL DEFAULT 0,
    -- When it was queued, or let go by a report.
    queued_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (chat_id, attachment_id)
);
CREATE INDEX attachment_removals_by_due ON attachment_removals (due_at);

-- An attachment as clients are given it.
CREATE FUNCTION attachment_json(a attachments) RETURNS json LANGUAGE sql IMMUTABLE AS $$
    SELECT json_build_object(
        'attachment_id', a.attachment_id, 'name', a.name, 'content_type', a.content_type, 'size', a.size,
        'width', a.width, 'height', a.height, 'duration_ms', a.duration_ms, 'blurhash', a.blurhash,
        'thumbnail', a.thumbnail, 'status', CASE WHEN a.state = 'awaited' THEN 'ready' ELSE a.state::text END)
$$;

-- The attachments of a message that is about to be written, in their order; null: not all of them are this sender's
-- own, there, and unsent. The caller holds the chat's lock.
CREATE FUNCTION sendable_attachments(in_chat uuid, in_sender text, in_ids uuid[]) RETURNS json
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    found json;
    count integer;
BEGIN
    SELECT json_agg(attachment_json(ROW(a.*)::attachments) ORDER BY i.n), count(*) INTO found, count
      FROM unnest(in_ids) WITH ORDINALITY AS i (attachment_id, n)
     CROSS JOIN LATERAL (SELECT * FROM attachments a
                          WHERE a.chat_id = in_chat AND a.attachment_id = i.attachment_id
                            AND a.owner_id = in_sender AND a.seq IS NULL AND a.state IN ('ready', 'scanning')
                            FOR NO KEY UPDATE) a;
    RETURN CASE WHEN count = cardinality(in_ids) THEN found END;
END
$$;

-- Notes which message attachments were sent with.
CREATE FUNCTION send_attachments(in_chat uuid, in_ids uuid[], in_seq bigint) RETURNS void
LANGUAGE sql VOLATILE AS $$
    UPDATE attachments a SET seq = in_seq
      FROM (SELECT x.tid FROM unnest(in_ids) AS i (attachment_id)
             CROSS JOIN LATERAL (SELECT a.ctid AS tid FROM attachments a
                                  WHERE a.chat_id = in_chat AND a.attachment_id = i.attachment_id OFFSET 0) x) u
     WHERE a.ctid = u.tid
$$;

-- Queues the removal of attachments' bytes. Those of a report that is not decided wait for it.
CREATE FUNCTION queue_removals(in_chat uuid, in_ids uuid[]) RETURNS void LANGUAGE sql VOLATILE AS $$
    INSERT INTO attachment_removals (chat_id, attachment_id, due_at)
    SELECT in_chat, i.attachment_id,
           CASE WHEN EXISTS (SELECT FROM report_attachments k
                              WHERE k.chat_id = in_chat AND k.attachment_id = i.attachment_id)
                THEN 'infinity' ELSE clock_timestamp() END
      FROM unnest(in_ids) AS i (attachment_id)
        ON CONFLICT DO NOTHING
$$;

-- Forgets the attachments of messages that are deleted, and queues the removal of their bytes.
CREATE FUNCTION drop_attachments(in_chat uuid, in_seqs bigint[]) RETURNS void LANGUAGE sql VOLATILE AS $$
    WITH dropped AS (
        DELETE FROM attachments a
         USING (SELECT x.tid FROM unnest(in_seqs) AS s (seq)
                 CROSS JOIN LATERAL (SELECT a.ctid AS tid FROM attachments a
                                      WHERE a.chat_id = in_chat AND a.seq = s.seq OFFSET 0) x) d
         WHERE a.ctid = d.tid
        RETURNING a.attachment_id
    )
    SELECT queue_removals(in_chat, array_agg(d.attachment_id)) FROM dropped d
$$;

-- Lets go of the bytes that waited for a report which is decided by now; returns how many wait no longer.
CREATE FUNCTION release_removals() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    released bigint;
BEGIN
    UPDATE attachment_removals r SET due_at = clock_timestamp(), queued_at = clock_timestamp()
     WHERE r.due_at = 'infinity'
       AND NOT EXISTS (SELECT FROM report_attachments k
                        WHERE k.chat_id = r.chat_id AND k.attachment_id = r.attachment_id);
    GET DIAGNOSTICS released = ROW_COUNT;
    RETURN released;
END
$$;

-- Announces an attachment: whoever may send in the chat may, as long as their day has bytes left. It locks neither
-- the chat nor the member: what changes meanwhile is judged again when the attachment is sent.
-- outcome: created, quota_exceeded, or as judge_send has it.
CREATE FUNCTION announce_attachment(
    in_chat uuid, in_user text, in_id uuid, in_name text, in_type text, in_size bigint, in_daily bigint)
RETURNS TABLE (outcome text, wait timestamptz) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    chat chats;
    me members;
    today date := (clock_timestamp() AT TIME ZONE 'UTC')::date;
BEGIN
    SELECT * INTO me FROM members m
     WHERE m.chat_id = in_chat AND m.user_id = in_user AND coalesce(m.left_ev, 0) = 0;
    IF FOUND THEN
        SELECT * INTO chat FROM chats c WHERE c.chat_id = in_chat;
    END IF;
    outcome := judge_send(chat.chat_id IS NOT NULL, NULL, chat.blocked, chat.erased, me.role, chat.admins_post,
                          me.silenced_until, false, chat.member_count, false, NULL, clock_timestamp());
    IF outcome = 'silenced' THEN
        wait := me.silenced_until;
    ELSIF outcome = 'created' THEN
        INSERT INTO attachment_days AS d (user_id, day, bytes)
        SELECT in_user, today, in_size WHERE in_size <= in_daily
            ON CONFLICT (user_id) DO UPDATE
               SET day = today, bytes = CASE WHEN d.day = today THEN d.bytes ELSE 0 END + in_size
             WHERE CASE WHEN d.day = today THEN d.bytes ELSE 0 END + in_size <= in_daily;
        IF FOUND THEN
            INSERT INTO attachments (chat_id, attachment_id, owner_id, name, content_type, size)
            VALUES (in_chat, in_id, in_user, in_name, in_type, in_size);
        ELSE
            outcome := 'quota_exceeded';
        END IF;
    END IF;
    RETURN NEXT;
END
$$;

-- Drops up to in_limit attachments that were announced a day ago and never sent; returns how many.
CREATE FUNCTION expire_attachments(in_limit bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    of_chat uuid;
    ids uuid[];
    dropped bigint := 0;
BEGIN
    FOR of_chat, ids IN
        WITH dropped AS (
            DELETE FROM attachments a WHERE a.ctid = ANY (ARRAY(
                SELECT a.ctid FROM attachments a
                 WHERE a.seq IS NULL AND a.created_at < clock_timestamp() - interval '24 hours'
                 ORDER BY a.created_at LIMIT in_limit FOR UPDATE SKIP LOCKED))
            RETURNING a.chat_id, a.attachment_id
        )
        SELECT d.chat_id, array_agg(d.attachment_id) FROM dropped d GROUP BY d.chat_id
    LOOP
        PERFORM queue_removals(of_chat, ids);
        dropped := dropped + cardinality(ids);
    END LOOP;
    RETURN dropped;
END
$$;

-- Drops up to in_limit attachments of a chat that is deleted; returns how many.
CREATE FUNCTION purge_attachments(in_chat uuid, in_limit bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    ids uuid[];
BEGIN
    WITH dropped AS (
        DELETE FROM attachments a WHERE a.ctid = ANY (ARRAY(
            SELECT a.ctid FROM attachments a WHERE a.chat_id = in_chat
             ORDER BY a.chat_id, a.attachment_id LIMIT in_limit))
        RETURNING a.attachment_id
    )
    SELECT array_agg(d.attachment_id) INTO ids FROM dropped d;
    PERFORM queue_removals(in_chat, ids);
    RETURN coalesce(cardinality(ids), 0);
END
$$;

-- Drops what a user who is erased has announced and not sent; what they have sent goes with its messages.
CREATE FUNCTION drop_unsent_attachments(in_user text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM queue_removals(a.chat_id, ARRAY[a.attachment_id]) FROM attachments a
      WHERE a.owner_id = in_user COLLATE "POSIX" AND a.seq IS NULL;
    DELETE FROM attachments a WHERE a.owner_id = in_user COLLATE "POSIX" AND a.seq IS NULL;
    DELETE FROM attachment_days d WHERE d.user_id = in_user;
END
$$;

-- Stores what a scanner said of an attachment. Where it was sent already, its message takes a revision, and all are
-- told; the bytes of a blocked one go. The lock of the chat comes first, as everywhere.
CREATE FUNCTION settle_scan(in_chat uuid, in_id uuid, in_state text)
RETURNS TABLE (ev bigint, outbox_id bigint) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    sent_seq bigint;
    ev_now bigint;
BEGIN
    PERFORM FROM chats c WHERE c.chat_id = in_chat FOR NO KEY UPDATE;
    UPDATE attachments a SET state = in_state::attachment_state, busy_until = NULL
     WHERE a.chat_id = in_chat AND a.attachment_id = in_id AND a.state = 'scanning'
    RETURNING a.seq INTO sent_seq;
    IF FOUND AND in_state = 'blocked' THEN
        PERFORM queue_removals(in_chat, ARRAY[in_id]);
    END IF;
    IF sent_seq IS NOT NULL THEN
        UPDATE chats c SET last_ev = c.last_ev + 1 WHERE c.chat_id = in_chat RETURNING c.last_ev INTO ev_now;
        UPDATE messages m
           SET ev = ev_now,
               attachments = (SELECT json_agg(CASE WHEN x.one ->> 'attachment_id' = in_id::text
                                                   THEN attachment_json(a) ELSE x.one END ORDER BY x.n)
                                FROM json_array_elements(m.attachments) WITH ORDINALITY AS x (one, n),
                                     (SELECT * FROM attachments a
                                       WHERE a.chat_id = in_chat AND a.attachment_id = in_id) a)
         WHERE m.chat_id = in_chat AND m.seq = sent_seq;
        RETURN QUERY
        INSERT INTO outbox AS o (chats) VALUES (ARRAY[in_chat]) RETURNING ev_now, o.outbox_id;
    END IF;
END
$$;
