//! A socket on a chat, which checks that it misses nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use beseda_protocol::model::ChatId;

use super::FanoutState;
use crate::{
    clients::{
        chats::Person,
        socket::{Frame, Position, Socket, read},
    },
    report::{counters::add, delivery_log::Violation},
};

/// Shortest and longest pause before a socket reconnects: random, as in clients, so that they do not
/// all reconnect at once.
const RETRY_MS: std::ops::Range<u64> = 100..1_000;

/// One socket and its position.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) chat: u32,
    pub(super) chat_id: ChatId,
    pub(super) person: Person,
    /// The last `ev` received.
    pub(super) ev: AtomicU64,
    pub(super) shared: Arc<FanoutState>,
}

impl Subscriber {
    pub(super) fn position(&self) -> i64 {
        self.ev.load(Ordering::Relaxed).cast_signed()
    }

    /// Listens for ever; resumes after each end.
    pub(super) async fn run(self: Arc<Self>) {
        let mut cut = self.shared.cut.subscribe();
        let mut asked = Instant::now();
        let mut in_step = None;
        let mut epoch = None;
        for url in self.person.urls.iter().cycle() {
            let from = Position { ev: self.position(), epoch: epoch.clone() };
            let opened = Socket::open(url, self.chat_id, &self.person.token, &from);
            let end = match opened.await {
                Ok(mut socket) => tokio::select! {
                    end = self.listen(&mut socket, asked, &mut in_step, &mut epoch) => end,
                    _ = cut.changed() => {
                        asked = *cut.borrow_and_update();
                        continue;
                    }
                },
                Err(error) => format!("not open: {error}"),
            };
            add(&self.shared.counters.reconnects);
            self.shared.counters.note(&format!("a socket of chat {} ended: {end}", self.chat));
            let pause = Duration::from_millis(rand::random_range(RETRY_MS));
            tokio::time::sleep(pause).await;
        }
    }

    /// Reads to the socket's end, and returns its reason. The subscriber counts as in step once per request,
    /// however often its socket breaks in between.
    async fn listen(
        &self,
        socket: &mut Socket,
        asked: Instant,
        in_step: &mut Option<Instant>,
        epoch: &mut Option<String>,
    ) -> String {
        loop {
            let text = match socket.next().await {
                Ok(text) => text,
                Err(end) => return end.to_string(),
            };
            let frame = match read(&text) {
                Ok(frame) => frame,
                Err(what) => {
                    self.unexpected(what);
                    continue;
                }
            };
            match &*frame.kind {
                "message.created" => self.on_message(&frame),
                "subscribed" => *epoch = frame.epoch.map(std::borrow::Cow::into_owned),
                "synced" if *in_step != Some(asked) => {
                    *in_step = Some(asked);
                    self.shared.counters.synced.record(asked.elapsed());
                    self.shared.synced.add();
                }
                "catchup" => add(&self.shared.counters.catchups),
                "message.updated" | "message.deleted" | "chat.read" | "reset" | "chat.deleted" => {
                    self.unexpected(format!("a frame {} came", frame.kind));
                }
                _ => {}
            }
        }
    }

    fn on_message(&self, frame: &Frame<'_>) {
        let shared = &self.shared;
        let Some(message) = &frame.message else {
            return self.unexpected("a message.created without a message came".to_owned());
        };
        let (chat, after_ev) = (self.chat, self.position());
        if frame.ev != after_ev + 1 {
            let (seq, ev) = (message.seq, frame.ev);
            let id = message.client_msg_id.as_deref().unwrap_or_default().to_owned();
            // Only messages are sent, so `seq` and `ev` increase together.
            let after_seq = message.seq - (frame.ev - after_ev);
            if ev <= after_ev {
                return shared.counters.violation(&Violation::Doubled { chat, id, seq, ev });
            }
            shared.counters.violation(&Violation::OutOfOrder {
                chat,
                after_seq,
                after_ev,
                seq,
                ev,
            });
        }
        self.ev.store(frame.ev.unsigned_abs(), Ordering::Relaxed);
        let micros = message.text.split(' ').next().and_then(|micros| micros.parse().ok());
        match micros {
            Some(micros) => {
                let due = shared.began + Duration::from_micros(micros);
                shared.counters.arrived.record(due.elapsed());
            }
            None => self.unexpected(format!("{:?} is nothing that was sent", message.text)),
        }
        shared.delivered.add();
    }

    fn unexpected(&self, what: String) {
        self.shared.counters.violation(&Violation::Unexpected { chat: self.chat, what });
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::{
        clients::{fanout_clients::count::Count, socket::Content},
        report::counters::Counters,
    };

    fn subscriber(ev: u64) -> Subscriber {
        let now = Instant::now();
        let shared = FanoutState {
            began: now,
            delivered: Count::default(),
            synced: Count::default(),
            cut: watch::Sender::new(now),
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
        let kinds: Vec<String> =
            subscriber.shared.counters.counts().violations.into_keys().collect();
        assert_eq!(kinds, ["doubled", "out_of_order", "unexpected"]);
        assert_eq!((subscriber.position(), subscriber.shared.delivered.get()), (15, 4));
    }
}
