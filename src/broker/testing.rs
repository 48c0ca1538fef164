//! Helpers for the tests of modules that use Redis.

use std::time::Duration;

use fred::{
    interfaces::ClientLike,
    types::{ClusterHash, CustomCommand, Value},
};
use tokio::time::timeout;

use super::RedisClient;
use crate::{dev::Redis, model::UserId};

/// Longest wait for anything in these tests; all of it takes milliseconds on an idle machine.
pub(crate) const CEILING: Duration = Duration::from_secs(15);

pub(crate) fn user(id: &str) -> UserId {
    UserId::parse(id).expect("a user_id")
}

/// Starts a private Redis and connects a client.
pub(crate) async fn redis() -> (Redis, RedisClient) {
    let redis = Redis::temporary().await.expect("Redis is installed");
    let client = connect(&redis).await;
    (redis, client)
}

/// Connects another client, as another replica would.
pub(crate) async fn connect(redis: &Redis) -> RedisClient {
    let client = RedisClient::connect(&redis.url(), None, "test:").expect("a URL");
    up(&client).await;
    client
}

/// Starts a cluster of three masters; returns a client of each, and one of the cluster.
pub(crate) async fn ring() -> (Vec<Redis>, Vec<RedisClient>, RedisClient) {
    let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
    let (mut servers, mut clients) = (Vec::new(), Vec::new());
    for (number, slots) in [0..=5460, 5461..=10922, 10923..=16383].into_iter().enumerate() {
        let server = Redis::temporary_with(&options).await.expect("Redis is installed");
        let own = connect(&server).await;
        // One by one: ranges are Redis 7's.
        let slots: Vec<String> = slots.map(|slot: u16| slot.to_string()).collect();
        command(&own, &format!("CLUSTER ADDSLOTS {}", slots.join(" "))).await;
        command(&own, &format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1)).await;
        servers.push(server);
        clients.push(own);
    }
    for own in &clients[1..] {
        command(own, &format!("CLUSTER MEET 127.0.0.1 {}", servers[0].port())).await;
    }
    let agreed = async {
        for own in &clients {
            loop {
                let info = command(own, "CLUSTER INFO").await.into_string().unwrap_or_default();
                if info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3") {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    timeout(CEILING, agreed).await.expect("they find each other");
    let all = RedisClient::connect(&ring_url(&servers), None, "test:").expect("a URL");
    up(&all).await;
    (servers, clients, all)
}

pub(crate) fn ring_url(servers: &[Redis]) -> String {
    let hosts: Vec<String> = servers.iter().map(|s| format!("127.0.0.1:{}", s.port())).collect();
    format!("redis-cluster://{}?node={}&node={}", hosts[0], hosts[1], hosts[2])
}

/// Waits until commands are let through and the generation is known.
pub(crate) async fn up(client: &RedisClient) {
    let known = async {
        while !client.is_up() || client.generation().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(CEILING, known).await.expect("Redis comes up");
}

/// Sends a command to Redis.
pub(crate) async fn command(client: &RedisClient, words: &str) -> Value {
    let mut words = words.split(' ');
    let name = words.next().unwrap_or_default().to_owned();
    let args: Vec<Value> = words.map(Value::from).collect();
    let pipeline = client.pipeline().expect("Redis is up");
    let custom = CustomCommand::new(name, ClusterHash::FirstKey, false);
    let _queued: Value = pipeline.custom(custom, args).await.expect("only queued");
    let answers = client.send(&pipeline, 1).await.expect("Redis answers");
    answers.into_iter().next().expect("one answer").expect("a command Redis knows")
}
