-- Exports the old chat as CSV files into the folder where psql runs. Adapt this part to your own tables;
-- the import needs only these columns. Stop the old chat before you run it:
--
--   psql "$OLD_DATABASE_URL" -f export.sql
--
-- The first column of users must be the `sub` of their tokens.
\set ON_ERROR_STOP on
\copy (SELECT id, coalesce(nullif(trim(first_name || ' ' || last_name), ''), username) FROM auth_user) TO 'users.csv' CSV
\copy (SELECT id, created_at FROM chat_room) TO 'rooms.csv' CSV
\copy (SELECT room_id, user_id FROM chat_room_members) TO 'members.csv' CSV
\copy (SELECT id, room_id, author_id, body, created_at, edited_at, is_deleted FROM chat_message) TO 'messages.csv' CSV
\copy (SELECT room_id, user_id, last_read_id FROM chat_readmarker) TO 'reads.csv' CSV
