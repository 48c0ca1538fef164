//! Compares the store of attachments with the rows: `beseda verify --attachments`.

use std::{
    collections::HashSet,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::TryStreamExt;

use super::{
    bytes::{ByteError, ByteStore},
    key::{Key, Part},
    open_bytes,
};
use crate::{
    config::{AttachmentConfig, ConfigError, DatabaseConfig},
    store::{Store, StoreError},
};

/// What is younger may be in the making.
const YOUNG: Duration = Duration::from_secs(3600);

/// Keys that are looked up at once.
const PAGE: usize = 1_000;

/// Most findings of a kind that are named.
const NAMED: usize = 10;

/// Why the comparison could not be made.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the store of attachments cannot be read")]
    Bytes(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<ByteError> for VerifyError {
    fn from(error: ByteError) -> Self {
        Self::Bytes(Box::new(error))
    }
}

/// The outcome of a comparison.
#[derive(Debug, Default)]
pub struct VerifiedBytes {
    objects: usize,
    rows: usize,
    /// Objects that no row names.
    strays: Vec<String>,
    /// Rows whose object is not there.
    missing: Vec<String>,
}

impl VerifiedBytes {
    pub fn is_well(&self) -> bool {
        self.strays.is_empty() && self.missing.is_empty()
    }
}

impl fmt::Display for VerifiedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [("bytes without a row", &self.strays), ("rows without bytes", &self.missing)];
        for (kind, found) in kinds.iter().filter(|(_, found)| !found.is_empty()) {
            writeln!(f, "{kind}: {}", found.len())?;
            for name in found.iter().take(NAMED) {
                writeln!(f, "  {name}")?;
            }
        }
        write!(f, "{} objects and {} attachments looked at", self.objects, self.rows)?;
        if self.is_well() { write!(f, ": all is well") } else { Ok(()) }
    }
}

/// Compares. It is safe beside a running service: what is younger than an hour is left out, and what is gone meanwhile
/// is looked at again.
pub async fn verify(
    config: &AttachmentConfig,
    database: &DatabaseConfig,
) -> Result<VerifiedBytes, VerifyError> {
    let store = Store::new(database, Arc::default())?;
    let Some(bytes) = open_bytes(config, &store)? else { return Ok(VerifiedBytes::default()) };
    let mut verified = VerifiedBytes::default();
    let present = list_old(&bytes, &mut verified).await?;
    let keys: HashSet<Key> = present.iter().map(|(key, _)| *key).collect();
    for page in keys.into_iter().collect::<Vec<_>>().chunks(PAGE) {
        let ids: Vec<_> = page.iter().map(|key| (key.chat_id, key.attachment_id)).collect();
        for (chat_id, attachment_id) in store.list_unknown_attachments(&ids).await? {
            let key = Key { chat_id, attachment_id };
            for part in Part::ALL.into_iter().filter(|part| present.contains(&(key, *part))) {
                // It may have been removed since the list.
                if bytes.size(key, part).await?.is_some() {
                    verified.strays.push(format!("{}/{}", key.chat_id, key.file_name(part)));
                }
            }
        }
    }
    let mut after = None;
    loop {
        let rows = store.list_checked_attachments(after, PAGE as i64).await?;
        let Some((last, _)) = rows.last() else { return Ok(verified) };
        after = Some(*last);
        verified.rows += rows.len();
        for ((chat_id, attachment_id), thumbnail) in rows {
            let key = Key { chat_id, attachment_id };
            let parts = [(Part::Whole, true), (Part::Thumbnail, thumbnail)];
            for (part, _) in parts.into_iter().filter(|(_, expected)| *expected) {
                if !present.contains(&(key, part))
                    && bytes.size(key, part).await?.is_none()
                    && !store.get_attachments(chat_id, &[attachment_id]).await?.is_empty()
                {
                    verified.missing.push(format!("{}/{}", key.chat_id, key.file_name(part)));
                }
            }
        }
    }
}

/// Lists the objects that are not young.
async fn list_old(
    bytes: &ByteStore,
    verified: &mut VerifiedBytes,
) -> Result<HashSet<(Key, Part)>, VerifyError> {
    let limit = SystemTime::now() - YOUNG;
    let mut listed = bytes.list().await?;
    let mut present = HashSet::new();
    while let Some(object) = listed.try_next().await? {
        verified.objects += 1;
        if object.modified < limit {
            present.insert((object.key, object.part));
        }
    }
    Ok(present)
}
