//! Who may do what: every route and every command of a socket, tried by everybody. Routes and
//! commands are taken from the served documents, so that a new one has to say here what it answers.

use std::time::Duration;

use beseda::config::Secret;
use jsonwebtoken::{Algorithm, EncodingKey};
use reqwest::Method;
use serde_json::{Value, json};

use crate::attachments::uploaded;
use crate::harness::{
    Answer, Chat, Client, Cluster, SECRET, Socket, User, claims, keys::es256, now, sign, sign_with,
};

/// What a route is about, and so who may use it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum About {
    /// The caller's own things.
    Oneself,
    /// A chat, for its two.
    Chat,
    /// A chat that a block closes for writing.
    ChatUnlessBlocked,
    /// A chat, for its two and for the host application.
    ChatOrHost,
    /// The same, closed by a block.
    ChatOrHostUnlessBlocked,
    /// A person, for those who share a chat with them, and for the host application.
    Person,
    /// Anything, for the host application only.
    Host,
    /// Something that only groups have, asked of a direct chat.
    Group,
    /// A way into a group.
    Joining,
}

/// What a route takes and answers where all is right. Statuses: created now, or there already.
struct Rule {
    method: &'static str,
    path: &'static str,
    about: About,
    statuses: [u16; 2],
}

const RULES: &[Rule] = {
    use About::*;
    const fn rule(
        method: &'static str,
        path: &'static str,
        about: About,
        statuses: [u16; 2],
    ) -> Rule {
        Rule { method, path, about, statuses }
    }
    &[
        rule("get", "/chats/", Oneself, [200, 200]),
        rule("post", "/chats/", Oneself, [200, 201]),
        rule("get", "/chats/unread/", Oneself, [200, 200]),
        rule("get", "/chats/{chat}/", ChatOrHost, [200, 200]),
        rule("patch", "/chats/{chat}/", Group, [200, 200]),
        rule("delete", "/chats/{chat}/", ChatOrHost, [204, 204]),
        rule("patch", "/chats/{chat}/me/", Chat, [200, 200]),
        rule("get", "/chats/{chat}/members/", ChatOrHost, [200, 200]),
        rule("post", "/chats/{chat}/members/", Group, [200, 200]),
        rule("patch", "/chats/{chat}/members/{user_id}/", Group, [200, 200]),
        rule("delete", "/chats/{chat}/members/{user_id}/", Group, [204, 204]),
        rule("get", "/chats/{chat}/bans/", Group, [200, 200]),
        rule("put", "/chats/{chat}/bans/{user_id}/", Group, [200, 200]),
        rule("delete", "/chats/{chat}/bans/{user_id}/", Group, [204, 204]),
        rule("get", "/chats/{chat}/invites/", Group, [200, 200]),
        rule("post", "/chats/{chat}/invites/", Group, [201, 201]),
        rule("delete", "/chats/{chat}/invites/{invite_id}/", Group, [204, 204]),
        rule("post", "/chats/{chat}/join/", Joining, [200, 200]),
        rule("post", "/invites/{code}/", Joining, [200, 200]),
        rule("get", "/chats/{chat}/messages/{message_id}/readers/", Chat, [200, 200]),
        rule("get", "/chats/{chat}/changes/", Chat, [200, 200]),
        rule("get", "/sync/", Oneself, [200, 200]),
        rule("get", "/search/", Oneself, [200, 200]),
        rule("get", "/mentions/", Oneself, [200, 200]),
        rule("get", "/chats/{chat}/pins/", Chat, [200, 200]),
        rule("put", "/chats/{chat}/pins/{message_id}/", ChatOrHostUnlessBlocked, [204, 204]),
        rule("delete", "/chats/{chat}/pins/{message_id}/", ChatOrHost, [204, 204]),
        rule("get", "/chats/{chat}/messages/{message_id}/reactions/", Chat, [200, 200]),
        rule(
            "put",
            "/chats/{chat}/messages/{message_id}/reactions/{emoji}/",
            ChatUnlessBlocked,
            [200, 200],
        ),
        rule("delete", "/chats/{chat}/messages/{message_id}/reactions/{emoji}/", Chat, [200, 200]),
        rule("get", "/chats/{chat}/messages/", Chat, [200, 200]),
        rule("post", "/chats/{chat}/messages/", ChatUnlessBlocked, [201, 201]),
        rule("get", "/chats/{chat}/messages/{message_id}/", Chat, [200, 200]),
        rule("patch", "/chats/{chat}/messages/{message_id}/", ChatUnlessBlocked, [200, 200]),
        rule("delete", "/chats/{chat}/messages/{message_id}/", ChatOrHost, [204, 204]),
        rule("post", "/chats/{chat}/messages/{message_id}/report/", Chat, [200, 201]),
        rule("get", "/reports/", Host, [200, 200]),
        rule("delete", "/reports/{report_id}/", Host, [204, 204]),
        rule("get", "/reports/{report_id}/attachments/{attachment_id}/", Host, [200, 200]),
        rule("post", "/chats/{chat}/attachments/", ChatUnlessBlocked, [201, 201]),
        rule("get", "/chats/{chat}/attachments/{attachment_id}/", Chat, [200, 200]),
        rule("post", "/chats/{chat}/mark_read/", Chat, [200, 200]),
        rule("get", "/chats/{chat}/search/", Chat, [200, 200]),
        rule("get", "/chats/{chat}/connect/", Chat, [200, 200]),
        rule("post", "/connect/", Oneself, [200, 200]),
        rule("post", "/users/", Host, [200, 200]),
        rule("get", "/users/{user_id}/", Person, [200, 200]),
        rule("put", "/users/{user_id}/", Host, [200, 201]),
        rule("delete", "/users/{user_id}/", Host, [204, 204]),
        rule("post", "/users/{user_id}/revoke_tokens/", Host, [204, 204]),
        rule("get", "/users/{user_id}/export/", Host, [200, 200]),
        rule("put", "/users/{user_id}/block/", Oneself, [204, 204]),
        rule("delete", "/users/{user_id}/block/", Oneself, [204, 204]),
        rule("get", "/blocks/", Oneself, [200, 200]),
        rule("get", "/push/", Oneself, [200, 200]),
        rule("get", "/devices/", Oneself, [200, 200]),
        rule("put", "/devices/{device_id}/", Oneself, [200, 200]),
        rule("delete", "/devices/{device_id}/", Oneself, [204, 204]),
    ]
};

/// Two people, their chat, and a message of the first with an attachment.
struct Pair {
    one: User,
    other: User,
    chat: Chat,
    message_id: String,
    attachment_id: String,
    report_id: String,
}

impl Pair {
    async fn new(cluster: &Cluster, name: &str) -> Self {
        let (one, other) = (cluster.user(name), cluster.user(&format!("{name}'s friend")));
        let chat = one.on(0).open_chat(&other).await;
        let attachment_id = uploaded(cluster, &one, &chat).await;
        let body = json!({ "text": "hello", "attachments": [attachment_id] });
        let message = one.on(0).post(&chat.path("messages/"), body).await.expect(201);
        let message_id = message["message_id"].as_str().expect("an id").to_owned();
        let report = chat.path(&format!("messages/{message_id}/report/"));
        let report = other.on(0).post(&report, json!({})).await.expect(201);
        let report_id = report["report_id"].as_str().expect("an id").to_owned();
        Self { one, other, chat, message_id, attachment_id, report_id }
    }

    fn path(&self, pattern: &str) -> String {
        let user_id = self.other.id.replace('\'', "%27").replace(' ', "%20");
        let path = pattern
            .replace("{chat}", &self.chat.id)
            .replace("{message_id}", &self.message_id)
            .replace("{report_id}", &self.report_id)
            .replace("{attachment_id}", &self.attachment_id)
            .replace("{invite_id}", &self.message_id)
            .replace("{emoji}", ":x:")
            .replace("{code}", "AAAAAAAAAAAAAAAAAAAAAA")
            .replace("{device_id}", "phone")
            .replace("{user_id}", &user_id);
        if pattern.ends_with("search/") { format!("{path}?query=x") } else { path }
    }

    async fn ask(&self, rule: &Rule, caller: &Client) -> Answer {
        let path = format!("/api/v1{}", self.path(rule.path));
        let method = Method::from_bytes(rule.method.to_uppercase().as_bytes()).expect("a method");
        let body = match (rule.method, rule.path) {
            ("post", "/chats/") => Some(json!({ "user_id": self.other.id })),
            ("post", "/users/") => Some(json!({ "users": [{ "user_id": self.other.id }] })),
            ("post", "/chats/{chat}/members/") => Some(json!({ "user_ids": ["somebody"] })),
            ("patch", "/chats/{chat}/members/{user_id}/") => Some(json!({ "role": "admin" })),
            ("patch", "/chats/{chat}/") => Some(json!({ "title": "x" })),
            ("post", "/chats/{chat}/attachments/") => Some(announcement()),
            ("put", "/devices/{device_id}/") => Some(json!({ "platform": "apns", "token": "aa" })),
            ("post" | "patch" | "put", _) => Some(json!({ "text": "x", "name": "x" })),
            _ => None,
        };
        let request = caller.request(method, &path);
        match body {
            Some(body) => request.body("application/json", body.to_string()).await,
            None => request.await,
        }
    }
}

fn announcement() -> Value {
    json!({ "name": "x", "content_type": "text/plain", "size": 5 })
}

/// Returns tokens that are refused, and the code of the refusal.
fn bad_tokens(cluster: &Cluster, erased: &User) -> Vec<(Option<User>, &'static str)> {
    let alice = cluster.user("alice");
    let mut old = claims("alice");
    old["exp"] = json!(now() - 60);
    let stranger = EncodingKey::from_secret(b"another secret of more than thirty-two bytes");
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    let with = |token: String| Some(alice.with_token(token));
    vec![
        (None, "unauthenticated"),
        (with(sign(&old)), "token_expired"),
        (with(sign_with(Algorithm::HS256, &stranger, &claims("alice"))), "token_invalid"),
        (with(sign_with(Algorithm::HS512, &secret, &claims("alice"))), "token_invalid"),
        (Some(erased.clone()), "token_invalid"),
    ]
}

async fn erase(cluster: &Cluster, user: &User) {
    user.on(0).get("/chats/").await.expect(200);
    let path = format!("/users/{}/", user.id.replace(' ', "%20"));
    let answer = cluster.host().on(0).delete(&path).await;
    assert_eq!(answer.status, 204, "{}", answer.text);
}

#[track_caller]
fn expect_ok(answer: &Answer, rule: &Rule) {
    let text = &answer.text;
    assert!(rule.statuses.contains(&answer.status), "{}: {} {text}", answer.asked, answer.status);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_everybody_as_documented() {
    // Devices can be registered; nothing is pushed before the test is over.
    let cluster = Cluster::with(1, |config| {
        let push = &mut config.push;
        push.apns_key = Some(Secret::from(es256().pem));
        let setting = || Some("0123456789".to_owned());
        (push.apns_key_id, push.apns_team_id, push.apns_topic) = (setting(), setting(), setting());
        push.push_delay = Duration::from_secs(3_600);
    })
    .await;
    let document = cluster.anyone(0).request(Method::GET, "/openapi.json").await.expect(200);
    let mut served: Vec<(String, String)> = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        let methods = item.as_object().expect("methods").keys();
        let path = path.strip_prefix("/api/v1").expect("below /api/v1");
        let methods =
            methods.filter(|it| ["get", "put", "post", "patch", "delete"].contains(&it.as_str()));
        served.extend(methods.map(|method| (method.clone(), path.to_owned())));
    }
    for (method, path) in &served {
        let known = RULES.iter().any(|rule| rule.method == method && rule.path == path);
        assert!(known, "say in RULES who may {method} {path}");
    }
    assert_eq!(served.len(), RULES.len(), "RULES has routes that are gone");

    let (carol, host, erased) = (cluster.user("carol"), cluster.host(), cluster.user("erased"));
    erase(&cluster, &erased).await;
    for (number, rule) in RULES.iter().enumerate() {
        let pair = Pair::new(&cluster, &format!("p{number}")).await;
        for (bearer, code) in bad_tokens(&cluster, &erased) {
            let caller = bearer.map_or_else(|| cluster.anyone(0), |bearer| bearer.on(0));
            pair.ask(rule, &caller).await.expect_problem(401, code);
        }
        is_refused_to_strangers(&cluster, rule, &pair, &carol).await;
        is_refused_in_a_chat_that_is_gone(&cluster, rule, number).await;

        let blocked = Pair::new(&cluster, &format!("b{number}")).await;
        let block = blocked.path("/users/{user_id}/block/");
        assert_eq!(blocked.one.on(0).put(&block, json!({})).await.status, 204);
        for caller in [&blocked.one, &blocked.other] {
            // The other member neither sent the message nor opened the chat.
            if caller.id == blocked.other.id && matches!(rule.method, "patch" | "delete" | "put") {
                continue;
            }
            let answer = blocked.ask(rule, &caller.on(0)).await;
            match rule.about {
                About::ChatUnlessBlocked | About::ChatOrHostUnlessBlocked => {
                    drop(answer.expect_problem(403, "blocked"));
                }
                About::Host | About::Group => drop(answer.expect_problem(403, "forbidden")),
                About::Joining => drop(expect_no_way_in(answer)),
                // Oneself can't be blocked, and is no stranger.
                _ if answer.status == 422 && caller.id == blocked.other.id => {}
                _ => expect_ok(&answer, rule),
            }
        }

        let answer = pair.ask(rule, &pair.one.on(0)).await;
        match rule.about {
            About::Host | About::Group => drop(answer.expect_problem(403, "forbidden")),
            About::Joining => drop(expect_no_way_in(answer)),
            _ => expect_ok(&answer, rule),
        }
        let of_others = Pair::new(&cluster, &format!("h{number}")).await;
        let answer = of_others.ask(rule, &host.on(0)).await;
        match rule.about {
            About::Chat | About::ChatUnlessBlocked => {
                answer.expect_problem(404, "chat_not_found");
            }
            About::Group => drop(answer.expect_problem(403, "forbidden")),
            About::Joining => drop(expect_no_way_in(answer)),
            _ if (rule.method, rule.path) == ("post", "/chats/") => {
                assert_eq!(answer.status, 201, "{}", answer.text);
            }
            _ => expect_ok(&answer, rule),
        }
    }
}

/// A direct chat can't be joined, and nobody has invited.
#[track_caller]
fn expect_no_way_in(answer: Answer) -> Value {
    let code =
        if answer.asked.contains("/invites/") { "invite_not_found" } else { "chat_not_found" };
    answer.expect_problem(404, code)
}

/// A chat of others answers as one that does not exist: in status and body.
async fn is_refused_to_strangers(cluster: &Cluster, rule: &Rule, pair: &Pair, carol: &User) {
    let answer = pair.ask(rule, &carol.on(0)).await;
    match rule.about {
        About::Oneself => expect_ok(&answer, rule),
        About::Person => drop(answer.expect_problem(404, "user_not_found")),
        About::Host => drop(answer.expect_problem(403, "forbidden")),
        About::Joining => drop(expect_no_way_in(answer)),
        About::Chat
        | About::ChatUnlessBlocked
        | About::ChatOrHost
        | About::ChatOrHostUnlessBlocked
        | About::Group => {
            let nowhere = Pair {
                chat: Chat {
                    id: "01a20a32-f544-7269-a867-60a8e5b5a762".to_owned(),
                    room_name: "40Puh71q7C4LQ5AzjV3xbA".to_owned(),
                },
                one: pair.one.clone(),
                other: pair.other.clone(),
                message_id: pair.message_id.clone(),
                attachment_id: pair.attachment_id.clone(),
                report_id: pair.report_id.clone(),
            };
            let none = nowhere.ask(rule, &carol.on(0)).await;
            let without_id = |answer: Answer| {
                let mut problem = answer.expect_problem(404, "chat_not_found");
                problem["request_id"] = Value::Null;
                problem
            };
            assert_eq!(without_id(answer), without_id(none));
            let by_name = pair.path(rule.path).replace(&pair.chat.id, &pair.chat.room_name);
            let method = Method::from_bytes(rule.method.to_uppercase().as_bytes());
            let request = cluster.user("carol").on(0);
            let request = request.request(method.expect("a method"), &format!("/api/v1{by_name}"));
            let mut body = announcement();
            for (field, value) in [("text", "x"), ("title", "x"), ("role", "admin")] {
                body[field] = json!(value);
            }
            body["user_ids"] = json!(["x"]);
            let request = request.body("application/json", body.to_string());
            request.await.expect_problem(404, "chat_not_found");
        }
    }
}

async fn is_refused_in_a_chat_that_is_gone(cluster: &Cluster, rule: &Rule, number: usize) {
    if !rule.path.contains("{chat}") {
        return;
    }
    let former = Pair::new(cluster, &format!("f{number}")).await;
    let answer = former.one.on(0).delete(&former.chat.path("")).await;
    assert_eq!(answer.status, 204, "{}", answer.text);
    for caller in [former.one.on(0), former.other.on(0), cluster.host().on(0)] {
        former.ask(rule, &caller).await.expect_problem(404, "chat_not_found");
    }
}

/// What a client may send: all of the document's commands.
const COMMANDS: [&str; 7] =
    ["subscribe", "unsubscribe", "send", "mark_read", "typing", "auth", "ping"];

async fn open(cluster: &Cluster, path: &str, bearer: &User) -> Socket {
    let url = format!("ws://{}{path}", cluster.anyone(0).host());
    let authorization = format!("Bearer {}", bearer.token);
    let opened = Socket::open_with(&url, &[("authorization", &authorization)]).await;
    opened.expect("refusals come after the upgrade")
}

/// The code of what answers a command; `ok` where that is no error.
async fn outcome(socket: &mut Socket, command: Value) -> String {
    let quiet = ["typing", "ping"].contains(&command["type"].as_str().unwrap_or_default());
    if !quiet {
        let answer = socket.ask(command).await;
        return answer["code"].as_str().unwrap_or("ok").to_owned();
    }
    socket.send(command).await;
    let frames = socket.frames_so_far().await;
    let error = frames.iter().find(|frame| frame["type"] == "error");
    error.and_then(|frame| frame["code"].as_str()).unwrap_or("ok").to_owned()
}

fn command(kind: &str, chat: &Chat, token: &str) -> Value {
    let mut command = json!({ "type": kind, "id": 1, "chat_id": chat.id });
    match kind {
        "send" => command["text"] = json!("x"),
        "typing" => command["typing"] = json!(true),
        "auth" => command["token"] = json!(token),
        _ => {}
    }
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_answers_everybody_as_documented() {
    let cluster = Cluster::start(1).await;
    let document = cluster.anyone(0).request(Method::GET, "/asyncapi.json").await.expect(200);
    let taken = document["operations"]["fromManyClient"]["messages"].as_array().expect("messages");
    let name = |message: &Value| {
        let key = message["$ref"].as_str()?.rsplit('/').next()?;
        document["components"]["messages"][key]["name"].as_str().map(str::to_owned)
    };
    let mut served: Vec<String> = taken.iter().filter_map(name).collect();
    let mut known = COMMANDS.to_vec();
    served.sort_unstable();
    known.sort_unstable();
    assert_eq!(served, known, "say in COMMANDS what a new command answers");

    let (carol, erased) = (cluster.user("carol"), cluster.user("erased"));
    erase(&cluster, &erased).await;
    let pair = Pair::new(&cluster, "alice").await;
    let former = Pair::new(&cluster, "dave").await;
    former.one.on(0).delete(&former.chat.path("")).await.expect(204);

    // Who gets in.
    let single = format!("/ws/chat/{}/", pair.chat);
    for (bearer, code) in bad_tokens(&cluster, &erased) {
        let Some(bearer) = bearer else { continue };
        let close = if code == "token_expired" { 4101 } else { 4102 };
        for path in ["/ws/", &single] {
            let frames = open(&cluster, path, &bearer).await.expect_close(close).await;
            assert!(frames.is_empty(), "{frames:?}");
        }
        // Nor does such a token keep anybody in.
        let mut socket = open(&cluster, "/ws/", &pair.one).await;
        socket.expect("hello").await;
        let auth = command("auth", &pair.chat, &bearer.token);
        assert_eq!(outcome(&mut socket, auth).await, code);
    }
    open(&cluster, &single, &carol).await.expect_close(4004).await;
    let gone = format!("/ws/chat/{}/", former.chat);
    open(&cluster, &gone, &former.one).await.expect_close(4004).await;
    let mut nobody = Socket::open(&format!("ws://{}/ws/", carol.on(0).host())).await;
    nobody.send(command("subscribe", &pair.chat, "")).await;
    assert!(nobody.expect_close(4102).await.is_empty());

    // What they may say.
    let blocked = Pair::new(&cluster, "erin").await;
    let block = blocked.path("/users/{user_id}/block/");
    assert_eq!(blocked.one.on(0).put(&block, json!({})).await.status, 204);
    let hosts = cluster.host();
    let callers = [
        ("member", &pair.one, &pair.chat),
        ("stranger", &carol, &pair.chat),
        ("host", &hosts, &pair.chat),
        ("former", &former.one, &former.chat),
        ("blocked", &blocked.one, &blocked.chat),
        ("blocked", &blocked.other, &blocked.chat),
    ];
    for (who, user, chat) in callers {
        let mut socket = open(&cluster, "/ws/", user).await;
        socket.expect("hello").await;
        let inside = matches!(who, "member" | "blocked");
        // In this order: `typing` takes following, which `subscribe` begins.
        for kind in ["subscribe", "send", "mark_read", "typing", "ping", "unsubscribe"] {
            let expected = match kind {
                "send" if who == "blocked" => "blocked",
                "subscribe" | "send" | "mark_read" | "typing" if !inside => "chat_not_found",
                _ => "ok",
            };
            let got = outcome(&mut socket, command(kind, chat, "")).await;
            assert_eq!(got, expected, "{kind} by a {who}");
        }
        let others = command("auth", chat, &cluster.user("somebody else").token);
        assert_eq!(outcome(&mut socket, others).await, "forbidden", "{who}");
        let own = command("auth", chat, &user.token);
        assert_eq!(outcome(&mut socket, own).await, "ok", "{who}");
    }
}
