//! Devices are of those who registered them last.

use serde_json::{Value, json};

use super::{provider::Provider, register};
use crate::harness::{Cluster, assert_members, assert_time};

/// The ids of a user's devices.
fn ids(list: &Value) -> Vec<&str> {
    let results = list["results"].as_array().expect("a list");
    results.iter().map(|device| device["device_id"].as_str().expect("an id")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_registered_listed_and_removed() {
    let provider = Provider::start().await;
    let cluster = Cluster::with(2, provider.settings()).await;
    let alice = cluster.user("alice");
    let info = alice.on(0).get("/push/").await.expect(200);
    assert_eq!(info["platforms"], json!(["webpush", "fcm", "apns"]));
    assert_eq!(info["vapid_public_key"].as_str().map(str::len), Some(87));

    let browser = register(&alice, 0, "browser", provider.subscription("browser")).await;
    assert_members(
        &browser,
        &["device_id", "platform", "locale", "preview", "created_at", "updated_at"],
    );
    assert_time(&browser["updated_at"]);
    let phone = json!({ "platform": "apns", "token": "00FFaa", "locale": "ru-RU" });
    let phone = register(&alice, 1, "phone.1", phone).await;
    assert_eq!((&phone["preview"], &phone["locale"]), (&json!(false), &json!("ru-RU")));
    assert_eq!((&browser["preview"], &browser["locale"]), (&json!(true), &Value::Null));
    let again = register(&alice, 1, "browser", provider.subscription("browser 2")).await;
    assert_eq!(again["created_at"], browser["created_at"]);
    assert_ne!(again["updated_at"], browser["updated_at"]);
    let list = alice.on(1).get("/devices/").await.expect(200);
    assert_eq!(list["results"], json!([again, phone]));
    assert_eq!(ids(&cluster.user("bob").on(0).get("/devices/").await.expect(200)).len(), 0);

    alice.on(0).delete("/devices/browser/").await.expect(204);
    alice.on(0).delete("/devices/browser/").await.expect(204);
    cluster.user("bob").on(0).delete("/devices/phone.1/").await.expect(204);
    assert_eq!(ids(&alice.on(1).get("/devices/").await.expect(200)), ["phone.1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_changes_hands_and_the_oldest_of_more_than_twenty_goes() {
    let provider = Provider::start().await;
    let cluster = Cluster::with(1, provider.settings()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let shared = json!({ "platform": "fcm", "token": "of-the-family's-tablet" });
    register(&alice, 0, "tablet", shared.clone()).await;
    // Another platform's token of the same letters is another one.
    register(&alice, 0, "phone", json!({ "platform": "apns", "token": "abc" })).await;
    register(&bob, 0, "phone", json!({ "platform": "fcm", "token": "abc" })).await;
    register(&bob, 0, "tablet", shared.clone()).await;
    assert_eq!(ids(&alice.on(0).get("/devices/").await.expect(200)), ["phone"]);
    assert_eq!(ids(&bob.on(0).get("/devices/").await.expect(200)), ["tablet", "phone"]);
    // One's own, too.
    register(&bob, 0, "tablet-2", shared).await;
    assert_eq!(ids(&bob.on(0).get("/devices/").await.expect(200)), ["tablet-2", "phone"]);

    // However its endpoint is spelled.
    let mut spelled = provider.subscription("browser");
    spelled["subscription"]["endpoint"] = json!("https://127.0.0.1:1/push/x#of-alice");
    register(&alice, 0, "browser", spelled.clone()).await;
    spelled["subscription"]["endpoint"] = json!("HTTPS://127.0.0.1:1/push/x");
    register(&bob, 0, "browser", spelled.clone()).await;
    assert_eq!(ids(&alice.on(0).get("/devices/").await.expect(200)), ["phone"]);
    spelled["subscription"]["endpoint"] = json!("https://127.0.0.1:1/push/\0");
    register(&bob, 0, "browser", spelled).await;
    bob.on(0).delete("/devices/browser/").await.expect(204);

    for number in 0..20 {
        let body = json!({ "platform": "fcm", "token": format!("token-{number}") });
        register(&alice, 0, &format!("d{number}"), body).await;
    }
    let list = alice.on(0).get("/devices/").await.expect(200);
    let listed = ids(&list);
    assert_eq!((listed.len(), listed[0], listed[19]), (20, "d19", "d0"), "{listed:?}");
    let rows = "SELECT (SELECT count(*) FROM devices) - (SELECT count(*) FROM push_lanes)";
    assert_eq!(cluster.psql_value::<i64>(rows).await, 0, "each device has its lane");
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_go_with_their_user_and_with_their_tokens_and_are_exported() {
    let provider = Provider::start().await;
    let cluster = Cluster::with(1, provider.settings()).await;
    let (alice, host) = (cluster.user("alice"), cluster.host());
    let body = json!({ "platform": "fcm", "token": "t", "preview": true });
    let device = register(&alice, 0, "phone", body.clone()).await;
    let export = host.on(0).get("/users/alice/export/").await.text;
    let line = export.lines().find(|line| line.contains("\"type\":\"device\"")).expect("a device");
    let line: Value = serde_json::from_str(line).expect("JSON");
    assert_eq!(line["device_id"], device["device_id"]);
    let end: Value = serde_json::from_str(export.lines().last().expect("a line")).expect("JSON");
    assert_eq!(end["devices"], 1);
    assert!(!export.contains("\"t\""), "a token is nobody's but the provider's: {export}");

    let left = "SELECT count(*) FROM devices, push_lanes";
    host.on(0).post("/users/alice/revoke_tokens/", json!({})).await.expect(204);
    assert_eq!(cluster.psql_value::<i64>(left).await, 0, "logged out everywhere");
    let bob = cluster.user("bob");
    register(&bob, 0, "phone", body).await;
    host.on(0).delete("/users/bob/").await.expect(204);
    assert_eq!(cluster.psql_value::<i64>(left).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_pushed_to_is_refused_and_its_fields_are_named() {
    let provider = Provider::start().await;
    let settings = provider.settings();
    let cluster = Cluster::with(1, |config| {
        settings(config);
        config.push.apns_key = None;
        config.push.push_allow_private = beseda::config::Switch::Off;
    })
    .await;
    let alice = cluster.user("alice");
    let good = provider.subscription("browser");
    let with = |path: &str, value: Value| {
        let mut body = good.clone();
        body["subscription"]["endpoint"] = json!("https://push.example.com/1");
        *body.pointer_mut(path).expect("a field") = value;
        body
    };
    register(&alice, 0, "browser", with("/preview", json!(false))).await;
    let endpoint = "/subscription/endpoint";
    for (body, field) in [
        (json!({}), "platform"),
        (json!({ "platform": "pigeon" }), "platform"),
        (json!({ "platform": "apns", "token": "aa" }), "platform"),
        (json!({ "platform": "fcm" }), "token"),
        (json!({ "platform": "fcm", "token": "" }), "token"),
        (json!({ "platform": "fcm", "token": "a b" }), "token"),
        (json!({ "platform": "webpush", "token": "t" }), "subscription"),
        (json!({ "platform": "fcm", "token": "t", "locale": "../../etc" }), "locale"),
        (json!({ "platform": "webpush", "subscription": {} }), "subscription.endpoint"),
        (with(endpoint, json!("nowhere")), "subscription.endpoint"),
        (with(endpoint, json!("http://push.example.com/")), "subscription.endpoint"),
        (with(endpoint, json!("https://127.0.0.1/")), "subscription.endpoint"),
        (with(endpoint, json!("https://[::ffff:169.254.169.254]/")), "subscription.endpoint"),
        (with("/subscription/keys/p256dh", json!("AAAA")), "subscription.keys.p256dh"),
        (with("/subscription/keys/auth", json!("AAAA")), "subscription.keys.auth"),
    ] {
        let refused = alice.on(0).put("/devices/x/", body.clone()).await.expect(422);
        let fields: Vec<_> =
            refused["errors"].as_array().expect("errors").iter().map(|one| &one["field"]).collect();
        assert!(fields.contains(&&json!(field)), "{body}: {refused}");
    }
    let long = format!("/devices/{}/", "x".repeat(65));
    for path in ["/devices/a%20b/", "/devices/%D1%8F/", &*long] {
        alice.on(0).put(path, json!({ "platform": "fcm", "token": "t" })).await.expect(422);
    }
}
