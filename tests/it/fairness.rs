//! What one account does within its limits slows nobody else.

use futures_util::future::join_all;
use serde_json::json;

use crate::harness::{Cluster, Psql, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_search_walks_over_so_many_messages_and_says_where_to_go_on() {
    const MESSAGES: i64 = 60_000;
    const BUDGET: i64 = 20_000;
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    // Tombstones cost a search no time of its own: only what it reads.
    let fill = format!(
        "INSERT INTO messages (chat_id, seq, message_id, ev, sender_id, text, created_at, deleted_at)
         SELECT '{chat}', n, gen_random_uuid(), n, 'alice', '', now(), now()
           FROM generate_series(1, {MESSAGES}) n;
         UPDATE chats SET last_seq = {MESSAGES}, last_ev = {MESSAGES}, last_message_at = now()"
    );
    cluster.psql(&fill).await;
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
        // The fewest that are allowed.
        let database = &mut config.database;
        database.database_connections =
            database.database_writers + 2 * database.database_readers + 5;
    })
    .await;
    let alice = cluster.user("alice");
    let others = ["bob", "carol", "dave"].map(|name| cluster.user(name));
    let mut chats = Vec::new();
    for other in &others {
        let chat = alice.on(0).open_chat(other).await;
        // Of several only the bytes before are measured.
        alice.on(0).send(&chat, "a needle").await;
        alice.on(0).send(&chat, "another").await;
        chats.push(chat);
    }
    // Of all that a search does, only its texts are measured: each waits for this lock.
    let database = cluster.database();
    cluster.psql(&format!("ALTER DATABASE {database} SET search_path = public, pg_catalog")).await;
    cluster.psql(MEASURE_LATER).await;
    let lock = Psql::connect(&cluster.database_url()).await;
    lock.run("SELECT pg_advisory_lock(42)").await;
    // No answer is looked at before all is over.
    let search = |user: &crate::harness::User, chat: &crate::harness::Chat| {
        tokio::spawn(user.on(0).get(&chat.path("search/?query=needle")).into_future())
    };
    let mut searches: Vec<_> = (0..8).map(|_| search(&alice, &chats[0])).collect();
    let at_once = "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND state = 'active'
           AND query LIKE '-- store.list_texts%'";
    let wait_for = async |count: i64| {
        eventually(async || match cluster.psql_value::<i64>(at_once).await {
            now if now == count => Ok(()),
            now => Err(format!("{now} searches are under way")),
        })
        .await;
    };
    wait_for(1).await;
    // Alice's others had as much time as these.
    searches.push(search(&others[0], &chats[0]));
    wait_for(2).await;
    searches.extend(others.iter().zip(&chats).skip(1).map(|(user, chat)| search(user, chat)));
    // With the connections that searches do not have.
    alice.on(0).get("/blocks/").await.expect(200);
    others[1].on(0).get("/users/carol/").await.expect(200);
    assert_eq!(cluster.psql_value::<i64>(at_once).await, 2);
    lock.run("SELECT pg_advisory_unlock(42)").await;
    for answer in join_all(searches).await {
        let answer = answer.expect("no panic");
        // All of them take their turn, but where a slow machine held the lock for long.
        assert!(matches!(answer.status, 200 | 429 | 503), "{}", answer.text);
    }
    alice.on(0).get(&chats[0].path("search/?query=needle")).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_of_a_reader_with_many_chats_share_the_sum_of_all() {
    const CHATS: usize = 5_000;
    const MARKS: usize = 60;
    let cluster = Cluster::start(1).await;
    let carol = cluster.user("carol").on(0);
    carol.get("/chats/").await.expect(200);
    let fill = format!(
        "INSERT INTO chats (chat_id, room_name, user_lo, user_hi, created_by, last_seq, last_ev,
                            last_message_at)
         SELECT gen_random_uuid(), lpad(n::text, 22, 'x'), 'carol', 'zed ' || n, 'fill', 1, 1, now()
           FROM generate_series(1, {CHATS}) n;
         INSERT INTO members (chat_id, user_id, unread)
         SELECT chat_id, unnest(ARRAY[user_lo, user_hi]), unnest(ARRAY[1, 0]) FROM chats;
         INSERT INTO messages (chat_id, seq, message_id, ev, sender_id, text, created_at)
         SELECT chat_id, 1, gen_random_uuid(), 1, user_hi, 'x', now() FROM chats"
    );
    cluster.psql(&fill).await;
    let chats = cluster.psql(&format!("SELECT chat_id FROM chats LIMIT {MARKS} + 1")).await;
    let mark = |n: usize| {
        let chat = chats[n][0].as_deref().expect("an id");
        carol.post(&format!("/chats/{chat}/mark_read/"), json!({})).into_future()
    };
    let sums = async || -> i64 {
        // Connections add up what they counted within a second, with their next statement.
        let sum =
            "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'members_by_user'";
        cluster.psql_value(sum).await
    };
    let before = sums().await;
    for answer in join_all((0..MARKS).map(mark)).await {
        let marked = answer.expect(200);
        let total = marked["total_unread"].as_u64().expect("a number");
        // With its own at least, and with no more than all.
        let range = (CHATS - MARKS) as u64..CHATS as u64;
        assert!(range.contains(&total), "{marked}");
    }
    // Begun after all of them: exact.
    let marked = mark(MARKS).await.expect(200);
    assert_eq!(marked["total_unread"], CHATS - MARKS - 1, "{marked}");
    assert_eq!(carol.get("/chats/unread/").await.expect(200)["total"], CHATS - MARKS - 1);
    cluster
        .psql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
              WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await;
    eventually(async || match sums().await - before {
        0 => Err("nothing is counted yet".to_owned()),
        // One a mark without sharing; and the unread list's.
        summed if summed <= MARKS as i64 / 2 => Ok(()),
        summed => Err(format!("{summed} sums of {MARKS} marks")),
    })
    .await;
    cluster
        .psql(
            "DELETE FROM messages m USING chats c WHERE c.chat_id = m.chat_id AND c.created_by = 'fill';
             DELETE FROM members m USING chats c WHERE c.chat_id = m.chat_id AND c.created_by = 'fill';
             DELETE FROM chats WHERE created_by = 'fill'",
        )
        .await;
    cluster.redis_flush().await;
}
