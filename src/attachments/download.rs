//! Who may read an attachment, and how its bytes are given.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use url::Url;
use uuid::Uuid;

use super::{
    Attachments,
    bytes::ByteStream,
    images, inspect,
    key::{Key, Part},
    links::Purpose,
};
use crate::{
    error::Error,
    model::{ChatId, Time, UserId},
    store::{AttachmentState, StoredAttachment},
};

/// How long the link of a redirect is good for: it is followed at once.
const LINK_LIFETIME: Duration = Duration::from_secs(60);

/// What of an attachment is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Variant {
    Thumbnail,
}

/// An attachment that its reader may have.
#[derive(Debug)]
pub(crate) struct Download {
    of: StoredAttachment,
    part: Part,
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
    pub(super) fn key(&self) -> Key {
        Key { chat_id: self.of.chat_id, attachment_id: self.of.attachment_id }
    }

    pub(super) fn part(&self) -> Part {
        self.part
    }

    /// A strong one: the bytes never change.
    pub(crate) fn etag(&self) -> String {
        let suffix = if self.part == Part::Thumbnail { "-thumbnail" } else { "" };
        format!("\"{}{suffix}\"", self.of.attachment_id)
    }

    /// The value of `Content-Disposition` (RFC 6266).
    pub(crate) fn disposition(&self) -> String {
        let inline = self.part == Part::Thumbnail
            || inspect::may_be_inline(&inspect::essence(&self.of.content_type));
        let kind = if inline { "inline" } else { "attachment" };
        // For clients that do not know the second form.
        let plain: String = self.of.name.chars().map(plain).collect();
        let encoded = utf8_percent_encode(&self.of.name, ATTR_CHARS);
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
        let part = match variant {
            None => Part::Whole,
            Some(Variant::Thumbnail) => Part::Thumbnail,
        };
        if readable && (part == Part::Whole || of.thumbnail) {
            Ok(Download { of, part })
        } else {
            Err(Error::AttachmentNotFound)
        }
    }

    /// Finds the attachment of a link to a replica. Whoever made the link has judged the reader.
    pub(crate) async fn find_linked(&self, link: &str) -> Result<Download, Error> {
        let (key, thumbnail) = self.inner.links.check(Purpose::Download, link)?;
        let known = self.inner.store.get_attachments(key.chat_id, &[key.attachment_id]).await?;
        let part = if thumbnail == 1 { Part::Thumbnail } else { Part::Whole };
        let readable = |of: &StoredAttachment| {
            matches!(of.state, AttachmentState::Ready | AttachmentState::Scanning)
        };
        let of = known.into_iter().next().filter(readable).ok_or(Error::AttachmentNotFound)?;
        Ok(Download { of, part })
    }

    /// Makes a URL of the object store that is good for a minute; `None`: the bytes come from a replica.
    pub(crate) async fn redirect(&self, download: &Download) -> Result<Option<Url>, Error> {
        let mut headers = BTreeMap::from([("content-disposition", download.disposition())]);
        if download.part == Part::Whole {
            headers.insert("content-type", download.of.content_type.clone());
        }
        self.direct_url(download, &headers, LINK_LIFETIME).await
    }

    /// Makes the secret part of a link to a replica that is good for a minute.
    pub(crate) fn link(&self, download: &Download) -> (String, Time) {
        self.inner.links.download(download.key(), download.part, LINK_LIFETIME)
    }

    /// Looks at the bytes of a download.
    pub(crate) async fn open(&self, download: &Download) -> Result<Opened, Error> {
        let Download { of, part } = download;
        if *part == Part::Whole {
            return Ok(Opened { content_type: of.content_type.clone(), size: of.size });
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
            of: StoredAttachment {
                chat_id: ChatId::nil(),
                attachment_id: Uuid::nil(),
                owner_id: UserId::trusted("a"),
                name: name.to_owned(),
                content_type: content_type.to_owned(),
                size: 1,
                state: AttachmentState::Ready,
                thumbnail: false,
                created_at: Time(jiff::Timestamp::UNIX_EPOCH),
                seq: None,
            },
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
