//! The final check of attachments: what was sent is there, and what was deleted is gone from the disk.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use beseda_protocol::model::AttachmentId;
use tokio_postgres::{Client, Error};

/// An attachment's row: the folder of its chat, and whether it was sent.
const ROWS: &str = "
SELECT attachment_id::text, chat_id::text, seq IS NOT NULL FROM attachments
 UNION ALL
SELECT attachment_id::text, chat_id::text, false FROM attachment_removals";

/// Describes what is wrong. `contents`: of what was uploaded.
pub(super) async fn check(
    client: &Client,
    folder: &Path,
    contents: &HashMap<AttachmentId, String>,
) -> Result<Vec<String>, Error> {
    let mut known = HashSet::new();
    let mut wrong = Vec::new();
    for row in client.query(ROWS, &[]).await? {
        let (id, chat): (String, String) = (row.get(0), row.get(1));
        if row.get(2) {
            let expected = id.parse().ok().and_then(|id| contents.get(&id));
            let found = std::fs::read_to_string(folder.join(&chat).join(&id));
            if expected.is_none() || found.as_ref().ok() != expected {
                wrong.push(format!("attachment {id} of {chat} is {found:?} and not {expected:?}"));
            }
        }
        known.insert(format!("{chat}/{id}"));
    }
    for chat in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        for file in std::fs::read_dir(chat.path()).into_iter().flatten().flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            let id = name.split('.').next().unwrap_or_default();
            let of = format!("{}/{id}", chat.file_name().to_string_lossy());
            if !known.contains(&of) {
                wrong.push(format!("{of} is gone, and {name} lies on the disk"));
            }
        }
    }
    Ok(wrong)
}
