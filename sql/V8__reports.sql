-- Reports.

-- Reported messages. A report keeps a copy of its message, so that neither an edit nor a deletion, of the
-- message or of its chat, takes it from the host application. An erasure does: the erased user's words, or
-- name, leave every report.
CREATE TABLE reports (
    report_id   uuid PRIMARY KEY,
    chat_id     uuid NOT NULL,
    message_id  uuid NOT NULL,
    -- The message's number.
    seq         bigint NOT NULL,
    -- The message's sender.
    sender_id   text COLLATE "C" NOT NULL,
    -- Null: the reporter was erased.
    reporter_id text COLLATE "C",
    -- The reporter's reason, in their own words; erased with them.
    reason      text CHECK (char_length(reason) <= 1000),
    -- The message as it was when it was reported; '' and null once its sender was erased.
    text        message_text NOT NULL,
    metadata    small_json,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- One report a message and reporter; also serves the reports of one reporter.
    UNIQUE (reporter_id, chat_id, message_id)
);
CREATE INDEX reports_by_time ON reports (created_at, report_id);
CREATE INDEX reports_by_sender ON reports (sender_id);

-- The attachments of reported messages, whose bytes are kept until the report is decided.
CREATE TABLE report_attachments (
    chat_id       uuid NOT NULL,
    attachment_id uuid NOT NULL,
    report_id     uuid NOT NULL,
    -- As clients are given it.
    attachment    json NOT NULL,
    PRIMARY KEY (chat_id, attachment_id, report_id)
);
CREATE INDEX report_attachments_by_report ON report_attachments (report_id);

-- Reports a message, or finds this reporter's earlier report. The users' locks let a concurrent erasure finish
-- first, the chat's lock a deletion, so that nothing is copied that is gone. Users are locked before chats, as an
-- erasure does. outcome: created, found, chat_not_found, message_not_found.
CREATE FUNCTION report_message(
    in_chat uuid, in_message uuid, in_user text, in_report uuid, in_reason text)
RETURNS TABLE (outcome text, report reports)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    chat chats;
    mine members;
    hit messages;
    known reports;
BEGIN
    IF actor_role(in_chat, in_user, false) IS NOT NULL THEN
        SELECT * INTO hit FROM message_by_id(in_chat, in_message);
        PERFORM FROM users u WHERE u.user_id IN (in_user, hit.sender_id) ORDER BY u.user_id FOR SHARE;
        chat := lock_chat(in_chat, in_user, false);
    END IF;
    SELECT * INTO mine FROM members m
     WHERE m.chat_id = in_chat AND m.user_id = in_user AND coalesce(m.left_ev, 0) = 0;
    IF chat.chat_id IS NULL OR mine.chat_id IS NULL THEN
        RETURN QUERY SELECT 'chat_not_found', NULL::reports;
        RETURN;
    END IF;
    -- A retry finds its report even if the message is gone.
    SELECT * INTO known FROM reports r
     WHERE r.reporter_id = in_user AND r.chat_id = in_chat AND r.message_id = in_message;
    IF known.report_id IS NOT NULL THEN
        RETURN QUERY SELECT 'found', known;
        RETURN;
    END IF;
    SELECT * INTO hit FROM message_by_id(in_chat, in_message);
    IF hit.seq IS NULL OR hit.deleted_at IS NOT NULL OR hit.system IS NOT NULL OR hit.seq < mine.first_seq
       OR EXISTS (SELECT FROM users u WHERE u.user_id IN (in_user, hit.sender_id)
                                        AND u.erased_at IS NOT NULL) THEN
        RETURN QUERY SELECT 'message_not_found', NULL::reports;
        RETURN;
    END IF;
    INSERT INTO report_attachments (chat_id, attachment_id, report_id, attachment)
    SELECT in_chat, a.attachment_id, in_report, attachment_json(a)
      FROM attachments a WHERE a.chat_id = in_chat AND a.seq = hit.seq;
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

-- The attachments that are kept for a report; null: none. VOLATILE, so that the statement that makes a report sees
-- what it has just written.
CREATE FUNCTION reported_attachments(in_report uuid) RETURNS json LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN (SELECT json_agg(k.attachment ORDER BY k.attachment_id)
              FROM report_attachments k WHERE k.report_id = in_report);
END
$$;
