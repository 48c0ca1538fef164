//! How long a connection may take for what (the settings of [`HttpConfig`]). hyper's own time-out for a request's head also runs
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
use tokio_util::{sync::CancellationToken, task::task_tracker::TaskTrackerToken};

use super::{lingering_close::linger, refusal::Refusal};
use crate::config::HttpConfig;

/// How often a connection is looked at, as a part of the time for a head: costs a timer and no work
/// per request. A limit is up at the first look that the next one would be too late for.
const LOOKS: u32 = 4;

/// Least rate at which a client that we wait for has to take an answer, in bytes a second, beyond the
/// time in which it may take nothing. By drips it would hold the answer for hours; a telephone on a bad
/// line takes more, and a page of the largest messages (2 MB) has two minutes so.
const LEAST_RATE: u64 = 16 * 1024;

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
    config: Arc<HttpConfig>,
    opened: Instant,
    /// Since when the client takes nothing of what is written, in milliseconds after `opened`, plus
    /// one; 0: it takes all.
    blocked_since: AtomicU64,
    /// The same, since when there is something that it has not taken; and how many bytes of that it has,
    /// by then.
    behind_since: AtomicU64,
    taken: AtomicU64,
    phase: AtomicU8,
    /// Milliseconds after `opened`.
    since: AtomicU64,
}

impl Pace {
    /// A new connection owes its first head.
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

    /// Whether no request is being answered: what is written then is the HTTP library's own.
    pub(super) fn is_unasked(&self) -> bool {
        self.shared.phase.load(Relaxed) != BUSY
    }

    /// Something could be written, or nothing.
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

    /// All that there was to write is taken.
    fn flushed(&self) {
        if self.shared.behind_since.load(Relaxed) != 0 {
            // Whole answers were ended when they were begun.
            if self.shared.phase.load(Relaxed) == IDLE {
                self.enter(IDLE);
            }
            self.shared.behind_since.store(0, Relaxed);
        }
    }

    pub(super) fn config(&self) -> &Arc<HttpConfig> {
        &self.shared.config
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
                // It is not idle before it has taken all.
                continue;
            }
            let limit = match self.shared.phase.load(Relaxed) {
                IDLE => config.idle_timeout,
                HEAD => config.head_timeout,
                // Its own time-outs hold.
                _ => continue,
            };
            if over(self.shared.since.load(Relaxed), limit) {
                self.enter(CUT);
                return;
            }
        }
    }
}

/// A connection that notes when something comes, and when nothing is taken; which says in our words
/// what the HTTP library refuses; and which does not break off what was said last when it is
/// dropped: see [`linger`].
#[derive(Debug)]
pub(super) struct Paced {
    /// `None` in `drop` only.
    stream: Option<TcpStream>,
    pace: Pace,
    refusal: Refusal,
    /// The peer has ended its side, or the connection is broken.
    ended: bool,
    ends: Ends,
}

/// What ends a connection besides its peer, and who waits for its end.
#[derive(Debug, Clone)]
pub(super) struct Ends {
    /// Nothing more is accepted: what goes on has to come to its end.
    pub(super) stop: CancellationToken,
    /// At once.
    pub(super) abort: CancellationToken,
    /// Among the connections that the server waits for, an upgraded one and its last words too.
    pub(super) counted: TaskTrackerToken,
}

impl Paced {
    pub(super) fn new(stream: TcpStream, pace: Pace, ends: Ends) -> Self {
        Self { stream: Some(stream), pace, refusal: Refusal::default(), ended: false, ends }
    }

    pub(super) fn pace(&self) -> &Pace {
        &self.pace
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
            let Ends { stop, abort, counted } = self.ends.clone();
            runtime.spawn(async move {
                abort.run_until_cancelled(linger(stream, stop)).await;
                drop(counted);
            });
        }
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, chat) = (buffer.filled().len(), buffer.remaining());
        let polled = self.stream()?.poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.pace.heard();
        } else if polled.is_ready() && chat > 0 {
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
        let Self { stream, pace, refusal, .. } = &mut *self;
        let stream = stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        if pace.is_unasked() {
            refusal.note(bytes);
        }
        let polled = match refusal.poll_write(stream, context) {
            Some(written) => written,
            None => Pin::new(stream).poll_write(context, bytes),
        };
        pace.wrote(&polled);
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.stream()?.poll_flush(context);
        if polled.is_ready() {
            self.pace.flushed();
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
        // A refusal is one small buffer; what is longer is an answer of ours.
        if let [one] = slices {
            return self.poll_write(context, one);
        }
        let polled = self.stream()?.poll_write_vectored(context, slices);
        self.pace.wrote(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }
}
