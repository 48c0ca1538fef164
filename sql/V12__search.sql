-- Search over all chats of a user.

-- The number of a chat's last message before a moment, or at it. Times never decrease with numbers, so that it is found
-- by halving; no index has them.
CREATE FUNCTION last_seq_before(in_chat uuid, in_last bigint, in_moment timestamptz, in_inclusive boolean)
RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    low bigint := 0;
    high bigint := in_last;
    middle bigint;
    at timestamptz;
BEGIN
    WHILE low < high LOOP
        middle := (low + high + 1) / 2;
        SELECT m.created_at INTO at FROM messages m WHERE m.chat_id = in_chat AND m.seq = middle;
        IF at < in_moment OR in_inclusive AND at = in_moment THEN
            low := middle;
        ELSE
            high := middle - 1;
        END IF;
    END LOOP;
    RETURN low;
END
$$;
