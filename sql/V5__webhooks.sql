-- Events for the host application's own server, which asked for them (BESEDA_WEBHOOK_URL). Nobody
-- writes here otherwise; replicas of the release before this one never do.

-- What happened, by ids only: what is sent is read when it is sent, so that no content outlives its
-- deletion here.
CREATE TABLE webhooks (
    -- The order within a chat: given under the chat's lock.
    webhook_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- What the receiver knows it by, however often it is sent.
    event_id     uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    kind         text NOT NULL CHECK (kind IN ('message.created', 'report.created')),
    chat_id      uuid NOT NULL,
    -- Of message.created: for whom, and which message.
    recipient_id text COLLATE "C",
    seq          bigint,
    -- Of report.created.
    report_id    uuid,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When it may be sent; after a failure, again.
    due_at       timestamptz NOT NULL,
    -- Since when it is tried; a replay begins anew.
    begun_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts     integer NOT NULL DEFAULT 0,
    -- Of the last attempt, in a few words.
    last_error   text CHECK (char_length(last_error) <= 200),
    -- Set: a dead letter, which holds nobody up.
    dead_at      timestamptz,
    CHECK (CASE kind WHEN 'message.created' THEN recipient_id IS NOT NULL AND seq IS NOT NULL
                     ELSE report_id IS NOT NULL END)
);
CREATE INDEX webhooks_waiting ON webhooks (chat_id, webhook_id) WHERE dead_at IS NULL;
CREATE INDEX webhooks_dead ON webhooks (chat_id, webhook_id) WHERE dead_at IS NOT NULL;

-- A chat that has events waiting: whoever holds its lane sends the first of them. So one at a time is
-- on its way, in order, whichever replica sends it.
CREATE TABLE webhook_lanes (
    chat_id uuid PRIMARY KEY,
    -- When its first event is due. Whoever takes the lane pushes it on for as long as an attempt may
    -- last, so that a dead replica strands none.
    due_at  timestamptz NOT NULL,
    -- Counts the times it was taken: whoever took too long finds another number, and has lost it.
    turn    bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 70);
CREATE INDEX webhook_lanes_by_due ON webhook_lanes (due_at);

-- The end of an attempt. in_outcome: done (sent, or not wanted any more), retry, dead, none (nothing
-- was tried). The lane then waits for its next event, or goes. Locks the lane first and looks then: an
-- event noted meanwhile is either seen, or finds no lane and makes one.
CREATE FUNCTION settle_webhook(
    in_chat uuid, in_turn bigint, in_webhook bigint, in_outcome text, in_pause interval, in_error text)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    ours boolean;
    next_due timestamptz;
BEGIN
    SELECT l.turn = in_turn INTO ours FROM webhook_lanes l WHERE l.chat_id = in_chat FOR UPDATE;
    -- What was sent is sent, even if it took so long that another one has the lane by now.
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
         WHERE w.chat_id = in_chat AND w.dead_at IS NULL ORDER BY w.webhook_id LIMIT 1;
        IF FOUND THEN
            UPDATE webhook_lanes l SET due_at = next_due WHERE l.chat_id = in_chat;
        ELSE
            DELETE FROM webhook_lanes l WHERE l.chat_id = in_chat;
        END IF;
    END IF;
END
$$;

-- Dead letters wait once more, as if they were new: one, or all (null). Gives how many.
CREATE FUNCTION replay_webhooks(in_event uuid)
RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    replayed bigint;
BEGIN
    WITH again AS (
        UPDATE webhooks w
           SET dead_at = NULL, attempts = 0, last_error = NULL,
               begun_at = clock_timestamp(), due_at = clock_timestamp()
         WHERE w.dead_at IS NOT NULL AND (in_event IS NULL OR w.event_id = in_event)
        RETURNING w.chat_id
    ), laned AS (
        -- A lane that is there is another's: it is kept from going, and not hurried.
        INSERT INTO webhook_lanes AS l (chat_id, due_at)
        SELECT DISTINCT a.chat_id, now() FROM again a ORDER BY a.chat_id
        ON CONFLICT (chat_id) DO UPDATE SET turn = l.turn
    )
    SELECT count(*) INTO replayed FROM again;
    RETURN replayed;
END
$$;

-- Forgets what was to be said of messages in these chats. The caller holds their locks. What people
-- have reported is the host application's all the same.
CREATE FUNCTION forget_webhooks(in_chats uuid[])
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    DELETE FROM webhooks w
     WHERE w.chat_id = ANY (in_chats) AND w.dead_at IS NULL AND w.kind = 'message.created';
    DELETE FROM webhooks w
     WHERE w.chat_id = ANY (in_chats) AND w.dead_at IS NOT NULL AND w.kind = 'message.created';
END
$$;

-- As before, and forgets the events of the person's rooms.
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
    PERFORM forget_webhooks(ARRAY(SELECT m.chat_id FROM members m WHERE m.user_id = in_user));
    RETURN true;
END
$$;

-- As before, and forgets the events of the room.
CREATE OR REPLACE FUNCTION delete_chat(in_chat uuid, in_user text, in_admin boolean, in_rule text)
RETURNS TABLE (outcome text, user_lo text, user_hi text, outbox_id bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    chat chats;
    verdict text;
    noted bigint;
BEGIN
    SELECT * INTO chat FROM chats c WHERE c.chat_id = in_chat FOR UPDATE;
    verdict := CASE
        WHEN chat.chat_id IS NULL OR NOT in_admin AND in_user NOT IN (chat.user_lo, chat.user_hi)
            THEN 'chat_not_found'
        WHEN in_admin OR in_rule = 'member' OR in_rule = 'creator' AND chat.created_by = in_user
            THEN 'ok'
        ELSE 'forbidden'
    END;
    IF verdict = 'ok' THEN
        DELETE FROM members m WHERE m.chat_id = in_chat;
        DELETE FROM chats c WHERE c.chat_id = in_chat;
        PERFORM forget_webhooks(ARRAY[in_chat]);
        INSERT INTO purges (chat_id) VALUES (in_chat);
        INSERT INTO outbox AS o (chats, users) VALUES (ARRAY[in_chat], ARRAY[chat.user_lo, chat.user_hi])
        RETURNING o.outbox_id INTO noted;
    END IF;
    RETURN QUERY SELECT verdict, chat.user_lo, chat.user_hi, noted;
END
$$;
