//! Attachments in a folder that all replicas share.
//!
//! A half-received upload is a file as long as what was received, so any replica may append the next part. A lock of
//! the file keeps two requests from writing it at once.

use std::{
    fs, io,
    io::SeekFrom,
    ops::Range,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use futures_util::stream::{BoxStream, StreamExt, TryStreamExt, iter, try_unfold};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt},
};

use super::{
    bytes::{ByteError, ByteStream, Listed},
    key::{Key, Part},
};

/// Bytes per read and write: each one is a trip to a thread that may block.
const CHUNK: usize = 256 * 1024;

/// The folder.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    root: Arc<Path>,
}

impl From<io::Error> for ByteError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{FileTooLarge, NotFound, QuotaExceeded, StorageFull};
        match error.kind() {
            NotFound => Self::Missing,
            StorageFull | QuotaExceeded | FileTooLarge => Self::Full(Arc::new(error)),
            _ => Self::Away(Arc::new(error)),
        }
    }
}

/// Runs what blocks on a thread that may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ByteError> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(ByteError::away)??)
}

impl Folder {
    /// Opens the folder, which must exist and be writable, or can be made.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let probe = root.join(format!(".probe-{}", uuid::Uuid::now_v7()));
        fs::write(&probe, b"")?;
        fs::remove_file(&probe)?;
        Ok(Self { root: root.into() })
    }

    fn path(&self, key: Key, part: Part) -> PathBuf {
        self.root.join(key.chat_id.to_string()).join(key.file_name(part))
    }

    pub(super) async fn size(&self, key: Key, part: Part) -> Result<Option<u64>, ByteError> {
        match tokio::fs::metadata(self.path(key, part)).await {
            Ok(found) => Ok(Some(found.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn read(
        &self,
        key: Key,
        part: Part,
        range: Range<u64>,
    ) -> Result<Bytes, ByteError> {
        let stream = self.stream(key, part, range).await?;
        let bytes: BytesMut = stream
            .try_fold(BytesMut::new(), async |mut all, next| {
                all.extend_from_slice(&next);
                Ok(all)
            })
            .await?;
        Ok(bytes.freeze())
    }

    pub(super) async fn stream(
        &self,
        key: Key,
        part: Part,
        range: Range<u64>,
    ) -> Result<ByteStream, ByteError> {
        let mut file = File::open(self.path(key, part)).await?;
        file.set_max_buf_size(CHUNK);
        file.seek(SeekFrom::Start(range.start)).await?;
        let left = range.end.saturating_sub(range.start);
        Ok(try_unfold((file, left), async |(mut file, left)| {
            let size = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
            let mut bytes = BytesMut::with_capacity(size);
            while bytes.len() < size {
                let mut rest = (&mut file).take((size - bytes.len()) as u64);
                if rest.read_buf(&mut bytes).await? == 0 {
                    return Err(ByteError::away(io::Error::from(io::ErrorKind::UnexpectedEof)));
                }
            }
            let left = left - size as u64;
            Ok((size > 0).then(|| (bytes.freeze(), (file, left))))
        })
        .boxed())
    }

    /// Writes a small file, whole or not at all.
    pub(super) async fn write(&self, key: Key, part: Part, bytes: Bytes) -> Result<(), ByteError> {
        let path = self.path(key, part);
        blocking(move || {
            let new = path.with_added_extension("new");
            let written = fs::write(&new, &bytes).and_then(|()| sync(&new));
            if let Err(error) = written.and_then(|()| fs::rename(&new, &path)) {
                let _ = fs::remove_file(&new);
                return Err(error);
            }
            Ok(())
        })
        .await
    }

    pub(super) async fn promote(&self, key: Key) -> Result<(), ByteError> {
        let (from, to) = (self.path(key, Part::Upload), self.path(key, Part::Whole));
        blocking(move || {
            fs::rename(&from, &to)?;
            // So that a crash of the machine does not undo it.
            to.parent().map_or(Ok(()), sync)
        })
        .await
    }

    pub(super) async fn delete(&self, key: Key, parts: &[Part]) -> Result<(), ByteError> {
        let paths: Vec<PathBuf> = parts.iter().map(|part| self.path(key, *part)).collect();
        blocking(move || {
            for path in &paths {
                match fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            // The chat's folder goes with its last file; else this fails, as it should.
            if let Some(folder) = paths.first().and_then(|path| path.parent()) {
                let _ = fs::remove_dir(folder);
            }
            Ok(())
        })
        .await
    }

    pub(super) async fn list(
        &self,
    ) -> Result<BoxStream<'static, Result<Listed, ByteError>>, ByteError> {
        let root = Arc::clone(&self.root);
        let chats = blocking(move || names(&root)).await?;
        let root = Arc::clone(&self.root);
        let by_chat = iter(chats).then(move |chat| {
            let folder = root.join(&chat);
            async move {
                let found = blocking(move || listed(&folder, &chat)).await?;
                Ok::<_, ByteError>(iter(found.into_iter().map(Ok)))
            }
        });
        Ok(by_chat.try_flatten().boxed())
    }

    /// Begins or continues an upload.
    pub(super) async fn upload(&self, key: Key) -> Result<FolderUpload, ByteError> {
        let path = self.path(key, Part::Upload);
        let file = blocking(move || open_locked(&path)).await?.ok_or(ByteError::Busy)?;
        let length = file.metadata()?.len();
        let mut file = File::from_std(file);
        file.set_max_buf_size(CHUNK);
        file.seek(SeekFrom::Start(length)).await?;
        Ok(FolderUpload { file, begun_at: length, length, waiting: BytesMut::new() })
    }
}

fn sync(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(folder)?;
    let names = entries.map(|entry| Ok(entry?.file_name().into_string().ok()));
    Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn listed(folder: &Path, chat: &str) -> io::Result<Vec<Listed>> {
    let names = match names(folder) {
        // It went meanwhile, or is a file.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Vec::new()
        }
        names => names?,
    };
    let mut found = Vec::new();
    for name in names {
        if let Some((key, part)) = Key::parse(chat, &name)
            && let Ok(metadata) = fs::metadata(folder.join(&name))
        {
            found.push(Listed { key, part, modified: metadata.modified()? });
        }
    }
    Ok(found)
}

/// Opens the file of an upload and locks it; `None`: somebody else has locked it.
fn open_locked(path: &Path) -> io::Result<Option<fs::File>> {
    let open = || fs::OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            open()?
        }
        opened => opened?,
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Ok(None),
        Err(fs::TryLockError::Error(error)) => return Err(error),
    }
    // Whoever had the lock may have finished: then the name is another file's by now, or nobody's.
    let same = fs::metadata(path).is_ok_and(|now| {
        file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (now.dev(), now.ino()))
    });
    Ok(same.then_some(file))
}

/// An upload in progress. It has the file to itself.
#[derive(Debug)]
pub(crate) struct FolderUpload {
    file: File,
    begun_at: u64,
    length: u64,
    /// Up to [`CHUNK`] bytes that are not written yet.
    waiting: BytesMut,
}

impl FolderUpload {
    pub(super) fn received(&self) -> u64 {
        self.length
    }

    pub(super) async fn write(&mut self, mut bytes: Bytes) -> Result<(), ByteError> {
        self.length += bytes.len() as u64;
        while !bytes.is_empty() {
            let room = CHUNK - self.waiting.len();
            self.waiting.extend_from_slice(&bytes.split_to(bytes.len().min(room)));
            if self.waiting.len() == CHUNK {
                self.file.write_all(&self.waiting).await?;
                self.waiting.clear();
            }
        }
        Ok(())
    }

    /// Writes what waits, durably; returns how much is there.
    pub(super) async fn finish(mut self) -> Result<u64, ByteError> {
        let written = async {
            self.file.write_all(&self.waiting).await?;
            self.file.flush().await?;
            self.file.sync_data().await
        };
        if let Err(error) = written.await {
            self.undo().await?;
            return Err(error.into());
        }
        Ok(self.length)
    }

    /// Goes back to where this request began, so that a full disk is not kept full.
    pub(super) async fn undo(mut self) -> Result<(), ByteError> {
        // Its error is the one that is undone.
        let _ = self.file.flush().await;
        Ok(self.file.set_len(self.begun_at).await?)
    }
}
