//! The operations and their rules; REST and socket commands call the same ones.

mod annotations;
mod chats;
mod counters;
mod devices;
mod draft;
mod export;
mod group_reads;
mod groups;
mod invites;
mod members;
mod online_counts;
mod presence;
mod reports;
mod search;
mod sync;
mod totals;
mod users;

use std::sync::Arc;

use beseda_protocol::rest::{Edit, NewMessage, PushInfo};

pub(crate) use self::{
    annotations::parse_emoji,
    draft::{parse_edit, parse_message},
};
pub use self::{export::Export, groups::GroupDraft, members::Members, sync::Synced};
use self::{
    group_reads::GroupReads, online_counts::OnlineCounts, search::Searches, totals::Totals,
};
use crate::{
    admission_cache::AdmissionCache,
    attachments::Attachments,
    auth::derive_key,
    broker::{Broker, Channel},
    config::{Config, DeleteChat, Switch, UnknownUsers},
    error::Error,
    model::{ChatId, Message, MessageId, UserId, parse_id},
    outbox::Outbox,
    presence::Presence,
    protocol::{Publication, ServerFrame},
    store::{Actor, GroupLimits, Mutation, MutationKind, MutationResult, Reader, Store},
    unread::Unread,
    writer::{Sent, Writer},
};

/// Largest chat in which typing is told, in members: of more people somebody always types.
const MAX_TYPING_MEMBERS: i32 = 256;

/// The name of a chat in a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChatRef {
    Id(ChatId),
    RoomName(String),
}

impl ChatRef {
    /// Parses a name; `None` if it can be neither, which counts as an unknown chat.
    pub fn parse(raw: &str) -> Option<Self> {
        let name = |raw: &str| {
            raw.len() == 22 && raw.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        if name(raw) {
            return Some(Self::RoomName(raw.to_owned()));
        }
        parse_id(raw).map(Self::Id)
    }
}

/// Who asks for what the host application may do too.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// For the host application, its token's subject.
    pub user: &'a UserId,
    pub is_host: bool,
}

impl<'a> Caller<'a> {
    fn actor(self) -> Actor<'a> {
        if self.is_host { Actor::Host } else { Actor::User(self.user) }
    }

    fn reader(self) -> Reader<'a> {
        if self.is_host { Reader::Host } else { Reader::Member(self.user) }
    }
}

/// All operations of a replica.
#[derive(Debug)]
pub struct Chats {
    store: Store,
    writer: Writer,
    outbox: Outbox,
    broker: Broker,
    unread: Unread,
    presence: Presence,
    admissions: AdmissionCache,
    attachments: Attachments,
    totals: Totals,
    group_reads: GroupReads,
    online_counts: OnlineCounts,
    searches: Searches,
    push: PushInfo,
    /// Subscriptions may lead to private addresses.
    private_push: bool,
    delete_rule: DeleteChat,
    groups: GroupLimits,
    reject_unknown: bool,
    rooms_per_user: i64,
    blocks_per_user: i64,
    keys: draft::Keys,
}

/// The dependencies of the operations.
#[derive(Debug)]
pub struct Parts {
    pub store: Store,
    pub writer: Writer,
    pub outbox: Outbox,
    pub broker: Broker,
    pub unread: Unread,
    pub presence: Presence,
    pub admissions: AdmissionCache,
    pub attachments: Attachments,
    pub push: PushInfo,
}

impl Chats {
    pub fn new(parts: Parts, config: &Config, instance_secret: &[u8]) -> Self {
        Self {
            admissions: parts.admissions,
            attachments: parts.attachments,
            totals: Totals::new(parts.store.clone()),
            group_reads: GroupReads::new(parts.store.clone()),
            online_counts: OnlineCounts::new(parts.store.clone(), parts.presence.clone()),
            searches: Searches::new(),
            push: parts.push,
            private_push: config.push.push_allow_private == Switch::On,
            store: parts.store,
            writer: parts.writer,
            outbox: parts.outbox,
            broker: parts.broker,
            unread: parts.unread,
            presence: parts.presence,
            delete_rule: config.delete_chat,
            groups: GroupLimits {
                members: config.groups.group_members,
                receipt_members: config.groups.receipt_members,
                system: config.groups.system_messages,
            },
            reject_unknown: config.unknown_users == UnknownUsers::Reject,
            rooms_per_user: config.limits.rooms_per_user.into(),
            blocks_per_user: config.limits.blocks_per_user.into(),
            keys: draft::Keys {
                ids: derive_key(instance_secret, "message ids"),
                digests: derive_key(instance_secret, "content digests"),
            },
        }
    }

    pub fn admissions(&self) -> &AdmissionCache {
        &self.admissions
    }

    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    pub fn presence(&self) -> &Presence {
        &self.presence
    }

    /// Resolves a chat's name to its id. A `room_name` resolves for members only (`None`: for anybody);
    /// an id is returned as it is, and the operation checks membership.
    pub async fn resolve(&self, chat: &ChatRef, member: Option<&UserId>) -> Result<ChatId, Error> {
        match chat {
            ChatRef::Id(chat_id) => Ok(*chat_id),
            ChatRef::RoomName(name) => {
                self.store.get_chat_id(name, member).await?.ok_or(Error::ChatNotFound)
            }
        }
    }

    /// Sends a message: durable in Postgres when this returns.
    pub async fn send_message(
        &self,
        sender: &UserId,
        chat_id: ChatId,
        new: NewMessage,
    ) -> Result<Sent, Error> {
        if !new.attachments.is_empty() {
            self.attachments.complete(chat_id, sender, &new.attachments).await?;
        }
        self.writer.send(self.keys.draft(sender, chat_id, new)).await
    }

    pub async fn get_message(
        &self,
        user: &UserId,
        chat_id: ChatId,
        message_id: MessageId,
    ) -> Result<Message, Error> {
        self.store.get_message(chat_id, message_id, user).await
    }

    /// Adds to a message that was just written what only its reader is shown: their own reactions.
    pub async fn show_message(
        &self,
        reader: &UserId,
        mut message: Message,
    ) -> Result<Message, Error> {
        if !message.reactions.is_empty() {
            match self.get_message(reader, message.chat_id, message.message_id).await {
                // What was written was written, even if its author was removed a moment later.
                Err(Error::ChatNotFound | Error::MessageNotFound) => {}
                shown => return shown,
            }
        }
        message.my_reactions = Some(Vec::new());
        Ok(message)
    }

    pub async fn edit_message(
        &self,
        author: &UserId,
        chat_id: ChatId,
        message_id: MessageId,
        edit: Edit,
    ) -> Result<Message, Error> {
        let Edit { text, mentions } = edit;
        let kind = MutationKind::Edit { message_id, text, mentions };
        // An `Edit` always results in a `Message`.
        match self.mutate(author, chat_id, kind).await? {
            MutationResult::Message(message) => Ok(*message),
            MutationResult::Mark { .. } => Err(Error::MessageNotFound),
        }
    }

    pub async fn delete_message(
        &self,
        user: &UserId,
        admin: bool,
        chat_id: ChatId,
        message_id: MessageId,
    ) -> Result<(), Error> {
        let kind = MutationKind::Delete { message_id, admin };
        self.mutate(user, chat_id, kind).await.map(drop)
    }

    async fn mutate(
        &self,
        user: &UserId,
        chat_id: ChatId,
        kind: MutationKind,
    ) -> Result<MutationResult, Error> {
        let mutation = Mutation { chat_id, user: user.clone(), kind };
        Ok(self.writer.mutate(mutation).await?.result)
    }

    /// Publishes to a chat's other members that a user types. Best effort: nothing is stored, and
    /// nothing is published where one of two has blocked the other, or in a chat of more than
    /// [`MAX_TYPING_MEMBERS`]. The caller must have checked membership.
    pub async fn tell_typing(
        &self,
        user_id: &UserId,
        chat_id: ChatId,
        typing: bool,
    ) -> Result<(), Error> {
        match self.store.get_typing_rule(chat_id).await? {
            Some(rule) if !rule.blocked && rule.member_count <= MAX_TYPING_MEMBERS => {}
            _ => return Ok(()),
        }
        let frame = ServerFrame::Typing { chat_id, user_id, typing }.encode();
        let micros = jiff::Timestamp::now().as_microsecond();
        let publication = Publication::Typing { user_id: user_id.clone(), micros, typing, frame };
        // Best effort, so an unavailable Redis is no error.
        let _ = self.broker.publish(&[(Channel::Chat(chat_id), publication.encode())]).await;
        Ok(())
    }
}

/// Shared by all handlers and sockets.
pub type SharedChats = Arc<Chats>;
