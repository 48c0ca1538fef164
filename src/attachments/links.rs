//! Signed links to a replica: whoever has one may upload, or read, one object until it expires. Any replica accepts
//! them.

use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use uuid::Uuid;

use super::key::{Key, Part};
use crate::{
    auth::{derive_key, mac},
    error::Error,
    model::Time,
};

/// Bytes of a link before its signature: two ids, a number, a time.
const PAYLOAD: usize = 16 + 16 + 8 + 8;

/// Why a link is refused.
const REFUSED: Error = Error::Forbidden("This link has expired, or is none of ours.");

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The number is the size in bytes.
    Upload,
    /// The number is 1 for the thumbnail, else 0.
    Download,
}

/// Signs and checks links.
#[derive(Clone)]
pub(crate) struct Links {
    uploads: [u8; 32],
    downloads: [u8; 32],
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Links")
    }
}

impl Links {
    pub(crate) fn new(instance_secret: &[u8]) -> Self {
        Self {
            uploads: derive_key(instance_secret, "attachment uploads"),
            downloads: derive_key(instance_secret, "attachment downloads"),
        }
    }

    fn key(&self, purpose: Purpose) -> &[u8; 32] {
        match purpose {
            Purpose::Upload => &self.uploads,
            Purpose::Download => &self.downloads,
        }
    }

    /// Makes the secret part of a link; returns it with the end of its life.
    fn sign(&self, purpose: Purpose, key: Key, number: u64, lifetime: Duration) -> (String, Time) {
        let now = jiff::Timestamp::now().as_second();
        let end = now.saturating_add(lifetime.as_secs().cast_signed());
        let mut bytes = Vec::with_capacity(PAYLOAD + 32);
        bytes.extend_from_slice(key.chat_id.as_bytes());
        bytes.extend_from_slice(key.attachment_id.as_bytes());
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes.extend_from_slice(&end.to_be_bytes());
        let signature = mac(self.key(purpose), &[&bytes]);
        bytes.extend_from_slice(&signature);
        let end = jiff::Timestamp::from_second(end).unwrap_or(jiff::Timestamp::MAX);
        (BASE64_URL_SAFE_NO_PAD.encode(bytes), Time(end))
    }

    /// Reads a link that [`Links::sign`] made and that has not expired.
    pub(crate) fn check(&self, purpose: Purpose, raw: &str) -> Result<(Key, u64), Error> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(raw).map_err(|_| REFUSED)?;
        let (payload, signature) = bytes.split_at_checked(PAYLOAD).ok_or(REFUSED)?;
        let expected = mac(self.key(purpose), &[payload]);
        verify_slices_are_equal(signature, &expected).map_err(|_| REFUSED)?;
        let (mut ids, mut numbers) = ([Uuid::nil(); 2], [0; 2]);
        for (id, part) in ids.iter_mut().zip(payload.chunks_exact(16)) {
            *id = Uuid::from_slice(part).map_err(|_| REFUSED)?;
        }
        for (number, part) in numbers.iter_mut().zip(payload[32..].chunks_exact(8)) {
            *number = u64::from_be_bytes(part.try_into().map_err(|_| REFUSED)?);
        }
        let ([chat_id, attachment_id], [number, end]) = (ids, numbers);
        if end.cast_signed() <= jiff::Timestamp::now().as_second() {
            return Err(REFUSED);
        }
        Ok((Key { chat_id, attachment_id }, number))
    }

    /// Makes the path at which so many bytes may be uploaded.
    pub(crate) fn upload(&self, key: Key, size: u64, lifetime: Duration) -> (String, Time) {
        let (link, end) = self.sign(Purpose::Upload, key, size, lifetime);
        (format!("/api/v1/uploads/{link}/"), end)
    }

    /// Makes the path at which an object may be read.
    pub(crate) fn download(&self, key: Key, part: Part, lifetime: Duration) -> (String, Time) {
        let thumbnail = (part == Part::Thumbnail).into();
        let (link, end) = self.sign(Purpose::Download, key, thumbnail, lifetime);
        (format!("/api/v1/downloads/{link}/"), end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unchanged_link_that_lives_is_accepted_for_its_purpose() {
        let links = Links::new(&[7; 32]);
        let key = Key { chat_id: Uuid::now_v7(), attachment_id: Uuid::now_v7() };
        let (link, _) = links.sign(Purpose::Upload, key, 77, Duration::from_secs(60));
        assert_eq!(links.check(Purpose::Upload, &link).expect("a valid link"), (key, 77));
        assert!(links.check(Purpose::Download, &link).is_err(), "for another purpose");
        assert!(Links::new(&[8; 32]).check(Purpose::Upload, &link).is_err(), "of another service");
        let (old, _) = links.sign(Purpose::Upload, key, 77, Duration::ZERO);
        assert!(links.check(Purpose::Upload, &old).is_err(), "expired");
        for at in 0..link.len() {
            let mut changed = link.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert!(changed == link || links.check(Purpose::Upload, &changed).is_err(), "{at}");
        }
        assert!(links.check(Purpose::Upload, "").is_err());
    }
}
