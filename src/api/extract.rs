//! Extractors of the handlers: the caller, the chat, the fields of the body.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    body::{HttpBody, to_bytes},
    extract::{ConnectInfo, FromRequest, FromRequestParts, RawPathParams, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use beseda_protocol::bounds::MAX_DEVICE_ID_CHARS;
use uuid::Uuid;

use super::{MAX_BODY_BYTES, MAX_BULK_BODY_BYTES, permit};
use crate::{
    auth::Identity,
    chat::{Caller, ChatRef, parse_emoji},
    context::Context,
    error::Error,
    input::{Fields, Params},
    limits::{Allowance, Class},
    model::{ChatId, MessageId, ReportId, UserId, parse_id},
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// The authenticated caller; a handler without this extractor is public.
#[derive(Debug, Clone)]
pub(super) struct AuthUser(pub Arc<Identity>);

impl AuthUser {
    pub(super) fn id(&self) -> &UserId {
        self.0.user_id()
    }

    /// The caller of operations that the host application may do too.
    pub(super) fn caller(&self) -> Caller<'_> {
        Caller { user: self.id(), is_host: self.0.admin }
    }

    pub(super) fn require_admin(&self) -> Result<(), Error> {
        if self.0.admin {
            Ok(())
        } else {
            Err(Error::Forbidden("This takes a token with the scope chat:admin."))
        }
    }
}

/// The layer of every route that requires a token: authenticates, and bounds the time until the
/// response begins.
pub(super) async fn guard(
    State((context, class)): State<(Context, Class)>,
    request: Request,
    next: Next,
) -> Response {
    tokio::time::timeout(context.config.request_timeout, admit(&context, class, request, next))
        .await
        .unwrap_or_else(|_| Error::Timeout.into_response())
}

/// Verifies the token, then the rate of its class and the user's requests in flight.
async fn admit(context: &Context, class: Class, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    if let Err((error, allowance)) = context.check_address(peer, request.headers()) {
        let mut response = error.into_response();
        tell(&mut response, &allowance);
        return response;
    }
    let identity = match authenticate(context, request.headers()).await {
        Ok(identity) => identity,
        Err(error) => return error.into_response(),
    };
    // The host application's server acts for all users, so the limits of one user do not apply to
    // it.
    let checked =
        if identity.admin { Ok(None) } else { context.limits.check(identity.user_id(), class) };
    let (mut response, allowance) = match checked {
        Ok(allowance) => (answer(context, identity, request, next).await, allowance),
        Err(error) => {
            let allowance = error.retry_after().and_then(|wait| context.limits.spent(class, wait));
            (error.into_response(), allowance)
        }
    };
    if let Some(allowance) = allowance {
        tell(&mut response, &allowance);
    }
    response
}

/// Runs the handler, unless the user has too many requests in flight; the response counts until the
/// client has read it.
async fn answer(
    context: &Context,
    identity: Arc<Identity>,
    mut request: Request,
    next: Next,
) -> Response {
    let permit = if identity.admin {
        None
    } else {
        match context.limits.take_request_permit(identity.user_id()) {
            Ok(permit) => permit,
            Err(error) => return error.into_response(),
        }
    };
    request.extensions_mut().insert(AuthUser(identity));
    let response = next.run(request).await;
    match permit {
        Some(permit) => permit::keep(response, permit),
        None => response,
    }
}

/// Adds the state of the rate limit to a response.
fn tell(response: &mut Response, Allowance { limit, remaining, reset }: &Allowance) {
    let headers = response.headers_mut();
    headers.insert(LIMIT, HeaderValue::from(*limit));
    headers.insert(REMAINING, HeaderValue::from(*remaining));
    headers.insert(RESET, HeaderValue::from(reset.as_secs_f64().ceil() as u64));
}

async fn authenticate(context: &Context, headers: &HeaderMap) -> Result<Arc<Identity>, Error> {
    context.authenticate(bearer(headers)?.ok_or(Error::Unauthenticated)?).await
}

/// Returns the token of `Authorization: Bearer`; `None` without such a header.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Error> {
    let Some(value) = single(headers, header::AUTHORIZATION)? else { return Ok(None) };
    let value = value.to_str().map_err(|_| Error::TokenInvalid("it is not ASCII"))?;
    // The scheme is case-insensitive (RFC 9110 §11.1).
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
        _ => Err(Error::Unauthenticated),
    }
}

/// Returns a header that may occur only once: of two, a proxy in front might use the other one.
pub(super) fn single(headers: &HeaderMap, name: HeaderName) -> Result<Option<&HeaderValue>, Error> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(Error::InvalidRequest("A header is there twice that may be once.")),
        (value, None) => Ok(value),
    }
}

/// Returns the header `Idempotency-Key`.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Error> {
    let Some(value) = single(headers, IDEMPOTENCY_KEY)? else { return Ok(None) };
    let key = std::str::from_utf8(value.as_bytes());
    key.map(Some).map_err(|_| Error::InvalidRequest("Idempotency-Key is not UTF-8."))
}

impl<S: Send + Sync> FromRequestParts<S> for AuthUser {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        // Missing only if the route was registered without its guard.
        parts.extensions.get::<Self>().cloned().ok_or(Error::Unauthenticated)
    }
}

pub(super) async fn path_param<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
    name: &str,
) -> Result<String, Error> {
    let params = RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|_| Error::InvalidRequest("The path is not UTF-8 once decoded."))?;
    params
        .iter()
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned())
        .ok_or(Error::RouteNotFound)
}

/// `{chat}`: an id or a `room_name`. The operation checks membership.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChatPath(pub ChatId);

impl FromRequestParts<Context> for ChatPath {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Error> {
        let raw = path_param(parts, context, "chat").await?;
        let chat = ChatRef::parse(&raw).ok_or(Error::ChatNotFound)?;
        let user = AuthUser::from_request_parts(parts, context).await?;
        let member = (!user.0.admin).then(|| user.id());
        context.chats.resolve(&chat, member).await.map(Self)
    }
}

/// `{chat}` of a call that takes no membership. A name that is unknown becomes the nil id, which no chat
/// has, so that it is refused by the same operation as a chat that exists.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnyChatPath(pub ChatId);

impl FromRequestParts<Context> for AnyChatPath {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Error> {
        let raw = path_param(parts, context, "chat").await?;
        let chat = ChatRef::parse(&raw).ok_or(Error::ChatNotFound)?;
        match context.chats.resolve(&chat, None).await {
            Err(Error::ChatNotFound) => Ok(Self(ChatId::nil())),
            resolved => resolved.map(Self),
        }
    }
}

/// `{message_id}`. An invalid id becomes the nil id, which no message has, so that membership of
/// the chat is checked first.
#[derive(Debug, Clone, Copy)]
pub(super) struct MessagePath(pub MessageId);

impl FromRequestParts<Context> for MessagePath {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Error> {
        let raw = path_param(parts, context, "message_id").await?;
        Ok(Self(parse_id(&raw).unwrap_or(MessageId::nil())))
    }
}

/// `{attachment_id}`. An invalid id becomes the nil id, as that of a message does.
#[derive(Debug, Clone, Copy)]
pub(super) struct AttachmentPath(pub Uuid);

impl FromRequestParts<Context> for AttachmentPath {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Error> {
        let raw = path_param(parts, context, "attachment_id").await?;
        Ok(Self(parse_id(&raw).unwrap_or(Uuid::nil())))
    }
}

/// `{emoji}` of a reaction.
#[derive(Debug, Clone)]
pub(super) struct EmojiPath(pub String);

impl FromRequestParts<Context> for EmojiPath {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Error> {
        let raw = path_param(parts, context, "emoji").await?;
        parse_emoji(&raw).map(Self).map_err(|reason| Error::field("emoji", reason))
    }
}

/// `{report_id}`. An invalid id becomes the nil id, as that of a message does.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReportPath(pub ReportId);

impl FromRequestParts<Context> for ReportPath {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Error> {
        let raw = path_param(parts, context, "report_id").await?;
        Ok(Self(parse_id(&raw).unwrap_or(ReportId::nil())))
    }
}

/// `{invite_id}`. An invalid id becomes the nil id, as that of a message does.
#[derive(Debug, Clone, Copy)]
pub(super) struct InvitePath(pub Uuid);

impl FromRequestParts<Context> for InvitePath {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Error> {
        let raw = path_param(parts, context, "invite_id").await?;
        Ok(Self(parse_id(&raw).unwrap_or(Uuid::nil())))
    }
}

/// `{code}` of an invitation.
#[derive(Debug, Clone)]
pub(super) struct CodePath(pub String);

impl FromRequestParts<Context> for CodePath {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Error> {
        let raw = path_param(parts, context, "code").await?;
        // As long as a code is, and of its letters: Postgres takes not every text.
        let fits =
            raw.len() == 22 && raw.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        if fits { Ok(Self(raw)) } else { Err(Error::InviteNotFound) }
    }
}

/// `{device_id}`: a client's own id of a device.
#[derive(Debug, Clone)]
pub(super) struct DevicePath(pub String);

impl FromRequestParts<Context> for DevicePath {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Error> {
        let raw = path_param(parts, context, "device_id").await?;
        let fits = (1..=MAX_DEVICE_ID_CHARS).contains(&raw.len())
            && raw.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        let reason = "must have 1 to 64 letters, digits, `-`, `_` and `.`";
        if fits { Ok(Self(raw)) } else { Err(Error::field("device_id", reason)) }
    }
}

/// `{user_id}` of a member. An invalid id becomes one that no user has, so that the caller's rights in
/// the chat are checked first.
#[derive(Debug, Clone)]
pub(super) struct MemberPath(pub UserId);

impl FromRequestParts<Context> for MemberPath {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Error> {
        let raw = path_param(parts, context, "user_id").await?;
        // No user id has a control character.
        Ok(Self(UserId::parse(&raw).unwrap_or_else(|| UserId::trusted("\u{1}"))))
    }
}

/// `{user_id}`.
#[derive(Debug, Clone)]
pub(super) struct UserPath(pub UserId);

impl FromRequestParts<Context> for UserPath {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Error> {
        let raw = path_param(parts, context, "user_id").await?;
        UserId::parse(&raw).map(Self).ok_or(Error::UserNotFound)
    }
}

/// The query string.
#[derive(Debug)]
pub(super) struct QueryParams(pub Params);

impl<S: Send + Sync> FromRequestParts<S> for QueryParams {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        Ok(Self(Params::parse(parts.uri.query().unwrap_or_default())))
    }
}

/// A JSON object as the body.
#[derive(Debug)]
pub(super) struct JsonBody(pub Fields);

impl FromRequest<Context> for JsonBody {
    type Rejection = Error;

    async fn from_request(request: Request, context: &Context) -> Result<Self, Error> {
        read_object(context, request, MAX_BODY_BYTES, false).await.map(Self)
    }
}

/// A JSON object as the body, or an empty body.
#[derive(Debug)]
pub(super) struct OptionalJsonBody(pub Fields);

impl FromRequest<Context> for OptionalJsonBody {
    type Rejection = Error;

    async fn from_request(request: Request, context: &Context) -> Result<Self, Error> {
        read_object(context, request, MAX_BODY_BYTES, true).await.map(Self)
    }
}

/// A JSON object of up to 1 MiB.
#[derive(Debug)]
pub(super) struct BulkJsonBody(pub Fields);

impl FromRequest<Context> for BulkJsonBody {
    type Rejection = Error;

    async fn from_request(request: Request, context: &Context) -> Result<Self, Error> {
        read_object(context, request, MAX_BULK_BODY_BYTES, false).await.map(Self)
    }
}

async fn read_object(
    context: &Context,
    request: Request,
    limit: usize,
    may_be_empty: bool,
) -> Result<Fields, Error> {
    let (parts, body) = request.into_parts();
    // Before the first byte, so that a client with `Expect: 100-continue` is refused before it
    // sends the body.
    if body.size_hint().lower() > limit as u64 {
        return Err(Error::PayloadTooLarge { limit });
    }
    let reading = tokio::time::timeout(context.config.http.body_timeout, to_bytes(body, limit));
    let body = reading.await.map_err(|_| Error::InvalidRequest("The body took too long."))?;
    let body = body.map_err(|error| {
        let too_large = std::error::Error::source(&error)
            .is_some_and(|cause| cause.is::<http_body_util::LengthLimitError>());
        if too_large {
            Error::PayloadTooLarge { limit }
        } else {
            Error::InvalidRequest("The body broke off.")
        }
    })?;
    // Some client libraries send a missing body as null.
    if body.is_empty() || may_be_empty && body == "null" {
        return if may_be_empty {
            Ok(Fields::default())
        } else {
            Err(Error::InvalidJson("it is empty".to_owned()))
        };
    }
    if !is_json(&parts.headers) {
        return Err(Error::UnsupportedMediaType);
    }
    Fields::parse(&body)
}

/// Whether the body is `application/json` or has the `+json` suffix (RFC 6839 §3.1).
fn is_json(headers: &HeaderMap) -> bool {
    let essence = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(|essence| essence.trim().to_ascii_lowercase());
    essence.is_some_and(|essence| {
        essence == "application/json"
            || essence.starts_with("application/") && essence.ends_with("+json")
    })
}
