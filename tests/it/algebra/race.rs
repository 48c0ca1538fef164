//! A race by hand: one transaction holds a row, another comes and waits for it, the first one ends.

use std::pin::Pin;

use beseda::{
    config::SystemMessages,
    model::{ChatId, GroupSettings, MessageId},
    store::{Draft, MemberState, Mutation, MutationOutcome, MutationResult, SendOutcome, Store},
};
use futures_util::future::{Either, select};

use super::{
    create, limits,
    tables::{self, Chat},
    user, writer,
};
use crate::harness::{Cluster, Psql, eventually};

pub(super) type Work<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

pub(super) struct Race {
    pub(super) cluster: Cluster,
    pub(super) store: Store,
    /// Holds what is waited for.
    pub(super) first: Psql,
    psql: Psql,
}

impl Race {
    pub(super) async fn start() -> Self {
        let cluster = Cluster::start(1).await;
        let url = cluster.database_url();
        let (first, psql) = (Psql::connect(&url).await, Psql::connect(&url).await);
        Self { store: writer(&cluster), first, psql, cluster }
    }

    /// A group without receipts.
    pub(super) async fn silent(&self, users: &[&str]) -> ChatId {
        self.group(users, 0).await
    }

    /// A group that has receipts with no more members than these.
    pub(super) async fn group(&self, users: &[&str], receipt_members: i32) -> ChatId {
        let limits = limits(receipt_members, SystemMessages::Off);
        create(&self.store, users, GroupSettings::default(), limits).await
    }

    /// Sends what must be created; returns the ids.
    pub(super) async fn sent(&self, batch: &[Draft]) -> Vec<MessageId> {
        let sent = self.store.send_messages(batch).await.expect("an answer");
        let ids = sent.outcomes.into_iter().map(|outcome| match outcome {
            SendOutcome::Created { message, .. } => message.message_id,
            other => panic!("created, not {other:?}"),
        });
        ids.collect()
    }

    /// Changes what may be changed; returns the readers' states.
    pub(super) async fn changed(&self, batch: &[Mutation]) -> Vec<MemberState> {
        let changed = self.store.mutate_chats(batch).await.expect("an answer");
        let states = changed.outcomes.into_iter().filter_map(|outcome| match outcome {
            MutationOutcome::Done(done) => match done.result {
                MutationResult::Mark { state, .. } => Some(*state),
                MutationResult::Message(_) => None,
            },
            MutationOutcome::Refused(error) => panic!("changed, not {error:?}"),
        });
        states.collect()
    }

    /// Has the first transaction begin with these statements, and keep what they lock.
    pub(super) async fn hold(&self, sql: &str) {
        self.first.run(&format!("BEGIN; {sql}")).await;
    }

    pub(super) async fn release(&self) {
        self.first.run("COMMIT").await;
    }

    /// Runs the second one until it waits for what `holder` has locked; `Some`: it has ended without.
    pub(super) async fn until_it_waits<T>(
        &self,
        second: &mut Work<'_, T>,
        holder: &Psql,
    ) -> Option<T> {
        let pid = holder.run("SELECT pg_backend_pid()").await;
        let pid = pid[0][0].as_deref().expect("a process");
        // Not just anybody: a sweeper of the outbox may wait for another at any time.
        let waiting = format!(
            "SELECT pid FROM pg_locks WHERE NOT granted AND {pid} = ANY (pg_blocking_pids(pid))"
        );
        let waits = Box::pin(eventually(async || match self.psql.run(&waiting).await.len() {
            0 => Err("nobody waits".to_owned()),
            _ => Ok(()),
        }));
        match select(second, waits).await {
            Either::Left((ended, _)) => Some(ended),
            Either::Right(_) => None,
        }
    }

    /// Has `second` wait for what `first` has written, then ends that. Whoever does not wait has looked too early.
    pub(super) async fn run<T>(&self, first: &str, second: impl Future<Output = T>) -> T {
        self.hold(first).await;
        let mut second: Work<'_, T> = Box::pin(second);
        let early = self.until_it_waits(&mut second, &self.first).await;
        self.release().await;
        match early {
            None => second.await,
            Some(_) => panic!("it did not wait for: {first}"),
        }
    }

    /// As `run`; and while `second` waits, nothing holds the rows that these queries find.
    pub(super) async fn run_in_order<T>(
        &self,
        first: &str,
        second: impl Future<Output = T>,
        free: &[String],
    ) -> T {
        self.hold(first).await;
        let mut second: Work<'_, T> = Box::pin(second);
        let early = self.until_it_waits(&mut second, &self.first).await;
        let mut held = Vec::new();
        for query in free {
            let found = self.psql.run(&format!("{query} FOR NO KEY UPDATE SKIP LOCKED")).await;
            held.extend(found.is_empty().then_some(query));
        }
        self.release().await;
        assert!(held.is_empty(), "while it waits for {first}, it holds {held:?}");
        match early {
            None => second.await,
            Some(_) => panic!("it did not wait for: {first}"),
        }
    }

    /// The chat as it is now, after a recount of all that the tables say.
    pub(super) async fn exact(&self, chat_id: ChatId) -> Chat {
        tables::exact(&self.psql).await.remove(&chat_id).expect("the chat")
    }

    pub(super) async fn state(&self, chat_id: ChatId, id: &str) -> MemberState {
        let states = self.store.get_member_states(&[(chat_id, user(id))]).await;
        states.expect("an answer").pop().expect("a member's row")
    }
}

/// The row of a chat.
pub(super) fn row_of_chat(chat_id: ChatId) -> String {
    format!("SELECT 1 FROM chats WHERE chat_id = '{chat_id}'")
}

/// The row of a member.
pub(super) fn row_of_member(chat_id: ChatId, id: &str) -> String {
    format!("SELECT 1 FROM members WHERE chat_id = '{chat_id}' AND user_id = '{id}'")
}

/// Locks a row and changes nothing.
pub(super) fn locked(row: &str) -> String {
    format!("{row} FOR NO KEY UPDATE")
}

/// A mark, alone; `None`: to the head.
pub(super) fn mark_sql(chat_id: ChatId, reader: &str, up_to: Option<i64>) -> String {
    mutation_sql(
        "mark",
        chat_id,
        reader,
        "NULL",
        &up_to.map_or_else(|| "NULL".to_owned(), |seq| seq.to_string()),
    )
}

/// A deletion, alone.
pub(super) fn delete_sql(chat_id: ChatId, author: &str, message_id: MessageId) -> String {
    mutation_sql("delete", chat_id, author, &format!("'{message_id}'"), "NULL")
}

fn mutation_sql(kind: &str, chat_id: ChatId, by: &str, message: &str, up_to: &str) -> String {
    format!(
        "SELECT FROM mutate_chats(ARRAY['{kind}'], ARRAY['{chat_id}']::uuid[], ARRAY['{by}'],
             ARRAY[{message}]::uuid[], ARRAY[NULL]::text[], ARRAY[NULL]::text[], ARRAY[false],
             ARRAY[{up_to}]::bigint[])"
    )
}

/// A message, alone; with its key where it has one.
pub(super) fn send_sql(draft: &Draft) -> String {
    let Draft { chat_id, sender_id, message_id, client_msg_id, text, .. } = draft;
    let key = client_msg_id.as_ref().map_or_else(|| "NULL".to_owned(), |key| format!("'{key}'"));
    format!(
        "SELECT FROM send_messages(ARRAY['{chat_id}']::uuid[], ARRAY['{sender_id}'],
             ARRAY['{message_id}']::uuid[], ARRAY[{key}]::text[], ARRAY[convert_to({key}, 'UTF8')],
             ARRAY['{text}'], ARRAY[NULL]::json[], ARRAY[NULL]::text[],
             ARRAY[NULL]::uuid[], ARRAY[NULL]::text[])"
    )
}

/// The host application puts a member out.
pub(super) fn remove_sql(chat_id: ChatId, id: &str) -> String {
    format!("SELECT FROM remove_member('{chat_id}', NULL, true, '{id}', NULL, false)")
}

/// The host application adds a member.
pub(super) fn add_sql(chat_id: ChatId, id: &str, receipt_members: i32) -> String {
    format!(
        "SELECT FROM add_members('{chat_id}', NULL, true, ARRAY['{id}'], 'member', false, 22,
             {receipt_members}, NULL, false)"
    )
}
