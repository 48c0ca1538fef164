//! Executes a client's commands with the same operations as REST.

use serde_json::value::RawValue;

use super::{
    command::Command,
    connection::{Connection, End, Flow},
};
use crate::{
    error::Error,
    limits::{Class, SocketLimits},
    model::ChatId,
    protocol::{AckResult, Close, CommandId, ServerFrame},
};

impl Connection {
    pub(super) async fn on_request(
        &mut self,
        id: Option<CommandId>,
        command: Result<Command, Error>,
    ) -> Flow {
        let outcome = match self.check_command().and(command) {
            Ok(command) => self.on_command(id.as_deref(), command).await?,
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            self.context.metrics.count_error(error.code());
            if let Error::Internal(cause) | Error::Unavailable(Some(cause)) = &error {
                let cause = crate::error::chain(cause);
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
            if error.status().is_client_error() {
                self.count_refusal()?;
            }
        }
        Ok(())
    }

    /// Takes a token from the socket's bucket of commands.
    fn check_command(&self) -> Result<(), Error> {
        self.limits.as_ref().map_or(Ok(()), SocketLimits::check_command)
    }

    /// Counts WebSocket's own pings and pongs, which the library has answered already, like
    /// commands.
    pub(super) fn on_heartbeat(&self) -> Flow {
        if self.check_command().is_err() { self.count_refusal() } else { Ok(()) }
    }

    /// Closes the socket once the user's refusal budget is spent.
    fn count_refusal(&self) -> Flow {
        let within = self.context.limits.take_refusal(self.session.user_id());
        if within { Ok(()) } else { Err(End::Close(Close::RateLimited)) }
    }

    async fn on_command(
        &mut self,
        id: Option<&RawValue>,
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
                    Ok(chat_id)
                        if self.session.is_single() && self.session.is_subscribed(chat_id) =>
                    {
                        Ok(Err(Error::Forbidden("This socket follows its one chat already.")))
                    }
                    Ok(chat_id)
                        if !self.session.is_subscribed(chat_id)
                            && !self.context.limits.may_follow(self.subscriptions.len()) =>
                    {
                        Ok(Err(Error::Forbidden("This socket follows as many chats as one may.")))
                    }
                    Ok(chat_id) => self.subscribe(chat_id, id, after).await,
                    Err(error) => Ok(Err(error)),
                };
            }
            Command::Unsubscribe { chat_id } => self.chat_of(chat_id).and_then(|chat_id| {
                if self.session.is_single() {
                    return Err(Error::Forbidden("This socket follows its one chat."));
                }
                self.session.unsubscribe(chat_id);
                self.end_subscription(chat_id);
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
                // A subscription implies membership.
                Ok(chat_id) if self.session.is_subscribed(chat_id) => {
                    match self.limits.as_ref().map_or(Ok(()), SocketLimits::check_typing) {
                        Ok(()) => chats.tell_typing(&user_id, chat_id, typing).await,
                        Err(error) => Err(error),
                    }
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

    /// Resolves the chat of a command that writes, if the user's rate allows it.
    fn permit(&self, named: Option<ChatId>) -> Result<ChatId, Error> {
        let chat_id = self.chat_of(named)?;
        self.context.limits.check(self.session.user_id(), Class::Sends)?;
        Ok(chat_id)
    }

    pub(super) fn ack(&mut self, id: Option<&RawValue>, result: AckResult<'_>) {
        self.out.push(ServerFrame::Ack { id, result }.encode());
    }

    /// Replaces the socket's token by a newer one of the same user.
    async fn renew(&mut self, id: Option<&RawValue>, token: &str) -> Result<(), Error> {
        let identity = self.context.authenticate(token).await?;
        if identity.user_id() != self.session.user_id() {
            return Err(Error::Forbidden("This token is another user's."));
        }
        self.token_expiry.renew(identity.issued_at, identity.expires_at);
        self.session.renew(identity.issued_at);
        let token_expires_at = self.token_expiry.expires_at();
        self.ack(id, AckResult::Authenticated { token_expires_at });
        Ok(())
    }
}
