//! Uploads to a replica: whole, or in parts that any replica may take.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};

use super::{
    Attachments,
    bucket::BucketUpload,
    bytes::{ByteError, ByteStore},
    fault,
    folder::FolderUpload,
    key::{Key, Part},
    links::Purpose,
};
use crate::{
    error::Error,
    model::UserId,
    store::{AttachmentState, StoredAttachment},
};

/// How long an upload may stand still: as long as a telephone is out of reach in a tunnel. The next part then comes
/// with a request of its own.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// Least rate of an upload, in bytes per second, beyond that time: it keeps others out while it lasts.
const LEAST_RATE: u64 = 4 * 1024;

/// The bytes of a part, as `Content-Range: bytes first-last/total` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContentRange {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) total: u64,
}

impl ContentRange {
    pub(crate) fn parse(raw: &str) -> Option<Self> {
        let (range, total) = raw.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let number = |raw: &str| {
            let digits = !raw.is_empty() && raw.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| raw.parse::<u64>().ok()).flatten()
        };
        let range = Self { first: number(first)?, last: number(last)?, total: number(total)? };
        (range.first <= range.last && range.last < range.total).then_some(range)
    }
}

/// How far an upload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Bytes from the first one on without a gap.
    pub(crate) received: u64,
    pub(crate) size: u64,
}

impl Progress {
    pub(crate) fn is_whole(self) -> bool {
        self.received == self.size
    }
}

/// The attachment that a link to upload is for.
#[derive(Debug)]
pub(crate) struct Target {
    of: StoredAttachment,
}

impl Target {
    pub(crate) fn owner(&self) -> &UserId {
        &self.of.owner_id
    }

    pub(crate) fn size(&self) -> u64 {
        self.of.size
    }

    fn key(&self) -> Key {
        Key { chat_id: self.of.chat_id, attachment_id: self.of.attachment_id }
    }

    fn at(&self, received: u64) -> Progress {
        Progress { received, size: self.of.size }
    }

    /// Whether its bytes were checked, so that none are awaited.
    fn is_checked(&self) -> bool {
        self.of.state != AttachmentState::Awaited
    }
}

/// An upload in progress.
enum Upload {
    Folder(FolderUpload),
    Bucket(Box<BucketUpload>),
}

impl Upload {
    async fn open(bytes: &ByteStore, target: &Target) -> Result<Self, ByteError> {
        Ok(match bytes {
            ByteStore::Folder(folder) => Self::Folder(folder.upload(target.key()).await?),
            ByteStore::Bucket(bucket) => {
                let of = &target.of;
                let upload = bucket.upload(target.key(), &of.content_type, of.size).await?;
                Self::Bucket(Box::new(upload))
            }
        })
    }

    fn received(&self) -> u64 {
        match self {
            Self::Folder(upload) => upload.received(),
            Self::Bucket(upload) => upload.received(),
        }
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), ByteError> {
        match self {
            Self::Folder(upload) => upload.write(bytes).await,
            Self::Bucket(upload) => upload.write(bytes).await,
        }
    }

    /// Keeps what has come; returns how much is there.
    async fn finish(self) -> Result<u64, ByteError> {
        match self {
            Self::Folder(upload) => upload.finish().await,
            Self::Bucket(upload) => upload.finish().await,
        }
    }

    /// Forgets what this request has brought, as far as nobody else can see it.
    async fn undo(self) -> Result<(), ByteError> {
        match self {
            Self::Folder(upload) => upload.undo().await,
            // Parts that the store has are whole; the rest is in memory only.
            Self::Bucket(_) => Ok(()),
        }
    }
}

impl Attachments {
    /// Reads a link to upload.
    pub(crate) async fn upload_target(&self, link: &str) -> Result<Target, Error> {
        let (key, size) = self.inner.links.check(Purpose::Upload, link)?;
        let known = self.inner.store.get_attachments(key.chat_id, &[key.attachment_id]).await?;
        let of = known.into_iter().next().filter(|of| of.size == size);
        Ok(Target { of: of.ok_or(Error::AttachmentNotFound)? })
    }

    /// Returns how far an upload is.
    pub(crate) async fn upload_progress(&self, target: &Target) -> Result<Progress, Error> {
        if target.is_checked() {
            return Ok(target.at(target.size()));
        }
        let (bytes, key) = (self.bytes()?, target.key());
        if is_in_place(bytes, target).await? {
            return Ok(target.at(target.size()));
        }
        let received = match bytes {
            ByteStore::Folder(folder) => folder.size(key, Part::Upload).await?.unwrap_or(0),
            ByteStore::Bucket(bucket) => bucket.received(key).await?,
        };
        Ok(target.at(received.min(target.size())))
    }

    /// Takes bytes of an upload: all of it where there is no `range`. Those that are there already are passed over,
    /// and a part that would leave a gap is not taken: the answer tells where to continue. The last byte has the
    /// whole checked.
    pub(crate) async fn receive<E>(
        &self,
        target: &Target,
        range: Option<ContentRange>,
        body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<Progress, Error> {
        if target.is_checked() {
            return Ok(target.at(target.size()));
        }
        let (first, end) = match range {
            Some(range) if range.total != target.size() => {
                return Err(fault("have another size than Content-Range says"));
            }
            Some(range) => (range.first, range.last + 1),
            None => (0, target.size()),
        };
        let bytes = self.bytes()?;
        let mut upload = Upload::open(bytes, target).await?;
        // Looked for now, as another request may just have finished it: then this one has begun it anew.
        if is_in_place(bytes, target).await? {
            drop(upload);
            bytes.delete(target.key(), &[Part::Upload]).await?;
            self.check(target.of.clone()).await?;
            return Ok(target.at(target.size()));
        }
        if first > upload.received() {
            return Ok(target.at(upload.finish().await?));
        }
        let known = upload.received();
        let taken = take(&mut upload, first, end, body).await;
        self.inner.metrics.attachment_bytes.inc_by(upload.received() - known);
        let received = match taken {
            Ok(()) => upload.finish().await?,
            // What came is kept, and the client told how much: it goes on with a request of its own.
            Err(Stopped::BrokenOff) => return Ok(target.at(upload.finish().await?)),
            Err(Stopped::TooMuch) => {
                upload.undo().await?;
                let limit = usize::try_from(end - first).unwrap_or(usize::MAX);
                return Err(Error::PayloadTooLarge { limit });
            }
            Err(Stopped::NotWritten(error)) => {
                upload.undo().await?;
                return Err(error.into());
            }
        };
        let progress = target.at(received);
        if progress.is_whole() {
            self.check(target.of.clone()).await?;
        } else if range.is_none() {
            return Err(fault("have fewer bytes than was announced"));
        }
        Ok(progress)
    }
}

/// Whether all bytes are there already, and only their check broke off.
async fn is_in_place(bytes: &ByteStore, target: &Target) -> Result<bool, ByteError> {
    Ok(bytes.size(target.key(), Part::Whole).await? == Some(target.size()))
}

/// Why bytes were not taken to the end.
enum Stopped {
    BrokenOff,
    TooMuch,
    NotWritten(ByteError),
}

/// Writes a body that holds the bytes from `first` on, up to `end`.
async fn take<E>(
    upload: &mut Upload,
    first: u64,
    end: u64,
    mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
) -> Result<(), Stopped> {
    let (begun, mut at) = (Instant::now(), first);
    loop {
        let Ok(next) = tokio::time::timeout(IDLE_LIMIT, body.next()).await else {
            return Err(Stopped::BrokenOff);
        };
        let mut bytes = match next {
            None => return Ok(()),
            Some(Ok(bytes)) => bytes,
            Some(Err(_)) => return Err(Stopped::BrokenOff),
        };
        let earned = Duration::from_secs((at - first) / LEAST_RATE);
        if begun.elapsed() > IDLE_LIMIT + earned {
            return Err(Stopped::BrokenOff);
        }
        if bytes.len() as u64 > end - at {
            return Err(Stopped::TooMuch);
        }
        let known = upload.received().saturating_sub(at).min(bytes.len() as u64);
        at += bytes.len() as u64;
        // No more than the length of `bytes`, which is a usize.
        bytes::Buf::advance(&mut bytes, usize::try_from(known).unwrap_or(usize::MAX));
        upload.write(bytes).await.map_err(Stopped::NotWritten)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_names_bytes_of_a_whole() {
        let range = |first, last, total| Some(ContentRange { first, last, total });
        assert_eq!(ContentRange::parse("bytes 0-9/10"), range(0, 9, 10));
        assert_eq!(ContentRange::parse("bytes 5-5/10"), range(5, 5, 10));
        for wrong in [
            "",
            "bytes */10",
            "bytes 0-10/10",
            "bytes 6-5/10",
            "bytes 0-9/*",
            "items 0-1/2",
            "bytes +1-2/3",
        ] {
            assert_eq!(ContentRange::parse(wrong), None, "{wrong}");
        }
    }
}
