//! Where the bytes lie: a folder, or a bucket of an object store.

use std::{ops::Range, sync::Arc, time::SystemTime};

use bytes::Bytes;
use futures_util::stream::BoxStream;

use super::{
    bucket::Bucket,
    folder::Folder,
    key::{Key, Part},
};
use crate::error::{Cause, Error};

/// Why bytes could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ByteError {
    #[error("the object is not there")]
    Missing,
    #[error("another request uploads the same attachment, or too many upload others")]
    Busy,
    #[error("the store of attachments has no space left")]
    Full(#[source] Cause),
    #[error("the store of attachments is away")]
    Away(#[source] Cause),
}

impl ByteError {
    pub(super) fn away(cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Away(Arc::new(cause))
    }
}

impl From<ByteError> for Error {
    fn from(error: ByteError) -> Self {
        match error {
            ByteError::Missing => Self::AttachmentNotFound,
            ByteError::Busy => Self::RateLimited { retry_after: super::BUSY_WAIT },
            error => Self::Unavailable(Some(Arc::new(error))),
        }
    }
}

/// Bytes as they come.
pub(crate) type ByteStream = BoxStream<'static, Result<Bytes, ByteError>>;

/// An object that [`ByteStore::list`] has found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listed {
    pub(crate) key: Key,
    pub(crate) part: Part,
    pub(crate) modified: SystemTime,
}

/// The store of attachments. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) enum ByteStore {
    Folder(Folder),
    Bucket(Bucket),
}

impl ByteStore {
    /// Returns the size of an object; `None` if it is not there.
    pub(crate) async fn size(&self, key: Key, part: Part) -> Result<Option<u64>, ByteError> {
        match self {
            Self::Folder(folder) => folder.size(key, part).await,
            Self::Bucket(bucket) => bucket.size(key, part).await,
        }
    }

    /// Reads a range of an object, in one piece.
    pub(crate) async fn read(
        &self,
        key: Key,
        part: Part,
        range: Range<u64>,
    ) -> Result<Bytes, ByteError> {
        match self {
            Self::Folder(folder) => folder.read(key, part, range).await,
            Self::Bucket(bucket) => bucket.read(key, part, range).await,
        }
    }

    /// Reads a range of an object as it comes.
    pub(crate) async fn stream(
        &self,
        key: Key,
        part: Part,
        range: Range<u64>,
    ) -> Result<ByteStream, ByteError> {
        match self {
            Self::Folder(folder) => folder.stream(key, part, range).await,
            Self::Bucket(bucket) => bucket.stream(key, part, range).await,
        }
    }

    /// Writes a thumbnail.
    pub(crate) async fn write_thumbnail(
        &self,
        key: Key,
        image: Bytes,
        content_type: &'static str,
    ) -> Result<(), ByteError> {
        match self {
            Self::Folder(folder) => folder.write(key, Part::Thumbnail, image).await,
            Self::Bucket(bucket) => bucket.write(key, Part::Thumbnail, image, content_type).await,
        }
    }

    /// Makes the upload the attachment itself, out of its uploader's reach.
    pub(crate) async fn promote(&self, key: Key) -> Result<(), ByteError> {
        match self {
            Self::Folder(folder) => folder.promote(key).await,
            Self::Bucket(bucket) => bucket.promote(key).await,
        }
    }

    /// Deletes objects of an attachment; that one is not there is no error.
    pub(crate) async fn delete(&self, key: Key, parts: &[Part]) -> Result<(), ByteError> {
        match self {
            Self::Folder(folder) => folder.delete(key, parts).await,
            Self::Bucket(bucket) => bucket.delete(key, parts).await,
        }
    }

    /// Lists all objects that may be an attachment's.
    pub(crate) async fn list(
        &self,
    ) -> Result<BoxStream<'static, Result<Listed, ByteError>>, ByteError> {
        match self {
            Self::Folder(folder) => folder.list().await,
            Self::Bucket(bucket) => Ok(bucket.list()),
        }
    }
}
