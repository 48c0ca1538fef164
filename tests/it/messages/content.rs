//! What a message may hold; it comes back as it was sent.

use serde_json::{Value, json};

use super::path_of;
use crate::harness::{Cluster, MESSAGE, assert_members, assert_time, told};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_told_whole_and_the_same_on_every_replica() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let body = json!({ "text": "hello", "metadata": { "a": [1] }, "client_msg_id": "k", "x": 1 });
    let sent = told(alice.on(0).post(&chat.path("messages/"), body).await.expect(201));
    assert_members(&sent, &MESSAGE);
    assert_time(&sent["created_at"]);
    let id = sent["message_id"].as_str().expect("an id");
    assert_eq!((id.len(), id), (36, id.to_lowercase().as_str()));
    let expected = json!({
        "message_id": id, "chat_id": chat.id, "seq": 1, "ev": 1, "sender_id": "alice",
        "type": "text", "text": "hello", "metadata": { "a": [1] }, "mentions": [], "system": null,
        "reply_to": null, "attachments": [], "reactions": [], "pinned_at": null, "client_msg_id": "k",
        "created_at": sent["created_at"], "edited_at": null, "deleted_at": null,
    });
    assert_eq!(sent, expected);
    for client in [alice.on(1), bob.on(0), bob.on(1)] {
        assert_eq!(told(client.get(&path_of(&chat, &sent)).await.expect(200)), sent);
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
