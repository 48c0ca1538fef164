//! What the server says, member by member, live on another replica.

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{assert_members, ev};
use crate::harness::{Chat, Cluster, MESSAGE, Socket, User, claims, told};

/// A time as documented: RFC 3339 in UTC.
#[track_caller]
fn time(value: &Value) -> Timestamp {
    let raw = value.as_str().unwrap_or_else(|| panic!("{value} is no time"));
    assert!(raw.ends_with('Z'), "{raw}");
    raw.parse().unwrap_or_else(|error| panic!("{raw}: {error}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_begins_with_hello_subscribed_and_synced() {
    let cluster = Cluster::start(2).await;
    let alice = cluster.user("alice");
    let claims = claims("bob");
    let bob = cluster.user_claiming(&claims);
    let chat = alice.on(0).open_chat(&bob).await;
    for text in ["one", "two", "three"] {
        alice.on(0).send(&chat, text).await;
    }
    let marked = bob.on(0).post(&chat.path("mark_read/"), json!({ "up_to_seq": 2 })).await;
    marked.expect(200);

    let grant = bob.on(1).get(&chat.path("connect/")).await.expect(200);
    let mut socket = Socket::open(grant["ws_url"].as_str().expect("a URL")).await;
    let hello = socket.next_frame().await;
    assert_members(
        &hello,
        &["type", "connection_id", "user_id", "heartbeat_ms", "token_expires_at", "epoch"],
    );
    assert_eq!(hello["type"], "hello");
    assert!(Uuid::parse_str(hello["connection_id"].as_str().expect("an id")).is_ok());
    assert_eq!(hello["user_id"], "bob");
    assert_eq!(hello["heartbeat_ms"], 25_000);
    assert_eq!(time(&hello["token_expires_at"]).as_second(), claims["exp"]);

    let subscribed = socket.next_frame().await;
    assert_members(
        &subscribed,
        &[
            "type",
            "chat_id",
            "head_ev",
            "head_seq",
            "epoch",
            "read_seq",
            "peer_read_seq",
            "receipts",
            "online",
            "online_count",
        ],
    );
    assert_eq!(subscribed["type"], "subscribed");
    assert_eq!(subscribed["chat_id"], *chat.id);
    assert_eq!(subscribed["head_ev"], 4);
    assert_eq!(subscribed["head_seq"], 3);
    assert_eq!((&subscribed["read_seq"], &subscribed["peer_read_seq"]), (&json!(2), &json!(0)));
    assert_eq!((&subscribed["online"], &subscribed["online_count"]), (&json!(["bob"]), &json!(1)));

    let synced = socket.next_frame().await;
    assert_eq!(synced, json!({ "type": "synced", "chat_id": chat.id, "ev": 4 }));
    let page = bob.on(0).history(&chat, "").await;
    for said in [&hello, &subscribed, &grant, &page] {
        assert_eq!(said["epoch"], page["epoch"]);
    }
    assert_eq!((&grant["head_ev"], &grant["head_seq"]), (&page["head_ev"], &page["head_seq"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_many_chats_socket_begins_with_hello_alone() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    alice.on(0).send(&chat, "before").await;
    let grant = bob.on(0).post("/connect/", json!({})).await.expect(200);
    assert_members(
        &grant,
        &["ws_url", "ticket", "expires_in", "protocol", "heartbeat_ms", "epoch"],
    );
    let mut socket = Socket::open(grant["ws_url"].as_str().expect("a URL")).await;
    let hello = socket.next_frame().await;
    assert_eq!((&hello["type"], &hello["epoch"]), (&json!("hello"), &grant["epoch"]));
    assert_eq!(socket.frames_so_far().await, [0_i64; 0], "what was before is read by REST");
}

/// A chat with three sockets: both people's on the other replica, and a second one of Alice's here.
struct Live {
    alice: User,
    bob: User,
    chat: Chat,
    sockets: Vec<Socket>,
    /// The last to be dropped, when no socket is left.
    _cluster: Cluster,
}

impl Live {
    async fn start() -> Self {
        let cluster = Cluster::start(2).await;
        let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
        let chat = alice.on(0).open_chat(&bob).await;
        let sockets = vec![
            alice.on(0).connect(&chat).await,
            alice.on(1).connect(&chat).await,
            bob.on(1).connect(&chat).await,
        ];
        Self { alice, bob, chat, sockets, _cluster: cluster }
    }

    /// The next frame of every socket, which must be one and the same.
    async fn expect(&mut self, kind: &str) -> Value {
        let mut frames = Vec::new();
        for socket in &mut self.sockets {
            frames.push(socket.expect(kind).await);
        }
        assert!(frames.iter().all(|frame| *frame == frames[0]), "{frames:?}");
        frames.swap_remove(0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_message_reaches_everyone_with_all_its_members() {
    let mut live = Live::start().await;
    let body = json!({ "text": "héllo\u{2028}", "metadata": { "b": 1, "a": [2.50] }, "client_msg_id": "k" });
    let sent = told(live.alice.on(0).post(&live.chat.path("messages/"), body).await.expect(201));
    let frame = live.expect("message.created").await;
    assert_members(&frame, &["type", "chat_id", "ev", "message"]);
    assert_members(&frame["message"], &MESSAGE);
    assert_eq!(frame["message"], sent);
    assert_eq!((&frame["chat_id"], ev(&frame)), (&json!(live.chat.id), 1));
    assert_eq!(frame["message"]["ev"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_deletions_and_marks_reach_everyone_in_order() {
    let mut live = Live::start().await;
    let (chat, alice, bob) = (live.chat.clone(), live.alice.clone(), live.bob.clone());
    let sent = alice.on(0).send(&chat, "first").await;
    live.expect("message.created").await;
    let path = chat.path(&format!("messages/{}/", sent["message_id"].as_str().expect("an id")));

    let edited = told(alice.on(1).patch(&path, json!({ "text": "second" })).await.expect(200));
    let frame = live.expect("message.updated").await;
    assert_members(&frame, &["type", "chat_id", "ev", "changed", "message"]);
    assert_eq!(frame["changed"], json!(["text"]));
    assert_eq!((&frame["message"], ev(&frame)), (&edited, 2));
    assert_eq!(frame["message"]["text"], "second");
    time(&frame["message"]["edited_at"]);

    bob.on(0).mark_read(&chat).await;
    let frame = live.expect("chat.read").await;
    let expected = json!({ "type": "chat.read", "chat_id": chat.id, "ev": 3, "user_id": "bob", "read_seq": 1 });
    assert_eq!(frame, expected);
    // A mark that moves nothing makes no ev.
    bob.on(1).mark_read(&chat).await;

    alice.on(0).delete(&path).await.expect(204);
    let frame = live.expect("message.deleted").await;
    assert_members(&frame, &["type", "chat_id", "ev", "message_id", "seq", "deleted_at"]);
    assert_eq!((&frame["message_id"], &frame["seq"]), (&sent["message_id"], &json!(1)));
    assert_eq!(ev(&frame), 4);
    time(&frame["deleted_at"]);
    // Nor does a second deletion.
    alice.on(1).delete(&path).await.expect(204);
    let last = bob.on(0).send(&chat, "last").await;
    assert_eq!(last["ev"], 5);
    assert_eq!(live.expect("message.created").await["message"], last);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_hears_of_a_chat_that_is_not_theirs() {
    let cluster = Cluster::start(2).await;
    let (alice, bob, carol) = (cluster.user("alice"), cluster.user("bob"), cluster.user("carol"));
    let theirs = alice.on(0).open_chat(&bob).await;
    let hers = alice.on(0).open_chat(&carol).await;
    let mut single = carol.on(1).connect(&hers).await;
    let mut many = carol.on(1).connect_many().await;
    let asked = json!({ "type": "subscribe", "id": 1, "chat_id": theirs.id });
    let refused = many.ask(asked).await;
    assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!("chat_not_found")));
    // Another user's socket on this replica follows the chat, so that its publications come here.
    let mut witness = bob.on(1).connect(&theirs).await;
    let secret = alice.on(0).send(&theirs, "between us").await;
    alice.on(0).mark_read(&theirs).await;
    assert_eq!(witness.expect_message().await, secret);
    let sent = alice.on(0).send(&hers, "for carol").await;
    assert_eq!(single.expect_message().await, sent);
    assert_eq!(many.expect("chat.updated").await["chat"]["chat_id"], *hers.id);
}
