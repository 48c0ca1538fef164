//! For clients that keep a store: what changed in a chat, and which chats changed.

use beseda_protocol::{
    ReceivedFrame,
    rest::{ChangePage, SyncPage},
};
use http::Method;
use serde::Deserialize;

use super::Rest;
use crate::Error;

/// A page of all that changed in a chat since a position.
#[derive(Debug, Clone, PartialEq)]
pub struct Changes {
    /// Ascending by `ev`: each row that changed, as it is now. The first that is told of a message or a
    /// member may be that it was changed. What this version does not know is [`ReceivedFrame::Unknown`].
    pub frames: Vec<ReceivedFrame>,
    /// The position after this page: the `after_ev` of the next one.
    pub up_to_ev: i64,
    pub has_more: bool,
    pub head_ev: i64,
    /// The history that each `ev` belongs to. Where it is another than the position's, what the store has of
    /// the chat is of a history that is no more: begin again with 0.
    pub epoch: String,
}

/// What all changes have.
#[derive(Deserialize)]
struct Numbered {
    ev: i64,
}

impl Rest {
    /// `GET /chats/{chat}/changes/`: all that changed since the position `after_ev`, however old it is; on
    /// from [`Changes::up_to_ev`] while [`Changes::has_more`]. `limit` 1 to 1,000.
    pub async fn list_changes(
        &self,
        chat: &str,
        after_ev: i64,
        limit: Option<u16>,
    ) -> Result<Changes, Error> {
        let call = self.call(Method::GET, &["chats", chat, "changes"]);
        let call = call.query("after_ev", Some(after_ev)).query("limit", limit);
        let ChangePage { results, has_more, head_ev, epoch } = self.ask(call).await?;
        let up_to_ev = match results.last() {
            Some(last) => serde_json::from_str::<Numbered>(last.get()).map_err(Error::network)?.ev,
            None => after_ev,
        };
        let decode = |json: &str| ReceivedFrame::decode(json).unwrap_or(ReceivedFrame::Unknown);
        let frames = results.iter().map(|frame| decode(frame.get())).collect();
        Ok(Changes { frames, up_to_ev, has_more, head_ev, epoch })
    }

    /// `GET /sync/`: the chats that changed since `cursor`, the `next` of the page before or of the last time;
    /// on while `has_more`. Without one all chats. `limit` 1 to 200.
    pub async fn sync(&self, cursor: Option<&str>, limit: Option<u8>) -> Result<SyncPage, Error> {
        let call = self.call(Method::GET, &["sync"]).query("limit", limit);
        self.ask(call.query("cursor", cursor)).await
    }
}
