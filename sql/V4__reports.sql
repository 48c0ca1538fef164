-- Messages that people have reported. A report keeps what it is about as it was at that moment, so
-- that neither an edit nor a deletion, of the message or of its room, takes it from the host
-- application. Erasing a person does: their words, or their name, leave every report.

CREATE TABLE reports (
    report_id   uuid PRIMARY KEY,
    chat_id     uuid NOT NULL,
    message_id  uuid NOT NULL,
    seq         bigint NOT NULL,
    -- Whose message it is.
    sender_id   text COLLATE "C" NOT NULL,
    -- Null: whoever reported it was erased.
    reporter_id text COLLATE "C",
    -- Why, in the reporter's words; gone with them.
    reason      text CHECK (char_length(reason) <= 1000),
    -- The message as it was when it was reported; '' and null once its sender was erased.
    text        text NOT NULL CHECK (char_length(text) <= 4000),
    metadata    json CHECK (octet_length(metadata::text) <= 4096),
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- One a message and reporter; also finds a reporter's own.
    UNIQUE (reporter_id, chat_id, message_id)
);
CREATE INDEX reports_by_time ON reports (created_at, report_id);
CREATE INDEX reports_by_sender ON reports (sender_id);

-- Reports a message, or finds that its reporter has done so. The chat's lock lets an erasure or a
-- deletion under way end first, so that no copy is made of what is gone.
-- outcome: created, found, chat_not_found, message_not_found.
CREATE FUNCTION report_message(
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
    SELECT * INTO hit FROM messages m WHERE m.chat_id = in_chat AND m.message_id = in_message;
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

-- As before, and with the person's words and name in reports. The rooms' locks are held by then: a
-- report is either seen here, or sees the mark.
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
    RETURN true;
END
$$;
