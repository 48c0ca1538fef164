//! Stores what became of pushes, many with one statement: a thousand a second would else be as many commits.

use std::time::Duration;

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::{
    error::chain,
    store::{PushLane, PushOutcome, Store},
};

/// Results stored by one statement, which takes some 20 ms.
const BATCH: usize = 256;

/// How long results are gathered. A statement for each would cost Postgres more than all else that a push needs.
const GATHERING: Duration = Duration::from_millis(20);

/// Pause between two attempts to store results; without a stored result a push is sent twice.
const PAUSE: Duration = Duration::from_secs(1);

/// A result, and whom it is acknowledged to.
pub(super) struct Settling {
    lane: PushLane,
    outcome: PushOutcome,
    /// Nothing more is to be done for the device.
    is_last: bool,
    stored: oneshot::Sender<bool>,
}

#[derive(Debug, Clone)]
pub(super) struct Settler(mpsc::Sender<Settling>);

pub(super) fn channel() -> (Settler, mpsc::Receiver<Settling>) {
    let (sender, receiver) = mpsc::channel(BATCH);
    (Settler(sender), receiver)
}

impl Settler {
    /// Stores a result. Returns whether the lane is still ours; false, too, where it could not be stored while the
    /// lease lasts.
    pub(super) async fn settle(
        &self,
        lane: &PushLane,
        outcome: PushOutcome,
        is_last: bool,
    ) -> bool {
        let (stored, is_stored) = oneshot::channel();
        let settling = Settling { lane: lane.clone(), outcome, is_last, stored };
        self.0.send(settling).await.is_ok() && is_stored.await.unwrap_or(false)
    }
}

/// Stores results until nobody has any more.
pub(super) async fn settle_for_ever(
    store: Store,
    mut receiver: mpsc::Receiver<Settling>,
    lease: Duration,
) {
    let mut batch = Vec::new();
    while let Some(first) = receiver.recv().await {
        batch.push(first);
        tokio::time::sleep(GATHERING).await;
        while batch.len() < BATCH
            && let Ok(next) = receiver.try_recv()
        {
            batch.push(next);
        }
        // The order in which everybody locks lanes. None is there twice: who settles waits for it.
        batch.sort_by(|a: &Settling, b| a.lane.cmp(&b.lane));
        let (settled, waiting): (Vec<_>, Vec<_>) = batch
            .drain(..)
            .map(|Settling { lane, outcome, is_last, stored }| ((lane, outcome, is_last), stored))
            .unzip();
        let until = Instant::now() + lease;
        let ours = loop {
            match store.settle_pushes(&settled, lease).await {
                Ok(ours) => break ours,
                Err(error) if Instant::now() + PAUSE >= until => {
                    tracing::warn!(error = chain(&error), "what became of pushes was not noted");
                    break Vec::new();
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        };
        let ours = ours.into_iter().chain(std::iter::repeat(false));
        for (stored, ours) in waiting.into_iter().zip(ours) {
            // Who settled may have been cancelled.
            let _ = stored.send(ours);
        }
    }
}
