//! Odd values at every route, in every field and in every frame: refused or taken, and no error of ours.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Chat, Cluster, User, sign};

/// Values that have broken other programs. `..` is missing because this client would resolve it.
const ODD: &[&str] = &[
    "0",
    "-1",
    "1.5",
    "1e3",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "9007199254740993",
    "NaN",
    "null",
    "%00",
    "%FF",
    "%2F",
    "%5C",
    "'",
    "%F0%9F%98%80",
    "%EF%BF%BF",
    "$1",
    "{}",
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "AAAAAAAAAAAAAAAAAAAAAA",
    "%D0%B6%D0%B6%D0%B6%D0%B6%D0%B6%D0%B6%D0%B6%D0%B6%D0%B6%D0%B6%D0%B6",
];

/// Cursors outside the years that Postgres knows, and at the ends of the integer's range.
fn odd_cursors() -> Vec<String> {
    let moments = [i64::MIN, -377_705_023_201_000_000, -210_866_803_200_000_001, -1, 0, i64::MAX];
    let year_9999 = 253_402_207_200_999_999;
    let cursor = |micros: i64| {
        let mut bytes = micros.to_be_bytes().to_vec();
        bytes.extend_from_slice(&[0xff; 16]);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    };
    moments.into_iter().chain([year_9999]).map(cursor).collect()
}

fn odd_bodies() -> Vec<String> {
    let mut bodies = vec![
        "null".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        "{".to_owned(),
        format!("{}{}", "[".repeat(5_000), "]".repeat(5_000)),
        format!(r#"{{"text":"x","metadata":{}1{}}}"#, r#"{"a":"#.repeat(200), "}".repeat(200)),
        r#"{"users":[{"user_id":"a"},{"user_id":"a","name":"b"},{"user_id":"."}]}"#.to_owned(),
        r#"{"user_ids":["a","a"]}"#.to_owned(),
    ];
    let values = [
        "null",
        "0",
        "-0",
        "1e400",
        "-1",
        "1.5",
        "9223372036854775807",
        "9223372036854775808",
        "100000000000000000000000000000000000000001",
        "true",
        "\"\"",
        "\"\\u0000\"",
        "\"\\ud83d\"",
        "\"\\uffff\\ufffe\"",
        "\"\\u001f\"",
        "\"..\"",
        "\"%\"",
        "\"9223372036854775808\"",
        "[]",
        "[null]",
        "{}",
        "{\"\":\"\\u0000\"}",
        "{\"a\":1e308,\"a\":1e-999}",
        "[\"a\",\"\\u0000\"]",
        "[{\"user_id\":\"\\u0000\",\"name\":\"\\u0000\"}]",
    ];
    for value in values {
        bodies.push(format!(r#"{{"text":"x","metadata":{value},"client_msg_id":{value}}}"#));
        bodies.push(format!(
            r#"{{"text":{value},"user_id":{value},"user_ids":{value},"users":{value},"name":{value},
                "avatar_url":{value},"room_name":{value},"up_to_seq":{value},"reason":{value}}}"#
        ));
        bodies.push(format!(r#"{{"up_to_seq":{value}}}"#));
        bodies.push(format!(r#"{{"room_name":{value}}}"#));
        bodies.push(format!(r#"{{"user_id":{value}}}"#));
        bodies.push(format!(r#"{{"reason":{value}}}"#));
        bodies.push(format!(r#"{{"text":"x","client_msg_id":{value}}}"#));
        bodies.push(format!(r#"{{"text":"x","metadata":{{"n":{value}}}}}"#));
    }
    bodies
}

/// Fills in a route's parameters: with `real` where that gives a value, else with `odd`.
fn fill(route: &str, odd: &str, real: &dyn Fn(&str) -> Option<String>) -> String {
    let parts = route.split('/').map(|part| {
        let name = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
        name.map_or_else(|| part.to_owned(), |name| real(name).unwrap_or_else(|| odd.to_owned()))
    });
    parts.collect::<Vec<_>>().join("/")
}

/// Lists every route that takes a token, from the document that the code generates.
fn routes() -> Vec<(Method, String)> {
    let document: Value = serde_json::from_str(&beseda::api::openapi_json()).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let operations = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().expect("an object").keys();
        methods
            .filter_map(move |method| Some((method.to_uppercase().parse().ok()?, path.to_owned())))
    });
    let known = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    operations.filter(|(method, _)| known.contains(method)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_odd_value_at_any_route_is_an_error_of_ours() {
    let cluster = Cluster::start(1).await;
    let (alice, bob, host) = (cluster.user("alice"), cluster.user("bob"), cluster.host());
    let chat = alice.on(0).open_chat(&bob).await;
    let message = alice.on(0).send(&chat, "here").await;
    let message_id = message["message_id"].as_str().expect("an id").to_owned();
    let real = |name: &str| match name {
        "chat" => Some(chat.id.clone()),
        "message_id" => Some(message_id.clone()),
        "user_id" => Some("bob".to_owned()),
        _ => None,
    };
    let routes = routes();
    assert!(routes.len() > 20, "{routes:?}");
    let mut asked = Vec::new();
    for (method, route) in &routes {
        for odd in ODD {
            asked.push((method.clone(), fill(route, odd, &|_| None), None));
            let first = |name: &str| (name == "chat").then(|| chat.id.clone());
            // The chat is not deleted, as the rest of the table needs it.
            if route.contains("}/") && (method != Method::DELETE || route.matches('{').count() > 1)
            {
                asked.push((method.clone(), fill(route, odd, &first), None));
            }
        }
        if method == Method::DELETE {
            continue;
        }
        let here = fill(route, "odd", &real);
        for name in ["limit", "before", "after", "around", "query", "cursor"] {
            let cursors = odd_cursors();
            let values = ODD.iter().copied().chain(cursors.iter().map(String::as_str));
            for odd in values.filter(|_| method == Method::GET) {
                asked.push((method.clone(), format!("{here}?{name}={odd}"), None));
            }
        }
        if method != Method::GET {
            asked.extend(
                odd_bodies().into_iter().map(|body| (method.clone(), here.clone(), Some(body))),
            );
        }
    }
    for (method, path, body) in asked {
        for user in [&alice, &host] {
            let request = user.on(0).request(method.clone(), &path);
            let request = match &body {
                Some(body) => request.body("application/json", body.clone()),
                None => request,
            };
            let answer = request.await;
            assert!(answer.status < 500, "{method} {path} {body:?}: {}", answer.text);
        }
    }
    for (name, value) in [
        ("idempotency-key", &b"\xff"[..]),
        ("idempotency-key", b"\xc2\x80"),
        ("x-request-id", b"\xff"),
        ("traceparent", b"00-0-0-0"),
        ("x-forwarded-for", b"\xff, ,"),
        ("content-type", b"application/json; charset=\xff"),
        ("origin", b"\xff"),
    ] {
        let request = alice.on(0).post(&chat.path("messages/"), json!({ "text": "x" }));
        let answer = request.header(name, value).await;
        assert!(answer.status < 500, "{name}: {}", answer.text);
    }
    for claims in [
        json!({ "sub": "a", "exp": 1e300 }),
        json!({ "sub": "a", "exp": i64::MAX }),
        json!({ "sub": "a", "exp": u64::MAX, "iat": -3e11 }),
        json!({ "sub": "a", "exp": 1e15, "iat": i64::MIN, "nbf": -1e300 }),
        json!({ "sub": "\u{ffff}", "exp": 1e11, "name": "\u{0}", "picture": "\u{0}" }),
    ] {
        let user = cluster.user("a").with_token(sign(&claims));
        for path in ["/chats/", "/connect/"] {
            let method = if path == "/chats/" { Method::GET } else { Method::POST };
            let answer = user.on(0).request(method, &format!("/api/v1{path}")).await;
            assert!(answer.status < 500, "{claims}: {}", answer.text);
        }
    }
    no_odd_frame_ends_a_socket_with_an_error_of_ours(&alice, &chat).await;
}

async fn no_odd_frame_ends_a_socket_with_an_error_of_ours(alice: &User, chat: &Chat) {
    let mut socket = alice.on(0).connect_many().await;
    for kind in ["subscribe", "unsubscribe", "mark_read", "typing", "send", "auth"] {
        for value in ["null", "0", "-1", "9223372036854775807", "1e400", "\"\\u0000\"", "[]", "{}"]
        {
            let frame = format!(
                r#"{{"type":"{kind}","id":"x","chat_id":"{}","after_ev":{value},"epoch":{value},
                    "up_to_seq":{value},"typing":{value},"text":{value},"metadata":{value},
                    "client_msg_id":{value},"token":{value}}}"#,
                chat.id
            );
            socket.send_raw(tokio_tungstenite::tungstenite::Message::text(frame)).await;
            for frame in socket.frames_so_far().await {
                assert_ne!(frame["code"], "internal", "{kind} {value}: {frame}");
            }
            if kind == "auth" {
                // Refused tokens are counted, and too many end a socket.
                break;
            }
        }
    }
}
