//! The loop: what is typed goes out, what comes is shown, and a lost connection comes back.

use std::time::{Duration, Instant};

use tokio::time::sleep_until;
use uuid::Uuid;

use super::{
    TalkError,
    console::{Console, Input},
    credentials::Credentials,
    lines::Line,
    outbox::{Outbox, Pending},
    room::{Need, Room},
    service::{Failure, Service, Start},
    socket::{Ending, Incoming, Socket},
    wire::{self, Command, Frame},
};

/// The shortest back-off, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// A socket that lived this long was healthy: the next failure starts the back-off anew.
const HEALTHY: Duration = Duration::from_secs(5);

/// Failures that a socket closed for its rate counts as: it waits 2 s or more.
const RATE_LIMITED_FAILURES: usize = 4;

/// How long one message may still be on its way once the input has ended.
const LAST_WORDS: Duration = Duration::from_secs(60);

/// Lines of a pipe that are taken before the first of them has arrived.
const MAX_UNSENT: usize = 1_000;

/// What `mark_read` and `auth` are named by; a message's command has the name of the message.
const MARK_ID: &str = "mark";
const AUTH_ID: &str = "auth";

/// Codes that say nothing of the command that was refused: it is sent again.
const TEMPORARY: [&str; 4] = ["rate_limited", "unavailable", "timeout", "internal"];

/// The end of it all: as it should be, or not.
type End = Result<(), TalkError>;

/// How far marking as read has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marking {
    Idle,
    UnderWay,
    /// It was refused: once more, but not before.
    NotBefore(Instant),
}

pub(super) struct Conversation {
    service: Service,
    credentials: Credentials,
    console: Console,
    chat_id: Uuid,
    room: Room,
    outbox: Outbox,
    /// How many messages are shown at the beginning.
    history: usize,
    /// The position is void.
    read_again: bool,
    failures: usize,
    /// Tokens or tickets refused one after another.
    refusals: usize,
    /// The latest change that an acknowledgement has told of: it is still to be shown.
    acknowledged_ev: i64,
    marking: Marking,
    /// How many of the messages were refused for good.
    refused: usize,
    /// The way is interrupted, and it was said.
    away: bool,
    /// Since when there is no more input, and nothing that was written has arrived.
    input_ended: Option<Instant>,
}

/// Doubles from half a second to half a minute. The upper half is random, so that clients dropped
/// together do not come back together. `failures` in a row, from 1.
pub(super) fn pause_after(failures: usize) -> Duration {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(10);
    let ceiling = (BACKOFF.0 * 2_u32.pow(doublings)).min(BACKOFF.1);
    ceiling.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

impl Conversation {
    pub(super) fn new(
        service: Service,
        credentials: Credentials,
        console: Console,
        room: &wire::Room,
        history: u8,
    ) -> Self {
        Self {
            chat_id: room.chat_id,
            room: Room::new(credentials.user(), &room.other_user),
            outbox: Outbox::new(),
            history: history.into(),
            read_again: false,
            failures: 0,
            refusals: 0,
            acknowledged_ev: 0,
            marking: Marking::Idle,
            refused: 0,
            away: false,
            input_ended: None,
            service,
            credentials,
            console,
        }
    }

    /// Talks until the end.
    pub(super) async fn run(&mut self) -> End {
        loop {
            let (service, token) = (self.service.clone(), self.credentials.token()?);
            let (chat_id, start) = (self.chat_id, self.start());
            let connecting = async move { service.connect(&token, chat_id, start).await };
            let connected = match self.meanwhile(connecting).await {
                Ok(connected) => connected,
                Err(end) => return end,
            };
            let failure = match connected {
                Ok((pages, socket)) => {
                    for line in self.room.begin(&pages) {
                        self.show(line).await?;
                    }
                    self.read_again = false;
                    let since = Instant::now();
                    let ended = self.converse(socket).await?;
                    if since.elapsed() >= HEALTHY {
                        self.failures = 0;
                    }
                    match ended {
                        Some(failure) => failure,
                        None => return Ok(()),
                    }
                }
                Err(failure) => failure,
            };
            let pause = self.after(failure).await?;
            if let Err(end) = self.meanwhile(tokio::time::sleep(pause)).await {
                return end;
            }
        }
    }

    /// Ends it, with what is not known to have arrived as a failure; for a script, which reads no
    /// notes, also what was refused.
    pub(super) async fn close(self, outcome: End) -> End {
        let refused = if self.console.is_terminal() { 0 } else { self.refused };
        self.console.close().await;
        match (outcome, self.outbox.len() + refused) {
            (Ok(()), unsent @ 1..) => Err(TalkError::Unsent(unsent)),
            (outcome, _) => outcome,
        }
    }

    /// Where to go on.
    fn start(&self) -> Start {
        match &self.room.epoch {
            None => Start::Newest(self.history),
            Some(_) if self.read_again => Start::After(self.room.last_seq),
            Some(epoch) => Start::Position { ev: self.room.ev, epoch: epoch.clone() },
        }
    }

    /// What a failure asks for: how long to wait before the next attempt.
    async fn after(&mut self, failure: Failure) -> Result<Duration, TalkError> {
        self.outbox.connection_lost();
        self.marking = Marking::Idle;
        let (why, pause) = match failure {
            Failure::Final(why) => return Err(TalkError::Over(why)),
            Failure::Token(why) => {
                self.refusals += 1;
                // The first time at once: perhaps only the ticket was stale.
                match (self.refusals, self.credentials.can_renew()) {
                    (1, _) => return Ok(Duration::ZERO),
                    (_, true) => (why, None),
                    (_, false) => return Err(TalkError::TokenRefused(why)),
                }
            }
            Failure::Again { why, pause } => (why, pause),
        };
        self.failures += 1;
        self.service.turn();
        if !std::mem::replace(&mut self.away, true) {
            self.show(Line::note(format!("connection lost: {why}"))).await?;
        }
        Ok(pause.unwrap_or_else(|| pause_after(self.failures)))
    }

    /// Does `work` while what is typed is gathered.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<T, End> {
        tokio::pin!(work);
        loop {
            // At a terminal nobody wants to wait for a connection in order to leave.
            if self.input_ended.is_some() && self.outbox.is_empty() && self.console.is_terminal() {
                return Err(Ok(()));
            }
            let limit = self.input_ended.map(|ended| ended + LAST_WORDS);
            tokio::select! {
                done = &mut work => return Ok(done),
                input = self.console.next(), if self.takes_input() => match self.on_input(input).await {
                    Ok(false) => {}
                    Ok(true) => return Err(Ok(())),
                    Err(error) => return Err(Err(error)),
                },
                () = sleep_until(limit.unwrap_or_else(Instant::now).into()), if limit.is_some() => {
                    // What was written is told at the end.
                    return Err(match self.outbox.is_empty() {
                        true => Err(TalkError::Over("no connection".to_owned())),
                        false => Ok(()),
                    });
                }
            }
        }
    }

    /// A pipe waits where it is faster than the service. At a terminal Ctrl-C must always be heard.
    fn takes_input(&self) -> bool {
        self.outbox.len() < MAX_UNSENT || self.console.is_terminal()
    }

    /// It is stored, or refused for good.
    fn settle(&mut self, client_msg_id: &str) -> Option<Pending> {
        let settled = self.outbox.settle(client_msg_id)?;
        if let Some(since) = &mut self.input_ended {
            *since = Instant::now();
        }
        Some(settled)
    }

    /// Takes what was typed; whether it asks to leave at once.
    async fn on_input(&mut self, input: Input) -> Result<bool, TalkError> {
        match input {
            // The service would refuse it.
            Input::Line(text) if text.trim().is_empty() => {}
            Input::Line(text) => {
                if self.away {
                    self.show(Line::note(format!("not sent yet: {text}"))).await?;
                }
                self.outbox.push(text);
            }
            Input::End => self.input_ended = Some(Instant::now()),
            Input::Interrupted => return Ok(true),
        }
        Ok(false)
    }

    async fn show(&self, line: Line) -> Result<(), TalkError> {
        match self.console.show(line).await {
            true => Ok(()),
            false => Err(TalkError::Over("nobody reads the output".to_owned())),
        }
    }

    /// Talks over a socket until it ends, with what that asks for, or until the end of it all.
    async fn converse(&mut self, mut socket: Socket) -> Result<Option<Failure>, TalkError> {
        let mut promised = None;
        loop {
            if self.is_settled() {
                socket.close().await;
                return Ok(None);
            }
            self.send_what_is_due(&mut socket).await;
            let retry = self.retry_at();
            let limit = self.input_ended.map(|ended| ended + LAST_WORDS);
            tokio::select! {
                incoming = socket.next() => match incoming {
                    Incoming::Frame(frame) => {
                        if let Frame::Bye { reconnect_in_ms } = *frame {
                            promised = Some(Duration::from_millis(reconnect_in_ms));
                        }
                        if let Some(failure) = self.on_frame(*frame, &mut socket).await? {
                            socket.close().await;
                            return Ok(Some(failure));
                        }
                    }
                    Incoming::Ended { ending, why } => {
                        return Ok(Some(self.ended(ending, why, promised)));
                    }
                },
                input = self.console.next(), if self.takes_input() => {
                    if self.on_input(input).await? {
                        socket.close().await;
                        return Ok(None);
                    }
                }
                () = sleep_until(retry.unwrap_or_else(Instant::now).into()), if retry.is_some() => {}
                () = sleep_until(limit.unwrap_or_else(Instant::now).into()), if limit.is_some() => {
                    // What was written and not acknowledged is told at the end.
                    return Ok(None);
                }
            }
        }
    }

    /// When something that was put off is to be tried again.
    fn retry_at(&self) -> Option<Instant> {
        if !self.room.synced {
            return None;
        }
        let mark = match self.marking {
            Marking::NotBefore(moment) => Some(moment),
            _ => None,
        };
        [self.outbox.waits_until(), mark].into_iter().flatten().min()
    }

    /// Whether the input has ended, and nothing is left to be done.
    fn is_settled(&self) -> bool {
        let shown = self.room.synced
            && self.room.ev >= self.acknowledged_ev
            && self.room.to_mark().is_none();
        self.input_ended.is_some()
            && self.outbox.is_empty()
            && (shown || self.console.is_terminal())
    }

    fn ended(&mut self, ending: Ending, why: String, promised: Option<Duration>) -> Failure {
        match ending {
            Ending::Stop => Failure::Final(why),
            Ending::Token => Failure::Token(why),
            Ending::RateLimited => {
                self.failures = self.failures.max(RATE_LIMITED_FAILURES);
                Failure::Again { why, pause: promised }
            }
            Ending::Retry => Failure::Again { why, pause: promised },
        }
    }

    async fn send_what_is_due(&mut self, socket: &mut Socket) {
        // Before that the socket may yet be refused.
        if !self.room.synced {
            return;
        }
        if let Some(next) = self.outbox.start_next(Instant::now()) {
            let (text, id) = (next.text.as_str(), next.client_msg_id.as_str());
            socket.send(&Command::Send { id, text, client_msg_id: id }).await;
        }
        let may_mark = match self.marking {
            Marking::Idle => true,
            Marking::UnderWay => false,
            Marking::NotBefore(moment) => moment <= Instant::now(),
        };
        if may_mark {
            self.marking = Marking::Idle;
            if let Some(up_to_seq) = self.room.to_mark() {
                self.marking = Marking::UnderWay;
                socket.send(&Command::MarkRead { id: MARK_ID, up_to_seq }).await;
            }
        }
    }

    /// Takes a frame; a failure is what the socket can't go on after.
    async fn on_frame(
        &mut self,
        frame: Frame,
        socket: &mut Socket,
    ) -> Result<Option<Failure>, TalkError> {
        // Its echo may come before its answer, and without it after a lost connection.
        if let Frame::Message { message: wire::Message { client_msg_id: Some(id), .. }, .. } =
            &frame
        {
            self.settle(id);
        }
        let (lines, need) = self.room.on_frame(&frame);
        for line in lines {
            self.show(line).await?;
        }
        match need {
            Need::Nothing => {}
            Need::Resume => return Ok(Some(again("a number is missing"))),
            Need::ReadAgain => {
                self.read_again = true;
                return Ok(Some(again("the history has to be read again")));
            }
        }
        match frame {
            Frame::Synced { .. } => self.arrived().await?,
            Frame::Ack { id: Some(id), message: Some(message), .. } => {
                self.settle(&id);
                self.acknowledged_ev = self.acknowledged_ev.max(message.ev);
            }
            Frame::Ack { read_seq: Some(read_seq), .. } => {
                self.marking = Marking::Idle;
                self.room.marked(read_seq);
            }
            Frame::Error { id, code, detail, retry_after_ms } => {
                let pause = retry_after_ms.map(Duration::from_millis);
                self.refused(id.as_deref(), &code, &detail, pause).await?;
            }
            Frame::TokenExpiring {} if self.credentials.can_renew() => {
                let token = self.credentials.token()?;
                socket.send(&Command::Auth { id: AUTH_ID, token: &token }).await;
            }
            Frame::TokenExpiring {} => {
                self.show(Line::note("your token ends within a minute")).await?;
            }
            _ => {}
        }
        Ok(None)
    }

    /// The socket is live, and what was missed has been shown.
    async fn arrived(&mut self) -> Result<(), TalkError> {
        self.refusals = 0;
        if std::mem::take(&mut self.away) {
            self.show(Line::note(format!("connected again, to {}", self.service.url()))).await?;
        }
        Ok(())
    }

    async fn refused(
        &mut self,
        id: Option<&str>,
        code: &str,
        detail: &str,
        pause: Option<Duration>,
    ) -> Result<(), TalkError> {
        let pause = pause.unwrap_or(BACKOFF.0).min(BACKOFF.1);
        match id {
            Some(MARK_ID) => {
                // Not worth a word, and tried again for as long as we are here.
                self.marking = Marking::NotBefore(Instant::now() + pause);
                Ok(())
            }
            Some(id) if TEMPORARY.contains(&code) => {
                self.outbox.put_off(id, pause, Instant::now());
                Ok(())
            }
            Some(id) => match self.settle(id) {
                Some(message) => {
                    self.refused += 1;
                    let text = message.text;
                    self.show(Line::note(format!("not sent: {text:.40} ({detail})"))).await
                }
                None => Ok(()),
            },
            None => self.show(Line::note(format!("refused: {detail}"))).await,
        }
    }
}

fn again(why: &str) -> Failure {
    Failure::Again { why: why.to_owned(), pause: None }
}
