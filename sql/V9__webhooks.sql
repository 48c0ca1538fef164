-- Webhooks: the queue of events for the host application's server.

-- Ends an attempt. in_outcome: done (sent, or obsolete), retry, dead, none (nothing was tried). The lane then
-- waits for the chat's next event, or is deleted. The lane is locked before the next event is looked up: an
-- event that is added meanwhile is either seen, or finds no lane and makes one. The order of the look-up names
-- webhooks_waiting, which begins with the chat.
CREATE FUNCTION settle_webhook(
    in_chat uuid, in_turn bigint, in_webhook bigint, in_outcome text, in_pause interval, in_error text)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    ours boolean;
    next_due timestamptz;
BEGIN
    SELECT l.turn = in_turn INTO ours FROM webhook_lanes l WHERE l.chat_id = in_chat FOR UPDATE;
    -- A delivery counts even if the lease ran out and another replica holds the lane by now.
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

-- Queues dead letters as if they were new: one, or all (null), of these the next in_most after in_after, oldest
-- first. Returns how many, and the last number. It runs in steps, as sends to the chats concerned wait for the
-- end of a step.
CREATE FUNCTION replay_webhooks(in_event uuid, in_after bigint, in_most bigint)
RETURNS TABLE (replayed bigint, up_to bigint) LANGUAGE sql VOLATILE AS $$
    WITH chosen AS (
        SELECT w.webhook_id FROM webhooks w
         WHERE w.dead_at IS NOT NULL AND w.webhook_id > in_after
           AND (in_event IS NULL OR w.event_id = in_event)
         ORDER BY w.webhook_id LIMIT in_most
    ), again AS (
        UPDATE webhooks w
           SET dead_at = NULL, attempts = 0, last_error = NULL,
               begun_at = clock_timestamp(), due_at = clock_timestamp()
          FROM chosen c WHERE w.webhook_id = c.webhook_id AND w.dead_at IS NOT NULL
        RETURNING w.webhook_id, w.chat_id
    ), laned AS (
        -- The update changes nothing: it locks an existing lane, so that settle_webhook can't delete it.
        INSERT INTO webhook_lanes AS l (chat_id, due_at)
        SELECT DISTINCT a.chat_id, now() FROM again a ORDER BY a.chat_id
        ON CONFLICT (chat_id) DO UPDATE SET turn = l.turn
    )
    SELECT (SELECT count(*) FROM again), (SELECT max(c.webhook_id) FROM chosen c)
$$;

-- Deletes the events of messages in these chats; the caller holds their locks. Events of reports stay: they are
-- the host application's.
CREATE FUNCTION forget_webhooks(in_chats uuid[])
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    DELETE FROM webhooks w
     WHERE w.chat_id = ANY (in_chats) AND w.dead_at IS NULL AND w.kind = 'message.created';
    DELETE FROM webhooks w
     WHERE w.chat_id = ANY (in_chats) AND w.dead_at IS NOT NULL AND w.kind = 'message.created';
END
$$;
