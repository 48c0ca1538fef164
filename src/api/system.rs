//! Health, metrics, documents, and the demo page.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{context::Context, error::Error};

/// What the demo page may do: nothing inline, nothing from elsewhere but sockets and avatars.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self' ws: wss:; img-src 'self' data: https:; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'self'";

#[derive(Serialize)]
pub(super) struct Health {
    status: &'static str,
}

#[derive(Serialize)]
pub(super) struct Readiness {
    /// `ready`, `degraded` (Redis away: everything works, some of it slower), `not_ready`.
    status: &'static str,
    postgres: &'static str,
    redis: &'static str,
    draining: bool,
}

/// The process lives.
pub(super) async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Whether a balancer should send requests here.
pub(super) async fn readyz(State(context): State<Context>) -> Response {
    let postgres = match context.chats.store().check(false).await {
        Ok(()) => "up",
        Err(crate::store::StoreError::Schema(reason)) => {
            tracing::warn!(reason, "not ready");
            "wrong_schema"
        }
        Err(_) => "away",
    };
    let redis = if context.link.is_up() { "up" } else { "away" };
    let draining = context.is_leaving();
    let ready = postgres == "up" && !draining;
    let status = match (ready, redis) {
        (false, _) => "not_ready",
        (true, "up") => "ready",
        (true, _) => "degraded",
    };
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(Readiness { status, postgres, redis, draining })).into_response()
}

/// Prometheus metrics; on the internal port only.
pub(super) async fn metrics(State(context): State<Context>) -> Response {
    let (in_use, open) = context.chats.store().pool_usage();
    context.metrics.pool_in_use.set(i64::try_from(in_use).unwrap_or(i64::MAX));
    context.metrics.pool_open.set(i64::try_from(open).unwrap_or(i64::MAX));
    context.metrics.redis_up.set(i64::from(context.link.is_up()));
    context.metrics.draining.set(i64::from(context.is_leaving()));
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], context.metrics.render()).into_response()
}

pub(super) fn openapi(document: bytes::Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document).into_response()
}

pub(super) async fn asyncapi() -> Response {
    let document = include_str!("asyncapi.json");
    ([(header::CONTENT_TYPE, "application/json")], document).into_response()
}

/// A file of the demo page.
struct Asset {
    name: &'static str,
    kind: &'static str,
    body: &'static str,
}

macro_rules! assets {
    ($($name:literal: $kind:literal),* $(,)?) => {
        &[$(Asset {
            name: $name,
            kind: $kind,
            body: include_str!(concat!("../../web/", $name)),
        }),*]
    };
}

/// The page's files, embedded.
const ASSETS: &[Asset] = assets! {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "beseda.js": "text/javascript; charset=utf-8",
    "dom.js": "text/javascript; charset=utf-8",
    "i18n.js": "text/javascript; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "outbox.js": "text/javascript; charset=utf-8",
    "rooms.js": "text/javascript; charset=utf-8",
    "session.js": "text/javascript; charset=utf-8",
    "text.js": "text/javascript; charset=utf-8",
    "timeline.js": "text/javascript; charset=utf-8",
    "typing.js": "text/javascript; charset=utf-8",
    "view-message.js": "text/javascript; charset=utf-8",
    "view-room.js": "text/javascript; charset=utf-8",
    "view-rooms.js": "text/javascript; charset=utf-8",
    "view-search.js": "text/javascript; charset=utf-8",
    "view-timeline.js": "text/javascript; charset=utf-8",
};

pub(super) async fn page() -> Result<Response, Error> {
    serve("index.html")
}

pub(super) async fn asset(Path(name): Path<String>) -> Result<Response, Error> {
    serve(&name)
}

fn serve(name: &str) -> Result<Response, Error> {
    let asset = ASSETS.iter().find(|asset| asset.name == name).ok_or(Error::RouteNotFound)?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(asset.kind)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY)),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        // Part of the binary: a new release must show at once.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    Ok((headers, asset.body).into_response())
}
