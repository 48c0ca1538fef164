//! How long audio and video last, as their files say. Whoever uploads them is not trusted: what is read of a file, and
//! the time for it, are bounded, and a file that says nothing, or nothing likely, is kept without a duration.

use std::{
    io::{self, Read, Seek, SeekFrom},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use lofty::{config::ParseOptions, file::AudioFile, probe::Probe};
use tokio::{runtime::Handle, sync::Semaphore};

use super::{
    bytes::ByteStore,
    key::{Key, Part},
};

/// Bytes that are read at once: few requests to an object store, and little read in vain.
const PIECE: u64 = 512 * 1024;

/// Most bytes that are read of one file. An Ogg file is read as a whole, as its last page says how long it is: a voice
/// message of an hour has some 15 MiB. Others need their beginning or their end.
const BUDGET: u64 = 16 * 1024 * 1024;

/// How long one file may take, without its wait for others: an object store answers in some 50 ms, 32 times.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Files that are read at once.
const THREADS: usize = 2;

/// Longest duration that is believed.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// Reads durations.
#[derive(Debug, Clone)]
pub(super) struct Durations {
    threads: Arc<Semaphore>,
}

impl Default for Durations {
    fn default() -> Self {
        Self { threads: Arc::new(Semaphore::new(THREADS)) }
    }
}

impl Durations {
    /// Returns how long a file of `size` bytes lasts, in milliseconds; `None`: it does not say.
    pub(super) async fn read(&self, bytes: &ByteStore, key: Key, size: u64) -> Option<i64> {
        let permit = Arc::clone(&self.threads).acquire_owned().await;
        let file = StoredFile {
            bytes: bytes.clone(),
            key,
            runtime: Handle::current(),
            size,
            position: 0,
            piece: (0, Bytes::new()),
            left: BUDGET,
            until: Instant::now() + TIME_LIMIT,
        };
        let reading = tokio::task::spawn_blocking(move || {
            let duration = duration(file);
            drop(permit);
            duration
        });
        // A parser that panics has met a broken file.
        let duration = reading.await.unwrap_or_default()?;
        let likely = !duration.is_zero() && duration <= LONGEST;
        likely.then(|| i64::try_from(duration.as_millis()).ok()).flatten()
    }
}

fn duration(file: impl Read + Seek) -> Option<Duration> {
    let options = ParseOptions::new().read_tags(false).read_cover_art(false);
    let probe = Probe::new(io::BufReader::new(file)).options(options).guess_file_type().ok()?;
    Some(probe.read().ok()?.properties().duration())
}

/// A file in the store of attachments, for a thread that may wait for it.
struct StoredFile {
    bytes: ByteStore,
    key: Key,
    runtime: Handle,
    size: u64,
    position: u64,
    /// What was read last, and where it begins.
    piece: (u64, Bytes),
    left: u64,
    until: Instant,
}

impl StoredFile {
    /// Returns what is there at the position, in a piece that may have to be read; empty at the end.
    fn here(&mut self) -> io::Result<&[u8]> {
        let position = self.position.min(self.size);
        let (from, piece) = &self.piece;
        let is_in = position >= *from && position < *from + piece.len() as u64;
        if !is_in && position < self.size {
            let end = self.size.min(position + PIECE);
            self.left = self.left.checked_sub(end - position).ok_or(io::ErrorKind::FileTooLarge)?;
            let time = self.until.saturating_duration_since(Instant::now());
            let reading = self.bytes.read(self.key, Part::Whole, position..end);
            let piece =
                self.runtime.block_on(async { tokio::time::timeout(time, reading).await })?;
            self.piece = (position, piece.map_err(io::Error::other)?);
        }
        let (from, piece) = &self.piece;
        let at = usize::try_from(position.saturating_sub(*from)).unwrap_or(usize::MAX);
        Ok(piece.get(at..).unwrap_or_default())
    }
}

impl Read for StoredFile {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.here()?.read(into)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for StoredFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.size.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
