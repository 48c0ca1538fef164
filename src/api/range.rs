//! Ranges of bytes that a client asks for (RFC 9110 §14).

use std::ops::Range;

use axum::http::HeaderValue;

/// What of a file is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    All,
    Range(Range<u64>),
    /// Bytes that there are none of.
    None,
}

/// Reads the header `Range` for a file of `size` bytes. One of another unit, of several ranges, or one that cannot be
/// read is passed over, as the standard allows.
pub(super) fn parse(header: Option<&HeaderValue>, size: u64) -> Wanted {
    let range = header
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("bytes="))
        .and_then(|range| range.trim().split_once('-'));
    let Some((first, last)) = range else { return Wanted::All };
    let number = |raw: &str| raw.bytes().all(|b| b.is_ascii_digit()).then(|| raw.parse().ok());
    let wanted = match (first, last) {
        ("", last) => match number(last).flatten() {
            Some(0) => return Wanted::None,
            Some(count) => size.saturating_sub(count)..size,
            None => return Wanted::All,
        },
        (first, "") => match number(first).flatten() {
            Some(first) => first..size,
            None => return Wanted::All,
        },
        (first, last) => match (number(first).flatten(), number(last).flatten()) {
            (Some(first), Some(last)) if first <= last => first..size.min(last.saturating_add(1)),
            _ => return Wanted::All,
        },
    };
    if wanted.is_empty() { Wanted::None } else { Wanted::Range(wanted) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_within_the_file_or_there_is_none() {
        let parse = |raw: &'static str| parse(Some(&HeaderValue::from_static(raw)), 10);
        for (raw, range) in [
            ("bytes=0-0", 0..1),
            ("bytes=3-5", 3..6),
            ("bytes=3-", 3..10),
            ("bytes=-4", 6..10),
            ("bytes=-99", 0..10),
            ("bytes=5-99999999999999999", 5..10),
        ] {
            assert_eq!(parse(raw), Wanted::Range(range), "{raw}");
        }
        for beyond in ["bytes=10-", "bytes=10-20", "bytes=-0"] {
            assert_eq!(parse(beyond), Wanted::None, "{beyond}");
        }
        for unread in ["bytes=5-3", "bytes=a-b", "lines=1-2", "bytes=0-1,3-4", "bytes=-", "bytes"] {
            assert_eq!(parse(unread), Wanted::All, "{unread}");
        }
        assert_eq!(super::parse(None, 10), Wanted::All);
    }
}
