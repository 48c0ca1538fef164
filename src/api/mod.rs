//! REST: extract, call one operation, shape the answer.

mod annotations;
mod attachments;
mod bans;
mod chats;
mod connect;
mod cursor;
mod devices;
mod document;
mod export;
mod extract;
mod groups;
mod invites;
mod members;
mod messages;
mod page;
mod permit;
pub(crate) mod problem;
mod range;
mod reports;
mod search;
mod socket_page;
mod sync;
mod system;
mod uploads;
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
    routing::{get, put},
};
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowOrigin, CorsLayer},
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub use beseda_protocol::bounds::{MAX_BODY_BYTES, MAX_BULK_BODY_BYTES};

pub use self::document::openapi_json;
pub(crate) use self::{
    connect::ExternalOrigin, cursor::check_all as check_cursors, extract::bearer,
};
use crate::{context::Context, error::Error, limits::Class, origin::Origin};

/// How long browsers may cache the response to a preflight.
const PREFLIGHT_LIFETIME: Duration = Duration::from_secs(600);

/// All routes that require a token, by their rate-limit class.
fn classes() -> [(Class, OpenApiRouter<Context>); 5] {
    [
        (
            Class::Sends,
            OpenApiRouter::new()
                .routes(routes!(messages::create_message))
                .routes(routes!(messages::edit_message, messages::delete_message))
                .routes(routes!(annotations::add_reaction, annotations::remove_reaction))
                .routes(routes!(annotations::pin_message, annotations::unpin_message))
                .routes(routes!(chats::mark_read))
                .routes(routes!(groups::change_own_settings))
                .routes(routes!(attachments::announce_attachment))
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
                .routes(routes!(messages::list_readers))
                .routes(routes!(attachments::get_attachment))
                .routes(routes!(annotations::list_reactions))
                .routes(routes!(annotations::list_pins))
                .routes(routes!(search::list_mentions))
                .routes(routes!(sync::list_changes))
                .routes(routes!(sync::sync))
                .routes(routes!(members::list_members))
                .routes(routes!(bans::list_bans))
                .routes(routes!(invites::list_invites))
                .routes(routes!(users::get_user))
                .routes(routes!(users::list_blocks))
                .routes(routes!(reports::list_reports))
                .routes(routes!(reports::get_reported_attachment))
                .routes(routes!(devices::get_push))
                .routes(routes!(devices::list_devices))
                .routes(routes!(export::export_user)),
        ),
        (
            Class::Rooms,
            OpenApiRouter::new()
                .routes(routes!(chats::open_chat))
                .routes(routes!(chats::delete_chat, groups::change_chat))
                .routes(routes!(groups::join_group))
                .routes(routes!(members::add_members))
                .routes(routes!(members::change_member, members::remove_member))
                .routes(routes!(bans::ban_member, bans::unban_member))
                .routes(routes!(invites::create_invite))
                .routes(routes!(invites::delete_invite))
                .routes(routes!(invites::accept_invite))
                .routes(routes!(users::post_users))
                .routes(routes!(users::put_user, users::delete_user))
                .routes(routes!(users::revoke_tokens))
                .routes(routes!(reports::decide_report))
                .routes(routes!(devices::put_device, devices::delete_device))
                .routes(routes!(users::block_user, users::unblock_user)),
        ),
        (
            Class::Searches,
            OpenApiRouter::new()
                .routes(routes!(search::search))
                .routes(routes!(search::search_all)),
        ),
        (
            Class::Connects,
            OpenApiRouter::new()
                .routes(routes!(connect::connect_chat))
                .routes(routes!(connect::connect_many)),
        ),
    ]
}

/// Builds the router of the public port: REST, the pages, and `sockets`.
pub fn public_router(context: &Context, sockets: Router<Context>) -> Router {
    let api = classes().into_iter().fold(Router::new(), |all, (class, routes)| {
        let guard = from_fn_with_state((context.clone(), class), extract::guard);
        all.merge(Router::from(routes.route_layer(guard)))
    });
    // Rendered once, because anyone may request it, and rendering takes milliseconds.
    let document = bytes::Bytes::from(openapi_json());
    let socket_page = system::socket_page();
    let socket_page = get(async move || page::made(socket_page.clone()));
    let documents = utoipa_swagger_ui::SwaggerUi::new("/docs")
        .config(utoipa_swagger_ui::Config::new(["/openapi.json"]).use_base_layout());
    let router = Router::new()
        .nest("/api/v1", api.merge(links()))
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

/// Links that are a right of their own, so that no token is asked for.
fn links() -> Router<Context> {
    Router::new()
        .route("/uploads/{link}/", put(uploads::upload).head(uploads::upload_progress))
        .route("/downloads/{link}/", get(uploads::download))
}

/// Builds the router of the internal port.
pub fn internal_router(context: &Context) -> Router {
    finish(health().route("/metrics", get(system::metrics)), context)
}

fn health() -> Router<Context> {
    Router::new().route("/healthz", get(system::healthz)).route("/readyz", get(system::readyz))
}

/// Adds the outer layers, which render every failure as a problem document.
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
    // Around the whole router, because a router's own layers run after routing.
    let slashed = tower::util::MapRequestLayer::new(add_trailing_slash);
    Router::new().fallback_service(tower::Layer::layer(&slashed, router))
}

/// Builds the CORS layer for the allowed origins.
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
                header::CONTENT_RANGE,
                header::RANGE,
                header::IF_RANGE,
                header::IF_NONE_MATCH,
                HeaderName::from_static("idempotency-key"),
                HeaderName::from_static("x-request-id"),
            ])
            .expose_headers([
                header::RETRY_AFTER,
                header::RANGE,
                header::CONTENT_RANGE,
                header::CONTENT_DISPOSITION,
                header::ETAG,
                HeaderName::from_static("idempotent-replayed"),
                HeaderName::from_static("ratelimit-limit"),
                HeaderName::from_static("ratelimit-remaining"),
                HeaderName::from_static("ratelimit-reset"),
                HeaderName::from_static("x-request-id"),
            ])
            .max_age(PREFLIGHT_LIFETIME),
    )
}

/// Makes `/api/v1/chats` equivalent to `/api/v1/chats/`, without a redirect.
fn add_trailing_slash(mut request: Request) -> Request {
    if let Some(uri) = slashed(request.uri()) {
        *request.uri_mut() = uri;
    }
    request
}

/// Returns the URI with a trailing slash, if it has none.
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
    // If the longer path is invalid, the request is left unchanged and is not found.
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(slashed.parse::<PathAndQuery>().ok()?);
    Uri::from_parts(parts).ok()
}

/// Default security headers: shared caches may not store responses; no response may be a page, be
/// framed, be used by another site, or be sniffed as another type; links send no referrer.
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

/// Relaxes the policy for the API's page, which needs its own scripts and inline styles.
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
