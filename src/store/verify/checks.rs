//! What must always hold: statements that give a line for each place that is wrong. They join sets, so that a
//! chat of many members and messages is read a few times and not once for each member.

/// Looks at a table as a whole.
pub(super) const WHOLE: [(&str, &str); 4] =
    [("outbox", OUTBOX), ("webhooks", WEBHOOKS), ("push", PUSH), ("directories", DIRECTORIES)];

/// Each takes a range of chats.
pub(super) const BY_CHAT: [(&str, &str); 10] = [
    ("numbers", NUMBERS),
    ("counters", COUNTERS),
    ("floors", FLOORS),
    ("times", TIMES),
    ("tombstones", TOMBSTONES),
    ("mentions", MENTIONS),
    ("reactions, pins and attachments", CARRIED),
    ("members", MEMBERS),
    ("blocks and erasures", COPIES),
    ("orphans", ORPHANS),
];

/// Whoever is about to publish takes a second; a minute is nobody's.
const OUTBOX: &str = "\
-- store.verify_outbox
SELECT 'row ' || outbox_id || ' waits since ' || created_at AS example FROM outbox
 WHERE created_at < clock_timestamp() - interval '1 minute' ORDER BY outbox_id";

/// An event is taken by its chat's lane, and made together with it. Events of messages go with their chat.
const WEBHOOKS: &str = "\
-- store.verify_webhooks
SELECT format('%s: event %s %s', w.chat_id, w.event_id, wrong.what) AS example
  FROM webhooks w
 CROSS JOIN LATERAL (
    SELECT 'waits without a lane' AS what
     WHERE w.dead_at IS NULL
       AND NOT EXISTS (SELECT FROM webhook_lanes l WHERE l.chat_id = w.chat_id)
    UNION ALL
    SELECT 'is of a chat that is gone'
     WHERE w.kind = 'message.created'
       AND NOT EXISTS (SELECT FROM chats c WHERE c.chat_id = w.chat_id)) wrong
 ORDER BY w.webhook_id";

/// A device has one lane, which goes with it and with what it was told; what it is to be told makes the lane due.
const PUSH: &str = "\
-- store.verify_push
SELECT format('device %s of %s %s', wrong.device_id, wrong.user_id, wrong.what) AS example
  FROM (SELECT user_id, device_id, 'has no lane' AS what FROM devices d
         WHERE NOT EXISTS (SELECT FROM push_lanes l WHERE l.user_id = d.user_id AND l.device_id = d.device_id)
        UNION ALL
        SELECT user_id, device_id, 'is gone, and its lane is not' FROM push_lanes l
         WHERE NOT EXISTS (SELECT FROM devices d WHERE d.user_id = l.user_id AND d.device_id = l.device_id)
        UNION ALL
        SELECT k.user_id, k.device_id, 'waits for a push in vain' FROM push_marks k
          LEFT JOIN push_lanes l ON l.user_id = k.user_id AND l.device_id = k.device_id
         WHERE l.user_id IS NULL OR k.want_seq IS NOT NULL AND k.dead_at IS NULL AND l.due_at IS NULL) wrong
 ORDER BY wrong.user_id, wrong.device_id";

/// Directories lead to chats that are there, and go with them. A group's key outlives it.
const DIRECTORIES: &str = "\
-- store.verify_directories
SELECT format('%s: a %s leads to it, and it is %s', d.chat_id, d.kind,
              coalesce('of kind ' || c.kind, 'gone')) AS example
  FROM (SELECT chat_id, 'pair' AS kind FROM pairs
        UNION ALL
        SELECT chat_id, 'room_name' FROM chat_names
        UNION ALL
        SELECT chat_id, 'invitation' FROM invites) d
  LEFT JOIN chats c ON c.chat_id = d.chat_id
 WHERE c.chat_id IS NULL OR d.kind = 'pair' AND c.kind <> 'direct' OR d.kind = 'invitation' AND c.kind <> 'group'
 ORDER BY d.chat_id";

/// An `ev` is the last change of one message, marker or member, or of what a group shows, or of those who joined
/// together: some are superseded, none comes twice, and the head is always there.
const NUMBERS: &str = "\
-- store.verify_numbers
WITH seqs AS (
    SELECT chat_id, count(*) AS count, max(seq) AS top
      FROM messages WHERE chat_id > $1 AND chat_id <= $2 GROUP BY chat_id
), evs AS (
    SELECT chat_id, count(*) AS count, count(DISTINCT ev) AS different, max(ev) AS top
      FROM (SELECT chat_id, ev FROM messages WHERE chat_id > $1 AND chat_id <= $2
            UNION ALL
            SELECT chat_id, read_ev FROM members WHERE chat_id > $1 AND chat_id <= $2 AND read_ev > 0
            UNION ALL
            SELECT DISTINCT chat_id, member_ev FROM members
             WHERE chat_id > $1 AND chat_id <= $2 AND member_ev > 0 AND member_ev = joined_ev
            UNION ALL
            SELECT chat_id, member_ev FROM members
             WHERE chat_id > $1 AND chat_id <= $2 AND member_ev <> joined_ev
            UNION ALL
            SELECT chat_id, info_ev FROM chats WHERE chat_id > $1 AND chat_id <= $2 AND info_ev > 0) e
     GROUP BY chat_id
), counted AS (
    SELECT chat_id, count(*) FILTER (WHERE sender_id IS NOT NULL) AS count,
           count(*) FILTER (WHERE counted <> running) AS wrong
      FROM (SELECT chat_id, sender_id, counted,
                   count(sender_id) OVER (PARTITION BY chat_id ORDER BY seq) AS running
              FROM messages WHERE chat_id > $1 AND chat_id <= $2) m
     GROUP BY chat_id
)
SELECT format('%s: last_seq %s over %s messages up to %s, last_ev %s over %s changes (%s different) up to %s, last_counted %s over %s counted messages (%s of them wrong)',
              c.chat_id, c.last_seq, coalesce(s.count, 0), coalesce(s.top, 0),
              c.last_ev, coalesce(e.count, 0), coalesce(e.different, 0), coalesce(e.top, 0),
              c.last_counted, coalesce(n.count, 0), coalesce(n.wrong, 0)) AS example
  FROM chats c
  LEFT JOIN seqs s ON s.chat_id = c.chat_id
  LEFT JOIN evs e ON e.chat_id = c.chat_id
  LEFT JOIN counted n ON n.chat_id = c.chat_id
 WHERE c.chat_id > $1 AND c.chat_id <= $2
   AND (c.last_seq, c.last_seq, c.last_ev, coalesce(e.count, 0), c.last_counted, 0)
       IS DISTINCT FROM
       (coalesce(s.count, 0), coalesce(s.top, 0), coalesce(e.top, 0), coalesce(e.different, 0),
        coalesce(n.count, 0), coalesce(n.wrong, 0))
 ORDER BY c.chat_id";

/// The algebra against a recount: live messages of others past the marker, and those that mention the member.
/// `upto`: how many there are in the chat up to a message, which is subtracted from how many there are in all.
const COUNTERS: &str = "\
-- store.verify_counters
WITH m AS MATERIALIZED (
    SELECT chat_id, seq, sender_id, mentions, live, live AND mentions = ARRAY[chr(1)] AS to_all,
           count(*) FILTER (WHERE live) OVER so_far AS live_upto,
           count(*) FILTER (WHERE live AND mentions = ARRAY[chr(1)]) OVER so_far AS all_upto
      FROM (SELECT *, deleted_at IS NULL AND sender_id IS NOT NULL AS live
              FROM messages WHERE chat_id > $1 AND chat_id <= $2) l
    WINDOW so_far AS (PARTITION BY chat_id ORDER BY seq)
), ends AS (
    SELECT chat_id, max(live_upto) AS live, max(all_upto) AS to_all FROM m GROUP BY chat_id
), me AS MATERIALIZED (
    SELECT r.*, greatest(r.read_seq, r.first_seq - 1) AS base
      FROM members r JOIN chats c ON c.chat_id = r.chat_id
     WHERE r.chat_id > $1 AND r.chat_id <= $2 AND r.left_ev IS NULL
), own AS (
    SELECT me.chat_id, me.user_id, count(*) AS live, count(*) FILTER (WHERE m.to_all) AS to_all
      FROM me JOIN m ON m.chat_id = me.chat_id AND m.sender_id = me.user_id
     WHERE m.live AND m.seq > me.base
     GROUP BY me.chat_id, me.user_id
), named AS (
    SELECT me.chat_id, me.user_id, count(*) AS count
      FROM m CROSS JOIN LATERAL unnest(m.mentions) AS u (user_id)
      JOIN me ON me.chat_id = m.chat_id AND me.user_id = u.user_id
     WHERE m.live AND m.seq > me.base AND m.sender_id <> me.user_id
     GROUP BY me.chat_id, me.user_id
), told AS (
    SELECT me.chat_id, me.user_id, me.read_seq, c.last_seq, s.unread, s.mentions,
           coalesce(e.live - coalesce(b.live_upto, 0), 0) - coalesce(o.live, 0) AS recount,
           coalesce(e.to_all - coalesce(b.all_upto, 0), 0) - coalesce(o.to_all, 0)
               + coalesce(n.count, 0) AS mention_recount
      FROM me
      JOIN chats c ON c.chat_id = me.chat_id
     CROSS JOIN LATERAL member_states(ARRAY[me.chat_id], ARRAY[me.user_id]) s
      LEFT JOIN ends e ON e.chat_id = me.chat_id
      LEFT JOIN m b ON b.chat_id = me.chat_id AND b.seq = me.base
      LEFT JOIN own o ON o.chat_id = me.chat_id AND o.user_id = me.user_id
      LEFT JOIN named n ON n.chat_id = me.chat_id AND n.user_id = me.user_id
)
SELECT format('%s: %s has read up to %s of %s and %s unread (%s mentions), a recount gives %s (%s)',
              chat_id, user_id, read_seq, last_seq, unread, mentions, recount, mention_recount) AS example
  FROM told
 WHERE unread <> recount OR mentions <> mention_recount OR read_seq > last_seq
 ORDER BY chat_id, user_id";

/// What the algebra rests on: own live messages past the floor are counted, and so are all messages up to it.
const FLOORS: &str = "\
-- store.verify_floors
WITH own AS (
    SELECT me.chat_id, me.user_id, count(*) AS count
      FROM members me
      JOIN messages m ON m.chat_id = me.chat_id AND m.sender_id = me.user_id
     WHERE me.chat_id > $1 AND me.chat_id <= $2 AND m.seq > me.floor_seq AND m.deleted_at IS NULL
     GROUP BY me.chat_id, me.user_id
)
SELECT format('%s: %s has floor %s of %s with %s counted and %s own past it, a recount gives %s and %s',
              me.chat_id, me.user_id, me.floor_seq, c.last_seq, me.floor_counted, me.own_after,
              coalesce(m.counted, 0), coalesce(o.count, 0)) AS example
  FROM members me
  JOIN chats c ON c.chat_id = me.chat_id
  LEFT JOIN messages m ON m.chat_id = me.chat_id AND m.seq = me.floor_seq
  LEFT JOIN own o ON o.chat_id = me.chat_id AND o.user_id = me.user_id
 WHERE me.chat_id > $1 AND me.chat_id <= $2 AND me.left_ev IS NULL
   AND (me.floor_counted <> coalesce(m.counted, 0) OR me.own_after <> coalesce(o.count, 0)
        OR me.floor_seq > c.last_seq OR me.floor_seq < me.read_seq OR me.first_seq > c.last_seq + 1)
 ORDER BY me.chat_id, me.user_id";

const TIMES: &str = "\
-- store.verify_times
SELECT format('%s: message %s is of %s, the one before of %s', chat_id, seq, created_at, before) AS example
  FROM (SELECT chat_id, seq, created_at,
               lag(created_at) OVER (PARTITION BY chat_id ORDER BY seq) AS before
          FROM messages WHERE chat_id > $1 AND chat_id <= $2) m
 WHERE created_at < before
 ORDER BY chat_id, seq";

/// A tombstone has no content, and is counted in its chat and in its block of 4,096 numbers.
const TOMBSTONES: &str = "\
-- store.verify_tombstones
WITH dead AS (
    SELECT chat_id, seq, text <> '' OR metadata IS NOT NULL OR content_digest IS NOT NULL
                         OR mentions IS NOT NULL OR reply_seq IS NOT NULL OR attachments IS NOT NULL
                         OR reactions IS NOT NULL OR pinned_at IS NOT NULL AS has_content
      FROM messages WHERE chat_id > $1 AND chat_id <= $2 AND deleted_at IS NOT NULL
), blocks AS (
    SELECT chat_id, seq >> 12 AS block, count(*) AS dead FROM dead GROUP BY chat_id, seq >> 12
)
(SELECT format('%s: message %s is deleted and still has content', chat_id, seq) AS example
   FROM dead WHERE has_content ORDER BY chat_id, seq)
UNION ALL
(SELECT format('%s: %s tombstones up to %s, a recount gives %s up to %s',
               c.chat_id, c.dead, c.last_dead_seq, coalesce(d.count, 0), coalesce(d.top, 0))
   FROM chats c
   LEFT JOIN (SELECT chat_id, count(*) AS count, max(seq) AS top FROM dead GROUP BY chat_id) d
          ON d.chat_id = c.chat_id
  WHERE c.chat_id > $1 AND c.chat_id <= $2
    AND (c.dead <> coalesce(d.count, 0) OR c.last_dead_seq <> coalesce(d.top, 0))
  ORDER BY c.chat_id)
UNION ALL
(SELECT format('%s: block %s has %s tombstones, a recount gives %s', c.chat_id,
               coalesce(b.block, r.block), coalesce(b.dead, 0), coalesce(r.dead, 0))
   FROM (SELECT * FROM dead_blocks WHERE chat_id > $1 AND chat_id <= $2) b
   FULL JOIN blocks r ON r.chat_id = b.chat_id AND r.block = b.block
   JOIN chats c ON c.chat_id = coalesce(b.chat_id, r.chat_id)
  WHERE coalesce(b.dead, 0) <> coalesce(r.dead, 0)
  ORDER BY c.chat_id)";

/// A row for each live message and whom it mentions, within the bounds that spare looking at them.
const MENTIONS: &str = "\
-- store.verify_mentions
WITH said AS (
    SELECT m.chat_id, u.user_id, m.seq, m.sender_id
      FROM messages m CROSS JOIN LATERAL unnest(m.mentions) AS u (user_id)
     WHERE m.chat_id > $1 AND m.chat_id <= $2 AND m.deleted_at IS NULL
), kept AS (
    SELECT * FROM mentions WHERE chat_id > $1 AND chat_id <= $2
)
SELECT format('%s: message %s and %s: mentioned %s, kept %s, bound %s', c.chat_id,
              coalesce(s.seq, k.seq), coalesce(s.user_id, k.user_id), s.seq IS NOT NULL,
              k.seq IS NOT NULL, CASE k.user_id WHEN chr(1) THEN c.all_mention_seq ELSE me.mention_seq END)
       AS example
  FROM said s
  FULL JOIN kept k ON k.chat_id = s.chat_id AND k.user_id = s.user_id AND k.seq = s.seq
                  AND k.sender_id = s.sender_id
  JOIN chats c ON c.chat_id = coalesce(s.chat_id, k.chat_id)
  LEFT JOIN members me ON me.chat_id = k.chat_id AND me.user_id = k.user_id
 WHERE s.seq IS NULL OR k.seq IS NULL
    OR k.seq > CASE k.user_id WHEN chr(1) THEN c.all_mention_seq ELSE me.mention_seq END
 ORDER BY c.chat_id, coalesce(s.seq, k.seq)";

/// What a message shows is what the tables beside it say.
const CARRIED: &str = "\
-- store.verify_carried
WITH kept AS (
    SELECT chat_id, seq, emoji, count(*) AS count,
           (array_agg(user_id ORDER BY created_at, user_id))[1:20] AS users
      FROM reactions WHERE chat_id > $1 AND chat_id <= $2 GROUP BY chat_id, seq, emoji
), shown AS (
    SELECT m.chat_id, m.seq, e.one ->> 'emoji' AS emoji, (e.one ->> 'count')::bigint AS count,
           ARRAY(SELECT u.id #>> '{}' FROM json_array_elements(e.one -> 'user_ids') WITH ORDINALITY AS u (id, n)
                  ORDER BY u.n) AS users
      FROM messages m CROSS JOIN LATERAL json_array_elements(m.reactions) AS e (one)
     WHERE m.chat_id > $1 AND m.chat_id <= $2
), files AS (
    SELECT m.chat_id, m.seq, (e.one ->> 'attachment_id')::uuid AS attachment_id, e.one::jsonb AS shown
      FROM messages m CROSS JOIN LATERAL json_array_elements(m.attachments) AS e (one)
     WHERE m.chat_id > $1 AND m.chat_id <= $2
), wrong AS (
    SELECT coalesce(s.chat_id, k.chat_id) AS chat_id, coalesce(s.seq, k.seq) AS seq,
           format('shows %s by %s %s, a recount gives %s %s', coalesce(s.emoji, k.emoji), coalesce(s.count, 0),
                  s.users, coalesce(k.count, 0), k.users) AS what
      FROM shown s FULL JOIN kept k ON k.chat_id = s.chat_id AND k.seq = s.seq AND k.emoji = s.emoji
     WHERE s.count IS DISTINCT FROM k.count OR s.users IS DISTINCT FROM k.users
    UNION ALL
    SELECT coalesce(m.chat_id, p.chat_id), coalesce(m.seq, p.seq),
           format('shows that it was pinned at %s, its pin is of %s', m.pinned_at, p.pinned_at)
      FROM (SELECT * FROM messages WHERE chat_id > $1 AND chat_id <= $2 AND pinned_at IS NOT NULL) m
      FULL JOIN (SELECT * FROM pins WHERE chat_id > $1 AND chat_id <= $2) p
             ON p.chat_id = m.chat_id AND p.seq = m.seq
     WHERE m.pinned_at IS DISTINCT FROM p.pinned_at
    UNION ALL
    SELECT coalesce(f.chat_id, a.chat_id), coalesce(f.seq, a.seq),
           format('shows attachment %s as %s, it is %s', coalesce(f.attachment_id, a.attachment_id), f.shown,
                  attachment_json(ROW(a.*)::attachments))
      FROM files f
      FULL JOIN (SELECT * FROM attachments WHERE chat_id > $1 AND chat_id <= $2 AND seq IS NOT NULL) a
             ON a.chat_id = f.chat_id AND a.seq = f.seq AND a.attachment_id = f.attachment_id
     WHERE f.shown IS DISTINCT FROM CASE WHEN a.chat_id IS NOT NULL
                                         THEN attachment_json(ROW(a.*)::attachments)::jsonb END
)
SELECT format('%s: message %s %s', w.chat_id, w.seq, w.what) AS example
  FROM wrong w JOIN chats c ON c.chat_id = w.chat_id
 ORDER BY w.chat_id, w.seq";

/// A direct chat is its pair's; a group has one owner. Both are found by their name.
const MEMBERS: &str = "\
-- store.verify_members
SELECT format('%s: a %s chat that says it has %s members has %s, %s of them owners, %s pairs (of %s), %s rows of a group and %s names',
              c.chat_id, c.kind, c.member_count, coalesce(m.count, 0), coalesce(m.owners, 0), p.count,
              p.ids, g.count, n.count) AS example
  FROM chats c
  LEFT JOIN (SELECT chat_id, count(*) AS count, count(*) FILTER (WHERE role = 'owner') AS owners,
                    (array_agg(user_id ORDER BY user_id))[1:2] AS ids
               FROM members WHERE chat_id > $1 AND chat_id <= $2 AND left_ev IS NULL
              GROUP BY chat_id) m ON m.chat_id = c.chat_id
 CROSS JOIN LATERAL (SELECT count(*) AS count, min(ARRAY[p.user_lo, p.user_hi]) AS ids FROM pairs p
                      WHERE p.user_lo = m.ids[1] AND p.user_hi = m.ids[2] AND p.chat_id = c.chat_id) p
 CROSS JOIN LATERAL (SELECT count(*) AS count FROM groups g WHERE g.chat_id = c.chat_id) g
 CROSS JOIN LATERAL (SELECT count(*) AS count FROM chat_names n
                      WHERE n.room_name = c.room_name AND n.chat_id = c.chat_id) n
 WHERE c.chat_id > $1 AND c.chat_id <= $2
   AND (c.member_count, p.count, m.owners, g.count, n.count)
       IS DISTINCT FROM
       (CASE c.kind WHEN 'direct' THEN 2 ELSE m.count END, CASE c.kind WHEN 'direct' THEN 1 ELSE 0 END,
        CASE c.kind WHEN 'direct' THEN 0 ELSE 1 END, CASE c.kind WHEN 'direct' THEN 0 ELSE 1 END, 1)
 ORDER BY c.chat_id";

/// The row of a direct chat carries copies of what two other tables say.
const COPIES: &str = "\
-- store.verify_copies
SELECT format('%s: blocked is %s, erased is %s', c.chat_id, c.blocked, c.erased) AS example
  FROM chats c
 CROSS JOIN LATERAL (SELECT min(m.user_id) AS lo, max(m.user_id) AS hi FROM members m
                      WHERE m.chat_id = c.chat_id AND c.kind = 'direct') two
 WHERE c.chat_id > $1 AND c.chat_id <= $2
   AND (c.blocked <> is_blocked(two.lo, two.hi)
        OR c.erased <> EXISTS (SELECT FROM users u WHERE u.user_id IN (two.lo, two.hi)
                                AND u.erased_at IS NOT NULL))
 ORDER BY c.chat_id";

/// What a deleted chat leaves is noted in `purges` until it is gone.
const ORPHANS: &str = "\
-- store.verify_orphans
SELECT format('%s: %s rows belong to no chat', chat_id, count(*)) AS example
  FROM (SELECT chat_id FROM messages WHERE chat_id > $1 AND chat_id <= $2
        UNION ALL
        SELECT chat_id FROM members WHERE chat_id > $1 AND chat_id <= $2
        UNION ALL
        SELECT chat_id FROM mentions WHERE chat_id > $1 AND chat_id <= $2
        UNION ALL
        SELECT chat_id FROM dead_blocks WHERE chat_id > $1 AND chat_id <= $2
        UNION ALL
        SELECT chat_id FROM reactions WHERE chat_id > $1 AND chat_id <= $2
        UNION ALL
        SELECT chat_id FROM pins WHERE chat_id > $1 AND chat_id <= $2
        UNION ALL
        SELECT chat_id FROM attachments WHERE chat_id > $1 AND chat_id <= $2
        UNION ALL
        SELECT chat_id FROM bans WHERE chat_id > $1 AND chat_id <= $2
        UNION ALL
        SELECT chat_id FROM groups WHERE chat_id > $1 AND chat_id <= $2) o
 WHERE NOT EXISTS (SELECT FROM chats c WHERE c.chat_id = o.chat_id)
   AND NOT EXISTS (SELECT FROM purges p WHERE p.chat_id = o.chat_id)
 GROUP BY chat_id ORDER BY chat_id";
