//! Every route below a chat: closed to all others, and reached by its id or its name.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Cluster, User};

/// Every route below a chat, with a body that would be right.
fn routes_of(chat: &str, message_id: &str, file: &str) -> Vec<(Method, String, Option<Value>)> {
    let route = |method, rest: &str, body| (method, format!("/api/v1/chats/{chat}/{rest}"), body);
    vec![
        route(Method::GET, "", None),
        route(Method::GET, "messages/", None),
        route(Method::POST, "messages/", Some(json!({ "text": "x" }))),
        route(Method::POST, "mark_read/", Some(json!({}))),
        route(Method::GET, &format!("messages/{message_id}/"), None),
        route(Method::PATCH, &format!("messages/{message_id}/"), Some(json!({ "text": "x" }))),
        route(Method::DELETE, &format!("messages/{message_id}/"), None),
        route(Method::GET, &format!("messages/{message_id}/readers/"), None),
        route(Method::PATCH, "", Some(json!({ "title": "x" }))),
        route(Method::PATCH, "me/", Some(json!({ "pinned": true }))),
        route(Method::GET, "members/", None),
        route(Method::POST, "members/", Some(json!({ "user_ids": ["x"] }))),
        route(Method::PATCH, "members/alice/", Some(json!({ "role": "admin" }))),
        route(Method::DELETE, "members/alice/", None),
        route(Method::GET, "bans/", None),
        route(Method::PUT, "bans/alice/", Some(json!({}))),
        route(Method::DELETE, "bans/alice/", None),
        route(Method::GET, "invites/", None),
        route(Method::POST, "invites/", Some(json!({}))),
        route(Method::DELETE, &format!("invites/{message_id}/"), None),
        route(Method::POST, "join/", Some(json!({}))),
        route(Method::GET, "changes/?after_ev=0", None),
        route(Method::GET, "search/?query=x", None),
        route(Method::GET, "pins/", None),
        route(Method::PUT, &format!("pins/{message_id}/"), None),
        route(Method::DELETE, &format!("pins/{message_id}/"), None),
        route(Method::GET, &format!("messages/{message_id}/reactions/"), None),
        route(Method::PUT, &format!("messages/{message_id}/reactions/:x:/"), None),
        route(Method::DELETE, &format!("messages/{message_id}/reactions/:x:/"), None),
        route(Method::GET, "connect/", None),
        route(
            Method::POST,
            "attachments/",
            Some(json!({ "name": "x", "content_type": "text/plain", "size": 5 })),
        ),
        route(Method::GET, &format!("attachments/{file}/"), None),
        route(Method::DELETE, "", None),
    ]
}

async fn ask(user: &User, replica: usize, route: (Method, String, Option<Value>)) -> Answer {
    let (method, path, body) = route;
    let request = user.on(replica).request(method, &path);
    match body {
        Some(body) => request.body("application/json", body.to_string()).await,
        None => request.await,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_of_others_answers_exactly_as_one_that_does_not_exist() {
    let cluster = Cluster::start(2).await;
    let (alice, bob, eve) = (cluster.user("alice"), cluster.user("bob"), cluster.user("eve"));
    let chat = alice.on(0).open_chat(&bob).await;
    let sent = alice.on(0).send(&chat, "secret").await;
    let message_id = sent["message_id"].as_str().expect("an id");
    let own = eve.on(0).open_chat(&alice).await;
    let absent = ["0190f5fe-7c00-7a00-8000-000000000000", "AAAAAAAAAAAAAAAAAAAAAA", "nonsense"];
    let braced = format!("%7B{}%7D", chat.id);
    let others = [chat.id.as_str(), &chat.room_name, &braced];
    for chat in others.into_iter().chain(absent) {
        for route in routes_of(chat, message_id, message_id) {
            let asked = format!("{} {}", route.0, route.1);
            let mut body = ask(&eve, 1, route).await.expect_problem(404, "chat_not_found");
            body.as_object_mut().expect("an object").remove("request_id");
            let expected = json!({
                "type": "urn:beseda:error:chat_not_found",
                "title": "No such chat",
                "status": 404,
                "detail": "There is no such chat among yours.",
                "code": "chat_not_found",
            });
            assert_eq!(body, expected, "{asked}");
        }
    }
    // Nor is the other chat's message found by way of one's own.
    let path = own.path(&format!("messages/{message_id}/"));
    eve.on(0).get(&path).await.expect_problem(404, "message_not_found");
    eve.on(0).delete(&path).await.expect_problem(404, "message_not_found");
    eve.on(0).patch(&path, json!({ "text": "x" })).await.expect_problem(404, "message_not_found");
    assert_eq!(alice.on(1).history(&chat, "").await["results"], json!([sent]));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_takes_the_id_or_the_name_with_a_slash_at_the_end_or_without() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let sent = alice.on(0).send(&chat, "x marks the spot").await;
    let message_id = sent["message_id"].as_str().expect("an id");
    let file = crate::attachments::uploaded(&cluster, &alice, &chat).await;
    let upper = chat.id.to_uppercase();
    for (named, slash) in
        [(&chat.id, false), (&chat.room_name, true), (&chat.room_name, false), (&upper, true)]
    {
        for (method, mut path, body) in routes_of(named, message_id, &file) {
            let of_groups = ["bans/", "invites/", "join/", "members/alice/"];
            let changes = [Method::PATCH, Method::POST].contains(&method)
                && (path.ends_with(&format!("{named}/")) || path.ends_with("members/"));
            if method == Method::DELETE
                || changes
                || of_groups.iter().any(|part| path.contains(part))
            {
                continue;
            }
            if !slash {
                path = path.replace("/?", "?").trim_end_matches('/').to_owned();
            }
            let asked = format!("{method} {path}");
            let answer = ask(&alice, 1, (method.clone(), path, body)).await;
            assert!(matches!(answer.status, 200 | 201 | 204), "{asked}: {}", answer.text);
            if asked.contains("connect") {
                // The socket's path is the id's, always.
                let url = answer.json["ws_url"].as_str().expect("a URL");
                assert!(url.contains(&format!("/ws/chat/{}/?ticket=", chat.id)), "{url}");
            }
            assert!(!answer.text.contains(&upper), "{asked}");
        }
    }
    let name = &chat.room_name;
    alice.on(1).delete(&format!("/chats/{name}/messages/{message_id}")).await.expect(204);
    alice.on(1).delete(&format!("/chats/{name}")).await.expect(204);
    alice.on(0).get(&format!("/chats/{name}")).await.expect_problem(404, "chat_not_found");
    for path in ["/chats", "/chats/unread", "/blocks", "/users/alice"] {
        let slashed = alice.on(0).get(&format!("{path}/")).await.expect(200);
        assert_eq!(alice.on(1).get(path).await.expect(200), slashed, "{path}");
    }
}
