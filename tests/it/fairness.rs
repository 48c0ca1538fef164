//! One account within its limits does not slow down the others.

use futures_util::future::join_all;
use serde_json::json;
use tokio::task::JoinSet;

use crate::harness::{CEILING, Chat, Cluster, Psql, User, eventually, fill};

#[tokio::test(flavor = "multi_thread")]
async fn a_search_walks_over_so_many_messages_and_says_where_to_go_on() {
    const MESSAGES: i64 = 60_000;
    const BUDGET: i64 = 20_000;
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    // A search reads tombstones but does not look into them, so that the time budget is not spent.
    cluster.psql(&fill::messages(&chat.id, "alice", MESSAGES, "''")).await;
    let bury = format!(
        "UPDATE messages SET deleted_at = now();
         UPDATE members SET own_after = 0;
         UPDATE chats SET dead = {MESSAGES}, last_dead_seq = {MESSAGES};
         INSERT INTO dead_blocks SELECT chat_id, seq >> 12, count(*) FROM messages GROUP BY 1, 2"
    );
    cluster.psql(&bury).await;
    cluster.redis_flush().await;
    let page = bob.on(0).get(&chat.path("search/?query=needle")).await.expect(200);
    assert_eq!(page["complete"], false, "{page}");
    let next = page["next"].as_i64().expect("a position");
    assert!(next > MESSAGES - BUDGET, "{page}");
}

const MEASURE_LATER: &str = "
CREATE FUNCTION public.octet_length(measured text) RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_lock_shared(42);
    PERFORM pg_advisory_unlock_shared(42);
    RETURN pg_catalog.octet_length(measured);
END
$$";

#[tokio::test(flavor = "multi_thread")]
async fn searches_are_few_at_a_time_and_one_a_user_and_keep_no_connection_of_others() {
    let cluster = Cluster::with(1, |config| {
        let database = &mut config.database;
        // The fewest that are allowed.
        database.database_connections =
            database.database_writers + 2 * database.database_readers + 5;
        // No search that is held below ends by itself.
        database.database_timeout = CEILING * 2;
        config.request_timeout = CEILING * 2;
    })
    .await;
    let alice = cluster.user("alice");
    let others = ["bob", "carol"].map(|name| cluster.user(name));
    let mut chats = Vec::new();
    for other in &others {
        let chat = alice.on(0).open_chat(other).await;
        // A search measures no text but those that others come after.
        alice.on(0).send(&chat, "a needle").await;
        alice.on(0).send(&chat, "another").await;
        chats.push(chat);
    }
    // Of all statements only the search measures texts, so that each search waits for this lock.
    let database = cluster.database();
    cluster.psql(&format!("ALTER DATABASE {database} SET search_path = public, pg_catalog")).await;
    cluster.psql(MEASURE_LATER).await;
    let lock = Psql::connect(&cluster.database_url()).await;
    lock.run("SELECT pg_advisory_lock(42)").await;
    let search =
        |user: &User, chat: &Chat| user.on(0).get(&chat.path("search/?query=needle")).into_future();
    let under_way = "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND state = 'active'
           AND query LIKE '-- store.list_texts%'";
    let mut of_alice = JoinSet::new();
    for _ in 0..8 {
        of_alice.spawn(search(&alice, &chats[0]));
    }
    // One is under way. The others wait for it in vain, although the replica has a second place.
    for _ in 1..8 {
        let answer = of_alice.join_next().await.expect("eight answers").expect("no panic");
        answer.expect_problem(429, "rate_limited");
    }
    assert_eq!(cluster.psql_value::<i64>(under_way).await, 1);
    let of_bob = tokio::spawn(search(&others[0], &chats[0]));
    eventually(async || match cluster.psql_value::<i64>(under_way).await {
        2 => Ok(()),
        count => Err(format!("{count} searches are under way")),
    })
    .await;
    // Both places are taken, and with them no connection that anything else needs.
    search(&others[1], &chats[1]).await.expect_problem(503, "unavailable");
    alice.on(0).get("/blocks/").await.expect(200);
    others[1].on(0).get("/users/carol/").await.expect(200);
    assert_eq!(cluster.psql_value::<i64>(under_way).await, 2);
    lock.run("SELECT pg_advisory_unlock(42)").await;
    of_alice.join_next().await.expect("the eighth").expect("no panic").expect(200);
    of_bob.await.expect("no panic").expect(200);
    search(&others[1], &chats[1]).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_of_a_reader_with_many_chats_share_the_sum_of_all() {
    const CHATS: i64 = 5_000;
    const MARKS: usize = 30;
    let cluster = Cluster::start(1).await;
    let carol = cluster.user("carol").on(0);
    carol.get("/chats/").await.expect(200);
    cluster.psql(&fill::direct_chats("fill", CHATS, "'zed ' || n", "'carol'", 1)).await;
    // Postgres sums where Redis does not know all chats.
    cluster.redis_flush().await;
    let chats = cluster.psql(&format!("SELECT chat_id FROM chats LIMIT {MARKS} + 1")).await;
    let chats: Vec<&str> = chats.iter().map(|row| row[0].as_deref().expect("an id")).collect();
    // Each of these chats has another power of two unread, so that a sum tells which marks it counts.
    let weigh = format!(
        "UPDATE chats SET last_counted = 1 << array_position(ids, chat_id) - 1
           FROM (SELECT '{{{}}}'::uuid[] AS ids) x WHERE chat_id = ANY (ids)",
        chats[..MARKS].join(",")
    );
    cluster.psql(&weigh).await;
    let mark = |n: usize| {
        let chat = chats[n];
        carol.post(&format!("/chats/{chat}/mark_read/"), json!({})).into_future()
    };
    let sums = async || cluster.statements(0, "store.sum_unread").await;
    let before = sums().await;
    for (n, answer) in join_all((0..MARKS).map(mark)).await.into_iter().enumerate() {
        let marked = answer.expect(200);
        let total = marked["total_unread"].as_u64().expect("a number");
        let of_marked = total - (CHATS as usize - MARKS) as u64;
        assert_eq!(of_marked & (1 << n), 0, "its own mark does not count: {marked}");
    }
    // It began after all of them, so that it is exact.
    let marked = mark(MARKS).await.expect(200);
    let left = CHATS as usize - MARKS - 1;
    assert_eq!(marked["total_unread"], left, "{marked}");
    assert_eq!(carol.get("/chats/unread/").await.expect(200)["total"], left);
    // Without sharing there is one for each mark.
    let summed = sums().await - before;
    assert!((1..=MARKS as u64 / 2).contains(&summed), "{summed} sums of {MARKS} marks");
    cluster.psql(&fill::without_chats_of("fill")).await;
    cluster.redis_flush().await;
}
