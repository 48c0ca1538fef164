//! Compares unread counters with a recount during the run.

use std::{collections::HashMap, sync::Arc};

use beseda_protocol::model::ChatId;
use rand::Rng;
use reqwest::Method;
use serde::Deserialize;
use tokio_postgres::Client;

use super::{
    context::{Person, SimContext},
    findings::{Kind, now_micros, tick},
    stack::Stack,
    stored,
};

/// Longest lag of a counter, from the change or the end of the last fault, in microseconds: the 2 s
/// that are promised, and the time of the request.
const BEHIND: i64 = 3_500_000;

/// Unread messages and mentions.
pub(super) type Counts = (i64, i64);

#[derive(Deserialize)]
pub(super) struct Unread {
    pub total: i64,
    pub total_mentions: i64,
    pub badge: i64,
    pub chats: Vec<UnreadChat>,
}

#[derive(Deserialize)]
pub(super) struct UnreadChat {
    pub chat_id: ChatId,
    pub unread_count: i64,
    pub unread_mentions: i64,
}

impl Unread {
    pub(super) fn counts(&self) -> HashMap<ChatId, Counts> {
        let counts = self.chats.iter();
        counts.map(|chat| (chat.chat_id, (chat.unread_count, chat.unread_mentions))).collect()
    }

    /// True if the totals are the sums.
    pub(super) fn is_summed(&self) -> bool {
        let sum = |count: fn(&UnreadChat) -> i64| self.chats.iter().map(count).sum::<i64>();
        (self.total, self.total_mentions)
            == (sum(|chat| chat.unread_count), sum(|chat| chat.unread_mentions))
    }
}

/// Counters that were wrong at the last check: since when, and at which version.
type Behind = HashMap<(usize, String, ChatId), (i64, i64)>;

/// Asks random replicas about random users until the end of the busy phase.
pub(super) async fn watch(context: Arc<SimContext>, stack: Arc<Stack>, people: Vec<Person>) {
    let mut rng = context.dice();
    let mut client = None;
    let mut behind = Behind::new();
    while context.is_busy() {
        context.pause(&mut rng, 20..150).await;
        let Some(database) = client.take() else {
            client = stack.database().await.ok();
            continue;
        };
        // Lagging counters come first, until they are right.
        let (replica, person) = match behind.keys().next() {
            Some((replica, user, _)) if rng.random_bool(0.7) => {
                let person = people.iter().find(|person| person.id == *user);
                (*replica, person.unwrap_or(&people[0]))
            }
            _ => (context.any_replica(&mut rng), &people[rng.random_range(0..people.len())]),
        };
        if compare(&context, &database, replica, person, &mut behind).await.is_ok() {
            client = Some(database);
        }
    }
}

/// Compares an answer with the recounts before and after it: if these agree, it must agree too.
async fn compare(
    context: &SimContext,
    database: &Client,
    replica: usize,
    person: &Person,
    behind: &mut Behind,
) -> Result<(), tokio_postgres::Error> {
    let before = stored::counters(database, &person.id).await?;
    let path = "/api/v1/chats/unread/";
    let Some(answer) = context.once(replica, &Method::GET, path, person, None).await else {
        return Ok(());
    };
    let after = stored::counters(database, &person.id).await?;
    let unread: Unread = match answer.read() {
        Ok(unread) if answer.status == 200 => unread,
        _ => {
            context.unexpected("GET /chats/unread/", &answer);
            return Ok(());
        }
    };
    let told = unread.counts();
    if !unread.is_summed() {
        context.unexpected("GET /chats/unread/ (a total is not the sum)", &answer);
    }
    for (chat_id, member) in &before {
        let (user, version, recount) = (&person.id, member.version, member.recount);
        if member.counted() != recount {
            let what = format!("{user} in {chat_id}: {member:?}");
            context.findings.add(Kind::Unread, what);
        }
        let key = (replica, user.clone(), *chat_id);
        if after.get(chat_id).is_none_or(|now| now.version != version) {
            behind.remove(&key);
            continue;
        }
        tick(&context.figures.counted);
        let found = told.get(chat_id).copied();
        if found == Some(recount) {
            behind.remove(&key);
            continue;
        }
        let now = now_micros();
        let first = !behind.contains_key(&key);
        let (since, at) = *behind.entry(key.clone()).or_insert((now, version));
        if first {
            tick(&context.figures.stale);
        }
        if at != version {
            behind.insert(key, (now, version));
        } else if let Some(quiet) = context.timeline.quiet_since()
            && now - since.max(quiet) > BEHIND
        {
            let (ms, at) = ((now - since) / 1_000, context.timeline.now());
            let what = format!(
                "{user} in {chat_id} at version {version}: replica {replica} says {found:?}, recount \
                 {recount:?}, for {ms} ms ({at})"
            );
            context.findings.add(Kind::Unread, what);
            behind.remove(&key);
        }
    }
    Ok(())
}
