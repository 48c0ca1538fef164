//! Announcing: who may, and what.

use serde_json::json;

use super::{Announced, File, announce, pair};
use crate::harness::{Cluster, assert_members, assert_time};

#[tokio::test(flavor = "multi_thread")]
async fn an_announcement_gives_a_link_that_is_good_for_an_hour() {
    let cluster = Cluster::start(1).await;
    let (alice, _, chat) = pair(&cluster).await;
    let file = File::text();
    let ticket =
        alice.on(0).post(&chat.path("attachments/"), file.announcement()).await.expect(201);
    assert_members(&ticket, &["attachment_id", "upload"]);
    let upload = &ticket["upload"];
    assert_members(upload, &["method", "url", "headers", "expires_at"]);
    assert_eq!(upload["method"], "PUT");
    assert_eq!(upload["headers"], json!({ "Content-Type": "text/plain" }));
    assert_time(&upload["expires_at"]);
    let announced = Announced::read(&ticket);
    let url = upload["url"].as_str().expect("a URL");
    assert_eq!(url, format!("http://{}{}", cluster.anyone(0).host(), announced.path));
    announced.put(&cluster.anyone(0), file.bytes).await.expect(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_at_fault_is_named() {
    let cluster = Cluster::start(1).await;
    let (alice, _, chat) = pair(&cluster).await;
    let path = chat.path("attachments/");
    alice.on(0).post(&path, json!({})).await.expect_faults(&["name", "content_type", "size"]);
    for name in ["../etc/passwd", "a/b", "a\\b", "..", "", "a\u{0}b", "a\nb", "x\u{202e}gpj.exe"] {
        let body = json!({ "name": name, "content_type": "text/plain", "size": 1 });
        alice.on(0).post(&path, body).await.expect_faults(&["name"]);
    }
    for content_type in ["png", "image/", "image/png\r\nSet-Cookie: a=b", "a b/c"] {
        let body = json!({ "name": "a", "content_type": content_type, "size": 1 });
        alice.on(0).post(&path, body).await.expect_faults(&["content_type"]);
    }
    for size in [json!(0), json!(-1), json!("1"), json!(1.5)] {
        let body = json!({ "name": "a", "content_type": "text/plain", "size": size });
        alice.on(0).post(&path, body).await.expect_faults(&["size"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_and_one_day_have_a_bound() {
    let cluster = Cluster::with(2, |config| {
        config.attachments.attachment_max_bytes = 1_000;
        config.attachments.attachment_daily_bytes = 2_500;
    })
    .await;
    let (alice, bob, chat) = pair(&cluster).await;
    let path = chat.path("attachments/");
    let file = |size| File::of_size(size).announcement();
    alice.on(0).post(&path, file(1_001)).await.expect_problem(413, "payload_too_large");
    // However many ask at once, on both replicas.
    let asked = (0..8).map(|n| alice.on(n % 2).post(&path, file(1_000)).into_future());
    let answers = futures_util::future::join_all(asked).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 2, "{answers:?}");
    for refused in answers.into_iter().filter(|answer| answer.status != 201) {
        refused.expect_problem(403, "quota_exceeded");
    }
    alice.on(1).post(&path, file(500)).await.expect(201);
    alice.on(0).post(&path, file(1)).await.expect_problem(403, "quota_exceeded");
    bob.on(0).post(&path, file(1)).await.expect(201);
    // A new day.
    cluster.psql("UPDATE attachment_days SET day = day - 1").await;
    alice.on(0).post(&path, file(1_000)).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_send_may_not_announce() {
    let cluster = Cluster::start(1).await;
    let (alice, bob, chat) = pair(&cluster).await;
    let (path, body) = (chat.path("attachments/"), File::text().announcement());
    let eve = cluster.user("eve");
    eve.on(0).post(&path, body.clone()).await.expect_problem(404, "chat_not_found");
    bob.on(0).put("/users/alice/block/", json!({})).await.expect(204);
    alice.on(0).post(&path, body.clone()).await.expect_problem(403, "blocked");
    let group = json!({ "kind": "group", "title": "News", "user_ids": ["bob"],
        "settings": { "post": "admins" } });
    let group = alice.on(0).post("/chats/", group).await.expect(201);
    let path = format!("/chats/{}/attachments/", group["chat_id"].as_str().expect("an id"));
    bob.on(0).post(&path, body.clone()).await.expect_problem(403, "forbidden");
    alice.on(0).post(&path, body).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_are_no_attachments_none_is_taken() {
    let cluster = Cluster::with(1, |config| {
        config.attachments.attachments = beseda::config::AttachmentPlace::Off;
    })
    .await;
    let (alice, _, chat) = pair(&cluster).await;
    let announced = alice.on(0).post(&chat.path("attachments/"), File::text().announcement());
    let problem = announced.await.expect_problem(403, "forbidden");
    assert_eq!(problem["detail"], "This installation takes no attachments.");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_announcement_alone_is_no_attachment() {
    let cluster = Cluster::start(1).await;
    let (alice, _, chat) = pair(&cluster).await;
    let announced = announce(&alice.on(0), &chat, &File::text()).await;
    let body = json!({ "text": "", "attachments": [announced.id] });
    alice.on(0).post(&chat.path("messages/"), body).await.expect_faults(&["attachments"]);
    super::read(&alice.on(0), &chat, &announced).await.expect_problem(404, "attachment_not_found");
}
