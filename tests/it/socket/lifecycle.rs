//! How sockets live and end.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::{assert_members, kind, kinds};
use crate::harness::{CEILING, Cluster, Socket, claims, eventually, sign};

/// Claims of a token that ends in so many seconds.
fn ending_in(user: &str, seconds: u64) -> Value {
    let mut claims = claims(user);
    claims["exp"] = (claims["exp"].as_u64().expect("a number") - 3_600 + seconds).into();
    claims
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goodbye_is_answered() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut socket = alice.on(0).connect(&chat).await;
    let goodbye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    socket.send_raw(Message::Close(Some(goodbye))).await;
    // Else a browser calls it unclean, and its code is 1006.
    socket.expect_close(1000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_about_to_end_is_announced_and_its_end_closes_the_socket() {
    let cluster = Cluster::with(1, |config| config.auth.jwt_leeway = Duration::from_secs(1)).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let claims = ending_in("bob", 3);
    let short = cluster.user_claiming(&claims);
    for mut socket in [short.on(0).connect(&chat).await, short.on(0).connect_many().await] {
        let expiring = socket.expect("token.expiring").await;
        assert_members(&expiring, &["type", "expires_in"]);
        assert!(expiring["expires_in"].as_i64().is_some_and(|left| (0..=3).contains(&left)));
        let frames = socket.expect_close(4101).await;
        assert_eq!(kinds(&frames), [""; 0], "told once");
        let now = jiff::Timestamp::now().as_millisecond();
        let end = claims["exp"].as_i64().expect("a number") * 1_000;
        assert!(now >= end + 1_000, "closed {} ms before the leeway was over", end + 1_000 - now);
        assert!(now < end + 4_000, "closed {} ms too late", now - end - 1_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_announced_a_minute_before_and_a_new_one_keeps_the_socket() {
    let cluster = Cluster::with(1, |config| config.auth.jwt_leeway = Duration::ZERO).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    // One that was issued long ago: of a young one a third of its life is left.
    let mut old = ending_in("bob", 62);
    old["iat"] = (old["exp"].as_u64().expect("a number") - 600).into();
    let mut early = cluster.user_claiming(&old).on(0).connect(&chat).await;
    let mut renewed = cluster.user_claiming(&ending_in("bob", 3)).on(0).connect(&chat).await;
    let mut closed = cluster.user_claiming(&ending_in("bob", 3)).on(0).connect(&chat).await;
    assert_eq!(early.frames_so_far().await, [0_i64; 0], "more than a minute is left");
    let left = early.expect("token.expiring").await["expires_in"].clone();
    assert!(left == 60 || left == 59, "{left}");

    renewed.expect("token.expiring").await;
    let token = sign(&ending_in("bob", 600));
    let ack = renewed.ask(json!({ "type": "auth", "id": 1, "token": token })).await;
    assert_eq!(ack["type"], "ack");
    // By when the one that was not renewed is closed, the other one would be.
    closed.expect_close(4101).await;
    let live = alice.on(0).send(&chat, "still here").await;
    assert_eq!(renewed.expect_message().await, live);
    // And the next end is announced again.
    let token = sign(&ending_in("bob", 6));
    renewed.ask(json!({ "type": "auth", "id": 2, "token": token })).await;
    renewed.expect("token.expiring").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_short_lived_token_is_not_announced_with_every_renewal() {
    let cluster = Cluster::start(1).await;
    let short = ending_in("bob", 9);
    let mut socket = cluster.user_claiming(&short).on(0).connect_many().await;
    assert_eq!(kinds(&socket.frames_so_far().await), [""; 0], "most of its life is left");
    let expiring = socket.expect("token.expiring").await;
    assert!(expiring["expires_in"].as_i64().is_some_and(|left| left <= 3), "{expiring}");
    // A new one that lives as long, then one that is about to end again and again.
    let renew = json!({ "type": "auth", "id": 1, "token": sign(&ending_in("bob", 9)) });
    assert_eq!(socket.ask(renew).await["type"], "ack");
    assert_eq!(kinds(&socket.frames_so_far().await), [""; 0], "not at once");
    socket.expect("token.expiring").await;
    let told = Instant::now();
    let mut same = claims("bob");
    // An old one, for which it would be time at once.
    let now = same["exp"].as_u64().expect("a number") - 3_600;
    (same["iat"], same["exp"]) = ((now - 600).into(), (now + 20).into());
    let renew = json!({ "type": "auth", "id": 2, "token": sign(&same) });
    assert_eq!(socket.ask(renew.clone()).await["type"], "ack");
    socket.expect("token.expiring").await;
    assert!(told.elapsed() > Duration::from_secs(4), "{:?}", told.elapsed());
    assert_eq!(socket.ask(renew).await["type"], "ack");
    assert_eq!(kinds(&socket.frames_so_far().await), [""; 0], "not at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_is_closed_and_one_that_answers_pings_stays() {
    const HEARTBEAT: Duration = Duration::from_millis(300);
    let cluster = Cluster::with(1, |config| config.heartbeat = HEARTBEAT).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    // It reads nothing, so that the library answers nothing.
    let mut silent = bob.on(0).connect(&chat).await;
    // Reading is answering. For the close of the other one there are three and a half heartbeats at
    // most, and it can be read for five seconds more.
    let mut lively = alice.on(0).connect_many().await;
    lively.stay(8 * HEARTBEAT).await;
    let frames = silent.expect_close(4202).await;
    let bye = frames.last().expect("a word before the close");
    assert_members(bye, &["type", "code", "reason", "reconnect_in_ms"]);
    assert_eq!((&bye["type"], &bye["code"]), (&json!("bye"), &json!(4202)));
    assert!((1..=2).contains(&silent.pings()), "{} pings before the close", silent.pings());
    assert!((6..=9).contains(&lively.pings()), "{} pings in 8 heartbeats", lively.pings());
    assert_eq!(kinds(&lively.frames_so_far().await), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_chat_closes_its_sockets_everywhere() {
    let cluster = Cluster::start(2).await;
    let (alice, bob, carol) = (cluster.user("alice"), cluster.user("bob"), cluster.user("carol"));
    let chat = alice.on(0).open_chat(&bob).await;
    let other = carol.on(0).open_chat(&bob).await;
    let mut sockets = vec![
        alice.on(0).connect(&chat).await,
        alice.on(1).connect(&chat).await,
        bob.on(0).connect(&chat).await,
        bob.on(1).connect(&chat).await,
    ];
    let mut elsewhere = bob.on(1).connect(&other).await;
    let grant = bob.on(1).chat_url(&chat).await;
    alice.on(0).send(&chat, "the last word").await;
    let epoch = alice.on(0).history(&chat, "").await["epoch"].clone();
    alice.on(0).delete(&chat.path("")).await.expect(204);
    for socket in &mut sockets {
        let mut frames = socket.expect_close(4004).await;
        frames.retain(|frame| kind(frame) != "presence");
        assert_eq!(kinds(&frames), ["message.created", "chat.deleted"]);
        let (kind, id) = ("chat.deleted", &chat.id);
        let expected = json!({ "type": kind, "chat_id": id, "reason": "deleted", "epoch": epoch });
        assert_eq!(frames[1], expected);
    }
    // With a ticket from before as well.
    Socket::open(&grant).await.expect_close(4004).await;
    let live = carol.on(0).send(&other, "another chat").await;
    assert_eq!(elsewhere.expect_message().await, live);
    elsewhere.close().await;
    // No replica stays subscribed to the channel of a chat that is gone.
    let name = format!("chat:{chat}");
    eventually(async || {
        let channels = cluster.redis().await.channels().await;
        if channels.iter().any(|it| it.ends_with(&name)) { Err(channels.join(" ")) } else { Ok(()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_user_is_out_everywhere_and_their_texts_are_gone() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    bob.on(0).send(&chat, "mine").await;
    alice.on(0).send(&chat, "hers").await;
    let mut theirs = vec![
        bob.on(0).connect(&chat).await,
        bob.on(1).connect(&chat).await,
        bob.on(0).connect_many().await,
        bob.on(1).connect_many().await,
    ];
    let mut hers = alice.on(1).connect(&chat).await;
    let grant = bob.on(1).chat_url(&chat).await;
    let many = bob.on(1).post("/connect/", json!({})).await.expect(200);
    cluster.host().on(0).delete("/users/bob/").await.expect(204);
    for socket in &mut theirs {
        socket.expect_close(4006).await;
    }
    let gone = hers.wait_for("message.deleted").await;
    assert_eq!((&gone["type"], &gone["seq"]), (&json!("message.deleted"), &json!(1)));
    // Neither a ticket from before nor the token opens anything.
    for url in [&grant, many["ws_url"].as_str().expect("a URL")] {
        assert_eq!(Socket::open(url).await.expect_close(4006).await, [0_i64; 0]);
    }
    let url = format!("ws://{}/ws/", bob.on(0).host());
    let bearer = format!("Bearer {}", bob.token);
    let mut socket = Socket::open_with(&url, &[("authorization", &bearer)]).await.expect("upgrade");
    socket.expect_close(4102).await;
    // The chat stays, for the other one.
    let error = hers.ask(json!({ "type": "send", "id": 1, "text": "anybody?" })).await;
    assert_eq!(error["code"], "forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_replica_takes_leave_of_every_socket_and_loses_nothing() {
    let mut cluster = Cluster::with(2, |config| {
        config.drain_delay = Duration::from_secs(1);
        config.shutdown_grace = Duration::from_secs(6);
    })
    .await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut sockets = Vec::new();
    for _ in 0..5 {
        sockets.push(bob.on(1).connect(&chat).await);
    }
    sockets.push(bob.on(1).connect_many().await);
    let (url, many) = (bob.on(1).chat_url(&chat).await, format!("ws://{}/ws/", bob.on(1).host()));
    let draining = tokio::spawn(cluster.drain(1));
    // Noticed by balancers first: not ready, no upgrades, and all else goes on.
    eventually(async || match cluster.operator(1).request(Method::GET, "/readyz").await.status {
        503 => Ok(()),
        status => Err(status.to_string()),
    })
    .await;
    for url in [&url, &many] {
        let refused = Socket::open_with(url, &[]).await.expect_err("no upgrade");
        assert_eq!(refused.status(), 503);
        assert!(refused.headers().contains_key("retry-after"));
    }
    let sent = alice.on(0).send(&chat, "while draining").await;
    for (number, socket) in sockets.iter_mut().enumerate() {
        let mut frames = socket.expect_close(4200).await;
        frames.retain(|frame| kind(frame) != "presence");
        let bye = frames.pop().expect("a word before the close");
        assert_members(&bye, &["type", "code", "reason", "reconnect_in_ms"]);
        assert_eq!((&bye["type"], &bye["code"]), (&json!("bye"), &json!(4200)));
        assert!(bye["reconnect_in_ms"].as_u64().is_some_and(|ms| ms > 0), "{bye}");
        let last =
            if number < 5 { &frames[0]["message"] } else { &frames[0]["chat"]["last_message"] };
        assert_eq!(*last, sent, "{frames:?}");
    }
    draining.await.expect("it ends");
    let mut again = bob.on(0).resume(&chat, 0, "").await;
    again.expect("hello").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_costs_a_drain_neither_its_grace_nor_its_end() {
    let mut cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut stuck = Socket::open_narrow(&bob.on(1).chat_url(&chat).await).await;
    stuck.expect("hello").await;
    eventually(async || match alice.on(0).chat(&chat).await["other_user"]["online"] == true {
        true => Ok(()),
        false => Err("he is not there yet".to_owned()),
    })
    .await;
    // More than the buffers of both sides hold.
    let large = "\u{1f4ac}".repeat(4_000);
    for _ in 0..500 {
        alice.on(0).send(&chat, &large).await;
    }
    let began = Instant::now();
    cluster.drain(1).await;
    let took = began.elapsed();
    // At the end of the grace all would be dropped as it is, and he be there for a minute more.
    assert!(took < CEILING - Duration::from_secs(1), "{took:?}");
    assert_eq!(alice.on(0).chat(&chat).await["other_user"]["online"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_vanishes_broke_no_rule() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    drop(bob.on(0).connect(&chat).await);
    let metrics = eventually(async || {
        let metrics = cluster.operator(0).request(Method::GET, "/metrics").await.text;
        let gone = metrics.lines().any(|line| line.starts_with("beseda_sockets_closed_total{"));
        if gone { Ok(metrics) } else { Err("the socket is still there".to_owned()) }
    })
    .await;
    assert!(!metrics.contains("beseda_sockets_closed_total{code=\"4000\"}"), "{metrics}");
}
