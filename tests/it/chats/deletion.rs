//! Who may delete a chat, and what is left of it: nothing.

use serde_json::json;

use crate::harness::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_chat_is_gone_for_both_and_a_new_one_is_another() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    for i in 0..3 {
        alice.on(0).send(&chat, &format!("gone {i}")).await;
    }
    // Both counters are known to Redis before.
    assert_eq!(bob.on(1).unread_in(&chat).await, 3);
    assert_eq!(alice.on(1).unread_in(&chat).await, 0);
    bob.on(0).delete(&chat.path("")).await.expect_problem(403, "forbidden");
    alice.on(0).delete(&chat.path("")).await.expect(204);
    for user in [&alice, &bob] {
        for replica in [0, 1] {
            let unread = user.on(replica).get("/chats/unread/").await.expect(200);
            assert_eq!(unread, json!({ "total": 0, "total_mentions": 0, "badge": 0, "chats": [] }));
            let list = user.on(replica).get("/chats/").await.expect(200);
            assert_eq!(list["results"], json!([]));
            for chat in [&chat.id, &chat.room_name] {
                let path = format!("/chats/{chat}/messages/");
                user.on(replica).get(&path).await.expect_problem(404, "chat_not_found");
            }
        }
    }
    alice.on(1).delete(&chat.path("")).await.expect_problem(404, "chat_not_found");
    for table in ["chats", "members", "messages"] {
        let count = cluster.psql_value::<i64>(&format!("SELECT count(*) FROM {table}")).await;
        assert_eq!(count, 0, "{table}");
    }

    let again = bob.on(1).open_chat(&alice).await;
    assert_ne!(again.id, chat.id);
    assert_ne!(again.room_name, chat.room_name);
    assert_eq!(alice.on(0).history(&again, "").await["results"], json!([]));
    assert_eq!(alice.on(0).send(&again, "anew").await["seq"], 1);
    assert_eq!(bob.on(1).unread_in(&again).await, 1);
    alice.on(1).get(&chat.path("")).await.expect_problem(404, "chat_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_delete_a_chat_is_configured() {
    use beseda::config::DeleteChat::{Admin, Creator, Member};
    for (rule, creator, member) in [(Creator, 204, 403), (Member, 204, 204), (Admin, 403, 403)] {
        let cluster = Cluster::with(1, |config| config.delete_chat = rule).await;
        let (alice, bob, eve) = (cluster.user("alice"), cluster.user("bob"), cluster.user("eve"));
        for (caller, expected) in [(&alice, creator), (&bob, member)] {
            let chat = alice.on(0).open_chat(&bob).await;
            eve.on(0).delete(&chat.path("")).await.expect_problem(404, "chat_not_found");
            let answer = caller.on(0).delete(&chat.path("")).await;
            assert_eq!(answer.status, expected, "{rule:?} {}: {}", caller.id, answer.text);
            if expected == 403 {
                answer.expect_problem(403, "forbidden");
                cluster.host().on(0).delete(&chat.path("")).await.expect(204);
            }
        }
    }
}
