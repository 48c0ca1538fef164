//! Checks an attachment whose bytes are there: their number, their type, an image's pixels, how long a recording is.

use std::time::Duration;

use super::{
    Attachments,
    bytes::ByteStore,
    fault,
    images::{self, Fault},
    inspect,
    key::{Key, Part},
};
use crate::{
    error::{Error, chain},
    model::{ChatId, UserId},
    store::{AttachmentFinding, AttachmentState, StoredAttachment},
};

use uuid::Uuid;

/// How often a check says that it goes on: three times in a lease.
const KEEP_EVERY: Duration = Duration::from_secs(10);

impl Attachments {
    /// Makes sure that the attachments of a send are there, whole, and of their types. Whether the sender may send
    /// them is judged with the message itself: those of others, and those that were sent before, are passed over.
    pub async fn complete(
        &self,
        chat_id: ChatId,
        sender: &UserId,
        ids: &[Uuid],
    ) -> Result<(), Error> {
        let known = self.inner.store.get_attachments(chat_id, ids).await?;
        for own in known.iter().filter(|one| one.owner_id == *sender && one.seq.is_none()) {
            match own.state {
                AttachmentState::Awaited => self.check(own.clone()).await?,
                AttachmentState::Blocked => return Err(fault("were refused by the scanner")),
                AttachmentState::Ready | AttachmentState::Scanning => {}
            }
        }
        Ok(())
    }

    /// Checks an attachment, even if nobody waits for it any more: another replica is kept out meanwhile.
    pub(super) async fn check(&self, of: StoredAttachment) -> Result<(), Error> {
        let (attachments, tasks) = (self.clone(), &self.inner.tasks);
        let checking = tasks.spawn(async move { attachments.check_now(&of).await });
        checking.await.map_err(Error::internal)?
    }

    async fn check_now(&self, of: &StoredAttachment) -> Result<(), Error> {
        let store = &self.inner.store;
        let bytes = self.bytes()?;
        let key = Key { chat_id: of.chat_id, attachment_id: of.attachment_id };
        if !store.take_attachment_check(key.chat_id, key.attachment_id).await? {
            let now = store.get_attachments(key.chat_id, &[key.attachment_id]).await?;
            return match now.first().map(|now| now.state) {
                None => Err(Error::AttachmentNotFound),
                Some(AttachmentState::Awaited) => Err(Error::Unavailable(None)),
                Some(_) => Ok(()),
            };
        }
        let keeping = async {
            loop {
                tokio::time::sleep(KEEP_EVERY).await;
                if let Err(error) =
                    store.keep_attachment_check(key.chat_id, key.attachment_id).await
                {
                    tracing::debug!(error = chain(&error), "an attachment was not kept");
                }
            }
        };
        let examined = tokio::select! {
            examined = self.examine(bytes, key, of) => examined,
            never = keeping => never,
        };
        match examined {
            Ok(found) => {
                let scanned = self.inner.config.scan.is_some();
                let state =
                    if scanned { AttachmentState::Scanning } else { AttachmentState::Ready };
                let (chat_id, id) = (key.chat_id, key.attachment_id);
                if store.settle_attachment(chat_id, id, state, &found).await? {
                    self.inner.metrics.attachments_accepted.inc();
                    return Ok(());
                }
                if !store.get_attachments(chat_id, &[id]).await?.is_empty() {
                    // This replica stood still, and another one has checked it.
                    return Ok(());
                }
                // Deleted meanwhile, and its bytes were perhaps looked for before they were here.
                bytes.delete(key, &Part::ALL).await?;
                Err(Error::AttachmentNotFound)
            }
            Err(error) => {
                if let Err(error) = store.release_attachment(key.chat_id, key.attachment_id).await {
                    // Its lease ends by itself.
                    tracing::debug!(error = chain(&error), "an attachment was not given back");
                }
                Err(error)
            }
        }
    }

    /// Finds out what the bytes are. Those of another size or type are deleted, so that the client may upload anew.
    async fn examine(
        &self,
        bytes: &ByteStore,
        key: Key,
        of: &StoredAttachment,
    ) -> Result<AttachmentFinding, Error> {
        match bytes.size(key, Part::Upload).await? {
            Some(size) if size == of.size => bytes.promote(key).await?,
            Some(size) if size < of.size => return Err(fault("are not uploaded as a whole")),
            Some(_) => {
                bytes.delete(key, &[Part::Upload]).await?;
                return Err(fault("have more bytes than was announced"));
            }
            // Put in its place before, by a check that broke off.
            None if bytes.size(key, Part::Whole).await? == Some(of.size) => {}
            None => return Err(fault("are not uploaded")),
        }
        match self.look_into(bytes, key, of).await {
            Err(error @ Error::Validation(_)) => {
                self.inner.metrics.attachments_refused.inc();
                bytes.delete(key, &Part::ALL).await?;
                Err(error)
            }
            examined => examined,
        }
    }

    async fn look_into(
        &self,
        bytes: &ByteStore,
        key: Key,
        of: &StoredAttachment,
    ) -> Result<AttachmentFinding, Error> {
        let head = bytes.read(key, Part::Whole, 0..of.size.min(inspect::HEAD_BYTES)).await?;
        inspect::check_content(&of.content_type, &head).map_err(fault)?;
        let format = inspect::image_format(&inspect::essence(&of.content_type));
        let Some(format) = format.filter(|_| of.size <= images::MAX_FILE_BYTES) else {
            let mut found = AttachmentFinding::default();
            if inspect::has_duration(&inspect::essence(&of.content_type)) {
                found.duration_ms = self.inner.durations.read(bytes, key, of.size).await;
            }
            return Ok(found);
        };
        let file = bytes.read(key, Part::Whole, 0..of.size).await?;
        let image =
            self.inner.images.read(file, format).await.map_err(|refused| match refused {
                Fault::Refused(reason) => fault(reason),
                Fault::TooSlow => Error::Unavailable(None),
            })?;
        let thumbnail = image.thumbnail.is_some();
        if let Some((thumbnail, content_type)) = image.thumbnail {
            bytes.write_thumbnail(key, thumbnail, content_type).await?;
        }
        Ok(AttachmentFinding {
            width: i32::try_from(image.width).ok(),
            height: i32::try_from(image.height).ok(),
            duration_ms: None,
            blurhash: image.blurhash,
            thumbnail,
        })
    }
}
