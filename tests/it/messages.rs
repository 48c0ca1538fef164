//! Sending, editing, deleting and reading messages.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Chat, Client, Cluster, assert_members, assert_time};

const MESSAGE: [&str; 11] = [
    "message_id",
    "chat_id",
    "seq",
    "ev",
    "sender_id",
    "text",
    "metadata",
    "client_msg_id",
    "created_at",
    "edited_at",
    "deleted_at",
];

fn path_of(chat: &Chat, message: &Value) -> String {
    chat.path(&format!("messages/{}/", message["message_id"].as_str().expect("an id")))
}

fn seqs(page: &Value) -> Vec<i64> {
    let results = page["results"].as_array().expect("a list");
    results.iter().map(|message| message["seq"].as_i64().expect("a number")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_told_whole_and_the_same_on_every_replica() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let body = json!({ "text": "hello", "metadata": { "a": [1] }, "client_msg_id": "k", "x": 1 });
    let sent = alice.on(0).post(&chat.path("messages/"), body).await.expect(201);
    assert_members(&sent, &MESSAGE);
    assert_time(&sent["created_at"]);
    let id = sent["message_id"].as_str().expect("an id");
    assert_eq!((id.len(), id), (36, id.to_lowercase().as_str()));
    let expected = json!({
        "message_id": id, "chat_id": chat.id, "seq": 1, "ev": 1, "sender_id": "alice",
        "text": "hello", "metadata": { "a": [1] }, "client_msg_id": "k",
        "created_at": sent["created_at"], "edited_at": null, "deleted_at": null,
    });
    assert_eq!(sent, expected);
    for client in [alice.on(1), bob.on(0), bob.on(1)] {
        assert_eq!(client.get(&path_of(&chat, &sent)).await.expect(200), sent);
        assert_eq!(client.history(&chat, "").await["results"], json!([sent]));
        assert_eq!(client.chat(&chat).await["last_message"], sent);
    }
    let plain = bob.on(1).send(&chat, "and you").await;
    assert_eq!((&plain["metadata"], &plain["client_msg_id"]), (&Value::Null, &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_is_kept_as_sent_up_to_four_thousand_scalar_values() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let longest = "\u{1f469}".repeat(4_000);
    let texts = [
        "  kept as sent \n",
        "e\u{301} is not \u{e9}",
        "\u{feff}\u{202e}\u{200d}",
        "a\tb\r\nc",
        "\u{1}\u{7f}\u{85}",
        "<b>&amp;\"'\\\\n</b>",
        "👩‍👩‍👧‍👦",
        "東京",
        "\u{10ffff}\u{fffe}\u{fdd0}",
        "{\"json\":null}",
        "%s $1 \\x00 '; --",
        "x",
        &longest,
    ];
    for (seq, text) in (1..).zip(texts) {
        let sent = alice.on(0).send(&chat, text).await;
        assert_eq!((&sent["text"], &sent["seq"]), (&json!(text), &json!(seq)));
        assert_eq!(bob.on(0).get(&path_of(&chat, &sent)).await.expect(200)["text"], text);
        // The same bounds for edits.
        let swap = if seq == 1 { "another" } else { text };
        let edited = alice.on(0).patch(&path_of(&chat, &sent), json!({ "text": swap })).await;
        assert_eq!(edited.expect(200)["text"], swap);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_with_faults_is_refused_naming_each_and_burns_no_number() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let first = alice.on(0).send(&chat, "first").await;
    let send = |body: Value| alice.on(0).post(&chat.path("messages/"), body).into_future();
    let texts = [
        json!(""),
        json!(" \n\t\u{a0}\u{2003}"),
        json!("a\u{0}b"),
        json!("y".repeat(4_001)),
        json!("\u{1f469}".repeat(4_001)),
        json!(null),
        json!(7),
        json!(["x"]),
        json!({}),
    ];
    for text in texts {
        send(json!({ "text": text })).await.expect_faults(&["text"]);
        let edit = alice.on(0).patch(&path_of(&chat, &first), json!({ "text": text })).await;
        edit.expect_faults(&["text"]);
    }
    send(json!({})).await.expect_faults(&["text"]);
    for metadata in
        [json!([]), json!("x"), json!(1), json!(true), json!({ "a": "x".repeat(4_096) })]
    {
        send(json!({ "text": "x", "metadata": metadata })).await.expect_faults(&["metadata"]);
    }
    for key in [json!(""), json!("k".repeat(65)), json!("a\u{0}"), json!(1), json!([])] {
        send(json!({ "text": "x", "client_msg_id": key })).await.expect_faults(&["client_msg_id"]);
    }
    send(json!({ "text": "", "metadata": 1, "client_msg_id": "" })).await.expect_faults(&[
        "text",
        "metadata",
        "client_msg_id",
    ]);
    send(json!(["text"])).await.expect_faults(&["body"]);
    // Escapes of half a character are valid JSON, and no text.
    for raw in [r#"{"text":"\ud800"}"#, r#"{"text":"a\udc00b"}"#, r#"{"text":"\ud800\ud800"}"#] {
        let request = alice
            .on(0)
            .request(reqwest::Method::POST, &format!("/api/v1{}", chat.path("messages/")));
        request.body("application/json", raw).await.expect_faults(&["text"]);
    }
    assert_eq!(alice.on(0).send(&chat, "second").await["seq"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_comes_back_as_the_host_wrote_it() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    // Bytes of the object as sent.
    let exact = format!(r#"{{"a":"{}"}}"#, "x".repeat(4_096 - 8));
    assert_eq!(exact.len(), 4_096);
    let objects = [
        "{}",
        r#"{"b":1,"a":{"c":[null,true,"ё"]}}"#,
        r#"{"big":123456789012345678901234567890,"exact":0.10000000000000000555}"#,
        r#"{"zero":-0.0,"one":1.0,"":{"":""}}"#,
        r#"{"nul":"\u0000","pair":"\ud83d\ude00"}"#,
        r#"{ "spaces" : [ 1 , 2 ] }"#,
        &exact,
    ];
    for object in objects {
        let path = format!("/api/v1{}", chat.path("messages/"));
        let body = format!(r#"{{"text":"x","metadata":{object}}}"#);
        let request = alice.on(0).request(reqwest::Method::POST, &path);
        let answer = request.body("application/json", body).await;
        let told = |text: &str| text.contains(&format!(r#""metadata":{object}"#));
        assert!(told(&answer.text), "{object} came back as {}", answer.text);
        let sent = answer.expect(201);
        assert!(told(&bob.on(1).get(&path_of(&chat, &sent)).await.text), "{object}");
    }
    // Escapes and white space take no room from a text: Python writes six bytes for each letter.
    let (text, escaped) = ("п".repeat(2_000), r"\u043f".repeat(2_000));
    let path = format!("/api/v1{}", chat.path("messages/"));
    let body = format!(r#"{{"text":"x","metadata":{{ "b" : 1.0, "a" : "{escaped}" }}}}"#);
    let request = alice.on(0).request(reqwest::Method::POST, &path);
    let answer = request.body("application/json", body).await;
    let kept = format!(r#""metadata":{{"b":1.0,"a":"{text}"}}"#);
    assert!(answer.text.contains(&kept), "came back as {}", answer.text);
    let sent = answer.expect(201);
    assert!(bob.on(1).get(&path_of(&chat, &sent)).await.text.contains(&kept));
    let larger = format!(r#"{{"text":"x","metadata":{{"a":"{}"}}}}"#, r"\u043f".repeat(2_045));
    let request = alice.on(0).request(reqwest::Method::POST, &path);
    request.body("application/json", larger).await.expect_faults(&["metadata"]);
    // What other programs could not read back: half a character, a number beyond all numbers, a
    // depth that parsers refuse.
    let deep = format!("{}1{}", r#"{"a":"#.repeat(600), "}".repeat(600));
    for object in [r#"{"a":"\ud800"}"#, r#"{"a":[{"b":1e400}]}"#, &deep] {
        let path = format!("/api/v1{}", chat.path("messages/"));
        let body = format!(r#"{{"text":"x","metadata":{object}}}"#);
        let request = alice.on(0).request(reqwest::Method::POST, &path);
        request.body("application/json", body).await.expect_faults(&["metadata"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_senders_on_two_replicas_are_numbered_densely_in_the_order_of_time() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let sent = join_all((0..200).map(|i| {
        let sender = if i % 2 == 0 { &alice } else { &bob };
        let client = sender.on(i / 2 % 2);
        let chat = chat.clone();
        async move { client.send(&chat, &format!("message {i}")).await }
    }))
    .await;
    let mut numbers: Vec<i64> = sent.iter().filter_map(|m| m["seq"].as_i64()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=200).collect::<Vec<_>>());
    let mut told = Vec::new();
    for page in ["?after=0&limit=100", "?after=100&limit=100"] {
        told.extend(
            alice.on(1).history(&chat, page).await["results"].as_array().expect("a list").clone(),
        );
    }
    assert_eq!(told.len(), 200);
    for pair in told.windows(2) {
        assert!(pair[0]["created_at"].as_str() <= pair[1]["created_at"].as_str(), "{pair:?}");
        assert_eq!(pair[0]["seq"].as_i64().map(|seq| seq + 1), pair[1]["seq"].as_i64());
    }
    for message in &sent {
        assert!(told.contains(message), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_read_page_by_page_in_both_directions() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let empty = alice.on(1).history(&chat, "").await;
    let members = [
        "results",
        "has_more_before",
        "has_more_after",
        "before",
        "after",
        "head_seq",
        "head_ev",
        "epoch",
        "read_seq",
        "peer_read_seq",
    ];
    assert_members(&empty, &members);
    let nothing = json!([[], false, false, null, null, 0, 0]);
    assert_eq!(shape(&empty), nothing);
    for query in ["?before=1", "?after=0", "?around=1", "?before=9", "?after=9"] {
        assert_eq!(shape(&alice.on(1).history(&chat, query).await), nothing, "{query}");
    }
    for i in 1..=23 {
        alice.on(0).send(&chat, &format!("message {i}")).await;
    }
    bob.on(0).post(&chat.path("mark_read/"), json!({ "up_to_seq": 5 })).await.expect(200);
    let expected = [
        ("", json!([(1..=23).collect::<Vec<_>>(), false, false, null, null, 23, 24])),
        ("?limit=5", json!([[19, 20, 21, 22, 23], true, false, 19, null, 23, 24])),
        ("?before=19&limit=3", json!([[16, 17, 18], true, true, 16, 18, 23, 24])),
        ("?before=3&limit=5", json!([[1, 2], false, true, null, 2, 23, 24])),
        ("?before=99&limit=2", json!([[22, 23], true, false, 22, null, 23, 24])),
        ("?after=0&limit=2", json!([[1, 2], false, true, null, 2, 23, 24])),
        ("?after=2&limit=2", json!([[3, 4], true, true, 3, 4, 23, 24])),
        ("?after=21&limit=5", json!([[22, 23], true, false, 22, null, 23, 24])),
        ("?limit=1", json!([[23], true, false, 23, null, 23, 24])),
    ];
    for (query, expected) in expected {
        assert_eq!(shape(&bob.on(1).history(&chat, query).await), expected, "{query}");
    }
    for (around, limit) in [(10, 5), (1, 5), (23, 5), (12, 1), (12, 100), (500, 4), (0, 4), (12, 2)]
    {
        let page = bob.on(1).history(&chat, &format!("?around={around}&limit={limit}")).await;
        let seqs = seqs(&page);
        assert!(seqs.len() <= limit && !seqs.is_empty());
        assert_eq!(seqs, (seqs[0]..=seqs[seqs.len() - 1]).collect::<Vec<_>>(), "around {around}");
        assert!(seqs.contains(&around.clamp(1, 23)), "around {around}: {seqs:?}");
        assert_eq!(page["has_more_before"], seqs[0] > 1);
        assert_eq!(page["has_more_after"], seqs[seqs.len() - 1] < 23);
    }
    let page = bob.on(0).history(&chat, "").await;
    assert_eq!((&page["read_seq"], &page["peer_read_seq"]), (&json!(5), &json!(0)));
    let page = alice.on(0).history(&chat, "").await;
    assert_eq!((&page["read_seq"], &page["peer_read_seq"]), (&json!(0), &json!(5)));

    let all: Vec<i64> = (1..=23).collect();
    for limit in [1, 4, 23, 100] {
        assert_eq!(walk(&alice.on(1), &chat, "before", limit).await, all, "limit {limit}");
        assert_eq!(walk(&alice.on(1), &chat, "after", limit).await, all, "limit {limit}");
    }
}

/// Results, both flags, both cursors, both heads.
fn shape(page: &Value) -> Value {
    let names = ["has_more_before", "has_more_after", "before", "after", "head_seq", "head_ev"];
    let rest = names.iter().map(|name| page[name].clone());
    std::iter::once(json!(seqs(page))).chain(rest).collect()
}

/// All `seq`, found by following one of the cursors.
async fn walk(client: &Client, chat: &Chat, direction: &str, limit: usize) -> Vec<i64> {
    let mut found = Vec::new();
    let mut at = if direction == "before" { None } else { Some(0) };
    loop {
        let cursor = at.map(|at| format!("&{direction}={at}")).unwrap_or_default();
        let page = client.history(chat, &format!("?limit={limit}{cursor}")).await;
        found.extend(seqs(&page));
        assert!(found.len() <= 23, "{found:?}");
        at = page[direction].as_i64();
        assert_eq!(page[format!("has_more_{direction}")], at.is_some());
        if at.is_none() {
            found.sort_unstable();
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn history_refuses_bad_parameters_naming_each() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    for limit in ["0", "101", "-1", "x", "", "5.0"] {
        let path = chat.path(&format!("messages/?limit={limit}"));
        alice.on(0).get(&path).await.expect_faults(&["limit"]);
    }
    for name in ["before", "after", "around"] {
        for value in ["-1", "x", "", "99999999999999999999", "1e3"] {
            let path = chat.path(&format!("messages/?{name}={value}"));
            alice.on(0).get(&path).await.expect_faults(&[name]);
        }
    }
    let path = chat.path("messages/?limit=0&before=x&around=-3");
    alice.on(0).get(&path).await.expect_faults(&["limit", "before", "around"]);
    for both in ["before=1&after=1", "after=1&around=1", "before=1&around=2&after=3"] {
        let answer = alice.on(0).get(&chat.path(&format!("messages/?{both}"))).await;
        answer.expect_problem(422, "validation_failed");
    }
    alice.on(0).get(&chat.path("messages/?limit=100&who=cares")).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn its_author_edits_a_message_in_place() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let body = json!({ "text": "helo", "metadata": { "kept": true } });
    let sent = alice.on(0).post(&chat.path("messages/"), body).await.expect(201);
    alice.on(0).send(&chat, "another").await;
    let edit = |user: &crate::harness::User, text: &str| {
        user.on(1).patch(&path_of(&chat, &sent), json!({ "text": text })).into_future()
    };
    edit(&bob, "mine").await.expect_problem(403, "not_author");
    let edited = edit(&alice, "hello").await.expect(200);
    assert_time(&edited["edited_at"]);
    let mut expected = sent.clone();
    (expected["text"], expected["ev"]) = (json!("hello"), json!(3));
    expected["edited_at"] = edited["edited_at"].clone();
    assert_eq!(edited, expected);
    assert_eq!(bob.on(0).history(&chat, "").await["results"][0], edited);
    // Nothing changes, and so there is no change.
    assert_eq!(edit(&alice, "hello").await.expect(200), edited);
    let page = bob.on(0).history(&chat, "").await;
    assert_eq!((&page["head_ev"], &page["head_seq"]), (&json!(3), &json!(2)));
    // An edited message is as unread as before.
    assert_eq!(bob.on(1).unread_in(&chat).await, 2);

    let nowhere = ["0190f5fe-7c00-7a00-8000-000000000000", "nonsense", "%F0%9F%A6%8A"];
    for id in nowhere {
        let path = chat.path(&format!("messages/{id}/"));
        let answer = alice.on(0).patch(&path, json!({ "text": "x" })).await;
        answer.expect_problem(404, "message_not_found");
        alice.on(0).get(&path).await.expect_problem(404, "message_not_found");
        alice.on(0).delete(&path).await.expect_problem(404, "message_not_found");
    }
    alice.on(0).delete(&path_of(&chat, &sent)).await.expect(204);
    edit(&alice, "back again").await.expect_problem(404, "message_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_message_leaves_a_tombstone_and_nothing_of_its_content_anywhere() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let body = json!({
        "text": "unforgettable words", "metadata": { "file": "unforgettable.png" },
        "client_msg_id": "k1",
    });
    let sent = alice.on(0).post(&chat.path("messages/"), body).await.expect(201);
    let path = path_of(&chat, &sent);
    alice.on(0).patch(&path, json!({ "text": "unforgettable indeed" })).await.expect(200);
    let last = alice.on(0).send(&chat, "last").await;
    bob.on(1).delete(&path).await.expect_problem(403, "not_author");
    alice.on(1).delete(&path).await.expect(204);
    let page = bob.on(0).history(&chat, "").await;
    assert_eq!(page["head_ev"], 4);
    let tombstone = &page["results"][0];
    let mut expected = sent.clone();
    (expected["text"], expected["metadata"], expected["ev"]) = (json!(""), Value::Null, json!(4));
    for kept in ["edited_at", "deleted_at"] {
        expected[kept] = tombstone[kept].clone();
    }
    assert_eq!(*tombstone, expected);
    assert_time(&tombstone["deleted_at"]);
    for client in [alice.on(0), bob.on(1)] {
        assert_eq!(client.get(&path).await.expect(200), *tombstone);
        client.delete(&path_of(&chat, &last)).await;
    }
    alice.on(0).delete(&path).await.expect(204);
    let head_ev = bob.on(1).history(&chat, "").await["head_ev"].clone();
    alice.on(1).delete(&path).await.expect(204);
    assert_eq!(bob.on(0).history(&chat, "").await["head_ev"], head_ev, "no change, no number");
    let found = bob.on(0).get(&chat.path("search/?query=unforgettable")).await.expect(200);
    assert_eq!(found["results"], json!([]));

    let tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'";
    let tables = cluster.psql(tables).await;
    assert!(tables.len() >= 6, "{tables:?}");
    for table in tables.into_iter().flatten().flatten() {
        let count = format!("SELECT count(*) FROM {table} t WHERE t::text ILIKE '%unforgettable%'");
        assert_eq!(cluster.psql_value::<i64>(&count).await, 0, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_application_deletes_messages_and_reads_none() {
    let cluster = Cluster::start(2).await;
    let (alice, bob, host) = (cluster.user("alice"), cluster.user("bob"), cluster.host());
    let chat = alice.on(0).open_chat(&bob).await;
    let sent = alice.on(0).send(&chat, "against the rules").await;
    let path = path_of(&chat, &sent);
    host.on(1).get(&path).await.expect_problem(404, "chat_not_found");
    host.on(1).get(&chat.path("messages/")).await.expect_problem(404, "chat_not_found");
    let edit = host.on(1).patch(&path, json!({ "text": "x" })).await;
    edit.expect_problem(404, "chat_not_found");
    host.on(1).delete(&path).await.expect(204);
    assert_eq!(bob.on(0).get(&path).await.expect(200)["text"], "");
    assert_eq!(bob.on(1).unread_in(&chat).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_back_takes_no_message_with_it() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    alice.on(0).send(&chat, "before").await;
    // As if the clock had been an hour ahead when the last message came.
    let ahead = "UPDATE messages SET created_at = created_at + interval '1 hour';
                 UPDATE chats SET last_message_at = last_message_at + interval '1 hour'";
    cluster.psql(ahead).await;
    cluster.redis_flush().await;
    let last = alice.on(0).history(&chat, "").await["results"][0].take();
    let sent = bob.on(1).send(&chat, "after").await;
    assert!(sent["created_at"].as_str() >= last["created_at"].as_str(), "{sent}");
    let edited = bob.on(0).patch(&path_of(&chat, &sent), json!({ "text": "x" })).await.expect(200);
    assert!(edited["edited_at"].as_str() >= sent["created_at"].as_str(), "{edited}");
    bob.on(1).delete(&path_of(&chat, &sent)).await.expect(204);
    let gone = bob.on(0).get(&path_of(&chat, &sent)).await.expect(200);
    assert!(gone["deleted_at"].as_str() >= sent["created_at"].as_str(), "{gone}");
    let another = bob.on(1).send(&chat, "and on").await;
    assert!(another["created_at"].as_str() >= sent["created_at"].as_str(), "{another}");
}

/// Sends to many chats at once, while another transaction has locked a row of one of them.
async fn send_while_one_is_held(cluster: &Cluster, table: &str) {
    let alice = cluster.user("alice");
    let mut chats = Vec::new();
    for number in 0..160 {
        chats.push(alice.on(0).open_chat(&cluster.user(&format!("other {number}"))).await);
    }
    alice.on(0).send(&chats[80], "its rows are there").await;
    // In the middle: the first to come is a batch by itself.
    let held = 80;
    let id = &chats[held].id;
    cluster.psql(&format!("BEGIN; SELECT FROM {table} WHERE chat_id = '{id}' FOR UPDATE")).await;
    let begin = std::time::Instant::now();
    // One batch, or few: nearly all of them meet the one that can't be written.
    let sends = chats.iter().enumerate().map(async |(number, chat)| {
        let body = json!({ "text": "x", "client_msg_id": "k" });
        let answer = alice.on(0).post(&chat.path("messages/"), body).await;
        if number == held {
            answer.expect_problem(503, "unavailable");
            return std::time::Duration::ZERO;
        }
        answer.expect(201);
        begin.elapsed()
    });
    let took = join_all(sends).await;
    // Half a second for the lock in the batch that they share, once more where it is waited for first.
    let slowest = took.iter().max().expect("rooms");
    assert!(*slowest < std::time::Duration::from_millis(2_500), "{slowest:?}");
    cluster.psql("COMMIT").await;
    let body = json!({ "text": "x", "client_msg_id": "k" });
    let sent = alice.on(0).post(&chats[held].path("messages/"), body).await.expect(201);
    assert_eq!(sent["seq"], 2, "what was refused burned no number");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_that_somebody_holds_keeps_no_other_waiting() {
    send_while_one_is_held(&Cluster::start(1).await, "chats").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_whose_events_somebody_holds_keeps_no_other_waiting() {
    let cluster = Cluster::with(1, |config| {
        let webhooks = &mut config.webhooks;
        webhooks.webhook_url = Some("https://localhost:1/events".parse().expect("a URL"));
        webhooks.webhook_secret = Some("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned().into());
        // None is due in this test.
        webhooks.webhook_delay = std::time::Duration::from_secs(600);
    })
    .await;
    send_while_one_is_held(&cluster, "webhook_lanes").await;
}
