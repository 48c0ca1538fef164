//! The protocol's test vectors, which every client must pass.

use std::{
    collections::VecDeque,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use beseda_client::{
    Closed, Error, State, Window,
    machine::{Answer, Call, Effect, Entry, Machine, Settings},
    protocol::{
        ReceivedFrame,
        model::{Chat, ChatId},
        rest::{ChatPage, NewMessage},
    },
};
use serde_json::{Value, json};

/// Longer than any back-off.
const RECONNECT: Duration = Duration::from_secs(60);

/// The server as a script plays it, with the client that it talks to.
struct World {
    machine: Machine,
    now: Instant,
    list: Vec<Chat>,
    chat: Option<ChatId>,
    /// Calls that wait for a step to answer them.
    histories: VecDeque<(ChatId, u64, Window)>,
    sends: VecDeque<(u64, ChatId, String)>,
    lists: VecDeque<u64>,
    marks: VecDeque<(u64, ChatId)>,
    /// Whether a list waits for a step as well.
    list_waits: bool,
    /// What the client sent, over all sockets.
    sent: Vec<Value>,
    keys: Vec<String>,
    sockets: u64,
    tokens: u64,
}

impl World {
    fn new() -> Self {
        let settings =
            Settings { only: None, page: None, attempts: 4, can_renew: true, random: || 1.0 };
        Self {
            machine: Machine::new(settings),
            now: Instant::now(),
            list: Vec::new(),
            chat: None,
            histories: VecDeque::new(),
            sends: VecDeque::new(),
            lists: VecDeque::new(),
            marks: VecDeque::new(),
            list_waits: false,
            sent: Vec::new(),
            keys: Vec::new(),
            sockets: 0,
            tokens: 1,
        }
    }

    /// Does what the machine asks for, as far as no step answers it.
    fn settle(&mut self) {
        while let Some(effect) = self.machine.next_effect() {
            match effect {
                Effect::Connect { renew, .. } => {
                    self.tokens += u64::from(renew);
                    self.sockets += 1;
                }
                Effect::Transmit(text) => {
                    self.sent.push(serde_json::from_str(&text).expect("a frame is JSON"));
                }
                Effect::Disconnect | Effect::Abort(_) | Effect::Emit(_) => {}
                Effect::Call(call) => self.on_call(call),
            }
        }
    }

    fn on_call(&mut self, call: Call) {
        match call {
            Call::List { asked, .. } if self.list_waits => self.lists.push_back(asked),
            Call::List { asked, .. } => self.answer_list(asked, self.list.clone()),
            Call::History { chat_id, load, window, .. } => {
                self.histories.push_back((chat_id, load, window));
            }
            Call::Send { asked, chat_id, message } => {
                let id = message.client_msg_id.expect("a message has an id");
                self.keys.push(id.clone());
                self.sends.push_back((asked, chat_id, id));
            }
            Call::Mark { asked, chat_id, .. } => self.marks.push_back((asked, chat_id)),
            Call::Upload { .. } => unreachable!("no vector has files"),
            Call::Renew => {
                self.tokens += 1;
                let token = format!("token {}", self.tokens);
                self.machine.on_answer(self.now, Answer::Renew(Ok(Some(token))));
            }
        }
    }

    fn answer_list(&mut self, asked: u64, results: Vec<Chat>) {
        let total = results.iter().map(|chat| chat.unread_count).sum();
        let outcome = Ok((ChatPage { results, next: None }, total));
        self.machine.on_answer(self.now, Answer::List { asked, outcome });
    }

    /// A value of a step, with what it stands for in the place of `"$…"`.
    fn filled(&self, value: &Value) -> String {
        let mut text = value.to_string();
        if let Some(id) = self.subscribes().last().map(|frame| frame["id"].to_string()) {
            text = text.replace("\"$subscribe\"", &id);
        }
        if let Some(key) = self.keys.first() {
            text = text.replace("\"$sent-1\"", &json!(key).to_string());
        }
        text
    }

    fn subscribes(&self) -> impl Iterator<Item = &Value> {
        self.sent.iter().filter(|frame| frame["type"] == "subscribe")
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.machine.deadline().filter(|at| *at <= end) {
            self.now = at;
            self.machine.on_time(at);
            self.settle();
        }
        self.now = end;
    }

    fn step(&mut self, kind: &str, value: &Value) {
        match kind {
            "chats" => {
                self.list = read(value);
                self.machine.start();
            }
            "frame" => {
                let frame = ReceivedFrame::decode(&self.filled(value)).expect("a frame");
                self.machine.on_frame(self.now, frame);
            }
            "open" => {
                let chat_id = read(value);
                self.chat = Some(chat_id);
                self.machine.open(chat_id);
            }
            "history" => {
                let asked = self.histories.pop_front();
                let (chat_id, load, window) = asked.expect("the client waits for a history");
                let outcome = Ok(read(value));
                let answer = Answer::History { chat_id, load, window, outcome };
                self.machine.on_answer(self.now, answer);
            }
            "list_waits" => self.list_waits = read(value),
            "list" => {
                let asked = self.lists.pop_front().expect("the client waits for a list");
                self.answer_list(asked, read(value));
            }
            "mark_read" => {
                let chat_id = self.chat.expect("an open chat");
                let timeline = self.machine.timeline(chat_id).expect("a timeline");
                let end = timeline.head_seq();
                self.machine.mark_read(chat_id, end);
            }
            "marked" => {
                let mark = self.marks.pop_front();
                let (asked, chat_id) = mark.expect("the client waits for the answer to a mark");
                let outcome = Ok(read(value));
                self.machine.on_answer(self.now, Answer::Mark { asked, chat_id, outcome });
            }
            "send" => {
                let message = NewMessage {
                    text: read(value),
                    client_msg_id: Some(format!("key {}", self.now.elapsed().as_nanos())),
                    ..NewMessage::default()
                };
                self.machine.send(self.chat.expect("an open chat"), message, Vec::new());
            }
            "answer" => {
                let sent = self.sends.pop_front();
                let (asked, chat_id, client_msg_id) = sent.expect("the client waits for an answer");
                let text = self.filled(value);
                let outcome = match value["status"].as_u64() {
                    Some(_) => Err(problem(value)),
                    None => Ok(serde_json::from_str(&text).expect("a message")),
                };
                let answer = Answer::Send { asked, chat_id, client_msg_id, outcome };
                self.machine.on_answer(self.now, answer);
            }
            "close" => {
                let closed = Closed { code: read(value), reason: String::new() };
                self.machine.on_closed(self.now, &closed);
            }
            "reconnect" => {
                let before = self.sockets;
                let mut passed = Duration::ZERO;
                while self.sockets == before && passed < RECONNECT {
                    self.pass(Duration::from_millis(500));
                    passed += Duration::from_millis(500);
                }
                assert!(self.sockets > before, "no other socket was opened");
            }
            "wait_ms" => self.pass(Duration::from_millis(read(value))),
            "expect" => {
                for (what, expected) in value.as_object().expect("an object") {
                    assert_eq!(self.seen(what, expected), *expected, "{what}");
                }
            }
            _ => panic!("unknown step {kind}"),
        }
        self.settle();
    }

    /// The client's state in the words of the vectors; as much of it as `like` names.
    fn seen(&self, what: &str, like: &Value) -> Value {
        let timeline = || {
            let chat_id = self.chat.expect("an open chat");
            self.machine.timeline(chat_id).expect("a timeline")
        };
        let texts = |failed: bool| {
            let pending = timeline().pending().iter();
            let pending = pending.filter(|one| !failed || one.failed.is_some());
            pending.map(|one| one.text.clone()).collect::<Vec<_>>()
        };
        match what {
            "messages" => timeline().entries().iter().map(message).collect(),
            "carried" => {
                let of = |(seq, like): (&String, &Value)| {
                    let mut entries = timeline().entries().iter();
                    let entry = entries.find(|entry| entry.seq().to_string() == *seq);
                    let message = serde_json::to_value(entry.and_then(Entry::message));
                    let message = message.expect("serializes");
                    let names = like.as_object().expect("an object").keys();
                    let fields = names.map(|name| (name.clone(), message[name].clone()));
                    (seq.clone(), fields.collect::<serde_json::Map<_, _>>().into())
                };
                let messages = like.as_object().expect("an object").iter();
                messages.map(of).collect::<serde_json::Map<_, _>>().into()
            }
            "pending" => json!(texts(false)),
            "failed" => json!(texts(true)),
            "position" => {
                let position = timeline().position().expect("a position");
                json!({ "ev": position.ev, "epoch": position.epoch })
            }
            "read_seq" => json!(timeline().read_seq()),
            "peer_read_seq" => json!(timeline().peer_read_seq()),
            "receipts" => json!(timeline().receipts()),
            "online_count" => json!(timeline().online_count()),
            "chat" => {
                let chats = self.machine.chats();
                let fields = |(id, like): (&String, &Value)| {
                    let chat = chats.get(id.parse().expect("an id"));
                    let chat = serde_json::to_value(chat).expect("serializes");
                    let names = like.as_object().expect("an object").keys();
                    let fields = names.map(|name| (name.clone(), chat[name].clone()));
                    (id.clone(), fields.collect::<serde_json::Map<_, _>>().into())
                };
                let chats = like.as_object().expect("an object").iter();
                chats.map(fields).collect::<serde_json::Map<_, _>>().into()
            }
            "chats" => self.machine.chats().list().iter().map(|chat| json!(chat.chat_id)).collect(),
            "unread" => {
                let chats = self.machine.chats();
                let count = |id: &String| match id.as_str() {
                    "total" => json!(chats.total_unread),
                    id => {
                        let id = id.parse().expect("an id");
                        json!(chats.get(id).map(|chat| chat.unread_count))
                    }
                };
                let names = like.as_object().expect("an object").keys();
                names.map(|id| (id.clone(), count(id))).collect::<serde_json::Map<_, _>>().into()
            }
            "phase" => json!(match self.machine.state() {
                State::Idle => "idle",
                State::Connecting => "connecting",
                State::Live => "live",
                State::Waiting { .. } => "waiting",
                State::TokenRefused { .. } => "token",
                State::Stopped { .. } => "stopped",
            }),
            "subscribe" => {
                let last = self.subscribes().last().expect("a subscription");
                json!({ "after_ev": last["after_ev"], "epoch": last["epoch"] })
            }
            "subscribes" => {
                let chat = json!(self.chat);
                let ours =
                    |frame: &&Value| frame["chat_id"] == chat && !frame["after_ev"].is_null();
                json!(self.subscribes().filter(ours).count())
            }
            "sockets" => json!(self.sockets),
            "tokens" => json!(self.tokens),
            "auth" => json!(self.sent.iter().filter(|frame| frame["type"] == "auth").count()),
            "keys" => {
                let mut keys = self.keys.clone();
                keys.sort();
                keys.dedup();
                json!(keys.len())
            }
            _ => panic!("unknown expectation {what}"),
        }
    }
}

fn message(entry: &Entry) -> Value {
    let message = entry.message();
    let mut seen = json!({
        "seq": entry.seq(),
        "text": message.map_or("", |message| message.text.as_str()),
        "sender_id": message.and_then(|message| message.sender_id.as_ref()),
    });
    if entry.is_deleted() {
        seen["deleted"] = json!(true);
    }
    seen
}

fn problem(value: &Value) -> Error {
    Error::answered(read(&value["status"]), value.to_string().as_bytes())
}

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    // From text: metadata are kept as they are sent.
    serde_json::from_str(&value.to_string()).expect("what a step says")
}

#[test]
fn every_vector_gives_what_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../clients/vectors");
    let files = fs::read_dir(folder).expect("the vectors").map(|file| file.expect("a file").path());
    let mut run = 0;
    for file in files.filter(|file| file.extension().is_some_and(|end| end == "json")) {
        let text = fs::read_to_string(&file).expect("a file");
        let vectors: Value = serde_json::from_str(&text).expect("JSON");
        let steps_of = |value: &Value| value.as_array().cloned().unwrap_or_default();
        for scenario in steps_of(&vectors["scenarios"]) {
            let mut world = World::new();
            let steps = [steps_of(&vectors["given"]), steps_of(&scenario["steps"])].concat();
            for (index, step) in steps.iter().enumerate() {
                let (kind, value) =
                    step.as_object().expect("a step").iter().next().expect("a kind");
                // Shown with the failure.
                println!("{}, {}, step {}: {kind}", file.display(), scenario["name"], index + 1);
                world.step(kind, value);
            }
            run += 1;
        }
    }
    assert!(run >= 70, "only {run} scenarios were found");
}
