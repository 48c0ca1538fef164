//! What clients say.

use beseda::config::Switch;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use super::{assert_members, kind};
use crate::harness::{Cluster, Socket, claims, eventually, sign, told};

/// Asserts that the socket is as good as ever.
async fn assert_stays(socket: &mut Socket) {
    socket.send(json!({ "type": "ping" })).await;
    assert_eq!(socket.wait_for("pong").await, json!({ "type": "pong" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_is_acknowledged_with_the_message_and_may_be_repeated() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut sender = alice.on(0).connect(&chat).await;
    let mut reader = bob.on(1).connect(&chat).await;
    let send = |id: Value, text: &str| json!({ "type": "send", "id": id, "text": text, "client_msg_id": "once", "metadata": { "a": 1 } });
    let ack = sender.ask(send(json!("x"), "hi")).await;
    assert_members(&ack, &["type", "id", "message"]);
    assert_eq!(ack["type"], "ack");
    let message = ack["message"].clone();
    assert_eq!(reader.expect_message().await, message);
    let path = chat.path(&format!("messages/{}/", message["message_id"].as_str().expect("an id")));
    assert_eq!(told(bob.on(1).get(&path).await.expect(200)), message);
    // From any replica and by either way it is the first one again.
    assert_eq!(sender.ask(send(json!(2), "hi")).await["message"], message);
    let mut elsewhere = alice.on(1).connect(&chat).await;
    assert_eq!(elsewhere.ask(send(json!(3), "hi")).await["message"], message);
    let mut body = send(json!(4), "hi");
    body["type"].take();
    assert_eq!(told(alice.on(1).post(&chat.path("messages/"), body).await.expect(200)), message);
    let other = sender.ask(send(json!(5), "something else")).await;
    assert_eq!((&other["type"], &other["code"]), (&json!("error"), &json!("idempotency_mismatch")));
    let next = alice.on(0).send(&chat, "next").await;
    assert_eq!(reader.expect_message().await, next, "nothing came twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_that_breaks_a_rule_is_an_error_with_the_code_of_rest() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut socket = alice.on(0).connect(&chat).await;
    let long = "x".repeat(4_001);
    for (fields, code) in [
        (json!({}), "validation_failed"),
        (json!({ "text": "" }), "validation_failed"),
        (json!({ "text": " \n" }), "validation_failed"),
        (json!({ "text": 7 }), "validation_failed"),
        (json!({ "text": long }), "validation_failed"),
        (json!({ "text": "x", "metadata": [] }), "validation_failed"),
        (json!({ "text": "x", "client_msg_id": "" }), "validation_failed"),
        (json!({ "text": "x", "chat_id": "no" }), "validation_failed"),
        (json!({ "text": "x", "chat_id": Uuid::now_v7() }), "chat_not_found"),
    ] {
        let mut command = fields;
        command["type"] = "send".into();
        command["id"] = 1.into();
        let error = socket.ask(command).await;
        assert_members(&error, &["type", "id", "code", "detail"]);
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(code)), "{error}");
        assert!(error["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{error}");
    }
    bob.on(0).put("/users/alice/block/", json!({})).await;
    let error = socket.ask(json!({ "type": "send", "id": 2, "text": "x" })).await;
    assert_eq!(error["code"], "blocked");
    assert_stays(&mut socket).await;
    assert_eq!(bob.on(0).chat(&chat).await["last_seq"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_is_acknowledged_with_both_counters() {
    let cluster = Cluster::start(2).await;
    let (alice, bob, carol) = (cluster.user("alice"), cluster.user("bob"), cluster.user("carol"));
    let chat = alice.on(0).open_chat(&bob).await;
    let other = carol.on(0).open_chat(&bob).await;
    for _ in 0..3 {
        alice.on(0).send(&chat, "x").await;
    }
    carol.on(0).send(&other, "x").await;
    let mut writer = alice.on(0).connect(&chat).await;
    let mut reader = bob.on(1).connect(&chat).await;
    let ack = reader.ask(json!({ "type": "mark_read", "id": 1, "up_to_seq": 2 })).await;
    let expected = json!({ "type": "ack", "id": 1, "chat_id": chat.id, "read_seq": 2, "unread_count": 1, "total_unread": 2 });
    assert_eq!(ack, expected);
    let read = writer.expect("chat.read").await;
    assert_eq!((&read["user_id"], &read["read_seq"]), (&json!("bob"), &json!(2)));
    // Never back, clamped at the head, and all without a number.
    for (command, read_seq) in [
        (json!({ "type": "mark_read", "id": 2, "up_to_seq": 1 }), 2),
        (json!({ "type": "mark_read", "id": 3 }), 3),
        (json!({ "type": "mark_read", "id": 4, "up_to_seq": 99, "chat_id": chat.id }), 3),
    ] {
        assert_eq!(reader.ask(command).await["read_seq"], read_seq);
    }
    let error = reader.ask(json!({ "type": "mark_read", "id": 5, "up_to_seq": "2" })).await;
    assert_eq!(error["code"], "validation_failed");
    assert_eq!(bob.on(0).unread_in(&chat).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn typing_is_told_to_the_others_only_and_not_over_a_block() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut typist = alice.on(0).connect(&chat).await;
    let mut second = alice.on(1).connect(&chat).await;
    let mut other = bob.on(1).connect(&chat).await;
    for typing in [true, false] {
        typist.send(json!({ "type": "typing", "typing": typing })).await;
        let told = other.expect("typing").await;
        let expected =
            json!({ "type": "typing", "chat_id": chat.id, "user_id": "alice", "typing": typing });
        assert_eq!(told, expected);
    }
    bob.on(0).put("/users/alice/block/", json!({})).await.expect(204);
    typist.send(json!({ "type": "typing", "typing": true })).await;
    other.send(json!({ "type": "typing", "typing": true })).await;
    assert_stays(&mut typist).await;
    assert_stays(&mut other).await;
    bob.on(0).delete("/users/alice/block/").await.expect(204);
    // What comes after it on the same channel shows that it was not told.
    let sent = alice.on(0).send(&chat, "no typing before this").await;
    for socket in [&mut typist, &mut second, &mut other] {
        let frames = socket.frames_until("message.created").await;
        assert!(frames.iter().all(|frame| kind(frame) != "typing"), "{frames:?}");
        assert_eq!(frames.last().map(|frame| &frame["message"]), Some(&sent));
    }
    let error = typist.ask(json!({ "type": "typing", "id": 1, "typing": "yes" })).await;
    assert_eq!(error["code"], "validation_failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_command_or_a_bad_field_is_an_error_and_the_socket_stays() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    for mut socket in [alice.on(0).connect(&chat).await, alice.on(0).connect_many().await] {
        for (frame, id) in [
            (json!({ "type": "dance", "id": 7 }), json!(7)),
            (json!({ "id": "no type" }), json!("no type")),
            (json!({ "type": 5, "id": 8 }), json!(8)),
            (json!({ "type": "auth", "id": 9 }), json!(9)),
            (json!({ "type": "typing", "id": 10 }), json!(10)),
            (json!({ "type": "ping", "id": 1.5 }), Value::Null),
            (json!({ "type": "ping", "id": {} }), Value::Null),
            (json!([]), Value::Null),
            (json!("ping"), Value::Null),
            (json!(null), Value::Null),
        ] {
            socket.send(frame.clone()).await;
            let error = socket.expect("error").await;
            assert_eq!(error["code"], "validation_failed", "{frame}");
            assert_eq!(error["id"], id, "{frame}");
            assert_eq!(error.get("id").is_some(), !id.is_null(), "{error}");
        }
        // Members that are not known are none of our business.
        socket.send(json!({ "type": "ping", "extra": { "deep": [] } })).await;
        assert_eq!(socket.expect("pong").await, json!({ "type": "pong" }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_echoed_as_sent() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut socket = alice.on(0).connect(&chat).await;
    for id in ["1", "0", "-7", "18446744073709551615", "\"a\"", "\"\"", r#""\u0041\n\"ё""#] {
        let frame = format!(r#"{{"id": {id}, "type": "mark_read"}}"#);
        socket.send_raw(Message::text(frame)).await;
        let ack = socket.expect("ack").await;
        assert_eq!(ack["id"], serde_json::from_str::<Value>(id).expect("JSON"));
    }
    // Without one there is an acknowledgement all the same.
    socket.send(json!({ "type": "mark_read" })).await;
    let ack = socket.expect("ack").await;
    assert!(ack.get("id").is_none(), "{ack}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_json_or_too_large_ends_the_socket() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let padded = |bytes: usize| format!("{{\"type\":\"ping\",\"pad\":\"{}\"}}", "x".repeat(bytes));
    for (frame, codes) in [
        (Message::text("{"), [4000, 4000]),
        (Message::text(""), [4000, 4000]),
        (Message::text("{\"type\":\"ping\"} {}"), [4000, 4000]),
        (Message::binary("{\"type\":\"ping\"}"), [4000, 1003]),
        (Message::text(padded(64 * 1024)), [4000, 1009]),
        // More than the kernel's buffers hold: its sender is still sending when it is refused.
        (Message::text(padded(7 * 1024 * 1024)), [4000, 1009]),
    ] {
        for mut socket in [alice.on(0).connect(&chat).await, alice.on(0).connect_many().await] {
            socket.send_raw(frame.clone()).await;
            let shown: String = frame.to_string().chars().take(20).collect();
            let code = loop {
                if let Err(code) = socket.next_frame_or_close().await {
                    break code;
                }
            };
            assert!(codes.contains(&code), "{shown} was answered {code}");
        }
    }
    // The largest that is allowed is taken.
    let mut socket = alice.on(0).connect(&chat).await;
    socket.send_raw(Message::text(padded(64 * 1024 - 30))).await;
    socket.expect("pong").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_is_taken_for_the_same_user_only() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut longer = claims("alice");
    longer["exp"] = (longer["exp"].as_u64().expect("a number") + 1_000).into();
    let mut expired = claims("alice");
    expired["exp"] = 1_000_000_000.into();
    for mut socket in [alice.on(0).connect(&chat).await, alice.on(0).connect_many().await] {
        for (token, code) in [
            (bob.token.clone(), "forbidden"),
            ("x".to_owned(), "token_invalid"),
            (sign(&expired), "token_expired"),
        ] {
            let error = socket.ask(json!({ "type": "auth", "id": 1, "token": token })).await;
            assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(code)));
        }
        let ack = socket.ask(json!({ "type": "auth", "id": 2, "token": sign(&longer) })).await;
        assert_members(&ack, &["type", "id", "token_expires_at"]);
        let until: jiff::Timestamp =
            ack["token_expires_at"].as_str().and_then(|at| at.parse().ok()).expect("a time");
        assert_eq!(until.as_second(), longer["exp"]);
        assert_stays(&mut socket).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_many_chats_socket_follows_and_leaves_chats() {
    let cluster = Cluster::start(2).await;
    let (alice, bob, carol) = (cluster.user("alice"), cluster.user("bob"), cluster.user("carol"));
    let one = alice.on(0).open_chat(&bob).await;
    let two = alice.on(0).open_chat(&carol).await;
    bob.on(0).send(&one, "before").await;
    let mut socket = alice.on(1).connect_many().await;
    for command in ["subscribe", "unsubscribe", "send", "mark_read", "typing"] {
        let asked = json!({ "type": command, "id": 1, "text": "x", "typing": true });
        let error = socket.ask(asked).await;
        assert_eq!(error["code"], "validation_failed", "{command} needs a chat_id");
    }
    let asked = json!({ "type": "subscribe", "id": "s1", "chat_id": one.id, "after_ev": 0 });
    let subscribed = socket.ask(asked).await;
    assert_eq!(
        (&subscribed["type"], &subscribed["chat_id"], &subscribed["head_ev"]),
        (&json!("subscribed"), &json!(one.id), &json!(1))
    );
    assert_eq!(socket.expect_message().await["text"], "before");
    assert_eq!(socket.expect("synced").await["chat_id"], *one.id);
    let asked = json!({ "type": "subscribe", "id": "s2", "chat_id": two.id });
    assert_eq!(socket.ask(asked).await["head_ev"], 0);
    socket.expect("synced").await;
    let sent = carol.on(0).send(&two, "from carol").await;
    assert_eq!(socket.wait_for("message.created").await["message"], sent);
    let sent = bob.on(0).send(&one, "from bob").await;
    assert_eq!(socket.wait_for("message.created").await["message"], sent);

    let ack = socket.ask(json!({ "type": "unsubscribe", "id": 9, "chat_id": one.id })).await;
    assert_eq!(ack, json!({ "type": "ack", "id": 9, "chat_id": one.id }));
    let mut witness = alice.on(1).connect(&one).await;
    let unheard = bob.on(0).send(&one, "unheard").await;
    assert_eq!(witness.expect_message().await, unheard);
    let sent = carol.on(0).send(&two, "heard").await;
    let frames = socket.frames_until("message.created").await;
    assert_eq!(frames.last().map(|frame| &frame["message"]), Some(&sent));
    // One may write where one does not follow.
    let ack = socket.ask(json!({ "type": "send", "id": 4, "chat_id": one.id, "text": "x" })).await;
    assert_eq!(ack["message"]["text"], "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn following_a_chat_once_more_gives_a_new_start_and_stays_live() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut socket = bob.on(1).connect_many().await;
    for id in 1..=3 {
        alice.on(0).send(&chat, "x").await;
        let asked = json!({ "type": "subscribe", "id": id, "chat_id": chat.id, "after_ev": 0 });
        socket.send(asked).await;
        socket.wait_for("subscribed").await;
        let mut replayed = socket.frames_until("synced").await;
        replayed.retain(|frame| kind(frame) == "message.created");
        assert_eq!(replayed.len(), id);
        let live = alice.on(0).send(&chat, "live").await;
        assert_eq!(socket.wait_for("message.created").await["message"], live);
        alice
            .on(0)
            .delete(&chat.path(&format!("messages/{}/", live["message_id"].as_str().unwrap())))
            .await
            .expect(204);
        socket.wait_for("message.deleted").await;
    }
    assert_eq!(cluster.followed(1), (1, 1));
    // A socket of one chat has its chat already.
    let mut single = bob.on(1).connect(&chat).await;
    for command in ["subscribe", "unsubscribe"] {
        let error = single.ask(json!({ "type": command, "id": 1, "chat_id": chat.id })).await;
        assert_eq!(error["code"], "forbidden");
    }
    let live = alice.on(0).send(&chat, "live").await;
    assert_eq!(single.expect_message().await, live);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_come_too_fast_are_refused_and_the_socket_stays() {
    let cluster = Cluster::with(1, |config| {
        config.limits.rate_limits = Switch::On;
        config.limits.rate_sends = 1;
    })
    .await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut socket = alice.on(0).connect(&chat).await;
    let mut refused = None;
    for id in 0..30 {
        let answer = socket.ask(json!({ "type": "send", "id": id, "text": "x" })).await;
        if answer["type"] == "error" {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("after ten seconds' worth");
    assert_eq!(refused["code"], "rate_limited");
    let wait = refused["retry_after_ms"].as_u64().expect("how long to wait");
    assert!(wait <= 1_000, "{refused}");
    eventually(async || {
        let answer = socket.ask(json!({ "type": "send", "id": "again", "text": "x" })).await;
        if answer["type"] == "ack" { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
}
