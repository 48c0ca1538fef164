//! A [`Machine`] over a network.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use beseda_protocol::{ReceivedFrame, model::ChatId};
use tokio::{
    sync::{Notify, mpsc},
    task::{AbortHandle, JoinSet},
    time::sleep_until,
};
use url::Url;

use crate::{
    Closed, Connection, Credentials, Error, Rest, TokenReason, WireError, WireOptions,
    machine::{Answer, Call, Effect, Event, Machine, Position, State},
};

/// What a client and its driver have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    machine: Mutex<Machine>,
    /// Told: the machine wants something done.
    wake: Notify,
}

impl Shared {
    pub(crate) fn new(machine: Machine) -> Arc<Self> {
        Arc::new(Self { machine: Mutex::new(machine), wake: Notify::new() })
    }

    /// Has the machine do something, and what it wants done.
    pub(crate) fn act<T>(&self, act: impl FnOnce(&mut Machine) -> T) -> T {
        let outcome = act(&mut self.machine());
        self.wake.notify_one();
        outcome
    }

    pub(crate) fn machine(&self) -> MutexGuard<'_, Machine> {
        // A panic in between leaves a state that the next page or frame puts right.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a socket: the number of the attempt, and what came of it.
type Opening = tokio::task::JoinHandle<(u64, Result<Connection, Error>)>;

/// Does what a machine wants, and tells it what came of that.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    rest: Rest,
    options: WireOptions,
    events: mpsc::Sender<Event>,
    socket: Option<Connection>,
    opening: Option<Opening>,
    calls: JoinSet<Answer>,
    /// The latest calls of uploads, to give them up.
    uploads: HashMap<u64, AbortHandle>,
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        rest: Rest,
        tls: rustls::ClientConfig,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let options = WireOptions { tls: Some(Arc::new(tls)), ..WireOptions::default() };
        let (calls, uploads) = (JoinSet::new(), HashMap::new());
        Self { shared, rest, options, events, socket: None, opening: None, calls, uploads }
    }

    /// Until it is aborted.
    pub(crate) async fn run(mut self) {
        loop {
            loop {
                let effect = self.shared.machine().next_effect();
                let Some(effect) = effect else { break };
                self.perform(effect).await;
            }
            let deadline = self.shared.machine().deadline();
            tokio::select! {
                () = self.shared.wake.notified() => {}
                Some(answer) = self.calls.join_next(), if !self.calls.is_empty() => {
                    if let Ok(answer) = answer {
                        if let Answer::Upload { upload, .. } = &answer {
                            self.uploads.remove(upload);
                        }
                        self.shared.machine().on_answer(Instant::now(), answer);
                    }
                }
                opened = async { self.opening.as_mut()?.await.ok() }, if self.opening.is_some() => {
                    self.opening = None;
                    match opened {
                        Some((_, Ok(connection))) => self.socket = Some(connection),
                        Some((attempt, Err(error))) => {
                            self.shared.machine().on_refused(Instant::now(), attempt, &error);
                        }
                        None => {}
                    }
                }
                came = next_text(&mut self.socket), if self.socket.is_some() => match came {
                    Ok(text) => self.on_text(&text),
                    Err(closed) => {
                        self.socket = None;
                        self.shared.machine().on_closed(Instant::now(), &closed);
                    }
                },
                () = sleep_until(deadline.unwrap_or_else(Instant::now).into()), if deadline.is_some() => {
                    self.shared.machine().on_time(Instant::now());
                }
            }
        }
    }

    fn on_text(&mut self, text: &str) {
        // What can't be read is of another version, and nothing that is needed here.
        let frame = ReceivedFrame::decode(text).unwrap_or(ReceivedFrame::Unknown);
        if let (ReceivedFrame::Hello { heartbeat_ms, .. }, Some(socket)) =
            (&frame, &mut self.socket)
        {
            socket.set_heartbeat(Duration::from_millis(*heartbeat_ms));
        }
        self.shared.machine().on_frame(Instant::now(), frame);
    }

    async fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Emit(event) => {
                if let Event::State(State::Waiting { .. }) = &*event {
                    // Perhaps another replica is there.
                    self.rest.turn();
                }
                // Whoever wants no events still wants to be connected.
                let _ = self.events.send(*event).await;
            }
            Effect::Connect { attempt, renew, only, position } => {
                let (rest, options) = (self.rest.clone(), self.options.clone());
                self.opening = Some(tokio::spawn(async move {
                    (attempt, open(&rest, &options, renew, only, position).await)
                }));
            }
            Effect::Disconnect => {
                if let Some(opening) = self.opening.take() {
                    opening.abort();
                }
                if let Some(socket) = self.socket.take() {
                    socket.close().await;
                }
            }
            Effect::Transmit(text) => {
                if let Some(socket) = &mut self.socket {
                    socket.send(text).await;
                }
            }
            Effect::Call(call) => {
                let rest = self.rest.clone();
                let upload =
                    if let Call::Upload { upload, .. } = &call { Some(*upload) } else { None };
                let handle = self.calls.spawn(async move { answer(&rest, call).await });
                self.uploads.extend(upload.map(|upload| (upload, handle)));
            }
            Effect::Abort(upload) => {
                if let Some(call) = self.uploads.remove(&upload) {
                    call.abort();
                }
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(opening) = self.opening.take() {
            opening.abort();
        }
    }
}

async fn next_text(socket: &mut Option<Connection>) -> Result<crate::Utf8Bytes, Closed> {
    match socket {
        Some(socket) => socket.next_text().await,
        None => std::future::pending().await,
    }
}

async fn open(
    rest: &Rest,
    options: &WireOptions,
    renew: bool,
    only: Option<ChatId>,
    position: Option<Position>,
) -> Result<Connection, Error> {
    if renew {
        let old = rest.credentials().current().await?;
        // Where there is no other one, the ticket will say so.
        rest.credentials().renew(Some(&old), TokenReason::Refused).await?;
    }
    let ws_url = match only {
        Some(chat_id) => rest.connect_chat(chat_id).await?.ws_url,
        None => rest.connect().await?.ws_url,
    };
    let mut url: Url = ws_url.parse().map_err(Error::network)?;
    if let Some(Position { ev, epoch }) = position {
        url.query_pairs_mut().append_pair("after_ev", &ev.to_string()).append_pair("epoch", &epoch);
    }
    Connection::open(url.as_str(), options).await.map_err(|error| match error {
        // In the server's own words, where it was the server that refused.
        WireError::Refused(response) => {
            let body = response.body().as_deref().unwrap_or_default();
            Error::answered(response.status().as_u16(), body)
        }
        error => Error::network(error),
    })
}

async fn answer(rest: &Rest, call: Call) -> Answer {
    match call {
        Call::List { asked, limit } => Answer::List { asked, outcome: list(rest, limit).await },
        Call::History { chat_id, load, window, limit } => {
            let outcome = rest.history(&chat_id.to_string(), window, limit).await;
            Answer::History { chat_id, load, window, outcome }
        }
        Call::Send { asked, chat_id, message } => {
            let outcome = rest.send_message(&chat_id.to_string(), &message).await.map(Box::new);
            let client_msg_id = message.client_msg_id.unwrap_or_default();
            Answer::Send { asked, chat_id, client_msg_id, outcome }
        }
        Call::Mark { asked, chat_id, up_to_seq } => {
            let outcome = rest.mark_read(&chat_id.to_string(), Some(up_to_seq)).await;
            Answer::Mark { asked, chat_id, outcome }
        }
        Call::Upload { chat_id, upload, attempt, step } => {
            let outcome = rest.bring(&chat_id.to_string(), step).await;
            Answer::Upload { upload, attempt, outcome }
        }
        Call::Renew => Answer::Renew(renewed(rest.credentials()).await),
    }
}

async fn list(rest: &Rest, limit: u8) -> Result<(beseda_protocol::rest::ChatPage, i64), Error> {
    let page = rest.list_chats(Some(limit), None).await?;
    // Archived chats count too, and no page of the list has them.
    let total = rest.unread().await?.total;
    Ok((page, total))
}

async fn renewed(credentials: &Credentials) -> Result<Option<String>, Error> {
    let old = credentials.current().await?;
    let is_new = credentials.renew(Some(&old), TokenReason::Expiring).await?;
    Ok(match is_new {
        true => Some(credentials.current().await?.to_string()),
        false => None,
    })
}
