-- Counters, and the state of a member after a change.
--
-- A message writes a constant number of rows, however many members there are: the message, the chat's row and
-- the sender's. A member's unread counter is computed from numbers of the chat and of the member:
--
--     unread = chats.last_counted - floor_counted - own_after - (tombstones past floor_seq)
--
-- It is exact as long as no live message of others lies between read_seq and floor_seq, and own_after is the
-- number of own live messages past floor_seq. Read markers of chats without receipts move without the chat's
-- lock, so whoever else depends on a row of theirs locks it before looking at it.

-- Sets for this transaction what the writers' connections are opened with: a pooler such as PgBouncer may
-- have kept it away. Called only then, as it takes 0.2 ms.
CREATE FUNCTION use_writer_settings() RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM set_config(s.name, s.value, true)
       FROM (VALUES ('plan_cache_mode', 'force_generic_plan'), ('enable_seqscan', 'off'),
                    ('enable_bitmapscan', 'off'), ('enable_sort', 'off'), ('enable_hashjoin', 'off'),
                    ('enable_mergejoin', 'off'), ('enable_memoize', 'off'), ('jit', 'off'),
                    ('lock_timeout', '500ms'))
            AS s (name, value);
END
$$;

-- Counts the tombstones past a floor. Callers ask only where chats.last_dead_seq is past it, which is rare.
-- in_dead: chats.dead. Up to 1,024 in a chat are counted by one look-up, more by blocks, so that 10,000 take
-- 0.3 ms instead of 2.
CREATE FUNCTION count_dead(in_chat uuid, in_floor bigint, in_dead bigint) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF in_dead <= 1024 THEN
        RETURN (SELECT count(*) FROM (
                    SELECT FROM messages d
                     WHERE d.chat_id = in_chat AND d.seq > in_floor AND d.deleted_at IS NOT NULL
                     ORDER BY d.seq NULLS FIRST OFFSET 0) d);
    END IF;
    RETURN (SELECT coalesce(sum(b.dead), 0) FROM dead_blocks b
             WHERE b.chat_id = in_chat AND b.block > in_floor >> 12)
         + (SELECT count(*) FROM (
                SELECT FROM messages d
                 WHERE d.chat_id = in_chat AND d.seq > in_floor AND d.seq < ((in_floor >> 12) + 1) << 12
                   AND d.deleted_at IS NOT NULL
                 ORDER BY d.seq NULLS FIRST OFFSET 0) d);
END
$$;

-- Counts the live messages of others past a floor that mention a user. Two look-ups, each skipped by its bound:
-- with a list of the two ids the planner reads all of a chat's mentions.
CREATE FUNCTION count_mentions(
    in_chat uuid, in_user text, in_floor bigint, in_mention_seq bigint, in_all_mention_seq bigint)
RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    by_id bigint := 0;
    by_all bigint := 0;
BEGIN
    IF in_mention_seq > in_floor THEN
        SELECT count(*) INTO by_id FROM mentions x
         WHERE x.chat_id = in_chat AND x.user_id = in_user AND x.seq > in_floor;
    END IF;
    IF in_all_mention_seq > in_floor THEN
        SELECT count(*) INTO by_all FROM mentions x
         WHERE x.chat_id = in_chat AND x.user_id = chr(1) AND x.seq > in_floor AND x.sender_id <> in_user;
    END IF;
    RETURN by_id + by_all;
END
$$;

-- A member's own settings as copies have them: what they are notified of by its first letter, A for archived, P
-- for pinned; null for those of most, to spare the text. The planner replaces a call by the expression.
CREATE FUNCTION member_flags(in_notify notify_level, in_archived boolean, in_pinned boolean) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN in_notify <> 'all' OR in_archived OR in_pinned
                THEN left(in_notify::text, 1) || CASE WHEN in_archived THEN 'A' ELSE '' END
                     || CASE WHEN in_pinned THEN 'P' ELSE '' END END
$$;

-- The state of a member after a change: all that Redis and the member's inbox need, of one snapshot. last_ev + rev
-- increases with every change.
CREATE TYPE member_state AS (
    chat_id uuid, user_id text COLLATE "C", kind text, room_name text COLLATE "C",
    last_seq bigint, last_ev bigint, activity timestamptz, counted bigint, recount_ev bigint,
    -- No member any more: their counters are 0.
    gone boolean,
    -- flags: null for those of most.
    rev bigint, read_seq bigint, unread bigint, mentions bigint, flags text
);

-- Puts a state together of the two rows. The planner replaces a call by the expression, and a field of
-- ROW(c.*)::chats by c's column.
CREATE FUNCTION member_state(c chats, me members) RETURNS member_state LANGUAGE sql STABLE AS $$
    SELECT ROW(
        c.chat_id, me.user_id, c.kind::text, c.room_name, c.last_seq, c.last_ev, c.active_at,
        c.last_counted, c.recount_ev, me.left_ev IS NOT NULL, me.rev, me.read_seq,
        CASE WHEN me.left_ev IS NOT NULL THEN 0
             ELSE c.last_counted - me.floor_counted - me.own_after
                  - CASE WHEN c.last_dead_seq > me.floor_seq
                         THEN count_dead(c.chat_id, me.floor_seq, c.dead) ELSE 0 END END,
        CASE WHEN me.left_ev IS NULL AND greatest(me.mention_seq, c.all_mention_seq) > me.floor_seq
             THEN count_mentions(c.chat_id, me.user_id, me.floor_seq, me.mention_seq, c.all_mention_seq)
             ELSE 0 END,
        member_flags(me.notify, me.archived, me.pinned))::member_state
$$;

-- The present states of these members, in pairs; where the chat or the member's row is gone, none.
CREATE FUNCTION member_states(in_chats uuid[], in_users text[]) RETURNS SETOF member_state
LANGUAGE sql STABLE AS $$
    SELECT (member_state(ROW(c.*)::chats, ROW(me.*)::members)).*
      FROM unnest(in_chats, in_users) AS q (chat_id, user_id)
     CROSS JOIN LATERAL (SELECT c.* FROM chats c WHERE c.chat_id = q.chat_id OFFSET 0) c
     CROSS JOIN LATERAL (SELECT m.* FROM members m
                          WHERE m.chat_id = q.chat_id AND m.user_id = q.user_id OFFSET 0) me
$$;

-- The present state of these chats: of a direct chat a row for each member, of a group one row without a member's
-- state; of those that are gone none. The order of the two is the primary key's, which is the only index that has it.
CREATE FUNCTION chat_states(in_chats uuid[])
RETURNS TABLE (chat_id uuid, kind text, last_seq bigint, last_ev bigint, activity timestamptz, counted bigint,
               recount_ev bigint, state member_state) LANGUAGE sql STABLE AS $$
    SELECT c.chat_id, c.kind::text, c.last_seq, c.last_ev, c.active_at, c.last_counted, c.recount_ev,
           CASE WHEN me.chat_id IS NOT NULL
                THEN member_state(ROW(c.*)::chats, ROW(me.*)::members) END
      FROM unnest(in_chats) AS q (chat_id)
     CROSS JOIN LATERAL (SELECT c.* FROM chats c WHERE c.chat_id = q.chat_id OFFSET 0) c
      LEFT JOIN LATERAL (SELECT m.* FROM members m WHERE m.chat_id = q.chat_id AND c.kind = 'direct'
                          ORDER BY m.chat_id, m.user_id LIMIT 2) me ON true
$$;

-- Locks members of one chat in the order in which everybody locks them. The caller holds the chat's lock.
CREATE FUNCTION lock_members(in_chat uuid, in_users text[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM (SELECT DISTINCT u.user_id COLLATE "C" AS user_id FROM unnest(in_users) AS u (user_id)
                   ORDER BY 1) u
      CROSS JOIN LATERAL (
          SELECT FROM members m WHERE m.chat_id = in_chat AND m.user_id = u.user_id FOR NO KEY UPDATE) m;
END
$$;
