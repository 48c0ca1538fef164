-- A small chat of a typical Django Channels application, to test the import. It has what such tables
-- have after some years: a pair with two rooms, a group, empty and overlong messages, two messages
-- of one moment, soft deletions, and the read marker of a user who never wrote.

CREATE TABLE auth_user (id int PRIMARY KEY, username text, first_name text, last_name text);
INSERT INTO auth_user VALUES
    (1, 'alice', 'Alice', 'Smith'), (2, 'bob', '', ''), (3, 'carol', 'Carol', ''), (10, 'dan', '', '');

CREATE TABLE chat_room (id int PRIMARY KEY, slug text, created_at timestamptz);
INSERT INTO chat_room VALUES
    (1, 'alice-bob', '2024-01-01 10:00Z'), (2, 'bob-alice', '2024-02-01 10:00Z'),
    (3, 'team', '2024-01-02 10:00Z'), (4, 'carol-dan', '2024-01-03 10:00Z');

CREATE TABLE chat_room_members (room_id int, user_id int);
INSERT INTO chat_room_members VALUES (1, 1), (1, 2), (2, 2), (2, 1), (3, 1), (3, 2), (3, 3), (4, 3), (4, 10);

CREATE TABLE chat_message (
    id int PRIMARY KEY, room_id int, author_id int, body text,
    created_at timestamptz, edited_at timestamptz, is_deleted boolean DEFAULT false);
INSERT INTO chat_message VALUES
    (1, 1, 1, 'Привет, Боб!', '2024-01-01 10:01Z', NULL, false),
    (2, 1, 2, 'Hello', '2024-01-01 10:02Z', '2024-01-01 10:03Z', false),
    (3, 1, 1, 'oops, wrong window', '2024-01-01 10:04Z', NULL, true),
    (4, 1, 1, E'  \n', '2024-01-01 10:05Z', NULL, false),
    (5, 3, 3, 'to the whole team', '2024-01-02 10:00Z', NULL, false),
    (6, 2, 2, 'a second room by accident', '2024-02-01 10:00Z', NULL, false),
    (7, 1, 2, 'back in the first one', '2024-02-01 10:00Z', NULL, false),
    (8, 1, 1, repeat('long ', 1000), '2024-02-01 10:01Z', NULL, false);

CREATE TABLE chat_readmarker (room_id int, user_id int, last_read_id int);
INSERT INTO chat_readmarker VALUES (1, 1, 2), (1, 2, 8), (3, 1, 5);
