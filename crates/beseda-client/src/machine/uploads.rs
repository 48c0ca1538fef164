//! Files on their way to the service: announced, then brought to where it says. What breaks off goes on
//! from where it was; without a connection it waits for one. Their message is the business of the outbox.

use std::time::{Duration, Instant};

use beseda_protocol::{
    model::{AttachmentId, ChatId},
    rest::{AttachmentTicket, UploadLink},
};

use super::{Call, Effect, Event, Machine, Pending, State, Timer, retries::Retries};
use crate::{Error, NewFile};

/// Uploads under way at a time; others wait for them.
const AT_ONCE: usize = 2;

/// Attempts over a working connection, if a message has no more: while a server believes in a line that is
/// dead, it refuses another one.
const ATTEMPTS: u32 = 8;

/// Statuses of a link that has expired, or whose attachment was removed.
const OVER: [u16; 4] = [401, 403, 404, 410];

/// A file on its way.
#[derive(Debug, Clone)]
pub struct Upload {
    pub file: NewFile,
    pub phase: UploadPhase,
    /// Bytes that are there, as far as that is known.
    pub sent: u64,
    /// Bytes of the file; `None` until it was announced.
    pub size: Option<u64>,
    /// Names it in calls and timers.
    pub(super) number: u64,
    /// Of the calls that count.
    attempt: u64,
    ticket: Option<AttachmentTicket>,
    /// Bytes that are certainly there; `None`: it is to be asked.
    there: Option<u64>,
    /// The link was over and another one is in use; that one can't have expired.
    is_renewed: bool,
    retries: Retries,
}

/// How far an upload is.
#[derive(Debug, Clone, PartialEq)]
pub enum UploadPhase {
    /// For its turn, for a connection, or for another attempt.
    Waiting,
    Sending,
    Done(AttachmentId),
    /// No attempt is made any more, until its message is sent again.
    Failed(Error),
    /// Its message was discarded, or its chat is gone.
    Aborted,
}

/// A call of an upload.
#[derive(Debug)]
pub enum UploadStep {
    Announce(NewFile),
    /// How many bytes are there?
    Ask {
        link: UploadLink,
        size: u64,
    },
    /// Bring the bytes from `from` on, or a part of them: all, where they go to an object store.
    Bring {
        link: UploadLink,
        file: NewFile,
        from: u64,
        size: u64,
    },
}

/// What a call of an upload gave.
#[derive(Debug)]
pub enum Brought {
    Announced {
        ticket: Box<AttachmentTicket>,
        size: u64,
    },
    /// So many bytes are there, from the first one on.
    There(u64),
}

/// Whether a link takes bytes in parts and tells how many are there. An object store does neither.
pub(crate) fn takes_parts(link: &UploadLink) -> bool {
    link.url.contains("/api/v1/uploads/")
}

impl Upload {
    pub(crate) fn new(number: u64, file: NewFile) -> Self {
        Self {
            file,
            phase: UploadPhase::Waiting,
            sent: 0,
            size: None,
            number,
            attempt: 0,
            ticket: None,
            there: None,
            is_renewed: false,
            retries: Retries::default(),
        }
    }

    pub(crate) fn step(&self) -> UploadStep {
        let (Some(ticket), Some(size)) = (&self.ticket, self.size) else {
            return UploadStep::Announce(self.file.clone());
        };
        let link = ticket.upload.clone();
        match self.there {
            None if takes_parts(&link) => UploadStep::Ask { link, size },
            there => {
                let (file, from) = (self.file.clone(), there.unwrap_or(0));
                UploadStep::Bring { link, file, from, size }
            }
        }
    }

    /// Takes what a step gave: whether it is done, or there is a next step at once.
    ///
    /// # Errors
    /// The attempt failed.
    pub(crate) fn take(&mut self, outcome: Result<Brought, Error>) -> Result<(), Error> {
        match outcome {
            Ok(Brought::Announced { ticket, size }) => {
                (self.ticket, self.size) = (Some(*ticket), Some(size));
                (self.there, self.sent) = (Some(0), 0);
            }
            Ok(Brought::There(now)) => {
                if self.there.is_some_and(|before| now <= before) {
                    self.there = None;
                    return Err(Error::network(std::io::Error::other("it does not get on")));
                }
                if now > self.sent {
                    // A line that breaks again and again still gets there.
                    (self.retries, self.is_renewed) = (Retries::default(), false);
                }
                (self.there, self.sent) = (Some(now), now);
                if let Some(ticket) = self.ticket.as_ref().filter(|_| Some(now) == self.size) {
                    self.phase = UploadPhase::Done(ticket.attachment_id);
                }
            }
            Err(error)
                if OVER.contains(&error.status) && self.ticket.is_some() && !self.is_renewed =>
            {
                self.start_over();
                self.is_renewed = true;
            }
            Err(error) => {
                self.there = None;
                return Err(error);
            }
        }
        Ok(())
    }

    /// How an attempt that failed is followed; it has failed for good where this gives nothing.
    pub(crate) fn pause(
        &mut self,
        error: &Error,
        is_live: bool,
        attempts: u32,
        random: fn() -> f64,
    ) -> Option<Duration> {
        let pause = self.retries.pause(error, is_live, attempts.max(ATTEMPTS), random);
        self.phase = match pause {
            Some(_) => UploadPhase::Waiting,
            None => UploadPhase::Failed(error.clone()),
        };
        pause
    }

    fn start_over(&mut self) {
        (self.ticket, self.there, self.sent) = (None, None, 0);
    }

    /// It is tried again from where it was; from its beginning where the service knows it no longer.
    pub(super) fn retry(&mut self, is_forgotten: bool) {
        self.is_renewed = false;
        if is_forgotten {
            self.start_over();
        }
        if is_forgotten || matches!(self.phase, UploadPhase::Failed(_)) {
            self.phase = UploadPhase::Waiting;
        }
    }

    /// The answer of a call under way no longer counts.
    fn halt(&mut self, phase: UploadPhase) -> u64 {
        (self.phase, self.there) = (phase, None);
        self.number
    }

    /// Whether little is lost where its call is given up.
    pub(super) fn can_go_on(&self) -> bool {
        self.ticket.as_ref().is_none_or(|ticket| takes_parts(&ticket.upload))
    }

    pub(super) fn attachment_id(&self) -> Option<AttachmentId> {
        match self.phase {
            UploadPhase::Done(id) => Some(id),
            _ => None,
        }
    }
}

impl Machine {
    /// Begins those that may begin, in the order in which they were given.
    pub(super) fn start_uploads(&mut self) {
        while let Some(number) = self.next_upload() {
            let Some((_, pending, at)) = self.find_upload(number) else { return };
            let upload = &mut pending.uploads[at];
            upload.phase = UploadPhase::Sending;
            upload.attempt += 1;
            self.tell_upload(number);
            self.bring(number);
        }
    }

    fn next_upload(&self) -> Option<u64> {
        let all = self.timelines.values().flat_map(|timeline| &timeline.outbox.pending);
        let (mut sending, mut next) = (0, None);
        for pending in all {
            for Upload { phase, number, .. } in &pending.uploads {
                match phase {
                    UploadPhase::Sending => sending += 1,
                    UploadPhase::Waiting
                        if pending.failed.is_none()
                            && !self.timers.contains(Timer::Upload(*number)) =>
                    {
                        next = Some(next.map_or(*number, |first: u64| first.min(*number)));
                    }
                    _ => {}
                }
            }
        }
        next.filter(|_| sending < AT_ONCE)
    }

    /// A pause that the lost connection made is over.
    pub(super) fn resume_uploads(&mut self) {
        self.timers.cancel_those(|timer| matches!(timer, Timer::Upload(_)));
        self.start_uploads();
    }

    /// Those under way wait until there is a reason to go on.
    pub(super) fn halt_uploads(&mut self, which: impl Fn(&Upload) -> bool) {
        let all = self.timelines.values_mut().flat_map(|timeline| &mut timeline.outbox.pending);
        let sending = all.flat_map(|pending| &mut pending.uploads);
        let sending =
            sending.filter(|upload| upload.phase == UploadPhase::Sending && which(upload));
        let halted: Vec<u64> = sending.map(|upload| upload.halt(UploadPhase::Waiting)).collect();
        for number in halted {
            self.effects.push_back(Effect::Abort(number));
            self.tell_upload(number);
        }
    }

    /// Gives up the uploads of a message that nobody wants any more; what the service has of them goes by itself.
    pub(super) fn give_up(&mut self, chat_id: ChatId, mut pending: Pending) {
        for at in 0..pending.uploads.len() {
            let upload = &mut pending.uploads[at];
            if upload.attachment_id().is_some() {
                continue;
            }
            let was_sending = upload.phase == UploadPhase::Sending;
            let number = upload.halt(UploadPhase::Aborted);
            self.timers.cancel(Timer::Upload(number));
            if was_sending {
                self.effects.push_back(Effect::Abort(number));
            }
            self.emit(Event::of_upload(chat_id, &pending, at));
        }
    }

    pub(super) fn on_upload(
        &mut self,
        now: Instant,
        number: u64,
        attempt: u64,
        outcome: Result<Brought, Error>,
    ) {
        let (is_live, settings) = (matches!(self.state(), State::Live), self.settings);
        let Some((chat_id, pending, at)) = self.find_upload(number) else {
            // Its message was stored in an earlier run.
            return self.start_uploads();
        };
        let upload = &mut pending.uploads[at];
        if upload.phase != UploadPhase::Sending || upload.attempt != attempt {
            return;
        }
        let (mut pause, mut not_sent) = (None, None);
        match upload.take(outcome) {
            Ok(()) if pending.failed.is_some() && upload.phase == UploadPhase::Sending => {
                // Another of its files was refused meanwhile.
                upload.halt(UploadPhase::Waiting);
            }
            Ok(()) => {}
            Err(error) => {
                pause = upload.pause(&error, is_live, settings.attempts, settings.random);
                if pause.is_none() && pending.failed.is_none() {
                    pending.failed = Some(error.clone());
                    not_sent = Some((Box::new(pending.clone()), error));
                }
            }
        }
        let goes_on = pending.uploads[at].phase == UploadPhase::Sending;
        self.tell_upload(number);
        if let Some(pause) = pause {
            self.timers.set(Timer::Upload(number), now + pause);
        }
        if let Some((pending, error)) = not_sent {
            self.emit(Event::NotSent { chat_id, pending, error });
        }
        if goes_on {
            self.bring(number);
        } else {
            self.send_next(chat_id);
            self.start_uploads();
        }
    }

    fn find_upload(&mut self, number: u64) -> Option<(ChatId, &mut Pending, usize)> {
        self.timelines.iter_mut().find_map(|(chat_id, timeline)| {
            timeline.outbox.pending.iter_mut().find_map(|pending| {
                let at = pending.uploads.iter().position(|upload| upload.number == number)?;
                Some((*chat_id, pending, at))
            })
        })
    }

    fn bring(&mut self, number: u64) {
        let Some((chat_id, pending, at)) = self.find_upload(number) else { return };
        let upload = &pending.uploads[at];
        let (attempt, step) = (upload.attempt, upload.step());
        self.call(Call::Upload { chat_id, upload: number, attempt, step });
    }

    fn tell_upload(&mut self, number: u64) {
        if let Some((chat_id, pending, at)) = self.find_upload(number) {
            let event = Event::of_upload(chat_id, pending, at);
            self.emit(event);
        }
    }
}
