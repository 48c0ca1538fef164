//! Attachments: bytes that belong to a message.
//!
//! A client announces an attachment and gets a link; it uploads the bytes there, to the object store itself or to a
//! replica ([`upload`]). Once they are whole they are put out of its reach and checked ([`check`]), by whoever needs
//! them first: the upload's last byte, or the send. What was deleted is removed by a sweeper ([`sweeper`]). Rows are
//! the truth: bytes without a row are nobody's.

mod bucket;
mod bytes;
mod check;
mod download;
mod folder;
mod images;
mod inspect;
mod key;
mod links;
mod media;
mod scanner;
mod sweeper;
mod upload;
mod verify;

use std::{sync::Arc, time::Duration};

use beseda_protocol::rest::NewAttachment;
use http::HeaderValue;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;
use uuid::Uuid;

pub use self::verify::verify;
use self::{
    bucket::Bucket, bytes::ByteStore, folder::Folder, images::Images, key::Key, links::Links,
    media::Durations, scanner::Scanner,
};
pub(crate) use self::{
    download::{Download, Variant},
    upload::{ContentRange, Progress},
};
use crate::{
    config::{AttachmentConfig, AttachmentPlace, ConfigError},
    error::{Error, FieldErrors, chain},
    input::Fields,
    metrics::Metrics,
    model::{ChatId, Time, UserId},
    outbox::Outbox,
    store::{AnnouncedAttachment, Store},
};

/// How long a link to upload is good for: a large file on a slow line, with pauses.
const UPLOAD_LIFETIME: Duration = Duration::from_secs(3600);

/// When to retry where another request uploads the same attachment, or too many upload at once.
const BUSY_WAIT: Duration = Duration::from_secs(1);

/// The attachments of an installation. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Attachments {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// `None`: there are no attachments.
    bytes: Option<ByteStore>,
    store: Store,
    config: AttachmentConfig,
    links: Links,
    images: Images,
    durations: Durations,
    metrics: Arc<Metrics>,
    /// What must end even if nobody waits for it any more.
    tasks: TaskTracker,
}

/// A new attachment, and where its bytes go.
#[derive(Debug)]
pub(crate) struct Announced {
    pub(crate) attachment_id: Uuid,
    pub(crate) place: UploadPlace,
    pub(crate) expires_at: Time,
}

/// Where a client uploads.
#[derive(Debug)]
pub(crate) enum UploadPlace {
    /// The object store itself.
    Direct(Url),
    /// A replica, at this path.
    Replica(String),
}

impl Attachments {
    /// Opens the store of attachments, and begins to sweep.
    pub fn start(
        config: &AttachmentConfig,
        store: &Store,
        instance_secret: &[u8],
        outbox: &Outbox,
        metrics: &Arc<Metrics>,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, ConfigError> {
        let attachments = Self {
            inner: Arc::new(Inner {
                bytes: open_bytes(config, store)?,
                store: store.clone(),
                config: config.clone(),
                links: Links::new(instance_secret),
                images: Images::default(),
                durations: Durations::default(),
                metrics: Arc::clone(metrics),
                tasks: tasks.clone(),
            }),
        };
        if let Some(bytes) = &attachments.inner.bytes {
            let (sweeping, stopped) = (sweeper::run(store.clone(), bytes.clone()), stop.clone());
            tasks.spawn(async move { stopped.run_until_cancelled(sweeping).await });
            if let Some(address) = &config.scan {
                let scanner = Scanner {
                    store: store.clone(),
                    bytes: bytes.clone(),
                    outbox: outbox.clone(),
                    address: address.clone(),
                    metrics: Arc::clone(metrics),
                };
                tasks.spawn(async move { stop.run_until_cancelled(scanner.run()).await });
            }
        }
        Ok(attachments)
    }

    /// The store of attachments, for what reads or writes bytes.
    fn bytes(&self) -> Result<&ByteStore, Error> {
        self.inner.bytes.as_ref().ok_or(Error::AttachmentNotFound)
    }

    /// Announces an attachment to a chat.
    pub(crate) async fn announce(
        &self,
        owner: &UserId,
        chat_id: ChatId,
        new: NewAttachment,
    ) -> Result<Announced, Error> {
        let Inner { bytes, store, config, links, .. } = &*self.inner;
        let Some(bytes) = bytes else {
            return Err(Error::Forbidden("This installation takes no attachments."));
        };
        if new.size > config.attachment_max_bytes {
            let limit = usize::try_from(config.attachment_max_bytes).unwrap_or(usize::MAX);
            return Err(Error::PayloadTooLarge { limit });
        }
        let key = Key { chat_id, attachment_id: Uuid::now_v7() };
        let announced = AnnouncedAttachment {
            attachment_id: key.attachment_id,
            name: &new.name,
            content_type: &new.content_type,
            size: new.size,
        };
        store
            .announce_attachment(chat_id, owner, &announced, config.attachment_daily_bytes)
            .await?;
        let (link, expires_at) = links.upload(key, new.size, UPLOAD_LIFETIME);
        let direct = match bytes {
            ByteStore::Bucket(bucket) if bucket.takes_directly(new.size) => {
                let content_type =
                    HeaderValue::from_str(&new.content_type).map_err(Error::internal)?;
                bucket.upload_url(key, &content_type, UPLOAD_LIFETIME).await?
            }
            _ => None,
        };
        let place = direct.map_or(UploadPlace::Replica(link), UploadPlace::Direct);
        Ok(Announced { attachment_id: key.attachment_id, place, expires_at })
    }
}

/// Opens the store of attachments; `None`: there are none.
fn open_bytes(config: &AttachmentConfig, store: &Store) -> Result<Option<ByteStore>, ConfigError> {
    let refuse = |error: &dyn std::error::Error| {
        ConfigError::new("BESEDA_ATTACHMENTS", format!("cannot be used: {}", chain(error)))
    };
    match &config.attachments {
        AttachmentPlace::Off => Ok(None),
        AttachmentPlace::Folder(path) => {
            Ok(Some(ByteStore::Folder(Folder::open(path).map_err(|error| refuse(&error))?)))
        }
        AttachmentPlace::Bucket(url) => {
            let bucket = Bucket::open(url, config, store.clone());
            Ok(Some(ByteStore::Bucket(bucket.map_err(|error| refuse(&error))?)))
        }
    }
}

/// Parses the announcement of an attachment.
pub(crate) fn parse_attachment(mut fields: Fields) -> Result<NewAttachment, Error> {
    let name = fields.required_string("name", check_name);
    let content_type = fields.required_string("content_type", inspect::check_content_type);
    if !fields.has("size") {
        fields.refuse("size", "is required");
    }
    let size = fields.optional_integer("size", 1);
    fields.finish()?;
    Ok(NewAttachment {
        name: name.unwrap_or_default(),
        content_type: content_type.unwrap_or_default(),
        size: size.unwrap_or_default().unsigned_abs(),
    })
}

/// Checks the name of a file: no path, nothing that a terminal or a file system takes for something else.
fn check_name(name: &str) -> Result<(), &'static str> {
    let chars = name.chars().count();
    // Marks that turn the direction of writing would hide an extension.
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !(1..=255).contains(&chars) {
        Err("must have 1 to 255 characters")
    } else if name.contains(['/', '\\']) || matches!(name, "." | "..") {
        Err("must be a name without a path")
    } else if name.chars().any(|c| c.is_control() || turns(c)) {
        Err("must not contain control characters")
    } else if name.trim().is_empty() {
        Err("must not be only white space")
    } else {
        Ok(())
    }
}

/// What is wrong with attachments of a request.
fn fault(reason: &str) -> Error {
    let mut errors = FieldErrors::default();
    errors.add("attachments", reason);
    errors.finish().err().unwrap_or(Error::AttachmentNotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_path_and_hides_nothing() {
        for good in ["a.png", "Отчёт за май.pdf", "..a", "x".repeat(255).as_str(), "a b"]
        {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        let long = "x".repeat(256);
        for bad in
            ["", " ", ".", "..", "../a", "a/b", "a\\b", "a\0", "a\n", "gpj.\u{202e}exe", &long]
        {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
