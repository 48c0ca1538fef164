//! Replaces the responses of the HTTP library itself, to malformed requests and to heads that are
//! too large. The library sends a bare status and has no hook for it; here it becomes a problem
//! document like every other failure.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::AsyncWrite;

use crate::api::problem;

/// The replacement of one response of the library.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    /// Our bytes still to be written.
    ours: Vec<u8>,
    /// The number of the library's bytes that ours replace; 0: none.
    theirs: usize,
}

impl Refusal {
    /// Detects a refusal in bytes that the library writes on its own.
    pub(super) fn note(&mut self, bytes: &[u8]) {
        if self.theirs == 0
            && let Some(status) = refused(bytes)
        {
            (self.ours, self.theirs) = (problem::unreadable(status), bytes.len());
        }
    }

    /// Writes the replacement, if there is one. It reports progress only when all is written,
    /// because the library counts its own bytes.
    pub(super) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Option<Poll<io::Result<usize>>> {
        while !self.ours.is_empty() {
            match Pin::new(&mut *stream).poll_write(context, &self.ours) {
                Poll::Ready(Ok(0)) => {
                    return Some(Poll::Ready(Err(io::ErrorKind::WriteZero.into())));
                }
                Poll::Ready(Ok(written)) => drop(self.ours.drain(..written)),
                other => return Some(other),
            }
        }
        let theirs = std::mem::take(&mut self.theirs);
        (theirs > 0).then_some(Poll::Ready(Ok(theirs)))
    }
}

/// Returns the status of a refusal: a complete head without a body, and without the request id that
/// all our responses have.
fn refused(bytes: &[u8]) -> Option<u16> {
    let head = std::str::from_utf8(bytes.strip_suffix(b"\r\n\r\n")?).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let bare = head.contains("\r\ncontent-length: 0") && !head.contains("\r\nx-request-id:");
    (bare && matches!(status, 400 | 414 | 431)).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::refused;

    #[test]
    fn only_the_librarys_own_words_are_replaced() {
        let bare = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\
                    content-length: 0\r\ndate: Mon, 23 Nov 2026 20:57:22 GMT\r\n\r\n";
        assert_eq!(refused(bare.as_bytes()), Some(431));
        assert_eq!(refused(bare.replace("431", "200").as_bytes()), None);
        assert_eq!(refused(bare.replace("date", "x-request-id").as_bytes()), None);
        assert_eq!(
            refused(bare.replace("content-length: 0", "content-length: 5").as_bytes()),
            None
        );
        assert_eq!(refused(&bare.as_bytes()[..20]), None);
        assert_eq!(refused(b""), None);
    }
}
