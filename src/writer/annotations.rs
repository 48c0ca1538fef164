//! Batches of annotations: reactions and pins.

use std::time::Duration;

use tracing::Span;

use super::{
    batch_writer::{BatchItem, Written},
    mutations::event,
    publish::Batch,
};
use crate::{
    error::Error,
    metrics::Metrics,
    model::{Audience, ChatId, MessageId, UserId},
    protocol::{AddressedFrame, message_frame},
    store::{
        Annotated, AnnotatedBatch, Annotation, AnnotationKind, AnnotationOutcome, Store, StoreError,
    },
};

impl BatchItem for Annotation {
    type Key = (ChatId, MessageId, UserId, AnnotationKind);
    type Outcome = AnnotationOutcome;
    type Done = Annotated;

    /// Reactions come in crowds, to one message. Those of a quarter of a second share a revision, and each member
    /// is told once.
    const PAUSE: Duration = Duration::from_millis(250);

    fn chat_id(&self) -> ChatId {
        self.chat_id
    }

    fn key(&self) -> Self::Key {
        (self.chat_id, self.message_id, self.user.clone(), self.kind.clone())
    }

    fn size(&self) -> usize {
        0
    }

    async fn write(
        store: &Store,
        batch: &[Self],
    ) -> Result<Written<AnnotationOutcome>, StoreError> {
        let AnnotatedBatch { outcomes, states, epoch } = store.annotate_messages(batch).await?;
        Ok(Written { outcomes, states, heads: Vec::new(), epoch })
    }

    fn conclude(
        outcome: AnnotationOutcome,
        batch: &mut Batch,
        span: &Span,
        _metrics: &Metrics,
    ) -> Result<Annotated, Error> {
        let annotated = match outcome {
            AnnotationOutcome::Done(annotated) => annotated,
            AnnotationOutcome::Refused(error) => return Err(error),
        };
        let message = &annotated.message;
        if let Some(ev) = annotated.changed_ev {
            let frame = AddressedFrame {
                audience: Audience::SeeingSeq(message.seq),
                affected: Vec::new(),
                deferrable: true,
                frame: message_frame(message, Some(&[annotated.changed])),
            };
            let event = event(batch, ev, jiff::Timestamp::now(), span, frame);
            batch.publish(message.chat_id, ev, event);
        }
        // Also where nothing changed: the first attempt's replica may have died before it published.
        batch.note(message.chat_id, annotated.noted.clone());
        Ok(*annotated)
    }
}
