//! What a machine asks for, and what it is answered.

use beseda_protocol::{
    ReceivedFrame,
    frame::GoneReason,
    model::{ChatId, Message},
    rest::{ChatPage, HistoryView, NewMessage, ReadResult},
};

use super::{Brought, Moment, Pending, Position, State, Upload, UploadStep};
use crate::{Error, Window};

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Effect {
    /// Get a ticket and open its socket: of the one chat from `position`, or of many. A failure goes to
    /// [`Machine::on_refused`](super::Machine::on_refused) with the number of the `attempt`.
    Connect { attempt: u64, renew: bool, only: Option<ChatId>, position: Option<Position> },
    /// Give up the socket, and an attempt under way.
    Disconnect,
    /// Send this text frame, if there is a socket.
    Transmit(String),
    /// Make a call; its outcome goes to [`Machine::on_answer`](super::Machine::on_answer).
    Call(Call),
    /// Give up the call of that upload, if it is under way. Its answer does no harm.
    Abort(u64),
    /// Tell the user of the client.
    Emit(Box<Event>),
}

/// A call to be made. All but what it is about goes into its [`Answer`] unchanged.
#[derive(Debug)]
pub enum Call {
    /// The top of the list of chats, and the number of all unread messages.
    List {
        asked: Moment,
        limit: u8,
    },
    History {
        chat_id: ChatId,
        load: u64,
        window: Window,
        limit: Option<u8>,
    },
    Send {
        asked: Moment,
        chat_id: ChatId,
        message: NewMessage,
    },
    Mark {
        asked: Moment,
        chat_id: ChatId,
        up_to_seq: i64,
    },
    Upload {
        chat_id: ChatId,
        upload: u64,
        attempt: u64,
        step: UploadStep,
    },
    /// Another token, though the one in use is still good.
    Renew,
}

/// What a call gave.
#[derive(Debug)]
pub enum Answer {
    List {
        asked: Moment,
        outcome: Result<(ChatPage, i64), Error>,
    },
    History {
        chat_id: ChatId,
        load: u64,
        window: Window,
        outcome: Result<HistoryView, Error>,
    },
    Send {
        asked: Moment,
        chat_id: ChatId,
        client_msg_id: String,
        outcome: Result<Box<Message>, Error>,
    },
    Mark {
        asked: Moment,
        chat_id: ChatId,
        outcome: Result<ReadResult, Error>,
    },
    Upload {
        upload: u64,
        attempt: u64,
        outcome: Result<Brought, Error>,
    },
    /// The token, or `None`: there is none to be had.
    Renew(Result<Option<String>, Error>),
}

/// What a client tells its user.
#[derive(Debug, Clone)]
pub enum Event {
    /// The connection changed.
    State(State),
    /// Something in the list of chats changed.
    Chats,
    /// A page of an opened chat was read. The first one of a chat, and the one after a
    /// [`ReceivedFrame::Reset`], is [`Window::Newest`] and takes the place of what was there.
    Page { chat_id: ChatId, window: Window, page: Box<HistoryView> },
    /// A change of an opened chat: each `ev` once, ascending, without a hole; `skipped` stands for those
    /// that are not for this user. Also `subscribed`, `synced`, `reset`, and what has no number: `typing`,
    /// `presence`, and in a chat without receipts the user's own `chat.read`.
    Frame(Box<ReceivedFrame>),
    /// A message of this client is stored. Its frame may have come before, or comes later.
    Sent { chat_id: ChatId, message: Box<Message> },
    /// A file of a message is on its way: it got on, waits, is there, failed or was given up. `file` counts the
    /// files of the message, from 0.
    Upload { chat_id: ChatId, client_msg_id: String, file: usize, upload: Box<Upload> },
    /// A message, or a file of it, was refused for good or failed too often; it stays among the pending ones.
    NotSent { chat_id: ChatId, pending: Box<Pending>, error: Error },
    /// The read marker moved by a mark of this client.
    Marked(ReadResult),
    /// A chat is no longer the user's; `reason` is `None` where the server did not give one.
    Gone { chat_id: ChatId, reason: Option<GoneReason> },
    /// The history of a chat that is being opened was refused for good.
    NotOpened { chat_id: ChatId, error: Error },
    /// The token ends within so many seconds. It is renewed where that is possible.
    TokenExpiring { expires_in: i64 },
}

impl Event {
    pub(super) fn of_upload(chat_id: ChatId, pending: &Pending, file: usize) -> Self {
        let client_msg_id = pending.client_msg_id.clone();
        Self::Upload {
            chat_id,
            client_msg_id,
            file,
            upload: Box::new(pending.uploads[file].clone()),
        }
    }
}
