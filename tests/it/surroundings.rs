//! What a replica needs around it: whatever the URLs and the servers have set, it works or says what is
//! wrong.

use std::{
    net::Ipv4Addr,
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use beseda::config::{Config, Switch};
use futures_util::future::join_all;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::Command,
    task::JoinSet,
};

use crate::harness::{Cluster, Program, Psql, Reply, SECRET, eventually};

/// Runs `beseda` with these words on that database.
async fn beseda(words: &[&str], database_url: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beseda"));
    command.args(words).env_clear().env("DATABASE_URL", database_url);
    // What `serve` wants besides; it does not get that far.
    command.env("REDIS_URL", "redis://127.0.0.1:1").env("BESEDA_JWT_HS256_SECRET", SECRET);
    command.env("BESEDA_LISTEN", "127.0.0.1:0").env("BESEDA_INTERNAL_LISTEN", "127.0.0.1:0");
    command.output().await.expect("the program runs")
}

fn said(output: &Output) -> String {
    let printed = String::from_utf8_lossy(&output.stdout);
    format!("{printed}{}", String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_database_url_sets_holds_for_every_command() {
    let mut cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    // Another installation, in the usual place.
    let theirs = alice.on(0).open_chat(&bob).await;
    alice.on(0).send(&theirs, "theirs").await;
    alice.on(0).send(&theirs, "theirs too").await;
    cluster.psql("CREATE SCHEMA chat").await;
    let url = cluster.database_url() + "?options=-c%20search_path%3Dchat&application_name=ours";
    let migrated = beseda(&["migrate"], &url).await;
    assert_eq!(migrated.status.code(), Some(0), "{}", said(&migrated));

    let in_schema = url.clone();
    let ours = cluster
        .add_replica_with(move |config| {
            config.database.database_url = in_schema.into();
            config.migrate_on_start = Switch::Off;
            config.redis_prefix += "chat:";
        })
        .await;
    let list = alice.on(ours).get("/chats/").await.expect(200);
    assert_eq!(list["results"], json!([]), "nothing of theirs");
    let chat = alice.on(ours).open_chat(&bob).await;
    alice.on(ours).send(&chat, "ours").await;
    alice.on(ours).get(&chat.path("messages/")).await.expect(200);
    alice.on(ours).get(&theirs.path("messages/")).await.expect_problem(404, "chat_not_found");
    for (schema, count) in [("chat", 1), ("public", 2)] {
        let messages = format!("SELECT count(*) FROM {schema}.messages");
        assert_eq!(cluster.psql_value::<i64>(&messages).await, count, "{schema}");
    }
    let named = "SELECT count(*) FROM pg_stat_activity
                  WHERE application_name = 'ours' AND datname = current_database()";
    assert!(cluster.psql_value::<i64>(named).await > 0, "the URL's name for it");
    // One chat each.
    cluster.psql("UPDATE chat.chats SET last_seq = 7").await;
    for (url, code) in [(&url, 1), (&cluster.database_url(), 0)] {
        let verified = beseda(&["verify"], url).await;
        assert_eq!(verified.status.code(), Some(code), "{}", said(&verified));
        assert!(said(&verified).contains("1 chats looked at"), "{}", said(&verified));
    }
    let check = beseda(&["migrate", "--check"], &url).await;
    assert_eq!(check.status.code(), Some(0), "{}", said(&check));

    let nowhere = cluster.database_url() + "?options=-c%20search_path%3Dnowhere";
    for command in [&["migrate"][..], &["migrate", "--check"], &["serve"]] {
        let refused = beseda(command, &nowhere).await;
        assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
        assert!(said(&refused).contains("search_path names no schema"), "{}", said(&refused));
    }
    cluster.drain(ours).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_utf8_is_refused() {
    let cluster = Cluster::start(0).await;
    let postgres = &cluster.stack().postgres;
    let server = Psql::connect(&postgres.url("postgres")).await;
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let name = format!("{}_{}", cluster.database(), encoding.to_lowercase());
        let create = format!("CREATE DATABASE {name} ENCODING '{encoding}'");
        server.run(&format!("{create} LOCALE 'C' TEMPLATE template0")).await;
        for command in [&["migrate"][..], &["migrate", "--check"], &["serve"]] {
            let refused = beseda(command, &postgres.url(&name)).await;
            let said = said(&refused);
            assert_eq!(refused.status.code(), Some(1), "{said}");
            assert!(said.contains(&format!("encoding is {encoding}: it must be UTF8")), "{said}");
        }
        postgres.drop_database(&name).await.expect("no connection uses it");
    }
    cluster_is_migrated(&cluster).await;
}

/// The checks at the end need a schema.
async fn cluster_is_migrated(cluster: &Cluster) {
    let migrated = beseda(&["migrate"], &cluster.database_url()).await;
    assert_eq!(migrated.status.code(), Some(0), "{}", said(&migrated));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_database_has_as_its_default_does_not_matter_or_is_refused() {
    let mut cluster = Cluster::start(0).await;
    let name = cluster.database().to_owned();
    let set = async |setting: &str| {
        cluster.psql(&format!("ALTER DATABASE {name} SET {setting}")).await;
    };
    for setting in [
        "default_transaction_isolation = 'repeatable read'",
        "standard_conforming_strings = off",
        "\"TimeZone\" = 'Asia/Kolkata'",
        "\"DateStyle\" = 'SQL, DMY'",
        "bytea_output = 'escape'",
        "\"IntervalStyle\" = 'sql_standard'",
        "statement_timeout = '1s'",
        "idle_session_timeout = '300ms'",
    ] {
        set(setting).await;
    }
    cluster_is_migrated(&cluster).await;
    for _ in 0..2 {
        cluster.add_replica().await;
    }
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let path = chat.path("messages/");
    // Both replicas want one chat's lock, again and again.
    let sends = (0..100).map(async |n: usize| {
        let sender = if n.is_multiple_of(2) { alice.on(0) } else { bob.on(1) };
        let sent = sender.post(&path, json!({ "text": format!("{n}") })).await;
        assert_eq!(sent.status, 201, "{sent:?}");
    });
    join_all(sends).await;
    assert_eq!(bob.on(0).unread_in(&chat).await, 50);

    // Where a pooler is, nothing can be set for a connection.
    let refused = cluster.refusal(|config| config.database.database_prepared = Switch::Off).await;
    for setting in ["default_transaction_isolation is repeatable read", "standard_conforming"] {
        assert!(refused.contains(setting), "{refused}");
    }
    cluster.psql(&format!("ALTER DATABASE {name} SET synchronous_commit = off")).await;
    let refused = cluster.refusal(|_| {}).await;
    assert!(refused.contains("synchronous_commit is off"), "{refused}");
    cluster.psql(&format!("ALTER DATABASE {name} RESET ALL")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_log_has_a_value_that_postgres_quotes() {
    let mut cluster = Cluster::start(1).await;
    let log = [("BESEDA_LOG", "debug")];
    let (program, replica) = Program::join(&mut cluster, &log).await;
    let (alice, bob, host) = (cluster.user("alice"), cluster.user("bob"), cluster.host());
    let chat = alice.on(replica).open_chat(&bob).await;
    // Each is broken by a row of which Postgres quotes another part: the whole, in its detail; a value,
    // in its message.
    cluster
        .psql(
            "ALTER TABLE messages ADD CONSTRAINT no_violets CHECK (text !~ 'violets');
             ALTER TABLE users ADD CONSTRAINT numbers_only
                   CHECK (user_id <> 'carol' OR name::int > 0)",
        )
        .await;
    let text = "a secret about violets";
    let refused = alice.on(replica).post(&chat.path("messages/"), json!({ "text": text })).await;
    refused.expect_problem(500, "internal");
    let name = json!({ "name": "Carol Secretname" });
    host.on(replica).put("/users/carol/", name).await.expect_problem(500, "internal");
    let log = eventually(async || {
        let log = program.log();
        let told = log.contains("constraint no_violets") && log.contains("SQLSTATE 22P02");
        if told { Ok(log) } else { Err(log) }
    })
    .await;
    for value in ["violets about", "secret about", "Secretname", "Failing row"] {
        assert!(!log.contains(value), "{value}: {log}");
    }

    // A migration, too: of a row that was there before it.
    cluster
        .psql(
            "ALTER TABLE messages DROP CONSTRAINT no_violets;
             ALTER TABLE users DROP CONSTRAINT numbers_only;
             DELETE FROM refinery_schema_history;
             CREATE FUNCTION quote() RETURNS event_trigger LANGUAGE plpgsql AS $$
             BEGIN
                 RAISE EXCEPTION 'refused' USING DETAIL = 'Failing row contains (secret).';
             END $$;
             CREATE EVENT TRIGGER quote ON ddl_command_start EXECUTE FUNCTION quote()",
        )
        .await;
    let failed = beseda(&["migrate"], &cluster.database_url()).await;
    cluster.psql("DROP EVENT TRIGGER quote; DROP FUNCTION quote()").await;
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let said = said(&failed);
    assert!(said.contains("ERROR: refused (SQLSTATE P0001)"), "{said}");
    assert!(!said.contains("secret"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_waits_for_postgres_and_names_the_cause() {
    let mut cluster = Cluster::with_own_stack(1, |_| {}).await;
    cluster.stack().postgres.stop().await;
    let impatient = Program::start(&cluster, &[("BESEDA_DATABASE_WAIT", "0s")]);
    eventually(async || {
        let log = impatient.log();
        let named = log.contains("beseda: no usable connection") && log.contains("refused");
        if named { Ok(()) } else { Err(log) }
    })
    .await;
    let patient = Program::start(&cluster, &[]);
    let waits = eventually(async || {
        let log = patient.log();
        let times = log.matches("Postgres is away: waiting for it").count();
        if times >= 3 { Ok(log) } else { Err(log) }
    })
    .await;
    assert!(waits.contains("Connection refused") && !waits.contains("db error"), "{waits}");
    cluster.stack().postgres.restart().await.expect("it is there");
    let replica = patient.joined(&mut cluster).await;
    cluster.user("alice").on(replica).get("/chats/").await.expect(200);
}

/// Requests during a pause fail at once with the cause. `allowed` has a first wave of attempts, then two
/// per second, because a pause that has grown lasts half a second at least.
#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_is_away_is_not_stormed() {
    let cluster = Cluster::with_own_stack(1, |_| {}).await;
    let alice = cluster.user("alice").on(0);
    let history = alice.open_chat(&cluster.user("bob")).await.path("messages/");
    alice.get(&history).await.expect(200);
    let port = cluster.stack().postgres.port();
    tokio::task::block_in_place(|| cluster.stack().postgres.kill());
    // In its place, a listener counts connections.
    let listener = eventually(async || {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(|error| error.to_string())
    })
    .await;
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let counting = tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            drop(connection);
        }
    });
    let began = Instant::now();
    for _ in 0..30 {
        let asked = join_all((0..10).map(async |_| alice.get(&history).await)).await;
        assert!(asked.iter().all(|answer| answer.status == 503), "{asked:?}");
    }
    let attempts = count.load(Ordering::Relaxed);
    let allowed = 30 + 2 * usize::try_from(began.elapsed().as_secs()).expect("some seconds");
    assert!(attempts <= allowed, "{attempts} connections for 300 requests");
    counting.abort();
    let _ = counting.await;
    cluster.stack().postgres.restart().await.expect("it is there again");
    eventually(async || {
        let answer = alice.get(&history).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text) }
    })
    .await;
}

/// Passes all on, but has the server say that it is Redis 5.
async fn pretend_to_be_old(mut client: TcpStream, redis: u16) -> std::io::Result<()> {
    const FIELD: &[u8] = b"redis_version:";
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, redis)).await?;
    let (mut asked, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => match read? {
                0 => return Ok(()),
                count => server.write_all(&asked[..count]).await?,
            },
            read = server.read(&mut answered) => match read? {
                0 => return Ok(()),
                count => {
                    let answer = &mut answered[..count];
                    let field = answer.windows(FIELD.len()).position(|part| part == FIELD);
                    if let Some(at) = field {
                        answer[at + FIELD.len()] = b'5';
                    }
                    client.write_all(answer).await?;
                }
            },
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_too_old_is_refused() {
    let cluster = Cluster::start(1).await;
    let redis = cluster.stack().redis.port();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let old = listener.local_addr().expect("it is bound").port();
    let mut relays = JoinSet::new();
    relays.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            connections.spawn(pretend_to_be_old(client, redis));
        }
    });
    let program = Program::start(&cluster, &[("REDIS_URL", &format!("redis://127.0.0.1:{old}"))]);
    // It ends with that, or, where Redis took longer than a start waits, does without.
    eventually(async || {
        let log = program.log();
        let told = log.contains("this is Redis 5.") && log.contains("6.2 or newer is needed");
        if told { Ok(()) } else { Err(log) }
    })
    .await;
    assert!(!program.log().contains("Redis is up"), "{}", program.log());
    relays.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_has_an_end() {
    let began = Instant::now();
    let words = ["migrate", "--database-wait", "1s"];
    let nowhere = beseda(&words, "postgresql://127.0.0.1:1/none").await;
    assert_eq!(nowhere.status.code(), Some(1), "{nowhere:?}");
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    let text = said(&nowhere);
    assert!(text.contains("waiting for it"), "{text}");
    // A password that is wrong stays wrong, and so does a name.
    let cluster = Cluster::start(1).await;
    let unknown = beseda(&["migrate"], &cluster.stack().postgres.url("none")).await;
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
    let text = said(&unknown);
    assert!(!text.contains("waiting for it"), "{text}");
    assert!(text.contains("database \"none\" does not exist"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn installations_on_two_databases_of_one_redis_do_not_hear_each_other() {
    // The harness compares what is in Redis under its own prefix, in database 0.
    let prefix = format!("shared-{:016x}:", std::process::id());
    let on = |number: u8| {
        let prefix = prefix.clone();
        move |config: &mut Config| {
            config.redis_prefix = prefix;
            config.redis_url = format!("{}/{number}", config.redis_url.expose()).into();
        }
    };
    let (one, other) = (Cluster::with(2, on(1)).await, Cluster::with(2, on(2)).await);
    let (alice, bob) = (other.user("alice"), other.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut socket = bob.on(1).connect(&chat).await;
    // The channel that all replicas of an installation listen to is there twice, with two of them each.
    let mut redis = one.redis().await;
    eventually(async || {
        let pattern = format!("{prefix}*");
        let names = redis.command(&["PUBSUB", "CHANNELS", &pattern]).await.list();
        let names: Vec<String> = names.into_iter().map(Reply::text).collect();
        let words = ["PUBSUB", "NUMSUB"].into_iter().chain(names.iter().map(String::as_str));
        let heard = redis.command(&words.collect::<Vec<_>>()).await.list();
        match heard.iter().filter(|reply| **reply == Reply::Int(2)).count() {
            2 => Ok(()),
            _ => Err(format!("{heard:?}")),
        }
    })
    .await;
    // Another installation erases a user of the same id, then another replica of this one does.
    one.host().on(0).put("/users/bob/", json!({})).await.expect(201);
    one.host().on(0).delete("/users/bob/").await.expect(204);
    let sent = alice.on(0).send(&chat, "still here").await;
    assert_eq!(socket.expect_message().await, sent);
    assert_eq!(socket.frames_so_far().await, [0_i64; 0]);
    other.host().on(0).delete("/users/bob/").await.expect(204);
    socket.expect_close(4006).await;
}
