//! REST: extract, call one operation, shape the answer.

mod chats;
mod connect;
mod document;
mod export;
mod extract;
mod messages;
mod page;
mod permit;
pub(crate) mod problem;
mod reports;
mod socket_page;
mod system;
mod users;

use std::time::Duration;

use axum::{
    Router,
    extract::Request,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, Uri, header, request::Parts as RequestParts,
        uri::PathAndQuery,
    },
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowOrigin, CorsLayer},
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub use beseda_protocol::bounds::{MAX_BODY_BYTES, MAX_BULK_BODY_BYTES};

pub use self::document::openapi_json;
pub(crate) use self::{
    chats::{read_cursor, write_cursor},
    connect::ExternalOrigin,
    extract::bearer,
};
use crate::{context::Context, error::Error, limits::Class, origin::Origin};

/// How long browsers may remember an answer to a preflight.
const PREFLIGHT_LIFETIME: Duration = Duration::from_secs(600);

/// Every route that takes a token, by what its rate counts as.
fn classes() -> [(Class, OpenApiRouter<Context>); 5] {
    [
        (
            Class::Sends,
            OpenApiRouter::new()
                .routes(routes!(messages::create_message))
                .routes(routes!(messages::edit_message, messages::delete_message))
                .routes(routes!(chats::mark_read))
                .routes(routes!(reports::report_message)),
        ),
        (
            Class::Reads,
            OpenApiRouter::new()
                .routes(routes!(chats::list_chats))
                .routes(routes!(chats::get_chat))
                .routes(routes!(chats::get_unread))
                .routes(routes!(messages::list_messages))
                .routes(routes!(messages::get_message))
                .routes(routes!(users::get_user))
                .routes(routes!(users::list_blocks))
                .routes(routes!(reports::list_reports))
                .routes(routes!(export::export_user)),
        ),
        (
            Class::Rooms,
            OpenApiRouter::new()
                .routes(routes!(chats::open_chat))
                .routes(routes!(chats::delete_chat))
                .routes(routes!(users::post_users))
                .routes(routes!(users::put_user, users::delete_user))
                .routes(routes!(users::revoke_tokens))
                .routes(routes!(users::block_user, users::unblock_user)),
        ),
        (Class::Searches, OpenApiRouter::new().routes(routes!(chats::search))),
        (
            Class::Connects,
            OpenApiRouter::new()
                .routes(routes!(connect::connect_chat))
                .routes(routes!(connect::connect_many)),
        ),
    ]
}

/// What clients reach: REST, the pages, and `sockets`.
pub fn public_router(context: &Context, sockets: Router<Context>) -> Router {
    let api = classes().into_iter().fold(Router::new(), |all, (class, routes)| {
        let guard = from_fn_with_state((context.clone(), class), extract::guard);
        all.merge(Router::from(routes.route_layer(guard)))
    });
    // Written once: anybody may ask for it, and writing it takes milliseconds.
    let document = bytes::Bytes::from(openapi_json());
    let socket_page = system::socket_page();
    let socket_page = get(async move || page::made(socket_page.clone()));
    let documents = utoipa_swagger_ui::SwaggerUi::new("/docs")
        .config(utoipa_swagger_ui::Config::new(["/openapi.json"]).use_base_layout());
    let router = Router::new()
        .nest("/api/v1", api)
        .merge(sockets)
        .route("/", get(page::page))
        .route("/assets/{name}", get(page::asset))
        .route("/clients/typescript/src/{name}", get(page::client))
        .route("/demo/people.json", get(page::people))
        .route("/openapi.json", get(async move || system::openapi(document.clone())))
        .route("/asyncapi.json", get(system::asyncapi))
        .route("/docs/socket", socket_page.clone())
        .route("/docs/socket/", socket_page)
        .merge(Router::from(documents).layer(from_fn(docs_policy)))
        .merge(health());
    finish(router, context)
}

/// What operators reach.
pub fn internal_router(context: &Context) -> Router {
    finish(health().route("/metrics", get(system::metrics)), context)
}

fn health() -> Router<Context> {
    Router::new().route("/healthz", get(system::healthz)).route("/readyz", get(system::readyz))
}

/// The layers around everything: whatever fails inside comes out as a problem.
fn finish(router: Router<Context>, context: &Context) -> Router {
    let router = router
        .fallback(async || Error::RouteNotFound)
        .method_not_allowed_fallback(async || Error::MethodNotAllowed)
        .layer(CatchPanicLayer::custom(panicked));
    let router = match cors(&context.config.allowed_origins) {
        Some(cors) => router.layer(cors),
        None => router,
    };
    let router = router
        .layer(from_fn_with_state(context.clone(), problem::observe))
        .with_state(context.clone());
    // Around the whole router, as routing has happened by the time its own layers run.
    let slashed = tower::util::MapRequestLayer::new(add_trailing_slash);
    Router::new().fallback_service(tower::Layer::layer(&slashed, router))
}

/// The browser pages that may call the API from elsewhere.
fn cors(allowed: &[Origin]) -> Option<CorsLayer> {
    if allowed.is_empty() {
        return None;
    }
    let allowed = allowed.to_vec();
    let is_allowed = move |origin: &HeaderValue, _: &RequestParts| {
        let page = origin.to_str().ok().and_then(|page| page.parse().ok());
        page.is_some_and(|page| allowed.contains(&page))
    };
    Some(
        CorsLayer::new()
            .allow_origin(AllowOrigin::predicate(is_allowed))
            .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
            .allow_headers([
                header::AUTHORIZATION,
                header::CONTENT_TYPE,
                HeaderName::from_static("idempotency-key"),
                HeaderName::from_static("x-request-id"),
            ])
            .expose_headers([
                header::RETRY_AFTER,
                HeaderName::from_static("idempotent-replayed"),
                HeaderName::from_static("ratelimit-limit"),
                HeaderName::from_static("ratelimit-remaining"),
                HeaderName::from_static("ratelimit-reset"),
                HeaderName::from_static("x-request-id"),
            ])
            .max_age(PREFLIGHT_LIFETIME),
    )
}

/// `/api/v1/chats` answers like `/api/v1/chats/`, without a redirect.
fn add_trailing_slash(mut request: Request) -> Request {
    if let Some(uri) = slashed(request.uri()) {
        *request.uri_mut() = uri;
    }
    request
}

/// The same with its last slash, where one is missing.
pub(crate) fn slashed(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    let ours = ["/api", "/ws"].iter().any(|root| {
        path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    if !ours || path.ends_with('/') {
        return None;
    }
    let slashed = match uri.query() {
        Some(query) => format!("{path}/?{query}"),
        None => format!("{path}/"),
    };
    // It was a path already; what can't be one with a slash more is left to be not found.
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(slashed.parse::<PathAndQuery>().ok()?);
    Uri::from_parts(parts).ok()
}

/// What browsers are told of every answer that does not say otherwise itself: nothing of one person's
/// may be kept by a cache that others share; no answer is a page, a frame, another site's resource, or of
/// another type than it says; and no address that one was at leaves with a link.
const HARDENING: [(HeaderName, HeaderValue); 5] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

fn harden(headers: &mut HeaderMap) {
    for (name, value) in HARDENING {
        headers.entry(name).or_insert(value);
    }
}

/// The page that shows the API needs its own scripts, and styles that they write into it.
async fn docs_policy(request: Request, next: Next) -> Response {
    const POLICY: HeaderValue = HeaderValue::from_static(
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
         img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
    );
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, POLICY);
    response
}

fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
        .to_owned();
    Error::internal(Panicked(message)).into_response()
}

#[derive(Debug, thiserror::Error)]
#[error("a handler panicked: {0}")]
struct Panicked(String);
