//! The socket of a chat's other member, which expects every message.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use beseda_protocol::model::ChatId;
use tokio::sync::{Notify, oneshot};

use crate::{
    clients::{
        chats::Person,
        socket::{Frame, Position, Socket, read},
    },
    report::{
        counters::{Counters, add},
        delivery_log::{DeliveryLog, Violation},
    },
};

/// Pause before a reconnect, as in a resuming client.
const RECONNECT: Duration = Duration::from_millis(500);

pub(crate) struct Listener {
    pub chat: u32,
    pub chat_id: ChatId,
    /// The socket's user; after a failure it is opened on their next replica.
    pub reader: Person,
    pub log: Arc<DeliveryLog>,
    pub counters: Arc<Counters>,
    /// Cuts the socket without a close frame when notified.
    pub cut: Arc<Notify>,
}

impl Listener {
    /// Listens for ever and resumes after each end; reports once when the first socket is in step.
    pub(crate) async fn run(self, ready: oneshot::Sender<()>) {
        let mut ready = Some(ready);
        let mut epoch = None;
        for url in self.reader.urls.iter().cycle() {
            let from = Position { ev: self.log.position(), epoch: epoch.clone() };
            match Socket::open(url, self.chat_id, &self.reader.token, &from).await {
                Ok(mut socket) => {
                    tokio::select! {
                        end = self.listen(&mut socket, &mut epoch, &mut ready) => {
                            add(&self.counters.reconnects);
                            self.note(&format!("ended: {end}"));
                        }
                        () = self.cut.notified() => {}
                    }
                }
                Err(error) => {
                    add(&self.counters.reconnects);
                    self.note(&format!("did not open: {error}"));
                }
            }
            tokio::time::sleep(RECONNECT).await;
        }
    }

    fn note(&self, what: &str) {
        self.counters.note(&format!("the socket of chat {} {what}", self.chat));
    }

    /// Reads to the socket's end, and returns its reason.
    async fn listen(
        &self,
        socket: &mut Socket,
        epoch: &mut Option<String>,
        ready: &mut Option<oneshot::Sender<()>>,
    ) -> String {
        loop {
            let text = match socket.next().await {
                Ok(text) => text,
                Err(end) => return end.to_string(),
            };
            match read(&text) {
                Ok(frame) => self.on_frame(frame, epoch, ready),
                Err(what) => self.unexpected(what),
            }
        }
    }

    fn on_frame(
        &self,
        frame: Frame<'_>,
        epoch: &mut Option<String>,
        ready: &mut Option<oneshot::Sender<()>>,
    ) {
        match (&*frame.kind, frame.message) {
            ("message.created", Some(message)) => {
                let id = message.client_msg_id.as_deref().unwrap_or_default();
                let arrived = self.log.arrived(id, message.seq, frame.ev, Instant::now());
                match arrived {
                    Ok(took) => self.counters.arrived.record(took),
                    Err(violation) => self.counters.violation(&violation),
                }
            }
            ("subscribed", _) => *epoch = frame.epoch.map(std::borrow::Cow::into_owned),
            ("synced", _) => {
                if let Some(ready) = ready.take() {
                    // The receiver is gone: the run is over.
                    let _ = ready.send(());
                }
            }
            ("catchup", _) => add(&self.counters.catchups),
            ("message.updated" | "message.deleted" | "chat.read" | "reset" | "chat.deleted", _) => {
                self.unexpected(format!("a frame {} came", frame.kind));
            }
            _ => {}
        }
    }

    fn unexpected(&self, what: String) {
        self.counters.violation(&Violation::Unexpected { chat: self.chat, what });
    }
}
