//! A chat's history, page by page.

use serde_json::{Value, json};

use crate::harness::{Chat, Client, Cluster, assert_members};

fn seqs(page: &Value) -> Vec<i64> {
    let results = page["results"].as_array().expect("a list");
    results.iter().map(|message| message["seq"].as_i64().expect("a number")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_read_page_by_page_in_both_directions() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let empty = alice.on(1).history(&chat, "").await;
    let members = [
        "results",
        "has_more_before",
        "has_more_after",
        "before",
        "after",
        "head_seq",
        "head_ev",
        "epoch",
        "read_seq",
        "peer_read_seq",
    ];
    assert_members(&empty, &members);
    let nothing = json!([[], false, false, null, null, 0, 0]);
    assert_eq!(shape(&empty), nothing);
    for query in ["?before=1", "?after=0", "?around=1", "?before=9", "?after=9"] {
        assert_eq!(shape(&alice.on(1).history(&chat, query).await), nothing, "{query}");
    }
    for i in 1..=23 {
        alice.on(0).send(&chat, &format!("message {i}")).await;
    }
    bob.on(0).post(&chat.path("mark_read/"), json!({ "up_to_seq": 5 })).await.expect(200);
    let expected = [
        ("", json!([(1..=23).collect::<Vec<_>>(), false, false, null, null, 23, 24])),
        ("?limit=5", json!([[19, 20, 21, 22, 23], true, false, 19, null, 23, 24])),
        ("?before=19&limit=3", json!([[16, 17, 18], true, true, 16, 18, 23, 24])),
        ("?before=3&limit=5", json!([[1, 2], false, true, null, 2, 23, 24])),
        ("?before=99&limit=2", json!([[22, 23], true, false, 22, null, 23, 24])),
        ("?after=0&limit=2", json!([[1, 2], false, true, null, 2, 23, 24])),
        ("?after=2&limit=2", json!([[3, 4], true, true, 3, 4, 23, 24])),
        ("?after=21&limit=5", json!([[22, 23], true, false, 22, null, 23, 24])),
        ("?limit=1", json!([[23], true, false, 23, null, 23, 24])),
    ];
    for (query, expected) in expected {
        assert_eq!(shape(&bob.on(1).history(&chat, query).await), expected, "{query}");
    }
    for (around, limit) in [(10, 5), (1, 5), (23, 5), (12, 1), (12, 100), (500, 4), (0, 4), (12, 2)]
    {
        let page = bob.on(1).history(&chat, &format!("?around={around}&limit={limit}")).await;
        let seqs = seqs(&page);
        assert!(seqs.len() <= limit && !seqs.is_empty());
        assert_eq!(seqs, (seqs[0]..=seqs[seqs.len() - 1]).collect::<Vec<_>>(), "around {around}");
        assert!(seqs.contains(&around.clamp(1, 23)), "around {around}: {seqs:?}");
        assert_eq!(page["has_more_before"], seqs[0] > 1);
        assert_eq!(page["has_more_after"], seqs[seqs.len() - 1] < 23);
    }
    let page = bob.on(0).history(&chat, "").await;
    assert_eq!((&page["read_seq"], &page["peer_read_seq"]), (&json!(5), &json!(0)));
    let page = alice.on(0).history(&chat, "").await;
    assert_eq!((&page["read_seq"], &page["peer_read_seq"]), (&json!(0), &json!(5)));

    let all: Vec<i64> = (1..=23).collect();
    for limit in [1, 4, 23, 100] {
        assert_eq!(walk(&alice.on(1), &chat, "before", limit).await, all, "limit {limit}");
        assert_eq!(walk(&alice.on(1), &chat, "after", limit).await, all, "limit {limit}");
    }
}

/// Results, both flags, both cursors, both heads.
fn shape(page: &Value) -> Value {
    let names = ["has_more_before", "has_more_after", "before", "after", "head_seq", "head_ev"];
    let rest = names.iter().map(|name| page[name].clone());
    std::iter::once(json!(seqs(page))).chain(rest).collect()
}

/// All `seq`, found by following one of the cursors.
async fn walk(client: &Client, chat: &Chat, direction: &str, limit: usize) -> Vec<i64> {
    let mut found = Vec::new();
    let mut at = if direction == "before" { None } else { Some(0) };
    loop {
        let cursor = at.map(|at| format!("&{direction}={at}")).unwrap_or_default();
        let page = client.history(chat, &format!("?limit={limit}{cursor}")).await;
        found.extend(seqs(&page));
        assert!(found.len() <= 23, "{found:?}");
        at = page[direction].as_i64();
        assert_eq!(page[format!("has_more_{direction}")], at.is_some());
        if at.is_none() {
            found.sort_unstable();
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn history_refuses_bad_parameters_naming_each() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    for limit in ["0", "101", "-1", "x", "", "5.0"] {
        let path = chat.path(&format!("messages/?limit={limit}"));
        alice.on(0).get(&path).await.expect_faults(&["limit"]);
    }
    for name in ["before", "after", "around"] {
        for value in ["-1", "x", "", "99999999999999999999", "1e3"] {
            let path = chat.path(&format!("messages/?{name}={value}"));
            alice.on(0).get(&path).await.expect_faults(&[name]);
        }
    }
    let path = chat.path("messages/?limit=0&before=x&around=-3");
    alice.on(0).get(&path).await.expect_faults(&["limit", "before", "around"]);
    for both in ["before=1&after=1", "after=1&around=1", "before=1&around=2&after=3"] {
        let answer = alice.on(0).get(&chat.path(&format!("messages/?{both}"))).await;
        answer.expect_problem(422, "validation_failed");
    }
    alice.on(0).get(&chat.path("messages/?limit=100&who=cares")).await.expect(200);
}
