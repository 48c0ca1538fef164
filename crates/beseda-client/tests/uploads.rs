//! Messages with files, decided without a network: where an upload goes on, what waits, what is told.

use std::time::{Duration, Instant};

use beseda_client::{
    Closed, Error, Event, NewFile,
    machine::{Answer, Brought, Call, Effect, Machine, Settings, UploadPhase, UploadStep},
    protocol::{
        ReceivedFrame,
        model::{AttachmentId, ChatId},
        rest::{AttachmentTicket, NewMessage},
    },
};
use serde_json::json;

const CHAT: &str = "01a20a32-f544-7269-a867-60a8e5b5a762";
const FIRST: &str = "01a20a33-0000-7000-8000-000000000001";
const SECOND: &str = "01a20a33-0000-7000-8000-000000000002";
const REPLICA: &str = "http://x/api/v1/uploads/one/";
const STORE: &str = "https://s3.example/bucket/one?X-Amz-Signature=1";

/// Bytes of each file.
const SIZE: u64 = 10;

/// A machine, and what it wants at this moment.
struct World {
    machine: Machine,
    now: Instant,
    events: Vec<Event>,
    /// The calls of uploads and of messages that are not answered yet.
    calls: Vec<Call>,
    aborted: Vec<u64>,
}

impl World {
    fn live() -> Self {
        let settings =
            Settings { only: None, page: None, attempts: 4, can_renew: false, random: || 1.0 };
        let (machine, now) = (Machine::new(settings), Instant::now());
        let (events, calls, aborted) = (Vec::new(), Vec::new(), Vec::new());
        let mut world = Self { machine, now, events, calls, aborted };
        world.machine.start();
        world.hello();
        world
    }

    fn hello(&mut self) {
        let hello = json!({
            "type": "hello", "connection_id": CHAT, "user_id": "alice", "heartbeat_ms": 25_000,
            "token_expires_at": "2026-11-24T20:57:00.000000Z", "epoch": "e1",
        });
        let hello = ReceivedFrame::decode(&hello.to_string()).expect("a frame");
        self.machine.on_frame(self.now, hello);
        self.settle();
    }

    fn lose_connection(&mut self) {
        self.machine.on_closed(self.now, &Closed { code: 1006, reason: String::new() });
        self.settle();
    }

    fn send(&mut self, id: &str, files: usize) {
        let message = NewMessage { client_msg_id: Some(id.to_owned()), ..NewMessage::default() };
        let file = NewFile::of_bytes("ten.txt", *b"0123456789");
        self.machine.send(chat_id(), message, vec![file; files]);
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(effect) = self.machine.next_effect() {
            match effect {
                Effect::Emit(event) => self.events.push(*event),
                Effect::Call(call @ (Call::Upload { .. } | Call::Send { .. })) => {
                    self.calls.push(call);
                }
                Effect::Abort(upload) => {
                    self.calls.retain(
                        |call| !matches!(call, Call::Upload { upload: one, .. } if *one == upload),
                    );
                    self.aborted.push(upload);
                }
                _ => {}
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.machine.on_time(self.now);
        self.settle();
    }

    /// What is asked for, in short.
    fn asked(&self) -> Vec<String> {
        let asked = self.calls.iter().map(|call| match call {
            Call::Upload { step: UploadStep::Announce(_), .. } => "announce".to_owned(),
            Call::Upload { step: UploadStep::Ask { .. }, .. } => "ask".to_owned(),
            Call::Upload { step: UploadStep::Bring { from, .. }, .. } => format!("from {from}"),
            Call::Send { message, .. } => {
                let id = message.client_msg_id.as_deref().unwrap_or_default();
                format!("send {id} with {}", message.attachments.len())
            }
            other => panic!("{other:?}"),
        });
        asked.collect()
    }

    /// Answers the oldest call of an upload.
    fn answer(&mut self, outcome: Result<Brought, Error>) {
        let is_upload = |call: &Call| matches!(call, Call::Upload { .. });
        let at = self.calls.iter().position(is_upload).expect("a call of an upload");
        let Call::Upload { upload, attempt, .. } = self.calls.remove(at) else { unreachable!() };
        self.machine.on_answer(self.now, Answer::Upload { upload, attempt, outcome });
        self.settle();
    }

    fn announce(&mut self, id: &str, url: &str) {
        let ticket = json!({
            "attachment_id": id,
            "upload": {
                "method": "PUT", "url": url, "headers": {},
                "expires_at": "2026-11-24T20:57:00.000000Z",
            },
        });
        let ticket: AttachmentTicket = serde_json::from_value(ticket).expect("a ticket");
        self.answer(Ok(Brought::Announced { ticket: Box::new(ticket), size: SIZE }));
    }

    fn there(&mut self, bytes: u64) {
        self.answer(Ok(Brought::There(bytes)));
    }

    /// Messages that were told to have failed, with the codes.
    fn not_sent(&self) -> Vec<(String, String)> {
        let failed = self.events.iter().filter_map(|event| match event {
            Event::NotSent { pending, error, .. } => {
                Some((pending.client_msg_id.clone(), error.code.clone()))
            }
            _ => None,
        });
        failed.collect()
    }

    /// How far each told step of the uploads was.
    fn progress(&self) -> Vec<(UploadPhase, u64)> {
        let told = self.events.iter().filter_map(|event| match event {
            Event::Upload { upload, .. } => Some((upload.phase.clone(), upload.sent)),
            _ => None,
        });
        told.collect()
    }
}

fn chat_id() -> ChatId {
    CHAT.parse().expect("an id")
}

fn id(text: &str) -> AttachmentId {
    text.parse().expect("an id")
}

fn away() -> Error {
    Error::network(std::io::Error::other("away"))
}

fn refused(status: u16, code: &str) -> Error {
    let problem = json!({
        "type": "t", "title": "t", "status": status, "detail": "d", "code": code, "request_id": "r",
    });
    Error::answered(status, problem.to_string().as_bytes())
}

#[test]
fn a_message_goes_out_once_its_files_are_there_and_what_follows_keeps_its_place() {
    let mut world = World::live();
    world.send("files", 2);
    world.send("later", 0);
    assert_eq!(world.asked(), ["announce", "announce"]);
    world.announce(FIRST, REPLICA);
    world.announce(SECOND, STORE);
    world.there(4);
    assert_eq!(world.asked(), ["from 0", "from 4"]);
    world.there(SIZE);
    assert_eq!(world.asked(), ["from 4"]);
    world.there(SIZE);
    assert_eq!(world.asked(), ["send files with 2"]);
    let Some(Call::Send { message, .. }) = world.calls.first() else { unreachable!() };
    assert_eq!(message.attachments, [id(FIRST), id(SECOND)]);
    let progress = world.progress();
    assert!(progress.contains(&(UploadPhase::Sending, 4)), "{progress:?}");
    assert!(progress.contains(&(UploadPhase::Done(id(SECOND)), SIZE)), "{progress:?}");
}

#[test]
fn what_broke_off_goes_on_from_where_it_was_and_only_progress_counts() {
    let mut world = World::live();
    world.send("one", 1);
    world.announce(FIRST, REPLICA);
    for bytes in 1..SIZE {
        world.answer(Err(away()));
        assert!(world.asked().is_empty(), "a pause");
        world.pass(Duration::from_secs(30));
        assert_eq!(world.asked(), ["ask"]);
        world.there(bytes);
        assert_eq!(world.asked(), [format!("from {bytes}")]);
    }
    assert!(world.not_sent().is_empty(), "a line that breaks again and again gets there");
    for _ in 1..8 {
        world.answer(Err(away()));
        world.pass(Duration::from_secs(30));
        assert_eq!(world.asked(), ["ask"]);
    }
    world.answer(Err(away()));
    assert_eq!(world.not_sent(), [("one".to_owned(), "network".to_owned())]);
    world.machine.send_again(chat_id(), "one");
    world.settle();
    assert_eq!(world.asked(), ["ask"]);
    world.there(SIZE);
    assert_eq!(world.asked(), ["send one with 1"]);
}

#[test]
fn an_object_store_which_does_not_tell_how_far_it_is_gets_the_whole_again() {
    let mut world = World::live();
    world.send("one", 1);
    world.announce(FIRST, STORE);
    world.answer(Err(away()));
    world.pass(Duration::from_secs(30));
    assert_eq!(world.asked(), ["from 0"]);
    world.lose_connection();
    assert_eq!((world.asked().len(), world.aborted.len()), (1, 0), "its line is another one");
}

#[test]
fn without_a_connection_an_upload_waits_for_one_however_long_that_takes() {
    let mut world = World::live();
    world.send("one", 1);
    world.announce(FIRST, REPLICA);
    world.there(4);
    world.lose_connection();
    assert_eq!((world.asked().len(), world.aborted.len()), (0, 1), "its replica may be frozen");
    world.send("two", 1);
    for _ in 0..20 {
        for _ in 0..world.calls.len() {
            world.answer(Err(away()));
        }
        world.pass(Duration::from_secs(60));
    }
    assert!(world.not_sent().is_empty());
    world.calls.clear();
    world.machine.wake();
    world.hello();
    assert!(world.not_sent().is_empty());
}

#[test]
fn a_late_answer_of_an_attempt_that_was_given_up_is_not_taken() {
    let mut world = World::live();
    world.send("one", 1);
    world.announce(FIRST, REPLICA);
    let Some(Call::Upload { upload, attempt, .. }) = world.calls.pop() else { unreachable!() };
    world.lose_connection();
    world.hello();
    assert_eq!(world.asked(), ["ask"]);
    let outcome = Ok(Brought::There(SIZE));
    world.machine.on_answer(world.now, Answer::Upload { upload, attempt, outcome });
    world.settle();
    assert_eq!(world.asked(), ["ask"]);
}

#[test]
fn a_link_that_is_over_is_asked_for_anew_once() {
    let mut world = World::live();
    world.send("one", 1);
    world.announce(FIRST, REPLICA);
    world.answer(Err(refused(404, "attachment_not_found")));
    assert_eq!(world.asked(), ["announce"]);
    world.announce(SECOND, REPLICA);
    world.there(SIZE);
    assert_eq!(world.asked(), ["send one with 1"]);
    world.send("two", 1);
    world.announce(FIRST, STORE);
    world.answer(Err(refused(403, "")));
    world.announce(SECOND, STORE);
    world.answer(Err(refused(403, "")));
    assert_eq!(world.not_sent(), [("two".to_owned(), String::new())]);
}

#[test]
fn a_refused_file_fails_its_message_and_holds_up_nothing() {
    let mut world = World::live();
    world.send("refused", 2);
    world.send("later", 1);
    world.answer(Err(refused(413, "payload_too_large")));
    assert_eq!(world.not_sent(), [("refused".to_owned(), "payload_too_large".to_owned())]);
    // The other file of that message ends with its step.
    assert_eq!(world.asked(), ["announce", "announce"]);
    world.announce(FIRST, REPLICA);
    assert_eq!(world.asked(), ["announce"]);
    world.announce(SECOND, REPLICA);
    world.there(SIZE);
    assert_eq!(world.asked(), ["send later with 1"]);
    world.machine.send_again(chat_id(), "refused");
    world.settle();
    assert_eq!(world.asked(), ["send later with 1", "announce", "ask"]);
}

#[test]
fn files_that_the_service_has_let_go_of_are_uploaded_anew_where_their_message_is_sent_again() {
    let mut world = World::live();
    world.send("one", 1);
    world.announce(FIRST, REPLICA);
    world.there(SIZE);
    let Some(Call::Send { asked, .. }) = world.calls.pop() else { unreachable!() };
    let (client_msg_id, outcome) = ("one".to_owned(), Err(refused(404, "attachment_not_found")));
    let answer = Answer::Send { asked, chat_id: chat_id(), client_msg_id, outcome };
    world.machine.on_answer(world.now, answer);
    world.settle();
    assert_eq!(world.not_sent().len(), 1);
    world.machine.send_again(chat_id(), "one");
    world.settle();
    assert_eq!(world.asked(), ["announce"]);
}

#[test]
fn what_is_discarded_is_not_sent_any_more_and_gives_way() {
    let mut world = World::live();
    world.send("unwanted", 3);
    world.send("later", 0);
    world.announce(FIRST, REPLICA);
    world.there(4);
    world.machine.discard(chat_id(), "unwanted");
    world.settle();
    assert_eq!(world.asked(), ["send later with 0"]);
    assert_eq!(world.aborted.len(), 2, "two are under way at a time");
    let aborted = world.progress().into_iter().filter(|(phase, _)| *phase == UploadPhase::Aborted);
    assert_eq!(aborted.count(), 3);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.asked(), ["send later with 0"]);
}

#[test]
fn a_stop_holds_uploads_up_and_a_start_lets_them_go_on() {
    let mut world = World::live();
    world.send("one", 1);
    world.announce(FIRST, REPLICA);
    world.there(4);
    world.machine.stop();
    world.settle();
    assert_eq!((world.asked().len(), world.aborted.len()), (0, 1));
    world.machine.start();
    world.hello();
    assert_eq!(world.asked(), ["ask"]);
}

#[test]
fn a_chat_that_is_gone_takes_its_uploads_along() {
    let mut world = World::live();
    world.send("one", 1);
    let gone = json!({
        "type": "chat.deleted", "chat_id": CHAT, "reason": "removed", "total_unread": 0, "epoch": "e1",
    });
    let gone = ReceivedFrame::decode(&gone.to_string()).expect("a frame");
    world.machine.on_frame(world.now, gone);
    world.settle();
    assert_eq!((world.asked().len(), world.aborted.len()), (0, 1));
}
