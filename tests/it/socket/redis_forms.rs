//! Redis Cluster (classic and sharded) and Sentinel, real ones: all is as with one server, also
//! while masters change.

use std::time::Duration;

use beseda::{config::Switch, dev};
use futures_util::future::join_all;

use super::follow;
use crate::harness::{Chat, Cluster, Redis, Reply, Socket, User, eventually, eventually_within};

/// How long changing a master may take: the servers' own second or two of doubt, an election, our
/// reconnecting, on a crowded machine.
const FAILOVER: Duration = Duration::from_secs(40);

/// How long a sharded subscription may miss publications after its slot has moved: it is repeated within
/// 30 s, or later on a busy machine.
const ROUND: Duration = Duration::from_secs(45);

/// Publications alone must do while all is well: the comparison would find what they lost.
const NO_HEAD_CHECK: Duration = Duration::from_secs(600);

async fn say(server: &dev::Redis, words: &[&str]) -> Reply {
    Redis::connect(server.port(), "").await.command(words).await
}

/// Waits until what a server answers contains all of `parts`. A server that is promoted closes its connections.
async fn until_says(server: &dev::Redis, words: &[&str], parts: &[&str]) {
    eventually_within(FAILOVER, async || {
        let ask = async || Redis::try_connect(server.port(), "").await?.try_command(words).await;
        let text = ask().await.map_err(|error| error.to_string())?.text();
        if parts.iter().all(|part| text.contains(part)) { Ok(()) } else { Err(text) }
    })
    .await;
}

async fn until_ready(cluster: &Cluster) {
    for replica in 0..2 {
        eventually_within(FAILOVER, async || {
            let answer = cluster.operator(replica).request(reqwest::Method::GET, "/readyz").await;
            if answer.json["status"] == "ready" { Ok(()) } else { Err(answer.text) }
        })
        .await;
    }
}

/// A user with a socket on the second replica, and the number of messages they were sent.
struct Listener {
    user: User,
    chat: Chat,
    socket: Socket,
    sent: i64,
}

/// Alice talks to so many people: in a cluster, keys and channels on all servers.
async fn listeners(cluster: &Cluster, alice: &User, count: usize) -> Vec<Listener> {
    let mut listeners = Vec::new();
    for number in 0..count {
        let user = cluster.user(&format!("listener-{number}"));
        let chat = alice.on(0).open_chat(&user).await;
        let socket = user.on(1).connect(&chat).await;
        listeners.push(Listener { user, chat, socket, sent: 0 });
    }
    listeners
}

/// One message each, sent on the first replica: it comes on the second, and both count it.
async fn talk(alice: &User, listeners: &mut [Listener]) {
    for Listener { user, chat, socket, sent } in listeners {
        let message = alice.on(0).send(chat, "x").await;
        let frames = follow(socket, *sent, *sent + 1).await;
        assert_eq!(frames[0]["message"], message);
        *sent += 1;
        for replica in 0..2 {
            // A fault of Redis may delay a counter.
            eventually(async || match user.on(replica).unread_in(chat).await {
                unread if unread == *sent => Ok(()),
                unread => Err(format!("{user:?} on {replica}: {unread} of {sent}")),
            })
            .await;
        }
    }
}

/// Three masters with all slots among them, and a replica of the first.
struct Ring(Vec<dev::Redis>);

impl Ring {
    async fn start() -> Self {
        let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
        let servers = join_all((0..4).map(|_| dev::Redis::temporary_with(&options))).await;
        let ring = Self(servers.into_iter().map(|server| server.expect("Redis runs")).collect());
        // One by one: ranges are Redis 7's.
        let slots = [0..=5460, 5461..=10922, 10923..=16383];
        for (number, (server, own)) in ring.0.iter().zip(slots).enumerate() {
            let own: Vec<String> = own.map(|slot: u16| slot.to_string()).collect();
            let own = own.iter().map(String::as_str);
            let words: Vec<&str> = ["CLUSTER", "ADDSLOTS"].into_iter().chain(own).collect();
            say(server, &words).await;
            say(server, &["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]).await;
        }
        let first = ring.0[0].port().to_string();
        for server in &ring.0[1..] {
            say(server, &["CLUSTER", "MEET", "127.0.0.1", &first]).await;
        }
        for server in &ring.0 {
            let parts = ["cluster_state:ok", "cluster_known_nodes:4"];
            until_says(server, &["CLUSTER", "INFO"], &parts).await;
        }
        let master = ring.id(0).await;
        say(&ring.0[3], &["CLUSTER", "REPLICATE", &master]).await;
        until_says(&ring.0[3], &["INFO", "replication"], &["master_link_status:up"]).await;
        ring
    }

    async fn id(&self, number: usize) -> String {
        say(&self.0[number], &["CLUSTER", "MYID"]).await.text()
    }

    fn url(&self) -> String {
        let [first, second, third] = [0, 1, 2].map(|number: usize| self.0[number].port());
        format!("redis-cluster://127.0.0.1:{first}?node=127.0.0.1:{second}&node=127.0.0.1:{third}")
    }

    /// Moves the slot of a key (or channel) to the next master, keys and all: says which that is.
    async fn move_slot_of(&self, key: &str) -> usize {
        let Reply::Int(slot) = say(&self.0[0], &["CLUSTER", "KEYSLOT", key]).await else {
            panic!("a slot is a number")
        };
        let from = [5_461, 10_923].iter().filter(|first| slot >= **first).count();
        let slot = slot.to_string();
        let to = (from + 1) % 3;
        let ids = [self.id(from).await, self.id(to).await];
        say(&self.0[to], &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[0]]).await;
        say(&self.0[from], &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[1]]).await;
        let port = self.0[to].port().to_string();
        let keys = say(&self.0[from], &["CLUSTER", "GETKEYSINSLOT", &slot, "100"]).await.list();
        for key in keys {
            let key = key.text();
            say(&self.0[from], &["MIGRATE", "127.0.0.1", &port, &key, "0", "1000"]).await;
        }
        for server in [to, from, (to + 1) % 3] {
            say(&self.0[server], &["CLUSTER", "SETSLOT", &slot, "NODE", &ids[1]]).await;
        }
        self.agree().await;
        to
    }

    /// Waits until all servers say the same of slots, and know of the newest change. A change is
    /// made without asking the others: two at once can be of one epoch, and then servers may disagree
    /// for ever.
    async fn agree(&self) {
        eventually_within(FAILOVER, async || {
            let views = join_all(self.0.iter().map(async |server| {
                let info = say(server, &["CLUSTER", "INFO"]).await.text();
                let epoch = info.lines().find(|line| line.starts_with("cluster_current_epoch:"));
                (epoch.map(str::to_owned), owners(say(server, &["CLUSTER", "SLOTS"]).await))
            }))
            .await;
            if views.windows(2).all(|two| two[0] == two[1]) {
                Ok(())
            } else {
                Err(format!("{views:?}"))
            }
        })
        .await;
    }
}

/// So many that each of three masters has one, but once in 100,000 times (3 * (2/3)^31).
const MANY: usize = 30;

/// Of an answer to `CLUSTER SLOTS`: from which to which slot a master (its host, port and id) has them.
fn owners(slots: Reply) -> Vec<[Reply; 3]> {
    let mut owners: Vec<_> = slots
        .list()
        .into_iter()
        .map(|range| {
            let mut parts = range.list().into_iter();
            let mut next = || parts.next().expect("a range is two numbers and its servers");
            let (first, last, master) = (next(), next(), next());
            [first, last, master]
        })
        .collect();
    owners.sort_by_key(|[first, ..]| match first {
        Reply::Int(slot) => *slot,
        other => panic!("a slot is a number, not {other:?}"),
    });
    owners
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_cluster_may_move_slots_and_lose_a_master() {
    let ring = Ring::start().await;
    let cluster = Cluster::with(2, |config| {
        config.redis_url = ring.url().into();
        config.head_check_interval = NO_HEAD_CHECK;
    })
    .await;
    let alice = cluster.user("alice");
    let mut listeners = listeners(&cluster, &alice, MANY).await;
    talk(&alice, &mut listeners).await;
    for server in &ring.0[..3] {
        assert_ne!(say(server, &["DBSIZE"]).await, Reply::Int(0), "each master has a part");
    }

    let prefix = cluster.redis_prefix();
    for Listener { user, .. } in &listeners[..3] {
        ring.move_slot_of(&format!("{prefix}unread:{}", user.id)).await;
    }
    talk(&alice, &mut listeners).await;

    ring.0[0].kill();
    // The first messages go out before the failure is noticed or a new master is elected.
    talk(&alice, &mut listeners).await;
    until_says(&ring.0[3], &["INFO", "replication"], &["role:master"]).await;
    until_ready(&cluster).await;
    talk(&alice, &mut listeners).await;
}

/// Two replicas on such a ring, whose publications are sharded.
async fn sharded(ring: &Ring) -> Cluster {
    Cluster::with(2, |config| {
        config.redis_url = ring.url().into();
        config.redis_sharded_pubsub = Switch::On;
        config.head_check_interval = NO_HEAD_CHECK;
    })
    .await
}

/// How many channels of either kind a server has.
async fn channels(server: &dev::Redis, listing: &str) -> usize {
    say(server, &["PUBSUB", listing]).await.list().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn sharded_publications_cross_replicas_and_survive_a_lost_master() {
    let ring = Ring::start().await;
    let cluster = sharded(&ring).await;
    let alice = cluster.user("alice");
    let mut listeners = listeners(&cluster, &alice, MANY).await;
    talk(&alice, &mut listeners).await;
    for server in &ring.0[..3] {
        assert_eq!(channels(server, "CHANNELS").await, 0, "none on all servers");
        assert_ne!(channels(server, "SHARDCHANNELS").await, 0, "each master has a part");
    }

    ring.0[0].kill();
    talk(&alice, &mut listeners).await;
    until_says(&ring.0[3], &["INFO", "replication"], &["role:master"]).await;
    until_ready(&cluster).await;
    // Publications alone do again, from the new master too.
    eventually_within(FAILOVER, async || match channels(&ring.0[3], "SHARDCHANNELS").await {
        0 => Err("nothing is subscribed on the new master".to_owned()),
        _ => Ok(()),
    })
    .await;
    talk(&alice, &mut listeners).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sharded_subscription_whose_slot_has_moved_is_found_and_loses_nothing() {
    let ring = Ring::start().await;
    let cluster = sharded(&ring).await;
    let alice = cluster.user("alice");
    let mut listeners = listeners(&cluster, &alice, 9).await;
    talk(&alice, &mut listeners).await;

    let Listener { chat, socket, sent, .. } = &mut listeners[0];
    let channel = format!("{}db0:chat:{}", cluster.redis_prefix(), chat.id);
    let to = ring.move_slot_of(&channel).await;
    // No subscription exists on the new server, and only the periodic repetition finds that out.
    let message = alice.on(0).send(chat, "x").await;
    eventually_within(ROUND, async || {
        match say(&ring.0[to], &["PUBSUB", "SHARDNUMSUB", &channel]).await.list().pop() {
            Some(Reply::Int(1)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let frames = follow(socket, *sent, *sent + 1).await;
    assert_eq!(frames[0]["message"], message);
    *sent += 1;
    // From then on all of them arrive as before, at once.
    talk(&alice, &mut listeners).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sharded_publications_need_a_cluster() {
    let cluster = Cluster::start(1).await;
    let refusal = cluster.refusal(|config| config.redis_sharded_pubsub = Switch::On).await;
    assert!(refusal.contains("BESEDA_REDIS_SHARDED_PUBSUB"), "{refusal}");
}

/// A master, its replica, and one Sentinel who decides alone.
struct Watched {
    master: dev::Redis,
    replica: dev::Redis,
    sentinel: dev::Redis,
    _settings: tempfile::TempDir,
}

impl Watched {
    async fn start() -> Self {
        let master = dev::Redis::temporary().await.expect("Redis runs");
        let port = master.port().to_string();
        let replica = dev::Redis::temporary_with(&["--replicaof", "127.0.0.1", &port]).await;
        let replica = replica.expect("Redis runs");
        until_says(&replica, &["INFO", "replication"], &["master_link_status:up"]).await;
        let settings = tempfile::tempdir().expect("a folder");
        let file = settings.path().join("sentinel.conf");
        let text = format!(
            "sentinel monitor main 127.0.0.1 {port} 1\n\
             sentinel down-after-milliseconds main 1000\n\
             sentinel failover-timeout main 5000\n"
        );
        std::fs::write(&file, text).expect("it can be written");
        let file = file.to_string_lossy();
        let sentinel = dev::Redis::temporary_with(&[&file, "--sentinel"]).await;
        let sentinel = sentinel.expect("Sentinel runs");
        until_says(&sentinel, &["INFO", "sentinel"], &["slaves=1"]).await;
        Self { master, replica, sentinel, _settings: settings }
    }

    fn url(&self) -> String {
        format!("redis-sentinel://127.0.0.1:{}?sentinelServiceName=main", self.sentinel.port())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_by_sentinel_to_a_replica_that_lagged_miscounts_nothing() {
    let watched = Watched::start().await;
    let cluster = Cluster::with(2, |config| {
        config.redis_url = watched.url().into();
        config.head_check_interval = NO_HEAD_CHECK;
    })
    .await;
    let alice = cluster.user("alice");
    let mut listeners = listeners(&cluster, &alice, 3).await;
    talk(&alice, &mut listeners).await;

    // What is counted now, the next master never hears of.
    watched.replica.pause().expect("it runs");
    talk(&alice, &mut listeners).await;
    watched.master.kill();
    watched.replica.resume().expect("it runs");
    talk(&alice, &mut listeners).await;
    until_says(&watched.replica, &["INFO", "replication"], &["role:master"]).await;
    until_ready(&cluster).await;
    for Listener { user, chat, sent, .. } in &listeners {
        for replica in 0..2 {
            assert_eq!(user.on(replica).unread_in(chat).await, *sent);
        }
    }
    talk(&alice, &mut listeners).await;
}
