//! Batches of new messages.

use tracing::Span;

use super::{
    Sent,
    batch_writer::{BatchItem, Written},
    publish::Batch,
};
use crate::{
    error::Error,
    metrics::Metrics,
    model::{ChatId, MessageId},
    protocol::Created,
    store::{Draft, SendOutcome, SentBatch, Store, StoreError},
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

    async fn write(store: &Store, drafts: &[Self]) -> Result<Written<SendOutcome>, StoreError> {
        let SentBatch { outcomes, states, epoch } = store.send_messages(drafts).await?;
        Ok(Written { outcomes, states, heads: Vec::new(), epoch })
    }

    fn conclude(
        outcome: SendOutcome,
        batch: &mut Batch,
        span: &Span,
        metrics: &Metrics,
    ) -> Result<Sent, Error> {
        match outcome {
            SendOutcome::Created { message, noted, .. } => {
                metrics.messages_accepted.inc();
                trace::committed(span, &message, batch.size);
                let parent = trace::parent_of(span);
                let Created { publication, json } =
                    Created::encode(&message, batch.epoch(), parent.as_deref());
                batch.publish(message.chat_id, message.ev, publication);
                batch.note(message.chat_id, noted);
                Ok(Sent { message, json, replayed: false })
            }
            // Published again, because the first attempt may not have reached Redis yet, and the
            // retry's acknowledgement also promises correct counters.
            SendOutcome::Replayed { message } => {
                metrics.messages_replayed.inc();
                batch.note(message.chat_id, None);
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
