//! Files as a program gives them.

use std::{fmt, io, path::PathBuf, sync::Arc};

use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::Error;

/// Of a file whose type nobody said. The service takes any content under it.
const UNKNOWN_TYPE: &str = "application/octet-stream";

/// A file to be sent with a message. A clone is cheap.
#[derive(Clone)]
pub struct NewFile {
    name: String,
    content_type: String,
    content: Content,
}

#[derive(Clone)]
enum Content {
    Path(PathBuf),
    Bytes(Arc<[u8]>),
}

impl NewFile {
    /// A file of this machine, which is read while it is uploaded, and must stay as it is until then.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let name = path.file_name().map_or("file".into(), |name| name.to_string_lossy());
        Self {
            name: name.into_owned(),
            content_type: UNKNOWN_TYPE.to_owned(),
            content: Content::Path(path),
        }
    }

    pub fn of_bytes(name: impl Into<String>, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self {
            name: name.into(),
            content_type: UNKNOWN_TYPE.to_owned(),
            content: Content::Bytes(bytes.into()),
        }
    }

    /// Says its type, like `image/png`; the content must bear it out.
    pub fn with_content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = content_type.into();
        self
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// In bytes.
    pub(crate) async fn size(&self) -> Result<u64, Error> {
        let path = match &self.content {
            Content::Bytes(bytes) => return Ok(bytes.len() as u64),
            Content::Path(path) => path,
        };
        let about = tokio::fs::metadata(path).await.map_err(Error::file)?;
        if !about.is_file() {
            return Err(Error::file(io::Error::other("it is no file")));
        }
        Ok(about.len())
    }

    /// The bytes from `from` on, up to `end`.
    pub(crate) async fn read(&self, from: u64, end: u64) -> Result<Vec<u8>, Error> {
        let path = match &self.content {
            Content::Bytes(bytes) => return cut(bytes, from, end).map_err(Error::file),
            Content::Path(path) => path,
        };
        let read = async {
            let mut file = tokio::fs::File::open(path).await?;
            file.seek(io::SeekFrom::Start(from)).await?;
            let mut bytes = Vec::new();
            file.take(end - from).read_to_end(&mut bytes).await?;
            if bytes.len() as u64 == end - from { Ok(bytes) } else { Err(shorter()) }
        };
        read.await.map_err(Error::file)
    }
}

fn cut(bytes: &[u8], from: u64, end: u64) -> io::Result<Vec<u8>> {
    let range = usize::try_from(from).ok().zip(usize::try_from(end).ok());
    let part = range.and_then(|(from, end)| bytes.get(from..end));
    part.map(<[u8]>::to_vec).ok_or_else(shorter)
}

fn shorter() -> io::Error {
    io::Error::other("it is shorter than it was")
}

/// Without the content.
impl fmt::Debug for NewFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, content_type, content: _ } = self;
        f.debug_struct("NewFile").field("name", name).field("content_type", content_type).finish()
    }
}
