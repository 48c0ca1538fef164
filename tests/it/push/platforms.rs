//! What each platform is given, as its own documentation has it.

use serde_json::json;

use super::{all_is_decided, badge, provider::Provider, register};
use crate::harness::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn a_message_arrives_on_every_platform_and_is_taken_back_when_it_is_read() {
    let provider = Provider::start().await;
    let cluster = Cluster::with(2, provider.settings()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let named = json!({ "name": "Алиса" });
    cluster.host().on(0).put("/users/alice/", named).await;
    register(&bob, 0, "browser", provider.subscription("browser")).await;
    register(&bob, 0, "phone", json!({ "platform": "apns", "token": "ABCDEF01" })).await;
    let tablet = json!({ "platform": "fcm", "token": "google:token", "preview": true });
    register(&bob, 1, "tablet", tablet).await;
    let chat = alice.on(0).open_chat(&bob).await;
    let sent = alice.on(0).send(&chat, "Привет, Боб!").await;
    let pushes = provider.expect(3).await;
    let by_path = |path: &str| {
        let mut found = pushes.iter().filter(|push| push.path.starts_with(path));
        found.next().unwrap_or_else(|| panic!("{path}: {pushes:#?}"))
    };
    let browser = by_path("/push/browser");
    let expected = json!({
        "type": "message", "chat_id": chat.id, "message_id": sent["message_id"], "seq": 1,
        "title": "Алиса", "text": "Привет, Боб!", "badge": 1,
    });
    assert_eq!(browser.json, expected);
    assert_eq!(browser.headers["urgency"], "high");
    let topic = browser.headers["topic"].clone();

    let phone = by_path("/3/device/abcdef01");
    let own = json!({
        "type": "message", "chat_id": chat.id, "message_id": sent["message_id"], "seq": 1, "badge": 1,
    });
    let expected = json!({
        // Without a preview no word of it.
        "aps": {
            "alert": { "title": "Алиса" }, "badge": 1, "sound": "default",
            "thread-id": chat.id, "mutable-content": 1,
        },
        "beseda": own,
    });
    assert_eq!(phone.json, expected);
    for (name, value) in
        [("apns-push-type", "alert"), ("apns-priority", "10"), ("apns-collapse-id", &chat.id)]
    {
        assert_eq!(phone.headers[name], value);
    }

    let tablet = &by_path("/v1/").json["message"];
    assert_eq!(tablet["token"], "google:token");
    let data = json!({
        "type": "message", "chat_id": chat.id, "message_id": sent["message_id"], "seq": "1",
        "title": "Алиса", "text": "Привет, Боб!", "badge": "1",
    });
    assert_eq!(tablet["data"], data);
    assert_eq!(tablet["android"]["priority"], "HIGH");
    assert_eq!(tablet["apns"]["payload"]["aps"]["alert"]["body"], "Привет, Боб!");
    all_is_decided(&cluster).await;

    bob.on(1).mark_read(&chat).await;
    let pushes = provider.expect(6).await.split_off(3);
    for push in &pushes {
        match &*push.path {
            "/push/browser" => {
                let expected = json!({ "type": "read", "chat_id": chat.id, "badge": 0 });
                assert_eq!(push.json, expected);
                // It takes the place of what the browser may not have got yet.
                assert_eq!((&push.headers["topic"], &*push.headers["urgency"]), (&topic, "normal"));
            }
            "/3/device/abcdef01" => {
                let aps = json!({ "badge": 0, "content-available": 1 });
                assert_eq!((&push.json["aps"], &*push.headers["apns-priority"]), (&aps, "5"));
                assert_eq!(push.json["beseda"]["type"], "read");
            }
            _ => {
                let data = json!({ "type": "read", "chat_id": chat.id, "badge": "0" });
                assert_eq!(push.json["message"]["data"], data);
                assert_eq!(push.json["message"]["android"]["priority"], "NORMAL");
            }
        }
    }
    all_is_decided(&cluster).await;
    assert_eq!((provider.pushes().len(), badge(&bob).await), (6, json!(0)));
    // Two replicas ask for one at most each.
    assert!(provider.granted() <= 2);
    let left = "SELECT count(*) FROM push_marks";
    assert_eq!(cluster.psql_value::<i64>(left).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_message_fits_everywhere() {
    let provider = Provider::start().await;
    let cluster = Cluster::with(1, provider.settings()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let named = json!({ "name": "🙂".repeat(256) });
    cluster.host().on(0).put("/users/alice/", named).await;
    register(&bob, 0, "browser", provider.subscription("browser")).await;
    let preview = |platform: &str| json!({ "platform": platform, "token": "aa", "preview": true });
    register(&bob, 0, "phone", preview("apns")).await;
    register(&bob, 0, "tablet", preview("fcm")).await;
    let group = json!({ "kind": "group", "title": "\"".repeat(200), "user_ids": ["bob"] });
    let group = alice.on(0).post("/chats/", group).await.expect(201);
    let path = format!("/chats/{}/messages/", group["chat_id"].as_str().expect("an id"));
    alice.on(0).post(&path, json!({ "text": "🙂".repeat(4_000) })).await.expect(201);
    for push in provider.expect(3).await {
        assert!(push.json.to_string().len() <= 4_096, "{push:?}");
        let text = match &*push.path {
            "/push/browser" => &push.json["text"],
            path if path.starts_with("/3/") => &push.json["aps"]["alert"]["body"],
            _ => &push.json["message"]["data"]["text"],
        };
        assert!(text.as_str().is_some_and(|text| text.ends_with("🙂…")), "{push:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_reaches_its_device_and_says_what_is_wrong() {
    let provider = Provider::start().await;
    let cluster = Cluster::with(1, provider.settings()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    register(&alice, 0, "phone", json!({ "platform": "apns", "token": "aa" })).await;
    register(&bob, 0, "phone", json!({ "platform": "apns", "token": "bb" })).await;
    let run = async |words: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_beseda"));
        command.arg("push-test").args(words).env_clear();
        command.env("DATABASE_URL", cluster.database_url());
        for (name, value) in provider.variables() {
            command.env(name, value);
        }
        let output = command.output().await.expect("the program runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    let (code, said) = run(&["phone"]).await;
    assert!(code == Some(1) && said.contains("2 users have a device of this id"), "{said}");
    let (code, said) = run(&["phone", "--user", "bob"]).await;
    assert!(code == Some(0) && said.contains("apns has accepted it"), "{said}");
    let push = provider.expect(1).await.remove(0);
    assert_eq!(push.path, "/3/device/bb");
    assert_eq!(push.json["aps"]["alert"]["title"], "Beseda");
    provider.reply(|_, _| super::provider::Reply {
        status: 403,
        body: json!({ "reason": "InvalidProviderToken" }),
        retry_after: None,
    });
    let (code, said) = run(&["phone", "--user", "alice"]).await;
    assert!(code == Some(1) && said.contains("InvalidProviderToken"), "{said}");
    let (code, said) = run(&["nobody's"]).await;
    assert!(code == Some(1) && said.contains("no such device"), "{said}");
}
