//! What tests of all that speaks to Redis share.

use std::time::Duration;

use fred::{
    interfaces::ClientLike,
    types::{ClusterHash, CustomCommand, Value},
};
use tokio::time::timeout;

use super::Link;
use crate::{dev::Redis, model::UserId};

/// Longest wait for anything in these tests; all of it takes milliseconds on an idle machine.
pub(crate) const CEILING: Duration = Duration::from_secs(15);

pub(crate) fn user(id: &str) -> UserId {
    UserId::parse(id).expect("a user_id")
}

/// A Redis of one's own, and a link that is up.
pub(crate) async fn redis() -> (Redis, Link) {
    let redis = Redis::temporary().await.expect("Redis is installed");
    let link = link(&redis).await;
    (redis, link)
}

/// Another link, as another replica has.
pub(crate) async fn link(redis: &Redis) -> Link {
    let link = Link::connect(&redis.url(), "test:").expect("a URL");
    up(&link).await;
    link
}

/// Waits until commands are let through and the generation is known.
pub(crate) async fn up(link: &Link) {
    let known = async {
        while !link.is_up() || link.generation().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(CEILING, known).await.expect("Redis comes up");
}

/// Says something to Redis itself.
pub(crate) async fn command(link: &Link, words: &str) -> Value {
    let mut words = words.split(' ');
    let name = words.next().unwrap_or_default().to_owned();
    let args: Vec<Value> = words.map(Value::from).collect();
    let pipeline = link.pipeline().expect("Redis is up");
    let custom = CustomCommand::new(name, ClusterHash::FirstKey, false);
    let _queued: Value = pipeline.custom(custom, args).await.expect("only queued");
    let answers = link.send(&pipeline, 1).await.expect("Redis answers");
    answers.into_iter().next().expect("one answer").expect("a command Redis knows")
}
