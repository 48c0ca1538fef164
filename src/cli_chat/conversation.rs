//! The loop of a conversation: sends typed lines and shows events.

use std::time::{Duration, Instant};

use beseda_client::{Client, Event, Events, NewFile, State, Window, machine::Timeline};
use beseda_protocol::{
    ReceivedFrame,
    bounds::check_text,
    model::{ChatId, Message},
    rest::{HistoryView, NewMessage},
};
use tokio::time::sleep_until;

use super::{
    ChatError,
    console::{Console, Input},
    files,
    lines::{Line, harmless},
    screen::Screen,
};

/// Time-out of each pending message, and of each part of a file, after the end of the input.
const LAST_WORDS: Duration = Duration::from_secs(60);

/// Time-out of an orderly close.
const GOODBYE: Duration = Duration::from_secs(1);

/// How long names are waited for before a line is shown without them.
const NAMES: Duration = Duration::from_secs(2);

/// Lines of a pipe that are read ahead of the first acknowledgement.
const MAX_UNSENT: usize = 1_000;

/// How a conversation ended.
type End = Result<(), ChatError>;

pub(super) struct Conversation {
    client: Client,
    events: Events,
    console: Console,
    chat_id: ChatId,
    screen: Screen,
    /// Messages to show at the start.
    history: usize,
    /// Typed before the history was read, which is shown first: texts and files.
    unsent: Vec<(String, Vec<NewFile>)>,
    /// The history was read, and missed messages were shown.
    synced: bool,
    /// The latest acknowledged change, which must be shown before the end.
    acknowledged_ev: i64,
    /// Bytes of pending files that have arrived, as it was noted last.
    brought: u64,
    /// Lines that were refused for good.
    refused: usize,
    /// The connection is lost, which was shown.
    disconnected: bool,
    /// When the input ended, or something pending got on after that.
    input_ended: Option<Instant>,
}

impl Conversation {
    pub(super) fn new(
        (client, events): (Client, Events),
        console: Console,
        chat_id: ChatId,
        screen: Screen,
        history: u8,
    ) -> Self {
        Self {
            client,
            events,
            console,
            chat_id,
            screen,
            history: history.into(),
            unsent: Vec::new(),
            synced: false,
            acknowledged_ev: 0,
            brought: 0,
            refused: 0,
            disconnected: false,
            input_ended: None,
        }
    }

    /// Runs the conversation to its end.
    pub(super) async fn run(&mut self) -> End {
        loop {
            if self.is_settled() {
                return Ok(());
            }
            if let Some(up_to_seq) = self.screen.to_mark() {
                self.client.mark_read(self.chat_id, up_to_seq);
            }
            let limit = self.input_ended.map(|ended| ended + LAST_WORDS);
            tokio::select! {
                event = self.events.next() => match event {
                    Some(event) => self.on_event(event).await?,
                    None => return Err(ChatError::Over("the client has ended".to_owned())),
                },
                input = self.console.next(), if self.takes_input() => {
                    if self.on_input(input).await? {
                        return Ok(());
                    }
                }
                () = sleep_until(limit.unwrap_or_else(Instant::now).into()), if limit.is_some() => {
                    // `close` reports messages that may not have arrived.
                    return match self.synced || self.pending() > 0 {
                        true => Ok(()),
                        false => Err(ChatError::Over("no connection".to_owned())),
                    };
                }
            }
        }
    }

    /// Ends it. Messages that may not have arrived are an error; for a script, which reads no notes, so
    /// are refused ones.
    pub(super) async fn close(self, outcome: End) -> End {
        let refused = if self.console.is_terminal() { 0 } else { self.refused };
        let unsent = self.pending() + refused;
        self.client.stop();
        let _ = tokio::time::timeout(GOODBYE, said_goodbye(self.events)).await;
        self.console.close().await;
        match (outcome, unsent) {
            (Ok(()), unsent @ 1..) => Err(ChatError::Unsent(unsent)),
            (outcome, _) => outcome,
        }
    }

    /// The number of messages that are not acknowledged yet.
    fn pending(&self) -> usize {
        let is_tried = |one: &&beseda_client::machine::Pending| one.failed.is_none();
        let in_client = self.client.look(|machine| {
            let timeline = machine.timeline(self.chat_id);
            timeline.map_or(0, |timeline| timeline.pending().iter().filter(is_tried).count())
        });
        self.unsent.len() + in_client
    }

    /// The bytes of pending files that have arrived.
    fn brought(&self) -> u64 {
        self.client.look(|machine| {
            let pending = machine.timeline(self.chat_id).map_or(&[][..], Timeline::pending);
            pending.iter().flat_map(|one| &one.uploads).map(|upload| upload.sent).sum()
        })
    }

    /// Whether the input has ended and all work is done.
    fn is_settled(&self) -> bool {
        let shown = self.synced
            && self.screen.ev >= self.acknowledged_ev
            && self.screen.to_mark().is_none();
        // A user at a terminal does not wait to leave.
        self.input_ended.is_some() && self.pending() == 0 && (shown || self.console.is_terminal())
    }

    /// Whether input is read: a pipe that is faster than the service waits, but a terminal must always
    /// react to Ctrl-C.
    fn takes_input(&self) -> bool {
        self.console.is_terminal() || self.pending() < MAX_UNSENT
    }

    /// Handles an input. Returns whether to leave at once.
    async fn on_input(&mut self, input: Input) -> Result<bool, ChatError> {
        match input {
            Input::Line(text) if text.trim().is_empty() => {}
            Input::Line(line) => match (files::named(&line), check_text(&line)) {
                (Some(path), _) => match files::open(path).await {
                    Ok(file) => self.send(&line, String::new(), vec![file]).await?,
                    Err(error) => self.refuse(path, &error.to_string()).await?,
                },
                (None, Ok(())) => self.send(&line, line.clone(), Vec::new()).await?,
                // The service would refuse it, or the socket that carries it.
                (None, Err(reason)) => self.refuse(&format!("{line:.40}"), reason).await?,
            },
            Input::NotText(line) => self.refuse(&format!("line {line}"), "is not UTF-8").await?,
            Input::End => self.input_ended = Some(Instant::now()),
            Input::Interrupted => return Ok(true),
        }
        Ok(false)
    }

    async fn send(
        &mut self,
        line: &str,
        text: String,
        files: Vec<NewFile>,
    ) -> Result<(), ChatError> {
        if self.disconnected {
            self.show(Line::note(format!("not sent yet: {line}"))).await?;
        }
        if self.synced {
            self.pass(text, files);
        } else {
            self.unsent.push((text, files));
        }
        Ok(())
    }

    fn pass(&self, text: String, files: Vec<NewFile>) {
        let message = NewMessage { text, ..NewMessage::default() };
        self.client.send_with_files(self.chat_id, message, files);
    }

    async fn refuse(&mut self, what: &str, reason: &str) -> Result<(), ChatError> {
        self.refused += 1;
        self.show(Line::note(format!("not sent: {what} ({reason})"))).await
    }

    async fn show(&self, line: Line) -> Result<(), ChatError> {
        match self.console.show(line).await {
            true => Ok(()),
            false => Err(ChatError::Over("nobody reads the output".to_owned())),
        }
    }

    async fn on_event(&mut self, event: Event) -> Result<(), ChatError> {
        match event {
            Event::State(state) => self.on_state(state).await,
            Event::Page { page, .. } => self.on_page(*page).await,
            Event::Frame(frame) => self.on_frame(&frame).await,
            Event::Sent { message, .. } => {
                self.acknowledged_ev = self.acknowledged_ev.max(message.ev);
                self.gets_on();
                Ok(())
            }
            Event::Upload { .. } => {
                let brought = self.brought();
                if std::mem::replace(&mut self.brought, brought) != brought {
                    self.gets_on();
                }
                Ok(())
            }
            Event::NotSent { pending, error, .. } => {
                let files: Vec<_> = pending.uploads.iter().map(|one| one.file.name()).collect();
                let what = format!("{}{}", pending.text, files.join(", "));
                self.refuse(&format!("{what:.40}"), &error.detail).await
            }
            Event::Marked(result) => {
                self.screen.marked(result.read_seq);
                Ok(())
            }
            Event::NotOpened { error, .. } => Err(ChatError::Over(harmless(&error.detail))),
            Event::TokenExpiring { .. } if !self.client.rest().credentials().can_renew() => {
                self.show(Line::note("your token ends within a minute")).await
            }
            Event::TokenExpiring { .. } | Event::Chats | Event::Gone { .. } => Ok(()),
        }
    }

    /// What is pending has its time anew.
    fn gets_on(&mut self) {
        if let Some(since) = &mut self.input_ended {
            *since = Instant::now();
        }
    }

    async fn on_state(&mut self, state: State) -> Result<(), ChatError> {
        match state {
            State::Stopped { why, .. } => Err(ChatError::Over(harmless(&why))),
            State::TokenRefused { why } => Err(ChatError::TokenRefused(harmless(&why))),
            State::Waiting { why, .. } if !std::mem::replace(&mut self.disconnected, true) => {
                self.show(Line::note(format!("connection lost: {why}"))).await
            }
            State::Waiting { .. } | State::Idle | State::Connecting | State::Live => Ok(()),
        }
    }

    async fn on_page(&mut self, mut page: HistoryView) -> Result<(), ChatError> {
        match (self.screen.shown_up_to(&page), page.results.first().map(|first| first.seq)) {
            // After a reset: what lies between was missed.
            (Some(shown), Some(first)) => self.show_missed(shown, first).await?,
            (Some(_), None) => {}
            (None, _) => {
                let surplus = page.results.len().saturating_sub(self.history);
                page.results.drain(..surplus);
                page.has_more_before |= surplus > 0;
            }
        }
        self.learn_names(None, &page.results).await;
        for line in self.screen.begin(&page) {
            self.show(line).await?;
        }
        Ok(())
    }

    /// Shows the messages between two numbers.
    async fn show_missed(&mut self, mut after: i64, before: i64) -> Result<(), ChatError> {
        let chat = self.chat_id.to_string();
        while after + 1 < before {
            let page = self.client.rest().history(&chat, Window::After(after), Some(100)).await;
            let Some(last) = page.as_ref().ok().and_then(|page| page.results.last()) else {
                return self.show(Line::note("some messages before these are not shown")).await;
            };
            after = last.seq;
            let results = page.map(|page| page.results).unwrap_or_default();
            self.learn_names(None, &results).await;
            for line in self.screen.take_all(&results) {
                self.show(line).await?;
            }
        }
        Ok(())
    }

    /// Reads the names of a group's members who are to be shown. Whoever is not found, or not in time, is shown
    /// by their id.
    async fn learn_names(&mut self, frame: Option<&ReceivedFrame>, messages: &[Message]) {
        let strangers = self.screen.strangers(frame, messages);
        let rest = self.client.rest();
        let ask = async {
            for user_id in &strangers {
                if let Ok(user) = rest.get_user(user_id).await {
                    self.screen.names.note(&user);
                }
            }
        };
        if !strangers.is_empty() {
            let _ = tokio::time::timeout(NAMES, ask).await;
        }
    }

    async fn on_frame(&mut self, frame: &ReceivedFrame) -> Result<(), ChatError> {
        self.learn_names(Some(frame), &[]).await;
        for line in self.screen.on_frame(frame) {
            self.show(line).await?;
        }
        if let ReceivedFrame::Synced { .. } = frame {
            self.synced = true;
            for (text, files) in std::mem::take(&mut self.unsent) {
                self.pass(text, files);
            }
            if std::mem::take(&mut self.disconnected) {
                let url = self.client.rest().url();
                self.show(Line::note(format!("connected again, to {url}"))).await?;
            }
        }
        Ok(())
    }
}

async fn said_goodbye(mut events: Events) {
    while !matches!(events.next().await, None | Some(Event::State(State::Idle))) {}
}
