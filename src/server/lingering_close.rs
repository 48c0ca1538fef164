//! The end of a connection whose peer may still be sending.
//!
//! Closing a TCP connection with unread data resets it, and a reset may discard the last bytes
//! written (RFC 1122 §4.2.2.13): the 413 for a large body, the close code for a large frame. So the
//! server shuts down its side, then reads and discards for a moment.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

/// How long the peer has to read the last bytes and close its side.
const LIMIT: Duration = Duration::from_secs(5);

/// The same during a shutdown, which waits for it: some round trips.
const STOPPING_LIMIT: Duration = Duration::from_secs(1);

/// Maximum bytes discarded: some hundred times the limit of a body or a frame.
const MOST_BYTES: u64 = 8 * 1024 * 1024;

/// Shuts down our side, and returns once the peer has closed its side or a limit is reached.
pub(super) async fn lingering_close(mut stream: TcpStream, stop: CancellationToken) {
    let ending = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(MOST_BYTES), &mut tokio::io::sink()).await
    };
    let stopping = async {
        stop.cancelled().await;
        sleep(STOPPING_LIMIT).await;
    };
    // The connection is closed in any case.
    tokio::select! {
        _ = ending => {}
        () = sleep(LIMIT) => {}
        () = stopping => {}
    }
}
