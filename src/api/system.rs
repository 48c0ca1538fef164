//! Health, metrics, and the documents.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{context::Context, readiness::Postgres};

#[derive(Serialize)]
pub(super) struct Health {
    status: &'static str,
}

#[derive(Serialize)]
pub(super) struct Readiness {
    /// `ready`, `degraded` (Redis is unavailable: everything works, some of it slower),
    /// `not_ready`.
    status: &'static str,
    postgres: &'static str,
    redis: &'static str,
    draining: bool,
}

/// Reports that the process is alive.
pub(super) async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Reports whether a balancer should send requests here.
pub(super) async fn readyz(State(context): State<Context>) -> Response {
    let postgres = match context.readiness.postgres().await {
        Postgres::Up => "up",
        Postgres::WrongSchema => "wrong_schema",
        Postgres::Away => "away",
    };
    let redis = if context.redis.is_up() { "up" } else { "away" };
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

/// Renders the Prometheus metrics; on the internal port only.
pub(super) async fn metrics(State(context): State<Context>) -> Response {
    let queued = i64::try_from(context.chats.writer().queued()).unwrap_or(i64::MAX);
    context.metrics.writer_queue_depth.set(queued);
    let with_webhooks = context.config.webhooks.delay().is_some();
    let with_push = context.config.push.delay().is_some();
    context.readiness.measure(&context.metrics, with_webhooks, with_push).await;
    context.metrics.redis_up.set(i64::from(context.redis.is_up()));
    context.metrics.draining.set(i64::from(context.is_leaving()));
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], context.metrics.render()).into_response()
}

pub(super) fn openapi(document: bytes::Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document).into_response()
}

/// The socket protocol. Written by hand; the tests validate every frame against it.
const ASYNCAPI: &str = include_str!("asyncapi.json");

pub(super) async fn asyncapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], ASYNCAPI).into_response()
}

/// Renders the AsyncAPI document as a page.
pub(super) fn socket_page() -> bytes::Bytes {
    // An embedded file; a test parses it too.
    let document = serde_json::from_str(ASYNCAPI).unwrap_or_default();
    super::socket_page::render(&document).into()
}
