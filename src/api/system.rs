//! Health, metrics, and the documents.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{context::Context, readiness::Postgres, store::StoreError};

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
    let postgres = match context.readiness.postgres().await {
        Postgres::Up => "up",
        Postgres::WrongSchema => "wrong_schema",
        Postgres::Away => "away",
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

/// How long a scrape waits for Postgres: its own time-out can be as short as 5 s.
const SCRAPE_WAIT: Duration = Duration::from_secs(2);

/// Prometheus metrics; on the internal port only.
pub(super) async fn metrics(State(context): State<Context>) -> Response {
    let (in_use, open) = context.chats.store().pool_usage();
    context.metrics.set_pool(in_use, open);
    let queued = i64::try_from(context.chats.writer().queued()).unwrap_or(i64::MAX);
    context.metrics.writer_queue_depth.set(queued);
    // While Postgres does not answer the last figures stay: all others are wanted now of all times.
    let reading = tokio::time::timeout(SCRAPE_WAIT, read_backlogs(&context));
    let (_, postgres_up) = tokio::join!(reading, is_postgres_up(&context));
    context.metrics.postgres_up.set(i64::from(postgres_up));
    context.metrics.redis_up.set(i64::from(context.link.is_up()));
    context.metrics.draining.set(i64::from(context.is_leaving()));
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], context.metrics.render()).into_response()
}

/// Whether Postgres answers, whatever it says of its schema. Not asked of the pool, which can be
/// exhausted while Postgres is well.
async fn is_postgres_up(context: &Context) -> bool {
    let checking = tokio::time::timeout(SCRAPE_WAIT, context.chats.store().check_schema());
    matches!(checking.await, Ok(Ok(()) | Err(StoreError::Schema(_))))
}

async fn read_backlogs(context: &Context) {
    let store = context.chats.store();
    if let Ok((rows, oldest)) = store.get_backlog().await {
        context.metrics.outbox_rows.set(rows);
        context.metrics.outbox_oldest.set(oldest);
    }
    if context.config.webhooks.delay().is_some()
        && let Ok(backlog) = store.get_webhook_backlog().await
    {
        context.metrics.webhook_rows.set(backlog.waiting);
        context.metrics.webhook_oldest.set(backlog.oldest);
        context.metrics.webhook_dead_rows.set(backlog.dead);
    }
}

pub(super) fn openapi(document: bytes::Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document).into_response()
}

/// The socket protocol. Written by hand, and held against every frame that the tests see.
const ASYNCAPI: &str = include_str!("asyncapi.json");

pub(super) async fn asyncapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], ASYNCAPI).into_response()
}

/// The same document as a page.
pub(super) fn socket_page() -> bytes::Bytes {
    // Our own file; a test reads it too.
    let document = serde_json::from_str(ASYNCAPI).unwrap_or_default();
    super::socket_page::render(&document).into()
}
