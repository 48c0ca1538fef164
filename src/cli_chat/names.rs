//! Names of the members of a group, as lines show them.

use std::collections::{HashMap, HashSet};

use beseda_protocol::model::{LeftReason, SystemEvent, SystemEventKind, User, UserId};

/// Names in a line about many.
const MAX_LISTED: usize = 5;

/// Maps users to the names that they are shown by. Without any, as in a chat of two, users are shown by their
/// ids.
#[derive(Debug, Default)]
pub(super) struct Names {
    shown: HashMap<UserId, String>,
    /// All that is shown, so that no two users look the same.
    taken: HashSet<String>,
}

impl Names {
    pub(super) fn has(&self, user: &UserId) -> bool {
        self.shown.contains_key(user)
    }

    /// Notes a user's name. It stays for as long as the program runs.
    pub(super) fn note(&mut self, user: &User) {
        let id = &user.user_id;
        if self.has(id) {
            return;
        }
        let name = user.name.as_ref().filter(|name| !name.trim().is_empty());
        let shown = match name {
            Some(name) if !self.taken.contains(name) => name.clone(),
            Some(name) => format!("{name} ({id})"),
            None => id.to_string(),
        };
        self.taken.insert(shown.clone());
        self.shown.insert(id.clone(), shown);
    }

    /// Returns how a user is shown.
    pub(super) fn of(&self, user: &UserId) -> String {
        self.shown.get(user).cloned().unwrap_or_else(|| user.to_string())
    }

    fn list(&self, users: &[UserId]) -> String {
        let listed: Vec<_> = users.iter().take(MAX_LISTED).map(|user| self.of(user)).collect();
        match users.len().saturating_sub(MAX_LISTED) {
            0 => listed.join(", "),
            more => format!("{} and {more} more", listed.join(", ")),
        }
    }

    /// Says who joined.
    pub(super) fn joined(&self, users: &[UserId], by: Option<&UserId>) -> String {
        match by {
            Some(by) if users != std::slice::from_ref(by) => {
                format!("{} added {}", self.of(by), self.list(users))
            }
            _ => format!("{} joined", self.list(users)),
        }
    }

    /// Says who is out.
    pub(super) fn left(&self, users: &[UserId], by: Option<&UserId>, reason: LeftReason) -> String {
        let how = match reason {
            LeftReason::Removed => "removed",
            LeftReason::Banned => "banned",
            LeftReason::Left | LeftReason::Erased => return format!("{} left", self.list(users)),
        };
        match by {
            Some(by) => format!("{} {how} {}", self.of(by), self.list(users)),
            None => format!("{} was {how}", self.list(users)),
        }
    }

    /// Says what a system message tells.
    pub(super) fn event(&self, event: &SystemEvent) -> String {
        let by = event.by.as_ref();
        match event.event {
            SystemEventKind::MemberJoined => self.joined(&event.user_ids, by),
            SystemEventKind::MemberLeft => self.left(&event.user_ids, by, LeftReason::Left),
            SystemEventKind::MemberRemoved => self.left(&event.user_ids, by, LeftReason::Removed),
            SystemEventKind::OwnerChanged => {
                format!("{} is the owner now", self.list(&event.user_ids))
            }
            SystemEventKind::ChatChanged => {
                let who = by.map_or_else(|| "the application".to_owned(), |by| self.of(by));
                match &event.title {
                    Some(title) => format!("{who} called the chat {title:?}"),
                    None => format!("{who} changed the chat"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str, name: Option<&str>) -> User {
        User {
            user_id: UserId::trusted(id),
            name: name.map(str::to_owned),
            avatar_url: None,
            online: false,
            last_seen_at: None,
        }
    }

    fn ids(ids: &[&str]) -> Vec<UserId> {
        ids.iter().map(|id| UserId::trusted(id)).collect()
    }

    #[test]
    fn no_two_users_look_the_same() {
        let mut names = Names::default();
        for (id, name) in [
            ("alice", Some("Alice")),
            ("mallory", Some("Alice")),
            ("bob", None),
            ("eve", Some("bob")),
        ] {
            names.note(&user(id, name));
        }
        let all = ids(&["alice", "mallory", "bob", "eve", "carol"]);
        let shown: Vec<_> = all.iter().map(|id| names.of(id)).collect();
        assert_eq!(shown, ["Alice", "Alice (mallory)", "bob", "bob (eve)", "carol"]);
    }

    #[test]
    fn lines_say_who_did_it_and_stay_short() {
        let mut names = Names::default();
        names.note(&user("alice", Some("Alice")));
        let (alice, bob) = (UserId::trusted("alice"), ids(&["bob"]));
        assert_eq!(names.joined(&bob, Some(&alice)), "Alice added bob");
        assert_eq!(names.joined(&bob, bob.first()), "bob joined");
        assert_eq!(names.joined(&bob, None), "bob joined");
        assert_eq!(names.left(&bob, bob.first(), LeftReason::Left), "bob left");
        assert_eq!(names.left(&bob, Some(&alice), LeftReason::Removed), "Alice removed bob");
        assert_eq!(names.left(&bob, None, LeftReason::Banned), "bob was banned");
        let many = ids(&["a", "b", "c", "d", "e", "f", "g"]);
        assert_eq!(names.joined(&many, Some(&alice)), "Alice added a, b, c, d, e and 2 more");
    }
}
