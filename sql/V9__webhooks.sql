-- Webhooks: the queue of events for the host application's server.

-- Events for the host application's server. Written only where a webhook URL is configured. A row has ids
-- only: the content is read when the event is sent, so that no copy outlives a deletion.
CREATE TABLE webhooks (
    -- The order within a chat, as the number is given under the chat's lock.
    webhook_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The receiver's idempotency key: the same however often the event is sent.
    event_id     uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    kind         text NOT NULL CHECK (kind IN ('message.created', 'report.created')),
    chat_id      uuid NOT NULL,
    -- The recipient and the number of a message.created's message. One row is for all members of a group: they are
    -- told in the order of their ids, and recipient_id is who is tried again.
    recipient_id text COLLATE "C",
    seq          bigint,
    -- Of a row for all members: everybody up to this id is done; '' at first. Null: it is for recipient_id only.
    after_id     text COLLATE "C",
    -- The report of a report.created.
    report_id    uuid,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When the event may be sent; after a failure, sent again.
    due_at       timestamptz NOT NULL,
    -- The start of the attempts; a replay sets it anew.
    begun_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The number of failed attempts.
    attempts     integer NOT NULL DEFAULT 0,
    -- Why the last attempt failed.
    last_error   text CHECK (char_length(last_error) <= 200),
    -- When the event became a dead letter, which holds up no other event; null: it waits.
    dead_at      timestamptz,
    CHECK (CASE kind WHEN 'message.created' THEN coalesce(recipient_id, after_id) IS NOT NULL AND seq IS NOT NULL
                     ELSE report_id IS NOT NULL END)
) WITH (fillfactor = 70);
CREATE INDEX webhooks_waiting ON webhooks (chat_id, webhook_id) WHERE dead_at IS NULL;
CREATE INDEX webhooks_dead ON webhooks (chat_id, webhook_id) WHERE dead_at IS NOT NULL;

-- Chats with waiting events. The replica that holds a chat's lane sends its first event, so that one event
-- of a chat is sent at a time, in order, from any replica.
CREATE TABLE webhook_lanes (
    chat_id uuid PRIMARY KEY,
    -- When the first event is due. Taking the lane postpones this by the lease, so that a replica that dies
    -- strands nothing.
    due_at  timestamptz NOT NULL,
    -- Counts how often the lane was taken: a replica whose lease ran out finds another number.
    turn    bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 70);
CREATE INDEX webhook_lanes_by_due ON webhook_lanes (due_at);

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
            -- Behind the lanes that wait already: a chat with much to send gives way after each turn.
            UPDATE webhook_lanes l SET due_at = greatest(next_due, clock_timestamp()) WHERE l.chat_id = in_chat;
        ELSE
            DELETE FROM webhook_lanes l WHERE l.chat_id = in_chat;
        END IF;
    END IF;
END
$$;

-- Moves on with a message of a group, which one row tells to all members. in_outcome: next (everybody up to
-- in_after is done), retry (in_recipient is tried again after in_pause; everybody up to in_after, who come before,
-- is done), dead (in_recipient, who is in_after as well, gets a dead letter with the id in_event). The lane is kept
-- for in_lease more, but after a retry. False: the turn is another replica's by now, or the event is gone.
CREATE FUNCTION advance_webhook(
    in_chat uuid, in_turn bigint, in_webhook bigint, in_outcome text, in_after text, in_recipient text,
    in_event uuid, in_pause interval, in_error text, in_lease interval)
RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    ours boolean;
BEGIN
    SELECT l.turn = in_turn INTO ours FROM webhook_lanes l WHERE l.chat_id = in_chat FOR UPDATE;
    IF ours IS NOT TRUE THEN
        -- Deliveries count even if the lease ran out: every replica takes the members in the same order.
        IF in_outcome = 'next' THEN
            UPDATE webhooks w SET after_id = in_after, recipient_id = NULL, attempts = 0, last_error = NULL
             WHERE w.webhook_id = in_webhook AND w.after_id < in_after;
        END IF;
        RETURN false;
    END IF;
    IF in_outcome = 'retry' THEN
        UPDATE webhooks w
           SET after_id = in_after, recipient_id = in_recipient, last_error = in_error,
               attempts = CASE WHEN w.recipient_id = in_recipient THEN w.attempts ELSE 0 END + 1,
               due_at = clock_timestamp() + in_pause
         WHERE w.webhook_id = in_webhook;
        PERFORM settle_webhook(in_chat, in_turn, NULL, 'none', NULL, NULL);
        RETURN true;
    END IF;
    IF in_outcome = 'dead' THEN
        -- Locked, so that forget_webhooks finds either nothing or both rows.
        INSERT INTO webhooks (event_id, kind, chat_id, recipient_id, seq, created_at, due_at, begun_at, attempts,
                              last_error, dead_at)
        SELECT in_event, w.kind, w.chat_id, in_recipient, w.seq, w.created_at, w.due_at, w.begun_at,
               CASE WHEN w.recipient_id = in_recipient THEN w.attempts ELSE 0 END + 1, in_error, clock_timestamp()
          FROM webhooks w WHERE w.webhook_id = in_webhook FOR UPDATE
            ON CONFLICT (event_id) DO NOTHING;
    END IF;
    UPDATE webhook_lanes l SET due_at = clock_timestamp() + in_lease WHERE l.chat_id = in_chat;
    UPDATE webhooks w SET after_id = in_after, recipient_id = NULL, attempts = 0, last_error = NULL
     WHERE w.webhook_id = in_webhook;
    RETURN FOUND;
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

-- Deletes the events of an erased user: those of messages in their direct chats, and in groups, also those that they
-- have left, what is for them alone. A row for all members passes them over.
CREATE FUNCTION forget_webhooks_of(in_user text)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    of_chats uuid[] := ARRAY(
        SELECT m.chat_id FROM members m WHERE m.user_id = in_user COLLATE "POSIX" AND m.left_ev IS NULL
        UNION ALL
        SELECT m.chat_id FROM members m WHERE m.user_id = in_user COLLATE "POSIX" AND m.left_ev IS NOT NULL);
BEGIN
    PERFORM forget_webhooks(ARRAY(
        SELECT c.chat_id FROM unnest(of_chats) AS o (chat_id)
         CROSS JOIN LATERAL (SELECT c.chat_id, c.kind FROM chats c WHERE c.chat_id = o.chat_id OFFSET 0) c
         WHERE c.kind = 'direct'));
    DELETE FROM webhooks w
     WHERE w.chat_id = ANY (of_chats) AND w.dead_at IS NULL AND w.recipient_id = in_user AND w.after_id IS NULL;
    DELETE FROM webhooks w
     WHERE w.chat_id = ANY (of_chats) AND w.dead_at IS NOT NULL AND w.recipient_id = in_user;
END
$$;
