//! The loop of one socket: deliveries, the client's frames, the heartbeat, the token's expiry, the
//! drain.

use std::{collections::BTreeSet, net::IpAddr, pin::pin, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{self, error::ProtocolError};
use tracing::Instrument;
use uuid::Uuid;

use super::{
    closing::{CLOSE_WAIT, close, closing, drain_window},
    command::Request,
    inbox::InboxChats,
    presence_recheck::PresenceRecheck,
    session::{Effect, Session},
    token_expiry::TokenExpiry,
    waiting::{Event, Waiting},
    wire::{Wire, WsMessage},
};
use crate::{
    context::{AdmissionPermit, Context},
    hub::{Attached, Delivery, Inbox, Queue, Subscription, queue},
    limits::{Permit, SocketLimits},
    model::{ChatId, Position, Time, UserId},
    presence::PresenceGuard,
    protocol::{AckResult, Close, CommandId, Frame, ServerFrame},
    trace,
};

/// How long a socket may be behind, or a write may take, before it is closed: long enough for a
/// phone in a tunnel, short enough not to hold its memory for the day.
pub(super) const BEHIND_LIMIT: Duration = Duration::from_secs(30);

/// The user of a socket, and the times of the token.
pub(super) struct Bearer {
    pub user_id: UserId,
    /// Seconds since 1970.
    pub token_expires_at: i64,
    /// `None`: the token has no `iat`.
    pub token_issued_at: Option<Time>,
    /// Set where the first frame authenticated: it gets its `ack` after `hello`.
    pub auth: Option<FirstFrame>,
}

/// An `auth` that was a socket's first frame.
pub(super) struct FirstFrame {
    pub id: Option<CommandId>,
}

pub(super) struct Connection {
    pub(super) context: Context,
    pub(super) wire: Wire,
    pub(super) session: Session,
    pub(super) queue: Queue,
    pub(super) inbox: Inbox,
    /// Unordered.
    pub(super) subscriptions: Vec<Subscription>,
    /// `None` on the socket of one chat.
    pub(super) chats: Option<Box<InboxChats>>,
    /// Frames to be sent with the next flush.
    pub(super) out: Vec<Frame>,
    /// `None`: limits are off.
    pub(super) limits: Option<SocketLimits>,
    pub(super) token_expiry: TokenExpiry,
    /// Chats whose changes could not be read; they are read again at `retry_at`.
    pub(super) missing: BTreeSet<ChatId>,
    pub(super) retry_at: Option<Instant>,
    pub(super) presence_recheck: PresenceRecheck,
    /// Commit time of the oldest event in `out`, in microseconds since 1970.
    pub(super) committed_at: Option<i64>,
    pub(super) behind_since: Option<Instant>,
    last_heard: Instant,
    attached: Attached,
    present: PresenceGuard,
    _open: OpenGauge,
    /// Held until the socket ends.
    _permit: Option<Permit<IpAddr>>,
}

/// Counts this socket as open until dropped, so that a panic is counted too.
struct OpenGauge(Context);

impl Drop for OpenGauge {
    fn drop(&mut self) {
        self.0.metrics.sockets_open.dec();
    }
}

/// The reason why a socket ends.
pub(super) enum End {
    /// The server closes it.
    Close(Close),
    /// The client or the network ended it.
    Left,
}

pub(super) type Flow = Result<(), End>;

impl Connection {
    pub(super) async fn open(
        context: Context,
        wire: Wire,
        permit: Option<Permit<IpAddr>>,
        bearer: Bearer,
        single: Option<ChatId>,
    ) -> Box<Self> {
        let (queue, inbox) = queue();
        context.metrics.sockets_open.inc();
        let open = OpenGauge(context.clone());
        let Bearer { token_issued_at, token_expires_at, .. } = bearer;
        let leeway = context.verifier.leeway();
        let token_expiry = TokenExpiry::new(token_issued_at, token_expires_at, leeway);
        let attached = context.feed.attach(&bearer.user_id, &queue, single.is_none()).await;
        let present = context.chats.presence().enter(&bearer.user_id);
        Box::new(Self {
            session: Session::new(bearer.user_id, token_issued_at, single),
            chats: None,
            wire,
            queue,
            inbox,
            subscriptions: Vec::with_capacity(usize::from(single.is_some())),
            out: Vec::new(),
            limits: context.limits.socket(),
            token_expiry,
            missing: BTreeSet::new(),
            retry_at: None,
            presence_recheck: PresenceRecheck::default(),
            committed_at: None,
            behind_since: None,
            last_heard: Instant::now(),
            attached,
            present,
            _open: open,
            _permit: permit,
            context,
        })
    }

    /// Runs an open socket to its end.
    pub(super) async fn run(self: Box<Self>) {
        if let Some((connection, end)) = self.serve().await {
            Box::pin(connection.end(end)).await;
        }
    }

    pub(super) async fn end(self: Box<Self>, end: End) {
        let context = self.context.clone();
        // The user is offline from now on, however long the close takes.
        let Self { mut wire, out, subscriptions, chats, attached, present, .. } = *self;
        drop((subscriptions, chats, attached, present));
        let code = match end {
            End::Close(reason) => {
                close(&mut wire, out, reason).await;
                reason.code()
            }
            // If the client sent a close frame, the library has the reply ready and sends it with
            // the next read.
            End::Left => {
                drop(tokio::time::timeout(CLOSE_WAIT, wire.recv()).await);
                1000
            }
        };
        context.metrics.count_close(code);
    }

    /// Sends `hello` and the initial state.
    pub(super) async fn start(
        &mut self,
        single: Option<ChatId>,
        auth: Option<FirstFrame>,
        after: Option<Position>,
        admission: AdmissionPermit,
    ) -> Flow {
        let mut subscribed = None;
        let epoch = match single {
            Some(chat_id) => {
                let changes = self.begin_subscription(chat_id, after.as_ref()).await;
                let changes = changes.map_err(|error| End::Close(Close::from(&error)))?;
                let epoch = changes.head.epoch.clone();
                subscribed = Some((chat_id, changes));
                epoch
            }
            None => {
                let loading = InboxChats::load(&self.context, self.session.user_id(), &self.queue);
                let loaded = loading.await.map_err(|error| End::Close(Close::from(&error)));
                let chats = self.chats.insert(Box::new(loaded?));
                chats.epoch().to_owned()
            }
        };
        // The rest waits for the client, so the permit is no longer needed.
        drop(admission);
        let hello = ServerFrame::Hello {
            connection_id: Uuid::now_v7(),
            user_id: self.session.user_id(),
            heartbeat_ms: u64::try_from(self.context.config.heartbeat.as_millis())
                .unwrap_or(u64::MAX),
            token_expires_at: self.token_expiry.expires_at(),
            epoch: &epoch,
        };
        self.out.push(hello.encode());
        if let Some(FirstFrame { id }) = auth {
            let token_expires_at = self.token_expiry.expires_at();
            self.ack(id.as_deref(), AckResult::Authenticated { token_expires_at });
        }
        if let Some((chat_id, changes)) = subscribed {
            self.send_subscribed(chat_id, None, after, changes).await?;
        }
        self.flush().await
    }

    async fn serve(self: Box<Self>) -> Option<(Box<Self>, End)> {
        let mut connection = self;
        let context = connection.context.clone();
        // The first ping comes at a random part of the interval, so that sockets opened together
        // are not pinged together.
        let first = context.config.heartbeat.mul_f64(rand::random_range(0.0..1.0));
        let mut ping_at = Instant::now() + first;
        let mut phase = context.phase.clone();
        let waiting = Waiting::lend(&connection.queue);
        // While the replica drains, each socket is served until its own moment in the window.
        let mut leave_at = None;
        // One timer for all deadlines: no delivery resets it, so deliveries cost no timer.
        let mut alarm = pin!(tokio::time::sleep_until(ping_at));
        loop {
            let due = connection.next_due(ping_at, leave_at);
            if alarm.deadline() != due {
                alarm.as_mut().reset(due);
            }
            let reads_many = connection.needs_inbox_permit() && connection.retry_at.is_none();
            waiting.put(connection);
            let event = tokio::select! {
                event = waiting.event() => event,
                () = alarm.as_mut() => Event::Alarm,
                // Waits for a permit only while nothing else happens, so that no permit goes to a
                // socket that waits for its client. A socket that is never idle gets one once few
                // others wait.
                Some(admission) = context.take_inbox_admission(), if reads_many => {
                    Event::Admitted(admission)
                }
                () = closing(&mut phase), if leave_at.is_none() => {
                    let moment = drain_window(&context).mul_f64(rand::random_range(0.0..1.0));
                    leave_at = Some(Instant::now() + moment);
                    Event::Unsent
                }
            };
            connection = waiting.take()?;
            let flow = match event {
                Event::Deliveries(deliveries) => connection.on_deliveries(deliveries).await,
                Event::Frame(frame) => Box::pin(connection.on_frame(*frame)).await,
                Event::Alarm => connection.on_alarm(&mut ping_at, leave_at).await,
                Event::Admitted(admission) => {
                    Box::pin(connection.read_chats()).await;
                    drop(admission);
                    Ok(())
                }
                Event::Unsent => Ok(()),
            };
            let flow = match flow {
                Ok(()) => connection.catch_up_if_behind().await,
                end => end,
            };
            let flow = match flow {
                Ok(()) => connection.flush().await,
                end => end,
            };
            if let Err(end) = flow {
                return Some((connection, end));
            }
        }
    }

    /// The earliest deadline.
    fn next_due(&mut self, ping_at: Instant, leave_at: Option<Instant>) -> Instant {
        let due = ping_at.min(self.silent_at()).min(self.token_expiry.due());
        [self.retry_at, self.inbox_due(), self.presence_recheck.look_at, leave_at]
            .into_iter()
            .flatten()
            .fold(due, Instant::min)
    }

    async fn on_alarm(&mut self, ping_at: &mut Instant, leave_at: Option<Instant>) -> Flow {
        let now = Instant::now();
        if leave_at.is_some_and(|at| at <= now) {
            return Err(End::Close(Close::Draining));
        }
        if self.silent_at() <= now {
            self.on_silence().await?;
        }
        if self.token_expiry.due() <= now {
            self.on_expiry()?;
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            Box::pin(self.retry()).await?;
        }
        if self.inbox_due().is_some_and(|at| at <= now) {
            Box::pin(self.refresh_chats()).await;
        }
        if self.presence_recheck.look_at.is_some_and(|at| at <= now) {
            Box::pin(self.look_again()).await;
        }
        if *ping_at <= now {
            *ping_at = now + self.context.config.heartbeat;
            self.token_expiry.recheck();
            // The same limit as for silence: an unfinished message holds memory.
            let limit = self.context.config.heartbeat * 2;
            if self.wire.unfinished_since().is_some_and(|since| since.elapsed() > limit) {
                return Err(End::Close(Close::TooSlow));
            }
            self.ping().await?;
        }
        Ok(())
    }

    /// The moment at which the client has been silent for two heartbeats.
    fn silent_at(&self) -> Instant {
        self.last_heard + self.context.config.heartbeat * 2
    }

    /// Closes the socket, unless the server was the one that did not read.
    async fn on_silence(&mut self) -> Flow {
        match self.wire.recv().now_or_never() {
            Some(frame) => self.on_frame(frame).await,
            None => Err(End::Close(Close::NoPong)),
        }
    }

    async fn ping(&mut self) -> Flow {
        self.wire.ping().await.map_err(|_| End::Left)
    }

    pub(super) fn on_delivery(&mut self, delivery: &Delivery) -> Effect {
        match delivery {
            Delivery::Event { micros, .. } => {
                let oldest = self.committed_at.get_or_insert(*micros);
                *oldest = (*oldest).min(*micros);
            }
            Delivery::Presence { chat_id, user_id, .. } if user_id != self.session.user_id() => {
                self.presence_recheck.remove(*chat_id);
            }
            _ => {}
        }
        self.session.on_delivery(delivery, &mut self.out)
    }

    async fn on_deliveries(&mut self, deliveries: Vec<Arc<Delivery>>) -> Flow {
        for delivery in deliveries {
            match self.on_delivery(&delivery) {
                Effect::Nothing => {}
                Effect::CatchUp(chat_id) => Box::pin(self.catch_up(chat_id)).await?,
                Effect::Recheck(chat_id) => Box::pin(self.recheck(chat_id)).await?,
                Effect::Refresh(chat_id) => self.mark_chat(chat_id),
                Effect::RefreshAll => self.mark_all_chats(),
                Effect::Close(reason) => return Err(End::Close(reason)),
            }
        }
        if !self.session.is_single() {
            self.subscriptions.retain(|one| self.session.is_subscribed(one.chat_id()));
            // Frames in memory are sent before anything is read from Postgres.
            self.flush().await?;
        }
        // One read covers a burst of changes to a chat; later ones mark it again.
        if self.chats.as_ref().is_some_and(|chats| chats.any_marked()) {
            Box::pin(self.refresh_chats()).await;
        }
        Ok(())
    }

    async fn on_frame(&mut self, frame: Option<Result<WsMessage, tungstenite::Error>>) -> Flow {
        self.last_heard = Instant::now();
        match frame {
            None | Some(Ok(WsMessage::Close(_))) => Err(End::Left),
            // The connection broke without a close frame, as phones' do.
            Some(Err(
                tungstenite::Error::Io(_)
                | tungstenite::Error::ConnectionClosed
                | tungstenite::Error::AlreadyClosed
                | tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake),
            )) => Err(End::Left),
            Some(Ok(WsMessage::Ping(_) | WsMessage::Pong(_))) => self.on_heartbeat(),
            // Binary, too large, or a protocol violation.
            Some(Ok(WsMessage::Binary(_) | WsMessage::Frame(_)) | Err(_)) => {
                Err(End::Close(Close::BadFrame))
            }
            Some(Ok(WsMessage::Text(text))) => match Request::parse(&text) {
                Ok(Request { id, command }) => {
                    let answering = self.on_request(id, command).instrument(trace::command());
                    Box::pin(answering).await
                }
                Err(_) => Err(End::Close(Close::BadFrame)),
            },
        }
    }
}
