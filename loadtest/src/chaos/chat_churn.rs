//! Pairs that open, use and delete chats, and strangers who try to access them.

use std::{sync::Arc, time::Duration};

use beseda_protocol::model::{ChatId, ChatKind};
use rand::{Rng, rngs::StdRng};
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use tokio::{task::JoinSet, time::Instant};

use super::{
    context::{Person, SimContext},
    findings::{Kind, tick},
    follower::Follower,
    history::{Deletion, KnownChat},
    socket::{Incoming, Socket},
    subscriber::Subscriber,
    writers::Writer,
};

#[derive(Deserialize)]
struct Opened {
    chat_id: ChatId,
    room_name: String,
    created: bool,
}

/// Opens the chat of two users from both sides at once, each on a random replica.
pub(super) async fn open(
    context: &SimContext,
    rng: &mut StdRng,
    pair: [&Person; 2],
) -> Option<ChatId> {
    let members = pair.map(|person| person.id.clone());
    let (mut first, mut second) = (context.dice(), context.dice());
    let bodies = [json!({ "user_id": pair[1].id }), json!({ "user_id": pair[0].id })];
    let path = "/api/v1/chats/";
    let (one, two) = tokio::join!(
        context.call(&mut first, Method::POST, path, pair[0], Some(&bodies[0])),
        async {
            // A small random delay varies the race.
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..15))).await;
            context.call(&mut second, Method::POST, path, pair[1], Some(&bodies[1])).await
        }
    );
    let loose = [&one, &two].iter().any(|answer| answer.as_ref().is_none_or(|one| one.loose));
    if loose {
        context.history.may_be_open(&members);
    }
    let mut opened = Vec::new();
    for answer in [one?, two?] {
        match (answer.status, answer.read::<Opened>()) {
            (201, Ok(chat)) if chat.created => opened.push(chat),
            (200, Ok(chat)) if !chat.created => opened.push(chat),
            _ => context.unexpected("the opening of a chat", &answer),
        }
    }
    let [one, two] = <[Opened; 2]>::try_from(opened).ok()?;
    let created = usize::from(one.created) + usize::from(two.created);
    if one.chat_id != two.chat_id || created > 1 {
        let what = format!("{members:?} opened {} and {}, {created} new", one.chat_id, two.chat_id);
        context.findings.add(Kind::Doubled, what);
    }
    let chat = KnownChat {
        kind: ChatKind::Direct,
        members: members.into(),
        room_name: one.room_name,
        deletion: Deletion::Never,
        is_silent: false,
    };
    context.history.opened(one.chat_id, chat);
    tick(&context.figures.chats_opened);
    Some(one.chat_id)
}

/// Opens, uses and deletes one chat after another until the end of the busy phase.
pub(super) async fn make_chats(context: Arc<SimContext>, pair: [Person; 2]) {
    let mut rng = context.dice();
    let mut followers = JoinSet::new();
    while context.is_busy() {
        let Some(chat_id) = open(&context, &mut rng, [&pair[0], &pair[1]]).await else {
            context.pause(&mut rng, 100..500).await;
            continue;
        };
        let mut subscribers = Vec::new();
        for person in &pair {
            let Some(follower) = Follower::new(&context, person, chat_id) else { continue };
            subscribers.push(Arc::clone(&follower.subscriber));
            followers.spawn(follower.run());
        }
        for person in &pair {
            let mut writer = Writer::new(&context, person.clone(), Vec::new());
            for _ in 0..rng.random_range(0..5) {
                writer.send(chat_id).await;
            }
        }
        context.pause(&mut rng, 200..3_000).await;
        if !context.is_busy() {
            break;
        }
        delete(&context, &mut rng, &pair, chat_id).await;
        await_end(&context, &subscribers).await;
        context.pause(&mut rng, 100..1_500).await;
    }
    while followers.join_next().await.is_some() {}
}

pub(super) async fn delete(
    context: &SimContext,
    rng: &mut StdRng,
    pair: &[Person; 2],
    chat_id: ChatId,
) {
    context.history.chat_deletion(chat_id, Deletion::Tried);
    let path = format!("/api/v1/chats/{chat_id}/");
    let person = &pair[rng.random_range(0..2)];
    let Some(answer) = context.call(rng, Method::DELETE, &path, person, None).await else { return };
    match answer.status {
        204 => {}
        // An attempt without an answer has deleted it.
        404 if answer.loose => {}
        _ => return context.unexpected("the deletion of a chat", &answer),
    }
    context.history.chat_deletion(chat_id, Deletion::Acknowledged);
    tick(&context.figures.chats_deleted);
    for replica in 0..context.replicas.len() {
        // The deletion is committed: no replica may still show the chat.
        let seen = context.once(replica, &Method::GET, &path, &pair[0], None).await;
        if let Some(answer) = seen.filter(|answer| answer.status != 404) {
            let at = context.timeline.now();
            let what = format!("{chat_id} is deleted, and replica {replica} shows it ({at}): ");
            context.findings.add(Kind::State, what + &answer.text());
        }
    }
}

/// Expects the end of all sockets of a deleted chat within bounded time after the last fault.
pub(super) async fn await_end(context: &SimContext, subscribers: &[Arc<Subscriber>]) {
    let ceiling = Follower::deletion_ceiling();
    let mut deadline = Instant::now() + ceiling;
    while let Some(open) = subscribers.iter().find(|subscriber| !subscriber.is_gone()) {
        if context.timeline.quiet_since().is_none() {
            deadline = Instant::now() + ceiling;
        }
        if Instant::now() > deadline {
            let (name, at) = (&open.name, context.timeline.now());
            let what = format!("{name} was not told of the deletion within {ceiling:?} ({at})");
            return context.findings.add(Kind::Late, what);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Tries to access chats as a user who is no member of them.
pub(super) async fn probe(context: Arc<SimContext>, person: Person) {
    let mut rng = context.dice();
    while context.is_busy() {
        context.pause(&mut rng, 30..300).await;
        let chats = context.history.chats();
        let foreign: Vec<_> =
            chats.iter().filter(|(_, chat)| !chat.members.contains(&person.id)).collect();
        if foreign.is_empty() {
            continue;
        }
        let (chat_id, chat) = foreign[rng.random_range(0..foreign.len())];
        if rng.random_bool(0.2) {
            knock(&context, &mut rng, &person, *chat_id).await;
            continue;
        }
        let named = if rng.random_bool(0.5) { chat_id.to_string() } else { chat.room_name.clone() };
        call_door(&context, &mut rng, &person, &named).await;
    }
}

/// Expects 404 `chat_not_found` from every REST call.
async fn call_door(context: &SimContext, rng: &mut StdRng, person: &Person, named: &str) {
    let message = "messages/00000000-0000-8000-8000-000000000000/";
    let (method, rest, body) = match rng.random_range(0..11) {
        0 => (Method::GET, "", None),
        1 => (Method::GET, "messages/", None),
        2 => (Method::POST, "messages/", Some(json!({ "text": "let me in" }))),
        3 => (Method::POST, "mark_read/", Some(json!({}))),
        4 => (Method::GET, "connect/", None),
        5 => (Method::GET, "search/?query=message", None),
        6 => (Method::DELETE, "", None),
        7 => (Method::GET, "members/", None),
        8 => (Method::PATCH, "me/", Some(json!({ "pinned": true }))),
        9 => (Method::PATCH, message, Some(json!({ "text": "mine" }))),
        _ => (Method::DELETE, message, None),
    };
    let path = format!("/api/v1/chats/{named}/{rest}");
    let replica = context.any_replica(rng);
    let answer = context.once(replica, &method, &path, person, body.as_ref()).await;
    let Some(answer) = answer else { return };
    if answer.status == 404 && answer.code() == "chat_not_found" {
        tick(&context.figures.probes);
    } else {
        let what = format!("{} tried {method} {path}: {}", person.id, answer.text());
        context.findings.add(Kind::Leak, what);
    }
}

/// Expects a socket to be closed with 4004, without any frame of the chat.
async fn knock(context: &SimContext, rng: &mut StdRng, person: &Person, chat_id: ChatId) {
    // A stranger gets no ticket, so the token is used.
    let connect = (Method::GET, "/api/v1/chats/none/connect/");
    let path = format!("/ws/chat/{chat_id}/");
    let query = [("after_ev", "0".to_owned())];
    let opened = Socket::open(context, rng, person, &path, &query, connect).await;
    let Ok(mut socket) = opened else { return };
    loop {
        match socket.next(context).await {
            Incoming::Closed(4004) => return tick(&context.figures.probes),
            Incoming::Closed(4200..) | Incoming::Broken => return,
            Incoming::Closed(code) => {
                let what = format!("{} knocked at {chat_id}: closed with {code}", person.id);
                return context.findings.add(Kind::Answer, what);
            }
            Incoming::Frame(frame) if frame.kind == "bye" => {}
            Incoming::Frame(frame) => {
                let what = format!("{} knocked at {chat_id} and got {frame:?}", person.id);
                context.findings.add(Kind::Leak, what);
            }
        }
    }
}
