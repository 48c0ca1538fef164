//! Signed links: uploads and downloads without a token. The link is the right.

use std::net::SocketAddr;

use axum::{
    extract::{ConnectInfo, FromRequestParts, Request, State},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};

use super::{
    attachments::give,
    extract::{path_param, single},
};
use crate::{
    attachments::{ContentRange, Progress},
    context::Context,
    error::Error,
};

/// The secret part of a link, for an address whose rate allows a request.
#[derive(Debug)]
pub(super) struct LinkPath(String);

impl FromRequestParts<Context> for LinkPath {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Error> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        context.check_address(peer, &parts.headers).map_err(|(refused, _)| refused)?;
        path_param(parts, context, "link").await.map(Self)
    }
}

/// Takes bytes of an attachment, whole or a part: 204 when all are there and of their type, else 308.
pub(super) async fn upload(
    State(context): State<Context>,
    LinkPath(link): LinkPath,
    request: Request,
) -> Result<Response, Error> {
    let target = context.attachments.upload_target(&link).await?;
    let headers = request.headers();
    let range = match single(headers, header::CONTENT_RANGE)? {
        None => None,
        Some(raw) => {
            let range = raw.to_str().ok().and_then(ContentRange::parse);
            Some(
                range
                    .ok_or(Error::InvalidRequest("Content-Range must be like: bytes 0-99/1000."))?,
            )
        }
    };
    let expected = range.map_or(target.size(), |range| range.last - range.first + 1);
    // Before the first byte, so that a client with `Expect: 100-continue` need not send it.
    let announced = axum::body::HttpBody::size_hint(request.body());
    if announced.lower() > expected {
        let limit = usize::try_from(expected).unwrap_or(usize::MAX);
        return Err(Error::PayloadTooLarge { limit });
    }
    let _permit = context.limits.take_upload_permit(target.owner())?;
    let body = request.into_body().into_data_stream();
    let received = context.attachments.receive(&target, range, body).await;
    let is_read = received
        .as_ref()
        .is_ok_and(|progress| range.is_none_or(|range| progress.received == range.last + 1));
    let mut response = received.map_or_else(IntoResponse::into_response, told);
    if !is_read {
        // What is left of the body would be taken for the next request.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Tells how far an upload is.
pub(super) async fn upload_progress(
    State(context): State<Context>,
    LinkPath(link): LinkPath,
) -> Result<Response, Error> {
    let target = context.attachments.upload_target(&link).await?;
    Ok(told(context.attachments.upload_progress(&target).await?))
}

fn told(progress: Progress) -> Response {
    if progress.is_whole() {
        return StatusCode::NO_CONTENT.into_response();
    }
    let mut response = StatusCode::PERMANENT_REDIRECT.into_response();
    if let Some(last) = progress.received.checked_sub(1)
        && let Ok(range) = HeaderValue::from_str(&format!("bytes=0-{last}"))
    {
        response.headers_mut().insert(header::RANGE, range);
    }
    response
}

/// Gives the bytes of a link.
pub(super) async fn download(
    State(context): State<Context>,
    LinkPath(link): LinkPath,
    request: Request,
) -> Result<Response, Error> {
    let download = context.attachments.find_linked(&link).await?;
    give(&context, &download, request.headers(), true).await
}
