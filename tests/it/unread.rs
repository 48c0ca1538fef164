//! Counters and read markers are exact, wherever they are asked for.

use std::collections::HashMap;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Chat, Client, Cluster, assert_members, eventually};

async fn mark(client: &Client, chat: &Chat, body: Value) -> Value {
    client.post(&chat.path("mark_read/"), body).await.expect(200)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_message_is_counted_at_once_on_the_other_replica() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    for sent in 1..=100 {
        let replica = sent % 2;
        alice.on(replica).send(&chat, "one more").await;
        let expected = i64::try_from(sent).expect("small");
        assert_eq!(bob.on(1 - replica).unread_in(&chat).await, expected);
        assert_eq!(bob.on(1 - replica).chat(&chat).await["unread_count"], expected);
        if sent % 10 == 0 {
            cluster.redis_flush().await;
            assert_eq!(bob.on(replica).unread_in(&chat).await, expected);
        }
    }
    assert_eq!(bob.on(0).mark_read(&chat).await["unread_count"], 0);
    assert_eq!(bob.on(1).unread_in(&chat).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_are_exact_under_racing_sends_marks_and_deletions() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let acts = (0..120_usize).map(|i| {
        let (chat, alice, bob) = (chat.clone(), alice.on(i % 2), bob.on(i / 2 % 2));
        async move {
            match i % 5 {
                0 => {
                    mark(&bob, &chat, json!({ "up_to_seq": i / 4 })).await;
                }
                1 => {
                    let sent = alice.send(&chat, "to be deleted").await;
                    let id = sent["message_id"].as_str().expect("an id").to_owned();
                    alice.delete(&chat.path(&format!("messages/{id}/"))).await.expect(204);
                }
                2 => drop(bob.send(&chat, "from bob").await),
                _ => drop(alice.send(&chat, "from alice").await),
            }
        }
    });
    join_all(acts).await;
    let counted = bob.on(0).unread_in(&chat).await;
    assert_eq!(bob.on(1).chat(&chat).await["unread_count"], counted);
    cluster.redis_flush().await;
    assert_eq!(bob.on(1).unread_in(&chat).await, counted);
    // The cluster recounts both on its way out.
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_are_the_live_messages_of_the_other_past_the_marker() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut sent = Vec::new();
    for i in 1..=6 {
        sent.push(alice.on(0).send(&chat, &format!("message {i}")).await);
    }
    let delete = async |index: usize| {
        let id = sent[index]["message_id"].as_str().expect("an id");
        alice.on(1).delete(&chat.path(&format!("messages/{id}/"))).await.expect(204);
    };
    assert_eq!(bob.on(1).unread_in(&chat).await, 6);
    assert_eq!(alice.on(1).unread_in(&chat).await, 0);
    // Sending does not move the sender's marker.
    bob.on(0).send(&chat, "from bob").await;
    assert_eq!(bob.on(1).unread_in(&chat).await, 6);
    assert_eq!(alice.on(0).unread_in(&chat).await, 1);
    delete(5).await;
    assert_eq!(bob.on(0).unread_in(&chat).await, 5);
    delete(5).await;
    assert_eq!(bob.on(0).unread_in(&chat).await, 5);
    mark(&bob.on(1), &chat, json!({ "up_to_seq": 2 })).await;
    assert_eq!(bob.on(0).unread_in(&chat).await, 3);
    delete(0).await;
    assert_eq!(bob.on(0).unread_in(&chat).await, 3, "it was read already");
    delete(3).await;
    assert_eq!(bob.on(0).unread_in(&chat).await, 2);
    let marked = mark(&bob.on(1), &chat, json!({ "up_to_seq": 4 })).await;
    assert_eq!((&marked["read_seq"], &marked["unread_count"]), (&json!(4), &json!(1)));
    assert_eq!(bob.on(0).unread_in(&chat).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_marker_goes_forward_only_and_never_past_the_head() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    for i in 1..=5 {
        alice.on(0).send(&chat, &format!("message {i}")).await;
    }
    let marked = mark(&bob.on(1), &chat, json!({ "up_to_seq": 2 })).await;
    assert_members(&marked, &["chat_id", "room_name", "read_seq", "unread_count", "total_unread"]);
    let expected = json!({
        "chat_id": chat.id, "room_name": chat.room_name,
        "read_seq": 2, "unread_count": 3, "total_unread": 3,
    });
    assert_eq!(marked, expected);
    let head_ev = async || alice.on(0).history(&chat, "").await["head_ev"].clone();
    assert_eq!(head_ev().await, 6);
    // What moves nothing is no change.
    for up_to in [0, 1, 2] {
        assert_eq!(mark(&bob.on(0), &chat, json!({ "up_to_seq": up_to })).await, expected);
        assert_eq!(head_ev().await, 6);
    }
    let marked = mark(&bob.on(0), &chat, json!({ "up_to_seq": i64::MAX })).await;
    assert_eq!((&marked["read_seq"], &marked["unread_count"]), (&json!(5), &json!(0)));
    assert_eq!(head_ev().await, 7);
    // Clamped to the head of then, not of later.
    alice.on(0).send(&chat, "message 6").await;
    assert_eq!(bob.on(1).unread_in(&chat).await, 1);
    assert_eq!(alice.on(1).chat(&chat).await["peer_read_seq"], 5);
    assert_eq!(bob.on(1).mark_read(&chat).await["read_seq"], 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_without_a_number_takes_all_sent_up_to_now() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let path = format!("/api/v1{}", chat.path("mark_read/"));
    let bodies = ["", "{}", r#"{"room_name":null,"up_to_seq":null,"other":1}"#];
    for (read_seq, body) in (1..).zip(bodies) {
        let sent = alice.on(0).send(&chat, "now").await;
        assert_eq!(sent["seq"], read_seq);
        let request = bob.on(1).request(reqwest::Method::POST, &path);
        let marked = match body {
            "" => request.await,
            body => request.body("application/json", body).await,
        };
        assert_eq!(marked.expect(200)["read_seq"], read_seq, "{body}");
    }
    for (body, fields) in [
        (json!({ "up_to_seq": -1 }), vec!["up_to_seq"]),
        (json!({ "up_to_seq": 1.5 }), vec!["up_to_seq"]),
        (json!({ "up_to_seq": "1" }), vec!["up_to_seq"]),
        (json!({ "up_to_seq": [], "room_name": 7 }), vec!["up_to_seq", "room_name"]),
        (json!([]), vec!["body"]),
    ] {
        bob.on(1).post(&chat.path("mark_read/"), body).await.expect_faults(&fields);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_meant_for_another_chat_marks_nothing() {
    let cluster = Cluster::start(2).await;
    let (alice, bob, eve) = (cluster.user("alice"), cluster.user("bob"), cluster.user("eve"));
    let chat = alice.on(0).open_chat(&bob).await;
    let other = alice.on(0).open_chat(&eve).await;
    let foreign = bob.on(0).open_chat(&eve).await;
    bob.on(0).send(&chat, "unread").await;
    let names = [&other.room_name, &foreign.room_name, "AAAAAAAAAAAAAAAAAAAAAA", "nonsense", ""];
    for name in names {
        for chat in [&chat.id, &chat.room_name] {
            let path = format!("/chats/{chat}/mark_read/");
            let answer = alice.on(1).post(&path, json!({ "room_name": name })).await;
            answer.expect_problem(409, "room_mismatch");
            // Who is no member learns nothing.
            let answer = eve.on(1).post(&path, json!({ "room_name": name })).await;
            answer.expect_problem(404, "chat_not_found");
        }
    }
    assert_eq!(alice.on(0).unread_in(&chat).await, 1);
    let right = json!({ "room_name": chat.room_name, "up_to_seq": 1 });
    assert_eq!(mark(&alice.on(1), &chat, right).await["unread_count"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_chat_is_in_the_summary_latest_activity_first() {
    let cluster = Cluster::start(2).await;
    let alice = cluster.user("alice");
    assert_eq!(
        alice.on(0).get("/chats/unread/").await.expect(200),
        json!({ "total": 0, "total_mentions": 0, "badge": 0, "chats": [] })
    );
    let mut chats = Vec::new();
    let mut expected = HashMap::new();
    for i in 0..6 {
        let peer = cluster.user(&format!("peer {i}"));
        let chat = alice.on(0).open_chat(&peer).await;
        for _ in 0..i {
            peer.on(i % 2).send(&chat, "hi").await;
        }
        expected.insert(chat.id.clone(), i);
        chats.push((peer, chat));
    }
    // The eldest becomes the latest.
    let (_, eldest) = &chats[0];
    alice.on(1).send(eldest, "mine").await;
    let order = [0, 5, 4, 3, 2, 1];
    for flushed in [false, true] {
        for replica in [0, 1] {
            let summary = alice.on(replica).get("/chats/unread/").await.expect(200);
            assert_eq!(summary["total"], 15);
            let all_told = summary["chats"].as_array().expect("a list");
            for (told, index) in all_told.iter().zip(order) {
                let chat = &chats[index].1;
                let sent = if index == 0 { 1 } else { index };
                let expected = json!({
                    "chat_id": chat.id, "room_name": chat.room_name, "unread_count": index,
                    "unread_mentions": 0, "notify": "all", "last_seq": sent, "read_seq": 0,
                });
                assert_eq!(*told, expected, "after a flush: {flushed}");
            }
            assert_eq!(chats.len(), 6);
        }
        cluster.redis_flush().await;
    }
    let (_, fullest) = &chats[5];
    assert_eq!(alice.on(1).mark_read(fullest).await["total_unread"], 10);
    assert_eq!(alice.on(0).get("/chats/unread/").await.expect(200)["total"], 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn chats_that_are_opened_and_deleted_all_day_leave_little_behind() {
    const DELETED: usize = 100;
    let cluster = Cluster::start(2).await;
    let (alice, bob, carol) = (cluster.user("alice"), cluster.user("bob"), cluster.user("carol"));
    let chat = carol.on(0).open_chat(&bob).await;
    carol.on(0).send(&chat, "one").await;
    assert_eq!(bob.on(0).unread_in(&chat).await, 1);
    // What the hours before have left: the first of 1970.
    let key = format!("{}unread:bob", cluster.redis_prefix());
    let mut old = vec!["HSET".to_owned(), key.clone(), "tombstones".to_owned(), "2000".to_owned()];
    for number in 0..2_000 {
        old.extend([format!("00000000-0000-7000-8000-{number:012}"), "gone|0".to_owned()]);
    }
    let old: Vec<&str> = old.iter().map(String::as_str).collect();
    cluster.redis().await.command(&old).await;
    for number in 0..DELETED {
        let gone = alice.on(number % 2).open_chat(&bob).await;
        alice.on(number % 2).send(&gone, "to be deleted").await;
        alice.on(number % 2).delete(&gone.path("")).await.expect(204);
    }
    let left = cluster.redis().await.hash("unread:bob").await;
    let tombstones = left.values().filter(|value| value.starts_with("gone|")).count();
    assert_eq!(left["tombstones"], tombstones.to_string());
    assert_eq!(tombstones, DELETED, "those of the last hour, and only those");
    // They make reading dear, and so Postgres is asked, whatever is said there.
    let (counter, wrong) = (left[&chat.id].clone(), "9|9|9|0|0|x");
    cluster.redis().await.command(&["HSET", &key, &chat.id, wrong]).await;
    for replica in [0, 1] {
        assert_eq!(bob.on(replica).unread_in(&chat).await, 1);
    }
    cluster.redis().await.command(&["HSET", &key, &chat.id, &counter]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_counters_come_from_postgres() {
    let cluster = Cluster::with_own_stack(2, |_| {}).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    alice.on(0).send(&chat, "before").await;
    assert_eq!(bob.on(1).unread_in(&chat).await, 1);
    cluster.stack().redis.kill();
    alice.on(0).send(&chat, "meanwhile").await;
    for replica in [0, 1] {
        assert_eq!(bob.on(replica).unread_in(&chat).await, 2);
    }
    cluster.stack().redis.restart().await.expect("Redis comes back");
    alice.on(0).send(&chat, "after").await;
    // A replica that has not yet noticed may be late, but not for long.
    eventually(async || match bob.on(1).unread_in(&chat).await {
        3 => Ok(()),
        other => Err(format!("{other} unread")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counter_that_redis_refuses_holds_up_no_others() {
    let cluster = Cluster::start(2).await;
    let (alice, bob, carol) = (cluster.user("alice"), cluster.user("bob"), cluster.user("carol"));
    let (with_bob, with_carol) =
        (alice.on(0).open_chat(&bob).await, alice.on(0).open_chat(&carol).await);
    // No hash: every write of carol's counters fails while all else goes well.
    let key = format!("{}unread:carol", cluster.redis_prefix());
    cluster.redis().await.command(&["SET", &key, "x"]).await;
    alice.on(0).send(&with_carol, "not to be counted").await;
    // A commit whose replica died before it could tell of it.
    let orphan = format!("INSERT INTO outbox (chats) VALUES ('{{{}}}')", with_bob.id);
    cluster.psql(&orphan).await;
    let left = "SELECT array_to_string(array_agg(DISTINCT chats[1]), ',') FROM outbox";
    eventually(async || match cluster.psql_value::<String>(left).await {
        chats if chats == with_carol.id => Ok(()),
        chats => Err(format!("left are those of {chats}")),
    })
    .await;
    assert_eq!(carol.on(1).unread_in(&with_carol).await, 1, "Postgres knows");
    cluster.redis().await.command(&["DEL", &key]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_that_is_repeated_counts_for_reads_begun_after_it() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    alice.on(0).send(&chat, "unread").await;
    assert_eq!(bob.on(0).unread_in(&chat).await, 1);
    // A replica died before it wrote to Redis; without the outbox row, no other one makes up for it.
    let mark = format!(
        "SELECT mutate_chats(ARRAY['mark'], ARRAY['{chat}']::uuid[], ARRAY['bob'], ARRAY[NULL]::uuid[],
                             ARRAY[NULL]::text[], ARRAY[NULL]::text[], ARRAY[false],
                             ARRAY[NULL]::bigint[]);
         DELETE FROM outbox"
    );
    cluster.psql(&mark).await;
    assert_eq!(bob.on(0).mark_read(&chat).await["total_unread"], 0);
    assert_eq!(bob.on(0).unread_in(&chat).await, 0);
    // The other member's copy, which no repetition is about, has missed the revision.
    cluster.redis_flush().await;
}
