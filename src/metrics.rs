//! Prometheus metrics, in one typed struct a replica. Labels are bounded: never a user, a chat, a raw
//! path or a client's close code.

mod labels;
mod process;

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

pub use self::labels::{
    ClassLabels, CloseLabels, CodeLabels, HttpLabels, PushResult, QueryLabels, StandbyRead,
    WebhookOutcome,
};
use self::{
    labels::{OutcomeLabels, PushLabels, StateLabels},
    process::Process,
};
use crate::model::PushPlatform;

/// A histogram from 1 ms to 16 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// A histogram of queries, from 0.25 ms to 4 s.
fn query_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 2.0, 15))
}

#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    http: Family<HttpLabels, Histogram, fn() -> Histogram>,
    queries: Family<QueryLabels, Histogram, fn() -> Histogram>,
    pub errors: Family<CodeLabels, Counter>,
    pub rate_limited: Family<ClassLabels, Counter>,
    pub messages_accepted: Counter,
    pub messages_replayed: Counter,
    pub batch_messages: Histogram,
    pub frames_delivered: Counter,
    pub sockets_open: Gauge,
    pub sockets_opened: Counter,
    pub sockets_closed: Family<CloseLabels, Counter>,
    pub sockets_behind: Counter,
    pub resumes: Counter,
    pub catchups: Counter,
    pub resets: Counter,
    pub publications_received: Counter,
    pub resyncs: Counter,
    pub gaps_filled: Counter,
    pub head_check_finds: Counter,
    pub outbox_swept: Counter,
    pub postgres_up: Gauge,
    pub redis_up: Gauge,
    pub draining: Gauge,
    pool_connections: Family<StateLabels, Gauge>,
    /// Time that statements waited for a connection.
    pub pool_wait: Histogram,
    standby_reads: Family<OutcomeLabels, Counter>,
    pub writer_queue_depth: Gauge,
    pub outbox_rows: Gauge,
    pub outbox_oldest: Gauge<f64, AtomicU64>,
    webhooks: Family<OutcomeLabels, Counter>,
    pub webhook_rows: Gauge,
    pub webhook_oldest: Gauge<f64, AtomicU64>,
    pub webhook_dead_rows: Gauge,
    /// Bytes that came through this replica.
    pub attachment_bytes: Counter,
    pub attachments_accepted: Counter,
    pub attachments_refused: Counter,
    pub attachment_scan: Histogram,
    pub attachment_removals: Gauge,
    pub attachment_removals_oldest: Gauge<f64, AtomicU64>,
    pub attachment_scans: Gauge,
    pub attachment_scans_oldest: Gauge<f64, AtomicU64>,
    pushes: Family<PushLabels, Counter>,
    /// From the commit to the request to the provider.
    push_lag: Histogram,
    pub push_lanes: Gauge,
    pub push_oldest: Gauge<f64, AtomicU64>,
    pub push_dead_rows: Gauge,
    delivery: Histogram,
    /// From the commit to the publication's arrival on this replica.
    pub publication_lag: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut all = Registry::default();
        all.register_collector(Box::new(Process::new()));
        let registry = all.sub_registry_with_prefix("beseda");
        let metrics = Self {
            http: Family::new_with_constructor(seconds),
            queries: Family::new_with_constructor(query_seconds),
            errors: Family::default(),
            rate_limited: Family::default(),
            messages_accepted: Counter::default(),
            messages_replayed: Counter::default(),
            batch_messages: Histogram::new(exponential_buckets(1.0, 2.0, 9)),
            frames_delivered: Counter::default(),
            sockets_open: Gauge::default(),
            sockets_opened: Counter::default(),
            sockets_closed: Family::default(),
            sockets_behind: Counter::default(),
            resumes: Counter::default(),
            catchups: Counter::default(),
            resets: Counter::default(),
            publications_received: Counter::default(),
            resyncs: Counter::default(),
            gaps_filled: Counter::default(),
            head_check_finds: Counter::default(),
            outbox_swept: Counter::default(),
            postgres_up: Gauge::default(),
            redis_up: Gauge::default(),
            draining: Gauge::default(),
            pool_connections: Family::default(),
            pool_wait: query_seconds(),
            standby_reads: Family::default(),
            writer_queue_depth: Gauge::default(),
            outbox_rows: Gauge::default(),
            outbox_oldest: Gauge::default(),
            webhooks: Family::default(),
            webhook_rows: Gauge::default(),
            webhook_oldest: Gauge::default(),
            webhook_dead_rows: Gauge::default(),
            attachment_bytes: Counter::default(),
            attachments_accepted: Counter::default(),
            attachments_refused: Counter::default(),
            // From 10 ms to 160 s.
            attachment_scan: Histogram::new(exponential_buckets(0.01, 2.0, 15)),
            attachment_removals: Gauge::default(),
            attachment_removals_oldest: Gauge::default(),
            attachment_scans: Gauge::default(),
            attachment_scans_oldest: Gauge::default(),
            pushes: Family::default(),
            push_lag: seconds(),
            push_lanes: Gauge::default(),
            push_oldest: Gauge::default(),
            push_dead_rows: Gauge::default(),
            delivery: seconds(),
            publication_lag: seconds(),
            registry: Registry::default(),
        };
        let m = &metrics;
        registry.register_with_unit(
            "http_request",
            "Time until the response, by route",
            Unit::Seconds,
            m.http.clone(),
        );
        registry.register_with_unit(
            "store_query",
            "Time of a statement, including the wait for a connection",
            Unit::Seconds,
            m.queries.clone(),
        );
        registry.register("errors", "Refusals and failures, by code", m.errors.clone());
        registry.register(
            "rate_limited",
            "Requests refused by a limit, by class",
            m.rate_limited.clone(),
        );
        registry.register(
            "messages_accepted",
            "Messages committed to Postgres",
            m.messages_accepted.clone(),
        );
        registry.register(
            "messages_replayed",
            "Sends that repeated an earlier client_msg_id",
            m.messages_replayed.clone(),
        );
        registry.register("batch_messages", "Messages per commit", m.batch_messages.clone());
        registry.register(
            "frames_delivered",
            "Frames written to sockets",
            m.frames_delivered.clone(),
        );
        registry.register("sockets_open", "Open sockets", m.sockets_open.clone());
        registry.register("sockets_opened", "Sockets opened", m.sockets_opened.clone());
        registry.register("sockets_closed", "Sockets closed, by code", m.sockets_closed.clone());
        registry.register(
            "sockets_behind",
            "Times the queue of a slow socket overflowed, so that it caught up from Postgres",
            m.sockets_behind.clone(),
        );
        registry.register(
            "socket_resumes",
            "Sockets that resumed from a position",
            m.resumes.clone(),
        );
        registry.register(
            "catchups",
            "Times a socket read missed changes from Postgres",
            m.catchups.clone(),
        );
        registry.register("resets", "Positions that could not be resumed", m.resets.clone());
        registry.register(
            "publications_received",
            "Publications received from Redis",
            m.publications_received.clone(),
        );
        registry.register("resyncs", "Times publications may have been lost", m.resyncs.clone());
        registry.register("gaps_filled", "Gaps filled from Postgres", m.gaps_filled.clone());
        registry.register(
            "head_check_finds",
            "Missed changes that only the comparison with Postgres found",
            m.head_check_finds.clone(),
        );
        registry.register(
            "outbox_swept",
            "Outbox rows that the sweeper published",
            m.outbox_swept.clone(),
        );
        registry.register(
            "postgres_up",
            "1 if Postgres answered the check of this scrape",
            m.postgres_up.clone(),
        );
        registry.register("redis_up", "1 while Redis answers", m.redis_up.clone());
        registry.register("draining", "1 while the replica drains", m.draining.clone());
        registry.register(
            "pool_connections",
            "Connections to Postgres, by state: open, and of these in_use",
            m.pool_connections.clone(),
        );
        registry.register_with_unit(
            "pool_wait",
            "Time that statements waited for a connection to Postgres",
            Unit::Seconds,
            m.pool_wait.clone(),
        );
        registry.register(
            "standby_reads",
            "Reads that a standby of Postgres might serve",
            m.standby_reads.clone(),
        );
        for outcome in StandbyRead::ALL {
            drop(m.standby_reads.get_or_create(&OutcomeLabels { outcome: outcome.label() }));
        }
        registry.register(
            "writer_queue_depth",
            "Messages that wait for their batch",
            m.writer_queue_depth.clone(),
        );
        registry.register(
            "outbox_rows",
            "Commits of all replicas that may not be published yet",
            m.outbox_rows.clone(),
        );
        registry.register_with_unit(
            "outbox_oldest",
            "Age of the oldest outbox row; 0 if there is none",
            Unit::Seconds,
            m.outbox_oldest.clone(),
        );
        registry.register(
            "webhooks",
            "Events for webhooks, by outcome; `failed` counts attempts",
            m.webhooks.clone(),
        );
        // A series that began with the first failure would hide it from `increase()`.
        for outcome in WebhookOutcome::ALL {
            drop(m.webhooks.get_or_create(&OutcomeLabels { outcome: outcome.label() }));
        }
        registry.register(
            "webhook_rows",
            "Webhook events of all replicas that wait to be sent",
            m.webhook_rows.clone(),
        );
        registry.register_with_unit(
            "webhook_oldest",
            "How long the oldest waiting webhook event has been due; 0 if there is none",
            Unit::Seconds,
            m.webhook_oldest.clone(),
        );
        registry.register(
            "webhook_dead_rows",
            "Webhook events that were given up and not replayed",
            m.webhook_dead_rows.clone(),
        );
        registry.register(
            "attachment_upload_bytes",
            "Bytes of attachments that were uploaded to this replica",
            m.attachment_bytes.clone(),
        );
        registry.register(
            "attachments_accepted",
            "Attachments whose bytes were found to be what they claim",
            m.attachments_accepted.clone(),
        );
        registry.register(
            "attachments_refused",
            "Attachments whose bytes were of another size or type, or refused by the scanner",
            m.attachments_refused.clone(),
        );
        registry.register_with_unit(
            "attachment_scan",
            "Time until the scanner's answer",
            Unit::Seconds,
            m.attachment_scan.clone(),
        );
        registry.register(
            "attachment_removals",
            "Attachments of all replicas whose bytes are to be removed",
            m.attachment_removals.clone(),
        );
        registry.register_with_unit(
            "attachment_removals_oldest",
            "How long the oldest of them has waited; 0 if there is none",
            Unit::Seconds,
            m.attachment_removals_oldest.clone(),
        );
        registry.register(
            "attachment_scans",
            "Attachments of all replicas that wait for the scanner",
            m.attachment_scans.clone(),
        );
        registry.register_with_unit(
            "attachment_scans_oldest",
            "How long the oldest of them has waited; 0 if there is none",
            Unit::Seconds,
            m.attachment_scans_oldest.clone(),
        );
        registry.register(
            "pushes",
            "Pushes to devices, by platform and outcome; `failed` and `unauthorized` count attempts",
            m.pushes.clone(),
        );
        for platform in PushPlatform::ALL {
            for result in PushResult::ALL {
                let labels = PushLabels { platform: platform.as_str(), outcome: result.label() };
                drop(m.pushes.get_or_create(&labels));
            }
        }
        registry.register_with_unit(
            "push_lag",
            "From the commit of a message to the first request to a provider of push, with the delay",
            Unit::Seconds,
            m.push_lag.clone(),
        );
        registry.register(
            "push_lanes",
            "Devices that wait to be looked at, of all replicas",
            m.push_lanes.clone(),
        );
        registry.register_with_unit(
            "push_oldest",
            "How long the oldest of them, or of the chats before them, has been due; 0 if there is none",
            Unit::Seconds,
            m.push_oldest.clone(),
        );
        registry.register(
            "push_dead_rows",
            "Pushes that were given up and not replayed",
            m.push_dead_rows.clone(),
        );
        registry.register_with_unit(
            "delivery",
            "From the commit to the write to a socket; of frames written together, the oldest",
            Unit::Seconds,
            m.delivery.clone(),
        );
        registry.register_with_unit(
            "publication_lag",
            "From the commit to the arrival of its publication",
            Unit::Seconds,
            m.publication_lag.clone(),
        );
        let build = Family::<VersionLabels, Gauge<i64, std::sync::atomic::AtomicI64>>::default();
        build.get_or_create(&VersionLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("build_info", "The running version", build);
        Self { registry: all, ..metrics }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabels {
    version: &'static str,
}

impl Metrics {
    pub fn observe_http(&self, labels: HttpLabels, elapsed: Duration) {
        self.http.get_or_create(&labels).observe(elapsed.as_secs_f64());
    }

    pub fn observe_query(&self, query: &'static str, elapsed: Duration) {
        self.queries.get_or_create(&QueryLabels { query }).observe(elapsed.as_secs_f64());
    }

    /// Observes that an event was written to a socket. Compares two clocks, Postgres's and this
    /// machine's.
    pub fn observe_delivery(&self, committed_micros: i64) {
        let micros = jiff::Timestamp::now().as_microsecond() - committed_micros;
        self.delivery.observe(micros.max(0) as f64 / 1e6);
    }

    /// Sets the numbers of connections to Postgres.
    pub fn set_pool(&self, in_use: usize, open: usize) {
        for (state, count) in [("in_use", in_use), ("open", open)] {
            let gauge = self.pool_connections.get_or_create(&StateLabels { state });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub fn count_error(&self, code: &'static str) {
        self.errors.get_or_create(&CodeLabels { code }).inc();
    }

    pub fn count_standby_read(&self, outcome: StandbyRead) {
        self.standby_reads.get_or_create(&OutcomeLabels { outcome: outcome.label() }).inc();
    }

    pub fn count_webhook(&self, outcome: WebhookOutcome) {
        self.webhooks.get_or_create(&OutcomeLabels { outcome: outcome.label() }).inc();
    }

    pub fn count_push(&self, platform: PushPlatform, result: PushResult) {
        let labels = PushLabels { platform: platform.as_str(), outcome: result.label() };
        self.pushes.get_or_create(&labels).inc();
    }

    /// Observes that a provider is asked to push a message. Compares two clocks, as `observe_delivery` does.
    pub fn observe_push(&self, committed_micros: i64) {
        let micros = jiff::Timestamp::now().as_microsecond() - committed_micros;
        self.push_lag.observe(micros.max(0) as f64 / 1e6);
    }

    pub fn count_close(&self, code: u16) {
        self.sockets_closed.get_or_create(&CloseLabels { code }).inc();
    }

    /// Encodes all metrics as OpenMetrics text (<https://openmetrics.io>).
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
