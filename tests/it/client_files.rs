//! Messages with files of the Rust client: replicas die and are away, and files are refused.

use std::{path::PathBuf, time::Duration};

use beseda_client::{
    Client, Credentials, Error, Event, Events, NewFile, Rest,
    machine::{Upload, UploadPhase},
    protocol::{model::Message, rest::NewMessage},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::harness::{Chat, Cluster, Program, S3, User};

/// Bytes of a file that takes many parts of 4 MiB, and part of one.
const LARGE: usize = 50_000_000;

/// Longest wait for an event: a frozen replica is given up after a heartbeat and 10 s, and back-off grows
/// while all are away.
const PATIENCE: Duration = Duration::from_secs(60);

/// Alice's client, and what it told.
struct Sender {
    client: Client,
    events: Events,
    chat: Chat,
    /// How far each told upload was.
    uploads: Vec<Upload>,
    sent: Vec<Message>,
    not_sent: Vec<Error>,
    folder: TempDir,
}

impl Sender {
    fn start(alice: &User, chat: &Chat, replicas: &[usize]) -> Self {
        let url = |replica: &usize| {
            format!("http://{}", alice.on(*replica).host()).parse().expect("a URL")
        };
        let [first, others @ ..] = replicas else { panic!("a replica") };
        let credentials = Credentials::fixed(alice.token.as_str());
        let builder = Client::builder(url(first), credentials);
        let builder = others.iter().fold(builder, |builder, other| builder.url(url(other)));
        let (client, events) = builder.connect().expect("a client");
        let (uploads, sent, not_sent) = (Vec::new(), Vec::new(), Vec::new());
        let folder = tempfile::tempdir().expect("a folder");
        Self { client, events, chat: chat.clone(), uploads, sent, not_sent, folder }
    }

    /// Writes a file of that many bytes of no known type.
    fn file(&self, name: &str, size: usize) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content(size)).expect("a file");
        path
    }

    fn send(&self, text: &str, files: Vec<NewFile>) -> String {
        let message = NewMessage { text: text.to_owned(), ..NewMessage::default() };
        let chat_id = self.chat.id.parse().expect("an id");
        self.client.send_with_files(chat_id, message, files)
    }

    /// Takes events until they have brought something about.
    async fn until(&mut self, what: impl Fn(&Self) -> bool) {
        while !what(self) {
            let event = timeout(PATIENCE, self.events.next()).await;
            match event.unwrap_or_else(|_| panic!("{:?}", self.uploads)).expect("a client") {
                Event::Upload { upload, .. } => self.uploads.push(*upload),
                Event::Sent { message, .. } => self.sent.push(*message),
                Event::NotSent { error, .. } => self.not_sent.push(error),
                _ => {}
            }
        }
    }

    /// Until the upload of the large file is in the middle.
    async fn until_under_way(&mut self) {
        let is_large = |upload: &&Upload| upload.file.name() == "large.bin";
        self.until(|told| told.uploads.iter().any(|one| is_large(&one) && one.sent > 0)).await;
        let latest = self.uploads.iter().rfind(is_large).expect("an upload");
        assert_eq!(latest.phase, UploadPhase::Sending);
    }

    /// Whether an upload had to wait for another attempt.
    fn broke_off(&self) -> bool {
        let waits = |pair: &[Upload]| {
            pair[0].phase == UploadPhase::Sending && pair[1].phase == UploadPhase::Waiting
        };
        self.uploads.windows(2).any(waits)
    }
}

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at / 3) as u8 | 0x80).collect()
}

/// The texts of a chat, each with the sizes of what it carries, whose bytes are as they were sent.
async fn received(bob: &User, chat: &Chat) -> Vec<(String, Vec<usize>)> {
    let page = bob.on(1).history(chat, "").await;
    let mut received = Vec::new();
    for message in page["results"].as_array().expect("messages") {
        let mut sizes = Vec::new();
        for attachment in message["attachments"].as_array().into_iter().flatten() {
            let id = attachment["attachment_id"].as_str().expect("an id");
            let read = bob.on(1).get(&chat.path(&format!("attachments/{id}/"))).await;
            assert!(read.bytes == content(read.bytes.len()), "{attachment}");
            sizes.push(read.bytes.len());
        }
        received.push((message["text"].as_str().expect("a text").to_owned(), sizes));
    }
    received
}

fn expected(messages: &[(&str, &[usize])]) -> Vec<(String, Vec<usize>)> {
    messages.iter().map(|(text, sizes)| ((*text).to_owned(), sizes.to_vec())).collect()
}

/// A replica that is a program of its own, and takes files as the others do.
async fn join(cluster: &mut Cluster, listen: &str) -> (Program, usize) {
    let place = format!("file://{}", cluster.files().display());
    let settings = [
        ("BESEDA_ATTACHMENTS", place.as_str()),
        ("BESEDA_LISTEN", listen),
        // A frozen replica is noticed the sooner.
        ("BESEDA_SOCKET_HEARTBEAT", "1s"),
    ];
    Program::join(cluster, &settings).await
}

/// A replica gets a signal while Alice uploads through it. Whether that was in time: the upload broke off.
async fn survives(cluster: &mut Cluster, fault: Signal) -> bool {
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let (program, doomed) = join(cluster, "127.0.0.1:0").await;
    let mut sender = Sender::start(&alice, &chat, &[doomed, 0]);
    let large = NewFile::at(sender.file("large.bin", LARGE));
    let small = NewFile::of_bytes("small.bin", content(3));
    sender.send("look", vec![large, small]);
    sender.send("after", Vec::new());
    sender.until_under_way().await;
    kill(Pid::from_raw(program.id().cast_signed()), fault).expect("it runs");
    sender.until(|told| told.sent.len() == 2).await;
    let from_the_beginning = sender.uploads.iter().filter(|upload| {
        upload.file.name() == "large.bin" && upload.sent == 0 && upload.size.is_some()
    });
    assert!(from_the_beginning.count() <= 1, "{fault}: it goes on from where it was");
    let messages = expected(&[("look", &[LARGE, 3]), ("after", &[])]);
    assert_eq!(received(&bob, &chat).await, messages, "{fault}");
    alice.on(0).delete(&chat.path("")).await.expect(204);
    sender.broke_off()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_dies_or_freezes_in_the_middle_of_an_upload_costs_nothing() {
    let mut cluster = Cluster::start(2).await;
    for fault in [Signal::SIGKILL, Signal::SIGSTOP] {
        // A fast machine may be done before the signal comes.
        let mut in_time = false;
        for _ in 0..10 {
            in_time = survives(&mut cluster, fault).await;
            if in_time {
                break;
            }
        }
        assert!(in_time, "{fault}: it came too late, each time");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_while_all_replicas_are_away_arrives_whole_once_and_in_order() {
    let mut cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let (program, only) = join(&mut cluster, "127.0.0.1:0").await;
    let address = alice.on(only).host();
    let mut sender = Sender::start(&alice, &chat, &[only]);
    sender.send("one", vec![NewFile::at(sender.file("large.bin", LARGE))]);
    sender.until_under_way().await;
    drop(program);
    sender.send("two", Vec::new());
    sender.send("three", vec![NewFile::of_bytes("small.bin", content(3))]);
    sender.send("four", Vec::new());
    let waits = |name: &'static str| {
        move |told: &Sender| {
            let of = told.uploads.iter().rfind(|upload| upload.file.name() == name);
            of.is_some_and(|upload| upload.phase == UploadPhase::Waiting)
        }
    };
    sender.until(waits("large.bin")).await;
    sender.until(waits("small.bin")).await;
    let (_program, _) = join(&mut cluster, &address).await;
    sender.until(|told| told.sent.len() == 4).await;
    assert!(sender.not_sent.is_empty(), "{:?}", sender.not_sent);
    let messages = expected(&[("one", &[LARGE]), ("two", &[]), ("three", &[3]), ("four", &[])]);
    assert_eq!(received(&bob, &chat).await, messages);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_refused_is_told_and_holds_up_nothing() {
    let cluster = Cluster::with(2, |config| config.attachments.attachment_max_bytes = 1_000).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut sender = Sender::start(&alice, &chat, &[0]);
    let bytes = |size| NewFile::of_bytes("data.bin", content(size));
    let missing = NewFile::at(sender.folder.path().join("nowhere"));
    sender.send("too large", vec![bytes(10), bytes(1_001)]);
    let no_image = sender.send("no image", vec![bytes(10).with_content_type("image/png")]);
    sender.send("missing", vec![missing]);
    sender.send("good", vec![bytes(1_000)]);
    sender.send("after", Vec::new());
    sender.until(|told| told.sent.len() == 2 && told.not_sent.len() == 3).await;
    let mut codes: Vec<_> = sender.not_sent.iter().map(|error| error.code.as_str()).collect();
    codes.sort_unstable();
    assert_eq!(codes, ["file", "payload_too_large", "validation_failed"]);
    let messages = expected(&[("good", &[1_000]), ("after", &[])]);
    assert_eq!(received(&bob, &chat).await, messages);

    let chat_id = chat.id.parse().expect("an id");
    sender.client.send_again(chat_id, &no_image);
    sender.until(|told| told.not_sent.len() == 4).await;
    let pending = |sender: &Sender| {
        sender.client.look(|machine| machine.timeline(chat_id).map(|one| one.pending().len()))
    };
    assert_eq!(pending(&sender), Some(3));
    sender.client.discard(chat_id, &no_image);
    assert_eq!(pending(&sender), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_discarded_stops_its_upload() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut sender = Sender::start(&alice, &chat, &[0]);
    let unwanted = sender.send("unwanted", vec![NewFile::at(sender.file("large.bin", LARGE))]);
    sender.send("after", Vec::new());
    sender.until_under_way().await;
    sender.client.discard(chat.id.parse().expect("an id"), &unwanted);
    sender.until(|told| told.sent.len() == 1).await;
    assert_eq!(sender.uploads.last().map(|upload| &upload.phase), Some(&UploadPhase::Aborted));
    let there = sender.uploads.iter().map(|upload| upload.sent).max();
    assert!(there < Some(LARGE as u64), "{there:?}");
    assert_eq!(received(&bob, &chat).await, expected(&[("after", &[])]));
    let events = timeout(Duration::from_millis(200), sender.until(|told| told.sent.len() > 1));
    assert!(events.await.is_err(), "nothing of it goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_store_that_is_away_for_a_while_gets_the_whole_file() {
    let Some(mut s3) = S3::start().await else { return };
    let port = s3.port();
    let cluster = Cluster::with(1, |config| s3.configure(&mut config.attachments, port)).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut sender = Sender::start(&alice, &chat, &[0]);
    s3.kill();
    sender.send("stored", vec![NewFile::of_bytes("data.bin", content(6_000_000))]);
    sender.send("after", Vec::new());
    sender.until(Sender::broke_off).await;
    s3.restart().await;
    sender.until(|told| told.sent.len() == 2).await;
    let page = bob.on(0).history(&chat, "").await;
    let sizes = page["results"].as_array().expect("messages").iter();
    let sizes: Vec<_> = sizes.map(|message| &message["attachments"][0]["size"]).collect();
    assert_eq!(sizes, [&Value::from(6_000_000), &Value::Null]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_wants_no_events_sends_all_the_same() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let url = format!("http://{}", alice.on(0).host()).parse().expect("a URL");
    let credentials = Credentials::fixed(alice.token.as_str());
    let (client, events) = Client::builder(url, credentials).connect().expect("a client");
    drop(events);
    let mut socket = bob.on(0).connect(&chat).await;
    for text in ["one", "two"] {
        client.send(chat.id.parse().expect("an id"), text);
        assert_eq!(socket.wait_for("message.created").await["message"]["text"], text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_token_is_refused_is_told_instead_of_kept_waiting() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let url = format!("http://{}", alice.on(0).host()).parse().expect("a URL");
    let rest = Rest::new(&[url], Credentials::fixed("nobody's")).expect("a client");
    let attaching = rest.attach(&chat.id, NewFile::of_bytes("notes.txt", *b"Some notes."), |_| {});
    let refused = timeout(PATIENCE, attaching).await.expect("an answer in time");
    assert_eq!(refused.expect_err("refused").status, 401);
}
