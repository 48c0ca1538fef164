-- Reports.

-- Reports a message, or finds this reporter's earlier report. The chat's lock lets a concurrent erasure or
-- deletion finish first, so that nothing is copied that is gone.
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
    -- A retry finds its report even if the message is gone.
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
