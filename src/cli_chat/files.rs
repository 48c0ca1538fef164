//! Files that are sent: `/file PATH`.

use std::{io, path::Path};

use beseda_client::NewFile;
use tokio::io::AsyncReadExt;

use crate::model::{Attachment, AttachmentStatus};

/// What a line begins with that names a file.
const COMMAND: &str = "/file ";

/// Bytes at the beginning of a file that tell its type.
const HEAD_BYTES: u64 = 8 * 1024;

/// The path that a line names; `None`: it is a text.
pub(super) fn named(line: &str) -> Option<&str> {
    line.strip_prefix(COMMAND).map(str::trim).filter(|path| !path.is_empty())
}

/// A file to be sent, with the type that its beginning tells.
pub(super) async fn open(path: &str) -> io::Result<NewFile> {
    let mut head = Vec::new();
    tokio::fs::File::open(path).await?.take(HEAD_BYTES).read_to_end(&mut head).await?;
    let content_type = match infer::get(&head) {
        Some(kind) => kind.mime_type(),
        None if is_text(&head) => "text/plain",
        None => "application/octet-stream",
    };
    Ok(NewFile::at(Path::new(path)).with_content_type(content_type))
}

/// Whether it is UTF-8, of which the last character may be cut off.
fn is_text(head: &[u8]) -> bool {
    std::str::from_utf8(head).map_or_else(|error| error.error_len().is_none(), |_| true)
}

/// Describes an attachment in one line.
pub(super) fn describe(attachment: &Attachment) -> String {
    let Attachment { name, size, status, .. } = attachment;
    let status = match status {
        AttachmentStatus::Ready => "",
        AttachmentStatus::Scanning => ", being scanned",
        AttachmentStatus::Blocked => ", blocked",
    };
    format!("[{name}, {size} bytes{status}]")
}
