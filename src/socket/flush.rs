//! Writes a socket's waiting frames: at once where that needs no wait, else within a time-out.

use super::{
    connection::{BEHIND_LIMIT, Connection, End, Flow},
    wire::{WRITE_BUFFER_BYTES, WsFrame, text},
};
use crate::protocol::{Close, Frame};

impl Connection {
    /// Takes all waiting frames to write them.
    fn take_frames(&mut self) -> impl Iterator<Item = WsFrame> + use<> {
        let frames = std::mem::take(&mut self.out);
        self.context.metrics.frames_delivered.inc_by(frames.len() as u64);
        frames.into_iter().map(text)
    }

    /// Notes that all frames are written.
    fn on_written(&mut self) {
        if let Some(micros) = self.committed_at.take() {
            self.context.metrics.observe_delivery(micros);
        }
    }

    /// Writes all waiting frames if that needs no wait. False: some are left for the next flush.
    pub(super) fn send_now(&mut self) -> bool {
        let bytes: usize = self.out.iter().map(Frame::len).sum();
        // One write at most, and no client that takes nothing is held more for.
        if bytes > WRITE_BUFFER_BYTES {
            return false;
        }
        let frames = self.take_frames();
        let is_sent = self.wire.send_now(frames);
        if is_sent {
            self.on_written();
        }
        is_sent
    }

    /// Writes all waiting frames.
    pub(super) async fn flush(&mut self) -> Flow {
        let frames = self.take_frames();
        let writing = self.wire.send(frames);
        match tokio::time::timeout(BEHIND_LIMIT, writing).await {
            Ok(Ok(())) => {
                self.on_written();
                Ok(())
            }
            Ok(Err(_)) => Err(End::Left),
            Err(_) => Err(End::Close(Close::TooSlow)),
        }
    }
}
