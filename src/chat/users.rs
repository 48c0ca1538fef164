//! Users: created by the host application, shown to each other, blocked, erased.

use super::{Chats, chats::cut};
use crate::{
    broker::Channel,
    error::Error,
    model::{Admission, Epoch, Profile, Time, User, UserId},
    protocol::Publication,
    store::{Changed, Named, Noted, Removed, UserRow},
};

impl Chats {
    /// Creates or replaces a user, also one who was erased; true if created.
    pub async fn name_user(&self, profile: Profile) -> Result<bool, Error> {
        let named = self.store.name_users(std::slice::from_ref(&profile), true).await?;
        self.admissions.forget(&profile.user_id);
        Ok(named.contains(&Named::Created))
    }

    /// Creates or replaces users. Erased users stay erased, because lists are often older than the
    /// erasure.
    pub async fn name_users(&self, users: &[Profile]) -> Result<Vec<Named>, Error> {
        let named = self.store.name_users(users, false).await?;
        users.iter().for_each(|profile| self.admissions.forget(&profile.user_id));
        Ok(named)
    }

    /// Reads a user whom `viewer` may see; without a viewer, any known user.
    pub async fn get_user(&self, user_id: &UserId, viewer: Option<&UserId>) -> Result<User, Error> {
        let row = self.store.get_user(user_id, viewer).await?.ok_or(Error::UserNotFound)?;
        let online = self.presence.online(std::slice::from_ref(user_id)).await;
        Ok(show(row, online.contains(user_id)))
    }

    /// Whether the user was erased, and since when their tokens are void.
    pub async fn get_admission(&self, user_id: &UserId) -> Result<Admission, Error> {
        let barred = self.store.list_barred(std::slice::from_ref(user_id)).await?;
        let found = barred.into_iter().next().map(|barred| barred.admission);
        Ok(found.unwrap_or(Admission { erased: false, revoked_at: None }))
    }

    /// Erases a user: marks the user first, then chat by chat takes them out of the group and erases
    /// their texts. Idempotent; the caller repeats it where a very long history took longer than a
    /// request may.
    pub async fn erase_user(&self, user_id: &UserId) -> Result<(), Error> {
        let marked = self.store.mark_erased(user_id).await?.ok_or(Error::UserNotFound)?;
        self.admissions.forget(user_id);
        let order = Publication::Erased { epoch: marked.clone(), user_id: user_id.clone() };
        let order = (Channel::All, order.encode());
        // Without Redis every replica finds the mark when it compares with Postgres.
        let _ = self.broker.publish(&[order]).await;
        for chat_id in self.store.list_chat_ids(user_id).await? {
            let removed = self.store.leave_as_erased(chat_id, user_id, self.groups).await?;
            if let Removed::Changed(Changed { noted, .. }) | Removed::Dropped(noted) = &removed {
                stands(noted, &marked)?;
            }
            self.publish_removed(chat_id, user_id, removed).await;
            while let Some(row) = self.store.erase_in_chat(chat_id, user_id).await? {
                stands(&row.noted, &marked)?;
                let commit = self.outbox.commit_of(&[row]).await?;
                self.outbox.publish_soon(commit).await;
            }
        }
        Ok(())
    }

    /// Voids the user's tokens issued before now, and closes the sockets opened with them.
    pub async fn revoke_tokens(&self, user_id: &UserId) -> Result<(), Error> {
        let (at, epoch) = self.store.revoke_tokens(user_id).await?;
        self.admissions.forget(user_id);
        let revoked =
            Publication::Revoked { epoch, user_id: user_id.clone(), micros: at.0.as_microsecond() };
        // Without Redis every replica finds the revocation when it compares with Postgres.
        let _ = self.broker.publish(&[(Channel::All, revoked.encode())]).await;
        Ok(())
    }

    pub async fn block_user(&self, blocker: &UserId, blocked: &UserId) -> Result<(), Error> {
        if blocker == blocked {
            return Err(Error::field("user_id", "must be somebody else"));
        }
        if !self.store.set_block(blocker, blocked, true, self.blocks_per_user).await? {
            return Err(Error::Forbidden("You have blocked as many people as one may."));
        }
        Ok(())
    }

    pub async fn unblock_user(&self, blocker: &UserId, blocked: &UserId) -> Result<(), Error> {
        self.store.set_block(blocker, blocked, false, self.blocks_per_user).await?;
        Ok(())
    }

    /// Lists a page of the users whom `blocker` has blocked, with the cursor of the next page.
    pub async fn list_blocks(
        &self,
        blocker: &UserId,
        after: Option<(UserId, Time)>,
        limit: i64,
    ) -> Result<(Vec<(UserId, Time)>, Option<(UserId, Time)>), Error> {
        let mut blocks = self.store.list_blocks(blocker, after.as_ref(), limit + 1).await?;
        let more = cut(&mut blocks, limit);
        let next = blocks.last().filter(|_| more).cloned();
        Ok((blocks, next))
    }
}

/// Refuses to go on with an erasure where the database has failed over since the mark of `marked`, maybe
/// to a state before it.
fn stands(noted: &Noted, marked: &Epoch) -> Result<(), Error> {
    if noted.epoch == *marked { Ok(()) } else { Err(Error::Unavailable(None)) }
}

fn show(row: UserRow, online: bool) -> User {
    let online = online && row.show_presence;
    User {
        user_id: row.profile.user_id,
        name: row.profile.name,
        avatar_url: row.profile.avatar_url,
        online,
        last_seen_at: row.last_seen_at.filter(|_| !online && row.show_presence),
    }
}
