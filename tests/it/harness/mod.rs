//! Tests replicas from outside, as clients: by HTTP and sockets.
//!
//! A [`Cluster`] has replicas in this process with their own database and Redis prefix. On drop it
//! asserts the [`invariants`].

mod answer;
mod authority;
mod azure;
mod client;
mod cluster;
mod delay_proxy;
mod documented;
pub(crate) mod fill;
mod invariants;
pub(crate) mod keys;
mod pgbouncer;
mod postgres;
mod program;
mod redis;
mod s3;
mod socket;
mod stack;
mod talker;
mod token;

use std::time::Duration;

use serde_json::Value;

pub(crate) use self::{
    answer::Answer,
    authority::{Authority, Certificate},
    azure::Azure,
    client::{Chat, Client, Request, User, told},
    cluster::Cluster,
    delay_proxy::DelayProxy,
    pgbouncer::PgBouncer,
    postgres::Psql,
    program::Program,
    redis::{Redis, Reply},
    s3::S3,
    socket::Socket,
    talker::Talker,
    token::{SECRET, claims, now, sign, sign_with},
};

/// Longest wait for an expected event: a hundred times its usual time on a busy machine.
pub(crate) const CEILING: Duration = Duration::from_secs(10);

/// Pause between two polls.
const POLL: Duration = Duration::from_millis(10);

/// Polls until `probe` succeeds; panics with its last error after [`CEILING`].
pub(crate) async fn eventually<T>(probe: impl AsyncFnMut() -> Result<T, String>) -> T {
    eventually_within(CEILING, probe).await
}

/// As [`eventually`], if the documents promise less than [`CEILING`] or a test needs more.
pub(crate) async fn eventually_within<T>(
    ceiling: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let deadline = tokio::time::Instant::now() + ceiling;
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(complaint) if tokio::time::Instant::now() >= deadline => {
                panic!("still not after {ceiling:?}: {complaint}")
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

/// The members of a message; an answer of REST has `my_reactions` too.
pub(crate) const MESSAGE: [&str; 18] = [
    "message_id",
    "chat_id",
    "seq",
    "ev",
    "sender_id",
    "text",
    "metadata",
    "mentions",
    "system",
    "reply_to",
    "attachments",
    "reactions",
    "pinned_at",
    "type",
    "client_msg_id",
    "created_at",
    "edited_at",
    "deleted_at",
];

/// Asserts that `object` has exactly these members.
#[track_caller]
pub(crate) fn assert_members(object: &Value, names: &[&str]) {
    let mut expected = names.to_vec();
    expected.sort_unstable();
    let mut found: Vec<&str> =
        object.as_object().expect("an object").keys().map(String::as_str).collect();
    found.sort_unstable();
    assert_eq!(found, expected, "{object}");
}

/// RFC 3339 in UTC with microseconds, which sorts as text.
#[track_caller]
pub(crate) fn assert_time(value: &Value) {
    let text = value.as_str().unwrap_or_else(|| panic!("a time, not {value}"));
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000000Z", "{text}");
}
