//! Pairs that open rooms, talk, and delete them; strangers who try to get in.

use std::{sync::Arc, time::Duration};

use beseda::model::ChatId;
use rand::{Rng, rngs::StdRng};
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use tokio::{task::JoinSet, time::Instant};

use super::{
    findings::{Kind, tick},
    follower::{Follower, Seat},
    history::Deletion,
    socket::{Incoming, Socket},
    world::{Person, World},
    writers::Writer,
};

#[derive(Deserialize)]
struct Opened {
    chat_id: ChatId,
    room_name: String,
    created: bool,
}

/// Opens the room of two people from both sides at once, each on a random replica.
pub(super) async fn open(world: &World, rng: &mut StdRng, pair: [&Person; 2]) -> Option<ChatId> {
    let members = pair.map(|person| person.id.clone());
    let (mut first, mut second) = (world.dice(), world.dice());
    let bodies = [json!({ "user_id": pair[1].id }), json!({ "user_id": pair[0].id })];
    let path = "/api/v1/chats/";
    let (one, two) = tokio::join!(
        world.call(&mut first, Method::POST, path, pair[0], Some(&bodies[0])),
        async {
            // Not always at the very same moment.
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..15))).await;
            world.call(&mut second, Method::POST, path, pair[1], Some(&bodies[1])).await
        }
    );
    let loose = [&one, &two].iter().any(|answer| answer.as_ref().is_none_or(|one| one.loose));
    if loose {
        world.history.may_be_open(&members);
    }
    let mut opened = Vec::new();
    for answer in [one?, two?] {
        match (answer.status, answer.read::<Opened>()) {
            (201, Ok(room)) if room.created => opened.push(room),
            (200, Ok(room)) if !room.created => opened.push(room),
            _ => world.unexpected("the opening of a room", &answer),
        }
    }
    let [one, two] = <[Opened; 2]>::try_from(opened).ok()?;
    let created = usize::from(one.created) + usize::from(two.created);
    if one.chat_id != two.chat_id || created > 1 {
        let what = format!("{members:?} opened {} and {}, {created} new", one.chat_id, two.chat_id);
        world.findings.add(Kind::Doubled, what);
    }
    world.history.opened(one.chat_id, &one.room_name, members);
    tick(&world.figures.rooms_opened);
    Some(one.chat_id)
}

/// Opens, uses and deletes one room after another, to the end of the busy phase.
pub(super) async fn make_rooms(world: Arc<World>, pair: [Person; 2]) {
    let mut rng = world.dice();
    let mut followers = JoinSet::new();
    while world.is_busy() {
        let Some(chat_id) = open(&world, &mut rng, [&pair[0], &pair[1]]).await else {
            world.pause(&mut rng, 100..500).await;
            continue;
        };
        let mut seats = Vec::new();
        for person in &pair {
            let members = [pair[0].id.clone(), pair[1].id.clone()];
            let seat = Seat::new(&world, &person.id, chat_id, members);
            seats.push(Arc::clone(&seat));
            let follower = Follower { world: Arc::clone(&world), person: person.clone(), seat };
            followers.spawn(follower.run());
        }
        for person in &pair {
            let mut writer = Writer::new(&world, person.clone(), Vec::new());
            for _ in 0..rng.random_range(0..5) {
                writer.send(chat_id).await;
            }
        }
        world.pause(&mut rng, 200..3_000).await;
        if !world.is_busy() {
            break;
        }
        delete(&world, &mut rng, &pair, chat_id).await;
        await_end(&world, &seats).await;
        world.pause(&mut rng, 100..1_500).await;
    }
    while followers.join_next().await.is_some() {}
}

async fn delete(world: &World, rng: &mut StdRng, pair: &[Person; 2], chat_id: ChatId) {
    world.history.room_deletion(chat_id, Deletion::Tried);
    let path = format!("/api/v1/chats/{chat_id}/");
    let person = &pair[rng.random_range(0..2)];
    let Some(answer) = world.call(rng, Method::DELETE, &path, person, None).await else { return };
    match answer.status {
        204 => {}
        // By an attempt that nobody heard of.
        404 if answer.loose => {}
        _ => return world.unexpected("the deletion of a room", &answer),
    }
    world.history.room_deletion(chat_id, Deletion::Acknowledged);
    tick(&world.figures.rooms_deleted);
    for replica in 0..world.replicas.len() {
        // Committed: no replica may still show it, whatever Redis says.
        let seen = world.once(replica, &Method::GET, &path, &pair[0], None).await;
        if let Some(answer) = seen.filter(|answer| answer.status != 404) {
            let at = world.timeline.now();
            let what = format!("{chat_id} is deleted, and replica {replica} shows it ({at}): ");
            world.findings.add(Kind::State, what + &answer.text());
        }
    }
}

/// All sockets of a deleted room must be told, within bounded time after the last fault.
async fn await_end(world: &World, seats: &[Arc<Seat>]) {
    let ceiling = Follower::deletion_ceiling();
    let mut deadline = Instant::now() + ceiling;
    while let Some(open) = seats.iter().find(|seat| !seat.is_gone()) {
        if world.timeline.quiet_since().is_none() {
            deadline = Instant::now() + ceiling;
        }
        if Instant::now() > deadline {
            let (name, at) = (&open.name, world.timeline.now());
            let what = format!("{name} was not told of the deletion within {ceiling:?} ({at})");
            return world.findings.add(Kind::Late, what);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Somebody who is a member of nothing, or of other rooms, knocks everywhere.
pub(super) async fn probe(world: Arc<World>, person: Person) {
    let mut rng = world.dice();
    while world.is_busy() {
        world.pause(&mut rng, 30..300).await;
        let rooms = world.history.rooms();
        let foreign: Vec<_> =
            rooms.iter().filter(|(_, room)| !room.members.contains(&person.id)).collect();
        if foreign.is_empty() {
            continue;
        }
        let (chat_id, room) = foreign[rng.random_range(0..foreign.len())];
        if rng.random_bool(0.2) {
            knock(&world, &mut rng, &person, *chat_id).await;
            continue;
        }
        let named = if rng.random_bool(0.5) { chat_id.to_string() } else { room.room_name.clone() };
        call_door(&world, &mut rng, &person, &named).await;
    }
}

/// REST: 404 `chat_not_found`, whatever is asked.
async fn call_door(world: &World, rng: &mut StdRng, person: &Person, named: &str) {
    let message = "messages/00000000-0000-8000-8000-000000000000/";
    let (method, rest, body) = match rng.random_range(0..9) {
        0 => (Method::GET, "", None),
        1 => (Method::GET, "messages/", None),
        2 => (Method::POST, "messages/", Some(json!({ "text": "let me in" }))),
        3 => (Method::POST, "mark_read/", Some(json!({}))),
        4 => (Method::GET, "connect/", None),
        5 => (Method::GET, "search/?query=message", None),
        6 => (Method::DELETE, "", None),
        7 => (Method::PATCH, message, Some(json!({ "text": "mine" }))),
        _ => (Method::DELETE, message, None),
    };
    let path = format!("/api/v1/chats/{named}/{rest}");
    let replica = world.any_replica(rng);
    let answer = world.once(replica, &method, &path, person, body.as_ref()).await;
    let Some(answer) = answer else { return };
    if answer.status == 404 && answer.code() == "chat_not_found" {
        tick(&world.figures.probes);
    } else {
        let what = format!("{} tried {method} {path}: {}", person.id, answer.text());
        world.findings.add(Kind::Leak, what);
    }
}

/// A socket: closed with 4004, without a word of the chat.
async fn knock(world: &World, rng: &mut StdRng, person: &Person, chat_id: ChatId) {
    // There is no ticket to be had: with the token.
    let connect = (Method::GET, "/api/v1/chats/none/connect/");
    let path = format!("/ws/chat/{chat_id}/");
    let query = [("after_ev", "0".to_owned())];
    let opened = Socket::open(world, rng, person, &path, &query, connect).await;
    let Ok(mut socket) = opened else { return };
    loop {
        match socket.next(world).await {
            Incoming::Closed(4004) => return tick(&world.figures.probes),
            Incoming::Closed(4200..) | Incoming::Broken => return,
            Incoming::Closed(code) => {
                let what = format!("{} knocked at {chat_id}: closed with {code}", person.id);
                return world.findings.add(Kind::Answer, what);
            }
            Incoming::Frame(frame) if frame.kind == "bye" => {}
            Incoming::Frame(frame) => {
                let what = format!("{} knocked at {chat_id} and got {frame:?}", person.id);
                world.findings.add(Kind::Leak, what);
            }
        }
    }
}
