//! A record of all memberships of groups, which a trigger of this program's own keeps in the transactions of
//! the service: what is true at each `ev`, also after it was superseded.

use std::collections::HashMap;

use beseda_protocol::model::{ChatId, Role};
use tokio_postgres::{Client, Error};

use super::stored::word;

/// Longest time from the statement to its commit, in microseconds: a fault may come in between.
const COMMIT: i64 = 10_000_000;

const INSTALL: &str = "
CREATE TABLE chaos_members (
    n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, chat_id uuid, user_id text COLLATE \"C\", ev bigint,
    is_in boolean, role text, first_seq bigint, at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION chaos_members() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos_members (chat_id, user_id, ev, is_in, role, first_seq)
    VALUES (NEW.chat_id, NEW.user_id, NEW.member_ev, NEW.left_ev IS NULL, NEW.role::text, NEW.first_seq);
    RETURN NULL;
END
$$;
CREATE TRIGGER chaos_members AFTER INSERT OR UPDATE OF member_ev, role ON members
   FOR EACH ROW WHEN (NEW.member_ev > 0) EXECUTE FUNCTION chaos_members()";

const READ: &str = "
SELECT chat_id::text, user_id::text, ev, is_in, role, first_seq, (extract(epoch FROM at) * 1000000)::bigint
  FROM chaos_members ORDER BY n";

/// Who a user is in a group from a revision on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub ev: i64,
    pub is_in: bool,
    pub role: Role,
    pub first_seq: i64,
    /// Microseconds since 1970, before the commit.
    pub at: i64,
}

/// The entries of each group and user, ascending by `ev`.
#[derive(Debug, Default)]
pub(super) struct Audit(HashMap<(ChatId, String), Vec<Entry>>);

pub(super) async fn install(client: &Client) -> Result<(), Error> {
    client.batch_execute(INSTALL).await
}

pub(super) async fn read(client: &Client) -> Result<Audit, Error> {
    let mut audit = Audit::default();
    for row in client.query(READ, &[]).await? {
        let chat_id = row.get::<_, &str>(0).parse().unwrap_or_default();
        let role = word(row.get(4)).unwrap_or(Role::Member);
        let entry = Entry {
            ev: row.get(2),
            is_in: row.get(3),
            role,
            first_seq: row.get(5),
            at: row.get(6),
        };
        audit.add(chat_id, row.get(1), entry);
    }
    Ok(audit)
}

impl Audit {
    pub(super) fn add(&mut self, chat_id: ChatId, user: String, entry: Entry) {
        let entries = self.0.entry((chat_id, user)).or_default();
        entries.retain(|before| before.ev != entry.ev);
        entries.push(entry);
    }

    pub(super) fn of(&self, chat_id: ChatId, user: &str) -> Member<'_> {
        Member(self.0.get(&(chat_id, user.to_owned())).map_or(&[], Vec::as_slice))
    }
}

/// A user's entries in one group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member<'a>(pub &'a [Entry]);

impl<'a> Member<'a> {
    /// Returns the entry that is in force at a revision; `None`: the user was never in by then.
    pub(super) fn at(self, ev: i64) -> Option<&'a Entry> {
        self.0.iter().rev().find(|entry| entry.ev <= ev)
    }

    pub(super) fn is_in(self, ev: i64) -> bool {
        self.at(ev).is_some_and(|entry| entry.is_in)
    }

    /// True if the user is out at a revision, and was before it.
    pub(super) fn was_out_before(self, ev: i64) -> bool {
        self.at(ev).is_none_or(|entry| !entry.is_in && entry.ev < ev)
    }

    /// True if the user comes in at some revision after `ev`.
    pub(super) fn comes_in_after(self, ev: i64) -> bool {
        self.0.iter().any(|entry| entry.ev > ev && entry.is_in)
    }

    /// True if the user goes out at some revision after `ev`.
    pub(super) fn goes_out_after(self, ev: i64) -> bool {
        self.0.iter().any(|entry| entry.ev > ev && !entry.is_in)
    }

    /// The lowest message that the user could ever see.
    pub(super) fn lowest_seq(self) -> i64 {
        let seqs = self.0.iter().filter(|entry| entry.is_in).map(|entry| entry.first_seq);
        seqs.min().unwrap_or(i64::MAX)
    }

    /// True if the user may have been out at some moment between two, in microseconds since 1970.
    pub(super) fn may_be_out(self, from: i64, to: i64) -> bool {
        let mut out_since = Some(i64::MIN);
        for entry in self.0 {
            match (out_since, entry.is_in) {
                (Some(since), true) if since < to && entry.at + COMMIT > from => return true,
                (_, true) => out_since = None,
                (None, false) => out_since = Some(entry.at),
                (Some(_), false) => {}
            }
        }
        out_since.is_some_and(|since| since < to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_membership_has_a_beginning_an_end_and_perhaps_another_beginning() {
        let entry = |ev, is_in, first_seq, at: i64| Entry {
            ev,
            is_in,
            role: Role::Member,
            first_seq,
            at: at * 1_000_000,
        };
        let mut audit = Audit::default();
        for entry in [entry(3, true, 1, 100), entry(8, false, 1, 200), entry(12, true, 5, 300)] {
            audit.add(ChatId::nil(), "alice".to_owned(), entry);
        }
        let alice = audit.of(ChatId::nil(), "alice");
        assert!(!alice.is_in(2) && alice.is_in(3) && alice.is_in(7) && !alice.is_in(8));
        assert!(!alice.was_out_before(8) && alice.was_out_before(9) && alice.is_in(12));
        assert!(alice.comes_in_after(8) && !alice.comes_in_after(12) && !alice.goes_out_after(8));
        assert_eq!(alice.lowest_seq(), 1);
        let second = 1_000_000;
        assert!(alice.may_be_out(50 * second, 60 * second));
        assert!(!alice.may_be_out(120 * second, 130 * second));
        assert!(alice.may_be_out(120 * second, 201 * second));
        assert!(!alice.may_be_out(320 * second, 330 * second));
        assert!(audit.of(ChatId::nil(), "bob").may_be_out(0, second));
    }
}
