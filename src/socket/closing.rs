//! How sockets are closed: with a reason, and while a replica drains one after the other.

use std::time::Duration;

use tokio::sync::watch;
use tokio_tungstenite::tungstenite::{Utf8Bytes, protocol::CloseFrame};

use super::wire::Wire;
use crate::{
    context::{Context, Phase},
    protocol::{Close, Frame, ServerFrame},
};

/// How long a close may take: the frames still to be written, and the client's close frame, so that
/// the closing handshake completes.
pub(crate) const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// Resolves when the replica begins to close its sockets; never, if the replica was dropped.
pub(super) async fn closing(phase: &mut watch::Receiver<Phase>) {
    if phase.wait_for(|phase| *phase == Phase::Closing).await.is_err() {
        std::future::pending().await
    }
}

/// The window over which a drain spreads its closes: a part of the grace, so that the later steps
/// have time too.
pub(crate) fn drain_window(context: &Context) -> Duration {
    let left = context.config.shutdown_grace.saturating_sub(context.config.drain_delay);
    left.mul_f64(0.4).min(Duration::from_secs(10))
}

/// Writes the last frames, then closes the socket with a reason.
pub(super) async fn close(wire: &mut Wire, frames: impl IntoIterator<Item = Frame>, reason: Close) {
    let (code, text) = (reason.code(), reason.reason());
    let bye = (code >= 4200).then(|| {
        let reconnect_in_ms = rand::random_range(500..5_000);
        ServerFrame::Bye { code, reason: text, reconnect_in_ms }.encode()
    });
    let frame = CloseFrame { code: code.into(), reason: Utf8Bytes::from_static(text) };
    // A client that does not reply is cut off.
    let last = frames.into_iter().chain(bye);
    let _ = tokio::time::timeout(CLOSE_WAIT, wire.close(last, frame)).await;
}
