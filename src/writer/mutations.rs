//! Batches of edits, deletions and read markers.

use tracing::Span;

use super::{batch_writer::BatchItem, publish::Batch};
use crate::{
    broker::Channel,
    error::Error,
    metrics::Metrics,
    model::{ChatId, Time},
    protocol::{Publication, ServerFrame, message_frame},
    store::{Mutated, Mutation, MutationKind, MutationOutcome, MutationResult, Store, StoreError},
    trace,
};

impl BatchItem for Mutation {
    /// A batch changes a chat only once, so that revisions need no order within the batch; a chat
    /// of two has few mutations that wait.
    type Key = ChatId;
    type Outcome = MutationOutcome;
    type Done = Mutated;

    fn chat_id(&self) -> ChatId {
        self.chat_id
    }

    fn key(&self) -> ChatId {
        self.chat_id
    }

    fn size(&self) -> usize {
        match &self.kind {
            MutationKind::Edit { text, .. } => text.len(),
            MutationKind::Delete { .. } | MutationKind::Mark { .. } => 0,
        }
    }

    async fn write(store: &Store, batch: &[Self]) -> Result<Vec<MutationOutcome>, StoreError> {
        store.mutate_chats(batch).await
    }

    fn conclude(
        outcome: MutationOutcome,
        batch: &mut Batch,
        span: &Span,
        _metrics: &Metrics,
    ) -> Result<Mutated, Error> {
        let mutated = match outcome {
            MutationOutcome::Done(mutated) => mutated,
            MutationOutcome::Refused(error) => return Err(error),
        };
        if let Some(ev) = mutated.changed_ev {
            let chat_id = mutated.state.chat_id;
            let (at, frame) = match &mutated.result {
                MutationResult::Message(message) => {
                    (message.deleted_at.or(message.edited_at), message_frame(message))
                }
                MutationResult::Mark { reader, read_seq, .. } => {
                    let (user_id, read_seq) = (reader, *read_seq);
                    (None, ServerFrame::ChatRead { chat_id, ev, user_id, read_seq }.encode())
                }
            };
            let at = at.map_or_else(jiff::Timestamp::now, |Time(at)| at);
            let trace = trace::parent_of(span);
            let (epoch, micros) = (mutated.state.epoch.clone(), at.as_microsecond());
            let event = Publication::Event { epoch, ev, micros, trace, frame };
            batch.publish(Channel::Chat(chat_id), event.encode());
        }
        // Also for a retry that changed nothing: the first attempt's replica may have died before
        // it published.
        batch.note(mutated.state.clone(), mutated.noted.clone());
        Ok(*mutated)
    }
}
