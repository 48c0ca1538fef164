//! HTTP/1.1 over TCP, with the time-outs that keep silent and slow connections from piling up.

mod linger;
mod pace;

use std::{net::SocketAddr, pin::pin, time::Duration};

use axum::{Router, extract::ConnectInfo};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use self::pace::{Pace, Paced};

/// Largest head of a request, in bytes: a token of 8 KiB and what proxies add.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// Most headers of a request.
const MAX_HEADERS: usize = 64;

/// After a failed accept (no file descriptors left): long enough for some to come free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop`, then finishes the requests under way, for as long as the caller waits.
/// `abort` breaks every connection off.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
    abort: CancellationToken,
) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
            () = abort.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let abort = abort.clone();
                let connection =
                    serve_connection(stream, peer, router.clone(), stop.clone(), abort.clone());
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

/// Serves one connection to its end; after `stop` the request at hand is its last.
async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    stop: CancellationToken,
    abort: CancellationToken,
) {
    // Small frames must not wait for each other (Nagle); a socket that refuses is about to fail.
    let _ = stream.set_nodelay(true);
    let pace = Pace::new();
    let service = {
        let (router, pace) = (router, pace.clone());
        hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            pace.begin_answer();
            request.extensions_mut().insert(ConnectInfo(peer));
            let (answer, pace) = (router.clone().oneshot(request), pace.clone());
            async move {
                let answer = answer.await;
                pace.end_answer();
                answer
            }
        })
    };
    let stream = Paced::new(stream, pace.clone(), abort);
    let connection = hyper::server::conn::http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
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
