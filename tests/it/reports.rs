//! Members report messages; the host application reads what they reported.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Chat, Client, Cluster, assert_members, assert_time};

fn path(chat: &Chat, message: &Value) -> String {
    chat.path(&format!("messages/{}/report/", message["message_id"].as_str().expect("an id")))
}

/// All reports, page by page.
async fn list(host: &Client, limit: usize) -> Vec<Value> {
    let mut reports = Vec::new();
    let mut query = format!("?limit={limit}");
    loop {
        let page = host.get(&format!("/reports/{query}")).await.expect(200);
        let results = page["results"].as_array().expect("a list");
        assert!(results.len() <= limit);
        reports.extend(results.iter().cloned());
        assert!(reports.len() < 100, "pages without an end: {reports:?}");
        match page["next"].as_str() {
            Some(next) => query = format!("?limit={limit}&cursor={next}"),
            None => return reports,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_keeps_the_message_as_it_was_and_there_is_one_a_reporter() {
    let cluster = Cluster::start(2).await;
    let (alice, bob, host) = (cluster.user("alice"), cluster.user("bob"), cluster.host());
    let chat = alice.on(0).open_chat(&bob).await;
    let body = json!({ "text": "You fool!", "metadata": { "kind": "card" } });
    let message = alice.on(0).post(&chat.path("messages/"), body).await.expect(201);
    let path = path(&chat, &message);
    // However many ask at once, on both replicas.
    let reason = json!({ "reason": "An insult" });
    let asked = (0..8).map(|n| bob.on(n % 2).post(&path, reason.clone()).into_future());
    let answers = join_all(asked).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    let report = answers[0].json.clone();
    assert!(answers.iter().all(|answer| answer.json == report), "{answers:?}");
    assert_members(
        &report,
        &[
            "report_id",
            "attachments",
            "chat_id",
            "message_id",
            "seq",
            "sender_id",
            "reporter_id",
            "reason",
            "text",
            "metadata",
            "created_at",
        ],
    );
    assert_time(&report["created_at"]);
    assert_eq!((&report["sender_id"], &report["reporter_id"]), (&json!("alice"), &json!("bob")));
    assert_eq!((&report["text"], &report["seq"]), (&json!("You fool!"), &json!(1)));

    // Neither an edit, a deletion nor the end of the chat hides it; a retry finds it all the same.
    let edited = chat.path(&format!("messages/{}/", message["message_id"].as_str().unwrap_or("")));
    alice.on(0).patch(&edited, json!({ "text": "You friend!" })).await.expect(200);
    alice.on(0).delete(&edited).await.expect(204);
    assert_eq!(bob.on(1).post(&path, json!({ "reason": "again" })).await.expect(200), report);
    alice.on(0).post(&path, json!({})).await.expect_problem(404, "message_not_found");
    alice.on(1).delete(&chat.path("")).await.expect(204);
    bob.on(0).post(&path, json!({})).await.expect_problem(404, "chat_not_found");
    assert_eq!(list(&host.on(1), 30).await, [report]);
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_are_the_host_applications_latest_first_in_pages() {
    let cluster = Cluster::start(1).await;
    let (alice, bob, host) = (cluster.user("alice"), cluster.user("bob"), cluster.host());
    let chat = alice.on(0).open_chat(&bob).await;
    assert_eq!(list(&host.on(0), 2).await, Vec::<Value>::new());
    let mut made = Vec::new();
    for number in 0..5 {
        let message = alice.on(0).send(&chat, &number.to_string()).await;
        // Without a body, with an empty one, and by a user who was blocked.
        let report = match number {
            0 => {
                bob.on(0)
                    .request(reqwest::Method::POST, &format!("/api/v1{}", path(&chat, &message)))
                    .await
            }
            _ => bob.on(0).post(&path(&chat, &message), json!({})).await,
        };
        made.push(report.expect(201));
    }
    alice.on(0).put("/users/bob/block/", json!({})).await.expect(204);
    let nil = json!({ "message_id": "00000000-0000-0000-0000-000000000000" });
    bob.on(0).post(&path(&chat, &nil), json!({})).await.expect_problem(404, "message_not_found");
    // Two who report one message are two reports.
    let last = json!({ "message_id": made[4]["message_id"] });
    made.push(alice.on(0).post(&path(&chat, &last), json!({ "reason": null })).await.expect(201));
    made.reverse();
    for limit in [1, 2, 3, 6, 100] {
        assert_eq!(list(&host.on(0), limit).await, made, "pages of {limit}");
    }
    host.on(0).get("/reports/?limit=0").await.expect_faults(&["limit"]);
    host.on(0).get("/reports/?cursor=x").await.expect_problem(400, "invalid_request");
    bob.on(0).get("/reports/").await.expect_problem(403, "forbidden");
    for reason in [json!("x".repeat(1_001)), json!("a\0b"), json!(7)] {
        let refused = bob.on(0).post(&path(&chat, &last), json!({ "reason": reason })).await;
        refused.expect_faults(&["reason"]);
    }
    let longest = json!({ "reason": "я".repeat(1_000) });
    let message = json!({ "message_id": made[2]["message_id"] });
    alice.on(0).post(&path(&chat, &message), longest).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_persons_words_and_name_leave_every_report() {
    let cluster = Cluster::start(1).await;
    let (alice, bob, host) = (cluster.user("alice"), cluster.user("bob"), cluster.host());
    let chat = alice.on(0).open_chat(&bob).await;
    let body = json!({ "text": "secret of alice", "metadata": { "a": 1 } });
    let hers = alice.on(0).post(&chat.path("messages/"), body).await.expect(201);
    let his = bob.on(0).send(&chat, "words of bob").await;
    bob.on(0).post(&path(&chat, &hers), json!({ "reason": "reason of bob" })).await.expect(201);
    alice.on(0).post(&path(&chat, &his), json!({ "reason": "reason of alice" })).await.expect(201);
    host.on(0).delete("/users/alice/").await.expect(204);
    let reports = list(&host.on(0), 30).await;
    let [by_her, of_hers] = reports.as_slice() else { panic!("two reports, not {reports:?}") };
    assert_eq!((&of_hers["text"], &of_hers["metadata"]), (&json!(""), &Value::Null));
    assert_eq!(
        (&of_hers["reporter_id"], &of_hers["reason"]),
        (&json!("bob"), &json!("reason of bob"))
    );
    assert_eq!((&by_her["reporter_id"], &by_her["reason"]), (&Value::Null, &Value::Null));
    assert_eq!((&by_her["text"], &by_her["sender_id"]), (&json!("words of bob"), &json!("bob")));
    // Her message is a tombstone by now. Reporting it again finds the first report, and stores nothing.
    bob.on(0).post(&path(&chat, &hers), json!({})).await.expect(200);
    let everything = cluster.psql("SELECT report::text FROM reports report").await;
    let everything = format!("{everything:?}");
    assert!(!everything.contains("of alice"), "{everything}");
}
