//! HTTP/1.1 over TCP, with the time-outs that keep silent and slow connections from piling up.

mod lingering_close;
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

use self::timeouts::{Ends, Pace, Paced};
use crate::config::HttpConfig;

/// After a failed accept (no file descriptors left): long enough for some to come free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections accepted at once, as seconds of the rate: with the default, ten thousand sockets that come
/// back together, or twice soon after each other to two replicas. What these cost is bounded where sockets
/// take their turns; in the kernel's queue a request that needs a new connection would wait behind them.
const ACCEPT_BURST_SECONDS: u32 = 25;

/// Connections that may wait in the kernel's queue to be accepted. One beyond these is not refused: its
/// SYN is dropped, and the client's kernel says it again after 1, 3, 7 … s, a minute in the end. So there
/// is room for what a replica's part of ten thousand that come at once leaves waiting. Linux takes no
/// more than `net.core.somaxconn`, which is as much since 5.4.
const BACKLOG: u32 = 4_096;

/// Listens for connections; port 0: any that is free.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // What the last process on this port left in TIME_WAIT is no hindrance.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts so many connections a second; more wait in the kernel's queue.
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

/// Serves until `stop`, then finishes the requests under way, for as long as the caller waits.
/// `abort` breaks every connection off.
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
                // Small frames must not wait for each other (Nagle); a socket that refuses is about
                // to fail.
                let _ = stream.set_nodelay(true);
                let abort = abort.clone();
                let ends =
                    Ends { stop: stop.clone(), abort: abort.clone(), counted: connections.token() };
                let stream = Paced::new(stream, Pace::new(Arc::clone(&config)), ends);
                let connection = serve_connection(stream, peer, router.clone(), stop.clone());
                connections.spawn(async move { abort.run_until_cancelled(connection).await });
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

/// The connection is busy until all of the answer is sent: one that is made while it is sent may take
/// longer than a connection may idle. What is whole already is sent at once.
fn until_sent(body: Body, pace: Pace) -> Body {
    let end = AnswerEnd(pace);
    if body.size_hint().exact().is_some() {
        return body;
    }
    Body::new(body.map_frame(move |frame| {
        // Goes with the body, sent or broken off.
        let _ = &end;
        frame
    }))
}

/// Dropped, it ends the answer.
struct AnswerEnd(Pace);

impl Drop for AnswerEnd {
    fn drop(&mut self) {
        self.0.end_answer();
    }
}

/// Serves one connection to its end; after `stop` the request at hand is its last.
async fn serve_connection(
    stream: Paced,
    peer: SocketAddr,
    router: Router,
    stop: CancellationToken,
) {
    let pace = stream.pace().clone();
    let config = Arc::clone(pace.config());
    let service = {
        let (router, pace) = (router, pace.clone());
        hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            pace.begin_answer();
            request.extensions_mut().insert(ConnectInfo(peer));
            // A proxy that went by a length beside it would see the next request elsewhere than we:
            // after such a body there is none (RFC 9112 §6.1).
            let last = request.headers().contains_key(header::TRANSFER_ENCODING);
            let (answer, pace) = (router.clone().oneshot(request), pace.clone());
            async move {
                let mut answer = answer.await;
                if let (true, Ok(answer)) = (last, &mut answer) {
                    answer
                        .headers_mut()
                        .insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                answer.map(|answer| answer.map(|body| until_sent(body, pace)))
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
        () = pace.exceeded() => return,
    };
    // Broken connections are the network's daily life.
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection broke");
    }
}
