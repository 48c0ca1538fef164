//! What the connections of a drawn schedule do beside sends and mutations: changes of groups, of who belongs to them, of
//! a member's own settings; erasures.

use beseda::{
    error::Error,
    model::{Notify, PostRule, Role, Time, UserId},
    store::{Actor, Changed, Removed},
};
use beseda_protocol::rest::{ChatChange, MemberChange, NewBan, NewSettings, OwnSettings};
use jiff::{SignedDuration, Timestamp};
use rand::{Rng, seq::IndexedRandom};

use super::schedule::Racer;

impl Racer {
    pub(super) async fn add(&mut self) {
        let (chat, limits) = self.group();
        let count = *[1, 1, 3].choose(&mut self.rng).expect("sizes");
        let users: Vec<UserId> = (0..count).map(|_| self.user()).collect();
        let role = if self.rng.random_bool(0.7) { Role::Member } else { Role::Admin };
        let asker = self.asker();
        let added =
            self.store.add_members(chat.id, actor(&asker), &users, role, false, limits).await;
        self.settle_change("add", chat.id, added.map(|(_, changed)| changed));
        self.look(chat.id, users).await;
    }

    pub(super) async fn join(&mut self) {
        let (chat, limits) = self.group();
        let user = self.user();
        let joined = self.store.join_group(chat.id, &user, limits).await;
        self.settle_change("join", chat.id, joined);
        self.look(chat.id, [user]).await;
    }

    pub(super) async fn put_out(&mut self) {
        let (chat, limits) = self.group();
        let user = self.user();
        if chat.founders.iter().any(|founder| *founder == *user.as_str()) {
            return;
        }
        let asker = if self.rng.random_bool(0.5) { Some(user.clone()) } else { self.asker() };
        let removed = self.store.remove_member(chat.id, actor(&asker), &user, limits).await;
        self.settle_change("put out", chat.id, removed.map(change_of));
        self.look_around(chat.id).await;
    }

    pub(super) async fn ban(&mut self) {
        let (chat, limits) = self.group();
        let (user, asker) = (self.user(), self.asker());
        if self.rng.random_bool(0.5) {
            let lifted = self.store.unban_member(chat.id, Actor::Host, &user).await;
            self.settle("unban", lifted);
        } else if chat.founders.iter().all(|founder| *founder != *user.as_str()) {
            let until = self.rng.random_bool(0.5).then_some(Time(Timestamp::UNIX_EPOCH));
            let ban = NewBan { reason: None, until };
            let banned = self.store.ban_member(chat.id, actor(&asker), &user, &ban, limits).await;
            self.settle_change("ban", chat.id, banned.map(|(_, removed)| change_of(removed)));
            self.look_around(chat.id).await;
        }
    }

    pub(super) async fn change_member(&mut self) {
        let (chat, limits) = self.group();
        let (user, asker) = (self.user(), self.asker());
        let roles = [None, Some(Role::Member), Some(Role::Admin), Some(Role::Owner)];
        let role = *roles.choose(&mut self.rng).expect("roles");
        let soon = Time(Timestamp::now() + SignedDuration::from_millis(300));
        let silences = [None, None, Some(None), Some(Some(soon))];
        let silenced_until = *silences.choose(&mut self.rng).expect("silences");
        let change = MemberChange { role, silenced_until };
        let changed = self.store.set_member(chat.id, actor(&asker), &user, &change, limits).await;
        self.settle_change("change member", chat.id, changed);
        self.look_around(chat.id).await;
    }

    pub(super) async fn change_group(&mut self) {
        let (chat, limits) = self.group();
        let asker = self.asker();
        let post = *[PostRule::Members, PostRule::Members, PostRule::Admins]
            .choose(&mut self.rng)
            .expect("rules");
        let settings = NewSettings {
            post: self.rng.random_bool(0.3).then_some(post),
            slow_mode_s: Some(i32::from(self.rng.random_bool(0.2))),
            ..NewSettings::default()
        };
        let title = Some(format!("Raced {}", self.rng.random_range(0..4)));
        let change = ChatChange { title, settings: Some(settings), ..ChatChange::default() };
        let changed = self.store.change_group(chat.id, actor(&asker), &change, limits).await;
        self.settle_change("change group", chat.id, changed);
    }

    pub(super) async fn set_own(&mut self) {
        let chat = self.chat();
        let user = self.user_of(&chat);
        let levels = [Notify::All, Notify::Mentions, Notify::None];
        let notify = levels.choose(&mut self.rng).copied();
        let own = OwnSettings { notify, pinned: None, archived: Some(self.rng.random_bool(0.5)) };
        self.settle("set own", self.store.set_own(chat.id, &user, &own).await);
        self.look(chat.id, [user]).await;
    }

    pub(super) async fn erase(&mut self) {
        let (chat, user) = (self.chat(), self.user());
        let erased = self.store.erase_in_chat(chat.id, &user).await.map_err(Error::from);
        if self.settle("erase", erased).flatten().is_some() {
            self.shared.ledger().count("messages erased");
        }
        self.look_around(chat.id).await;
    }
}

fn actor(asker: &Option<UserId>) -> Actor<'_> {
    asker.as_ref().map_or(Actor::Host, Actor::User)
}

fn change_of(removed: Removed) -> Option<Changed> {
    match removed {
        Removed::Changed(changed) => Some(changed),
        Removed::Absent | Removed::Dropped(_) => None,
    }
}
