//! Batches of edits, deletions and read markers.

use tracing::Span;

use super::{
    batch_writer::{BatchItem, Written},
    publish::Batch,
};
use crate::{
    error::Error,
    metrics::Metrics,
    model::{Audience, ChangedPart, ChatId, MessageId, Time, UserId},
    protocol::{AddressedFrame, Publication, ServerFrame, message_frame},
    store::{
        Mutated, MutatedBatch, Mutation, MutationKind, MutationOutcome, MutationResult, Store,
        StoreError,
    },
    trace,
};

/// What a batch may change once.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) enum MutationKey {
    Message(ChatId, MessageId),
    Marker(ChatId, UserId),
}

impl BatchItem for Mutation {
    type Key = MutationKey;
    type Outcome = MutationOutcome;
    type Done = Mutated;

    /// A chat of many members must not fill the batches: a deletion of one takes some 0.3 ms.
    const SHARE_OF_CHAT: usize = 64;

    fn chat_id(&self) -> ChatId {
        self.chat_id
    }

    fn key(&self) -> MutationKey {
        match &self.kind {
            MutationKind::Edit { message_id, .. } | MutationKind::Delete { message_id, .. } => {
                MutationKey::Message(self.chat_id, *message_id)
            }
            MutationKind::Mark { .. } => MutationKey::Marker(self.chat_id, self.user.clone()),
        }
    }

    fn size(&self) -> usize {
        match &self.kind {
            MutationKind::Edit { text, .. } => text.len(),
            MutationKind::Delete { .. } | MutationKind::Mark { .. } => 0,
        }
    }

    async fn write(store: &Store, batch: &[Self]) -> Result<Written<MutationOutcome>, StoreError> {
        let MutatedBatch { outcomes, states, heads, epoch } = store.mutate_chats(batch).await?;
        Ok(Written { outcomes, states, heads, epoch })
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
        let chat_id = mutated.chat_id;
        match &mutated.result {
            MutationResult::Message(message) => {
                if let Some(ev) = mutated.changed_ev {
                    let at = message.deleted_at.or(message.edited_at);
                    let at = at.map_or_else(jiff::Timestamp::now, |Time(at)| at);
                    let audience = Audience::SeeingSeq(message.seq);
                    let frame = message_frame(message, Some(&[ChangedPart::Text]));
                    let affected = Vec::new();
                    let frame = AddressedFrame { audience, affected, deferrable: false, frame };
                    batch.publish(chat_id, ev, event(batch, ev, at, span, frame));
                }
            }
            MutationResult::Mark { reader, state } => {
                let (ev, read_seq) = (mutated.changed_ev, state.read_seq);
                let frame = ServerFrame::ChatRead { chat_id, ev, user_id: reader, read_seq };
                match ev {
                    Some(ev) => {
                        let frame = AddressedFrame::to_all(frame.encode());
                        let at = jiff::Timestamp::now();
                        batch.publish(chat_id, ev, event(batch, ev, at, span, frame));
                    }
                    // Without receipts only the reader's own sockets are told.
                    None if mutated.moved => batch.tell_own_read(state, frame.encode()),
                    None => {}
                }
                batch.add_state(state);
            }
        }
        // Also for a retry that changed nothing: the first attempt's replica may have died before
        // it published.
        batch.note(chat_id, mutated.noted.clone());
        Ok(*mutated)
    }
}

/// Encodes an event, committed at `at`.
pub(super) fn event(
    batch: &Batch,
    ev: i64,
    at: jiff::Timestamp,
    span: &Span,
    frame: AddressedFrame,
) -> bytes::Bytes {
    let (epoch, micros) = (batch.epoch().clone(), at.as_microsecond());
    let trace = trace::parent_of(span);
    Publication::Event { epoch, ev, micros, trace, frame }.encode()
}
