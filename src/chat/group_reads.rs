//! Groups as their members see them, read for many inboxes together.
//!
//! A message of a large group wakes the inboxes of thousands of members at once, and each wants the same
//! chat with other counters. All that wait on a replica are read by one statement, in which the chat itself
//! comes once.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::{
    error::Error,
    model::{ChatId, UserId},
    store::{InboxChat, InboxPage, Store, StoredChat},
};

/// Pairs of group and member that one statement reads: some 20 ms of Postgres.
const PAIRS: usize = 2_000;

/// One statement at a time; what comes meanwhile is read by the next one. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct GroupReads {
    store: Store,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    requests: VecDeque<Request>,
    /// Whether a task reads.
    reading: bool,
}

#[derive(Debug)]
struct Request {
    user: UserId,
    groups: Vec<ChatId>,
    answer: oneshot::Sender<Result<InboxPage<StoredChat>, Error>>,
}

impl GroupReads {
    pub(super) fn new(store: Store) -> Self {
        Self { store, waiting: Arc::default() }
    }

    /// Reads these groups as `user` sees them: few, as they are read whole.
    pub(super) async fn get(
        &self,
        user: &UserId,
        groups: Vec<ChatId>,
    ) -> Result<InboxPage<StoredChat>, Error> {
        let (answer, read) = oneshot::channel();
        let is_first = {
            let mut waiting = self.waiting();
            waiting.requests.push_back(Request { user: user.clone(), groups, answer });
            !mem::replace(&mut waiting.reading, true)
        };
        if is_first {
            // A task of its own, because others wait for it even if this caller leaves.
            tokio::spawn(Turn(self.clone()).read());
        }
        read.await.unwrap_or(Err(Error::Unavailable(None)))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Each change is whole by itself.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes requests for one statement; none: the turn is over.
    fn take(&self) -> Vec<Request> {
        let mut waiting = self.waiting();
        let (mut taken, mut pairs) = (Vec::new(), 0);
        while pairs < PAIRS
            && let Some(request) = waiting.requests.pop_front()
        {
            // The socket may have closed.
            if !request.answer.is_closed() {
                pairs += request.groups.len();
                taken.push(request);
            }
        }
        waiting.reading = !taken.is_empty();
        taken
    }
}

/// The right to read. Whatever ends it leaves nobody waiting for a read that never comes.
struct Turn(GroupReads);

impl Turn {
    async fn read(self) {
        loop {
            let requests = self.0.take();
            if requests.is_empty() {
                return;
            }
            let pairs = requests
                .iter()
                .flat_map(|request| request.groups.iter().map(|group| (*group, &request.user)));
            let pairs: Vec<(ChatId, &UserId)> = pairs.collect();
            match self.0.store.get_group_chats(&pairs).await {
                Ok(page) => answer(requests, page),
                Err(error) => {
                    let error = Error::from(error);
                    for request in requests {
                        let _ = request.answer.send(Err(error.clone()));
                    }
                }
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *self.0.waiting() = Waiting::default();
        }
    }
}

/// Deals out the chats, which are in the order of the requests.
fn answer(requests: Vec<Request>, page: InboxPage<StoredChat>) {
    let mut chats = page.chats.into_iter();
    for request in requests {
        let theirs: Vec<InboxChat<StoredChat>> =
            chats.by_ref().take(request.groups.len()).collect();
        let page = InboxPage { chats: theirs, epoch: page.epoch.clone() };
        // The socket may have closed meanwhile.
        let _ = request.answer.send(Ok(page));
    }
}
