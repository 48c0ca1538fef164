-- What is done with many at once.

-- A list of people, named in one call, is often older than an erasure: a job that ran over the host's own
-- records. So only who is named by themselves comes back.
--
-- Creates or replaces people: created, updated for each, and erased for those that were and stay it, as
-- in_revive says no. Ids must differ.
CREATE FUNCTION name_users(
    in_users text[], in_names text[], in_avatar_urls text[], in_revive boolean)
RETURNS TABLE (outcome text) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    known text[];
    were_erased text[];
BEGIN
    SELECT array_agg(u.user_id) INTO known FROM users u
     WHERE u.user_id = ANY (in_users) AND u.erased_at IS NULL;
    -- New rows first, then locks: in the order in which rooms are opened, so that neither waits for
    -- the other in a circle.
    INSERT INTO users (user_id) SELECT n.user_id FROM unnest(in_users) AS n (user_id)
     ORDER BY n.user_id COLLATE "C" ON CONFLICT DO NOTHING;
    PERFORM FROM users u WHERE u.user_id = ANY (in_users) ORDER BY u.user_id FOR NO KEY UPDATE;
    SELECT array_agg(u.user_id) INTO were_erased FROM users u
     WHERE u.user_id = ANY (in_users) AND u.erased_at IS NOT NULL;
    UPDATE users u SET name = n.name, avatar_url = n.avatar_url, erased_at = NULL
      FROM unnest(in_users, in_names, in_avatar_urls) AS n (user_id, name, avatar_url)
     WHERE u.user_id = n.user_id AND (in_revive OR u.erased_at IS NULL);
    IF in_revive AND were_erased IS NOT NULL THEN
        PERFORM mark_rooms_erased(were_erased);
    END IF;
    RETURN QUERY
    SELECT CASE WHEN n.user_id = ANY (were_erased) AND NOT in_revive THEN 'erased'
                WHEN n.user_id = ANY (known) THEN 'updated'
                ELSE 'created' END
      FROM unnest(in_users) WITH ORDINALITY AS n (user_id, idx) ORDER BY n.idx;
END
$$;

-- For replicas of the release before.
CREATE OR REPLACE FUNCTION name_users(in_users text[], in_names text[], in_avatar_urls text[])
RETURNS TABLE (created boolean) LANGUAGE sql VOLATILE AS $$
    SELECT n.outcome = 'created' FROM name_users(in_users, in_names, in_avatar_urls, true) n
$$;

-- Dead letters wait once more, as if they were new: one, or all (null), of these the next in_most after
-- in_after, oldest first. Gives how many, and up to which. Step by step, as sends into the rooms concerned
-- wait for a step's end.
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
        -- A lane that is there is another's: it is kept from going, and not hurried.
        INSERT INTO webhook_lanes AS l (chat_id, due_at)
        SELECT DISTINCT a.chat_id, now() FROM again a ORDER BY a.chat_id
        ON CONFLICT (chat_id) DO UPDATE SET turn = l.turn
    )
    SELECT (SELECT count(*) FROM again), (SELECT max(c.webhook_id) FROM chosen c)
$$;

-- For `beseda admin` of the release before.
CREATE OR REPLACE FUNCTION replay_webhooks(in_event uuid)
RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT replayed FROM replay_webhooks(in_event, 0, 9223372036854775807)
$$;
