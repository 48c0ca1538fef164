//! The Rust client against replicas, in what no test vector reaches.

use beseda_client::{
    Client, Credentials, Event, Rest, State,
    protocol::{ReceivedFrame, frame::GoneReason, model::ChatId},
};
use serde_json::json;
use tokio::time::timeout;
use url::Url;

use crate::harness::{CEILING, Chat, Cluster, User};

fn address(user: &User, replica: usize) -> Url {
    format!("http://{}", user.on(replica).host()).parse().expect("a URL")
}

fn rest(user: &User, replica: usize) -> Rest {
    let credentials = Credentials::fixed(user.token.as_str());
    Rest::new(&[address(user, replica)], credentials).expect("a client")
}

fn id(chat: &Chat) -> ChatId {
    chat.id.parse().expect("an id")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_kept_by_what_changed_since_its_position_and_its_cursor() {
    let cluster = Cluster::start(2).await;
    let (alice, bob, carol) = (cluster.user("alice"), cluster.user("bob"), cluster.user("carol"));
    let chat = alice.on(0).open_chat(&bob).await;
    let other = carol.on(1).open_chat(&bob).await;
    let rest = rest(&bob, 1);

    let mut chats = Vec::new();
    let mut page = rest.sync(None, Some(1)).await.expect("a page");
    assert!(page.reset && page.has_more, "{page:?}");
    chats.append(&mut page.results);
    while page.has_more {
        page = rest.sync(Some(&page.next), Some(1)).await.expect("a page");
        chats.append(&mut page.results);
    }
    assert_eq!(chats.len(), 2);

    let texts = ["one", "two", "three"];
    let mut sent = Vec::new();
    for text in texts {
        sent.push(alice.on(0).send(&chat, text).await);
    }
    let path = format!("messages/{}/", sent[1]["message_id"].as_str().expect("an id"));
    alice.on(1).patch(&chat.path(&path), json!({ "text": "two and a half" })).await.expect(200);
    carol.on(0).delete(&other.path("")).await.expect(204);
    let changed = rest.sync(Some(&page.next), None).await.expect("a page");
    assert!(!changed.reset && !changed.has_more, "{changed:?}");
    assert_eq!(changed.results.iter().map(|one| one.chat_id).collect::<Vec<_>>(), [id(&chat)]);
    assert_eq!(changed.gone, [id(&other)]);

    let (mut frames, mut after_ev, mut pages) = (Vec::new(), 0, 0);
    loop {
        let page = rest.list_changes(&chat.id, after_ev, Some(2)).await.expect("a page");
        (after_ev, pages) = (page.up_to_ev, pages + 1);
        frames.extend(page.frames);
        if !page.has_more {
            assert_eq!(page.head_ev, after_ev);
            break;
        }
    }
    let told: Vec<_> = frames
        .iter()
        .map(|frame| match frame {
            ReceivedFrame::MessageCreated { message, .. } => ("created", &*message.text),
            ReceivedFrame::MessageUpdated { message, .. } => ("updated", &*message.text),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, [("created", "one"), ("created", "three"), ("updated", "two and a half")]);
    assert_eq!(pages, 2);
    let nothing = rest.list_changes(&chat.id, after_ev, None).await.expect("a page");
    assert_eq!((nothing.up_to_ev, nothing.frames.len()), (after_ev, 0));
    let foreign = rest.list_changes(&other.id, 0, None).await.expect_err("it is gone");
    assert_eq!(foreign.code, "chat_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_loses_the_one_chat_of_a_socket_hears_why() {
    let cluster = Cluster::start(2).await;
    let (owner, bob) = (cluster.user("owner"), cluster.user("bob"));
    for reason in [GoneReason::Removed, GoneReason::Banned, GoneReason::Left, GoneReason::Deleted] {
        let body = json!({ "kind": "group", "title": "Out", "user_ids": ["bob"] });
        let chat = Chat::from_json(&owner.on(0).post("/chats/", body).await.expect(201));
        let credentials = Credentials::fixed(bob.token.as_str());
        let builder = Client::builder(address(&bob, 1), credentials).only(id(&chat));
        let (_client, mut events) = builder.connect().expect("a client");
        let mut next = async || timeout(CEILING, events.next()).await.expect("soon").expect("one");
        while !matches!(next().await, Event::Frame(frame) if matches!(*frame, ReceivedFrame::Synced { .. }))
        {
        }
        let member = chat.path("members/bob/");
        match reason {
            GoneReason::Removed => drop(owner.on(0).delete(&member).await.expect(204)),
            GoneReason::Left => drop(bob.on(0).delete(&member).await.expect(204)),
            GoneReason::Deleted => drop(owner.on(0).delete(&chat.path("")).await.expect(204)),
            GoneReason::Banned => {
                drop(owner.on(0).put(&chat.path("bans/bob/"), json!({})).await.expect(200));
            }
        }
        let mut code = None;
        loop {
            match next().await {
                Event::State(State::Stopped { code: stopped, .. }) => code = Some(stopped),
                Event::Gone { chat_id, reason: told } => {
                    assert_eq!((chat_id, told, code), (id(&chat), Some(reason), Some(4004)));
                    break;
                }
                _ => {}
            }
        }
    }
}
