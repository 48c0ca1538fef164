//! How long a connection may take for what. hyper's own time-out for a request's head also runs
//! while a kept connection is idle; balancers keep those for a minute, and a connection closed under
//! the next request is an error to somebody. So: seconds for a head, more than a minute for idling.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

use super::linger::linger;

/// From a request's first byte to the end of its head, and from the connection to its first byte;
/// with [`LOOK`] on top 10 s at most.
const HEAD_LIMIT: Duration = Duration::from_millis(7_500);

/// Between two requests: longer than the usual 60 s of balancers, so that they close first.
const IDLE_LIMIT: Duration = Duration::from_secs(75);

/// How often a connection is looked at: costs a timer and no work per request.
const LOOK: Duration = Duration::from_millis(2_500);

/// Nothing of the next request has come.
const IDLE: u8 = 0;
/// A head is expected or has begun.
const HEAD: u8 = 1;
/// A request is being answered; its own time-outs hold.
const BUSY: u8 = 2;
/// It has taken too long and is cut off.
const CUT: u8 = 3;

/// What a connection is at, since when. Shared by its stream, its service and its watch.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    opened: Instant,
    phase: AtomicU8,
    /// Milliseconds after `opened`.
    since: AtomicU64,
}

impl Pace {
    /// A new connection owes its first head.
    pub(super) fn new() -> Self {
        let shared =
            Shared { opened: Instant::now(), phase: AtomicU8::new(HEAD), since: AtomicU64::new(0) };
        Self { shared: Arc::new(shared) }
    }

    fn enter(&self, phase: u8) {
        let elapsed = self.shared.opened.elapsed().as_millis();
        self.shared.since.store(u64::try_from(elapsed).unwrap_or(u64::MAX), Relaxed);
        self.shared.phase.store(phase, Relaxed);
    }

    /// A head is complete.
    pub(super) fn begin_answer(&self) {
        self.enter(BUSY);
    }

    /// The next request may come.
    pub(super) fn end_answer(&self) {
        self.enter(IDLE);
    }

    fn heard(&self) {
        if self.shared.phase.load(Relaxed) == IDLE {
            self.enter(HEAD);
        }
    }

    /// Resolves when the connection has taken too long.
    pub(super) async fn exceeded(self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let limit = match self.shared.phase.load(Relaxed) {
                IDLE => IDLE_LIMIT,
                HEAD => HEAD_LIMIT,
                _ => continue,
            };
            let since = Duration::from_millis(self.shared.since.load(Relaxed));
            if self.shared.opened.elapsed().saturating_sub(since) >= limit {
                self.enter(CUT);
                return;
            }
        }
    }
}

/// A connection that notes when something comes, and that does not break off what was said last
/// when it is dropped: see [`linger`].
#[derive(Debug)]
pub(super) struct Paced {
    /// `None` in `drop` only.
    stream: Option<TcpStream>,
    pace: Pace,
    /// The peer has ended its side, or the connection is broken.
    ended: bool,
    abort: CancellationToken,
}

impl Paced {
    pub(super) fn new(stream: TcpStream, pace: Pace, abort: CancellationToken) -> Self {
        Self { stream: Some(stream), pace, ended: false, abort }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        let cut = self.pace.shared.phase.load(Relaxed) == CUT;
        if let Some(stream) = self.stream.take()
            && !self.ended
            && !cut
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let abort = self.abort.clone();
            runtime.spawn(async move { abort.run_until_cancelled(linger(stream)).await });
        }
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (buffer.filled().len(), buffer.remaining());
        let polled = self.stream()?.poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.pace.heard();
        } else if polled.is_ready() && room > 0 {
            self.ended = true;
        }
        polled
    }
}

impl AsyncWrite for Paced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }
}
