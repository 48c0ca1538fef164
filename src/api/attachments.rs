//! Attachments: announced by members, read by members.

use axum::{
    Json,
    body::Body,
    extract::{FromRequestParts, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use beseda_protocol::rest::{AttachmentLink, AttachmentTicket, NewAttachment, UploadLink};
use serde::Deserialize;

use super::{
    connect::ExternalOrigin,
    extract::{AttachmentPath, AuthUser, ChatPath, JsonBody, QueryParams, single},
    range,
};
use crate::{
    attachments::{Download, UploadPlace, Variant, parse_attachment},
    context::Context,
    error::Error,
};

/// Announces an attachment. Its bytes are then uploaded to `upload.url` with `upload.method` and
/// `upload.headers`, without a token.
#[utoipa::path(post, path = "/chats/{chat}/attachments/", tag = "attachments", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
), request_body = NewAttachment, responses(
    (status = 201, description = "Announced", body = AttachmentTicket),
))]
pub(super) async fn announce_attachment(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    reached: ExternalOrigin,
    JsonBody(fields): JsonBody,
) -> Result<(StatusCode, Json<AttachmentTicket>), Error> {
    let new = parse_attachment(fields)?;
    let content_type = new.content_type.clone();
    let announced = context.attachments.announce(user.id(), chat_id, new).await?;
    let url = match announced.place {
        UploadPlace::Direct(url) => url.to_string(),
        UploadPlace::Replica(link) => reached.http(&link),
    };
    let headers = [("Content-Type".to_owned(), content_type)].into();
    let upload =
        UploadLink { method: "PUT".into(), url, headers, expires_at: announced.expires_at };
    let ticket = AttachmentTicket { attachment_id: announced.attachment_id, upload };
    Ok((StatusCode::CREATED, Json(ticket)))
}

/// Reads an attachment, or its thumbnail: the bytes, or a redirect to a URL that is good for a minute. With
/// `link=true` the answer is such a URL in any case, for what sends no token, like an `<img>`.
#[utoipa::path(get, path = "/chats/{chat}/attachments/{attachment_id}/", tag = "attachments", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
    ("attachment_id" = Uuid, Path),
    ("variant" = Option<String>, Query, description = "`thumbnail`: the smaller image"),
    ("link" = Option<bool>, Query, description = "`true`: a URL in place of the bytes"),
    ("Range" = Option<String>, Header, description = "`bytes=first-last`"),
), responses(
    (status = 200, description = "The bytes; with `link=true` a URL", content(
        (AttachmentLink = "application/json"),
        (String = "*/*"),
    )),
    (status = 206, description = "The range", body = String, content_type = "*/*"),
    (status = 304, description = "As `If-None-Match` has it"),
    (status = 307, description = "The bytes are at `Location`", headers(("Location" = String))),
))]
pub(super) async fn get_attachment(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    AttachmentPath(attachment_id): AttachmentPath,
    wanted: WantedAttachment,
) -> Result<Response, Error> {
    let attachments = &context.attachments;
    let found = attachments.find(user.id(), chat_id, attachment_id, wanted.variant).await?;
    wanted.answer(&context, &found).await
}

/// What of an attachment a request is for, and in which form.
pub(super) struct WantedAttachment {
    pub(super) variant: Option<Variant>,
    is_link: bool,
    reached: ExternalOrigin,
    headers: HeaderMap,
}

impl FromRequestParts<Context> for WantedAttachment {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Error> {
        let mut params = QueryParams::from_request_parts(parts, context).await?.0;
        let variant = params.word("variant", "thumbnail");
        let is_link = params.word("link", "true or false").unwrap_or(Flag::False) == Flag::True;
        params.finish()?;
        let reached = ExternalOrigin::from_request_parts(parts, context).await?;
        Ok(Self { variant, is_link, reached, headers: parts.headers.clone() })
    }
}

/// A boolean in a query string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Flag {
    True,
    False,
}

impl WantedAttachment {
    /// Answers with the bytes, with a redirect to them, or with a URL of them.
    pub(super) async fn answer(
        &self,
        context: &Context,
        found: &Download,
    ) -> Result<Response, Error> {
        let direct = context.attachments.redirect(found).await?;
        if self.is_link {
            let (path, expires_at) = context.attachments.link(found);
            let url = match direct {
                Some(url) => url.to_string(),
                None => self.reached.http(&path),
            };
            return Ok(Json(AttachmentLink { url, expires_at }).into_response());
        }
        match direct {
            Some(url) => {
                let url = HeaderValue::from_str(url.as_str()).map_err(Error::internal)?;
                let location = [(header::LOCATION, url)];
                Ok((StatusCode::TEMPORARY_REDIRECT, location).into_response())
            }
            None => give(context, found, &self.headers, false).await,
        }
    }
}

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Gives the bytes. Whatever they are, a browser runs no script in them and guesses no other type. `is_linked`: pages
/// of other origins may show them.
pub(super) async fn give(
    context: &Context,
    download: &Download,
    asked: &HeaderMap,
    is_linked: bool,
) -> Result<Response, Error> {
    let opened = context.attachments.open(download).await?;
    let etag = HeaderValue::from_str(&download.etag()).map_err(Error::internal)?;
    let mut headers = HeaderMap::new();
    headers.insert(header::ETAG, etag.clone());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=86400"));
    if is_linked {
        headers.insert(RESOURCE_POLICY, HeaderValue::from_static("cross-origin"));
    }
    let known = asked.get_all(header::IF_NONE_MATCH).iter();
    if known.flat_map(|value| value.as_bytes().split(|b| *b == b',')).any(|tag| {
        let tag = tag.trim_ascii();
        tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag.as_bytes()
    }) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let text = |value: &str| HeaderValue::from_str(value).map_err(Error::internal);
    headers.insert(header::CONTENT_TYPE, text(&opened.content_type)?);
    headers.insert(header::CONTENT_DISPOSITION, text(&download.disposition())?);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("sandbox; default-src 'none'"),
    );
    // Only of the very bytes of which the client has the rest.
    let fits = asked.get(header::IF_RANGE).is_none_or(|tag| tag == etag);
    let wanted = single(asked, header::RANGE)?.filter(|_| fits);
    let (status, range) = match range::parse(wanted, opened.size) {
        range::Wanted::All => (StatusCode::OK, 0..opened.size),
        range::Wanted::Range(range) => {
            let (first, last) = (range.start, range.end - 1);
            let value = format!("bytes {first}-{last}/{}", opened.size);
            headers.insert(header::CONTENT_RANGE, text(&value)?);
            (StatusCode::PARTIAL_CONTENT, range)
        }
        range::Wanted::None => {
            let mut refused = Error::RangeNotSatisfiable.into_response();
            let value = text(&format!("bytes */{}", opened.size))?;
            refused.headers_mut().insert(header::CONTENT_RANGE, value);
            return Ok(refused);
        }
    };
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    let bytes = context.attachments.stream(download, range).await?;
    Ok((status, headers, Body::from_stream(bytes)).into_response())
}
