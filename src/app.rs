//! Wiring: [`start`] returns a running replica, [`Replica::drain`] ends it without loss.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use beseda_protocol::rest::PushInfo;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    admission_cache::AdmissionCache,
    api,
    attachments::Attachments,
    auth::{Tickets, Verifier},
    broker::{Broker, RedisClient, RedisError},
    chat::{Chats, Parts, SharedChats},
    config::{Config, ConfigError, Switch},
    context::{Context, INBOX_READS, OPENINGS, Phase, Shared},
    error::chain,
    history::History,
    hub::{Feed, Sources},
    limits::Limits,
    metrics::Metrics,
    outbox::Outbox,
    presence::{Presence, Transition},
    purge, push,
    readiness::Readiness,
    server, socket,
    store::{self, Store, StoreError},
    token_cache::TokenCache,
    unread::Unread,
    webhooks,
    writer::Writer,
};

/// How often full token buckets are dropped.
const FORGET_BUCKETS: Duration = Duration::from_secs(60);

/// The part of the grace, at most a quarter, reserved for giving up presence leases and publishing
/// commits.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// How long publishing may take, if as much is left; the sweepers of other replicas publish the
/// rest.
const FLUSH_WAIT: Duration = Duration::from_secs(3);

/// How long sockets are waited for after the drain window: a close, and a second until the
/// connection is gone.
const GOODBYES: Duration = socket::CLOSE_WAIT.saturating_add(Duration::from_secs(1));

/// How long startup waits for Redis before it serves without it: earlier clients would be told that
/// all users of other replicas are offline, and nothing would correct it.
const REDIS_WAIT: Duration = Duration::from_secs(1);

/// The two listeners of a replica, bound by the caller (port 0 in tests).
#[derive(Debug)]
pub struct Listeners {
    pub public: TcpListener,
    pub internal: TcpListener,
}

/// The reason why a replica did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot listen")]
    Listen(#[from] std::io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Redis(#[from] RedisError),
}

/// A running replica.
#[derive(Debug)]
pub struct Replica {
    public: SocketAddr,
    internal: SocketAddr,
    context: Context,
    phase: watch::Sender<Phase>,
    /// Stops accepting connections.
    stop_serving: CancellationToken,
    /// Stops the health and metrics port, the last of all.
    stop_internal: CancellationToken,
    /// Stops taking webhooks and pushes; cancelled first, as those in flight may take seconds.
    stop_webhooks: CancellationToken,
    /// Stops the background tasks.
    stop: CancellationToken,
    servers: TaskTracker,
    tasks: TaskTracker,
}

/// Starts a replica: waits for Postgres, checks it and its schema, serves. Redis may be
/// unavailable.
pub async fn start(config: Config, listeners: Listeners) -> Result<Replica, StartError> {
    config.validate()?;
    tracing::debug!(?config, "starting");
    let metrics = Arc::new(Metrics::default());
    let store =
        Store::new(&config.database, Arc::clone(&metrics))?.with_webhooks(config.webhooks.delay());
    let store = store.with_push(config.push.delay());
    let senders = push::Senders::new(&config.push)?;
    let (secret, epoch) = store::patiently(&config.database, async || {
        if config.migrate_on_start == Switch::On {
            store::migrate(&config.database).await?;
        }
        store.check_database().await?;
        store.check_schema().await?;
        Ok((store.get_instance_secret().await?, store.get_epoch().await?))
    })
    .await?;
    store.warm_up().await;
    let verifier = Verifier::new(&config.auth)?;
    verifier.load().await;

    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let redis = RedisClient::connect(
        config.redis_url.expose(),
        config.redis_ca.as_deref(),
        &config.redis_prefix,
    )?;
    redis.wait(REDIS_WAIT).await?;
    let sharded = config.redis_sharded_pubsub == Switch::On;
    let (broker, events) = Broker::connect(&redis, sharded);
    if redis.is_up() {
        // Publications have a connection of their own. What is said before it stands, and that nothing
        // stores, would be lost: presence and typing.
        broker.wait(REDIS_WAIT).await;
    }
    let history = History::new(epoch);
    let unread = Unread::new(redis.clone(), history.clone());
    let (transitions, came_and_went) = mpsc::unbounded_channel();
    let presence = Presence::start(redis.clone(), Uuid::now_v7(), transitions);
    let outbox = Outbox::start(
        store.clone(),
        redis.clone(),
        broker.clone(),
        unread.clone(),
        Arc::clone(&metrics),
        &tasks,
        stop.clone(),
    );
    let writer = Writer::start(&store, &outbox, &metrics, &tasks, &stop);
    let (admissions, readiness) =
        (AdmissionCache::new(store.clone()), Readiness::new(store.clone()));
    let sources = Sources {
        store: store.clone(),
        redis: redis.clone(),
        broker: broker.clone(),
        history,
        admissions: admissions.clone(),
        presence: presence.clone(),
        events,
    };
    let feed = Feed::start(
        sources,
        config.head_check_interval,
        Arc::clone(&metrics),
        &tasks,
        stop.clone(),
    );
    let (stop_webhooks, abort) = (stop.child_token(), CancellationToken::new());
    webhooks::start(
        &config.webhooks,
        webhooks::Parts {
            store: store.clone(),
            presence: presence.clone(),
            metrics: Arc::clone(&metrics),
        },
        &tasks,
        stop_webhooks.clone(),
        abort.clone(),
    )?;
    let push_info = PushInfo {
        platforms: config.push.platforms(),
        vapid_public_key: senders.vapid_public_key(),
    };
    push::start(
        &config.push,
        senders,
        push::Parts { store: store.clone(), redis: redis.clone(), metrics: Arc::clone(&metrics) },
        &tasks,
        stop_webhooks.clone(),
        abort.clone(),
    );
    let (purging, stopped) = (purge::run(store.clone()), stop.clone());
    tasks.spawn(async move { stopped.run_until_cancelled(purging).await });
    let attachments = Attachments::start(
        &config.attachments,
        &store,
        &secret,
        &outbox,
        &metrics,
        &tasks,
        stop.clone(),
    )?;
    let parts = Parts {
        store,
        writer,
        outbox,
        broker,
        unread,
        presence,
        admissions,
        attachments: attachments.clone(),
        push: push_info,
    };
    let chats: SharedChats = Arc::new(Chats::new(parts, &config, &secret));
    let limits = Arc::new(Limits::new(&config.limits, Arc::clone(&metrics)));
    tasks.spawn(tell_presence(Arc::clone(&chats), came_and_went, stop.clone()));
    let (refreshing, stopped) = (verifier.clone().keep_fresh(), stop.clone());
    tasks.spawn(async move { stopped.run_until_cancelled(refreshing).await });
    tasks.spawn(forget_buckets(Arc::clone(&limits), stop.clone()));

    let (phase, watching) = watch::channel(Phase::Serving);
    let context = Context::new(Shared {
        config,
        chats,
        attachments,
        feed,
        redis,
        readiness,
        verifier,
        token_cache: TokenCache::default(),
        tickets: Tickets::new(&secret),
        limits,
        metrics,
        phase: watching,
        sockets: TaskTracker::new(),
        openings: Arc::new(Semaphore::new(OPENINGS)),
        inbox_reads: Arc::new(Semaphore::new(INBOX_READS)),
        abort_sockets: abort.child_token(),
        abort,
    });
    let (stop_serving, stop_internal) = (CancellationToken::new(), CancellationToken::new());
    let servers = TaskTracker::new();
    let replica = Replica {
        public: listeners.public.local_addr()?,
        internal: listeners.internal.local_addr()?,
        phase,
        stop_serving: stop_serving.clone(),
        stop_internal: stop_internal.clone(),
        stop_webhooks,
        stop,
        servers: servers.clone(),
        tasks,
        context: context.clone(),
    };
    let limits = &context.config.limits;
    let accept_rate = (limits.rate_limits == Switch::On)
        .then(|| server::AcceptRate::per_second(limits.rate_accepts));
    let internal = server::serve(
        listeners.internal,
        api::internal_router(&context),
        context.config.http.clone(),
        None,
        stop_internal,
        context.abort.clone(),
    );
    let public = server::serve(
        listeners.public,
        api::public_router(&context, socket::router()),
        context.config.http.clone(),
        accept_rate,
        stop_serving,
        context.abort.clone(),
    );
    replica.tasks.spawn(internal);
    // Unconstrained: tokio's cooperative budget would yield after 128 accepts.
    servers.spawn(tokio::task::unconstrained(public));
    Ok(replica)
}

/// Transitions published at once: a storm of thousands takes some dozens of statements.
const TRANSITIONS: usize = 256;

/// Publishes presence transitions in order.
async fn tell_presence(
    chats: SharedChats,
    mut transitions: mpsc::UnboundedReceiver<Transition>,
    stop: CancellationToken,
) {
    let mut batch = Vec::new();
    loop {
        let more = tokio::select! {
            biased;
            count = transitions.recv_many(&mut batch, TRANSITIONS) => count > 0,
            // The transitions of the drain were queued before, and the biased select takes them
            // first.
            () = stop.cancelled() => false,
        };
        if !more {
            return;
        }
        if let Err(error) = chats.tell_presence(&batch).await {
            tracing::warn!(error = chain(&error), "telling who came and went failed");
        }
        batch.clear();
    }
}

async fn forget_buckets(limits: Arc<Limits>, stop: CancellationToken) {
    let forgetting = async {
        loop {
            tokio::time::sleep(FORGET_BUCKETS).await;
            limits.forget_idle();
        }
    };
    stop.run_until_cancelled(forgetting).await;
}

impl Replica {
    pub fn public_addr(&self) -> SocketAddr {
        self.public
    }

    pub fn internal_addr(&self) -> SocketAddr {
        self.internal
    }

    /// The size of the replica's hub: chats, and subscriptions to them.
    pub fn followed(&self) -> (usize, usize) {
        self.context.feed.hub().size()
    }

    /// Drains the replica within the configured grace: reports not ready, closes sockets one by
    /// one, answers requests in flight, publishes what is committed.
    pub async fn drain(self) {
        let grace = self.context.config.shutdown_grace;
        let end = Instant::now() + grace;
        let last = LAST_WAIT.min(grace / 4);
        if tokio::time::timeout_at(end - last, self.leave()).await.is_err() {
            tracing::warn!(?grace, "the grace is nearly over; what is still open is cut off");
            self.context.abort.cancel();
        }
        if tokio::time::timeout_at(end, self.finish(end)).await.is_err() {
            tracing::warn!(?grace, "the grace is over; other replicas publish what is left");
        }
        self.context.abort.cancel();
    }

    /// Serves until no client is left.
    async fn leave(&self) {
        self.phase.send_replace(Phase::Leaving);
        self.stop_webhooks.cancel();
        // Balancers notice with a delay; connections that come until then are served.
        tokio::time::sleep(self.context.config.drain_delay).await;
        self.phase.send_replace(Phase::Closing);
        self.stop_serving.cancel();
        self.context.sockets.close();
        self.servers.close();
        let sockets = async {
            let limit = socket::drain_window(&self.context) + GOODBYES;
            if tokio::time::timeout(limit, self.context.sockets.wait()).await.is_err() {
                // A client that reads nothing does not complete the close either.
                self.context.abort_sockets.cancel();
            }
        };
        tokio::join!(sockets, self.servers.wait());
    }

    /// Ends the background tasks, each within a part of the time left until `end`.
    async fn finish(&self, end: Instant) {
        let left = || end.saturating_duration_since(Instant::now());
        // After this no socket can hold a lease. Leases that Redis does not release in time expire.
        self.context.sockets.close();
        self.context.sockets.wait().await;
        let leaving = self.context.chats.presence().leave_all();
        let _ = tokio::time::timeout(left() / 3, leaving).await;
        // Finished outbox rows are deleted now; other replicas sweep the rest.
        self.stop.cancel();
        self.stop_internal.cancel();
        self.tasks.close();
        let flushing = FLUSH_WAIT.min(left().mul_f64(0.8));
        let _ = tokio::time::timeout(flushing, self.tasks.wait()).await;
        self.context.redis.shutdown().await;
    }

    /// Ends at once like a crash: nothing is published, sockets break.
    pub fn abort(self) {
        self.context.abort.cancel();
        self.stop.cancel();
        self.stop_serving.cancel();
        self.stop_internal.cancel();
    }
}
