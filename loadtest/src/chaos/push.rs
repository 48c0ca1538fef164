//! Devices of members and guests, told by a push service that fails now and then; in the end what they were told is
//! compared with what Postgres had at each moment, which triggers of this program's own record.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::atomic::Ordering,
    time::Duration,
};

use beseda_protocol::model::{ChatId, MessageId};
use reqwest::Method;
use serde_json::json;
use tokio::time::Instant;
use tokio_postgres::{Client, Error as DatabaseError};

use super::{
    context::{Person, SimContext},
    counters::Unread,
    findings::Kind,
    stack::Stack,
};
use crate::{
    clients::push_service::{PushService, Told},
    error::Error,
};

/// Devices of each member; guests have one.
const DEVICES: usize = 2;

/// Settings of the replicas: a short delay, so that a short run has many pushes; a short time-out, which a lease
/// follows.
pub(super) const SETTINGS: [(&str, &str); 2] =
    [("BESEDA_PUSH_DELAY", "1s"), ("BESEDA_PUSH_TIMEOUT", "2s")];
const DELAY: i64 = 1_000_000;

/// Longest wait until nothing is to be pushed any more: the lease of a replica that was killed, 17 s, and pauses
/// after failures.
const SETTLE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(200);

/// Time from a trigger to its commit, in microseconds: without a fault, and where one may have come in between.
const COMMIT: i64 = 500_000;
const COMMIT_BESIDE_FAULT: i64 = 10_000_000;

const INSTALL: &str = "
CREATE TABLE chaos_reads (
    n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, chat_id uuid, user_id text COLLATE \"C\", read_seq bigint,
    at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION chaos_reads() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos_reads (chat_id, user_id, read_seq) VALUES (NEW.chat_id, NEW.user_id, NEW.read_seq);
    RETURN NULL;
END
$$;
CREATE TRIGGER chaos_reads AFTER UPDATE OF read_seq ON members
   FOR EACH ROW WHEN (NEW.read_seq > OLD.read_seq) EXECUTE FUNCTION chaos_reads();
CREATE TABLE chaos_told (
    n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, device text, chat_id uuid, seq bigint,
    at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION chaos_told() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos_told (device, chat_id, seq)
    VALUES (NEW.user_id || '.' || NEW.device_id, NEW.chat_id, NEW.told_seq);
    RETURN NULL;
END
$$;
CREATE TRIGGER chaos_told AFTER INSERT OR UPDATE OF told_seq ON push_marks
   FOR EACH ROW WHEN (NEW.told_seq IS NOT NULL) EXECUTE FUNCTION chaos_told()";

const READS: &str = "
SELECT chat_id::text, user_id, read_seq, (extract(epoch FROM at) * 1000000)::bigint FROM chaos_reads ORDER BY n";

const TOLD: &str = "
SELECT device, chat_id::text, seq, (extract(epoch FROM min(at)) * 1000000)::bigint FROM chaos_told GROUP BY 1, 2, 3";

const MESSAGES: &str = "
SELECT chat_id::text, seq, sender_id, (extract(epoch FROM created_at) * 1000000)::bigint FROM messages
 WHERE sender_id IS NOT NULL";

const WAITING: &str = "
SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM push_chats WHERE due_at IS NOT NULL)
       + (SELECT count(*) FROM push_lanes WHERE due_at IS NOT NULL)";

pub(super) async fn install(client: &Client) -> Result<(), DatabaseError> {
    client.batch_execute(INSTALL).await
}

/// The devices of a run.
pub(super) struct Devices {
    service: PushService,
    /// Whose they are, and how many each has.
    owners: Vec<(Person, usize)>,
}

impl Devices {
    /// Registers them, while clients are at work already.
    pub(super) async fn register(context: &SimContext, people: &[Person]) -> Result<Self, Error> {
        let service = PushService::start().await?;
        service.fail_now_and_then(true);
        let mut rng = context.dice();
        let mut owners = Vec::new();
        for person in people {
            let count = match &person.id {
                id if id.starts_with("member") => DEVICES,
                id if id.starts_with("guest") => 1,
                _ => continue,
            };
            for number in 0..count {
                let device = serde_json::to_value(service.subscription(&name(person, number)))?;
                let path = format!("/api/v1/devices/d{number}/");
                let put = context.call(&mut rng, Method::PUT, &path, person, Some(&device)).await;
                if let Some(answer) = put.filter(|answer| answer.status != 200) {
                    context.unexpected("PUT /devices/{device_id}/", &answer);
                }
            }
            owners.push((person.clone(), count));
        }
        Ok(Self { service, owners })
    }

    /// Judges all that was told, once the clients have ended.
    pub(super) async fn judge(&self, context: &SimContext, stack: &Stack) -> Result<(), Error> {
        self.service.fail_now_and_then(false);
        let client = stack.database().await?;
        self.settle(context, &client).await?;
        // What rises without a message comes with the next one: so a device may show less for now, but never more.
        self.compare(context, |shown, badge| shown <= badge).await;
        self.write_to_all(context).await?;
        self.settle(context, &client).await?;
        self.compare(context, |shown, badge| shown == badge).await;
        let log = self.service.log();
        context.figures.pushes.store(log.len() as u64, Ordering::Relaxed);
        check_doubles(context, &client, &log).await?;
        self.check_reads(context, &client, &log).await
    }

    async fn settle(&self, context: &SimContext, client: &Client) -> Result<(), Error> {
        let deadline = Instant::now() + SETTLE;
        loop {
            // Messages of the last moment are not due yet.
            let before = self.service.log().len();
            tokio::time::sleep(POLL).await;
            let waiting: i64 = client.query_one(WAITING, &[]).await?.get(0);
            if waiting == 0 && self.service.log().len() == before {
                return Ok(());
            }
            if Instant::now() > deadline {
                let what = format!("{waiting} rows wait for push after {SETTLE:?}");
                context.findings.add(Kind::Late, what);
                return Ok(());
            }
        }
    }

    /// Compares what each device shows with `GET /chats/unread/`.
    async fn compare(&self, context: &SimContext, is_right: fn(i64, i64) -> bool) {
        let mut rng = context.dice();
        for (person, count) in &self.owners {
            let path = "/api/v1/chats/unread/";
            let answer = context.call(&mut rng, Method::GET, path, person, None).await;
            let unread = answer.and_then(|answer| answer.read::<Unread>().ok());
            let Some(Unread { badge, .. }) = unread else { continue };
            for number in 0..*count {
                let name = name(person, number);
                let shown = self.service.device(&name).badge;
                if !is_right(shown, badge) {
                    let what = format!("{name} shows the badge {shown}, not {badge}");
                    context.findings.add(Kind::Unread, what);
                }
            }
        }
    }

    /// One message to everybody, from somebody whom nobody knows.
    async fn write_to_all(&self, context: &SimContext) -> Result<(), Error> {
        let (closer, mut rng) = (context.person("closer")?, context.dice());
        for (person, _) in &self.owners {
            let open = json!({ "user_id": person.id });
            let path = "/api/v1/chats/";
            let chat = context.call(&mut rng, Method::POST, path, &closer, Some(&open)).await;
            let chat = chat.and_then(|answer| answer.read::<serde_json::Value>().ok());
            let Some(chat) = chat.as_ref().and_then(|chat| chat["chat_id"].as_str()) else {
                continue;
            };
            let path = format!("/api/v1/chats/{chat}/messages/");
            let text = json!({ "text": "good night", "client_msg_id": format!("end-{chat}") });
            context.call(&mut rng, Method::POST, &path, &closer, Some(&text)).await;
        }
        Ok(())
    }

    /// Counts what was read in time, and which of that was told all the same: one in a thousand may be.
    async fn check_reads(
        &self,
        context: &SimContext,
        client: &Client,
        log: &[Told],
    ) -> Result<(), Error> {
        let mut messages: HashMap<ChatId, BTreeMap<i64, (String, i64)>> = HashMap::new();
        for row in client.query(MESSAGES, &[]).await? {
            let of_chat = messages.entry(id(row.get(0))).or_default();
            of_chat.insert(row.get(1), (row.get(2), row.get(3)));
        }
        let told: HashSet<(&str, ChatId, i64)> =
            log.iter().map(|told| (&*told.device, told.chat_id, told.seq)).collect();
        let devices: HashMap<&str, usize> =
            self.owners.iter().map(|(person, count)| (&*person.id, *count)).collect();
        let mut read: HashMap<(ChatId, String), i64> = HashMap::new();
        let (mut in_time, mut in_vain) = (0, 0);
        for row in client.query(READS, &[]).await? {
            let (chat_id, user): (ChatId, String) = (id(row.get(0)), row.get(1));
            let (up_to, at): (i64, i64) = (row.get(2), row.get(3));
            let before = read.insert((chat_id, user.clone()), up_to).unwrap_or(0);
            let Some(count) = devices.get(&*user) else { continue };
            let Some(of_chat) = messages.get(&chat_id) else { continue };
            for (seq, (sender, created)) in of_chat.range(before + 1..=up_to.max(before + 1)) {
                if *seq > up_to || *sender == user || at + COMMIT > created + DELAY {
                    continue;
                }
                for number in 0..*count {
                    in_time += 1;
                    let device = format!("{user}.d{number}");
                    in_vain += u64::from(told.contains(&(&*device, chat_id, *seq)));
                }
            }
        }
        context.figures.read_in_time.store(in_time, Ordering::Relaxed);
        context.figures.pushed_in_vain.store(in_vain, Ordering::Relaxed);
        if in_vain * 1_000 > in_time {
            let what = format!("{in_vain} pushes of {in_time} messages that were read in time");
            context.findings.add(Kind::Doubled, what);
        }
        Ok(())
    }
}

/// A message comes once more only where its acknowledgement was not stored.
async fn check_doubles(context: &SimContext, client: &Client, log: &[Told]) -> Result<(), Error> {
    let mut stored: HashMap<(String, ChatId, i64), i64> = HashMap::new();
    for row in client.query(TOLD, &[]).await? {
        stored.insert((row.get(0), id(row.get(1)), row.get(2)), row.get(3));
    }
    let mut seen: HashSet<(&str, MessageId)> = HashSet::new();
    for told in log {
        if seen.insert((&told.device, told.message_id)) {
            continue;
        }
        context.figures.pushed_again.fetch_add(1, Ordering::Relaxed);
        let key = (told.device.clone(), told.chat_id, told.seq);
        let Some(&at) = stored.get(&key) else { continue };
        let commit =
            if context.timeline.is_quiet(at, told.at) { COMMIT } else { COMMIT_BESIDE_FAULT };
        if told.at > at + commit {
            let late = (told.at - at) / 1_000;
            let what = format!("{told:?} was pushed again {late} ms after its note");
            context.findings.add(Kind::Doubled, what);
        }
    }
    Ok(())
}

/// The name of a device at the push service: as its user's and its own id in the database.
fn name(person: &Person, number: usize) -> String {
    format!("{}.d{number}", person.id)
}

fn id(text: &str) -> ChatId {
    text.parse().unwrap_or_default()
}
