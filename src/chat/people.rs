//! Who is known: people come with their token, or are named by the host application.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::{ADMISSION_LIFETIME, Chats};
use crate::{
    broker::Channel,
    error::Error,
    model::{Time, User, UserId},
    protocol::Publication,
    store::{Profile, Store, Unpublished, UserRow},
};

/// Admissions remembered before the old ones are thrown out: some 50 MB at the very most.
const MAX_ADMISSIONS: usize = 100_000;

/// Remembers whom Postgres has just called known, so that a request costs no query for it.
#[derive(Debug)]
pub struct People {
    store: Store,
    admitted: Mutex<HashMap<UserId, (Profile, Instant)>>,
}

impl People {
    pub(super) fn new(store: Store) -> Self {
        Self { store, admitted: Mutex::default() }
    }

    fn admitted(&self) -> MutexGuard<'_, HashMap<UserId, (Profile, Instant)>> {
        // A cache: a panic in between leaves nothing wrong in it.
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the bearer of a valid token known before anything is answered; refuses the erased.
    pub async fn admit(&self, profile: &Profile) -> Result<(), Error> {
        let known = self
            .admitted()
            .get(&profile.user_id)
            .is_some_and(|(known, at)| known == profile && at.elapsed() < ADMISSION_LIFETIME);
        if known {
            return Ok(());
        }
        if !self.store.admit_user(profile).await? {
            return Err(Error::TokenInvalid("its user was erased"));
        }
        let mut admitted = self.admitted();
        if admitted.len() >= MAX_ADMISSIONS {
            admitted.retain(|_, (_, at)| at.elapsed() < ADMISSION_LIFETIME);
        }
        admitted.insert(profile.user_id.clone(), (profile.clone(), Instant::now()));
        Ok(())
    }

    /// They were erased or named anew: ask Postgres at the next request.
    pub fn forget(&self, user_id: &UserId) {
        self.admitted().remove(user_id);
    }
}

impl Chats {
    /// Creates or replaces people; true where one is new.
    pub async fn name_users(&self, people: &[Profile]) -> Result<Vec<bool>, Error> {
        let created = self.store.name_users(people).await?;
        people.iter().for_each(|profile| self.people.forget(&profile.user_id));
        Ok(created)
    }

    /// Somebody whom `viewer` may see; `None` as the viewer: anybody known.
    pub async fn get_user(&self, user_id: &UserId, viewer: Option<&UserId>) -> Result<User, Error> {
        let row = self.store.get_user(user_id, viewer).await?.ok_or(Error::UserNotFound)?;
        let online = self.presence.online(std::slice::from_ref(user_id)).await;
        Ok(show(row, online.contains(user_id)))
    }

    /// Erases a person: marked first, then their texts room by room. Safe to repeat, and to be
    /// repeated where a very long history took longer than a request may.
    pub async fn erase_user(&self, user_id: &UserId) -> Result<(), Error> {
        if !self.store.mark_erased(user_id).await? {
            return Err(Error::UserNotFound);
        }
        self.people.forget(user_id);
        let order = (Channel::User(user_id.clone()), Publication::Erased.encode());
        // Redis away: their sockets find the mark with their next heartbeat.
        let _ = self.broker.publish(&[order]).await;
        for chat_id in self.store.list_chat_ids(user_id).await? {
            while let Some(outbox_id) = self.store.erase_in_chat(chat_id, user_id).await? {
                let row = Unpublished { outbox_id, chats: vec![chat_id], users: Vec::new() };
                let commit = self.outbox.commit_of(&[row]).await?;
                self.outbox.publish_soon(commit).await;
            }
        }
        Ok(())
    }

    pub async fn block_user(&self, blocker: &UserId, blocked: &UserId) -> Result<(), Error> {
        if blocker == blocked {
            return Err(Error::field("user_id", "must be somebody else"));
        }
        Ok(self.store.set_block(blocker, blocked, true).await?)
    }

    pub async fn unblock_user(&self, blocker: &UserId, blocked: &UserId) -> Result<(), Error> {
        Ok(self.store.set_block(blocker, blocked, false).await?)
    }

    pub async fn list_blocks(&self, blocker: &UserId) -> Result<Vec<(UserId, Time)>, Error> {
        Ok(self.store.list_blocks(blocker).await?)
    }
}

fn show(row: UserRow, online: bool) -> User {
    let online = online && !row.blocked;
    User {
        user_id: row.profile.user_id,
        name: row.profile.name,
        avatar_url: row.profile.avatar_url,
        online,
        last_seen_at: row.last_seen_at.filter(|_| !online && !row.blocked),
    }
}
