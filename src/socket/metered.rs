//! Bounds the bytes that a client may send before a message is complete.
//!
//! The library assembles fragments and bounds the size of the message, but not the number of empty
//! fragments, which need never end. So this stream counts the bytes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use crate::protocol::MAX_FRAME_BYTES;

/// Maximum bytes of an unfinished message, frame headers included: enough for the largest message
/// in fragments of six bytes, whose headers have six bytes too.
const MOST_UNFINISHED: usize = 2 * MAX_FRAME_BYTES;

/// Bytes of a control frame besides its payload: two of the header, four of the mask (RFC 6455
/// §5.2).
const CONTROL_HEAD: usize = 6;

/// A socket's stream, which fails once an unfinished message is too large.
#[derive(Debug)]
pub(super) struct Metered<S> {
    stream: S,
    /// Bytes read since the last message, without those of complete control frames.
    unfinished: usize,
    since: Option<Instant>,
}

impl<S> Metered<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, unfinished: 0, since: None }
    }

    /// Resets the count: a message is complete. Bytes read beyond it are not counted; they are at
    /// most one buffer.
    pub(super) fn on_message(&mut self) {
        (self.unfinished, self.since) = (0, None);
    }

    /// Discounts a ping or a pong, which may stand between the fragments of a message.
    pub(super) fn on_control(&mut self, payload: usize) {
        self.unfinished = self.unfinished.saturating_sub(CONTROL_HEAD + payload);
        if self.unfinished == 0 {
            self.since = None;
        }
    }

    pub(super) fn is_exceeded(&self) -> bool {
        self.unfinished > MOST_UNFINISHED
    }

    /// When the unfinished message began.
    pub(super) fn unfinished_since(&self) -> Option<Instant> {
        self.since
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_exceeded() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let read = buffer.filled().len() - before;
        if read > 0 {
            self.unfinished += read;
            self.since.get_or_insert_with(Instant::now);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
