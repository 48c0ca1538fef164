//! Files that are sent: `/file PATH`.

use std::path::Path;

use beseda_client::Rest;
use tokio::task::JoinSet;

use super::lines::harmless;
use crate::model::{Attachment, AttachmentId, AttachmentStatus, ChatId};

/// What a line begins with that names a file.
const COMMAND: &str = "/file ";

/// Largest file that is read into memory, in bytes: what a service takes by default.
const MAX_BYTES: u64 = 100 * 1024 * 1024;

/// Uploads on their way.
#[derive(Debug, Default)]
pub(super) struct Files {
    uploads: JoinSet<Upload>,
}

/// How an upload ended: the path as it was typed, and the attachment or why there is none.
pub(super) type Upload = (String, Result<AttachmentId, String>);

/// The path that a line names; `None`: it is a text.
pub(super) fn named(line: &str) -> Option<&str> {
    line.strip_prefix(COMMAND).map(str::trim).filter(|path| !path.is_empty())
}

impl Files {
    pub(super) fn count(&self) -> usize {
        self.uploads.len()
    }

    pub(super) fn upload(&mut self, rest: Rest, chat_id: ChatId, path: &str) {
        let path = path.to_owned();
        self.uploads.spawn(async move {
            let uploaded = upload(&rest, chat_id, Path::new(&path)).await;
            (path, uploaded)
        });
    }

    /// The next upload that ends; never, where there is none.
    pub(super) async fn next(&mut self) -> Upload {
        loop {
            match self.uploads.join_next().await {
                Some(Ok(upload)) => return upload,
                // It was not aborted, and a panic is told by its own message.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

async fn upload(rest: &Rest, chat_id: ChatId, path: &Path) -> Result<AttachmentId, String> {
    let size = tokio::fs::metadata(path).await.map_err(|error| error.to_string())?.len();
    if size > MAX_BYTES {
        return Err(format!("has {size} bytes, more than {MAX_BYTES}"));
    }
    let bytes = tokio::fs::read(path).await.map_err(|error| error.to_string())?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("file");
    let content_type = match infer::get(&bytes) {
        Some(kind) => kind.mime_type(),
        None if std::str::from_utf8(&bytes).is_ok() => "text/plain",
        None => "application/octet-stream",
    };
    let chat = chat_id.to_string();
    let attached = rest.attach(&chat, name, content_type, &bytes, |_| ()).await;
    attached.map_err(|error| harmless(&error.detail))
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
