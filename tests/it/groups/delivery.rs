//! Groups on sockets: changes of members, receipts, and who hears what.

use serde_json::{Value, json};

use super::{add, create, crowd};
use crate::harness::{Chat, Cluster, Socket, assert_members, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_a_small_group_reaches_its_members_in_order() {
    let cluster = Cluster::start(2).await;
    let user = |id: &str, replica: usize| cluster.user(id).on(replica);
    let chat = create(&user("owner", 0), "Told", &["bob"]).await;
    let mut socket = user("bob", 1).connect(&chat).await;
    add(&user("owner", 0), &chat, &["carol", "dave"]).await;
    let joined = socket.expect("member.joined").await;
    assert_members(&joined, &["type", "chat_id", "ev", "members", "by"]);
    assert_eq!(joined["members"].as_array().map(Vec::len), Some(2), "one change for all");
    assert_eq!(joined["by"], "owner");
    let mut ev = joined["ev"].as_i64().expect("a number");
    let mut next = async |socket: &mut Socket, kind: &str| {
        let frame = socket.expect(kind).await;
        ev += 1;
        assert_eq!(frame["ev"], ev, "{frame}");
        frame
    };
    assert_eq!(next(&mut socket, "message.created").await["message"]["type"], "system");
    user("owner", 1)
        .patch(&chat.path("members/carol/"), json!({ "role": "admin" }))
        .await
        .expect(200);
    let updated = next(&mut socket, "member.updated").await;
    assert_eq!((&updated["member"]["role"], &updated["by"]), (&json!("admin"), &json!("owner")));
    user("owner", 0).patch(&chat.path(""), json!({ "title": "Renamed" })).await.expect(200);
    let changed = next(&mut socket, "chat.changed").await;
    assert_members(
        &changed,
        &[
            "type",
            "chat_id",
            "ev",
            "title",
            "avatar_url",
            "metadata",
            "settings",
            "member_count",
            "receipts",
        ],
    );
    assert_eq!((&changed["title"], &changed["member_count"]), (&json!("Renamed"), &json!(4)));
    next(&mut socket, "message.created").await;
    user("carol", 1).mark_read(&chat).await;
    assert_eq!(next(&mut socket, "chat.read").await["user_id"], "carol");
    user("carol", 0).delete(&chat.path("members/dave/")).await.expect(204);
    let left = next(&mut socket, "member.left").await;
    assert_eq!(
        (&left["user_id"], &left["by"], &left["reason"]),
        (&json!("dave"), &json!("carol"), &json!("removed"))
    );
    // A resume gives all of it as state.
    let epoch =
        user("bob", 0).history(&chat, "").await["epoch"].as_str().expect("an epoch").to_owned();
    let mut resumed = user("bob", 0).resume(&chat, 0, &epoch).await;
    resumed.expect("hello").await;
    let subscribed = resumed.expect("subscribed").await;
    let receipts = subscribed["receipts"].as_array().expect("receipts");
    assert!(receipts.iter().any(|one| one["user_id"] == "carol"), "{subscribed}");
    let frames = resumed.frames_until("synced").await;
    let of_dave: Vec<&Value> = frames
        .iter()
        .filter(|frame| frame["type"] != "message.created" && frame.to_string().contains("dave"))
        .collect();
    assert_eq!(of_dave.len(), 1, "who came and went has left: {of_dave:?}");
    assert_eq!(of_dave[0]["type"], "member.left");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_removed_hears_nothing_more_on_any_socket() {
    for reason in ["left", "removed", "banned"] {
        let cluster = Cluster::start(2).await;
        let user = |id: &str, replica: usize| cluster.user(id).on(replica);
        let chat = create(&user("owner", 0), "Out", &["bob", "carol"]).await;
        let mut own = user("bob", 1).connect(&chat).await;
        let mut many = user("bob", 0).connect_many().await;
        many.ask(json!({ "type": "subscribe", "id": "s", "chat_id": chat.id })).await;
        many.wait_for("synced").await;
        user("carol", 0).send(&chat, "heard").await;
        assert_eq!(own.expect_message().await["text"], "heard");
        many.wait_for("message.created").await;
        match reason {
            "left" => drop(user("bob", 0).delete(&chat.path("members/bob/")).await.expect(204)),
            "removed" => {
                drop(user("owner", 0).delete(&chat.path("members/bob/")).await.expect(204))
            }
            _ => drop(user("owner", 0).put(&chat.path("bans/bob/"), json!({})).await.expect(200)),
        }
        user("carol", 1).send(&chat, "unheard").await;
        let frames = own.expect_close(4004).await;
        let gone = frames.iter().find(|frame| frame["type"] == "chat.deleted").expect("told");
        assert_eq!(gone["reason"], reason);
        assert!(!json!(frames).to_string().contains("unheard"), "{frames:?}");
        let told = many.frames_until("chat.deleted").await;
        assert_eq!(told.last().map(|frame| &frame["reason"]), Some(&json!(reason)));
        user("carol", 0).send(&chat, "unheard too").await;
        let after = many.frames_so_far().await;
        assert!(!json!((&told, &after)).to_string().contains("unheard"), "{told:?} {after:?}");
    }
}

/// The inbox pauses after a frame of a chat: it reads the chat when its user is a member again.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_removed_and_added_at_once_is_told_that_the_subscription_has_ended() {
    let cluster = Cluster::start(2).await;
    let user = |id: &str, replica: usize| cluster.user(id).on(replica);
    let chat = create(&user("owner", 0), "Back", &["bob"]).await;
    let mut many = user("bob", 1).connect_many().await;
    many.ask(json!({ "type": "subscribe", "id": "s", "chat_id": chat.id })).await;
    many.wait_for("synced").await;
    for _ in 0..5 {
        user("owner", 0).send(&chat, "begins a pause").await;
        many.wait_for("chat.updated").await;
        user("owner", 0).delete(&chat.path("members/bob/")).await.expect(204);
        eventually(async || match cluster.followed(1).1 {
            0 => Ok(()),
            left => Err(format!("{left} subscriptions are left")),
        })
        .await;
        add(&user("owner", 0), &chat, &["bob"]).await;
        assert_eq!(many.wait_for("chat.deleted").await["reason"], "removed");
        many.wait_for("chat.created").await;
        many.ask(json!({ "type": "subscribe", "id": "s", "chat_id": chat.id })).await;
        many.wait_for("synced").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_large_group_members_changes_are_the_admins() {
    let cluster = Cluster::start(2).await;
    let user = |id: &str, replica: usize| cluster.user(id).on(replica);
    let many = crowd(40);
    let names: Vec<&str> = many.iter().map(String::as_str).collect();
    let chat = create(&user("owner", 0), "Large", &names).await;
    let mut owners = user("owner", 0).connect(&chat).await;
    let mut plain = user(names[0], 1).connect(&chat).await;
    add(&user("owner", 1), &chat, &["one more"]).await;
    let joined = owners.expect("member.joined").await;
    user(names[1], 0).send(&chat, "hello").await;
    owners.wait_for("message.created").await;
    let frames = plain.frames_until("message.created").await;
    let kinds: Vec<&str> = frames.iter().filter_map(|frame| frame["type"].as_str()).collect();
    assert!(!kinds.contains(&"member.joined"), "{kinds:?}");
    let skipped = frames.iter().find(|frame| frame["type"] == "skipped").expect("skipped");
    assert_eq!(skipped["ev"], joined["ev"]);
    // Promoted, the member is told from then on.
    let path = chat.path(&format!("members/{}/", names[0].replace(' ', "%20")));
    user("owner", 0).patch(&path, json!({ "role": "admin" })).await.expect(200);
    plain.wait_for("member.updated").await;
    user("owner", 0).delete(&chat.path("members/one%20more/")).await.expect(204);
    plain.wait_for("member.left").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_mark_is_told_to_the_readers_own_sockets_only() {
    let cluster = Cluster::start(2).await;
    let user = |id: &str, replica: usize| cluster.user(id).on(replica);
    let many = crowd(40);
    let names: Vec<&str> = many.iter().map(String::as_str).collect();
    let chat = create(&user("owner", 0), "Large", &names).await;
    let mut hers = user(names[0], 1).connect(&chat).await;
    let mut inbox = user(names[0], 0).connect_many().await;
    let mut others = user(names[1], 1).connect(&chat).await;
    user("owner", 0).send(&chat, "read me").await;
    hers.expect("message.created").await;
    others.expect("message.created").await;
    let unread = inbox.expect("chat.updated").await;
    assert_eq!((&unread["chat"]["unread_count"], &unread["total_unread"]), (&json!(1), &json!(1)));
    user(names[0], 1).mark_read(&chat).await;
    let read = hers.expect("chat.read").await;
    assert_eq!(
        (&read["ev"], &read["user_id"], &read["read_seq"]),
        (&json!(null), &json!(names[0]), &json!(1))
    );
    let updated = inbox.expect("chat.updated").await;
    assert_eq!(
        (&updated["chat"]["unread_count"], &updated["total_unread"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(others.frames_so_far().await, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_hears_of_groups_as_one_comes_and_goes() {
    let cluster = Cluster::start(2).await;
    let user = |id: &str, replica: usize| cluster.user(id).on(replica);
    let mut inbox = user("bob", 1).connect_many().await;
    let chat = create(&user("owner", 0), "Inbox", &["bob"]).await;
    let created = inbox.expect("chat.created").await;
    assert_eq!(
        (&created["chat"]["chat_id"], &created["chat"]["role"]),
        (&json!(chat.id), &json!("member"))
    );
    user("owner", 0).send(&chat, "one").await;
    let updated = inbox.expect("chat.updated").await;
    assert_eq!(
        (&updated["chat"]["unread_count"], &updated["total_unread"]),
        (&json!(1), &json!(1))
    );
    user("bob", 0).patch(&chat.path("me/"), json!({ "pinned": true })).await.expect(200);
    assert_eq!(inbox.expect("chat.updated").await["chat"]["pinned"], true);
    user("owner", 0).delete(&chat.path("members/bob/")).await.expect(204);
    let gone = inbox.expect("chat.deleted").await;
    assert_eq!((&gone["reason"], &gone["total_unread"]), (&json!("removed"), &json!(0)));
    add(&user("owner", 1), &chat, &["bob"]).await;
    inbox.wait_for("chat.created").await;
    user("owner", 0).delete(&chat.path("")).await.expect(204);
    assert_eq!(inbox.wait_for("chat.deleted").await["reason"], "deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_is_told_in_small_groups_only() {
    let cluster = Cluster::start(2).await;
    let user = |id: &str, replica: usize| cluster.user(id).on(replica);
    let small = create(&user("owner", 0), "Small", &["bob"]).await;
    let many = crowd(40);
    let names: Vec<&str> = many.iter().map(String::as_str).collect();
    let large = create(&user("owner", 0), "Large", &names).await;
    let greet = async |chat: &Chat, id: &str| {
        let url = user(id, 0).chat_url(chat).await;
        let mut socket = Socket::open(&url).await;
        socket.expect("hello").await;
        (socket.expect("subscribed").await, socket)
    };
    let (_, _hers) = greet(&small, "owner").await;
    let (told, _his) = greet(&small, "bob").await;
    let online = told["online"].as_array().expect("a list");
    assert!(online.contains(&json!("owner")) && online.contains(&json!("bob")), "{told}");
    let (told, _) = greet(&large, names[0]).await;
    assert_eq!((&told["online"], &told["receipts"]), (&json!([]), &json!([])));
}
