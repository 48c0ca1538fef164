//! A message of a group: an event for each member who is away. The row in the queue says how far the
//! members were told, so that neither a sender nor a replica that dies has to do with thousands of rows.

use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use uuid::Uuid;

use super::{SETTLE_PAUSE, Worker, message_body, pause_after};
use crate::{
    error::chain,
    metrics::WebhookOutcome,
    model::UserId,
    store::{Fanout, Lane, Settled, Step, StoreError, Waiting},
};

/// Members that are looked at with one statement, and whose presence is asked for at once.
const PAGE: i64 = 256;

/// How long a group has its lane, beyond the attempt that is under way: then the chats that wait have
/// theirs, so that one that is large delays them by seconds.
const TURN: Duration = Duration::from_secs(2);

/// How a turn ended.
enum End {
    /// All members are done.
    Whole,
    /// More members follow.
    Part,
    /// Nothing is left to settle: the lane waits for a retry, or somebody else has it.
    Left,
}

impl Worker {
    /// Sends the next members their events, one after the other, for the length of a turn.
    pub(super) async fn tell_members(
        &self,
        lane: &Lane,
        waiting: &Waiting,
        fanout: &Fanout,
        expiry: Instant,
    ) {
        match self.tell_page(lane, waiting, fanout, expiry).await {
            Ok(End::Whole) => self.settle(lane, Settled::Done(waiting), self.expiry()).await,
            Ok(End::Part) => self.settle(lane, Settled::Nothing, self.expiry()).await,
            Ok(End::Left) => {}
            // The lane is free when its lease ends, which is pause enough.
            Err(error) => tracing::warn!(error = chain(&error), "a group's webhooks wait"),
        }
    }

    async fn tell_page(
        &self,
        lane: &Lane,
        waiting: &Waiting,
        fanout: &Fanout,
        mut expiry: Instant,
    ) -> Result<End, StoreError> {
        let begun = Instant::now();
        let (store, chat_id) = (&self.parts.store, lane.chat_id);
        let count = |outcome| self.parts.metrics.count_webhook(outcome);
        let page = store.list_webhook_recipients(chat_id, fanout, PAGE).await?;
        let online = self.parts.presence.online(&page.users).await;
        // Who is done, and whether the row says so.
        let (mut done, mut noted) = (fanout.after.as_ref(), true);
        for user in &page.users {
            if done != fanout.after.as_ref() && (self.stop.is_cancelled() || begun.elapsed() > TURN)
            {
                let step = done.filter(|_| !noted).map(Step::Done);
                return Ok(self.step(lane, waiting, step, expiry).await);
            }
            let notice = match online.contains(user) {
                true => None,
                false => store.get_webhook_notice(chat_id, fanout, user).await?,
            };
            let Some(body) = notice.and_then(|notice| message_body(waiting.created_at, &notice))
            else {
                count(WebhookOutcome::Skipped);
                (done, noted) = (Some(user), false);
                continue;
            };
            let event_id = event_id(waiting.event_id, user);
            let failure = self.webhook_sender.post(event_id, body).await.err();
            let reason = failure.as_ref().map(ToString::to_string).unwrap_or_default();
            let step = if failure.is_none() {
                count(WebhookOutcome::Delivered);
                Step::Done(user)
            } else if waiting.age >= self.config.webhook_max_age {
                count(WebhookOutcome::Dead);
                tracing::warn!(%event_id, reason, "a webhook is given up");
                Step::Dead(user, event_id, &reason)
            } else {
                count(WebhookOutcome::Failed);
                let attempts =
                    if fanout.tried.as_ref() == Some(user) { waiting.attempts } else { 0 };
                tracing::debug!(%event_id, reason, attempts, "a webhook failed");
                Step::Retry(user, done, pause_after(attempts), &reason)
            };
            if let End::Left = self.step(lane, waiting, Some(step), expiry).await {
                return Ok(End::Left);
            }
            expiry = self.expiry();
            (done, noted) = (Some(user), true);
        }
        if !page.more {
            return Ok(End::Whole);
        }
        Ok(self.step(lane, waiting, page.up_to.as_ref().map(Step::Done), expiry).await)
    }

    fn expiry(&self) -> Instant {
        Instant::now() + self.lease()
    }

    /// Stores how far the members are told, with retries while the lease lasts: without it the last event
    /// is sent once more. Returns whether the turn goes on.
    async fn step(
        &self,
        lane: &Lane,
        waiting: &Waiting,
        step: Option<Step<'_>>,
        expiry: Instant,
    ) -> End {
        let Some(step) = step else { return End::Part };
        loop {
            match self.parts.store.advance_webhook(lane, waiting, step, self.lease()).await {
                Ok(true) if !matches!(step, Step::Retry(..)) => return End::Part,
                Ok(true) => return End::Left,
                // If the event is gone, the lane is not: a lane that is somebody else's is left alone.
                Ok(false) => {
                    self.settle(lane, Settled::Nothing, expiry).await;
                    return End::Left;
                }
                Err(error) if Instant::now() + SETTLE_PAUSE >= expiry => {
                    tracing::warn!(error = chain(&error), "how far a group was told was not noted");
                    return End::Left;
                }
                Err(_) => tokio::time::sleep(SETTLE_PAUSE).await,
            }
        }
    }
}

/// The id of a member's event: the same however often it is sent, by whichever replica.
fn event_id(event_id: Uuid, recipient: &UserId) -> Uuid {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(event_id.as_bytes());
    context.update(recipient.as_str().as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&context.finish().as_ref()[..16]);
    Uuid::new_v8(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_has_an_event_that_stays_the_same() {
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let id = |of, user| event_id(of, &UserId::trusted(user));
        assert_eq!(id(one, "alice").to_string(), id(one, "alice").to_string());
        assert_ne!(id(one, "alice"), id(one, "bob"));
        assert_ne!(id(one, "alice"), id(two, "alice"));
    }
}
