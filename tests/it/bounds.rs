//! What one account, or one connection, can make a replica hold.

use std::{net::SocketAddr, time::Duration};

use axum::{Router, routing::get};
use beseda::{
    config::{HttpConfig, Switch},
    server,
};
use reqwest::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::harness::{CEILING, Chat, Client, Cluster, Psql, User, eventually, fill};

/// Makes a chat of so many of the largest messages, 16 KB each, by SQL.
async fn fill_with_large(cluster: &Cluster, chat: &Chat, count: i64) {
    cluster.psql(&fill::messages(&chat.id, "alice", count, "repeat('\u{1F984}', 4000)")).await;
    // Counted there before.
    cluster.redis_flush().await;
}

/// Opens a connection whose client can buffer next to nothing.
async fn connect_narrow(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a TCP socket");
    socket.set_recv_buffer_size(4_096).expect("a small buffer");
    socket.connect(address).await.expect("the replica listens")
}

/// Requests a page of the largest messages eight times, and reads no response.
async fn hoard(user: &User, chat: &Chat) -> TcpStream {
    let address = user.on(0).host().parse().expect("an address");
    let mut stream = connect_narrow(address).await;
    let request = format!(
        "GET /api/v1/chats/{chat}/messages/?limit=100 HTTP/1.1\r\nHost: x\r\n\
         Authorization: Bearer {}\r\n\r\n",
        user.token
    );
    // The responses exceed the kernels' buffers on both sides, so that one stays in the replica.
    stream.write_all(request.repeat(8).as_bytes()).await.expect("taken");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_not_taken_count_against_their_user() {
    let cluster = Cluster::with(1, |config| {
        config.limits.rate_limits = Switch::On;
        config.limits.rate_reads = 10_000;
        config.limits.requests_per_user = 2;
        // Longer than the test.
        config.http.write_timeout = Duration::from_secs(60);
    })
    .await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    fill_with_large(&cluster, &chat, 100).await;
    let first = hoard(&alice, &chat).await;
    let second = hoard(&alice, &chat).await;
    // Each connection's second response no longer fits into the kernels' buffers.
    eventually(async || match asked(&cluster.operator(0), "store.get_history").await {
        pages if pages < 4 => Err(format!("only {pages} pages")),
        _ => Ok(()),
    })
    .await;
    let ask = async || alice.on(0).get("/chats/unread/").await;
    for _ in 0..20 {
        ask().await.expect_problem(429, "rate_limited");
    }
    bob.on(0).get("/chats/unread/").await.expect(200);
    cluster.host().on(0).get("/users/alice/").await.expect(200);
    let metrics = cluster.operator(0).request(Method::GET, "/metrics").await.text;
    let counted = |line: &str| line.starts_with(r#"beseda_rate_limited_total{class="requests"}"#);
    let refused = metrics.lines().find(|line| counted(line)).expect("a count");
    assert!(!refused.ends_with(" 0"), "{refused}");
    // A connection that closes returns its permit.
    drop(first);
    eventually(async || match ask().await {
        answer if answer.status == 200 => Ok(()),
        answer => Err(answer.text),
    })
    .await;
    drop(second);
}

/// Reads so many bytes five times a second; returns how many came before the end.
async fn take(address: SocketAddr, bytes: usize) -> usize {
    let mut stream = connect_narrow(address).await;
    let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.expect("taken");
    let (mut buffer, mut taken) = (vec![0; bytes], 0);
    // A reset is an end as well.
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        taken += read;
        sleep(Duration::from_millis(200)).await;
    }
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_an_answer_by_drips_is_cut_off() {
    const WHOLE: usize = 160 * 1024;
    let socket = TcpSocket::new_v4().expect("a TCP socket");
    // What is accepted from it has the same: on this machine's own network the kernel would hold all.
    socket.set_send_buffer_size(4_096).expect("a small buffer");
    socket.bind((std::net::Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
    let listener = socket.listen(16).expect("a free port");
    let address = listener.local_addr().expect("a port");
    let router = Router::new().route("/", get(async || vec![b'x'; WHOLE]));
    let config = HttpConfig {
        max_head_bytes: 32 * 1024,
        max_headers: 64,
        head_timeout: CEILING,
        body_timeout: CEILING,
        write_timeout: Duration::from_secs(2),
        // A connection that still reads is not idle.
        idle_timeout: Duration::from_secs(1),
    };
    let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
    let serving = tokio::spawn(server::serve(listener, router, config, None, stop.clone(), abort));
    // 5 KB a second are some half a minute, 40 KB a second some seconds.
    let both = async { tokio::join!(take(address, 1_024), take(address, 8_192)) };
    let (dripped, taken) = timeout(CEILING, both).await.expect("an end in time");
    assert!(dripped < WHOLE / 2, "{dripped} bytes by drips");
    assert!(taken > WHOLE, "only {taken} bytes");
    stop.cancel();
    serving.await.expect("it ends");
}

/// How often a replica has asked Postgres this.
async fn asked(operator: &Client, statement: &str) -> u64 {
    let metrics = operator.request(Method::GET, "/metrics").await.text;
    let wanted = format!("beseda_store_query_seconds_count{{query=\"{statement}\"}} ");
    let count = metrics.lines().find_map(|line| line.strip_prefix(&wanted));
    count.map_or(0, |count| count.parse().expect("a number"))
}

/// Looks into the indexes of a table. What connections have counted is added up when they end; the replica
/// opens new ones.
async fn looks(cluster: &Cluster, table: &str) -> i64 {
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()";
    cluster.psql(end).await;
    let looks = format!("SELECT idx_scan FROM pg_stat_all_tables WHERE relid = {table}");
    cluster.psql_value(&looks).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_large_is_resumed_in_small_pages() {
    const COUNT: i64 = 150;
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    fill_with_large(&cluster, &chat, COUNT).await;
    bob.on(0).mark_read(&chat).await;
    let epoch = bob.on(0).history(&chat, "?limit=1").await["epoch"].clone();
    let before = asked(&cluster.operator(0), "store.get_changes").await;
    let mut socket = bob.on(0).resume(&chat, 0, epoch.as_str().expect("text")).await;
    let frames = socket.frames_until("synced").await;
    let evs: Vec<i64> = frames
        .iter()
        .filter(|frame| frame["type"] == "message.created" || frame["type"] == "chat.read")
        .filter_map(|frame| frame["ev"].as_i64())
        .collect();
    assert_eq!(evs, (1..=COUNT + 1).collect::<Vec<_>>());
    assert_eq!(frames.last().and_then(|synced| synced["ev"].as_i64()), Some(COUNT + 1));
    // 2.4 MB, half a MiB at a time.
    let pages = asked(&cluster.operator(0), "store.get_changes").await - before;
    assert!((5..=7).contains(&pages), "{pages} pages");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_large_is_searched_in_small_pages() {
    const COUNT: i64 = 150;
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    // Beside the table and as they are, so that each one that is read is a look there. Autovacuum's
    // ANALYZE would read them all, too.
    let beside = "ALTER TABLE messages ALTER COLUMN text SET STORAGE EXTERNAL";
    cluster.psql(&format!("{beside}, SET (autovacuum_enabled = off)")).await;
    fill_with_large(&cluster, &chat, COUNT).await;
    let needles = format!("UPDATE messages SET text = 'a needle' WHERE seq IN (2, {COUNT})");
    cluster.psql(&needles).await;
    let texts = "(SELECT reltoastrelid FROM pg_class WHERE oid = 'messages'::regclass)";
    // Each text that was written was a look, too, and they are added when their connection has ended.
    let before = eventually(async || match looks(&cluster, texts).await {
        written @ COUNT.. => Ok(written),
        written => Err(format!("only {written} texts")),
    })
    .await;
    let search = async |before: i64| {
        let path = format!("search/?query=needle&limit=1&before={before}");
        let answer = bob.on(0).get(&chat.path(&path)).await;
        if answer.status == 200 { Ok(answer.json) } else { Err(answer.text) }
    };
    let mut page = eventually(async || search(COUNT + 1).await).await;
    // The newest is a hit. One read with it has a MiB, where two hundred texts of any size would be all.
    // The needles' own update counts as two, and each connection's reads are added when it has ended.
    let read = eventually(async || match looks(&cluster, texts).await - before {
        read @ ..60 => Err(format!("only {read} texts")),
        read => Ok(read),
    })
    .await;
    assert!((60..70).contains(&read), "{read} texts");
    // What a page left out is in the next one.
    let mut hits = Vec::new();
    loop {
        let found = page["results"].as_array().expect("a list").iter();
        hits.extend(found.filter_map(|hit| hit["message"]["seq"].as_i64()));
        let Some(next) = page["next"].as_i64() else { break };
        page = eventually(async || search(next).await).await;
    }
    assert_eq!(hits, [COUNT, 2]);
}

/// The requests that are asked fail by the replica's own time.
async fn ask_in_vain(client: &Client, path: &str) {
    client.get(path).await.expect_problem(504, "timeout");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_behind_a_statement_that_was_given_up() {
    let cluster = Cluster::with(1, |config| {
        // Two connections for those who have one to themselves.
        let database = &mut config.database;
        database.database_connections =
            database.database_writers + 2 * database.database_readers + 5;
        config.request_timeout = Duration::from_millis(500);
    })
    .await;
    let (alice, host) = (cluster.user("alice").on(0), cluster.host().on(0));
    alice.get("/blocks/").await.expect(200);
    let lock = Psql::connect(&cluster.database_url()).await;
    lock.run("BEGIN; LOCK TABLE reports IN ACCESS EXCLUSIVE MODE").await;
    ask_in_vain(&host, "/reports/").await;
    // Postgres still waits for the lock on one connection; these take turns.
    for _ in 0..4 {
        alice.get("/blocks/").await.expect(200);
    }
    lock.run("ROLLBACK").await;
    // It is there again, for two at a time.
    eventually(async || {
        let busy = r#"beseda_pool_connections{state="in_use"} "#;
        let metrics = cluster.operator(0).request(Method::GET, "/metrics").await.text;
        let busy = metrics.lines().find_map(|line| line.strip_prefix(busy));
        if busy == Some("0") { Ok(()) } else { Err(format!("{busy:?} in use")) }
    })
    .await;
    host.get("/reports/").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_were_given_up_keep_their_places() {
    let cluster = Cluster::with(1, |config| {
        config.database.database_readers = 1;
        config.request_timeout = Duration::from_millis(500);
    })
    .await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let before = looks(&cluster, "'messages'::regclass").await;
    let path = chat.path("messages/");
    let read = async || match alice.on(0).get(&path).await {
        answer if answer.status == 200 => Ok(()),
        answer => Err(answer.text),
    };
    eventually(read).await;
    let lock = Psql::connect(&cluster.database_url()).await;
    lock.run("BEGIN; LOCK TABLE messages IN ACCESS EXCLUSIVE MODE").await;
    for _ in 0..4 {
        let at = alice.on(0);
        let asking = (0..32).map(|_| ask_in_vain(&at, &path));
        futures_util::future::join_all(asking).await;
    }
    lock.run("ROLLBACK").await;
    eventually(read).await;
    let looked =
        eventually(async || match looks(&cluster, "'messages'::regclass").await - before {
            looked if looked < 33 => Err(format!("only {looked} looks")),
            looked => Ok(looked),
        })
        .await;
    // The first 32 requests hold the permits; the later ones ended before they got one.
    assert!(looked < 64, "{looked} looks");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_leaves_a_moment_for_the_last_words_and_no_more() {
    let mut cluster = Cluster::start(1).await;
    let alice = cluster.user("alice");
    let chat = alice.on(0).open_chat(&cluster.user("bob")).await;
    let mut stream = TcpStream::connect(alice.on(0).host()).await.expect("the replica listens");
    let head = format!(
        "POST /api/v1/chats/{chat}/messages/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n",
        alice.token
    );
    // More than a body may have, and not all of it: the replica has to refuse, and to read on.
    stream.write_all(format!("{head}{}", "x".repeat(70_000)).as_bytes()).await.expect("taken");
    let answered = timeout(CEILING, stream.peek(&mut [0])).await.expect("an answer in time");
    assert_eq!(answered.expect("an answer"), 1);
    let began = Instant::now();
    cluster.drain(0).await;
    let took = began.elapsed();
    let moment = Duration::from_millis(900)..Duration::from_secs(4);
    assert!(moment.contains(&took), "{took:?}");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("all of it");
    assert!(answer.starts_with(b"HTTP/1.1 413 "), "{}", String::from_utf8_lossy(&answer));
}
