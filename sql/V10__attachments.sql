-- Attachments.

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
                            AND a.owner_id = in_sender AND a.seq IS NULL AND a.state <> 'awaited'
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
    INSERT INTO attachment_removals (chat_id, attachment_id)
    SELECT in_chat, d.attachment_id FROM dropped d
        ON CONFLICT DO NOTHING
$$;
