//! Renders every failure as `application/problem+json` (RFC 9457) with the request's id.

use std::time::Instant;

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use beseda_protocol::Problem;
use tracing::Instrument;
use uuid::Uuid;

use super::harden;
use crate::{
    context::Context,
    error::{Error, chain},
    metrics::HttpLabels,
    origin::is_host,
    trace,
};

/// Maximum length of a client's request id, in characters.
const MAX_REQUEST_ID: usize = 128;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The body is written by [`observe`], which knows the request.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// The outermost layer: assigns the request id, renders failures and logs them once, adds security
/// headers, measures. A single layer, because every layer clones all below it for every request.
pub(super) async fn observe(
    State(context): State<Context>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let method = method_label(request.method());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let span = trace::request(request.headers(), method, &route, &id);
    let mut response = match settle_host(&mut request) {
        Ok(()) => next.run(request).instrument(span).await,
        Err(error) => error.into_response(),
    };
    let error = response.extensions_mut().remove::<Error>().or_else(|| unexplained(&response));
    if let Some(error) = error {
        log(&error, &id, method, &route);
        context.metrics.count_error(error.code());
        let headers = std::mem::take(response.headers_mut());
        response = write(&error, &id, headers);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    harden(response.headers_mut());
    let labels = HttpLabels { method, route, status: response.status().as_u16() };
    context.metrics.observe_http(labels, started.elapsed());
    response
}

/// Returns the client's request id if it is well-formed, else a new one.
pub(crate) fn request_id(headers: &HeaderMap) -> String {
    headers
        .get(X_REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|id| {
            (1..=MAX_REQUEST_ID).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:+/=@".contains(&b))
        })
        .map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// Requires one valid host (RFC 9112 §3.2): with several, a proxy in front might have used another
/// one. The host of an absolute target replaces the header.
fn settle_host(request: &mut Request) -> Result<(), Error> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host.as_bytes()) => {}
        (None, _) if request.version() < Version::HTTP_11 => {}
        (None, _) => return Err(Error::InvalidRequest("The Host header is missing.")),
        (_, Some(_)) => {
            return Err(Error::InvalidRequest("There is more than one Host header."));
        }
        _ => return Err(Error::InvalidRequest("The Host header is not a host.")),
    }
    if let Some(authority) = request.uri().authority() {
        let host = authority.as_str().to_owned();
        let value = HeaderValue::try_from(&host).ok().filter(|_| is_host(host.as_bytes()));
        let value = value.ok_or(Error::InvalidRequest("The target's host is not a host."))?;
        request.headers_mut().insert(header::HOST, value);
    }
    Ok(())
}

/// Recognises a failure that a library rendered itself.
fn unexplained(response: &Response) -> Option<Error> {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return None;
    }
    // `/readyz` has its own body.
    let json = HeaderValue::from_static("application/json");
    if response.headers().get(header::CONTENT_TYPE) == Some(&json) {
        return None;
    }
    Some(match status {
        StatusCode::NOT_FOUND => Error::RouteNotFound,
        StatusCode::METHOD_NOT_ALLOWED => Error::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => Error::PayloadTooLarge { limit: super::MAX_BODY_BYTES },
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Error::UnsupportedMediaType,
        StatusCode::SERVICE_UNAVAILABLE => Error::Unavailable(None),
        status if status.is_client_error() => {
            Error::InvalidRequest("The request could not be read.")
        }
        _ => Error::internal(Unexplained(status)),
    })
}

#[derive(Debug, thiserror::Error)]
#[error("answered {0} without a reason")]
struct Unexplained(StatusCode);

fn log(error: &Error, id: &str, method: &str, route: &str) {
    let code = error.code();
    match error {
        Error::Internal(cause) => {
            let cause = chain(cause);
            tracing::error!(code, request_id = id, method, route, cause, "request failed");
        }
        Error::Unavailable(cause) => {
            // Without a cause it is a drain or a full queue, which metrics count.
            let Some(cause) = cause.as_ref().map(|cause| chain(cause)) else {
                tracing::debug!(code, request_id = id, method, route, "request refused");
                return;
            };
            tracing::warn!(code, request_id = id, method, route, cause, "request failed");
        }
        _ => tracing::debug!(code, request_id = id, method, route, "request refused"),
    }
}

/// Builds the problem document of a failure.
pub(super) fn problem(error: &Error, request_id: &str) -> Problem {
    Problem {
        errors: match error {
            Error::Validation(fields) => Some(fields.clone()),
            _ => None,
        },
        retry_after_ms: error
            .retry_after()
            .map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        ..Problem::new(error.kind(), error.to_string(), request_id)
    }
}

/// Encodes the problem document of a failure.
pub(crate) fn encode(error: &Error, id: &str) -> Vec<u8> {
    // Plain structs can't fail to serialize.
    serde_json::to_vec(&problem(error, id)).unwrap_or_default()
}

fn write(error: &Error, id: &str, mut headers: HeaderMap) -> Response {
    let body = encode(error, id);
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(wait) = error.retry_after() {
        // Rounded up to whole seconds, so that the retry is not too early.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    if error.status() == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = error.status();
    *response.headers_mut() = headers;
    response
}

/// Builds a complete response to bytes that are not valid HTTP, which reach no layer.
pub(crate) fn unreadable(status: u16) -> Vec<u8> {
    let error = Error::InvalidRequest(match status {
        431 => "The request's head is too large, or has too many headers.",
        414 => "The request's target is too long.",
        _ => "This is not HTTP/1.1.",
    });
    let id = Uuid::now_v7().to_string();
    let problem = Problem { status, ..problem(&error, &id) };
    // Plain structs can't fail to serialize.
    let body = serde_json::to_string(&problem).unwrap_or_default();
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    format!(
        "HTTP/1.1 {status} {}\r\nconnection: close\r\ncontent-type: application/problem+json\r\n\
         cache-control: no-store\r\nx-content-type-options: nosniff\r\nx-request-id: {id}\r\n\
         content-length: {}\r\n\r\n{body}",
        reason.unwrap_or_default(),
        body.len(),
    )
    .into_bytes()
}

/// The metric label of a method, from a fixed set whatever the client sent.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
