//! Time-outs of a connection (the settings of [`HttpConfig`]). hyper's own time-out for a request's
//! head also runs while a keep-alive connection is idle; balancers keep these for a minute, and
//! closing one under the next request causes an error. So a head has seconds, and an idle
//! connection more than a minute.

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
use tokio_util::{sync::CancellationToken, task::task_tracker::TaskTrackerToken};

use super::{lingering_close::lingering_close, refusal::Refusal};
use crate::config::HttpConfig;

/// Checks per head time-out: they cost a timer per connection and no work per request. A limit
/// counts as reached at the last check before it.
const LOOKS: u32 = 4;

/// Minimum rate, in bytes per second, at which a client must read a response, beyond the write
/// time-out. A client that reads byte by byte would hold the response for hours; a phone on a bad
/// line is faster, and a page of the largest messages (2 MB) has two minutes this way.
const LEAST_RATE: u64 = 16 * 1024;

/// No byte of the next request has arrived.
const IDLE: u8 = 0;
/// A head is expected or has begun.
const HEAD: u8 = 1;
/// A request is being processed; its own time-outs apply.
const BUSY: u8 = 2;
/// A limit was exceeded; the connection is cut off.
const CUT: u8 = 3;

/// The phase of a connection and the times behind its time-outs. Shared by its stream, its service
/// and its watch.
#[derive(Debug, Clone)]
pub(super) struct Timeouts {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Arc<HttpConfig>,
    opened: Instant,
    /// Since when the client reads nothing, in milliseconds after `opened` plus one; 0: it reads.
    blocked_since: AtomicU64,
    /// Since when the client is behind, in the same unit, and the bytes it has read since then.
    behind_since: AtomicU64,
    taken: AtomicU64,
    phase: AtomicU8,
    /// Milliseconds after `opened`.
    since: AtomicU64,
}

impl Timeouts {
    /// A new connection waits for its first head.
    pub(super) fn new(config: Arc<HttpConfig>) -> Self {
        let shared = Shared {
            config,
            opened: Instant::now(),
            blocked_since: AtomicU64::new(0),
            behind_since: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            phase: AtomicU8::new(HEAD),
            since: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.shared.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn enter(&self, phase: u8) {
        self.shared.since.store(self.now(), Relaxed);
        self.shared.phase.store(phase, Relaxed);
    }

    /// Whether no request is being processed: bytes written then come from the HTTP library itself.
    pub(super) fn is_unasked(&self) -> bool {
        self.shared.phase.load(Relaxed) != BUSY
    }

    /// Notes the result of a write.
    fn wrote(&self, polled: &Poll<io::Result<usize>>) {
        let Shared { blocked_since, behind_since, taken, .. } = &*self.shared;
        match polled {
            Poll::Ready(written) => {
                if blocked_since.load(Relaxed) != 0 {
                    blocked_since.store(0, Relaxed);
                }
                if behind_since.load(Relaxed) != 0 {
                    taken.fetch_add(written.as_ref().map_or(0, |&bytes| bytes as u64), Relaxed);
                }
            }
            Poll::Pending => {
                let now = self.now().saturating_add(1);
                if blocked_since.load(Relaxed) == 0 {
                    blocked_since.store(now, Relaxed);
                }
                if behind_since.load(Relaxed) == 0 {
                    taken.store(0, Relaxed);
                    behind_since.store(now, Relaxed);
                }
            }
        }
    }

    /// Notes that all bytes were taken.
    fn flushed(&self) {
        if self.shared.behind_since.load(Relaxed) != 0 {
            // Complete responses ended when they began, so idling counts from now.
            if self.shared.phase.load(Relaxed) == IDLE {
                self.enter(IDLE);
            }
            self.shared.behind_since.store(0, Relaxed);
        }
    }

    pub(super) fn config(&self) -> &Arc<HttpConfig> {
        &self.shared.config
    }

    /// Notes that a head is complete.
    pub(super) fn begin_answer(&self) {
        self.enter(BUSY);
    }

    /// Notes that the next request may come.
    pub(super) fn end_answer(&self) {
        self.enter(IDLE);
    }

    fn heard(&self) {
        if self.shared.phase.load(Relaxed) == IDLE {
            self.enter(HEAD);
        }
    }

    /// Resolves when a limit is exceeded.
    pub(super) async fn exceeded(self) {
        let config = &self.shared.config;
        let look = config.head_timeout.min(config.write_timeout) / LOOKS;
        let over = |since: u64, limit: Duration| {
            let elapsed = Duration::from_millis(self.now().saturating_sub(since));
            elapsed + look >= limit
        };
        loop {
            tokio::time::sleep(look).await;
            let blocked_since = self.shared.blocked_since.load(Relaxed);
            if blocked_since > 0 && over(blocked_since - 1, config.write_timeout) {
                self.enter(CUT);
                return;
            }
            let behind_since = self.shared.behind_since.load(Relaxed);
            let earned = self.shared.taken.load(Relaxed) / LEAST_RATE;
            let limit = config.write_timeout + Duration::from_secs(earned);
            if behind_since > 0 {
                if over(behind_since - 1, limit) {
                    self.enter(CUT);
                    return;
                }
                // A connection with unsent bytes is not idle.
                continue;
            }
            let limit = match self.shared.phase.load(Relaxed) {
                IDLE => config.idle_timeout,
                HEAD => config.head_timeout,
                // Its own time-outs apply.
                _ => continue,
            };
            if over(self.shared.since.load(Relaxed), limit) {
                self.enter(CUT);
                return;
            }
        }
    }
}

/// A connection's stream. It notes reads and writes for the time-outs, replaces the HTTP library's
/// refusals, and closes without loss of the last bytes when dropped: see [`lingering_close`].
#[derive(Debug)]
pub(super) struct TimedStream {
    /// `None` in `drop` only.
    stream: Option<TcpStream>,
    timeouts: Timeouts,
    refusal: Refusal,
    /// The peer has closed its side, or the connection is broken.
    ended: bool,
    ends: Ends,
}

/// The signals that end a connection besides its peer.
#[derive(Debug, Clone)]
pub(super) struct Ends {
    /// The server is stopping: the connection has to finish.
    pub(super) stop: CancellationToken,
    /// The connection is broken at once.
    pub(super) abort: CancellationToken,
    /// Counts the connection among those that the server waits for, upgraded ones and lingering
    /// closes included.
    pub(super) counted: TaskTrackerToken,
}

impl TimedStream {
    pub(super) fn new(stream: TcpStream, timeouts: Timeouts, ends: Ends) -> Self {
        Self { stream: Some(stream), timeouts, refusal: Refusal::default(), ended: false, ends }
    }

    pub(super) fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for TimedStream {
    fn drop(&mut self) {
        let cut = self.timeouts.shared.phase.load(Relaxed) == CUT;
        if let Some(stream) = self.stream.take()
            && !self.ended
            && !cut
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let Ends { stop, abort, counted } = self.ends.clone();
            runtime.spawn(async move {
                abort.run_until_cancelled(lingering_close(stream, stop)).await;
                drop(counted);
            });
        }
    }
}

impl AsyncRead for TimedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, had_room) = (buffer.filled().len(), buffer.remaining());
        let polled = self.stream()?.poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.timeouts.heard();
        } else if polled.is_ready() && had_room > 0 {
            self.ended = true;
        }
        polled
    }
}

impl AsyncWrite for TimedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, timeouts, refusal, .. } = &mut *self;
        let stream = stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        if timeouts.is_unasked() {
            refusal.note(bytes);
        }
        let polled = match refusal.poll_write(stream, context) {
            Some(written) => written,
            None => Pin::new(stream).poll_write(context, bytes),
        };
        timeouts.wrote(&polled);
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.stream()?.poll_flush(context);
        if polled.is_ready() {
            self.timeouts.flushed();
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A refusal is a single small buffer; anything longer is our own response.
        if let [one] = slices {
            return self.poll_write(context, one);
        }
        let polled = self.stream()?.poll_write_vectored(context, slices);
        self.timeouts.wrote(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }
}
