-- Which programs may run on this schema, and blocks in pages.

-- The number of the oldest schema whose program runs on this one: its replicas may be left, and started,
-- beside those of the newest release. A migration that only adds leaves it as it is; one that takes
-- away what an older program uses sets it to the number of the first schema whose program does not.
ALTER TABLE instance ADD COLUMN compatible_from integer NOT NULL DEFAULT 9;

-- A page of somebody's blocks, latest first.
CREATE INDEX blocks_by_time ON blocks (blocker_id, created_at, blocked_id);

-- As before, but nobody blocks more than in_most people: false where they would. Blocks made meanwhile
-- are not seen: it need not be exact.
CREATE FUNCTION set_block(in_blocker text, in_blocked text, in_on boolean, in_most bigint)
RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF in_on
       AND NOT EXISTS (SELECT FROM blocks b
                        WHERE b.blocker_id = in_blocker AND b.blocked_id = in_blocked)
       AND (SELECT count(*) FROM (SELECT FROM blocks b WHERE b.blocker_id = in_blocker
                                   LIMIT in_most) AS own) >= in_most THEN
        RETURN false;
    END IF;
    PERFORM set_block(in_blocker, in_blocked, in_on);
    RETURN true;
END
$$;
