//! AdmissionCache: named by the host application, shown to each other, blocked, erased.

use super::Chats;
use crate::{
    broker::Channel,
    error::Error,
    model::{Time, User, UserId},
    protocol::Publication,
    store::{Named, Profile, Unpublished, UserRow},
};

impl Chats {
    /// Creates or replaces a person, who comes back if they were erased. True: created.
    pub async fn name_user(&self, profile: Profile) -> Result<bool, Error> {
        let named = self.store.name_users(std::slice::from_ref(&profile), true).await?;
        self.admissions.forget(&profile.user_id);
        Ok(named.contains(&Named::Created))
    }

    /// Creates or replaces people. Whoever was erased stays it: lists are often older than that.
    pub async fn name_users(&self, people: &[Profile]) -> Result<Vec<Named>, Error> {
        let named = self.store.name_users(people, false).await?;
        people.iter().for_each(|profile| self.admissions.forget(&profile.user_id));
        Ok(named)
    }

    /// Somebody whom `viewer` may see; `None` as the viewer: anybody known.
    pub async fn get_user(&self, user_id: &UserId, viewer: Option<&UserId>) -> Result<User, Error> {
        let row = self.store.get_user(user_id, viewer).await?.ok_or(Error::UserNotFound)?;
        let online = self.presence.online(std::slice::from_ref(user_id)).await;
        Ok(show(row, online.contains(user_id)))
    }

    /// Erases a person: marked first, then their texts chat by chat. Safe to repeat, and to be
    /// repeated where a very long history took longer than a request may.
    pub async fn erase_user(&self, user_id: &UserId) -> Result<(), Error> {
        let marked = self.store.mark_erased(user_id).await?.ok_or(Error::UserNotFound)?;
        self.admissions.forget(user_id);
        let order = Publication::Erased { epoch: marked.clone(), user_id: user_id.clone() };
        let order = (Channel::All, order.encode());
        // Redis away: every replica finds the mark when it compares with Postgres.
        let _ = self.broker.publish(&[order]).await;
        for chat_id in self.store.list_chat_ids(user_id).await? {
            while let Some(noted) = self.store.erase_in_chat(chat_id, user_id).await? {
                if noted.epoch != marked {
                    // The database has failed over meanwhile, maybe to before the mark.
                    return Err(Error::Unavailable(None));
                }
                let row = Unpublished { noted, chats: vec![chat_id], users: Vec::new() };
                let commit = self.outbox.commit_of(&[row]).await?;
                self.outbox.publish_soon(commit).await;
            }
        }
        Ok(())
    }

    /// Voids a person's tokens that were issued before now, and closes the sockets opened with them.
    pub async fn revoke_tokens(&self, user_id: &UserId) -> Result<(), Error> {
        let (at, epoch) = self.store.revoke_tokens(user_id).await?;
        self.admissions.forget(user_id);
        let revoked =
            Publication::Revoked { epoch, user_id: user_id.clone(), micros: at.0.as_microsecond() };
        // Redis away: every replica finds the moment when it compares with Postgres.
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

    /// A page of whom somebody has blocked, and where the next one begins.
    pub async fn list_blocks(
        &self,
        blocker: &UserId,
        after: Option<(UserId, Time)>,
        limit: i64,
    ) -> Result<(Vec<(UserId, Time)>, Option<(UserId, Time)>), Error> {
        let mut blocks = self.store.list_blocks(blocker, after.as_ref(), limit + 1).await?;
        let more = i64::try_from(blocks.len()).is_ok_and(|count| count > limit);
        if more {
            blocks.pop();
        }
        let next = blocks.last().filter(|_| more).cloned();
        Ok((blocks, next))
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
