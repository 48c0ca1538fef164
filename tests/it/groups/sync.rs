//! Clients that keep a store: all changes of a chat, however long they were away, and the chats that changed.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{add, create, create_with};
use crate::harness::{Chat, Client, Cluster, Psql, assert_members, eventually, fill};

/// All changes after a position, read in pages of `limit`.
async fn changes(client: &Client, chat: &Chat, after_ev: i64, limit: i64) -> Vec<Value> {
    let (mut all, mut after_ev) = (Vec::new(), after_ev);
    loop {
        let path = chat.path(&format!("changes/?after_ev={after_ev}&limit={limit}"));
        let page = client.get(&path).await.expect(200);
        assert_members(&page, &["results", "has_more", "head_ev", "epoch"]);
        let frames = page["results"].as_array().expect("frames").clone();
        let Some(last) = frames.last() else {
            assert_eq!(page["has_more"], false, "a page that leads on has something");
            return all;
        };
        let last = last["ev"].as_i64().expect("a position");
        assert!(last > after_ev, "{page}");
        all.extend(frames);
        after_ev = last;
        if page["has_more"] == false {
            assert_eq!(page["head_ev"], last, "the last page leads to the head");
            return all;
        }
    }
}

/// Takes away what depends on the moment.
fn strip(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.remove("online");
            members.remove("last_seen_at");
            members.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

/// Frames as they should be, however they are read. Who joined on an earlier page and was changed since is told
/// of as changed only.
fn lasting(mut frames: Vec<Value>) -> Vec<Value> {
    for frame in &mut frames {
        strip(frame);
        if frame["type"] == "member.updated" {
            frame["type"] = json!("member.joined");
            frame["members"] = json!([frame["member"].take()]);
        }
        frame.as_object_mut().map(|members| members.remove("member"));
    }
    frames
}

/// The path of a message of a chat.
fn message(chat: &Chat, sent: &Value) -> String {
    chat.path(&format!("messages/{}/", sent["message_id"].as_str().expect("an id")))
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_changes_are_what_a_resume_gives() {
    let cluster = Cluster::start(2).await;
    let user = |id: &str, replica: usize| cluster.user(id).on(replica);
    let (owner, bob) = (user("owner", 0), user("bob", 1));
    let chat = create(&owner, "Read on", &["bob", "carol"]).await;
    for n in 0..4 {
        owner.send(&chat, &format!("message {n}")).await;
    }
    let (edited, deleted) = (owner.send(&chat, "first").await, owner.send(&chat, "bad").await);
    owner.patch(&message(&chat, &edited), json!({ "text": "better" })).await.expect(200);
    owner.delete(&message(&chat, &deleted)).await.expect(204);
    user("carol", 0).mark_read(&chat).await;
    add(&owner, &chat, &["dave", "eve"]).await;
    owner.patch(&chat.path("members/dave/"), json!({ "role": "admin" })).await.expect(200);
    owner.delete(&chat.path("members/carol/")).await.expect(204);
    owner.patch(&chat.path(""), json!({ "title": "Renamed" })).await.expect(200);
    let epoch = bob.history(&chat, "").await["epoch"].as_str().expect("an epoch").to_owned();
    for after_ev in [0, 5] {
        let mut socket = bob.resume(&chat, after_ev, &epoch).await;
        let mut resumed = socket.frames_until("synced").await;
        resumed.retain(|frame| {
            frame["ev"].is_i64()
                && !["subscribed", "synced"].contains(&frame["type"].as_str().unwrap_or(""))
        });
        let resumed = lasting(resumed);
        assert!(resumed.len() > 5, "{resumed:?}");
        for (replica, limit) in [(0, 1), (1, 2), (0, 500)] {
            let read = changes(&user("bob", replica), &chat, after_ev, limit).await;
            assert_eq!(lasting(read), resumed, "after {after_ev} by {limit}");
        }
        socket.close().await;
    }
    let kinds: Vec<_> = changes(&bob, &chat, 0, 500).await;
    for kind in
        ["message.created", "message.updated", "message.deleted", "member.left", "chat.changed"]
    {
        assert!(kinds.iter().any(|frame| frame["type"] == kind), "{kind}: {kinds:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_of_any_age_is_read_on_where_a_socket_is_reset() {
    const MISSED: i64 = 10_500;
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    alice.on(0).send(&chat, "the first").await;
    cluster.psql(&fill::messages(&chat.id, "alice", MISSED, "'missed ' || n")).await;
    cluster.redis_flush().await;
    let epoch = bob.on(0).history(&chat, "").await["epoch"].as_str().expect("an epoch").to_owned();
    let mut socket = bob.on(0).resume(&chat, 1, &epoch).await;
    assert_eq!(socket.wait_for("reset").await["reason"], "too_far");
    socket.close().await;
    let read = changes(&bob.on(1), &chat, 1, 1_000).await;
    let seqs: Vec<i64> =
        read.iter().map(|f| f["message"]["seq"].as_i64().expect("a seq")).collect();
    assert_eq!(seqs, (2..=MISSED + 1).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_see_a_change_is_led_past_it() {
    let cluster = Cluster::start(2).await;
    let (owner, bob) = (cluster.user("owner").on(0), cluster.user("bob").on(1));
    let chat = create_with(&owner, "Discreet", &[], json!({ "history": "joined" })).await;
    let mut secrets = Vec::new();
    for n in 0..5 {
        secrets.push(owner.send(&chat, &format!("secret {n}")).await);
    }
    add(&owner, &chat, &["bob"]).await;
    owner.send(&chat, "public").await;
    for limit in [1, 2, 500] {
        let read = changes(&bob, &chat, 0, limit).await;
        assert!(!json!(read).to_string().contains("secret"), "{read:?}");
        assert!(json!(read).to_string().contains("public"), "{read:?}");
    }
    let before = owner.chat(&chat).await["last_ev"].as_i64().expect("a position");
    for secret in &secrets {
        owner.patch(&message(&chat, secret), json!({ "text": "a secret still" })).await.expect(200);
    }
    let head = before + 5;
    let read = changes(&bob, &chat, before, 500).await;
    assert_eq!(read, [json!({ "type": "skipped", "chat_id": chat.id, "ev": head })]);
    let page =
        bob.get(&chat.path(&format!("changes/?after_ev={before}&limit=2"))).await.expect(200);
    assert_eq!(
        page["results"],
        json!([{ "type": "skipped", "chat_id": chat.id, "ev": before + 2 }])
    );
    assert_eq!(page["has_more"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_at_or_past_the_head_is_an_empty_page() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice").on(0), cluster.user("bob"));
    let chat = alice.open_chat(&bob).await;
    let sent = alice.send(&chat, "all").await;
    for after_ev in ["1", "2", "9223372036854775807"] {
        let page =
            alice.get(&chat.path(&format!("changes/?after_ev={after_ev}"))).await.expect(200);
        let epoch = page["epoch"].as_str().expect("an epoch");
        let none = json!({ "results": [], "has_more": false, "head_ev": 1, "epoch": epoch });
        assert_eq!(page, none, "{after_ev}");
    }
    let all = alice.get(&chat.path("changes/")).await.expect(200);
    assert_eq!(all["results"][0]["message"], sent, "from the beginning where no position is given");
    for query in ["after_ev=-1", "after_ev=x", "limit=0", "limit=1001"] {
        let answer = alice.get(&chat.path(&format!("changes/?{query}"))).await;
        answer.expect_problem(422, "validation_failed");
    }
}

async fn page(client: &Client, query: &str) -> Value {
    let page = client.get(&format!("/sync/?{query}")).await.expect(200);
    assert_members(&page, &["results", "gone", "next", "has_more", "reset"]);
    page
}

fn cursor(page: &Value) -> String {
    format!("cursor={}", page["next"].as_str().expect("never null"))
}

/// The ids of the chats that changed, ascending.
fn changed(page: &Value) -> Vec<String> {
    let chats = page["results"].as_array().expect("chats").iter();
    let mut ids: Vec<_> =
        chats.map(|chat| chat["chat_id"].as_str().expect("an id").to_owned()).collect();
    ids.sort();
    ids
}

fn gone(page: &Value) -> Vec<String> {
    let mut ids: Vec<String> = serde_json::from_value(page["gone"].clone()).expect("ids");
    ids.sort();
    ids
}

fn ids(chats: &[&Chat]) -> Vec<String> {
    let mut ids: Vec<_> = chats.iter().map(|chat| chat.id.clone()).collect();
    ids.sort();
    ids
}

/// Syncs until nothing has changed any more, and returns the cursor of that. What other tests write in the
/// same server at the same time may have a chat come again.
async fn settled(client: &Client, query: &str) -> String {
    let mut query = query.to_owned();
    eventually(async || {
        let page = page(client, &query).await;
        query = cursor(&page);
        match page["results"] == json!([])
            && page["gone"] == json!([])
            && !page["reset"].as_bool().unwrap_or(true)
        {
            true => Ok(query.clone()),
            false => Err(page.to_string()),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_is_told_of_each_chat_that_changed_in_whatever_way() {
    let cluster = Cluster::start(2).await;
    let user = |id: &str, replica: usize| cluster.user(id).on(replica);
    let alice = user("alice", 0);
    let direct = alice.open_chat(&cluster.user("bob")).await;
    let quiet = alice.open_chat(&cluster.user("carol")).await;
    let group = create(&user("owner", 1), "Synced", &["alice", "bob"]).await;
    // So many that it has no receipts.
    let crowd = super::crowd(40);
    let many: Vec<&str> = crowd.iter().map(String::as_str).chain(["alice"]).collect();
    let large = create(&user("owner", 1), "Large", &many).await;
    user("owner", 0).send(&large, "to be read").await;

    let first = page(&alice, "").await;
    assert_eq!(changed(&first), ids(&[&direct, &quiet, &group, &large]));
    assert_eq!(
        (&first["reset"], &first["has_more"], &first["gone"]),
        (&json!(true), &json!(false), &json!([]))
    );
    let shown = first["results"].as_array().expect("chats").iter();
    for chat in shown {
        let id = chat["chat_id"].as_str().expect("an id");
        assert_eq!(*chat, alice.get(&format!("/chats/{id}/")).await.expect(200));
    }
    let mut at = settled(&alice, &cursor(&first)).await;

    let sent = user("bob", 1).send(&direct, "hello").await;
    let told = page(&user("alice", 1), &at).await;
    assert_eq!(changed(&told), ids(&[&direct]));
    assert_eq!(told["results"][0]["last_message"], sent);
    assert_eq!(told["results"][0]["unread_count"], 1);
    at = settled(&alice, &cursor(&told)).await;

    // Each way in which a chat may change for her, and only it is told.
    let edit = json!({ "text": "hello!" });
    user("bob", 0).patch(&message(&direct, &sent), edit).await.expect(200);
    assert_eq!(changed(&page(&alice, &at).await), ids(&[&direct]), "an edit");
    at = settled(&alice, &at).await;
    user("owner", 0).patch(&group.path(""), json!({ "title": "New" })).await.expect(200);
    assert_eq!(changed(&page(&alice, &at).await), ids(&[&group]), "a title");
    at = settled(&alice, &at).await;
    user("alice", 1).patch(&quiet.path("me/"), json!({ "pinned": true })).await.expect(200);
    let told = page(&alice, &at).await;
    assert_eq!((changed(&told), &told["results"][0]["pinned"]), (ids(&[&quiet]), &json!(true)));
    at = settled(&alice, &at).await;
    assert_eq!(alice.chat(&large).await["receipts"], false);
    user("alice", 1).mark_read(&large).await;
    let told = page(&alice, &at).await;
    assert_eq!(
        (changed(&told), &told["results"][0]["unread_count"]),
        (ids(&[&large]), &json!(0)),
        "a silent mark"
    );
    at = settled(&alice, &at).await;
    let new = create(&user("owner", 1), "New", &["alice"]).await;
    assert_eq!(changed(&page(&alice, &at).await), ids(&[&new]), "a new chat");
    at = settled(&alice, &at).await;

    // Others are not told of what is hers alone.
    let bob = user("bob", 0);
    let his = settled(&bob, "").await;
    alice.patch(&direct.path("me/"), json!({ "notify": "none" })).await.expect(200);
    let told = page(&bob, &his).await;
    assert_eq!((changed(&told), gone(&told)), (vec![], vec![]));
    assert_eq!(changed(&page(&alice, &at).await), ids(&[&direct]));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_change_is_missed_that_commits_after_a_later_one() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let (slow, quick) =
        (alice.on(0).open_chat(&bob).await, alice.on(0).open_chat(&cluster.user("carol")).await);
    let at = settled(&alice.on(0), "").await;
    // It changes the chat now, and commits when others have come and gone.
    let holder = Psql::connect(&cluster.database_url()).await;
    holder.run(&format!("BEGIN; SELECT set_own('{slow}', 'alice', 'none', NULL, NULL)")).await;
    alice.on(1).send(&quick, "meanwhile").await;
    let told = page(&alice.on(0), &at).await;
    assert_eq!(changed(&told), ids(&[&quick]));
    alice.on(1).send(&quick, "and again").await;
    let told = page(&alice.on(1), &cursor(&told)).await;
    assert_eq!(changed(&told), ids(&[&quick]));
    holder.run("COMMIT").await;
    let told = page(&alice.on(0), &cursor(&told)).await;
    assert!(changed(&told).contains(&slow.id), "{told}");
    let seen = told["results"].as_array().expect("chats").iter();
    let notify: Vec<_> =
        seen.filter(|chat| chat["chat_id"] == *slow.id).map(|chat| &chat["notify"]).collect();
    assert_eq!(notify, ["none"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_while_pages_are_read_is_told_the_next_time() {
    let cluster = Cluster::start(2).await;
    let alice = cluster.user("alice").on(0);
    let mut chats = Vec::new();
    for n in 0..5 {
        chats.push(alice.open_chat(&cluster.user(&format!("friend {n}"))).await);
    }
    let friend = |n: usize, replica: usize| cluster.user(&format!("friend {n}")).on(replica);
    for start in ["".to_owned(), settled(&alice, "").await] {
        // The second time all of them have changed.
        for (n, chat) in chats.iter().enumerate() {
            friend(n, n % 2).send(chat, "news").await;
        }
        let first = page(&alice, &format!("limit=2&{start}")).await;
        assert_eq!((first["has_more"].clone(), changed(&first).len()), (json!(true), 2));
        assert_eq!(first["reset"], start.is_empty());
        // One that was given, and one that was not.
        let given =
            chats.iter().position(|chat| changed(&first).contains(&chat.id)).expect("a chat");
        let later =
            chats.iter().position(|chat| !changed(&first).contains(&chat.id)).expect("a chat");
        for n in [given, later] {
            friend(n, 1).send(&chats[n], "during the round").await;
        }
        let second =
            page(&cluster.user("alice").on(1), &format!("limit=2&{}", cursor(&first))).await;
        let third = page(&alice, &format!("limit=2&{}", cursor(&second))).await;
        assert_eq!((&second["reset"], &third["reset"]), (&json!(false), &json!(false)));
        assert_eq!((&second["has_more"], &third["has_more"]), (&json!(true), &json!(false)));
        let mut all = [changed(&first), changed(&second), changed(&third)].concat();
        all.sort();
        assert_eq!(all, ids(&chats.iter().collect::<Vec<_>>()));
        let next = changed(&page(&alice, &cursor(&third)).await);
        for n in [given, later] {
            assert!(next.contains(&chats[n].id), "{next:?}");
        }
        // Where chats are read in pages again, nothing is lost either.
        settled(&alice, &cursor(&third)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chats_that_are_no_longer_ones_own_are_gone_however_they_went() {
    let cluster = Cluster::start(2).await;
    let user = |id: &str, replica: usize| cluster.user(id).on(replica);
    let (alice, owner) = (user("alice", 0), user("owner", 1));
    let kept = alice.open_chat(&cluster.user("bob")).await;
    let deleted = alice.open_chat(&cluster.user("carol")).await;
    let mut groups = Vec::new();
    for title in
        ["left", "removed", "banned", "dropped", "left before it was dropped", "returned to"]
    {
        groups.push(create(&owner, title, &["alice", "bob"]).await);
    }
    let at = settled(&alice, "").await;
    user("carol", 1).get("/sync/").await.expect(200);

    alice.delete(&deleted.path("")).await.expect(204);
    for group in [&groups[0], &groups[4], &groups[5]] {
        alice.delete(&group.path("members/alice/")).await.expect(204);
    }
    owner.delete(&groups[1].path("members/alice/")).await.expect(204);
    owner.put(&groups[2].path("bans/alice/"), json!({})).await.expect(200);
    owner.delete(&groups[3].path("")).await.expect(204);
    owner.delete(&groups[4].path("")).await.expect(204);
    add(&owner, &groups[5], &["alice"]).await;
    let out: Vec<_> = groups[..5].iter().chain([&deleted]).collect();
    let told = page(&user("alice", 1), &at).await;
    assert_eq!((gone(&told), changed(&told)), (ids(&out), ids(&[&groups[5]])));
    // Also once nothing is left of those that were deleted.
    eventually(async || match cluster.psql_value::<i64>("SELECT count(*) FROM purges").await {
        0 => Ok(()),
        left => Err(format!("{left} chats are not purged")),
    })
    .await;
    for limit in [1, 2, 200] {
        let (mut query, mut all, mut results) = (at.clone(), Vec::new(), Vec::new());
        loop {
            let told = page(&alice, &format!("limit={limit}&{query}")).await;
            assert!(told["results"].as_array().map_or(0, Vec::len) + gone(&told).len() <= limit);
            all.extend(gone(&told));
            results.extend(changed(&told));
            query = cursor(&told);
            if told["has_more"] == false {
                break;
            }
        }
        all.sort();
        assert_eq!((all, results), (ids(&out), ids(&[&groups[5]])), "by {limit}");
    }
    let next = settled(&alice, &at).await;
    assert_eq!(gone(&page(&alice, &next).await), Vec::<String>::new());
    // Who has nothing of them is told nothing of them.
    let all = page(&alice, "").await;
    assert_eq!((changed(&all), gone(&all)), (ids(&[&kept, &groups[5]]), vec![]));
    // The others of a direct chat and of a group that were deleted, too.
    for (id, theirs) in [("carol", vec![&deleted]), ("bob", vec![&groups[3], &groups[4]])] {
        let departed = format!("SELECT chat_id FROM departures WHERE user_id = '{id}' ORDER BY 1");
        let departed: Vec<_> =
            cluster.psql(&departed).await.into_iter().flatten().flatten().collect();
        assert_eq!(departed, ids(&theirs), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn departures_are_forgotten_when_no_cursor_can_ask_for_them() {
    let cluster = Cluster::start(1).await;
    let alice = cluster.user("alice").on(0);
    let (old, new) = (
        alice.open_chat(&cluster.user("bob")).await,
        alice.open_chat(&cluster.user("carol")).await,
    );
    alice.delete(&old.path("")).await.expect(204);
    let departed = "SELECT count(*) FROM departures";
    assert_eq!(cluster.psql_value::<i64>(departed).await, 2);
    cluster.psql("UPDATE departures SET gone_at = now() - interval '40 days'").await;
    alice.delete(&new.path("")).await.expect(204);
    let left = "SELECT count(*) FROM departures WHERE gone_at < now() - interval '39 days'";
    assert_eq!(cluster.psql_value::<i64>(left).await, 0);
    assert_eq!(cluster.psql_value::<i64>(departed).await, 2);
}

/// The same cursor, given this many days earlier: the time stands behind its kind and a transaction's number.
fn aged(query: &str, days: i64) -> String {
    let raw = query.strip_prefix("cursor=").expect("a cursor");
    let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(raw).expect("base64");
    let micros = i64::from_be_bytes(bytes[9..17].try_into().expect("eight bytes"));
    bytes[9..17].copy_from_slice(&(micros - days * 86_400_000_000).to_be_bytes());
    format!("cursor={}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_is_too_old_or_of_another_epoch_begins_again() {
    let cluster = Cluster::start(2).await;
    let alice = cluster.user("alice").on(0);
    let chats = [
        alice.open_chat(&cluster.user("bob")).await,
        alice.open_chat(&cluster.user("carol")).await,
    ];
    let all = ids(&[&chats[0], &chats[1]]);
    let half = cursor(&page(&alice, "limit=1").await);
    let at = settled(&alice, "").await;
    assert_eq!(page(&alice, &aged(&at, 29)).await["reset"], false);
    let told = page(&alice, &aged(&at, 31)).await;
    assert_eq!((&told["reset"], changed(&told)), (&json!(true), all.clone()));
    cluster.psql("UPDATE instance SET incarnation = 'restored'").await;
    for query in [&at, &half] {
        let told = page(&cluster.user("alice").on(1), query).await;
        assert_eq!((&told["reset"], changed(&told)), (&json!(true), all.clone()));
        settled(&alice, &cursor(&told)).await;
    }
    for none in ["", "x", "AAAA", &at[7..20]] {
        alice.get(&format!("/sync/?cursor={none}")).await.expect_problem(400, "invalid_request");
    }
    for query in ["limit=0", "limit=201"] {
        alice.get(&format!("/sync/?{query}")).await.expect_problem(422, "validation_failed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn someone_with_thousands_of_chats_is_given_each_of_them_once() {
    const CHATS: i64 = 2_000;
    let cluster = Cluster::start(1).await;
    let alice = cluster.user("alice").on(0);
    let chat = alice.open_chat(&cluster.user("bob")).await;
    cluster.psql(&fill::direct_chats("filler", CHATS, "'alice'", "'filler ' || n", 1)).await;
    // A page that would have more than half a megabyte of last messages is shorter.
    let long = "UPDATE messages SET text = repeat('🦀', 4000) WHERE chat_id > 'f0000000-0000-0000-0000-000000000000'";
    cluster.psql(long).await;
    let (mut seen, mut query) = (Vec::new(), String::new());
    loop {
        let told = page(&alice, &format!("limit=200&{query}")).await;
        assert!(told.to_string().len() < 2_000_000, "a page is bounded");
        seen.extend(changed(&told));
        query = cursor(&told);
        if told["has_more"] == false {
            break;
        }
    }
    let given = seen.len() as i64;
    seen.sort();
    seen.dedup();
    assert_eq!((given, seen.len() as i64), (CHATS + 1, CHATS + 1));
    let at = settled(&alice, &query).await;
    alice.send(&chat, "news").await;
    assert_eq!(changed(&page(&alice, &at).await), ids(&[&chat]));
    cluster.psql(&fill::without_chats_of("filler")).await;
}
