//! The end of a connection whose peer may still be sending.
//!
//! To close a TCP connection on which something unread has arrived resets it, and a reset overtakes
//! what was written last (RFC 1122 §4.2.2.13): the 413 of a body that is too large, the close code
//! of a frame that is. So we end our side, and read on for a moment what nobody wants.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

/// How long the peer has to take our last words and end its side.
const LIMIT: Duration = Duration::from_secs(5);

/// The same while the server stops, which waits for it: some round trips.
const STOPPING_LIMIT: Duration = Duration::from_secs(1);

/// Most that is read for that, in bytes: some hundred times what a body or a frame may have.
const MOST_BYTES: u64 = 8 * 1024 * 1024;

/// Ends our side, and returns once the peer has ended its own or has had its chance.
pub(super) async fn linger(mut stream: TcpStream, stop: CancellationToken) {
    let ending = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(MOST_BYTES), &mut tokio::io::sink()).await
    };
    let stopping = async {
        stop.cancelled().await;
        sleep(STOPPING_LIMIT).await;
    };
    // Broken or too slow: closed all the same.
    tokio::select! {
        _ = ending => {}
        () = sleep(LIMIT) => {}
        () = stopping => {}
    }
}
