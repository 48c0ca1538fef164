//! What time tells: whether a chat is there must not show in how long its refusal takes.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use crate::harness::{Client, Cluster, eventually};

/// Requests of each kind in a round. Where there is no difference, the share below strays from a half
/// by 0.05 (one standard deviation).
const PAIRS: usize = 60;

/// How far the share may be from a half: four times that. A millisecond more, on a machine that has
/// little else to do, makes 0.3 to 0.5. Noise makes both kinds alike, so that a busy machine can only
/// hide what there is to find.
const STRAY: f64 = 0.2;

/// Rounds, of which one must be good: a difference is there in all of them.
const ROUNDS: usize = 3;

/// The share of pairs, one of each, in which the first took longer.
fn share_above(first: &[Duration], second: &[Duration]) -> f64 {
    let above = first.iter().map(|first| {
        let above = second.iter().filter(|second| first > *second).count();
        let equal = second.iter().filter(|second| first == *second).count();
        above as f64 + equal as f64 / 2.0
    });
    above.sum::<f64>() / (first.len() * second.len()) as f64
}

/// The routes below a chat, cheap and dear.
async fn refuse(eve: &Client, route: usize, chat: &str) -> Duration {
    let path = format!("/chats/{chat}/");
    let request = match route {
        0 => eve.get(&path),
        1 => eve.get(&format!("{path}messages/")),
        2 => eve.post(&format!("{path}messages/"), json!({ "text": "anybody there?" })),
        3 => eve.post(&format!("{path}mark_read/"), json!({})),
        4 => eve.get(&format!("{path}search/?query=secret")),
        5 => eve.get(&format!("{path}connect/")),
        6 => eve.delete(&format!("{path}messages/{}/", Uuid::now_v7())),
        7 => {
            let body = json!({ "text": "new" });
            eve.patch(&format!("{path}messages/{}/", Uuid::now_v7()), body)
        }
        8 => eve.post(&format!("{path}messages/{}/report/", Uuid::now_v7()), json!({})),
        9 => eve.patch(&path, json!({ "title": "new" })),
        10 => eve.post(&format!("{path}members/"), json!({ "user_ids": ["somebody"] })),
        11 => eve.delete(&format!("{path}members/bob/")),
        12 => eve.post(&format!("{path}join/"), json!({})),
        13 => eve.get(&format!("{path}changes/")),
        14 => eve.get(&format!("{path}pins/")),
        15 => eve.put(&format!("{path}pins/{}/", Uuid::now_v7()), json!({})),
        16 => eve.put(&format!("{path}messages/{}/reactions/:x:/", Uuid::now_v7()), json!({})),
        17 => {
            let body = json!({ "name": "x", "content_type": "text/plain", "size": 5 });
            eve.post(&format!("{path}attachments/"), body)
        }
        18 => eve.get(&format!("{path}attachments/{}/", Uuid::now_v7())),
        _ => eve.delete(&path),
    };
    let began = Instant::now();
    let answer = request.await;
    let took = began.elapsed();
    answer.expect_problem(404, "chat_not_found");
    took
}

const ROUTES: usize = 20;

#[test]
fn the_share_tells_a_shift_from_none() {
    let times = |shift: u64| -> Vec<Duration> {
        (0..PAIRS as u64).map(|n| Duration::from_micros(500 + n * 37 % 301 + shift)).collect()
    };
    assert!((share_above(&times(0), &times(0)) - 0.5).abs() < 0.01);
    assert!((share_above(&times(1_000), &times(0)) - 0.5).abs() > STRAY);
    assert!((share_above(&times(0), &times(1_000)) - 0.5).abs() > STRAY);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_of_others_takes_as_long_to_refuse_as_one_that_does_not_exist() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let eve = cluster.user("eve").on(0);
    // With something in it: what is there to be read could be what takes longer.
    let chat = alice.on(0).open_chat(&bob).await;
    for number in 0..50 {
        alice.on(0).send(&chat, &format!("secret {number}")).await;
    }
    assert_eq!(eve.request(Method::GET, "/api/v1/chats/").await.status, 200);
    for by_name in [false, true] {
        for route in 0..ROUTES {
            let mut shares = Vec::new();
            // The first round also warms up.
            let alike = loop {
                let (mut foreign, mut absent) = (Vec::new(), Vec::new());
                for _ in 0..PAIRS {
                    let (there, nowhere) = if by_name {
                        let name: String =
                            (0..22).map(|_| char::from(rand::random_range(b'a'..=b'z'))).collect();
                        // The last character holds two bits only.
                        (chat.room_name.clone(), format!("{}A", &name[1..]))
                    } else {
                        (chat.id.clone(), Uuid::now_v7().to_string())
                    };
                    // Either may come first: the second finds the way warmer.
                    if rand::random() {
                        foreign.push(refuse(&eve, route, &there).await);
                        absent.push(refuse(&eve, route, &nowhere).await);
                    } else {
                        absent.push(refuse(&eve, route, &nowhere).await);
                        foreign.push(refuse(&eve, route, &there).await);
                    }
                }
                let share = share_above(&foreign, &absent);
                shares.push(share);
                if (share - 0.5).abs() <= STRAY || shares.len() == ROUNDS {
                    break (share - 0.5).abs() <= STRAY;
                }
            };
            assert!(
                alike,
                "route {route}, by name: {by_name}: a chat of others took longer in {shares:?} of the pairs"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_writes_nothing() {
    // What writes waits for the flush of the log, which the databases of tests do without. Its own, as a
    // transaction that writes anywhere has a number.
    let cluster = Cluster::with_own_stack(1, |_| {}).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let eve = cluster.user("eve").on(0);
    let chat = alice.on(0).open_chat(&bob).await;
    alice.on(0).send(&chat, "secret").await;
    refuse(&eve, 0, &chat.id).await;
    for route in 0..ROUTES {
        eventually(async || {
            let next = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text";
            let before: u64 = cluster.psql_value(next).await;
            refuse(&eve, route, &chat.id).await;
            let after: u64 = cluster.psql_value(next).await;
            // The server's own work may come in between, now and then.
            if after == before { Ok(()) } else { Err(format!("route {route} wrote")) }
        })
        .await;
    }
}
