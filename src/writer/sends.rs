//! Batches of new messages.

use tracing::Span;

use super::{Sent, batch_writer::BatchItem, publish::Batch};
use crate::{
    broker::Channel,
    error::Error,
    metrics::Metrics,
    model::{ChatId, MessageId},
    protocol::Created,
    store::{Draft, SendOutcome, Store, StoreError},
    trace,
};

impl BatchItem for Draft {
    /// A retry of a message of this batch waits for the next one, which finds the message.
    type Key = (ChatId, MessageId);
    type Outcome = SendOutcome;
    type Done = Sent;

    fn chat_id(&self) -> ChatId {
        self.chat_id
    }

    fn key(&self) -> Self::Key {
        (self.chat_id, self.message_id)
    }

    fn size(&self) -> usize {
        self.text.len() + self.metadata.as_ref().map_or(0, |metadata| metadata.get().len())
    }

    async fn write(store: &Store, drafts: &[Self]) -> Result<Vec<SendOutcome>, StoreError> {
        store.send_messages(drafts).await
    }

    fn conclude(
        outcome: SendOutcome,
        batch: &mut Batch,
        span: &Span,
        metrics: &Metrics,
    ) -> Result<Sent, Error> {
        match outcome {
            SendOutcome::Created { message, state, noted } => {
                metrics.messages_accepted.inc();
                trace::committed(span, &message, batch.size);
                let parent = trace::parent_of(span);
                let Created { publication, json } =
                    Created::encode(&message, &state.epoch, parent.as_deref());
                batch.publish(Channel::Chat(message.chat_id), publication);
                batch.note(state, noted);
                Ok(Sent { message, json, replayed: false })
            }
            // Published again, because the first attempt may not have reached Redis yet, and the
            // retry's acknowledgement also promises correct counters.
            SendOutcome::Replayed { message, state } => {
                metrics.messages_replayed.inc();
                batch.note(state, None);
                // A plain struct can't fail to serialize.
                let json = serde_json::to_vec(&message).unwrap_or_default().into();
                Ok(Sent { message, json, replayed: true })
            }
            SendOutcome::Refused(error) => Err(error),
        }
    }

    fn published(sent: &Sent, span: &Span) {
        if !sent.replayed {
            trace::published(span, &sent.message);
        }
    }

    fn observe(metrics: &Metrics, size: usize) {
        metrics.batch_messages.observe(size as f64);
    }
}
