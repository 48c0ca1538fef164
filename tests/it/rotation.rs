//! Secrets take each other's place while people write, step by step as docs/run/rotation.md says: no
//! request may fail.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use aws_lc_rs::hmac;
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use beseda::config::{Config, Secret, Switch};
use jsonwebtoken::{Algorithm, EncodingKey};
use rand::seq::IndexedRandom;
use reqwest::Method;
use tokio::{net::TcpListener, task::JoinSet};

use crate::harness::{
    CEILING, Chat, Cluster, Reply, SECRET, User, claims, eventually, eventually_within, sign_with,
};

const ROTATION: &str = include_str!("../../docs/run/rotation.md");
const SECURITY: &str = include_str!("../../docs/run/security.md");

/// A block of code in a page, by its language and its place among those.
fn documented(page: &'static str, language: &str, place: usize) -> &'static str {
    let block = page.split(&format!("```{language}\n")).nth(place + 1).expect("a block");
    block.split_once("```").expect("the block's end").0
}

/// People who write all the time, each in a chat of their own.
const WRITERS: usize = 6;

/// Between two messages of one of them: so webhooks, which come in order within a chat, keep up.
const PAUSE: Duration = Duration::from_millis(20);

/// How long a draining replica still serves. Clients that chose it before it left the list must have sent
/// their requests by then, even on a busy machine.
const DRAIN_DELAY: Duration = Duration::from_secs(1);

/// What those who write know of the installation.
struct World {
    /// The replicas that a balancer would choose from.
    live: RwLock<Vec<usize>>,
    /// What the host application signs with.
    secret: RwLock<String>,
    acknowledged: AtomicUsize,
    stop: AtomicBool,
}

impl World {
    fn any(&self) -> usize {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        *live.choose(&mut rand::rng()).expect("one is always there")
    }

    fn token(&self, user: &User) -> String {
        let secret = self.secret.read().unwrap_or_else(PoisonError::into_inner);
        token(&secret, &user.id)
    }
}

fn token(secret: &str, user: &str) -> String {
    sign_with(Algorithm::HS256, &EncodingKey::from_secret(secret.as_bytes()), &claims(user))
}

/// Sends until told to stop. Whatever fails, fails the test.
async fn write(world: Arc<World>, user: User, chat: Chat) {
    while !world.stop.load(Relaxed) {
        let client = user.with_token(world.token(&user)).on(world.any());
        client.send(&chat, "x").await;
        world.acknowledged.fetch_add(1, Relaxed);
        tokio::time::sleep(PAUSE).await;
    }
}

/// Replicas behind a balancer, and the people who write there.
struct Installation {
    cluster: Cluster,
    world: Arc<World>,
    writers: JoinSet<()>,
}

impl Installation {
    /// Over all replicas of `cluster`, where `secret` is what tokens are signed with.
    async fn start(cluster: Cluster, replicas: usize, secret: &str) -> Self {
        let world = Arc::new(World {
            live: RwLock::new((0..replicas).collect()),
            secret: RwLock::new(secret.to_owned()),
            acknowledged: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let mut writers = JoinSet::new();
        for number in 0..WRITERS {
            let alice = cluster.user(&format!("alice {number}"));
            let alice = alice.with_token(world.token(&alice));
            let bob = cluster.user(&format!("bob {number}"));
            let chat = alice.on(world.any()).open_chat(&bob).await;
            writers.spawn(write(Arc::clone(&world), alice, chat));
        }
        let mut installation = Self { cluster, world, writers };
        installation.goes_on().await;
        installation
    }

    /// People have sent some messages more, and no request has failed so far.
    async fn goes_on(&mut self) {
        let wanted = self.world.acknowledged.load(Relaxed) + 10 * WRITERS;
        let Self { world, writers, .. } = self;
        eventually(async || {
            if let Some(ended) = writers.try_join_next() {
                ended.expect("no request fails");
            }
            match world.acknowledged.load(Relaxed) {
                so_far if so_far >= wanted => Ok(()),
                so_far => Err(format!("{so_far} messages of {wanted}")),
            }
        })
        .await;
    }

    /// Replaces all replicas, one after the other, by two with these settings; a new one is there
    /// before an old one goes.
    async fn roll(&mut self, set: impl Fn(&mut Config)) {
        let old = self.world.live.read().unwrap_or_else(PoisonError::into_inner).clone();
        for number in 0..old.len().max(2) {
            let new = self.cluster.add_replica_with(&set).await;
            let gone = old.get(number).copied();
            {
                let mut live = self.world.live.write().unwrap_or_else(PoisonError::into_inner);
                live.push(new);
                live.retain(|replica| Some(*replica) != gone);
            }
            if let Some(gone) = gone {
                self.cluster.drain(gone).await;
            }
        }
        self.goes_on().await;
    }

    /// From now on tokens are signed with this.
    fn sign_with(&self, secret: &str) {
        secret.clone_into(&mut self.world.secret.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Stops the people, and sees that all they were told is there.
    async fn stop(mut self) -> (Cluster, Arc<World>) {
        self.goes_on().await;
        self.world.stop.store(true, Relaxed);
        while let Some(ended) = self.writers.join_next().await {
            ended.expect("no request fails");
        }
        let acknowledged = self.world.acknowledged.load(Relaxed);
        let kept = self.cluster.psql_value::<usize>("SELECT count(*) FROM messages").await;
        assert_eq!(kept, acknowledged);
        (self.cluster, self.world)
    }
}

fn serving(config: &mut Config) {
    config.drain_delay = DRAIN_DELAY;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_of_tokens_is_replaced_without_a_refused_request() {
    const OLD: &str = "the secret, with a comma in it, that goes away";
    let cluster = Cluster::with(2, |config| {
        serving(config);
        config.auth.jwt_hs256_secret = Some(Secret::from(OLD.to_owned()));
    })
    .await;
    let secrets = |text: String| {
        move |config: &mut Config| {
            config.auth.jwt_hs256_secret = Some(Secret::from(text.clone()));
        }
    };
    let mut installation = Installation::start(cluster, 2, OLD).await;
    installation.roll(secrets(format!("{SECRET}\n{OLD}"))).await;
    installation.sign_with(SECRET);
    installation.goes_on().await;
    installation.roll(secrets(SECRET.to_owned())).await;
    let (cluster, world) = installation.stop().await;

    let alice = cluster.user("alice 0");
    let late = alice.with_token(token(OLD, &alice.id)).on(world.any()).get("/chats/").await;
    late.expect_problem(401, "token_invalid");
}

/// The host application's server, which knows one secret and takes what is signed with that.
struct Receiver {
    secret: RwLock<&'static str>,
    taken: Mutex<HashSet<String>>,
    refused: AtomicUsize,
}

async fn receive(
    State(receiver): State<Arc<Receiver>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let header = |name: &str| headers[name].to_str().expect("ASCII");
    let secret = *receiver.secret.read().unwrap_or_else(PoisonError::into_inner);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &BASE64_STANDARD.decode(secret).expect("base64"));
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", &body].concat();
    let good = header("webhook-signature").split(' ').any(|signature| {
        let tag = signature.strip_prefix("v1,").and_then(|tag| BASE64_STANDARD.decode(tag).ok());
        tag.is_some_and(|tag| hmac::verify(&key, &signed, &tag).is_ok())
    });
    if good {
        receiver.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned());
        StatusCode::NO_CONTENT
    } else {
        receiver.refused.fetch_add(1, Relaxed);
        StatusCode::UNAUTHORIZED
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_of_webhooks_is_replaced_without_an_event_refused_by_its_receiver() {
    const OLD: &str = "dGhlIHNlY3JldCB0aGF0IGdvZXMgYXdheSBzb29u";
    const NEW: &str = "dGhlIHNlY3JldCB0aGF0IGlzIHRvIGNvbWUgbmV4dA==";
    let receiver = Arc::new(Receiver {
        secret: RwLock::new(OLD),
        taken: Mutex::default(),
        refused: AtomicUsize::new(0),
    });
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let router = Router::new().fallback(receive).with_state(Arc::clone(&receiver));
    tokio::spawn(async move { axum::serve(listener, router).await });

    let secrets = |text: String| {
        move |config: &mut Config| {
            config.webhooks.webhook_secret = Some(Secret::from(text.clone()));
        }
    };
    let cluster = Cluster::with(2, |config| {
        serving(config);
        config.webhooks.webhook_url = url.parse().ok();
        config.webhooks.webhook_allow_private = Switch::On;
        config.webhooks.webhook_delay = Duration::ZERO;
        secrets(OLD.to_owned())(config);
    })
    .await;
    let mut installation = Installation::start(cluster, 2, SECRET).await;
    installation.roll(secrets(format!("{NEW},{OLD}"))).await;
    *receiver.secret.write().unwrap_or_else(PoisonError::into_inner) = NEW;
    installation.goes_on().await;
    installation.roll(secrets(NEW.to_owned())).await;
    let (cluster, world) = installation.stop().await;

    let sent = world.acknowledged.load(Relaxed);
    eventually_within(CEILING * 6, async || {
        match receiver.taken.lock().unwrap_or_else(PoisonError::into_inner).len() {
            taken if taken == sent => Ok(()),
            taken => Err(format!("{taken} events of {sent}")),
        }
    })
    .await;
    assert_eq!(receiver.refused.load(Relaxed), 0, "signed with nothing that the receiver knew");
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_that_serves_is_replaced_by_another_without_a_failed_request() {
    // Its first replica migrates, as the owner.
    let cluster = Cluster::with_own_stack(1, serving).await;
    let owner = cluster.database_url();
    cluster.psql(documented(SECURITY, "sql", 0)).await;
    // Passwords are asked for, as anywhere but in tests.
    let rules = cluster.stack().postgres.cluster().join("pg_hba.conf");
    let asked = "host all beseda 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    std::fs::write(rules, asked).expect("the rules are written");
    cluster.psql("SELECT pg_reload_conf()").await;
    let with = |login: &str| {
        let url = owner.replace("beseda@", &format!("{login}@"));
        move |config: &mut Config| {
            config.migrate_on_start = Switch::Off;
            config.database.database_url = Secret::from(url.clone());
        }
    };
    let (old, new) = (with("beseda_service:change-me"), with("beseda_service_b:change-me-too"));
    eventually(async || {
        let refusal = cluster.refusal(with("beseda_service:wrong")).await;
        if refusal.contains("password authentication failed") { Ok(()) } else { Err(refusal) }
    })
    .await;

    let mut installation = Installation::start(cluster, 1, SECRET).await;
    installation.roll(&old).await;
    installation.cluster.psql(documented(ROTATION, "sql", 0)).await;
    installation.roll(&new).await;
    installation.cluster.psql(documented(ROTATION, "sql", 1)).await;
    // No connection is left over from before: all are made anew.
    let cut =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'beseda_service'";
    assert!(installation.cluster.psql(cut).await.is_empty(), "a connection uses the old role");
    installation.goes_on().await;
    let (cluster, _) = installation.stop().await;
    let refusal = cluster.refusal(old).await;
    assert!(refusal.contains("not permitted to log in"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_of_redis_is_replaced_without_a_failed_request_or_a_degraded_replica() {
    let cluster = Cluster::with_own_stack(2, |config| {
        serving(config);
        config.redis_prefix = "beseda:".to_owned();
    })
    .await;
    let port = cluster.stack().redis.port();
    let mut redis = cluster.redis().await;
    let mut run = async |lines: &str| {
        for line in lines.lines().filter(|line| !line.trim().is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            redis.command(&words).await;
        }
    };
    let with = |password: &str| {
        let url = format!("redis://beseda:{password}@127.0.0.1:{port}");
        move |config: &mut Config| config.redis_url = Secret::from(url.clone())
    };
    run(documented(SECURITY, "acl", 0)).await;
    let mut installation = Installation::start(cluster, 2, SECRET).await;
    // A replica is taken for started once it has Redis.
    installation.roll(with("change-me")).await;
    run(documented(ROTATION, "acl", 0)).await;
    installation.roll(with("change-me-too")).await;
    run(documented(ROTATION, "acl", 1)).await;
    installation.goes_on().await;
    let (cluster, world) = installation.stop().await;

    let ready = cluster.operator(world.any()).request(Method::GET, "/readyz").await;
    assert_eq!(ready.json["status"], "ready", "{}", ready.text);
    let user = cluster.redis().await.command(&["ACL", "GETUSER", "beseda"]).await.list();
    let mut fields = user.into_iter().skip_while(|field| *field != Reply::Text("passwords".into()));
    let passwords = fields.nth(1).expect("its passwords").list();
    assert_eq!(passwords.len(), 1, "the old one is still good: {passwords:?}");
}
