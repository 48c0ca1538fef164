//! Has attachments judged by a scanner that speaks clamd's protocol (clamd(8), INSTREAM).
//!
//! What waits is a state in Postgres, so a crash forgets nothing, and any replica goes on.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    bytes::{ByteError, ByteStore},
    key::{Key, Part},
};
use crate::{
    config::ScanAddress,
    error::chain,
    metrics::Metrics,
    outbox::Outbox,
    store::{AttachmentState, DueScan, Store, StoreError},
};

/// How often the scanner's work is looked for: the recipients of a message wait for it.
const LOOK: Duration = Duration::from_millis(500);

/// Scans of a replica at once; clamd has 10 threads by default.
const AT_ONCE: usize = 4;

/// How long one scan may take, and how long a replica that dies delays it.
const TIME_LIMIT: Duration = Duration::from_secs(120);
const LEASE: Duration = Duration::from_secs(150);

/// The pause after a first failure; each further one doubles it, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Longest answer of the scanner, in bytes: a name of what it found.
const MAX_ANSWER: u64 = 4 * 1024;

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
enum ScanError {
    #[error("the scanner is away")]
    Away(#[from] io::Error),
    #[error("the scanner took too long")]
    TooSlow,
    #[error("the scanner has not scanned: {0}")]
    Refused(String),
    #[error(transparent)]
    Bytes(#[from] ByteError),
}

/// The scanner's work on this replica.
#[derive(Debug)]
pub(super) struct Scanner {
    pub(super) store: Store,
    pub(super) bytes: ByteStore,
    pub(super) outbox: Outbox,
    pub(super) address: ScanAddress,
    pub(super) metrics: Arc<Metrics>,
}

impl Scanner {
    /// Scans for ever.
    pub(super) async fn run(self) {
        loop {
            tokio::time::sleep(LOOK.mul_f64(rand::random_range(0.8..1.2))).await;
            if let Err(error) = self.scan_due().await {
                tracing::warn!(error = chain(&error), "scanning attachments failed");
            }
        }
    }

    async fn scan_due(&self) -> Result<(), StoreError> {
        loop {
            let due = self.store.take_attachment_scans(AT_ONCE as i64, LEASE).await?;
            if due.is_empty() {
                return Ok(());
            }
            let mut settled =
                stream::iter(due).map(|scan| self.settle(scan)).buffer_unordered(AT_ONCE);
            while let Some(outcome) = settled.next().await {
                outcome?;
            }
        }
    }

    async fn settle(&self, scan: DueScan) -> Result<(), StoreError> {
        let begun = Instant::now();
        let verdict = tokio::time::timeout(TIME_LIMIT, self.scan(&scan)).await;
        self.metrics.attachment_scan.observe(begun.elapsed().as_secs_f64());
        let state = match verdict.unwrap_or(Err(ScanError::TooSlow)) {
            Ok(true) => AttachmentState::Ready,
            Ok(false) => {
                self.metrics.attachments_refused.inc();
                AttachmentState::Blocked
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "an attachment was not scanned");
                let doublings = scan.attempts.clamp(0, 16).unsigned_abs();
                let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
                return self.store.postpone_attachment_scan(&scan, pause).await;
            }
        };
        if let Some(changed) = self.store.settle_attachment_scan(&scan, state).await? {
            self.outbox.publish_scan(scan.chat_id, changed).await;
        }
        Ok(())
    }

    /// Has an attachment scanned; true: nothing was found.
    async fn scan(&self, scan: &DueScan) -> Result<bool, ScanError> {
        let key = Key { chat_id: scan.chat_id, attachment_id: scan.attachment_id };
        let mut bytes = self.bytes.stream(key, Part::Whole, 0..scan.size).await?;
        let ScanAddress { host, port } = &self.address;
        let mut clamd = TcpStream::connect((host.as_str(), *port)).await?;
        clamd.write_all(b"zINSTREAM\0").await?;
        while let Some(chunk) = bytes.next().await {
            let chunk = chunk?;
            // An empty one would be the end.
            let size = u32::try_from(chunk.len()).map_err(io::Error::other)?;
            if size > 0 {
                clamd.write_all(&size.to_be_bytes()).await?;
                clamd.write_all(&chunk).await?;
            }
        }
        clamd.write_all(&0_u32.to_be_bytes()).await?;
        let mut answer = String::new();
        clamd.take(MAX_ANSWER).read_to_string(&mut answer).await?;
        match answer.trim_end_matches(['\0', '\n']) {
            "stream: OK" => Ok(true),
            found if found.ends_with(" FOUND") => Ok(false),
            other => Err(ScanError::Refused(other.to_owned())),
        }
    }
}
