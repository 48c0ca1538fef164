//! Edits, deletions and read markers, as a lane writes them.

use tracing::Span;

use super::{lane::Work, publish::Batch};
use crate::{
    broker::Channel,
    error::Error,
    metrics::Metrics,
    model::{ChatId, Time},
    protocol::{Publication, ServerFrame, message_frame},
    store::{
        Amended, Amendment, AmendmentKind, AmendmentOutcome, AmendmentResult, Store, StoreError,
    },
    trace,
};

impl Work for Amendment {
    /// In a batch a chat is changed once: its numbers need no order within the batch, and a room of
    /// two has few changes to wait for.
    type Key = ChatId;
    type Outcome = AmendmentOutcome;
    type Done = Amended;

    fn chat_id(&self) -> ChatId {
        self.chat_id
    }

    fn key(&self) -> ChatId {
        self.chat_id
    }

    fn size(&self) -> usize {
        match &self.kind {
            AmendmentKind::Edit { text, .. } => text.len(),
            AmendmentKind::Delete { .. } | AmendmentKind::Mark { .. } => 0,
        }
    }

    async fn write(store: &Store, batch: &[Self]) -> Result<Vec<AmendmentOutcome>, StoreError> {
        store.amend_chats(batch).await
    }

    fn conclude(
        outcome: AmendmentOutcome,
        batch: &mut Batch,
        span: &Span,
        _metrics: &Metrics,
    ) -> Result<Amended, Error> {
        let amended = match outcome {
            AmendmentOutcome::Done(amended) => amended,
            AmendmentOutcome::Refused(error) => return Err(error),
        };
        if let Some(ev) = amended.changed_ev {
            let chat_id = amended.state.chat_id;
            let (at, frame) = match &amended.result {
                AmendmentResult::Message(message) => {
                    (message.deleted_at.or(message.edited_at), message_frame(message))
                }
                AmendmentResult::Mark { reader, read_seq, .. } => {
                    let (user_id, read_seq) = (reader, *read_seq);
                    (None, ServerFrame::ChatRead { chat_id, ev, user_id, read_seq }.encode())
                }
            };
            let at = at.map_or_else(jiff::Timestamp::now, |Time(at)| at);
            let trace = trace::parent_of(span);
            let (epoch, micros) = (amended.state.epoch.clone(), at.as_microsecond());
            let event = Publication::Event { epoch, ev, micros, trace, frame };
            batch.publish(Channel::Chat(chat_id), event.encode());
        }
        // Also where nothing changed: whoever made the change may have died before Redis knew of it.
        batch.note(amended.state.clone(), amended.noted.clone());
        Ok(amended)
    }
}
