//! Group commit: a chat always goes to the same lane of a replica, and a lane writes all that waits
//! in one round trip. Under no load a batch is one message; under load throughput rises and latency
//! stays.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Span;

use crate::{
    broker::Channel,
    error::Error,
    metrics::Metrics,
    model::{ChatId, Message},
    outbox::{ACK_WAIT, Commit, Outbox},
    protocol::Created,
    store::{Draft, SendOutcome, Store, StoreError},
    trace,
};

/// Most messages of a batch: the gain is flat past it (100 rows: 87,000 a second, 500: 103,000),
/// and all of a batch wait for all of it.
const BATCH_MESSAGES: usize = 256;

/// Most bytes of a batch, texts and metadata: bounds the wait when messages are large.
const BATCH_BYTES: usize = 256 * 1024;

/// Sends that may wait for a lane; one more is refused at once, because it would wait for seconds.
const QUEUE: usize = 2_048;

/// Commits that may wait for Redis in a lane; past it acknowledgements no longer wait, and the
/// sweeper publishes.
const PUBLISH_QUEUE: usize = 64;

/// A message now durable.
#[derive(Debug, Clone)]
pub struct Sent {
    pub message: Message,
    /// The same as JSON: of a new message the bytes that are published.
    pub json: Bytes,
    /// An earlier send with the same `client_msg_id` had written it.
    pub replayed: bool,
}

struct Job {
    draft: Draft,
    asker: Asker,
}

/// Who waits for an answer, and the span that it is a part of.
struct Asker {
    reply: oneshot::Sender<Result<Sent, Error>>,
    span: Span,
}

impl Asker {
    fn answer(self, answer: Result<Sent, Error>) {
        // Nobody may be left to take it; what was done is done all the same.
        let _ = self.reply.send(answer);
    }
}

/// The entrance to the lanes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Writer {
    lanes: Vec<mpsc::Sender<Job>>,
}

impl Writer {
    /// Starts the lanes. After `stop` they finish what waits and end.
    pub fn start(
        store: &Store,
        outbox: &Outbox,
        metrics: &Arc<Metrics>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let lanes = (0..store.writers())
            .map(|_| {
                let (jobs, waiting) = mpsc::channel(QUEUE);
                let (commits, to_publish) = mpsc::channel(PUBLISH_QUEUE);
                let lane = Lane {
                    store: store.clone(),
                    waiting,
                    carried: None,
                    commits,
                    metrics: Arc::clone(metrics),
                    stop: stop.clone(),
                };
                tasks.spawn(publish_in_order(outbox.clone(), to_publish));
                tasks.spawn(lane.run());
                jobs
            })
            .collect();
        Self { lanes }
    }

    /// Sends that wait for a lane.
    pub fn queued(&self) -> usize {
        self.lanes.iter().map(|lane| lane.max_capacity() - lane.capacity()).sum()
    }

    /// Writes one message; returns once it is durable, and Redis has it or is too slow.
    pub async fn send(&self, draft: Draft) -> Result<Sent, Error> {
        let (reply, outcome) = oneshot::channel();
        // The random end of the id; its start is a clock.
        let lane = usize::from(draft.chat_id.as_bytes()[15]) % self.lanes.len();
        let job = Job { draft, asker: Asker { reply, span: Span::current() } };
        self.lanes[lane].try_send(job).map_err(|_| Error::Unavailable(None))?;
        // A lane that died answers nobody: the outcome is unknown, and the retry is safe.
        outcome.await.map_err(|_| Error::Unavailable(None))?
    }
}

/// One writer with its own connection.
struct Lane {
    store: Store,
    waiting: mpsc::Receiver<Job>,
    /// A retry of a message that the batch already holds: it goes first into the next.
    carried: Option<Job>,
    commits: mpsc::Sender<(Commit, Vec<Acknowledgement>)>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

/// Who is told what once Redis has it.
struct Acknowledgement {
    asker: Asker,
    sent: Sent,
}

impl Acknowledgement {
    fn send(self) {
        self.asker.answer(Ok(self.sent));
    }
}

impl Lane {
    async fn run(mut self) {
        while let Some(batch) = self.next_batch().await {
            self.metrics.batch_messages.observe(batch.len() as f64);
            self.write(batch).await;
        }
    }

    /// All that waits, without waiting for more.
    async fn next_batch(&mut self) -> Option<Vec<Job>> {
        let first = match self.carried.take() {
            Some(job) => job,
            None => tokio::select! {
                biased;
                job = self.waiting.recv() => job?,
                () = self.stop.cancelled() => return None,
            },
        };
        let mut bytes = size(&first.draft);
        let mut ids = HashSet::from([(first.draft.chat_id, first.draft.message_id)]);
        let mut batch = vec![first];
        while batch.len() < BATCH_MESSAGES && bytes < BATCH_BYTES {
            let Ok(job) = self.waiting.try_recv() else { break };
            if !ids.insert((job.draft.chat_id, job.draft.message_id)) {
                self.carried = Some(job);
                break;
            }
            bytes += size(&job.draft);
            batch.push(job);
        }
        Some(batch)
    }

    async fn write(&self, mut batch: Vec<Job>) {
        // A batch with a row that Postgres refuses is split until the culprit stands alone; one that
        // could not have all its chats' locks is split by chat.
        let mut parts = vec![batch.split_off(0)];
        while let Some(mut part) = parts.pop() {
            let (drafts, askers): (Vec<_>, Vec<_>) =
                part.drain(..).map(|job| (job.draft, job.asker)).unzip();
            match self.store.send_messages(&drafts).await {
                Ok(outcomes) => self.acknowledge(outcomes, askers).await,
                // Last in, first out: order within a chat is kept.
                Err(StoreError::Data(_)) if drafts.len() > 1 => {
                    let mut jobs = rejoin(drafts, askers);
                    let rest = jobs.split_off(jobs.len() / 2);
                    parts.extend([rest, jobs]);
                }
                // The chat that somebody else holds is waited for once more, and no other one with it.
                Err(StoreError::Locked(_)) if in_several_chats(&drafts) => {
                    let mut chats: BTreeMap<ChatId, Vec<Job>> = BTreeMap::new();
                    for job in rejoin(drafts, askers) {
                        chats.entry(job.draft.chat_id).or_default().push(job);
                    }
                    parts.extend(chats.into_values());
                }
                Err(error) => {
                    let error = Error::from(error);
                    for asker in askers {
                        asker.answer(Err(error.clone()));
                    }
                }
            }
        }
    }

    async fn acknowledge(&self, outcomes: Vec<SendOutcome>, askers: Vec<Asker>) {
        let batch = outcomes.len();
        let mut commit = Commit::default();
        let mut acknowledgements = Vec::new();
        let mut states = BTreeMap::new();
        for (outcome, asker) in outcomes.into_iter().zip(askers) {
            match outcome {
                SendOutcome::Created { message, state, outbox_id } => {
                    self.metrics.messages_accepted.inc();
                    trace::committed(&asker.span, &message, batch);
                    let parent = trace::parent_of(&asker.span);
                    let Created { publication, json } =
                        Created::encode(&message, parent.as_deref());
                    commit.publications.push((Channel::Chat(message.chat_id), publication));
                    if let Some(id) = outbox_id
                        && commit.outbox_ids.last() != Some(&id)
                    {
                        commit.outbox_ids.push(id);
                    }
                    states.insert(state.chat_id, state);
                    let sent = Sent { message, json, replayed: false };
                    acknowledgements.push(Acknowledgement { asker, sent });
                }
                // Whoever wrote it first may still be on the way to Redis: the retry's acknowledgement
                // too means that the counters are right.
                SendOutcome::Replayed { message, state } => {
                    self.metrics.messages_replayed.inc();
                    states.insert(state.chat_id, state);
                    // A plain struct can't fail to serialize.
                    let json = serde_json::to_vec(&message).unwrap_or_default().into();
                    let sent = Sent { message, json, replayed: true };
                    acknowledgements.push(Acknowledgement { asker, sent });
                }
                SendOutcome::Refused(error) => {
                    asker.answer(Err(error));
                }
            }
        }
        if acknowledgements.is_empty() {
            return;
        }
        states.values().for_each(|state| commit.add_state(state));
        if let Err(refused) = self.commits.try_send((commit, acknowledgements)) {
            let (_, acknowledgements) = refused.into_inner();
            acknowledgements.into_iter().for_each(Acknowledgement::send);
        }
    }
}

/// Publishes a lane's commits one after another, so that a chat's changes arrive in order.
async fn publish_in_order(
    outbox: Outbox,
    mut commits: mpsc::Receiver<(Commit, Vec<Acknowledgement>)>,
) {
    while let Some((commit, acknowledgements)) = commits.recv().await {
        let publishing = outbox.publish(commit);
        tokio::pin!(publishing);
        let outcome = tokio::time::timeout(ACK_WAIT, &mut publishing).await;
        for acknowledgement in acknowledgements {
            if matches!(outcome, Ok(Ok(()))) && !acknowledgement.sent.replayed {
                trace::published(&acknowledgement.asker.span, &acknowledgement.sent.message);
            }
            acknowledgement.send();
        }
        if outcome.is_err() {
            // The commands have their own time-outs; what fails is swept.
            let _ = publishing.await;
        }
    }
}

fn rejoin(drafts: Vec<Draft>, askers: Vec<Asker>) -> Vec<Job> {
    drafts.into_iter().zip(askers).map(|(draft, asker)| Job { draft, asker }).collect()
}

fn in_several_chats(drafts: &[Draft]) -> bool {
    drafts.iter().any(|draft| draft.chat_id != drafts[0].chat_id)
}

fn size(draft: &Draft) -> usize {
    draft.text.len() + draft.metadata.as_ref().map_or(0, |metadata| metadata.get().len())
}
