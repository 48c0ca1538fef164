-- Imports an old chat's rooms of two from the files that export.sql wrote. Run it in their folder, after
-- `beseda migrate`:
--
--   psql "$DATABASE_URL" -f import.sql
--
-- It is one transaction, so it imports everything or nothing. Replicas may be running. It can be
-- repeated, because it skips pairs that have a chat in Beseda.
\set ON_ERROR_STOP on
BEGIN;

CREATE TEMP TABLE old_users (user_id text COLLATE "C", name text) ON COMMIT DROP;
CREATE TEMP TABLE old_rooms (room_id bigint, created_at timestamptz) ON COMMIT DROP;
CREATE TEMP TABLE old_members (room_id bigint, user_id text COLLATE "C") ON COMMIT DROP;
CREATE TEMP TABLE old_messages (
    id bigint, room_id bigint, sender_id text COLLATE "C", text text,
    created_at timestamptz, edited_at timestamptz, deleted boolean) ON COMMIT DROP;
CREATE TEMP TABLE old_reads (room_id bigint, user_id text COLLATE "C", last_read_id bigint) ON COMMIT DROP;
\copy old_users FROM 'users.csv' CSV
\copy old_rooms FROM 'rooms.csv' CSV
\copy old_members FROM 'members.csv' CSV
\copy old_messages FROM 'messages.csv' CSV
\copy old_reads FROM 'reads.csv' CSV

INSERT INTO users (user_id, name) SELECT user_id, left(name, 256) FROM old_users ON CONFLICT DO NOTHING;

-- Rooms of two. A pair's rooms become one chat with all their messages, because a pair has one chat.
CREATE TEMP TABLE two ON COMMIT DROP AS
SELECT m.room_id, min(m.user_id) AS lo, max(m.user_id) AS hi, min(r.created_at) AS created_at
  FROM old_members m JOIN old_rooms r USING (room_id)
 GROUP BY m.room_id HAVING count(DISTINCT m.user_id) = 2;
CREATE TEMP TABLE new_pairs ON COMMIT DROP AS
SELECT gen_random_uuid() AS chat_id, lo, hi, min(created_at) AS created_at
  FROM two
 WHERE NOT EXISTS (SELECT FROM pairs p WHERE (p.user_lo, p.user_hi) = (two.lo, two.hi))
 GROUP BY lo, hi;

-- `seq` numbers a chat's messages in the order of their times: 1, 2, 3 … Each message's `ev` equals it.
CREATE TEMP TABLE numbered ON COMMIT DROP AS
SELECT p.chat_id, m.*,
       row_number() OVER (PARTITION BY p.chat_id ORDER BY m.created_at, m.id) AS seq
  FROM old_messages m JOIN two USING (room_id) JOIN new_pairs p USING (lo, hi)
 WHERE m.sender_id IN (p.lo, p.hi) AND (m.deleted OR m.text !~ '^\s*$');
CREATE INDEX ON numbered (chat_id, seq);
ANALYZE numbered;

-- Texts end at 4,000 characters. Deleted ones come without their content, which Beseda never keeps.
INSERT INTO messages (chat_id, seq, message_id, ev, counted, sender_id, text, metadata, created_at, edited_at, deleted_at)
SELECT chat_id, seq, gen_random_uuid(), seq, seq, sender_id,
       CASE WHEN deleted THEN '' ELSE left(text, 4000) END,
       CASE WHEN NOT deleted THEN json_build_object('imported_id', id) END,
       created_at,
       CASE WHEN NOT deleted THEN edited_at END,
       CASE WHEN deleted THEN coalesce(edited_at, created_at) END
  FROM numbered;

-- How far each of the two had read. A marker past 0 is a change too, with an `ev` of its own.
CREATE TEMP TABLE marked ON COMMIT DROP AS
SELECT chat_id, user_id, read_seq,
       CASE WHEN read_seq > 0
            THEN row_number() OVER (PARTITION BY chat_id, read_seq > 0 ORDER BY user_id) ELSE 0 END AS nth
  FROM (SELECT p.chat_id, u.user_id,
               coalesce((SELECT max(n.seq) FROM old_reads r JOIN numbered n USING (room_id)
                          WHERE r.user_id = u.user_id AND n.chat_id = p.chat_id AND n.id <= r.last_read_id), 0) AS read_seq
          FROM new_pairs p CROSS JOIN LATERAL (VALUES (p.lo), (p.hi)) u (user_id)) m;
CREATE TEMP TABLE heads ON COMMIT DROP AS
SELECT p.*, coalesce(n.last_seq, 0) AS last_seq, n.last_message_at, coalesce(n.dead, 0) AS dead,
       coalesce(n.last_dead_seq, 0) AS last_dead_seq,
       coalesce(n.last_seq, 0) + (SELECT max(nth) FROM marked m WHERE m.chat_id = p.chat_id) AS last_ev,
       coalesce(n.first_sender, p.lo) AS created_by
  FROM new_pairs p
  LEFT JOIN (SELECT chat_id, max(seq) AS last_seq, max(created_at) AS last_message_at,
                    max(sender_id) FILTER (WHERE seq = 1) AS first_sender,
                    count(*) FILTER (WHERE deleted) AS dead, max(seq) FILTER (WHERE deleted) AS last_dead_seq
               FROM numbered GROUP BY chat_id) n USING (chat_id);

-- `room_name`: 128 random bits in base64url, which nobody can guess.
INSERT INTO chats (chat_id, kind, room_name, created_by, created_at, last_seq, last_ev, last_counted,
                   last_message_at, active_at, dead, last_dead_seq, member_count)
SELECT chat_id, 'direct',
       translate(rtrim(encode(substr(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 1, 16), 'base64'), '='), '+/', '-_'),
       created_by, created_at, last_seq, last_ev, last_seq, last_message_at,
       coalesce(last_message_at, created_at), dead, last_dead_seq, 2
  FROM heads;
INSERT INTO pairs (user_lo, user_hi, chat_id) SELECT lo, hi, chat_id FROM heads;
INSERT INTO chat_names (room_name, chat_id) SELECT c.room_name, c.chat_id FROM chats c JOIN heads USING (chat_id);
INSERT INTO dead_blocks (chat_id, block, dead)
SELECT chat_id, seq >> 12, count(*) FROM numbered WHERE deleted GROUP BY chat_id, seq >> 12;
-- Unread messages are counted from the read marker on, without one's own.
INSERT INTO members (chat_id, user_id, joined_at, read_seq, floor_seq, floor_counted, own_after, read_ev)
SELECT m.chat_id, m.user_id, h.created_at, m.read_seq, m.read_seq, m.read_seq,
       (SELECT count(*) FROM numbered n
         WHERE n.chat_id = m.chat_id AND n.seq > m.read_seq AND n.sender_id = m.user_id AND NOT n.deleted),
       CASE WHEN m.nth > 0 THEN h.last_seq + m.nth ELSE 0 END
  FROM marked m JOIN heads h USING (chat_id);

-- The outbox has running replicas update their counters in Redis and open inboxes, 100 chats at a time.
INSERT INTO outbox (chats)
SELECT array_agg(chat_id) FROM (SELECT chat_id, (row_number() OVER () - 1) / 100 AS batch FROM heads) h GROUP BY batch;

SELECT (SELECT count(*) FROM heads) AS rooms,
       (SELECT count(*) FROM numbered) AS messages,
       (SELECT count(*) FROM numbered WHERE NOT deleted AND char_length(text) > 4000) AS cut,
       (SELECT count(*) FROM old_messages) - (SELECT count(*) FROM numbered) AS messages_left_out,
       (SELECT count(*) FROM old_rooms) - (SELECT count(*) FROM two) AS rooms_not_of_two;
COMMIT;
ANALYZE chats, members, messages, users;
