-- A person's tokens can be revoked: those issued before that moment are refused. Replicas of the
-- release before this one keep calling admit_user, which does not look at it.

-- Tokens issued before it are void; null: none was ever revoked.
ALTER TABLE users ADD COLUMN tokens_revoked_at timestamptz;

-- As admit_user, for the bearer of a token issued at in_issued_at (null: it does not say, and counts
-- as older than any revocation). What a revoked token claims changes nothing; the caller, who also
-- remembers revoked_at, refuses it.
CREATE FUNCTION admit_bearer(
    in_user text, in_name text, in_avatar_url text, in_issued_at timestamptz)
RETURNS TABLE (erased boolean, revoked_at timestamptz) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    SELECT u.erased_at IS NOT NULL, u.tokens_revoked_at INTO erased, revoked_at
      FROM users u WHERE u.user_id = in_user;
    IF revoked_at IS NULL OR in_issued_at >= revoked_at THEN
        erased := NOT admit_user(in_user, in_name, in_avatar_url);
    END IF;
    RETURN NEXT;
END
$$;
