//! Exports all data of one user, with one page at a time in memory.

use std::collections::VecDeque;

use super::Chats;
use crate::{
    attachments::Attachments,
    error::Error,
    model::{
        AttachmentId, ChatId, ExportEnd, ExportLine, ExportedAttachment, ExportedChat,
        ExportedMessage, ExportedProfile, ExportedReaction, MessageId, Time, UserId,
    },
    store::{Store, StoreError},
};

/// Rows of a page, and `seq` numbers that one statement scans: at most 5 MB.
const PAGE: i64 = 250;

/// An export in progress.
#[derive(Debug)]
pub struct Export {
    store: Store,
    attachments: Attachments,
    origin: String,
    user_id: UserId,
    step: Step,
    /// Totals of the lines so far.
    given: ExportEnd,
}

/// The next part of the export.
#[derive(Debug)]
enum Step {
    Profile(ExportedProfile),
    Devices,
    /// Past this one.
    Blocks(Option<UserId>),
    /// Past this one.
    Chats(ChatId),
    /// The chats of a page; the first one from this `seq` on.
    Messages(VecDeque<ExportedChat>, i64),
    /// Past this one.
    Reactions(Option<ExportedReaction>),
    /// Past this one.
    Attachments(Option<(Time, AttachmentId)>),
    /// Past this one.
    Reports(ChatId, MessageId),
    End,
    Over,
}

impl Chats {
    /// Begins the export of a user's data. `origin`: this replica's, as the caller sees it, for links.
    pub async fn export_user(&self, user_id: &UserId, origin: String) -> Result<Export, Error> {
        let profile = self.store.get_exported_profile(user_id).await?;
        let profile = profile.ok_or(Error::UserNotFound)?;
        Ok(Export {
            store: self.store.clone(),
            attachments: self.attachments.clone(),
            origin,
            user_id: user_id.clone(),
            step: Step::Profile(profile),
            given: ExportEnd::default(),
        })
    }
}

impl Export {
    /// Returns the next lines, at least one; `None` after the last, and after an error.
    pub async fn next_page(&mut self) -> Result<Option<Vec<ExportLine>>, Error> {
        loop {
            let lines = match std::mem::replace(&mut self.step, Step::Over) {
                Step::Over => return Ok(None),
                Step::Profile(profile) => {
                    self.step = Step::Devices;
                    vec![ExportLine::Profile(profile)]
                }
                Step::Devices => {
                    let devices = self.store.list_devices(&self.user_id).await?;
                    self.step = Step::Blocks(None);
                    self.given.devices += devices.len() as u64;
                    devices.into_iter().map(ExportLine::Device).collect()
                }
                Step::Blocks(after) => self.blocks(after).await?,
                Step::Chats(after) => {
                    let chats = self.store.list_exported_chats(&self.user_id, after, PAGE).await?;
                    self.step = Step::Messages(chats.into(), 1);
                    Vec::new()
                }
                Step::Messages(chats, from) => self.messages(chats, from).await?,
                Step::Reactions(after) => self.reactions(after).await?,
                Step::Attachments(after) => self.attachments(after).await?,
                Step::Reports(chat_id, message_id) => self.reports((chat_id, message_id)).await?,
                Step::End => vec![ExportLine::End(self.given)],
            };
            if !lines.is_empty() {
                return Ok(Some(lines));
            }
        }
    }

    async fn blocks(&mut self, after: Option<UserId>) -> Result<Vec<ExportLine>, StoreError> {
        let (store, user_id) = (&self.store, &self.user_id);
        let blocks = store.list_exported_blocks(user_id, after.as_ref(), PAGE).await?;
        self.step = match blocks.last() {
            Some(last) => Step::Blocks(Some(last.user_id.clone())),
            None => Step::Chats(ChatId::nil()),
        };
        self.given.blocks += blocks.len() as u64;
        Ok(blocks.into_iter().map(ExportLine::Block).collect())
    }

    /// Returns a page of a chat's messages; the first page begins with the chat itself.
    async fn messages(
        &mut self,
        mut chats: VecDeque<ExportedChat>,
        from: i64,
    ) -> Result<Vec<ExportLine>, StoreError> {
        let Some(chat) = chats.front().cloned() else {
            self.step = Step::Reactions(None);
            return Ok(Vec::new());
        };
        let (chat_id, up_to) = (chat.chat_id, chat.last_seq);
        let to = up_to.min(from.saturating_add(PAGE - 1));
        let messages = if from <= to {
            self.store.list_exported_messages(chat_id, &self.user_id, from, to).await?
        } else {
            Vec::new()
        };
        let mut lines = Vec::new();
        if from == 1 {
            self.given.chats += 1;
            lines.push(ExportLine::Chat(chat));
        }
        self.given.messages += messages.len() as u64;
        let messages = messages.into_iter().map(Box::new);
        lines.extend(messages.map(|message| ExportLine::Message(ExportedMessage { message })));
        self.step = if to < up_to {
            Step::Messages(chats, to + 1)
        } else {
            chats.pop_front();
            if chats.is_empty() { Step::Chats(chat_id) } else { Step::Messages(chats, 1) }
        };
        Ok(lines)
    }

    async fn reactions(
        &mut self,
        after: Option<ExportedReaction>,
    ) -> Result<Vec<ExportLine>, StoreError> {
        let (store, user_id) = (&self.store, &self.user_id);
        let reactions = store.list_exported_reactions(user_id, after.as_ref(), PAGE).await?;
        self.step = match reactions.last() {
            Some(last) => Step::Reactions(Some(last.clone())),
            None => Step::Attachments(None),
        };
        self.given.reactions += reactions.len() as u64;
        Ok(reactions.into_iter().map(ExportLine::Reaction).collect())
    }

    async fn attachments(
        &mut self,
        after: Option<(Time, AttachmentId)>,
    ) -> Result<Vec<ExportLine>, Error> {
        let own = self.store.list_own_attachments(&self.user_id, after, PAGE).await?;
        self.step = match own.last() {
            Some((last, _)) => Step::Attachments(Some((last.created_at, last.attachment_id))),
            None => Step::Reports(ChatId::nil(), MessageId::nil()),
        };
        self.given.attachments += own.len() as u64;
        let mut lines = Vec::new();
        for (of, attachment) in own {
            let (chat_id, seq, created_at) = (of.chat_id, of.seq, of.created_at);
            let (url, expires_at) = self.attachments.lasting_url(of, &self.origin).await?.unzip();
            lines.push(ExportLine::Attachment(ExportedAttachment {
                chat_id,
                seq,
                attachment,
                created_at,
                url,
                expires_at,
            }));
        }
        Ok(lines)
    }

    async fn reports(&mut self, after: (ChatId, MessageId)) -> Result<Vec<ExportLine>, StoreError> {
        let reports = self.store.list_exported_reports(&self.user_id, after, PAGE).await?;
        self.step = match reports.last() {
            Some(last) => Step::Reports(last.chat_id, last.message_id),
            None => Step::End,
        };
        self.given.reports += reports.len() as u64;
        Ok(reports.into_iter().map(ExportLine::Report).collect())
    }
}
