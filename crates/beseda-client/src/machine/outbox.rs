//! What was written and is not stored yet.

use std::time::Duration;

use beseda_protocol::{
    ErrorCode,
    model::{AttachmentId, Mentions, MessageId},
    rest::NewMessage,
};
use serde_json::value::RawValue;

use super::{Settings, Upload, retries::Retries};
use crate::Error;

/// A message on its way out. It keeps its id through every attempt, so it is stored once.
#[derive(Debug, Clone)]
pub struct Pending {
    pub client_msg_id: String,
    pub text: String,
    pub metadata: Option<Box<RawValue>>,
    pub mentions: Option<Mentions>,
    pub reply_to: Option<MessageId>,
    pub attachments: Vec<AttachmentId>,
    /// Files that become attachments too; it is sent once they are there.
    pub uploads: Vec<Upload>,
    /// Why it is not tried any more.
    pub failed: Option<Error>,
}

/// What became of an attempt that did not succeed.
#[derive(Debug)]
pub(super) enum Failed {
    /// It is tried again after this.
    Again(Duration),
    /// Its author is asked.
    ForGood(Box<Pending>),
}

/// Sends one after another, so that messages arrive in the order in which they were written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) pending: Vec<Pending>,
    in_flight: bool,
    retries: Retries,
}

impl Outbox {
    pub(super) fn push(&mut self, message: NewMessage, uploads: Vec<Upload>) {
        let NewMessage { text, metadata, mentions, reply_to, attachments, client_msg_id } = message;
        self.pending.push(Pending {
            client_msg_id: client_msg_id.unwrap_or_default(),
            text,
            metadata,
            mentions,
            reply_to,
            attachments,
            uploads,
            failed: None,
        });
    }

    /// Puts one that failed at the end.
    pub(super) fn push_again(&mut self, client_msg_id: &str) {
        let is_it = |one: &Pending| one.failed.is_some() && one.client_msg_id == client_msg_id;
        let Some(at) = self.pending.iter().position(is_it) else { return };
        let mut again = self.pending.remove(at);
        let failed = again.failed.take();
        // Too much time went by: what is never sent does not stay.
        let is_forgotten =
            failed.and_then(|error| error.known()) == Some(ErrorCode::AttachmentNotFound);
        again.uploads.iter_mut().for_each(|upload| upload.retry(is_forgotten));
        self.pending.push(again);
    }

    /// What is to be sent at this moment; it is in flight from now on. What follows a message whose files are
    /// not there yet waits with it.
    pub(super) fn start_next(&mut self) -> Option<NewMessage> {
        if self.in_flight {
            return None;
        }
        let next = self.pending.iter().find(|pending| pending.failed.is_none())?;
        let uploaded: Option<Vec<_>> = next.uploads.iter().map(Upload::attachment_id).collect();
        let attachments = [next.attachments.clone(), uploaded?].concat();
        self.in_flight = true;
        Some(NewMessage {
            text: next.text.clone(),
            metadata: next.metadata.clone(),
            mentions: next.mentions.clone(),
            reply_to: next.reply_to,
            attachments,
            client_msg_id: Some(next.client_msg_id.clone()),
        })
    }

    pub(super) fn take(&mut self, client_msg_id: &str) -> Option<Pending> {
        let at = self.pending.iter().position(|one| one.client_msg_id == client_msg_id)?;
        Some(self.pending.remove(at))
    }

    /// It is stored: its answer came, or its frame.
    pub(super) fn forget(&mut self, client_msg_id: &str) {
        self.pending.retain(|pending| pending.client_msg_id != client_msg_id);
    }

    pub(super) fn succeeded(&mut self, client_msg_id: &str) {
        self.forget(client_msg_id);
        (self.in_flight, self.retries) = (false, Retries::default());
    }

    /// The attempt in flight counts for nothing; its message is sent again.
    pub(super) fn release(&mut self) {
        self.in_flight = false;
    }

    /// Without a connection a message waits for one, however long that takes. `None`: its frame has
    /// told meanwhile that it is stored.
    pub(super) fn failed(
        &mut self,
        client_msg_id: &str,
        error: &Error,
        is_live: bool,
        settings: &Settings,
    ) -> Option<Failed> {
        self.in_flight = false;
        let found = self.pending.iter_mut().find(|one| one.client_msg_id == client_msg_id);
        let Some(pending) = found else {
            // The next one has attempts of its own.
            self.retries = Retries::default();
            return None;
        };
        match self.retries.pause(error, is_live, settings.attempts, settings.random) {
            Some(pause) => Some(Failed::Again(pause)),
            None => {
                pending.failed = Some(error.clone());
                Some(Failed::ForGood(Box::new(pending.clone())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings =
        Settings { only: None, page: None, attempts: 4, can_renew: false, random: || 1.0 };

    fn message(id: &str) -> NewMessage {
        NewMessage {
            text: id.to_owned(),
            mentions: Some(Mentions::All),
            client_msg_id: Some(id.to_owned()),
            ..NewMessage::default()
        }
    }

    #[test]
    fn one_after_another_and_only_a_working_connection_uses_attempts_up() {
        let mut outbox = Outbox::default();
        outbox.push(message("one"), Vec::new());
        outbox.push(message("two"), Vec::new());
        let first = outbox.start_next().unwrap();
        assert_eq!((first.text.as_str(), first.mentions), ("one", Some(Mentions::All)));
        assert!(outbox.start_next().is_none(), "the second one waits for the first");
        let away = Error::network(std::io::Error::other("away"));
        for _ in 0..10 {
            assert!(matches!(
                outbox.failed("one", &away, false, &SETTINGS),
                Some(Failed::Again(_))
            ));
            assert_eq!(outbox.start_next().unwrap().text, "one");
        }
        for _ in 1..SETTINGS.attempts {
            assert!(matches!(outbox.failed("one", &away, true, &SETTINGS), Some(Failed::Again(_))));
            outbox.start_next().unwrap();
        }
        assert!(matches!(outbox.failed("one", &away, true, &SETTINGS), Some(Failed::ForGood(_))));
        assert_eq!(outbox.start_next().unwrap().text, "two");
        outbox.forget("two");
        assert!(outbox.failed("two", &away, true, &SETTINGS).is_none(), "its frame came before");
        assert_eq!(outbox.pending.len(), 1, "what failed stays");
    }
}
