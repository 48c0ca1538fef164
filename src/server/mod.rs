//! HTTP/1.1 over TCP, with the time-outs that keep silent and slow connections from piling up.

mod lingering_close;
mod own_wakes;
mod refusal;
mod timeouts;

use std::{io, net::SocketAddr, num::NonZeroU32, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, HttpBody},
    extract::ConnectInfo,
    http::{HeaderValue, header},
};
use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use self::{
    own_wakes::at_once,
    timeouts::{Ends, TimedStream, Timeouts},
};
use crate::config::HttpConfig;

/// Pause after a failed accept (no file descriptors left): long enough for some to be freed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Burst of accepts, in seconds of the rate: by default enough for ten thousand sockets that
/// reconnect together. Admission permits bound the cost of their handshakes; in the kernel's queue,
/// requests that need a new connection would wait behind them.
const ACCEPT_BURST_SECONDS: u32 = 25;

/// Length of the kernel's accept queue. A connection beyond it is not refused: its SYN is dropped,
/// and the client's kernel repeats it after 1, 3, 7 … s. So the queue holds a replica's share of
/// ten thousand simultaneous connections. Linux caps it at `net.core.somaxconn`, which has the same
/// value since 5.4.
const BACKLOG: u32 = 4_096;

/// Listens for connections; port 0: any that is free.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Connections of the previous process in TIME_WAIT must not block the port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The maximum rate of accepts; further connections wait in the kernel's queue.
#[derive(Debug)]
pub struct AcceptRate(DefaultDirectRateLimiter);

impl AcceptRate {
    pub fn per_second(rate: u32) -> Self {
        let rate = NonZeroU32::new(rate).unwrap_or(NonZeroU32::MIN);
        let burst = rate.saturating_mul(NonZeroU32::MIN.saturating_add(ACCEPT_BURST_SECONDS - 1));
        Self(RateLimiter::direct(Quota::per_second(rate).allow_burst(burst)))
    }

    async fn next(&self) {
        while let Err(early) = self.0.check() {
            tokio::time::sleep(early.wait_time_from(DefaultClock::default().now())).await;
        }
    }
}

/// Serves until `stop`, then finishes the requests in flight while the caller waits. `abort` breaks
/// all connections.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    config: HttpConfig,
    rate: Option<AcceptRate>,
    stop: CancellationToken,
    abort: CancellationToken,
) {
    let connections = TaskTracker::new();
    let config = Arc::new(config);
    loop {
        let accepting = async {
            if let Some(rate) = &rate {
                rate.next().await;
            }
            listener.accept().await
        };
        let accepted = tokio::select! {
            accepted = accepting => accepted,
            () = stop.cancelled() => break,
            () = abort.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Small frames must not wait for each other (Nagle). An error here means that the
                // connection is about to fail.
                let _ = stream.set_nodelay(true);
                let abort = abort.clone();
                let ends =
                    Ends { stop: stop.clone(), abort: abort.clone(), counted: connections.token() };
                let stream = TimedStream::new(stream, Timeouts::new(Arc::clone(&config)), ends);
                let connection = serve_connection(stream, peer, router.clone(), stop.clone());
                connections
                    .spawn(async move { abort.run_until_cancelled(at_once(connection)).await });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Keeps the connection busy until a streamed response is sent, which may take longer than the idle
/// time-out. A complete body is sent at once.
fn until_sent(body: Body, timeouts: Timeouts) -> Body {
    let end = AnswerEnd(timeouts);
    if body.size_hint().exact().is_some() {
        return body;
    }
    Body::new(body.map_frame(move |frame| {
        // Dropped with the body, whether sent or broken off.
        let _ = &end;
        frame
    }))
}

/// Ends the response when dropped.
struct AnswerEnd(Timeouts);

impl Drop for AnswerEnd {
    fn drop(&mut self) {
        self.0.end_answer();
    }
}

/// Serves one connection until it closes; after `stop` the current request is its last.
async fn serve_connection(
    stream: TimedStream,
    peer: SocketAddr,
    router: Router,
    stop: CancellationToken,
) {
    let timeouts = stream.timeouts().clone();
    let config = Arc::clone(timeouts.config());
    let service = {
        let (router, timeouts) = (router, timeouts.clone());
        hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            timeouts.begin_answer();
            request.extensions_mut().insert(ConnectInfo(peer));
            // Closed after such a body (RFC 9112 §6.1): a proxy that trusted a Content-Length
            // beside it would see the next request at another offset (request smuggling).
            let last = request.headers().contains_key(header::TRANSFER_ENCODING);
            let (answer, timeouts) = (router.clone().oneshot(request), timeouts.clone());
            async move {
                let mut answer = answer.await;
                if let (true, Ok(answer)) = (last, &mut answer) {
                    answer
                        .headers_mut()
                        .insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                answer.map(|answer| answer.map(|body| until_sent(body, timeouts)))
            }
        })
    };
    let connection = hyper::server::conn::http1::Builder::new()
        .max_buf_size(config.max_head_bytes)
        .max_headers(config.max_headers)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = timeouts.exceeded() => return,
    };
    // Broken connections are normal.
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection broke");
    }
}
