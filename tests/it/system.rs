//! Health, metrics, documents, tickets.

use beseda::config::{Config, Switch};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Client, Cluster, assert_members, eventually};

async fn get(client: Client, path: &str) -> Answer {
    client.request(Method::GET, path).await
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_on_both_ports_and_metrics_on_the_internal_one_only() {
    let cluster = Cluster::start(1).await;
    let alice = cluster.user("alice on metrics");
    let chat = alice.on(0).open_chat(&cluster.user("bob")).await;
    alice.on(0).send(&chat, "hello").await;
    for client in [cluster.anyone(0), cluster.operator(0)] {
        get(client.clone(), "/healthz").await.expect(200);
        let ready = get(client, "/readyz").await.expect(200);
        assert_eq!(ready["status"], "ready");
    }
    get(cluster.anyone(0), "/metrics").await.expect_problem(404, "route_not_found");
    cluster.operator(0).get("/chats/").await.expect_problem(404, "route_not_found");
    let metrics = get(cluster.operator(0), "/metrics").await;
    assert_eq!(metrics.status, 200);
    for line in ["beseda_messages_accepted_total 1", "beseda_redis_up 1", "# EOF"] {
        assert!(metrics.text.contains(line), "{line} is not in {}", metrics.text);
    }
    let route = r#"route="/api/v1/chats/{chat}/messages/""#;
    assert!(metrics.text.contains(route), "{}", metrics.text);
    // Labels are bounded, so that no user and no chat appears.
    for id in [chat.id.as_str(), &chat.room_name, "alice on metrics"] {
        assert!(!metrics.text.contains(id), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_costs_postgres_a_few_statements_a_second_however_many_ask() {
    let cluster = Cluster::start(1).await;
    let before = cluster.statements(0, "store.applied_migrations").await;
    let began = std::time::Instant::now();
    let asking = (0..300).map(async |_| {
        cluster.anyone(0).request(Method::GET, "/readyz").await.expect(200);
    });
    futures_util::future::join_all(asking).await;
    // The same for requests one after another.
    for _ in 0..30 {
        cluster.anyone(0).request(Method::GET, "/readyz").await.expect(200);
    }
    let asked = cluster.statements(0, "store.applied_migrations").await - before;
    let most = 8 * (2 + began.elapsed().as_secs());
    assert!((1..=most).contains(&asked), "{asked} of at most {most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_a_replica_is_degraded_and_ready() {
    let cluster = Cluster::with_own_stack(1, |_| {}).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let becomes = async |status: &str| {
        eventually(async || {
            let answer = get(cluster.operator(0), "/readyz").await;
            assert_eq!(answer.status, 200, "{}", answer.text);
            if answer.json["status"] == status { Ok(()) } else { Err(answer.text) }
        })
        .await;
    };
    cluster.stack().redis.kill();
    becomes("degraded").await;
    alice.on(0).send(&chat, "all the same").await;
    assert_eq!(bob.on(0).unread_in(&chat).await, 1);
    bob.on(0).mark_read(&chat).await;
    bob.on(0).get("/chats/").await.expect(200);
    cluster.stack().redis.restart().await.expect("Redis comes back");
    becomes("ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_replica_says_so_and_refuses_new_sockets() {
    let mut cluster =
        Cluster::with(2, |config| config.drain_delay = std::time::Duration::from_secs(3)).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let url = alice.on(0).chat_url(&chat).await;
    let draining = tokio::spawn(cluster.drain(0));
    eventually(async || {
        let answer = get(cluster.operator(0), "/readyz").await;
        if answer.status == 503 { Ok(()) } else { Err(answer.text) }
    })
    .await;
    let ready = get(cluster.operator(0), "/readyz").await;
    assert_eq!(
        (&ready.json["status"], &ready.json["draining"]),
        (&json!("not_ready"), &json!(true))
    );
    let refused = crate::harness::Socket::open_with(&url, &[]).await.expect_err("no new sockets");
    assert_eq!(refused.status(), 503);
    // Balancers have not noticed yet: requests are still answered.
    alice.on(0).send(&chat, "still here").await;
    draining.await.expect("the replica ends");
    assert_eq!(bob.on(1).unread_in(&chat).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_name_every_route_and_need_no_network() {
    let cluster = Cluster::start(1).await;
    let openapi = get(cluster.anyone(0), "/openapi.json").await.expect(200);
    assert!(openapi["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    let chat = "/api/v1/chats/{chat}";
    let message = format!("{chat}/messages/{{message_id}}/");
    let calls = [
        ("/api/v1/chats/".to_owned(), &["get", "post"][..]),
        ("/api/v1/chats/unread/".to_owned(), &["get"]),
        (format!("{chat}/"), &["get", "patch", "delete"]),
        (format!("{chat}/me/"), &["patch"]),
        (format!("{chat}/changes/"), &["get"]),
        ("/api/v1/sync/".to_owned(), &["get"]),
        (format!("{chat}/members/"), &["get", "post"]),
        (format!("{chat}/members/{{user_id}}/"), &["patch", "delete"]),
        (format!("{chat}/bans/"), &["get"]),
        (format!("{chat}/bans/{{user_id}}/"), &["put", "delete"]),
        (format!("{chat}/invites/"), &["get", "post"]),
        (format!("{chat}/invites/{{invite_id}}/"), &["delete"]),
        (format!("{chat}/join/"), &["post"]),
        ("/api/v1/invites/{code}/".to_owned(), &["post"]),
        (format!("{message}readers/"), &["get"]),
        (format!("{chat}/messages/"), &["get", "post"]),
        (format!("{message}report/"), &["post"]),
        (format!("{message}reactions/"), &["get"]),
        (format!("{message}reactions/{{emoji}}/"), &["put", "delete"]),
        (format!("{chat}/pins/"), &["get"]),
        (format!("{chat}/pins/{{message_id}}/"), &["put", "delete"]),
        ("/api/v1/search/".to_owned(), &["get"]),
        ("/api/v1/mentions/".to_owned(), &["get"]),
        (message, &["get", "patch", "delete"]),
        (format!("{chat}/attachments/"), &["post"]),
        (format!("{chat}/attachments/{{attachment_id}}/"), &["get"]),
        (format!("{chat}/mark_read/"), &["post"]),
        (format!("{chat}/search/"), &["get"]),
        (format!("{chat}/connect/"), &["get"]),
        ("/api/v1/connect/".to_owned(), &["post"]),
        ("/api/v1/users/".to_owned(), &["post"]),
        ("/api/v1/users/{user_id}/".to_owned(), &["get", "put", "delete"]),
        ("/api/v1/users/{user_id}/revoke_tokens/".to_owned(), &["post"]),
        ("/api/v1/users/{user_id}/export/".to_owned(), &["get"]),
        ("/api/v1/users/{user_id}/block/".to_owned(), &["put", "delete"]),
        ("/api/v1/blocks/".to_owned(), &["get"]),
        ("/api/v1/push/".to_owned(), &["get"]),
        ("/api/v1/devices/".to_owned(), &["get"]),
        ("/api/v1/devices/{device_id}/".to_owned(), &["put", "delete"]),
        ("/api/v1/reports/".to_owned(), &["get"]),
        ("/api/v1/reports/{report_id}/".to_owned(), &["delete"]),
        ("/api/v1/reports/{report_id}/attachments/{attachment_id}/".to_owned(), &["get"]),
    ];
    let paths = openapi["paths"].as_object().expect("paths");
    for (path, methods) in &calls {
        for method in *methods {
            let operation = &paths.get(path).unwrap_or_else(|| panic!("no {path}"))[*method];
            assert!(operation["responses"].is_object(), "{method} {path}");
        }
    }
    assert_eq!(paths.len(), calls.len(), "{:?}", paths.keys());

    let asyncapi = get(cluster.anyone(0), "/asyncapi.json").await.expect(200);
    assert!(asyncapi["asyncapi"].as_str().is_some_and(|version| version.starts_with('3')));
    // Only `beseda dev` has demo users.
    assert_eq!(
        get(cluster.anyone(0), "/demo/people.json").await.expect(200),
        serde_json::json!([])
    );
    for page in ["/", "/docs/", "/docs/socket/"] {
        let answer = get(cluster.anyone(0), page).await;
        assert_eq!(answer.status, 200, "{page}");
        assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
        for elsewhere in ["src=\"http", "src=\"//", "href=\"http", "href=\"//", "@import"] {
            assert!(!answer.text.contains(elsewhere), "{page} has {elsewhere}");
        }
        // Whatever it links to is there.
        let base = page.trim_end_matches('/');
        for attribute in ["src=\"", "href=\""] {
            for rest in answer.text.split(attribute).skip(1) {
                let link = rest.split('"').next().expect("a first part");
                if link.starts_with(['#', 'd']) || link.contains(':') {
                    continue;
                }
                let link = link.strip_prefix("./").unwrap_or(link);
                let path =
                    if link.starts_with('/') { link.to_owned() } else { format!("{base}/{link}") };
                assert_eq!(get(cluster.anyone(0), &path).await.status, 200, "{page}: {path}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_the_socket_says_all_that_its_document_says() {
    let cluster = Cluster::start(1).await;
    let asyncapi = get(cluster.anyone(0), "/asyncapi.json").await.expect(200);
    let page = get(cluster.anyone(0), "/docs/socket/").await;
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(!page.text.contains("<script") && !page.text.contains("style="));
    let members = |object: &Value| object.as_object().expect("an object").clone();
    for (key, message) in members(&asyncapi["components"]["messages"]) {
        let Some((_, rest)) = page.text.split_once(&format!("-{key}\"><h3>")) else {
            panic!("{key} is not on the page");
        };
        let (shown, _) = rest.split_once("</article>").expect("its end");
        for name in members(&message["payload"]["properties"]).keys() {
            assert!(shown.contains(&format!("<code>{name}</code></th>")), "{key}: {name}");
        }
        let examples = message["examples"].as_array().expect("examples");
        assert_eq!(shown.matches("<pre").count(), examples.len(), "{key}");
    }
    for name in members(&asyncapi["components"]["schemas"]).keys() {
        assert!(page.text.contains(&format!("<h3>{name}</h3>")), "{name}");
    }
    for (_, channel) in members(&asyncapi["channels"]) {
        for close in channel["x-close-codes"].as_array().expect("close codes") {
            assert!(page.text.contains(&format!("<th scope=\"row\">{}</th>", close["code"])));
        }
    }
    // From the page of the REST API one finds it, by a link in the document that it shows.
    let openapi = get(cluster.anyone(0), "/openapi.json").await.expect(200);
    let about = openapi["info"]["description"].as_str().expect("a description");
    assert!(about.contains("(/docs/socket/)") && page.text.contains("href=\"/docs/\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_says_where_and_how_to_connect() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    alice.on(0).send(&chat, "one").await;
    let ticket = bob.on(1).get(&chat.path("connect/")).await.expect(200);
    assert_members(
        &ticket,
        &[
            "ws_url",
            "ticket",
            "expires_in",
            "protocol",
            "heartbeat_ms",
            "head_ev",
            "head_seq",
            "epoch",
        ],
    );
    let raw = ticket["ticket"].as_str().expect("a ticket");
    assert_eq!(ticket["ws_url"], format!("ws://{}/ws/chat/{chat}/?ticket={raw}", bob.on(1).host()));
    let expected = json!([60, "chat.v1", 25_000, 1, 1]);
    let told: Value = ["expires_in", "protocol", "heartbeat_ms", "head_ev", "head_seq"]
        .iter()
        .map(|name| ticket[name].clone())
        .collect();
    assert_eq!(told, expected);
    assert_eq!(ticket["epoch"], bob.on(0).history(&chat, "").await["epoch"]);
    assert_ne!(raw, bob.token);
    // Nor does it pass for one.
    let answer = bob.with_token(raw).on(1).get("/chats/").await;
    answer.expect_problem(401, "token_invalid");

    let many = bob.on(1).request(Method::POST, "/api/v1/connect/").await.expect(200);
    let raw = many["ticket"].as_str().expect("a ticket");
    assert_eq!(many["ws_url"], format!("ws://{}/ws/?ticket={raw}", bob.on(1).host()));
    assert_eq!((&many["expires_in"], &many["protocol"]), (&json!(60), &json!("chat.v1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_sockets_is_the_configured_one_else_the_requests_own() {
    let ours = "127.0.0.1".parse().expect("an address");
    let mut cluster = Cluster::start(1).await;
    let configured = cluster
        .add_replica_with(|config| {
            config.public_url = Some("https://chat.example.com".parse().expect("a URL"));
        })
        .await;
    let behind_proxy = cluster.add_replica_with(|config| config.trusted_proxies = vec![ours]).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let url = async |replica: usize, headers: &[(&str, &str)]| {
        let request = alice.on(replica).get(&chat.path("connect/"));
        let request = headers.iter().fold(request, |r, (name, value)| r.header(name, value));
        let answer = request.await;
        let url = answer.json["ws_url"].as_str().map(str::to_owned);
        url.map_or(answer.text, |url| url.split("/ws/").next().expect("a first part").to_owned())
    };
    let forwarded = [("x-forwarded-host", "chat.example.org"), ("x-forwarded-proto", "https")];
    let own = format!("ws://{}", alice.on(0).host());
    assert_eq!(url(0, &[]).await, own);
    assert_eq!(url(0, &forwarded).await, own, "not from a trusted proxy");
    assert_eq!(url(0, &[("host", "chat.example.net:8443")]).await, "ws://chat.example.net:8443");
    assert_eq!(url(configured, &forwarded).await, "wss://chat.example.com");
    assert_eq!(url(behind_proxy, &forwarded).await, "wss://chat.example.org");
    assert_eq!(url(behind_proxy, &[]).await, format!("ws://{}", alice.on(behind_proxy).host()));
    for host in ["evil/path", "a b", "user@host", "x?y", "", "http://x"] {
        let answer = alice.on(behind_proxy).get(&chat.path("connect/"));
        let answer = answer.header("x-forwarded-host", host).await;
        answer.expect_problem(400, "invalid_request");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_named_statements_as_behind_a_pooler_all_is_the_same() {
    let off = |config: &mut Config| {
        config.database.database_prepared = Switch::Off;
        // No receiver listens there.
        config.webhooks.webhook_url = "http://127.0.0.1:1/".parse().ok();
        config.webhooks.webhook_secret = Some("A".repeat(32).into());
        config.webhooks.webhook_allow_private = Switch::On;
        config.webhooks.webhook_delay = std::time::Duration::ZERO;
    };
    let cluster = Cluster::with(2, off).await;
    let (alice, bob, host) = (cluster.user("alice"), cluster.user("bob"), cluster.host());
    let chat = alice.on(0).open_chat(&bob).await;
    let body = json!({ "text": "hello", "metadata": { "a": 1 }, "client_msg_id": "k" });
    let sent = alice.on(0).post(&chat.path("messages/"), body.clone()).await.expect(201);
    assert_eq!(alice.on(1).post(&chat.path("messages/"), body).await.expect(200), sent);
    let id = sent["message_id"].as_str().expect("an id");
    let path = chat.path(&format!("messages/{id}/"));
    let edited = alice.on(1).patch(&path, json!({ "text": "hello there" })).await.expect(200);
    let page = bob.on(0).get(&chat.path("messages/?around=1")).await.expect(200);
    assert_eq!(page["results"], json!([edited]));
    let found = bob.on(1).get(&chat.path("search/?query=there")).await.expect(200);
    assert_eq!(found["results"][0]["message"], edited);
    assert_eq!(bob.on(1).unread_in(&chat).await, 1);
    assert_eq!(bob.on(0).mark_read(&chat).await["unread_count"], 0);
    let mut socket = bob.on(1).resume(&chat, 0, "").await;
    socket.wait_for("hello").await;
    socket.close().await;
    alice.on(0).delete(&path).await.expect(204);
    let reported = alice.on(0).send(&chat, "rude").await;
    let reported =
        chat.path(&format!("messages/{}/", reported["message_id"].as_str().expect("an id")));
    let report = bob.on(0).post(&format!("{reported}report/"), json!({})).await.expect(201);
    assert_eq!(host.on(1).get("/reports/").await.expect(200)["results"], json!([report]));
    bob.on(0).put("/users/alice/block/", json!({})).await.expect(204);
    assert_eq!(bob.on(1).get("/blocks/").await.expect(200)["results"][0]["user_id"], "alice");
    bob.on(1).delete("/users/alice/block/").await.expect(204);
    host.on(0).put("/users/carol/", json!({ "name": "Carol" })).await.expect(201);
    alice.on(1).get("/chats/").await.expect(200);
    host.on(1).delete("/users/bob/").await.expect(204);
    alice.on(0).delete(&chat.path("")).await.expect(204);
    let tried = "SELECT count(*) FROM webhooks WHERE kind = 'report.created' AND attempts > 0";
    eventually(async || match cluster.psql_value::<i64>(tried).await {
        1 => Ok(()),
        count => Err(count.to_string()),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_starts_on_a_schema_that_has_what_it_needs_and_on_no_other() {
    let mut cluster = Cluster::start(1).await;
    let operator = cluster.operator(0);
    let ready = async || get(operator.clone(), "/readyz").await.json["postgres"].clone();
    assert_eq!(ready().await, "up");
    // The next release has migrated: until it is replaced this one serves, and starts again.
    let newer = "INSERT INTO refinery_schema_history (version, name) VALUES (9999, 'newer')";
    cluster.psql(newer).await;
    assert_eq!(ready().await, "up");
    let again = cluster.add_replica().await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    bob.on(again).send(&chat, "from the older release").await;
    // The one after it takes away what this one needs.
    cluster.psql("UPDATE instance SET compatible_from = 9998").await;
    assert_eq!(ready().await, "wrong_schema");
    let refused = cluster.refusal(|config| config.migrate_on_start = Switch::Off).await;
    assert!(refused.contains("knows schema 9998") && refused.contains("too old"), "{refused}");
    assert_eq!(cluster.refusal(|_| {}).await, refused, "nor does it migrate");
    cluster.psql("DELETE FROM refinery_schema_history WHERE version = 9999").await;
    cluster.psql("UPDATE instance SET compatible_from = 7").await;
    let kept = "ALTER TABLE refinery_schema_history RENAME TO kept";
    cluster.psql(kept).await;
    assert_eq!(ready().await, "wrong_schema");
    let refused = cluster.refusal(|config| config.migrate_on_start = Switch::Off).await;
    assert!(refused.contains("beseda migrate"), "{refused}");
    cluster.psql("ALTER TABLE kept RENAME TO refinery_schema_history").await;
    assert_eq!(ready().await, "up");
}
