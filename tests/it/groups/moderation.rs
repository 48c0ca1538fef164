//! What keeps a group in order: silence, slow mode, announcements, bans.

use serde_json::json;

use super::{add, create, create_with, member_ids};
use crate::harness::{Cluster, assert_members, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn in_a_group_of_announcements_only_admins_post() {
    let cluster = Cluster::start(1).await;
    let user = |id: &str| cluster.user(id).on(0);
    let chat = create_with(&user("owner"), "News", &["plain"], json!({ "post": "admins" })).await;
    let body = json!({ "text": "me too" });
    user("plain")
        .post(&chat.path("messages/"), body.clone())
        .await
        .expect_problem(403, "forbidden");
    user("owner").send(&chat, "news").await;
    user("owner").patch(&chat.path("members/plain/"), json!({ "role": "admin" })).await.expect(200);
    user("plain").post(&chat.path("messages/"), body).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_silenced_neither_sends_nor_edits_until_then() {
    let cluster = Cluster::start(1).await;
    let user = |id: &str| cluster.user(id).on(0);
    let chat = create(&user("owner"), "Quiet", &["plain"]).await;
    let said = user("plain").send(&chat, "before").await;
    let path = chat.path(&format!("messages/{}/", said["message_id"].as_str().expect("an id")));
    let silence = json!({ "silenced_until": "2100-01-01T00:00:00.000000Z" });
    let told = user("owner").patch(&chat.path("members/plain/"), silence.clone()).await.expect(200);
    assert_eq!(told["silenced_until"], silence["silenced_until"]);
    let body = json!({ "text": "after" });
    user("plain").post(&chat.path("messages/"), body.clone()).await.expect_problem(403, "silenced");
    user("plain").patch(&path, body.clone()).await.expect_problem(403, "silenced");
    // One's own may always be deleted, and read markers move.
    user("plain").mark_read(&chat).await;
    user("plain").delete(&path).await.expect(204);
    let over = json!({ "silenced_until": null });
    user("owner").patch(&chat.path("members/plain/"), over).await.expect(200);
    user("plain").post(&chat.path("messages/"), body).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_mode_says_how_long_to_wait() {
    let cluster = Cluster::start(2).await;
    let chat = create_with(
        &cluster.user("owner").on(0),
        "Slow",
        &["plain"],
        json!({ "slow_mode_s": 3600 }),
    )
    .await;
    let plain = cluster.user("plain");
    let first = json!({ "text": "one", "client_msg_id": "one" });
    plain.on(0).post(&chat.path("messages/"), first.clone()).await.expect(201);
    let refused = plain.on(1).post(&chat.path("messages/"), json!({ "text": "two" })).await;
    assert_eq!(
        (refused.status, refused.json["code"].as_str()),
        (403, Some("slow_mode")),
        "{refused:?}"
    );
    let wait = refused.json["retry_after_ms"].as_u64().expect("milliseconds");
    assert!((3_500_000..=3_600_000).contains(&wait), "{wait}");
    let seconds: u64 =
        refused.header("retry-after").and_then(|raw| raw.parse().ok()).expect("seconds");
    assert!(seconds.abs_diff(wait / 1000) <= 1, "{seconds} {wait}");
    // A retry of what was stored is no new message, and admins may.
    plain.on(1).post(&chat.path("messages/"), first).await.expect(200);
    for text in ["a", "b"] {
        cluster.user("owner").on(0).send(&chat, text).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_banned_is_out_and_kept_out_until_the_ban_ends() {
    let cluster = Cluster::start(2).await;
    let (owner, bob) = (cluster.user("owner"), cluster.user("bob"));
    let chat = create_with(&owner.on(0), "Banned", &["bob"], json!({ "join": "open" })).await;
    let ban =
        owner.on(0).put(&chat.path("bans/bob/"), json!({ "reason": "spam" })).await.expect(200);
    assert_members(&ban, &["user", "reason", "until", "created_at", "by"]);
    assert_eq!((&ban["by"], &ban["until"]), (&json!("owner"), &json!(null)));
    assert_eq!(member_ids(&owner.on(1), &chat).await, ["owner"]);
    bob.on(1).get(&chat.path("")).await.expect_problem(404, "chat_not_found");
    bob.on(1).post(&chat.path("join/"), json!({})).await.expect_problem(403, "banned");
    let invite = owner.on(0).post(&chat.path("invites/"), json!({})).await.expect(201);
    let accept = format!("/invites/{}/", invite["code"].as_str().expect("a code"));
    bob.on(0).post(&accept, json!({})).await.expect_problem(403, "banned");
    let told = add(&owner.on(1), &chat, &["bob"]).await;
    assert_eq!(told["refused"], json!([{ "user_id": "bob", "code": "banned" }]));
    // A ban that is over is none.
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(300);
    owner
        .on(0)
        .put(&chat.path("bans/bob/"), json!({ "until": soon.to_string() }))
        .await
        .expect(200);
    eventually(async || {
        let joined = bob.on(0).post(&chat.path("join/"), json!({})).await;
        if joined.status == 200 { Ok(()) } else { Err(joined.text) }
    })
    .await;
    assert_eq!(owner.on(0).get(&chat.path("bans/")).await.expect(200)["results"], json!([]));
    owner.on(0).put(&chat.path("bans/bob/"), json!({})).await.expect(200);
    owner.on(0).delete(&chat.path("bans/bob/")).await.expect(204);
    owner.on(0).delete(&chat.path("bans/bob/")).await.expect(204);
    bob.on(1).post(&chat.path("join/"), json!({})).await.expect(200);
    owner.on(0).put(&chat.path("bans/owner/"), json!({})).await.expect_problem(403, "forbidden");
}
