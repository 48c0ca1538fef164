-- Push: devices, what they were told, and the two queues that decide what they are told next.
--
-- No send writes a row for a push. A message leaves its row in the outbox as ever; when that row is deleted, outside
-- of every sender's way, its chats go into the first queue (`push_chats`), one row a chat however many messages. Once
-- a message has been unread for the delay, its chat is walked (walk_push): members who have devices and want to be
-- told get a mark for each device, and the device's lane, which is the second queue, becomes due. Whoever holds a lane
-- looks at what its device ought to show, as things are then, and sends the difference.
--
-- A lane is locked before the marks of its device, lanes in the order (user_id, device_id), and after chats.

CREATE TYPE push_platform AS ENUM ('webpush', 'fcm', 'apns');

-- Devices that users have registered.
CREATE TABLE devices (
    user_id    text COLLATE "C" NOT NULL,
    -- The client's own id.
    device_id  text COLLATE "C" NOT NULL CHECK (char_length(device_id) BETWEEN 1 AND 64),
    platform   push_platform NOT NULL,
    -- The provider's name of the device; of webpush its endpoint, a URL.
    token      text COLLATE "C" NOT NULL CHECK (char_length(token) BETWEEN 1 AND 4096),
    -- Of webpush: the device's public key (an uncompressed point of P-256), and the secret of its subscription.
    p256dh     bytea CHECK (length(p256dh) = 65),
    auth       bytea CHECK (length(auth) = 16),
    -- SHA-256 of platform and token: one device of one user has them.
    token_key  bytea NOT NULL CHECK (length(token_key) = 32),
    locale     text CHECK (char_length(locale) <= 35),
    -- Messages' texts are sent to it.
    preview    boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When it was registered last.
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (user_id, device_id),
    CHECK ((platform = 'webpush') = (p256dh IS NOT NULL AND auth IS NOT NULL))
);
-- A directory, as it leads from a token to its user.
CREATE UNIQUE INDEX devices_by_token ON devices (token_key);

-- What is to be done for a device: one row each, so that one push at a time is sent to it, in order, from any replica.
CREATE TABLE push_lanes (
    user_id       text COLLATE "C" NOT NULL,
    device_id     text COLLATE "C" NOT NULL,
    -- When somebody may take the lane and look; null: nothing has happened. Whoever takes it sets this to the end of
    -- the lease, so that a replica that dies strands nothing; after a failure it is the end of the pause.
    due_at        timestamptz,
    -- Something has happened since the lane was taken: who ends the turn has it looked at once more.
    again         boolean NOT NULL DEFAULT false,
    -- Counts how often it was taken: a replica whose lease ran out finds another number.
    turn          bigint NOT NULL DEFAULT 0,
    -- The badge that the device was given last; 0 also where it was given none.
    badge         bigint NOT NULL DEFAULT 0,
    -- Failed attempts in a row, when the first of them was, and why the last one failed.
    attempts      integer NOT NULL DEFAULT 0,
    failing_since timestamptz,
    last_error    text CHECK (char_length(last_error) <= 200),
    PRIMARY KEY (user_id, device_id)
) WITH (fillfactor = 70);
CREATE INDEX push_lanes_by_due ON push_lanes (due_at) WHERE due_at IS NOT NULL;

-- What a device is to be told of a chat, and what it was told and may still show.
CREATE TABLE push_marks (
    user_id     text COLLATE "C" NOT NULL,
    device_id   text COLLATE "C" NOT NULL,
    chat_id     uuid NOT NULL,
    -- Identifies a push that was given up.
    push_id     bigint GENERATED ALWAYS AS IDENTITY,
    -- The newest message to tell of, which stands for those before it; null: none.
    want_seq    bigint,
    -- The message that the device shows; null: none.
    told_seq    bigint,
    -- When the push was given up, and why; null: it was not. The next message takes its place.
    dead_at     timestamptz,
    last_error  text CHECK (char_length(last_error) <= 200),
    -- When an operator had it sent again: its age counts from then on.
    replayed_at timestamptz,
    PRIMARY KEY (user_id, device_id, chat_id)
) WITH (fillfactor = 70);
-- What a chat's end takes back.
CREATE INDEX push_marks_by_chat ON push_marks (chat_id, user_id);
CREATE INDEX push_marks_dead ON push_marks (push_id) WHERE dead_at IS NOT NULL;

-- Chats of which devices may have to be told, and how far they were. A row stays, so that a chat is not walked for
-- every change.
CREATE TABLE push_chats (
    chat_id    uuid PRIMARY KEY,
    -- When the chat is to be walked; null: all is done.
    due_at     timestamptz,
    -- All messages up to this one are decided, and all recounts (chats.recount_ev) up to this revision.
    walked_seq bigint NOT NULL DEFAULT 0,
    walked_ev  bigint NOT NULL DEFAULT 0,
    -- Of a walk that has begun: up to where it goes, and the member up to whom all are done. Null: none has.
    to_seq     bigint,
    to_ev      bigint,
    after_id   text COLLATE "C",
    -- Of a direct chat: members.rev of both, in the order of their ids, as when it was noted last: who has moved
    -- since has read, or changed a setting.
    revs       bigint[]
) WITH (fillfactor = 70);
CREATE INDEX push_chats_by_due ON push_chats (due_at) WHERE due_at IS NOT NULL;

-- Makes lanes of these users due whose devices have a badge, as their counters may have fallen, or are being looked at:
-- what was just looked up may be true no more. Returns how many.
CREATE FUNCTION wake_lanes(in_users text[]) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    woken bigint;
BEGIN
    UPDATE push_lanes l SET due_at = coalesce(l.due_at, clock_timestamp()), again = true
      FROM (SELECT x.tid
              FROM (SELECT DISTINCT u.user_id COLLATE "C" AS user_id FROM unnest(in_users) AS u (user_id)
                     ORDER BY 1) u
             CROSS JOIN LATERAL (
                 SELECT l.ctid AS tid FROM push_lanes l
                  WHERE l.user_id = u.user_id AND (l.badge > 0 OR l.due_at IS NOT NULL)
                    AND NOT (l.again AND l.due_at IS NOT NULL)
                  ORDER BY l.user_id, l.device_id FOR NO KEY UPDATE) x) u
     WHERE l.ctid = u.tid;
    GET DIAGNOSTICS woken = ROW_COUNT;
    RETURN woken;
END
$$;

-- Notes that chats have changed, and members' own states (in pairs), as rows of the outbox say it.
CREATE FUNCTION note_push(in_chats uuid[], in_users text[], in_delay interval) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    moved text[];
BEGIN
    WITH changed AS MATERIALIZED (
        SELECT q.chat_id, m.users, m.revs, p.revs AS old_revs,
               -- Null: nothing to walk for. A chat that is gone is walked at once.
               CASE WHEN c.kind IS NULL THEN clock_timestamp()
                    WHEN c.recount_ev > coalesce(p.walked_ev, 0) THEN clock_timestamp()
                    WHEN c.last_seq > coalesce(p.walked_seq, 0) THEN c.last_message_at + in_delay END AS due_at
          FROM (SELECT DISTINCT u.chat_id FROM unnest(in_chats) AS u (chat_id) ORDER BY 1) q
          LEFT JOIN LATERAL (SELECT c.kind, c.last_seq, c.recount_ev, c.last_message_at FROM chats c
                              WHERE c.chat_id = q.chat_id OFFSET 0) c ON true
          LEFT JOIN LATERAL (
              SELECT array_agg(m.user_id) AS users, array_agg(m.rev) AS revs
                FROM (SELECT m.user_id, m.rev FROM members m WHERE m.chat_id = q.chat_id AND c.kind = 'direct'
                       ORDER BY m.chat_id, m.user_id LIMIT 2) m) m ON true
          LEFT JOIN LATERAL (SELECT p.revs, p.walked_seq, p.walked_ev FROM push_chats p
                              WHERE p.chat_id = q.chat_id OFFSET 0) p ON true
    ), noted AS (
        INSERT INTO push_chats AS p (chat_id, due_at, revs)
        SELECT c.chat_id, c.due_at, c.revs FROM changed c
            ON CONFLICT (chat_id) DO UPDATE SET due_at = least(p.due_at, excluded.due_at), revs = excluded.revs
    )
    SELECT array_agg(u.user_id) INTO moved
      FROM changed c CROSS JOIN LATERAL unnest(c.users, c.revs, c.old_revs) AS u (user_id, rev, old_rev)
     WHERE c.old_revs IS NOT NULL AND u.rev <> u.old_rev;
    moved := moved || in_users;
    IF cardinality(moved) > 0 THEN
        PERFORM wake_lanes(moved);
    END IF;
END
$$;

-- Deletes rows of the outbox, as store.delete_outbox does, and notes for push what they say.
CREATE FUNCTION delete_outbox_for_push(in_ids bigint[], in_delay interval) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    chats uuid[];
    users text[];
BEGIN
    -- Without waiting for the disk: a crash brings back the rows of the outbox, too.
    PERFORM set_config('synchronous_commit', 'off', true);
    WITH gone AS (
        DELETE FROM outbox o WHERE o.outbox_id = ANY (in_ids) RETURNING o.chats, o.of_users
    )
    SELECT ARRAY(SELECT c.chat_id FROM gone g CROSS JOIN LATERAL unnest(g.chats) AS c (chat_id)),
           ARRAY(SELECT u.user_id FROM gone g CROSS JOIN LATERAL unnest(g.of_users) AS u (user_id))
      INTO chats, users;
    PERFORM note_push(chats, users, in_delay);
END
$$;

-- Walks up to in_limit chats that are due, a step each: pages of in_page members until in_members were looked at, or
-- in_devices were found; the next step of such a chat is due in_pace later for each device, so that the devices of a
-- large group come in a stream and not in a flood. Returns how many chats, and whether one of them is not at its end.
-- What a walk finds are messages that are older than the delay; of a chat that was not walked for long, the last 1,000
-- at most, not older than in_age. A row's lock is its lease: a replica that dies in the middle has done nothing.
CREATE FUNCTION walk_push(
    in_limit bigint, in_page bigint, in_members bigint, in_devices bigint, in_pace interval,
    in_delay interval, in_age interval, in_platforms push_platform[])
RETURNS TABLE (walked bigint, unfinished boolean) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    taken uuid[];
    of_chat uuid;
    walk push_chats;
    chat record;
    instant timestamptz;
    next_at timestamptz;
    last_id text;
    found_members bigint;
    members_of_step bigint;
    devices_of_step bigint;
    users text[];
    devices_of text[];
    seqs bigint[];
    -- What all the chats say, one a device and chat; and users whose counters may have fallen.
    want_users text[] := '{}';
    want_devices text[] := '{}';
    want_chats uuid[] := '{}';
    want_seqs bigint[] := '{}';
    recounted text[] := '{}';
BEGIN
    -- Without waiting for the disk: a crash takes back the marks and how far the walk was, together.
    PERFORM set_config('synchronous_commit', 'off', true);
    taken := ARRAY(SELECT p.chat_id FROM push_chats p WHERE p.due_at <= clock_timestamp()
                    ORDER BY p.due_at LIMIT in_limit FOR UPDATE SKIP LOCKED);
    walked := cardinality(taken);
    unfinished := false;
    FOREACH of_chat IN ARRAY taken LOOP
        SELECT * INTO walk FROM push_chats p WHERE p.chat_id = of_chat;
        SELECT c.recount_ev, c.blocked OR c.erased AS closed INTO chat FROM chats c WHERE c.chat_id = of_chat;
        IF NOT FOUND THEN
            recounted := recounted || ARRAY(SELECT k.user_id FROM push_marks k WHERE k.chat_id = of_chat);
            DELETE FROM push_chats p WHERE p.chat_id = of_chat;
            CONTINUE;
        END IF;
        instant := clock_timestamp();
        IF walk.to_seq IS NULL THEN
            walk.to_seq := coalesce(
                (SELECT m.seq FROM messages m
                  WHERE m.chat_id = of_chat AND m.seq > walk.walked_seq AND m.created_at <= instant - in_delay
                  ORDER BY m.chat_id DESC, m.seq DESC LIMIT 1), walk.walked_seq);
            walk.to_ev := chat.recount_ev;
            walk.after_id := '';
        END IF;

        members_of_step := 0;
        devices_of_step := 0;
        LOOP
            last_id := NULL;
            IF walk.to_seq > walk.walked_seq OR walk.to_ev > walk.walked_ev THEN
                SELECT array_agg(m.user_id), max(m.user_id) INTO users, last_id
                  FROM (SELECT m.user_id FROM members m WHERE m.chat_id = of_chat AND m.user_id > walk.after_id
                         ORDER BY m.chat_id, m.user_id LIMIT in_page) m;
            END IF;
            EXIT WHEN last_id IS NULL;
            found_members := cardinality(users);
            IF walk.to_ev > walk.walked_ev THEN
                recounted := recounted || users;
                SELECT devices_of_step + count(*) INTO devices_of_step
                  FROM unnest(users) AS u (user_id)
                 CROSS JOIN LATERAL (SELECT FROM push_lanes l WHERE l.user_id = u.user_id
                                        AND (l.badge > 0 OR l.due_at IS NOT NULL)) l;
            END IF;
            IF walk.to_seq > walk.walked_seq AND NOT chat.closed THEN
                WITH news AS MATERIALIZED (
                    SELECT m.seq, m.sender_id, m.mentions
                      FROM messages m
                     CROSS JOIN LATERAL (SELECT u.erased_at FROM users u WHERE u.user_id = m.sender_id OFFSET 0) u
                     WHERE m.chat_id = of_chat AND m.seq > greatest(walk.walked_seq, walk.to_seq - 1000)
                       AND m.seq <= walk.to_seq AND m.created_at > instant - in_age
                       AND m.deleted_at IS NULL AND u.erased_at IS NULL
                ), wants AS (
                    SELECT d.user_id, d.device_id, n.seq
                      FROM members p
                     CROSS JOIN LATERAL (
                         SELECT max(n.seq) AS seq FROM news n
                          WHERE n.sender_id <> p.user_id AND n.seq > p.read_seq AND n.seq >= p.first_seq
                            AND n.seq > p.joined_seq
                            AND (p.notify = 'all' OR n.mentions::text[] && ARRAY[p.user_id, chr(1)])) n
                     CROSS JOIN LATERAL (
                         SELECT d.user_id, d.device_id FROM devices d
                          WHERE d.user_id = p.user_id AND n.seq IS NOT NULL AND d.platform = ANY (in_platforms)
                          ORDER BY d.user_id, d.device_id) d
                     WHERE p.chat_id = of_chat AND p.user_id > walk.after_id AND p.user_id <= last_id
                       AND p.left_ev IS NULL AND p.notify <> 'none' AND NOT p.archived
                     ORDER BY p.chat_id, p.user_id
                )
                SELECT array_agg(w.user_id), array_agg(w.device_id), array_agg(w.seq)
                  INTO users, devices_of, seqs FROM wants w;
                want_users := want_users || users;
                want_devices := want_devices || devices_of;
                want_chats := want_chats || array_fill(of_chat, ARRAY[coalesce(cardinality(users), 0)]);
                want_seqs := want_seqs || seqs;
                devices_of_step := devices_of_step + coalesce(cardinality(users), 0);
            END IF;
            members_of_step := members_of_step + found_members;
            walk.after_id := last_id;
            IF found_members < in_page THEN
                last_id := NULL;
            END IF;
            EXIT WHEN last_id IS NULL OR members_of_step >= in_members OR devices_of_step >= in_devices;
        END LOOP;

        IF last_id IS NOT NULL THEN
            unfinished := true;
            -- From when it was due, so that whoever looks a moment later does not slow the stream.
            UPDATE push_chats p
               SET due_at = greatest(walk.due_at, instant - interval '500 milliseconds') + devices_of_step * in_pace,
                   to_seq = walk.to_seq, to_ev = walk.to_ev, after_id = last_id
             WHERE p.chat_id = of_chat;
            CONTINUE;
        END IF;
        -- A chat that is written to all the time is walked twice a second at most.
        SELECT greatest(m.created_at + in_delay, instant + interval '500 milliseconds') INTO next_at
          FROM messages m WHERE m.chat_id = of_chat AND m.seq > walk.to_seq ORDER BY m.chat_id, m.seq LIMIT 1;
        UPDATE push_chats p
           SET due_at = next_at, walked_seq = walk.to_seq, walked_ev = walk.to_ev,
               to_seq = NULL, to_ev = NULL, after_id = NULL
         WHERE p.chat_id = of_chat;
    END LOOP;

    IF cardinality(want_users) + cardinality(recounted) > 0 THEN
        -- The lanes of all the chats at once, in their order: chat by chat they would be locked against it.
        SELECT array_agg(l.user_id), array_agg(l.device_id) INTO users, devices_of
          FROM (SELECT u.user_id, bool_or(u.wants) AS wants
                  FROM (SELECT w.user_id COLLATE "C" AS user_id, true AS wants FROM unnest(want_users) AS w (user_id)
                        UNION ALL SELECT r.user_id, false FROM unnest(recounted) AS r (user_id)) u
                 GROUP BY 1 ORDER BY 1) u
         CROSS JOIN LATERAL (
             SELECT l.user_id, l.device_id FROM push_lanes l
              WHERE l.user_id = u.user_id AND (u.wants OR l.badge > 0 OR l.due_at IS NOT NULL)
              ORDER BY l.user_id, l.device_id FOR NO KEY UPDATE) l;
        -- A device that was removed meanwhile has no lane.
        INSERT INTO push_marks AS k (user_id, device_id, chat_id, want_seq)
        SELECT w.user_id, w.device_id, w.chat_id, w.seq
          FROM unnest(want_users, want_devices, want_chats, want_seqs) AS w (user_id, device_id, chat_id, seq)
          JOIN unnest(users, devices_of) AS l (user_id, device_id) USING (user_id, device_id)
            ON CONFLICT (user_id, device_id, chat_id) DO UPDATE
           SET want_seq = excluded.want_seq, dead_at = NULL, last_error = NULL, replayed_at = NULL
         WHERE coalesce(k.told_seq, 0) < excluded.want_seq;
        UPDATE push_lanes l SET due_at = coalesce(l.due_at, clock_timestamp()), again = true
          FROM (SELECT x.tid
                  FROM (SELECT DISTINCT w.user_id, w.device_id
                          FROM unnest(want_users, want_devices) AS w (user_id, device_id)) w
                 CROSS JOIN LATERAL (
                     SELECT l.ctid AS tid FROM push_lanes l
                      WHERE l.user_id = w.user_id AND l.device_id = w.device_id
                        AND NOT (l.again AND l.due_at IS NOT NULL) OFFSET 0) x) w
         WHERE l.ctid = w.tid;
        PERFORM wake_lanes(recounted);
    END IF;
    RETURN NEXT;
END
$$;

-- Stores what became of pushes, one of each lane at most, in the order (user_id, device_id), and returns whether each
-- lane is still in_turn's. in_outcome:
--   told       the device shows in_seq of the chat, and has this badge
--   withdrawn  it shows nothing of the chat any more, and has this badge
--   badge      it has this badge
--   void       up to in_seq there is nothing to tell
--   dead       given up
--   end        the lane's turn is over
--   retry      it is over, and the next one begins after in_pause seconds
--   gone       the provider knows the device no more; in_key is the one that it was asked for
-- What was sent counts even if the lease ran out. The lane is kept for in_lease more, but after the last three, and
-- where in_lasts says that nothing follows.
CREATE FUNCTION settle_push(
    in_users text[], in_devices text[], in_turns bigint[], in_outcomes text[], in_chats uuid[], in_seqs bigint[],
    in_badges bigint[], in_pauses float8[], in_errors text[], in_keys bytea[], in_lasts boolean[], in_lease interval)
RETURNS TABLE (ours boolean) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    lane push_lanes;
    outcome text;
    is_over boolean;
    lease_end timestamptz := clock_timestamp() + in_lease;
    retry_at timestamptz;
BEGIN
    PERFORM FROM unnest(in_users, in_devices) AS q (user_id, device_id)
      CROSS JOIN LATERAL (SELECT FROM push_lanes l WHERE l.user_id = q.user_id AND l.device_id = q.device_id
                             FOR NO KEY UPDATE) l;
    FOR i IN 1 .. cardinality(in_users) LOOP
        outcome := in_outcomes[i];
        SELECT * INTO lane FROM push_lanes l WHERE l.user_id = in_users[i] AND l.device_id = in_devices[i];
        ours := coalesce(lane.turn = in_turns[i], false);
        IF outcome = 'told' THEN
            UPDATE push_marks k
               SET told_seq = greatest(k.told_seq, in_seqs[i]),
                   want_seq = CASE WHEN k.want_seq > in_seqs[i] THEN k.want_seq END,
                   dead_at = NULL, last_error = NULL, replayed_at = NULL
             WHERE k.user_id = in_users[i] AND k.device_id = in_devices[i] AND k.chat_id = in_chats[i];
        ELSIF outcome IN ('withdrawn', 'void') THEN
            DELETE FROM push_marks k
             WHERE k.user_id = in_users[i] AND k.device_id = in_devices[i] AND k.chat_id = in_chats[i]
               AND coalesce(k.want_seq, 0) <= in_seqs[i]
               AND coalesce(k.told_seq, 0) <= CASE outcome WHEN 'withdrawn' THEN in_seqs[i] ELSE 0 END;
            IF NOT FOUND THEN
                -- What was told since stays: this replica's lease may have run out.
                UPDATE push_marks k
                   SET told_seq = CASE WHEN outcome = 'void' OR k.told_seq > in_seqs[i] THEN k.told_seq END,
                       want_seq = CASE WHEN k.want_seq > in_seqs[i] THEN k.want_seq END
                 WHERE k.user_id = in_users[i] AND k.device_id = in_devices[i] AND k.chat_id = in_chats[i];
            END IF;
        ELSIF outcome = 'dead' THEN
            UPDATE push_marks k
               SET dead_at = clock_timestamp(), last_error = in_errors[i], replayed_at = NULL
             WHERE k.user_id = in_users[i] AND k.device_id = in_devices[i] AND k.chat_id = in_chats[i]
               AND k.want_seq <= in_seqs[i];
        ELSIF outcome = 'gone' AND ours THEN
            PERFORM drop_device(d.user_id, d.device_id) FROM devices d
              WHERE d.user_id = in_users[i] AND d.device_id = in_devices[i] AND d.token_key = in_keys[i];
        END IF;
        IF ours THEN
            is_over := in_lasts[i] OR outcome IN ('end', 'retry', 'gone');
            retry_at := clock_timestamp() + in_pauses[i] * interval '1 second';
            UPDATE push_lanes l
               SET badge = coalesce(in_badges[i], l.badge),
                   attempts = CASE WHEN outcome = 'retry' THEN l.attempts + 1
                                   WHEN in_badges[i] IS NOT NULL THEN 0 ELSE l.attempts END,
                   failing_since = CASE WHEN outcome = 'retry' THEN coalesce(l.failing_since, clock_timestamp())
                                        WHEN in_badges[i] IS NULL THEN l.failing_since END,
                   last_error = CASE WHEN outcome = 'retry' THEN in_errors[i]
                                     WHEN in_badges[i] IS NULL THEN l.last_error END,
                   due_at = CASE WHEN outcome = 'retry' THEN retry_at
                                 WHEN NOT is_over THEN lease_end
                                 WHEN l.again THEN clock_timestamp() END
             WHERE l.user_id = in_users[i] AND l.device_id = in_devices[i];
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;

-- Registers a device, or registers it anew. A token or subscription that another device or another user has changes
-- hands. Of more than in_most devices of a user those registered longest ago go. Returns ok, erased (the user), or
-- revoked (the token that the call came with, meanwhile: what such a call registers would outlive it).
CREATE FUNCTION put_device(
    in_user text, in_issued_at timestamptz, in_device text, in_platform push_platform, in_token text, in_p256dh bytea, in_auth bytea,
    in_key bytea, in_locale text, in_preview boolean, in_most bigint)
RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    known users;
    old_key bytea;
BEGIN
    -- One after the other: by user, so that they are counted, then by token.
    SELECT * INTO known FROM users u WHERE u.user_id = in_user FOR NO KEY UPDATE;
    IF NOT FOUND OR known.erased_at IS NOT NULL THEN
        RETURN 'erased';
    END IF;
    IF known.tokens_revoked_at > coalesce(in_issued_at, '-infinity') THEN
        RETURN 'revoked';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended(encode(in_key, 'hex'), 0));
    -- All lanes that may be touched, in their order.
    PERFORM FROM (SELECT in_user COLLATE "C" AS user_id
                  UNION SELECT d.user_id FROM devices d WHERE d.token_key = in_key ORDER BY 1) u
      CROSS JOIN LATERAL (SELECT FROM push_lanes l WHERE l.user_id = u.user_id
                           ORDER BY l.user_id, l.device_id FOR NO KEY UPDATE) l;
    PERFORM drop_device(d.user_id, d.device_id) FROM devices d
      WHERE d.token_key = in_key AND (d.user_id, d.device_id) <> (in_user, in_device);
    -- Not before: whoever held the lane may have dropped it.
    INSERT INTO push_lanes (user_id, device_id) VALUES (in_user, in_device) ON CONFLICT DO NOTHING;
    SELECT d.token_key INTO old_key FROM devices d WHERE d.user_id = in_user AND d.device_id = in_device;
    IF old_key <> in_key THEN
        -- What failed was the old one; whoever pushes to it has the lane no more.
        UPDATE push_lanes l
           SET due_at = clock_timestamp(), turn = l.turn + 1, attempts = 0,
               failing_since = NULL, last_error = NULL
         WHERE l.user_id = in_user AND l.device_id = in_device;
    END IF;
    INSERT INTO devices AS d (user_id, device_id, platform, token, p256dh, auth, token_key, locale, preview)
    VALUES (in_user, in_device, in_platform, in_token, in_p256dh, in_auth, in_key, in_locale, in_preview)
        ON CONFLICT (user_id, device_id) DO UPDATE
       SET platform = excluded.platform, token = excluded.token, p256dh = excluded.p256dh, auth = excluded.auth,
           token_key = excluded.token_key, locale = excluded.locale, preview = excluded.preview,
           updated_at = clock_timestamp();
    PERFORM drop_device(in_user, d.device_id)
       FROM (SELECT d.device_id, row_number() OVER (ORDER BY d.updated_at DESC) AS place
               FROM devices d WHERE d.user_id = in_user) d
      WHERE d.place > in_most;
    RETURN 'ok';
END
$$;

-- Forgets a device, and all that it was told.
CREATE FUNCTION drop_device(in_user text, in_device text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    DELETE FROM push_lanes l WHERE l.user_id = in_user AND l.device_id = in_device;
    DELETE FROM push_marks k WHERE k.user_id = in_user AND k.device_id = in_device;
    DELETE FROM devices d WHERE d.user_id = in_user AND d.device_id = in_device;
END
$$;

-- Forgets all devices of a user; returns how many.
CREATE FUNCTION drop_devices(in_user text) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    dropped bigint;
BEGIN
    PERFORM FROM push_lanes l WHERE l.user_id = in_user ORDER BY l.user_id, l.device_id FOR NO KEY UPDATE;
    SELECT count(drop_device(in_user, d.device_id)) INTO dropped
      FROM (SELECT d.device_id FROM devices d WHERE d.user_id = in_user ORDER BY d.user_id, d.device_id) d;
    RETURN dropped;
END
$$;

-- Has pushes that were given up sent again as if new (in_replay), or discards them: one, or all (null), of these the
-- next in_most after in_after. Returns how many, and the last number.
CREATE FUNCTION end_dead_pushes(in_push bigint, in_after bigint, in_most bigint, in_replay boolean)
RETURNS TABLE (ended bigint, up_to bigint) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    users text[];
    devices_of text[];
    ids bigint[];
BEGIN
    SELECT array_agg(k.user_id), array_agg(k.device_id), array_agg(k.push_id), max(k.push_id)
      INTO users, devices_of, ids, up_to
      FROM (SELECT k.user_id, k.device_id, k.push_id FROM push_marks k
             WHERE k.dead_at IS NOT NULL AND k.push_id > in_after AND (in_push IS NULL OR k.push_id = in_push)
             ORDER BY k.push_id LIMIT in_most) k;
    PERFORM FROM (SELECT DISTINCT q.user_id COLLATE "C" AS user_id, q.device_id COLLATE "C" AS device_id
                    FROM unnest(users, devices_of) AS q (user_id, device_id) ORDER BY 1, 2) q
      CROSS JOIN LATERAL (SELECT FROM push_lanes l WHERE l.user_id = q.user_id AND l.device_id = q.device_id
                             FOR NO KEY UPDATE) l;
    IF in_replay THEN
        UPDATE push_marks k SET dead_at = NULL, last_error = NULL, replayed_at = clock_timestamp()
         WHERE k.push_id = ANY (ids) AND k.dead_at IS NOT NULL;
        GET DIAGNOSTICS ended = ROW_COUNT;
        UPDATE push_lanes l
           SET due_at = coalesce(l.due_at, clock_timestamp()), again = true, attempts = 0, failing_since = NULL,
               last_error = NULL
          FROM unnest(users, devices_of) AS q (user_id, device_id)
         WHERE l.user_id = q.user_id AND l.device_id = q.device_id;
    ELSE
        -- What the device shows is still taken back one day.
        UPDATE push_marks k SET dead_at = NULL, last_error = NULL, want_seq = NULL
         WHERE k.push_id = ANY (ids) AND k.dead_at IS NOT NULL;
        GET DIAGNOSTICS ended = ROW_COUNT;
        DELETE FROM push_marks k WHERE k.push_id = ANY (ids) AND k.want_seq IS NULL AND k.told_seq IS NULL;
    END IF;
    RETURN NEXT;
END
$$;
