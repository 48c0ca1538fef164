-- A list of people, named in one call, is often older than an erasure: a job that ran over the host's own
-- records. So only who is named by themselves comes back.

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
