//! All that is kept of a person, for the host application.

use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::harness::{Chat, Cluster, User, assert_members, eventually, fill, told};

/// The lines of an export.
fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_has_all_of_a_person_and_nothing_of_others() {
    let cluster = Cluster::start(2).await;
    let (alice, bob, host) = (cluster.user("alice"), cluster.user("bob"), cluster.host());
    host.on(0).put("/users/alice/", json!({ "name": "Alice" })).await;
    let mut chats = vec![alice.on(0).open_chat(&bob).await];
    chats.push(cluster.user("carol").on(1).open_chat(&alice).await);
    chats.push(alice.on(1).open_chat(&cluster.user("dave")).await);
    let mut own = Vec::new();
    for number in 0..3 {
        own.push(alice.on(0).send(&chats[0], &format!("hers {number}")).await);
        bob.on(1).send(&chats[0], &format!("his {number}")).await;
    }
    let elsewhere = json!({ "text": "elsewhere", "metadata": { "a": [1, 2.50] } });
    own.push(told(alice.on(0).post(&chats[1].path("messages/"), elsewhere).await.expect(201)));
    // Laid out in lines, which would pass for lines of the export.
    let laid_out = "{\"text\": \"two\\nlines\", \"metadata\": {\"a\":\r\n{\"type\": \"end\"}\n}}";
    let laid_out = alice
        .on(0)
        .request(Method::POST, &format!("/api/v1{}", chats[1].path("messages/")))
        .body("application/json", laid_out);
    own.push(told(laid_out.await.expect(201)));
    bob.on(0).mark_read(&chats[0]).await;
    // As it is now: what she deleted is a tombstone.
    let path = |message: &Value| {
        let id = message["message_id"].as_str().expect("an id");
        format!("messages/{id}/")
    };
    let deleted = chats[0].path(&path(&own[1]));
    alice.on(0).delete(&deleted).await.expect(204);
    own[1] = told(alice.on(0).get(&deleted).await.expect(200));
    let his = bob.on(0).send(&chats[0], "his last").await;
    let report = chats[0].path(&format!("{}report/", path(&his)));
    let report = alice.on(1).post(&report, json!({ "reason": "so rude" })).await.expect(201);
    let reported = chats[0].path(&format!("{}report/", path(&own[0])));
    let reported = bob.on(1).post(&reported, json!({ "reason": "his reason" })).await.expect(201);
    for user in [&alice, &bob] {
        let path = format!("{}reactions/%F0%9F%91%8D/", path(&own[0]));
        user.on(0).put(&chats[0].path(&path), json!({})).await.expect(200);
    }
    own[0] = told(alice.on(0).get(&chats[0].path(&path(&own[0]))).await.expect(200));
    alice.on(1).put("/users/mallory/block/", json!({})).await.expect(204);
    alice.on(1).put("/users/bob/block/", json!({})).await.expect(204);
    bob.on(1).put("/users/carol/block/", json!({})).await.expect(204);

    let answer = host.on(1).get("/users/alice/export/").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-ndjson")));
    assert!(!answer.text.contains("his "), "others' words: {}", answer.text);
    let export = lines(&answer.text);
    let kinds: Vec<_> = export.iter().map(|line| line["type"].as_str().expect("a type")).collect();
    assert_eq!(kinds[..3], ["profile", "block", "block"]);
    assert_eq!(kinds[kinds.len() - 2..], ["report", "end"]);
    let of = |kind: &str| -> Vec<Value> {
        let mut found: Vec<Value> =
            export.iter().filter(|line| line["type"] == kind).cloned().collect();
        found.iter_mut().for_each(|line| drop(line.as_object_mut().expect("JSON").remove("type")));
        found
    };
    let profile = &of("profile")[0];
    assert_eq!((&profile["user_id"], &profile["name"]), (&json!("alice"), &json!("Alice")));
    let blocked: Vec<_> = of("block").iter().map(|block| block["user_id"].clone()).collect();
    assert_eq!(blocked, ["bob", "mallory"]);
    let listed: Vec<_> = of("chat").iter().map(|chat| chat["chat_id"].clone()).collect();
    assert_eq!(listed, chats.iter().map(|chat| json!(chat.id)).collect::<Vec<_>>());
    let first = &of("chat")[0];
    assert_members(
        first,
        &[
            "chat_id",
            "room_name",
            "kind",
            "title",
            "created_at",
            "created_by",
            "other_user_id",
            "role",
            "joined_at",
            "read_seq",
            "last_seq",
        ],
    );
    assert_eq!((&first["other_user_id"], &first["last_seq"]), (&json!("bob"), &json!(7)));
    let said: Vec<_> = of("message").iter_mut().map(|line| line["message"].take()).collect();
    assert_eq!(said, own);
    let made = of("report");
    assert_eq!((made.len(), &made[0]["report_id"]), (1, &report["report_id"]));
    assert_eq!(made[0]["reason"], "so rude");
    let reacted = of("reaction");
    assert_eq!(reacted.len(), 1);
    let expected = (&reported["message_id"], &json!("👍"));
    assert_eq!((&reacted[0]["message_id"], &reacted[0]["emoji"]), expected);
    let counts = json!({ "devices": 0, "blocks": 2, "chats": 3, "messages": 5, "reactions": 1, "attachments": 0, "reports": 1 });
    assert_eq!(of("end"), [counts]);

    // A user without any data, and an unknown one.
    let dave = host.on(0).get("/users/dave/export/").await;
    assert_eq!(lines(&dave.text).len(), 3, "{}", dave.text);
    host.on(0).get("/users/nobody/export/").await.expect_problem(404, "user_not_found");
    alice.on(0).get("/users/alice/export/").await.expect_problem(403, "forbidden");
    host.on(0).delete("/users/alice/").await.expect(204);
    host.on(0).get("/users/alice/export/").await.expect_problem(404, "user_not_found");
}

/// Messages of a chat that is too large for what lies between two ends of a connection: 32 MB.
const LARGE: i64 = 8_000;

async fn fill_with_large(cluster: &Cluster, chat: &Chat) {
    cluster.psql(&fill::messages(&chat.id, "alice", LARGE, "repeat('x', 4000)")).await;
    // Counted there before.
    cluster.redis_flush().await;
}

/// Starts an export and stops reading it.
async fn begin(host: &User, replica: usize) -> Response {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let url = format!("http://{}/api/v1/users/alice/export/", host.on(replica).host());
    let mut answer =
        client.get(url).bearer_auth(&host.token).send().await.expect("the head of an answer");
    assert_eq!(answer.status(), 200);
    assert!(answer.chunk().await.expect("a part of the body").is_some());
    answer
}

/// Reads the rest of an export; an error if it broke off.
async fn read_on(mut answer: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut rest = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        rest.extend_from_slice(&chunk);
    }
    Ok(rest)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_export_is_given_page_by_page_for_as_long_as_it_is_read() {
    const IDLE: Duration = Duration::from_millis(500);
    let cluster = Cluster::with(1, |config| {
        // Less than it takes: the connection is not idle.
        config.http.idle_timeout = IDLE;
        config.http.head_timeout = IDLE;
        config.http.write_timeout = Duration::from_secs(60);
        config.request_timeout = IDLE;
    })
    .await;
    let (alice, bob, host) = (cluster.user("alice"), cluster.user("bob"), cluster.host());
    let chat = alice.on(0).open_chat(&bob).await;
    fill_with_large(&cluster, &chat).await;
    let answer = begin(&host, 0).await;
    // As long as the client does not read, the replica waits and reads no more from Postgres.
    tokio::time::sleep(IDLE * 4).await;
    let text = String::from_utf8(read_on(answer).await.expect("all of it")).expect("UTF-8");
    let last: Value = serde_json::from_str(text.lines().last().expect("lines")).expect("JSON");
    let expected = json!({ "type": "end", "devices": 0, "blocks": 0, "chats": 1, "messages": LARGE, "reactions": 0, "attachments": 0, "reports": 0 });
    assert_eq!(last, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_breaks_off_has_no_end() {
    let mut cluster = Cluster::with_own_stack(1, |_| {}).await;
    let (alice, bob, host) = (cluster.user("alice"), cluster.user("bob"), cluster.host());
    let chat = alice.on(0).open_chat(&bob).await;
    fill_with_large(&cluster, &chat).await;
    let answer = begin(&host, 0).await;
    cluster.stack().postgres.kill();
    let broken = read_on(answer).await;
    assert!(broken.is_err(), "a clean end without all of it");
    cluster.stack().postgres.restart().await.expect("Postgres comes back");
    eventually(async || match alice.on(0).get("/chats/").await {
        answer if answer.status == 200 => Ok(()),
        answer => Err(answer.text),
    })
    .await;

    // The crash may have brought a finished row of the outbox back, and after the drain nobody sweeps.
    eventually(async || match cluster.psql_value::<i64>("SELECT count(*) FROM outbox").await {
        0 => Ok(()),
        left => Err(format!("{left} rows are left")),
    })
    .await;
    // An export does not hold up a drain either, because it can be repeated on another replica.
    let answer = begin(&host, 0).await;
    let address = host.on(0).host();
    let draining = tokio::spawn(cluster.drain(0));
    eventually(async || {
        match TcpStream::connect(&address).await {
            Err(_) => Ok(()),
            Ok(_) => Err("it still accepts connections"),
        }
        .map_err(str::to_owned)
    })
    .await;
    assert!(read_on(answer).await.is_err(), "a clean end without all of it");
    draining.await.expect("it ends");
}
