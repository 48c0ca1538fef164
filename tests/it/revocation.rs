//! Tokens taken back by the host application.

use serde_json::json;

use crate::harness::{Cluster, Socket, User, claims, eventually, now};

/// Returns a user whose token was issued so many seconds from now.
fn issued(cluster: &Cluster, id: &str, seconds: i64) -> User {
    let mut claims = claims(id);
    claims["iat"] = json!(now().saturating_add_signed(seconds));
    cluster.user_claiming(&claims)
}

async fn revoke(cluster: &Cluster, replica: usize, user: &User) {
    let path = format!("/users/{}/revoke_tokens/", user.id);
    let answer = cluster.host().on(replica).post(&path, json!({})).await;
    assert_eq!(answer.status, 204, "{}", answer.text);
}

/// The token is refused on a replica, at once or when the word has come.
async fn is_refused(user: &User, replica: usize) {
    eventually(async || match user.on(replica).get("/chats/").await {
        answer if answer.status == 401 => Ok(answer.expect_problem(401, "token_invalid")),
        answer => Err(answer.text),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_tokens_are_void_everywhere_and_their_sockets_closed() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (issued(&cluster, "alice", -60), issued(&cluster, "bob", -60));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut sockets = [
        alice.on(0).connect(&chat).await,
        alice.on(1).connect(&chat).await,
        alice.on(1).connect_many().await,
    ];
    let mut his = bob.on(1).connect(&chat).await;
    let ticket = alice.on(1).chat_url(&chat).await;
    // Without `iat` the token's age is unknown.
    let ageless = cluster.user("alice");
    ageless.on(1).get("/chats/").await.expect(200);

    revoke(&cluster, 0, &alice).await;
    for socket in &mut sockets {
        socket.expect_close(4102).await;
    }
    for replica in [0, 1] {
        is_refused(&alice, replica).await;
        is_refused(&ageless, replica).await;
    }
    // A ticket is not better than the token it was given for.
    Socket::open(&ticket).await.expect_close(4102).await;
    let bearer = format!("Bearer {}", alice.token);
    let url = format!("ws://{}/ws/", alice.on(0).host());
    let socket = Socket::open_with(&url, &[("authorization", &bearer)]).await;
    socket.expect("an upgrade").expect_close(4102).await;

    // A new token is accepted, and no other user was affected.
    let again = issued(&cluster, "alice", 2);
    again.on(1).connect(&chat).await;
    let sent = again.on(0).send(&chat, "a new token").await;
    is_refused(&alice, 0).await;
    loop {
        let frame = his.next_frame().await;
        if frame["type"] == "message.created" {
            assert_eq!(frame["message"], sent);
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_was_given_a_newer_token_stays() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (issued(&cluster, "alice", -60), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let (mut old, mut renewed) =
        (alice.on(0).connect(&chat).await, alice.on(0).connect(&chat).await);
    let newer = issued(&cluster, "alice", 60).token;
    let ack = renewed.ask(json!({ "type": "auth", "id": 1, "token": newer })).await;
    assert_eq!(ack["type"], "ack");
    revoke(&cluster, 0, &alice).await;
    old.expect_close(4102).await;
    renewed.frames_so_far().await;
    let error = renewed.ask(json!({ "type": "auth", "id": 2, "token": alice.token })).await;
    assert_eq!(error["code"], "token_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_was_not_heard_of_is_found() {
    let cluster = Cluster::with_own_stack(2, |_| {}).await;
    let (alice, bob) = (issued(&cluster, "alice", -60), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut socket = alice.on(1).connect(&chat).await;
    cluster.stack().redis.kill();
    revoke(&cluster, 0, &alice).await;
    socket.expect_close(4102).await;
    is_refused(&alice, 1).await;
    cluster.stack().redis.restart().await.expect("Redis comes back");
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_is_the_host_applications_and_needs_no_acquaintance() {
    let cluster = Cluster::start(1).await;
    let alice = issued(&cluster, "alice", -60);
    for id in ["alice", "bob"] {
        let answer = alice.on(0).post(&format!("/users/{id}/revoke_tokens/"), json!({})).await;
        answer.expect_problem(403, "forbidden");
    }
    // A user who has a token, but has never used it.
    let carol = issued(&cluster, "carol", -60);
    revoke(&cluster, 0, &carol).await;
    carol.on(0).get("/chats/").await.expect_problem(401, "token_invalid");
    // Again: later. The erased stay erased.
    revoke(&cluster, 0, &carol).await;
    cluster.host().on(0).delete("/users/carol/").await.expect(204);
    revoke(&cluster, 0, &carol).await;
    let later = issued(&cluster, "carol", 60);
    later.on(0).get("/chats/").await.expect_problem(401, "token_invalid");
    cluster.host().on(0).put("/users/carol/", json!({})).await.expect(201);
    later.on(0).get("/chats/").await.expect(200);
    carol.on(0).get("/chats/").await.expect_problem(401, "token_invalid");
}
