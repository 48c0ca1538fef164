//! What a user of the client does, and the answers to the calls that follow from it.

use std::time::{Duration, Instant};

use beseda_protocol::{
    ClientFrame,
    model::{ChatId, Message},
    rest::{ChatPage, HistoryView, NewMessage, ReadResult},
};

use super::{
    Answer, Call, Event, Machine, Moment, RETRY, State, Timeline, Timer, Upload, outbox::Failed,
};
use crate::{Error, NewFile, Window};

/// A mark that failed is not tried again at once.
const MARK_RETRY: Duration = Duration::from_secs(5);

/// Chats of the list that is read.
const LIST_LIMIT: u8 = 100;

impl Machine {
    // ---- what a user does ----

    /// Opens a chat: reads its newest page, and follows it from there on.
    pub fn open(&mut self, chat_id: ChatId) {
        let timeline = self.timelines.entry(chat_id).or_default();
        if !timeline.is_loaded() && !timeline.is_loading() {
            self.load_newest(chat_id);
        }
    }

    /// Follows a chat no longer, and forgets it but for what is still to be sent.
    pub fn close(&mut self, chat_id: ChatId) {
        self.unfollow(chat_id);
        if let Some(closed) = self.timelines.remove(&chat_id)
            && !closed.outbox.pending.is_empty()
        {
            let kept = Timeline::with_outbox(closed.outbox);
            self.timelines.insert(chat_id, kept);
        }
    }

    /// Reads the page before what is there.
    pub fn load_before(&mut self, chat_id: ChatId) {
        let Some(timeline) = self.timelines.get(&chat_id) else { return };
        if timeline.has_more_before() {
            self.load(chat_id, Window::Before(timeline.low_seq()));
        }
    }

    /// Reads the page after what is there, where the window does not reach the end.
    pub fn load_after(&mut self, chat_id: ChatId) {
        let Some(timeline) = self.timelines.get(&chat_id) else { return };
        if !timeline.is_at_end() {
            self.load(chat_id, Window::After(timeline.high_seq()));
        }
    }

    /// Sends a message, now or once there is a connection; its files are uploaded before. It must have a
    /// `client_msg_id`, under which it is repeated until it is known to be stored.
    pub fn send(&mut self, chat_id: ChatId, message: NewMessage, files: Vec<NewFile>) {
        let mut uploads = Vec::new();
        for file in files {
            self.uploads += 1;
            uploads.push(Upload::new(self.uploads, file));
        }
        self.timelines.entry(chat_id).or_default().outbox.push(message, uploads);
        self.start_uploads();
        self.send_next(chat_id);
    }

    /// Sends a message again that failed, with its files from where they were; its place is at the end of what is
    /// on its way.
    pub fn send_again(&mut self, chat_id: ChatId, client_msg_id: &str) {
        if let Some(timeline) = self.timelines.get_mut(&chat_id) {
            timeline.outbox.push_again(client_msg_id);
        }
        self.start_uploads();
        self.send_next(chat_id);
    }

    /// Takes back a message that failed or waits, and gives up its uploads. One that is being sent at this moment may
    /// arrive nevertheless.
    pub fn discard(&mut self, chat_id: ChatId, client_msg_id: &str) {
        let Some(timeline) = self.timelines.get_mut(&chat_id) else { return };
        if let Some(pending) = timeline.outbox.take(client_msg_id) {
            self.give_up(chat_id, pending);
            self.start_uploads();
            self.send_next(chat_id);
        }
    }

    /// Marks as read up to a `seq`, until that has succeeded or the chat is gone.
    pub fn mark_read(&mut self, chat_id: ChatId, up_to_seq: i64) {
        if let Some(timeline) = self.timelines.get_mut(&chat_id) {
            timeline.to_mark = timeline.to_mark.max(up_to_seq);
            self.mark_next(chat_id);
        }
    }

    /// Tells the others; say it again every few seconds while it lasts.
    pub fn typing(&mut self, chat_id: ChatId, typing: bool) {
        if self.followed.contains_key(&chat_id) {
            self.transmit(&ClientFrame::Typing { chat_id: Some(chat_id), typing });
        }
    }

    // ---- calls ----

    pub(super) fn load_newest(&mut self, chat_id: ChatId) {
        self.load(chat_id, Window::Newest);
    }

    fn load(&mut self, chat_id: ChatId, window: Window) {
        self.timers.cancel(Timer::History(chat_id));
        let Some(timeline) = self.timelines.get_mut(&chat_id) else { return };
        let load = timeline.begin_load(window);
        self.call(Call::History { chat_id, load, window, limit: self.settings.page });
    }

    pub(super) fn read_list(&mut self) {
        self.timers.cancel(Timer::List);
        self.read_list_again = self.reading_list;
        if !self.reading_list {
            self.reading_list = true;
            self.call(Call::List { asked: self.chats.now(), limit: LIST_LIMIT });
        }
    }

    pub(super) fn send_next(&mut self, chat_id: ChatId) {
        if self.timers.contains(Timer::Outbox(chat_id)) {
            return;
        }
        let next =
            self.timelines.get_mut(&chat_id).and_then(|timeline| timeline.outbox.start_next());
        if let Some(message) = next {
            self.call(Call::Send { asked: self.chats.now(), chat_id, message });
        }
    }

    pub(super) fn mark_next(&mut self, chat_id: ChatId) {
        if self.timers.contains(Timer::Mark(chat_id)) {
            return;
        }
        let Some(timeline) = self.timelines.get_mut(&chat_id) else { return };
        let up_to_seq = timeline.to_mark;
        if !timeline.marking && up_to_seq > timeline.read_seq() {
            timeline.marking = true;
            self.call(Call::Mark { asked: self.chats.now(), chat_id, up_to_seq });
        }
    }

    // ---- answers ----

    /// A call came to its end.
    pub fn on_answer(&mut self, now: Instant, answer: Answer) {
        match answer {
            Answer::List { asked, outcome } => self.on_list(now, asked, outcome),
            Answer::History { chat_id, load, window, outcome } => {
                self.on_history(now, chat_id, load, window, outcome);
            }
            Answer::Send { asked, chat_id, client_msg_id, outcome } => match outcome {
                // Perhaps stored by a commit that is lost; the key makes a second attempt harmless.
                Ok(_) if self.chats.is_past(asked) => self.repeat_send(chat_id),
                Ok(message) => self.on_sent(chat_id, &client_msg_id, message),
                Err(error) => self.on_not_sent(now, chat_id, &client_msg_id, error),
            },
            Answer::Upload { upload, attempt, outcome } => {
                self.on_upload(now, upload, attempt, outcome);
            }
            Answer::Mark { asked, chat_id, outcome } => {
                self.on_marked(now, asked, chat_id, outcome)
            }
            Answer::Renew(Ok(Some(token))) => {
                self.token_since = Some(now);
                let id = self.next_id("auth");
                self.transmit(&ClientFrame::Auth { id: &id, token: &token });
            }
            // Asked once more when the socket ends for it.
            Answer::Renew(Ok(None)) => {}
            Answer::Renew(Err(_)) => self.timers.set(Timer::Renew, now + RETRY),
        }
    }

    fn on_list(&mut self, now: Instant, asked: Moment, outcome: Result<(ChatPage, i64), Error>) {
        self.reading_list = false;
        match outcome {
            Ok((page, total_unread)) => {
                self.chats.set_top(page, total_unread, asked);
                self.emit(Event::Chats);
                if std::mem::take(&mut self.read_list_again) {
                    self.read_list();
                }
            }
            // A refused token is told by the connection, which is refused as well.
            Err(error) if error.is_temporary() => {
                self.timers.set(Timer::List, now + error.retry_after.unwrap_or(RETRY));
            }
            Err(_) => {}
        }
    }

    fn on_history(
        &mut self,
        now: Instant,
        chat_id: ChatId,
        load: u64,
        window: Window,
        outcome: Result<HistoryView, Error>,
    ) {
        let me = self.me.clone();
        let Some(timeline) = self.timelines.get_mut(&chat_id) else { return };
        let wanted = timeline.end_load(load, window, outcome.as_ref().ok(), me.as_ref());
        match outcome {
            Ok(_) if !wanted => {}
            Ok(page) => {
                self.emit(Event::Page { chat_id, window, page: Box::new(page) });
                if !self.followed.contains_key(&chat_id) {
                    self.follow(chat_id);
                }
            }
            Err(error) if error.known() == Some(beseda_protocol::ErrorCode::ChatNotFound) => {
                self.gone(chat_id, None, None);
                if self.settings.only.is_some() {
                    self.set_state(State::Stopped { code: 4004, why: error.detail });
                }
            }
            Err(error) if wanted && window == Window::Newest => {
                if error.is_temporary() || error.is_unauthenticated() {
                    let pause = error.retry_after.unwrap_or(RETRY);
                    self.timers.set(Timer::History(chat_id), now + pause);
                    if self.settings.only.is_some() && self.is_not_begun() {
                        // Its socket waits for this page.
                        let why = error.detail;
                        self.set_state(match error.status {
                            401 => State::TokenRefused { why },
                            _ => State::Waiting { why, until: now + pause },
                        });
                    }
                } else {
                    self.emit(Event::NotOpened { chat_id, error });
                }
            }
            Err(_) => {}
        }
    }

    fn on_sent(&mut self, chat_id: ChatId, client_msg_id: &str, message: Box<Message>) {
        let me = self.me.clone();
        if let Some(timeline) = self.timelines.get_mut(&chat_id) {
            timeline.outbox.succeeded(client_msg_id);
            timeline.accept((*message).clone(), me.as_ref());
        }
        self.emit(Event::Sent { chat_id, message });
        self.send_next(chat_id);
    }

    fn repeat_send(&mut self, chat_id: ChatId) {
        if let Some(timeline) = self.timelines.get_mut(&chat_id) {
            timeline.outbox.release();
        }
        self.send_next(chat_id);
    }

    fn on_not_sent(&mut self, now: Instant, chat_id: ChatId, client_msg_id: &str, error: Error) {
        let is_live = matches!(self.state(), State::Live);
        let settings = self.settings;
        let Some(timeline) = self.timelines.get_mut(&chat_id) else { return };
        match timeline.outbox.failed(client_msg_id, &error, is_live, &settings) {
            Some(Failed::Again(pause)) => self.timers.set(Timer::Outbox(chat_id), now + pause),
            Some(Failed::ForGood(pending)) => {
                self.emit(Event::NotSent { chat_id, pending, error });
                self.send_next(chat_id);
            }
            None => self.send_next(chat_id),
        }
    }

    fn on_marked(
        &mut self,
        now: Instant,
        asked: Moment,
        chat_id: ChatId,
        outcome: Result<ReadResult, Error>,
    ) {
        let is_past = self.chats.is_past(asked);
        let Some(timeline) = self.timelines.get_mut(&chat_id) else { return };
        timeline.marking = false;
        match outcome {
            // The message that it was for may never have been.
            Ok(_) if is_past => timeline.to_mark = timeline.read_seq(),
            Ok(result) => {
                timeline.marked(result.read_seq);
                // Past the head it is clamped: to ask once more would go on for ever.
                timeline.to_mark = timeline.to_mark.min(result.read_seq.max(timeline.head_seq()));
                self.chats.set_read(&result, asked);
                self.emit(Event::Marked(result));
                self.mark_next(chat_id);
            }
            Err(error) if error.is_temporary() || error.is_unauthenticated() => {
                let pause = error.retry_after.unwrap_or(MARK_RETRY);
                self.timers.set(Timer::Mark(chat_id), now + pause);
            }
            Err(_) => timeline.to_mark = timeline.read_seq(),
        }
    }
}
