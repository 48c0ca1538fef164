//! A socket's one loop: deliveries, the client's frames, the heartbeat, the token's end, the drain.

use std::{collections::HashMap, time::Duration};

use axum::extract::ws::{CloseFrame, Message as WsMessage, Utf8Bytes, WebSocket};
use futures_util::SinkExt;
use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};
use uuid::Uuid;

use super::{
    command::{Command, Request},
    handshake::{Bearer, close_for},
    inbox::Rooms,
    session::{Session, Todo},
};
use crate::{
    context::{Context, Phase},
    error::Error,
    hub::{Attached, Delivery, Following, Inbox, Queue, queue},
    limits::Class,
    model::{ChatId, Position, Time},
    presence::PresenceGuard,
    protocol::{
        AckResult, Close, CommandId, Frame, MAX_REPLAY, ResetReason, ServerFrame, change_frame,
        subscribed_frame,
    },
    store::Changes,
};

/// How long a socket may be behind, or a write may take, before it is closed: long enough for a
/// phone in a tunnel, short enough not to hold its memory for the day.
const BEHIND_LIMIT: Duration = Duration::from_secs(30);

/// How long a closed socket is still read, so that the close handshake ends cleanly.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// How long before its end a token's expiry is announced.
const EXPIRY_NOTICE: Duration = Duration::from_secs(60);

/// Changes read at once when a socket resumes: bounds what it holds while its reader is slow.
const RESUME_PAGE: i64 = 500;

/// Deliveries taken at once: a burst is one write.
const TAKE: usize = 64;

pub(super) struct Connection {
    context: Context,
    socket: WebSocket,
    session: Session,
    queue: Queue,
    inbox: Inbox,
    following: HashMap<ChatId, Following>,
    rooms: Rooms,
    /// Frames to be sent with the next flush.
    out: Vec<Frame>,
    token_expires_at: i64,
    told_expiring: bool,
    behind_since: Option<Instant>,
    last_heard: Instant,
    _attached: Attached,
    _present: PresenceGuard,
    _open: OpenGauge,
}

/// Counts open sockets, panics included.
struct OpenGauge(Context);

impl Drop for OpenGauge {
    fn drop(&mut self) {
        self.0.metrics.sockets_open.dec();
    }
}

/// How a socket ends.
enum End {
    /// By us.
    Close(Close),
    /// By the client, or the network.
    Left,
}

type Flow = Result<(), End>;

impl Connection {
    pub(super) async fn open(
        context: Context,
        socket: WebSocket,
        bearer: Bearer,
        single: Option<ChatId>,
    ) -> Self {
        let (queue, inbox) = queue();
        context.metrics.sockets_open.inc();
        let open = OpenGauge(context.clone());
        let attached = context.feed.attach(&bearer.user_id, &queue).await;
        let present = context.chats.presence().enter(&bearer.user_id);
        Self {
            session: Session::new(bearer.user_id, single),
            rooms: Rooms::default(),
            socket,
            queue,
            inbox,
            following: HashMap::new(),
            out: Vec::new(),
            token_expires_at: bearer.token_expires_at,
            told_expiring: false,
            behind_since: None,
            last_heard: Instant::now(),
            _attached: attached,
            _present: present,
            _open: open,
            context,
        }
    }

    /// Runs to the socket's end; gives the close code (1000 where the client left).
    pub(super) async fn run(mut self, single: Option<ChatId>, after: Option<Position>) -> u16 {
        let end = match self.start(single, after).await {
            Ok(()) => self.serve().await,
            Err(end) => end,
        };
        match end {
            End::Left => 1000,
            End::Close(reason) => {
                let _ = self.flush().await;
                close(&mut self.socket, reason).await;
                reason.code()
            }
        }
    }

    async fn start(&mut self, single: Option<ChatId>, after: Option<Position>) -> Flow {
        let epoch = match single {
            Some(chat_id) => {
                let user_id = self.session.user_id();
                let head = self.context.chats.get_head(user_id, chat_id).await;
                head.map_err(|error| End::Close(close_for(&error)))?.epoch
            }
            None => {
                self.rooms = Rooms::load(&self.context, self.session.user_id())
                    .await
                    .map_err(|error| End::Close(close_for(&error)))?;
                self.rooms.epoch().to_owned()
            }
        };
        let hello = ServerFrame::Hello {
            connection_id: Uuid::now_v7(),
            user_id: self.session.user_id(),
            heartbeat_ms: u64::try_from(self.context.config.heartbeat.as_millis())
                .unwrap_or(u64::MAX),
            token_expires_at: expiry(self.token_expires_at),
            epoch: &epoch,
        };
        self.out.push(hello.encode());
        if let Some(chat_id) = single {
            self.follow(chat_id, None, after)
                .await?
                .map_err(|error| End::Close(close_for(&error)))?;
        }
        self.flush().await
    }

    async fn serve(&mut self) -> End {
        let mut heartbeat = self.heartbeat();
        let mut phase = self.context.phase.clone();
        let mut batch = Vec::with_capacity(TAKE);
        loop {
            let expiry = self.next_expiry();
            let flow = tokio::select! {
                count = self.inbox.receiver.recv_many(&mut batch, TAKE) => {
                    // The hub's end lives in self.queue: it can't be closed.
                    debug_assert!(count > 0);
                    self.on_deliveries(&mut batch).await
                }
                frame = self.socket.recv() => self.on_frame(frame).await,
                _ = heartbeat.tick() => self.on_heartbeat().await,
                () = tokio::time::sleep_until(expiry) => self.on_expiry(),
                _ = closing(&mut phase) => return self.drain().await,
            };
            let flow = match flow {
                Ok(()) => self.catch_up_if_behind().await,
                end => end,
            };
            let flow = match flow {
                Ok(()) => self.flush().await,
                end => end,
            };
            if let Err(end) = flow {
                return end;
            }
        }
    }

    /// The first ping at a random part of the interval: sockets that came together need not be
    /// pinged together.
    fn heartbeat(&self) -> Interval {
        let every = self.context.config.heartbeat;
        let first = Instant::now() + every.mul_f64(rand::random_range(0.0..1.0));
        let mut heartbeat = interval_at(first, every);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat
    }

    async fn on_heartbeat(&mut self) -> Flow {
        if self.last_heard.elapsed() > self.context.config.heartbeat * 2 {
            return Err(End::Close(Close::NoPong));
        }
        let ping = self.socket.feed(WsMessage::Ping(bytes::Bytes::new()));
        ping.await.map_err(|_| End::Left)
    }

    async fn on_deliveries(&mut self, batch: &mut Vec<Delivery>) -> Flow {
        for delivery in batch.drain(..) {
            match self.session.on_delivery(delivery, &mut self.out) {
                Todo::Nothing => {}
                Todo::CatchUp(chat_id) => self.catch_up(chat_id).await?,
                Todo::Refresh(chat_id) => self.rooms.mark(chat_id),
                Todo::RefreshAll => self.rooms.mark_all(),
                Todo::Close(reason) => return Err(End::Close(reason)),
            }
            if !self.session.is_single() {
                self.following.retain(|chat_id, _| self.session.follows(*chat_id));
            }
        }
        // One read for a burst of changes to a room; what comes meanwhile marks it again.
        self.rooms.refresh(&self.context, self.session.user_id(), &mut self.out).await;
        Ok(())
    }

    async fn on_frame(&mut self, frame: Option<Result<WsMessage, axum::Error>>) -> Flow {
        self.last_heard = Instant::now();
        match frame {
            None | Some(Ok(WsMessage::Close(_))) => Err(End::Left),
            Some(Ok(WsMessage::Ping(_) | WsMessage::Pong(_))) => Ok(()),
            // Binary, too large, or against the protocol.
            Some(Ok(WsMessage::Binary(_)) | Err(_)) => Err(End::Close(Close::BadFrame)),
            Some(Ok(WsMessage::Text(text))) => match Request::parse(&text) {
                Ok(Request { id, command }) => self.on_request(id, command).await,
                Err(_) => Err(End::Close(Close::BadFrame)),
            },
        }
    }

    async fn on_request(&mut self, id: Option<CommandId>, command: Result<Command, Error>) -> Flow {
        let outcome = match command {
            Ok(command) => self.on_command(id.as_deref(), command).await?,
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            self.context.metrics.count_error(error.code());
            if let Error::Internal(cause) | Error::Unavailable(Some(cause)) = &error {
                let cause = crate::api::problem::chain(cause);
                tracing::warn!(code = error.code(), cause, "a command failed");
            }
            let detail = match &error {
                Error::Validation(fields) => fields
                    .iter()
                    .map(|field| format!("{}: {}", field.field, field.message))
                    .collect::<Vec<_>>()
                    .join("; "),
                error => error.to_string(),
            };
            let frame = ServerFrame::Error {
                id: id.as_deref(),
                code: error.code(),
                detail: &detail,
                retry_after_ms: error
                    .retry_after()
                    .map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            };
            self.out.push(frame.encode());
        }
        Ok(())
    }

    async fn on_command(
        &mut self,
        id: Option<&serde_json::value::RawValue>,
        command: Command,
    ) -> Result<Result<(), Error>, End> {
        let chats = self.context.chats.clone();
        let user_id = self.session.user_id().clone();
        let result = match command {
            Command::Ping => {
                self.out.push(ServerFrame::Pong {}.encode());
                Ok(())
            }
            Command::Auth { token } => self.renew(id, &token).await,
            Command::Subscribe { chat_id, after } => {
                return match self.chat_of(chat_id) {
                    Ok(chat_id) if self.session.is_single() && self.session.follows(chat_id) => {
                        Ok(Err(Error::Forbidden("This socket follows its one chat already.")))
                    }
                    Ok(chat_id) => self.subscribe(chat_id, id, after).await,
                    Err(error) => Ok(Err(error)),
                };
            }
            Command::Unsubscribe { chat_id } => self.chat_of(chat_id).and_then(|chat_id| {
                if self.session.is_single() {
                    return Err(Error::Forbidden("This socket follows its one chat."));
                }
                self.session.unfollow(chat_id);
                self.following.remove(&chat_id);
                self.ack(id, AckResult::Unsubscribed { chat_id });
                Ok(())
            }),
            Command::Send { chat_id, message } => {
                let sent = match self.permit(chat_id) {
                    Ok(chat_id) => chats.send_message(&user_id, chat_id, message).await,
                    Err(error) => Err(error),
                };
                sent.map(|sent| self.ack(id, AckResult::Sent { message: &sent.message }))
            }
            Command::MarkRead { chat_id, up_to_seq } => {
                let read = match self.permit(chat_id) {
                    Ok(chat_id) => chats.mark_read(&user_id, chat_id, up_to_seq).await,
                    Err(error) => Err(error),
                };
                read.map(|read| {
                    self.ack(
                        id,
                        AckResult::Read {
                            chat_id: read.chat_id,
                            read_seq: read.read_seq,
                            unread_count: read.unread_count,
                            total_unread: read.total_unread,
                        },
                    );
                })
            }
            Command::Typing { chat_id, typing } => match self.chat_of(chat_id) {
                // Following it is being a member of it.
                Ok(chat_id) if self.session.follows(chat_id) => {
                    chats.tell_typing(&user_id, chat_id, typing).await
                }
                Ok(_) => Err(Error::ChatNotFound),
                Err(error) => Err(error),
            },
        };
        Ok(result)
    }

    fn chat_of(&self, named: Option<ChatId>) -> Result<ChatId, Error> {
        match (self.session.chat_of(named), named) {
            (Some(chat_id), _) => Ok(chat_id),
            (None, Some(_)) => Err(Error::ChatNotFound),
            (None, None) => Err(Error::field("chat_id", "is required")),
        }
    }

    /// The chat of a command that writes, if the user's rate allows it.
    fn permit(&self, named: Option<ChatId>) -> Result<ChatId, Error> {
        let chat_id = self.chat_of(named)?;
        self.context.limits.check(self.session.user_id(), Class::Sends)?;
        Ok(chat_id)
    }

    fn ack(&mut self, id: Option<&serde_json::value::RawValue>, result: AckResult<'_>) {
        self.out.push(ServerFrame::Ack { id, result }.encode());
    }

    /// A new token for the same user, so that the socket lives on.
    async fn renew(
        &mut self,
        id: Option<&serde_json::value::RawValue>,
        token: &str,
    ) -> Result<(), Error> {
        let identity = self.context.authenticate(token).await?;
        if identity.user_id() != self.session.user_id() {
            return Err(Error::Forbidden("This token is another user's."));
        }
        self.token_expires_at = identity.expires_at;
        self.told_expiring = false;
        self.ack(id, AckResult::Authenticated { token_expires_at: expiry(identity.expires_at) });
        Ok(())
    }

    async fn subscribe(
        &mut self,
        chat_id: ChatId,
        id: Option<&serde_json::value::RawValue>,
        after: Option<Position>,
    ) -> Result<Result<(), Error>, End> {
        if let Err(error) = self.context.limits.check(self.session.user_id(), Class::Reads) {
            return Ok(Err(error));
        }
        self.follow(chat_id, id, after).await
    }

    /// Follows a chat: registered and subscribed first, then what was missed, then live. The inner
    /// error is the client's, the outer one the socket's.
    async fn follow(
        &mut self,
        chat_id: ChatId,
        id: Option<&serde_json::value::RawValue>,
        after: Option<Position>,
    ) -> Result<Result<(), Error>, End> {
        let following = self.context.feed.follow(chat_id, &self.queue).await;
        let (after_ev, limit) = match &after {
            Some(position) => (position.ev, RESUME_PAGE),
            None => (i64::MAX, 0),
        };
        let changes = match self.read_changes(chat_id, after_ev, limit).await {
            Ok(changes) => changes,
            Err(error) => return Ok(Err(error)),
        };
        self.following.insert(chat_id, following);
        let head = changes.head.clone();
        self.context.feed.note_head(chat_id, head.ev);
        let online = self.online(chat_id).await;
        self.out.push(subscribed_frame(id, chat_id, &head, online));
        match after {
            None => self.synced(chat_id, head.ev, &head.epoch),
            Some(position) => {
                self.context.metrics.resumes.inc();
                let foreign = position.epoch.is_some_and(|epoch| epoch != head.epoch);
                if foreign || position.ev > head.ev {
                    self.reset(chat_id, &changes, ResetReason::UnknownPosition);
                } else {
                    self.replay(chat_id, position.ev, changes).await?;
                }
            }
        }
        Ok(Ok(()))
    }

    async fn read_changes(
        &mut self,
        chat_id: ChatId,
        after_ev: i64,
        limit: i64,
    ) -> Result<Changes, Error> {
        let user_id = self.session.user_id();
        let store = self.context.chats.store();
        store.get_changes(chat_id, Some(user_id), after_ev, limit).await?.ok_or(Error::ChatNotFound)
    }

    /// Those of the chat's two who are online and may be seen.
    async fn online(&mut self, chat_id: ChatId) -> Vec<crate::model::UserId> {
        let me = self.session.user_id();
        let Ok(chat) = self.context.chats.get_chat(me, chat_id).await else {
            return vec![me.clone()];
        };
        let other = chat.other_user;
        std::iter::once(me.clone()).chain(other.online.then_some(other.user_id)).collect()
    }

    /// Gives what changed, page by page, written out as it is read.
    async fn replay(&mut self, chat_id: ChatId, after_ev: i64, first: Changes) -> Flow {
        let mut after_ev = after_ev;
        let mut page = first;
        loop {
            if page.head.ev - after_ev > MAX_REPLAY {
                self.reset(chat_id, &page, ResetReason::TooFar);
                return Ok(());
            }
            let frames = page.changes.iter().map(|change| change_frame(chat_id, change));
            self.out.extend(frames);
            match page.changes.last() {
                Some(last) if page.more => after_ev = last.ev(),
                _ => {
                    self.synced(chat_id, page.head.ev, &page.head.epoch);
                    return Ok(());
                }
            }
            self.flush().await?;
            page = self
                .read_changes(chat_id, after_ev, RESUME_PAGE)
                .await
                .map_err(|error| End::Close(close_for(&error)))?;
        }
    }

    fn synced(&mut self, chat_id: ChatId, ev: i64, epoch: &str) {
        self.session.set_position(chat_id, ev, epoch);
        self.out.push(ServerFrame::Synced { chat_id, ev }.encode());
    }

    fn reset(&mut self, chat_id: ChatId, page: &Changes, reason: ResetReason) {
        self.context.metrics.resets.inc();
        let (head_ev, epoch) = (page.head.ev, page.head.epoch.as_str());
        self.out.push(ServerFrame::Reset { chat_id, head_ev, epoch, reason }.encode());
        self.synced(chat_id, head_ev, epoch);
    }

    /// Reads what this socket missed of a chat.
    async fn catch_up(&mut self, chat_id: ChatId) -> Flow {
        let Some((after_ev, epoch)) = self.session.position(chat_id) else { return Ok(()) };
        let page = match self.read_changes(chat_id, after_ev, RESUME_PAGE).await {
            Ok(page) => page,
            Err(Error::ChatNotFound) => return Ok(()),
            // The position stands: the next delivery or comparison tries again.
            Err(_) => return Ok(()),
        };
        if page.head.ev == after_ev {
            return Ok(());
        }
        if *epoch != *page.head.epoch || page.head.ev < after_ev {
            self.reset(chat_id, &page, ResetReason::UnknownPosition);
            return Ok(());
        }
        self.out.push(ServerFrame::Catchup { chat_id, after_ev }.encode());
        self.replay(chat_id, after_ev, page).await
    }

    /// The queue ran over: what was lost is in Postgres, for all chats of this socket.
    async fn catch_up_if_behind(&mut self) -> Flow {
        if !self.inbox.take_behind() {
            // A moment without loss, and the queue empty: it keeps up again.
            if self.inbox.receiver.is_empty() {
                self.behind_since = None;
            }
            return Ok(());
        }
        self.context.metrics.sockets_behind.inc();
        let since = *self.behind_since.get_or_insert_with(Instant::now);
        if since.elapsed() > BEHIND_LIMIT {
            return Err(End::Close(Close::TooSlow));
        }
        for chat_id in self.session.followed() {
            self.catch_up(chat_id).await?;
        }
        self.rooms.mark_all();
        self.rooms.refresh(&self.context, self.session.user_id(), &mut self.out).await;
        Ok(())
    }

    /// When the token's end has to be looked at next.
    fn next_expiry(&self) -> Instant {
        let leeway = self.context.verifier.leeway();
        let left = seconds_until(self.token_expires_at);
        let wait = if self.told_expiring {
            left.saturating_add(leeway)
        } else {
            left.saturating_sub(EXPIRY_NOTICE)
        };
        // A day at most: far ends overflow an Instant, and clocks are set.
        Instant::now() + wait.min(Duration::from_secs(86_400))
    }

    fn on_expiry(&mut self) -> Flow {
        let left = seconds_until(self.token_expires_at);
        if self.told_expiring {
            let over = seconds_until(
                self.token_expires_at
                    .saturating_add(self.context.verifier.leeway().as_secs().cast_signed()),
            )
            .is_zero();
            return if over { Err(End::Close(Close::TokenExpired)) } else { Ok(()) };
        }
        if left <= EXPIRY_NOTICE {
            self.told_expiring = true;
            let expires_in = left.as_secs().cast_signed();
            self.out.push(ServerFrame::TokenExpiring { expires_in }.encode());
        }
        Ok(())
    }

    /// The replica goes: this socket's own moment in the window, and another one to come back at.
    async fn drain(&mut self) -> End {
        let window = drain_window(&self.context);
        let moment = window.mul_f64(rand::random_range(0.0..1.0));
        let until = Instant::now() + moment;
        let mut batch = Vec::new();
        // Live until then: nothing is lost by waiting.
        while let Ok(count) =
            tokio::time::timeout_at(until, self.inbox.receiver.recv_many(&mut batch, TAKE)).await
        {
            debug_assert!(count > 0);
            if let Err(end) = self.on_deliveries(&mut batch).await {
                return end;
            }
            if self.flush().await.is_err() {
                return End::Left;
            }
        }
        End::Close(Close::Draining)
    }

    /// Writes all that waits with one flush.
    async fn flush(&mut self) -> Flow {
        let frames = std::mem::take(&mut self.out);
        self.context.metrics.frames_delivered.inc_by(frames.len() as u64);
        let writing = async {
            for frame in frames {
                // Our own encoder wrote it: it is text.
                let Ok(text) = Utf8Bytes::try_from(frame) else { continue };
                self.socket.feed(WsMessage::Text(text)).await?;
            }
            self.socket.flush().await
        };
        match tokio::time::timeout(BEHIND_LIMIT, writing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Left),
            Err(_) => Err(End::Close(Close::TooSlow)),
        }
    }
}

/// Resolves when the sockets have to go; for ever pending where the replica is gone already.
async fn closing(phase: &mut watch::Receiver<Phase>) {
    if phase.wait_for(|phase| *phase == Phase::Closing).await.is_err() {
        std::future::pending().await
    }
}

/// Over how long a drain spreads its closes: a part of the grace, so that all else has time too.
pub(crate) fn drain_window(context: &Context) -> Duration {
    let left = context.config.shutdown_grace.saturating_sub(context.config.drain_delay);
    left.mul_f64(0.4).min(Duration::from_secs(10))
}

/// Says why, closes, and reads on until the client has answered: else every close is unclean.
pub(super) async fn close(socket: &mut WebSocket, reason: Close) {
    let (code, text) = (reason.code(), reason.reason());
    let closing = async {
        if code >= 4200 {
            let reconnect_in_ms = rand::random_range(500..5_000);
            let bye = ServerFrame::Bye { code, reason: text, reconnect_in_ms }.encode();
            if let Ok(text) = Utf8Bytes::try_from(bye) {
                socket.feed(WsMessage::Text(text)).await?;
            }
        }
        let frame = CloseFrame { code, reason: Utf8Bytes::from_static(text) };
        socket.send(WsMessage::Close(Some(frame))).await?;
        while let Some(Ok(_)) = socket.recv().await {}
        Ok::<_, axum::Error>(())
    };
    // Whoever does not answer is cut off.
    let _ = tokio::time::timeout(CLOSE_WAIT, closing).await;
}

fn expiry(seconds: i64) -> Time {
    Time(jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX))
}

fn seconds_until(moment: i64) -> Duration {
    let now = jiff::Timestamp::now().as_millisecond();
    let left = moment.saturating_mul(1_000).saturating_sub(now);
    Duration::from_millis(u64::try_from(left).unwrap_or(0))
}
