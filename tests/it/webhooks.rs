//! Events that are sent to the host application's server, here a real one.

use std::{
    collections::HashMap,
    net::SocketAddr,
    process::Output,
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_lc_rs::hmac;
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use beseda::config::{Config, Secret, Switch};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{net::TcpListener, process::Command, sync::watch};

use crate::harness::{Chat, Cluster, assert_members, assert_time, eventually, now};

/// The secret in use, and the one that comes after it.
const SECRETS: [&str; 2] =
    ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "dGhlIHNlY3JldCB0aGF0IGlzIHRvIGNvbWUgbmV4dA=="];

/// What came with one request.
#[derive(Debug, Clone)]
struct Delivery {
    id: String,
    json: Value,
    /// What it was answered; none while it waits, or where the sender left.
    answered: Option<u16>,
}

impl Delivery {
    fn message(&self) -> &Value {
        &self.json["data"]["message"]
    }
}

/// Which status a delivery gets, by the how manieth of its id it is.
type Answers = Box<dyn Fn(&Delivery, usize) -> u16 + Send>;

struct Shared {
    deliveries: Mutex<Vec<Delivery>>,
    answers: Mutex<Answers>,
    /// Requests are answered while it is true.
    open: watch::Sender<bool>,
}

/// The host application's server; ends with the test's runtime.
struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Receiver {
    async fn start() -> Self {
        let shared = Arc::new(Shared {
            deliveries: Mutex::default(),
            answers: Mutex::new(Box::new(|_, _| 204)),
            open: watch::Sender::new(true),
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().fallback(receive).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, shared }
    }

    /// Settings of replicas that tell it of events, at once.
    fn settings(&self) -> impl FnOnce(&mut Config) + use<> {
        let url = format!("http://{}/events", self.address);
        move |config| {
            config.webhooks.webhook_url = Some(url.parse().expect("a URL"));
            config.webhooks.webhook_secret = Some(Secret::from(SECRETS.join(",")));
            config.webhooks.webhook_allow_private = Switch::On;
            config.webhooks.webhook_delay = Duration::ZERO;
            // However slow this machine is: nothing is sent twice for that.
            config.webhooks.webhook_timeout = Duration::from_secs(120);
        }
    }

    fn answer(&self, answers: impl Fn(&Delivery, usize) -> u16 + Send + 'static) {
        *self.shared.answers.lock().expect("no panic") = Box::new(answers);
    }

    fn open(&self, open: bool) {
        self.shared.open.send_replace(open);
    }

    /// All that has come, in the order in which it came.
    fn deliveries(&self) -> Vec<Delivery> {
        self.shared.deliveries.lock().expect("no panic").clone()
    }

    /// So many have come at least.
    async fn expect(&self, count: usize) -> Vec<Delivery> {
        eventually(async || {
            let deliveries = self.deliveries();
            if deliveries.len() >= count { Ok(deliveries) } else { Err(format!("{deliveries:?}")) }
        })
        .await
    }
}

/// Checks the signature as the specification says, and answers as the test wishes.
async fn receive(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let header = |name: &str| headers[name].to_str().expect("ASCII").to_owned();
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    assert_eq!((uri.path(), header("content-type")), ("/events", "application/json".to_owned()));
    let age = now().abs_diff(timestamp.parse().expect("seconds"));
    assert!(age < 120, "{timestamp} is no time of now");
    let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", &body].concat();
    let expected = SECRETS.map(|secret| {
        let secret = secret.strip_prefix("whsec_").unwrap_or(secret);
        let key = BASE64_STANDARD.decode(secret).expect("base64");
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &signed);
        format!("v1,{}", BASE64_STANDARD.encode(tag))
    });
    assert_eq!(header("webhook-signature"), expected.join(" "));
    let delivery =
        Delivery { id, json: serde_json::from_slice(&body).expect("JSON"), answered: None };
    let (place, earlier) = {
        let mut deliveries = shared.deliveries.lock().expect("no panic");
        let earlier = deliveries.iter().filter(|one| one.id == delivery.id).count();
        deliveries.push(delivery.clone());
        (deliveries.len() - 1, earlier)
    };
    let mut open = shared.open.subscribe();
    open.wait_for(|open| *open).await.expect("the receiver lives");
    let status = (shared.answers.lock().expect("no panic"))(&delivery, earlier);
    shared.deliveries.lock().expect("no panic")[place].answered = Some(status);
    let status = StatusCode::from_u16(status).expect("a status");
    (status, [("location", "/elsewhere")], "taken").into_response()
}

/// Nothing waits to be sent any more.
async fn all_is_decided(cluster: &Cluster) {
    eventually(async || match cluster.psql("SELECT * FROM webhooks WHERE dead_at IS NULL").await {
        rows if rows.is_empty() => Ok(()),
        rows => Err(format!("{rows:?}")),
    })
    .await;
}

/// The real program, as an operator runs it.
async fn admin(cluster: &Cluster, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beseda"));
    command.args(["admin", "webhooks"]).args(words);
    command.env_clear().env("DATABASE_URL", cluster.database_url());
    command.output().await.expect("the program runs")
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_somebody_who_is_away_is_told_and_signed() {
    let receiver = Receiver::start().await;
    let cluster = Cluster::with(2, receiver.settings()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let body = json!({ "text": "Привет!", "metadata": { "a": 1 }, "client_msg_id": "k" });
    let sent = alice.on(0).post(&chat.path("messages/"), body.clone()).await.expect(201);
    alice.on(1).post(&chat.path("messages/"), body).await.expect(200);
    let event = receiver.expect(1).await.remove(0).json;
    assert_members(&event, &["type", "timestamp", "data"]);
    assert_eq!(event["type"], "message.created");
    assert_time(&event["timestamp"]);
    let expected = json!({
        "recipient_id": "bob", "room_name": chat.room_name, "message": sent,
        "unread_count": 1, "total_unread": 1,
    });
    assert_eq!(event["data"], expected);
    all_is_decided(&cluster).await;
    assert_eq!(receiver.deliveries().len(), 1, "a retry is no event");

    // A recipient with a socket on any replica is not notified; one who is away still is.
    let socket = bob.on(1).connect(&chat).await;
    alice.on(0).send(&chat, "you are here").await;
    bob.on(0).send(&chat, "and you are not").await;
    let second = receiver.expect(2).await.remove(1);
    assert_eq!(second.json["data"]["recipient_id"], "alice");
    assert_eq!(second.message()["text"], "and you are not");
    all_is_decided(&cluster).await;
    assert_eq!(receiver.deliveries().len(), 2);
    socket.close().await;
    let metrics = cluster.operator(0).request(Method::GET, "/metrics").await.text;
    for line in ["beseda_webhook_rows 0", "beseda_webhook_dead_rows 0"] {
        assert!(metrics.lines().any(|it| it == line), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_deleted_or_blocked_meanwhile_is_not_told() {
    let receiver = Receiver::start().await;
    let cluster = Cluster::with(2, receiver.settings()).await;
    let (alice, host) = (cluster.user("alice"), cluster.host());
    receiver.open(false);
    let mut chats = Vec::new();
    for name in ["reader", "author", "blocker", "leaver", "erased"] {
        let other = cluster.user(name);
        let chat = alice.on(0).open_chat(&other).await;
        alice.on(0).send(&chat, "first").await;
        chats.push((chat, other));
    }
    // The first ones are on their way; the second ones have to wait for them.
    receiver.expect(chats.len()).await;
    for (number, (chat, other)) in chats.iter().enumerate() {
        let second = alice.on(1).send(chat, "second").await;
        let path = format!("messages/{}/", second["message_id"].as_str().expect("an id"));
        match number {
            0 => drop(other.on(0).mark_read(chat).await),
            1 => drop(alice.on(0).delete(&chat.path(&path)).await.expect(204)),
            2 => drop(other.on(0).put("/users/alice/block/", json!({})).await.expect(204)),
            3 => drop(alice.on(0).delete(&chat.path("")).await.expect(204)),
            _ => drop(host.on(0).delete("/users/erased/").await.expect(204)),
        }
    }
    // A chat or a person that is gone leaves no events behind.
    let (leaver, erased) = (&chats[3].0.id, &chats[4].0.id);
    let left = format!("SELECT count(*) FROM webhooks WHERE chat_id IN ('{leaver}', '{erased}')");
    assert_eq!(cluster.psql_value::<i64>(&left).await, 0);
    receiver.open(true);
    all_is_decided(&cluster).await;
    let told = receiver.deliveries();
    assert!(told.iter().all(|one| one.message()["text"] == "first"), "{told:?}");
    assert_eq!(told.len(), chats.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_chat_come_in_order_one_at_a_time_and_once_whoever_sends_them() {
    const CHATS: usize = 4;
    const MESSAGES: i64 = 12;
    let receiver = Receiver::start().await;
    let cluster = Cluster::with(2, receiver.settings()).await;
    // Some fail at first, and have to be tried again before anything that comes after them.
    receiver.answer(|delivery, earlier| {
        let seq = delivery.message()["seq"].as_i64().unwrap_or(0);
        if seq % 5 == 2 && earlier == 0 { 503 } else { 200 }
    });
    let alice = cluster.user("alice");
    let mut chats = Vec::new();
    for number in 0..CHATS {
        chats.push(alice.on(0).open_chat(&cluster.user(&format!("bob {number}"))).await);
    }
    for number in 0..MESSAGES {
        for (at, chat) in chats.iter().enumerate() {
            alice.on(at % 2).send(chat, &number.to_string()).await;
        }
    }
    all_is_decided(&cluster).await;
    let deliveries = receiver.deliveries();
    let mut by_chat: HashMap<&str, Vec<&Delivery>> = HashMap::new();
    for delivery in &deliveries {
        let chat = delivery.message()["chat_id"].as_str().expect("an id");
        by_chat.entry(chat).or_default().push(delivery);
    }
    assert_eq!(by_chat.len(), CHATS);
    for deliveries in by_chat.values() {
        let mut expected = Vec::new();
        for seq in 1..=MESSAGES {
            let attempts: &[u16] = if seq % 5 == 2 { &[503, 200] } else { &[200] };
            expected.extend(attempts.iter().map(|status| (seq, Some(*status))));
        }
        let got: Vec<_> = deliveries
            .iter()
            .map(|one| (one.message()["seq"].as_i64().expect("a number"), one.answered))
            .collect();
        assert_eq!(got, expected);
        for pair in deliveries.windows(2) {
            let same = pair[0].message()["seq"] == pair[1].message()["seq"];
            assert_eq!(same, pair[0].id == pair[1].id, "an event keeps its id, and has its own");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_holds_nobody_up_and_can_be_replayed() {
    let receiver = Receiver::start().await;
    let settings = receiver.settings();
    let cluster = Cluster::with(1, |config| {
        settings(config);
        config.webhooks.webhook_max_age = Duration::ZERO;
    })
    .await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    // Redirects are not followed, so that only the configured URL receives events.
    receiver.answer(|delivery, _| if delivery.message()["seq"] == 1 { 307 } else { 200 });
    alice.on(0).send(&chat, "refused").await;
    alice.on(0).send(&chat, "taken").await;
    let deliveries = receiver.expect(2).await;
    all_is_decided(&cluster).await;
    let (dead, taken) = (&deliveries[0], &deliveries[1]);
    assert_eq!((&dead.message()["seq"], &taken.message()["seq"]), (&json!(1), &json!(2)));

    let list = admin(&cluster, &[]).await;
    let text = printed(&list);
    for part in [&dead.id, "message.created", &chat.id, "after 1 attempts: answered 307"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.ends_with("\n1 given up"), "{text}");
    let none = admin(&cluster, &["--replay", &taken.id]).await;
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("no such event"), "{none:?}");
    let metrics = cluster.operator(0).request(Method::GET, "/metrics").await.text;
    for line in ["beseda_webhook_dead_rows 1", "beseda_webhooks_total{outcome=\"dead\"} 1"] {
        assert!(metrics.lines().any(|it| it == line), "{line}: {metrics}");
    }

    // Again in vain, then with all others; always the same event.
    let replayed = admin(&cluster, &["--replay", &dead.id]).await;
    assert_eq!(printed(&replayed), "1 to be sent again", "{replayed:?}");
    receiver.expect(3).await;
    all_is_decided(&cluster).await;
    receiver.answer(|_, _| 200);
    assert_eq!(printed(&admin(&cluster, &["--replay-all"]).await), "1 to be sent again");
    let deliveries = receiver.expect(4).await;
    assert!(deliveries[2..].iter().all(|one| one.id == dead.id), "{deliveries:?}");
    all_is_decided(&cluster).await;
    assert_eq!(printed(&admin(&cluster, &[]).await), "0 given up");

    // More than are replayed at a time, of chats that are gone: nothing to be told of.
    let many = "INSERT INTO webhooks (kind, chat_id, recipient_id, seq, due_at, dead_at)
                SELECT 'message.created', gen_random_uuid(), 'bob', 1, now(), now()
                  FROM generate_series(1, 2500)";
    cluster.psql(many).await;
    assert_eq!(printed(&admin(&cluster, &["--replay-all"]).await), "2500 to be sent again");
    assert_eq!(printed(&admin(&cluster, &[]).await), "0 given up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_told_as_it_is_listed() {
    let receiver = Receiver::start().await;
    let cluster = Cluster::with(2, receiver.settings()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    // No event is sent to an online user for the message, but the host application gets the report.
    let socket = bob.on(0).connect(&chat).await;
    let sent = alice.on(0).send(&chat, "You fool!").await;
    let path =
        chat.path(&format!("messages/{}/report/", sent["message_id"].as_str().expect("an id")));
    let report = bob.on(1).post(&path, json!({ "reason": "An insult" })).await.expect(201);
    bob.on(0).post(&path, json!({})).await.expect(200);
    let event = receiver.expect(1).await.remove(0).json;
    assert_eq!((&event["type"], &event["data"]), (&json!("report.created"), &report));
    // A chat that is gone takes none of it with it.
    receiver.open(false);
    let path = {
        let sent = alice.on(0).send(&chat, "You coward!").await;
        chat.path(&format!("messages/{}/report/", sent["message_id"].as_str().expect("an id")))
    };
    let report = bob.on(1).post(&path, json!({})).await.expect(201);
    alice.on(0).delete(&chat.path("")).await.expect(204);
    receiver.open(true);
    let event = receiver.expect(2).await.remove(1).json;
    assert_eq!(event["data"], report);
    all_is_decided(&cluster).await;
    assert_eq!(receiver.deliveries().len(), 2);
    socket.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_what_is_on_its_way_and_a_dead_replicas_events_are_taken_over() {
    let receiver = Receiver::start().await;
    let mut cluster = Cluster::with(1, receiver.settings()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    receiver.open(false);
    alice.on(0).send(&chat, "on its way").await;
    receiver.expect(1).await;
    let next = cluster.add_replica().await;
    let draining = tokio::spawn(cluster.drain(0));
    // It takes nothing more: what comes now is the other one's.
    alice.on(next).send(&chat, "after it").await;
    receiver.open(true);
    draining.await.expect("it ends");
    receiver.expect(2).await;
    all_is_decided(&cluster).await;
    let texts: Vec<_> =
        receiver.deliveries().iter().map(|one| one.message()["text"].clone()).collect();
    assert_eq!(texts, ["on its way", "after it"]);

    // A crash between the sending and its note: once more, as soon as the lane may be taken again.
    receiver.open(false);
    alice.on(next).send(&chat, "cut off").await;
    let cut = receiver.expect(3).await.remove(2);
    cluster.abort(next);
    receiver.open(true);
    let last = cluster.add_replica().await;
    let lapsed = "UPDATE webhook_lanes SET due_at = clock_timestamp()";
    cluster.psql(lapsed).await;
    let again = receiver.expect(4).await.remove(3);
    assert_eq!((&again.id, &again.message()["text"]), (&cut.id, &json!("cut off")));
    all_is_decided(&cluster).await;
    alice.on(last).get("/chats/").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_does_not_answer_is_tried_again() {
    let receiver = Receiver::start().await;
    let settings = receiver.settings();
    let cluster = Cluster::with(1, |config| {
        settings(config);
        config.webhooks.webhook_timeout = Duration::from_millis(300);
    })
    .await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    receiver.open(false);
    alice.on(0).send(&chat, "hello?").await;
    eventually(async || {
        let why = "SELECT last_error FROM webhooks WHERE attempts > 0";
        let rows = cluster.psql(why).await;
        match rows.first().and_then(|row| row[0].clone()) {
            Some(why) if why == "no answer in time" => Ok(()),
            why => Err(format!("{why:?}")),
        }
    })
    .await;
    receiver.open(true);
    all_is_decided(&cluster).await;
    let deliveries = receiver.deliveries();
    assert!(deliveries.len() > 1 && deliveries.iter().all(|one| one.id == deliveries[0].id));
}

/// Why no replica starts with such a URL.
async fn refusal(cluster: &Cluster, url: &str, private: Switch) -> String {
    let refused = cluster.refusal(|config| {
        config.webhooks.webhook_url = Some(url.parse().expect("a URL"));
        config.webhooks.webhook_secret = Some(Secret::from(SECRETS[0].to_owned()));
        config.webhooks.webhook_allow_private = private;
    });
    refused.await
}

#[tokio::test(flavor = "multi_thread")]
async fn private_addresses_are_not_reached_by_number_or_name() {
    let receiver = Receiver::start().await;
    let port = receiver.address.port();
    let settings = receiver.settings();
    let cluster = Cluster::with(1, |config| {
        settings(config);
        let url = format!("https://localhost:{port}/events");
        config.webhooks.webhook_url = Some(url.parse().expect("a URL"));
        config.webhooks.webhook_allow_private = Switch::Off;
        config.webhooks.webhook_max_age = Duration::ZERO;
    })
    .await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    alice.on(0).send(&chat, "to nobody").await;
    all_is_decided(&cluster).await;
    let listed = printed(&admin(&cluster, &[]).await);
    assert!(listed.contains("its host has private addresses only"), "{listed}");

    for url in [
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://10.1.2.3/",
        "https://169.254.169.254/latest/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[fd00::1]/",
        "https://[fe80::1]/",
    ] {
        let why = refusal(&cluster, url, Switch::Off).await;
        assert!(why.starts_with("BESEDA_WEBHOOK_URL: is a private address"), "{url}: {why}");
    }
    let plain = refusal(&cluster, "http://example.com/", Switch::Off).await;
    assert!(plain.starts_with("BESEDA_WEBHOOK_URL: must be https://"), "{plain}");
    let named = refusal(&cluster, "https://me:secret@example.com/", Switch::On).await;
    assert!(named.contains("no user and no password") && !named.contains("secret"), "{named}");
    for secret in [None, Some("short"), Some("not base64, not at all, not base64")] {
        let why = cluster.refusal(|config| {
            config.webhooks.webhook_url = Some("https://example.com/".parse().expect("a URL"));
            config.webhooks.webhook_secret = secret.map(|it| Secret::from(it.to_owned()));
        });
        let why = why.await;
        assert!(why.starts_with("BESEDA_WEBHOOK_SECRET: "), "{why}");
    }
}

/// How many events were noted for a chat.
async fn noted(cluster: &Cluster, chat: &Chat) -> i64 {
    let id = &chat.id;
    cluster.psql_value(&format!("SELECT count(*) FROM webhooks WHERE chat_id = '{id}'")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_noted_where_nobody_asked_and_an_event_waits_for_its_moment() {
    let mut cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    alice.on(0).send(&chat, "off").await;
    assert_eq!(noted(&cluster, &chat).await, 0);

    let receiver = Receiver::start().await;
    let settings = receiver.settings();
    let patient = cluster
        .add_replica_with(|config| {
            settings(config);
            config.webhooks.webhook_delay = Duration::from_secs(3_600);
        })
        .await;
    alice.on(patient).send(&chat, "later").await;
    alice.on(patient).send(&chat, "later still").await;
    assert_eq!(noted(&cluster, &chat).await, 2);
    // The chat's lane is not taken before its first event is due.
    let turns = "SELECT sum(turn) FROM webhook_lanes";
    assert_eq!(cluster.psql_value::<i64>(turns).await, 0);
    cluster.psql("UPDATE webhooks SET due_at = clock_timestamp() WHERE seq = 2").await;
    cluster.psql("UPDATE webhook_lanes SET due_at = clock_timestamp()").await;
    let told = receiver.expect(1).await.remove(0);
    assert_eq!(told.message()["text"], "later");
    eventually(async || match noted(&cluster, &chat).await {
        1 => Ok(()),
        count => Err(count.to_string()),
    })
    .await;
    let due = "SELECT due_at > clock_timestamp() + interval '50 minutes' FROM webhook_lanes";
    assert_eq!(cluster.psql_value::<String>(due).await, "t");
    assert_eq!(receiver.deliveries().len(), 1);
}
