//! What a socket of many is given.

use super::*;

fn subscriber(ev: u64) -> Subscriber {
    let now = Instant::now();
    let shared = FanoutState {
        began: now,
        delivered: Count::default(),
        synced: Count::default(),
        cut: watch::Sender::new(now),
        changes: AtomicBool::new(false),
        counters: Arc::new(Counters::new(indicatif::ProgressBar::hidden())),
    };
    let person = Person { user: String::new(), token: String::new(), urls: Vec::new() };
    let (chat, chat_id, ev) = (0, ChatId::nil(), AtomicU64::new(ev));
    Subscriber { chat, chat_id, person, ev, shared: Arc::new(shared) }
}

#[test]
fn a_socket_sees_what_is_missing_what_comes_twice_and_what_nobody_sent() {
    let subscriber = subscriber(10);
    let hear = |ev, text: &'static str| {
        let content = Content { seq: ev, client_msg_id: None, text: text.into() };
        let (kind, message) = ("message.created".into(), Some(content));
        subscriber.on_message(&Frame { kind, ev, epoch: None, message });
        subscriber.shared.counters.violations()
    };
    assert_eq!([hear(11, "5 x"), hear(12, "6 x")], [0, 0]);
    assert_eq!(hear(12, "6 x"), 1, "twice");
    assert_eq!(hear(14, "7 x"), 2, "one is missing");
    assert_eq!(hear(15, "hello"), 3, "not of this run");
    let kinds: Vec<String> = subscriber.shared.counters.counts().violations.into_keys().collect();
    assert_eq!(kinds, ["doubled", "out_of_order", "unexpected"]);
    assert_eq!((subscriber.position(), subscriber.shared.delivered.get()), (15, 4));
}
