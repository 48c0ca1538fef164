//! The algebra of counters (`sql/V2__counters.sql`) holds whoever races: the functions of `sql/` are called as the
//! writers call them, through stores with connections of their own.
//!
//! [`racing`] draws schedules and judges all that was told. [`marks`], [`sends`], [`members`] and [`order`] make by
//! hand the races that a drawn schedule seldom meets: one transaction waits for another on one row. That a plan which
//! was made on empty tables does not stay is judged by `one_plan.rs`.

mod changes;
mod ledger;
mod marks;
mod members;
mod order;
mod race;
mod racing;
mod schedule;
mod sends;
mod tables;

use std::{sync::Arc, time::Duration};

use beseda::{
    config::{Secret, SystemMessages},
    model::{ChatId, GroupSettings, Mentions, MessageId, UserId},
    store::{Draft, GroupLimits, Mutation, MutationKind, NewGroup, Store},
};
use bytes::Bytes;
use uuid::Uuid;

use crate::harness::Cluster;

/// Of a store here: locks are waited for until a deadlock is found, which takes 100 ms of waiting. In the service a
/// writer's wait ends before Postgres looks for one.
const PATIENCE: &str = "-c%20lock_timeout=20s%20-c%20deadlock_timeout=100ms";

/// How long a statement may take, with all that it waits for, on a crowded machine.
const LONGEST: Duration = Duration::from_secs(30);

/// A store with connections of its own.
fn writer(cluster: &Cluster) -> Store {
    let mut config = cluster.database_config().clone();
    config.database_url = Secret::from(format!("{}?options={PATIENCE}", cluster.database_url()));
    config.database_timeout = LONGEST;
    Store::new(&config, Arc::default()).expect("settings")
}

fn user(id: &str) -> UserId {
    UserId::trusted(id)
}

/// `receipt_members`: a group of more has no receipts.
fn limits(receipt_members: i32, system: SystemMessages) -> GroupLimits {
    GroupLimits { members: 22, receipt_members, system }
}

/// Creates a group of these users, the first of them its owner.
async fn create(
    store: &Store,
    users: &[&str],
    settings: GroupSettings,
    limits: GroupLimits,
) -> ChatId {
    let users: Vec<UserId> = users.iter().copied().map(user).collect();
    let new = NewGroup {
        caller: &users[0],
        host: false,
        owner: &users[0],
        key: None,
        title: "Raced",
        avatar_url: None,
        metadata: None,
        settings,
        members: &users[1..],
    };
    store.create_group(&new, false, limits).await.expect("a group").chat_id
}

fn draft(chat_id: ChatId, sender: &str, mentions: Option<Mentions>) -> Draft {
    Draft {
        chat_id,
        sender_id: user(sender),
        message_id: Uuid::now_v7(),
        client_msg_id: None,
        digest: None,
        text: "hello".to_owned(),
        metadata: None,
        mentions,
        reply_to: None,
        attachments: Vec::new(),
    }
}

/// With an idempotency key: a retry is a draft of the same id and digest.
fn keyed(draft: Draft, key: &str) -> Draft {
    let digest = Some(Bytes::copy_from_slice(key.as_bytes()));
    Draft { client_msg_id: Some(key.to_owned()), digest, ..draft }
}

fn mark(chat_id: ChatId, reader: &str, up_to_seq: Option<i64>) -> Mutation {
    Mutation { chat_id, user: user(reader), kind: MutationKind::Mark { up_to_seq } }
}

fn delete(chat_id: ChatId, author: &str, message_id: MessageId) -> Mutation {
    let kind = MutationKind::Delete { message_id, admin: false };
    Mutation { chat_id, user: user(author), kind }
}

fn edit(chat_id: ChatId, author: &str, message_id: MessageId, mentions: Mentions) -> Mutation {
    let text = "hello again".to_owned();
    let kind = MutationKind::Edit { message_id, text, mentions: Some(mentions) };
    Mutation { chat_id, user: user(author), kind }
}

fn whom(users: &[&str]) -> Mentions {
    Mentions::Users(users.iter().copied().map(user).collect())
}
