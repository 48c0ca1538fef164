//! Who may read an attachment, and how its bytes are given.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use url::Url;
use uuid::Uuid;

use super::{
    Attachments,
    bytes::{ByteStore, ByteStream},
    images, inspect,
    key::{Key, Part},
    links::Purpose,
};
use crate::{
    error::Error,
    model::{Attachment, AttachmentStatus, ChatId, ReportId, Time, UserId},
    store::{AttachmentState, StoredAttachment},
};

/// How long the link of a redirect is good for: it is followed at once.
const LINK_LIFETIME: Duration = Duration::from_secs(60);

/// How long the links of an export are good for: it may take a while.
const EXPORT_LIFETIME: Duration = Duration::from_secs(3600);

/// What of an attachment is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Variant {
    Thumbnail,
}

/// An attachment that its reader may have.
#[derive(Debug)]
pub(crate) struct Download {
    chat_id: ChatId,
    attachment_id: Uuid,
    name: String,
    content_type: String,
    /// Of the whole, in bytes.
    size: u64,
    part: Part,
}

impl Part {
    fn of(variant: Option<Variant>) -> Self {
        match variant {
            None => Self::Whole,
            Some(Variant::Thumbnail) => Self::Thumbnail,
        }
    }
}

/// Whether its bytes were checked, and not refused since.
fn is_there(of: &StoredAttachment) -> bool {
    matches!(of.state, AttachmentState::Ready | AttachmentState::Scanning)
}

/// What may stand in a parameter of a header as it is (RFC 8187 §3.2.1).
const ATTR_CHARS: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

impl Download {
    fn of(of: StoredAttachment, part: Part) -> Self {
        let StoredAttachment { chat_id, attachment_id, name, content_type, size, .. } = of;
        Self { chat_id, attachment_id, name, content_type, size, part }
    }

    /// Of one that is kept for a report.
    fn of_kept(chat_id: ChatId, kept: Attachment, part: Part) -> Result<Self, Error> {
        let Attachment { attachment_id, name, content_type, size, thumbnail, status, .. } = kept;
        if status == AttachmentStatus::Blocked || part == Part::Thumbnail && !thumbnail {
            return Err(Error::AttachmentNotFound);
        }
        Ok(Self { chat_id, attachment_id, name, content_type, size: size.unsigned_abs(), part })
    }

    pub(super) fn key(&self) -> Key {
        Key { chat_id: self.chat_id, attachment_id: self.attachment_id }
    }

    /// A strong one: the bytes never change.
    pub(crate) fn etag(&self) -> String {
        let suffix = if self.part == Part::Thumbnail { "-thumbnail" } else { "" };
        format!("\"{}{suffix}\"", self.attachment_id)
    }

    /// The value of `Content-Disposition` (RFC 6266).
    pub(crate) fn disposition(&self) -> String {
        let inline = self.part == Part::Thumbnail
            || inspect::may_be_inline(&inspect::essence(&self.content_type));
        let kind = if inline { "inline" } else { "attachment" };
        // For clients that do not know the second form.
        let plain: String = self.name.chars().map(plain).collect();
        let encoded = utf8_percent_encode(&self.name, ATTR_CHARS);
        format!("{kind}; filename=\"{plain}\"; filename*=UTF-8''{encoded}")
    }
}

fn plain(c: char) -> char {
    let fits = matches!(c, ' '..='~') && !matches!(c, '"' | '\\' | '%');
    if fits { c } else { '_' }
}

/// The bytes of a download.
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    pub(crate) content_type: String,
    pub(crate) size: u64,
}

impl Attachments {
    /// Finds an attachment that a member may read.
    pub(crate) async fn find(
        &self,
        reader: &UserId,
        chat_id: ChatId,
        attachment_id: Uuid,
        variant: Option<Variant>,
    ) -> Result<Download, Error> {
        let store = &self.inner.store;
        let of = store.get_visible_attachment(chat_id, reader, attachment_id).await?;
        let readable = match of.state {
            AttachmentState::Ready => true,
            AttachmentState::Scanning => of.owner_id == *reader,
            AttachmentState::Awaited | AttachmentState::Blocked => false,
        };
        let part = Part::of(variant);
        if readable && (part == Part::Whole || of.thumbnail) {
            Ok(Download::of(of, part))
        } else {
            Err(Error::AttachmentNotFound)
        }
    }

    /// Finds the attachment of a link to a replica. Whoever made the link has judged the reader.
    pub(crate) async fn find_linked(&self, link: &str) -> Result<Download, Error> {
        let (key, thumbnail) = self.inner.links.check(Purpose::Download, link)?;
        let known = self.inner.store.get_attachments(key.chat_id, &[key.attachment_id]).await?;
        let part = if thumbnail == 1 { Part::Thumbnail } else { Part::Whole };
        if let Some(of) = known.into_iter().find(is_there) {
            return Ok(Download::of(of, part));
        }
        // Of a message that was deleted, and reported before.
        let kept = self.inner.store.get_kept_attachment(key.chat_id, key.attachment_id).await?;
        Download::of_kept(key.chat_id, kept.ok_or(Error::AttachmentNotFound)?, part)
    }

    /// Makes a URL of the object store that is good for a minute; `None`: the bytes come from a replica.
    pub(crate) async fn redirect(&self, download: &Download) -> Result<Option<Url>, Error> {
        self.direct_url(download, LINK_LIFETIME).await
    }

    /// Finds an attachment that is kept for a report. The caller must be the host application.
    pub(crate) async fn find_reported(
        &self,
        report_id: ReportId,
        attachment_id: Uuid,
        variant: Option<Variant>,
    ) -> Result<Download, Error> {
        let kept = self.inner.store.get_reported_attachment(report_id, attachment_id).await?;
        let (chat_id, kept) = kept.ok_or(Error::AttachmentNotFound)?;
        Download::of_kept(chat_id, kept, Part::of(variant))
    }

    /// Makes a URL of an attachment's bytes that is good for an hour; `None`: there are none. `origin`: the
    /// replica's, as clients see it.
    pub(crate) async fn lasting_url(
        &self,
        of: StoredAttachment,
        origin: &str,
    ) -> Result<Option<(String, Time)>, Error> {
        if self.inner.bytes.is_none() || !is_there(&of) {
            return Ok(None);
        }
        let download = Download::of(of, Part::Whole);
        let (path, end) = self.inner.links.download(download.key(), download.part, EXPORT_LIFETIME);
        let direct = self.direct_url(&download, EXPORT_LIFETIME).await?;
        Ok(Some((direct.map_or_else(|| format!("{origin}{path}"), String::from), end)))
    }

    /// Makes the path of a link to a replica that is good for a minute.
    pub(crate) fn link(&self, download: &Download) -> (String, Time) {
        self.inner.links.download(download.key(), download.part, LINK_LIFETIME)
    }

    /// Signs a URL of the object store; `None`: the bytes come from a replica.
    async fn direct_url(
        &self,
        download: &Download,
        lifetime: Duration,
    ) -> Result<Option<Url>, Error> {
        let ByteStore::Bucket(bucket) = self.bytes()? else { return Ok(None) };
        let mut headers = BTreeMap::from([("content-disposition", download.disposition())]);
        if download.part == Part::Whole {
            headers.insert("content-type", download.content_type.clone());
        }
        Ok(bucket.download_url(download.key(), download.part, &headers, lifetime).await?)
    }

    /// Looks at the bytes of a download.
    pub(crate) async fn open(&self, download: &Download) -> Result<Opened, Error> {
        let Download { content_type, size, part, .. } = download;
        if *part == Part::Whole {
            return Ok(Opened { content_type: content_type.clone(), size: *size });
        }
        let (bytes, key) = (self.bytes()?, download.key());
        let size = bytes.size(key, *part).await?.ok_or(Error::AttachmentNotFound)?;
        let head = bytes.read(key, *part, 0..size.min(inspect::HEAD_BYTES)).await?;
        Ok(Opened { content_type: images::thumbnail_type(&head).to_owned(), size })
    }

    /// Reads a range of a download as it comes.
    pub(crate) async fn stream(
        &self,
        download: &Download,
        range: Range<u64>,
    ) -> Result<ByteStream, Error> {
        Ok(self.bytes()?.stream(download.key(), download.part, range).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn download(name: &str, content_type: &str) -> Download {
        Download {
            chat_id: ChatId::nil(),
            attachment_id: Uuid::nil(),
            name: name.to_owned(),
            content_type: content_type.to_owned(),
            size: 1,
            part: Part::Whole,
        }
    }

    #[test]
    fn a_name_survives_a_header_and_cannot_leave_it() {
        assert_eq!(
            download("май \"1\".png", "image/png").disposition(),
            "inline; filename=\"___ _1_.png\"; filename*=UTF-8''%D0%BC%D0%B0%D0%B9%20%221%22.png"
        );
        assert_eq!(
            download("a;b.html", "text/html").disposition(),
            "attachment; filename=\"a;b.html\"; filename*=UTF-8''a%3Bb.html"
        );
    }
}
