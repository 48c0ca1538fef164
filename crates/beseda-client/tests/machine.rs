//! What the test vectors don't reach: a socket of one chat, tokens that live shortly, marks.

use std::time::{Duration, Instant};

use beseda_client::{
    Closed, Error, Event, State, Window,
    machine::{Answer, Call, Effect, Machine, Position, Settings},
    protocol::{ReceivedFrame, frame::GoneReason, model::ChatId, rest::HistoryView},
};
use serde_json::{Value, json};

const CHAT: &str = "01a20a32-f544-7269-a867-60a8e5b5a762";

fn chat_id() -> ChatId {
    CHAT.parse().expect("an id")
}

fn machine(only: Option<ChatId>) -> Machine {
    let settings = Settings { only, page: None, attempts: 4, can_renew: true, random: || 1.0 };
    let mut machine = Machine::new(settings);
    machine.start();
    machine
}

/// All that is to be done, but for what is only told.
fn effects(machine: &mut Machine) -> Vec<Effect> {
    let mut effects: Vec<Effect> = std::iter::from_fn(|| machine.next_effect()).collect();
    effects.retain(|effect| !matches!(effect, Effect::Emit(_) | Effect::Disconnect));
    effects
}

fn frame(machine: &mut Machine, now: Instant, frame: Value) {
    let frame = ReceivedFrame::decode(&frame.to_string()).expect("a frame");
    machine.on_frame(now, frame);
}

fn hello() -> Value {
    json!({
        "type": "hello", "connection_id": CHAT, "user_id": "alice", "heartbeat_ms": 25_000,
        "token_expires_at": "2026-11-24T20:57:00.000000Z", "epoch": "e1",
    })
}

fn page(head: i64) -> HistoryView {
    HistoryView {
        results: Vec::new(),
        has_more_before: false,
        has_more_after: false,
        before: None,
        after: None,
        head_seq: head,
        head_ev: head,
        epoch: "e1".to_owned(),
        read_seq: 0,
        peer_read_seq: Some(0),
    }
}

/// Why the chat is gone, as often as it was told.
fn reasons(machine: &mut Machine) -> Vec<Option<GoneReason>> {
    let reason = |effect| match effect {
        Effect::Emit(event) => match *event {
            Event::Gone { reason, .. } => Some(reason),
            _ => None,
        },
        _ => None,
    };
    std::iter::from_fn(|| machine.next_effect()).filter_map(reason).collect()
}

fn away() -> Error {
    Error::network(std::io::Error::other("away"))
}

/// Opens the history that was asked for.
fn answer_history(machine: &mut Machine, now: Instant, outcome: Result<HistoryView, Error>) {
    let asked = effects(machine).into_iter().find_map(|effect| match effect {
        Effect::Call(Call::History { chat_id, load, window: Window::Newest, .. }) => {
            Some((chat_id, load))
        }
        _ => None,
    });
    let (chat_id, load) = asked.expect("the history is asked for");
    let answer = Answer::History { chat_id, load, window: Window::Newest, outcome };
    machine.on_answer(now, answer);
}

/// Where the socket that is asked for begins.
fn connects_from(machine: &mut Machine) -> Option<Position> {
    let asked = effects(machine).into_iter().find_map(|effect| match effect {
        Effect::Connect { only, position, .. } => Some((only, position)),
        _ => None,
    });
    let (only, position) = asked.expect("a socket is asked for");
    assert_eq!(only, Some(chat_id()));
    position
}

#[test]
fn a_socket_of_one_chat_begins_where_its_history_ends_however_late_that_comes() {
    let (mut machine, now) = (machine(Some(chat_id())), Instant::now());
    answer_history(&mut machine, now, Err(away()));
    assert!(matches!(machine.state(), State::Waiting { .. }));
    let later = machine.deadline().expect("another try");
    machine.on_time(later);
    answer_history(&mut machine, later, Ok(page(7)));
    let begin = |ev| Some(Position { ev, epoch: "e1".to_owned() });
    assert_eq!(connects_from(&mut machine), begin(7));
    frame(&mut machine, later, hello());
    let subscribed = json!({
        "type": "subscribed", "chat_id": CHAT, "head_ev": 7, "head_seq": 7, "epoch": "e1",
        "read_seq": 0, "peer_read_seq": 0, "receipts": [], "online": [], "online_count": null,
    });
    frame(&mut machine, later, subscribed);
    let read = |ev| json!({ "type": "chat.read", "chat_id": CHAT, "ev": ev, "user_id": "bob", "read_seq": 1 });
    frame(&mut machine, later, json!({ "type": "synced", "chat_id": CHAT, "ev": 7 }));
    frame(&mut machine, later, read(8));
    assert!(effects(&mut machine).is_empty());
    // There is no subscription to be repeated: the socket is opened again.
    frame(&mut machine, later, read(10));
    assert_eq!(connects_from(&mut machine), begin(8));
    frame(&mut machine, later, hello());
    machine.on_closed(later, &Closed { code: 4004, reason: "gone".to_owned() });
    assert!(matches!(machine.state(), State::Stopped { code: 4004, .. }));
    assert_eq!(reasons(&mut machine), [None]);
}

#[test]
fn the_end_of_the_one_chat_comes_with_its_close_and_the_last_reason() {
    let (mut machine, now) = (machine(Some(chat_id())), Instant::now());
    answer_history(&mut machine, now, Ok(page(7)));
    let deleted = json!({
        "type": "chat.deleted", "chat_id": CHAT, "reason": "removed", "epoch": "e1",
    });
    // The close is lost: whoever is a member again by then goes on where they were.
    let lose_close = |machine: &mut Machine| {
        frame(machine, now, hello());
        frame(machine, now, deleted.clone());
        assert_eq!(reasons(machine), []);
        machine.on_closed(now, &Closed { code: 1006, reason: String::new() });
        machine.on_time(now + Duration::from_secs(60));
        std::iter::from_fn(|| machine.next_effect()).find_map(|effect| match effect {
            Effect::Connect { attempt, position, .. } => Some((attempt, position)),
            _ => None,
        })
    };
    let (_, position) = lose_close(&mut machine).expect("another try");
    assert_eq!(position, Some(Position { ev: 7, epoch: "e1".to_owned() }));
    let (attempt, _) = lose_close(&mut machine).expect("another try");
    let refused = json!({
        "type": "t", "title": "t", "status": 404, "detail": "d", "code": "chat_not_found",
        "request_id": "r",
    });
    machine.on_refused(now, attempt, &Error::answered(404, refused.to_string().as_bytes()));
    assert!(matches!(machine.state(), State::Stopped { code: 4004, .. }));
    assert_eq!(reasons(&mut machine), [Some(GoneReason::Removed)]);
}

#[test]
fn tokens_shorter_than_the_warning_before_their_end_are_not_renewed_without_end() {
    let (mut machine, mut now) = (machine(None), Instant::now());
    frame(&mut machine, now, hello());
    effects(&mut machine);
    let mut renewals = 0;
    // As a server says it to a token that has ended, and after each `auth`.
    let expiring = json!({ "type": "token.expiring", "expires_in": 0 });
    frame(&mut machine, now, expiring.clone());
    for _ in 0..100 {
        now += Duration::from_millis(300);
        machine.on_time(now);
        for effect in effects(&mut machine) {
            if matches!(effect, Effect::Call(Call::Renew)) {
                renewals += 1;
                machine.on_answer(now, Answer::Renew(Ok(Some(format!("token {renewals}")))));
                frame(&mut machine, now, expiring.clone());
            }
        }
    }
    assert!((20..=30).contains(&renewals), "{renewals} in 30 s");
}

#[test]
fn a_mark_that_failed_is_repeated_after_a_pause_and_not_before() {
    let (mut machine, now) = (machine(None), Instant::now());
    machine.open(chat_id());
    answer_history(&mut machine, now, Ok(page(7)));
    effects(&mut machine);
    let marks = |machine: &mut Machine| {
        let marks =
            |effect: &Effect| matches!(effect, Effect::Call(Call::Mark { up_to_seq: 5, .. }));
        effects(machine).into_iter().filter(|effect| marks(effect)).count()
    };
    machine.mark_read(chat_id(), 5);
    machine.mark_read(chat_id(), 4);
    assert_eq!(marks(&mut machine), 1, "one at a time, and never back");
    machine.on_answer(now, Answer::Mark { asked: 0, chat_id: chat_id(), outcome: Err(away()) });
    machine.mark_read(chat_id(), 5);
    assert_eq!(marks(&mut machine), 0);
    machine.on_time(now + Duration::from_secs(60));
    assert_eq!(marks(&mut machine), 1);
}
