//! All replicas are replaced, one after the other, while people write and read.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rand::seq::IndexedRandom;
use serde_json::json;
use tokio::task::JoinSet;

use crate::harness::{CEILING, Chat, Cluster, Socket, User};

/// Sockets that read; half of them are on each replica at first.
const READERS: usize = 20;

const GRACE: Duration = Duration::from_secs(8);

/// How long a replica that is about to go still serves; a balancer has noticed by the half of it.
const DRAIN_DELAY: Duration = Duration::from_millis(600);

/// What a balancer believes of the replicas, and what the people at it have to do.
struct World {
    alice: User,
    bob: User,
    chat: Chat,
    epoch: String,
    live: RwLock<Vec<usize>>,
    stop: AtomicBool,
    /// The last message's `ev` once no more comes; until then out of reach.
    last: AtomicI64,
}

impl World {
    fn any(&self) -> usize {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        *live.choose(&mut rand::rng()).expect("one is always there")
    }

    fn replace(&self, old: usize, new: Option<usize>) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        live.retain(|replica| *replica != old);
        live.extend(new);
    }
}

/// Sends until told to stop, each message until it is acknowledged; gives how many.
async fn write(world: Arc<World>) -> i64 {
    let mut sent = 0;
    while !world.stop.load(Relaxed) {
        let body = json!({ "text": "x", "client_msg_id": format!("message {sent}") });
        let began = Instant::now();
        loop {
            let at = world.alice.on(world.any());
            match at.post(&world.chat.path("messages/"), body.clone()).attempt().await {
                Ok(answer) if matches!(answer.status, 200 | 201) => break,
                outcome => assert!(began.elapsed() < CEILING, "message {sent}: {outcome:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        sent += 1;
    }
    sent
}

/// Reads up to the last message, wherever the replicas go; gives when it came back, each time.
async fn read(world: Arc<World>, mut socket: Socket) -> Vec<Instant> {
    let (mut at, mut moments) = (0, Vec::new());
    while at < world.last.load(Relaxed) {
        let mut back_in = Duration::ZERO;
        loop {
            match socket.next_frame_or_close().await {
                Ok(frame) if frame["type"] == "message.created" => {
                    assert_eq!(frame["ev"], at + 1, "{frame}");
                    at += 1;
                    if at >= world.last.load(Relaxed) {
                        return moments;
                    }
                }
                Ok(frame) if frame["type"] == "bye" => {
                    let pause = frame["reconnect_in_ms"].as_u64().expect("a number");
                    back_in = Duration::from_millis(pause);
                }
                Ok(_) => {}
                Err(code) => {
                    assert_eq!(code, 4200, "at {at}");
                    break;
                }
            }
        }
        tokio::time::sleep(back_in).await;
        moments.push(Instant::now());
        socket = resume(&world, at).await;
    }
    moments
}

/// A socket from `at` on, at any replica; one that is about to go refuses it.
async fn resume(world: &World, at: i64) -> Socket {
    let began = Instant::now();
    loop {
        let replica = world.bob.on(world.any());
        let ticket = replica.get(&world.chat.path("connect/")).attempt().await;
        if let Ok(ticket) = ticket
            && ticket.status == 200
        {
            let url = ticket.json["ws_url"].as_str().expect("a URL");
            let url = format!("{url}&after_ev={at}&epoch={}", world.epoch);
            match Socket::open_with(&url, &[]).await {
                Ok(socket) => return socket,
                Err(answer) => assert_eq!(answer.status(), 503),
            }
        }
        assert!(began.elapsed() < CEILING, "no socket");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_replicas_are_replaced_under_load_without_a_failed_send_or_a_herd() {
    let mut cluster = Cluster::with(2, |config| {
        config.shutdown_grace = GRACE;
        config.drain_delay = DRAIN_DELAY;
    })
    .await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut sockets = Vec::new();
    for number in 0..READERS {
        sockets.push(bob.on(number % 2).connect(&chat).await);
    }
    let epoch = alice.on(0).history(&chat, "").await["epoch"].as_str().expect("text").to_owned();
    let world = Arc::new(World {
        alice,
        bob,
        chat,
        epoch,
        live: RwLock::new(vec![0, 1]),
        stop: AtomicBool::new(false),
        last: AtomicI64::new(i64::MAX),
    });
    let writing = tokio::spawn(write(Arc::clone(&world)));
    let mut readers = JoinSet::new();
    for socket in sockets {
        readers.spawn(read(Arc::clone(&world), socket));
    }
    for old in 0..2 {
        let new = cluster.add_replica().await;
        world.replace(usize::MAX, Some(new));
        let draining = tokio::spawn(cluster.drain(old));
        tokio::time::sleep(DRAIN_DELAY / 2).await;
        world.replace(old, None);
        draining.await.expect("it ends");
    }
    world.stop.store(true, Relaxed);
    let sent = writing.await.expect("no send failed");
    assert!(sent > 50, "only {sent} messages");
    // One more for those who wait for a frame to look whether it was the last.
    world.last.store(sent + 1, Relaxed);
    world.alice.on(world.any()).send(&world.chat, "the last").await;
    let mut moments: Vec<Instant> = readers.join_all().await.into_iter().flatten().collect();
    moments.sort_unstable();
    assert!(moments.len() >= READERS, "everybody had to move at least once");
    // No herd: never a half of them within a tenth of the time in which all came.
    let span = moments[moments.len() - 1] - moments[0];
    let half = moments.windows(moments.len() / 2).map(|half| half[half.len() - 1] - half[0]).min();
    assert!(half > Some(span / 10), "half of all came within {half:?} of {span:?}");
}
