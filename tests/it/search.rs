//! Finding messages in a chat.

use std::time::Duration;

use beseda::config::Config;
use serde_json::{Value, json};

use crate::harness::{Answer, Chat, Client, Cluster, DelayProxy, assert_members, fill, told};

/// `query` need not be encoded.
async fn ask(client: &Client, chat: &Chat, query: &str, rest: &str) -> Answer {
    let encoded: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
    client.get(&chat.path(&format!("search/?query={encoded}{rest}"))).await
}

/// The highlighted parts of each hit, newest first.
async fn found(client: &Client, chat: &Chat, query: &str) -> Vec<Vec<String>> {
    let page = ask(client, chat, query, "").await.expect(200);
    assert_members(&page, &["results", "next", "complete"]);
    assert_eq!((&page["next"], &page["complete"]), (&Value::Null, &json!(true)), "{page}");
    page["results"].as_array().expect("a list").iter().map(marked).collect()
}

/// Cuts a hit's highlights out of its text, by UTF-16 code units as browsers count.
fn marked(hit: &Value) -> Vec<String> {
    assert_members(hit, &["message", "highlights"]);
    let text = hit["message"]["text"].as_str().expect("a text");
    let units: Vec<u16> = text.encode_utf16().collect();
    let cut = |range: &Value| {
        let at = |i: usize| usize::try_from(range[i].as_u64().expect("a number")).expect("small");
        String::from_utf16(&units[at(0)..at(0) + at(1)]).expect("whole characters")
    };
    hit["highlights"].as_array().expect("a list").iter().map(cut).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn word_forms_parts_of_words_and_any_script_are_found_and_highlighted() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let texts = [
        "😀 Вчера пришли новые Сообщения",
        "Ёжик под ёлкой",
        "We were running late, 😀 he runs",
        "私は東京に住んでいます",
        "see IMG_0042.jpeg at 100%",
        "서울에서 만나요, 中文搜索",
        "a_c is not a.c",
        "STRASSE and Straße",
    ];
    for text in texts {
        alice.on(0).send(&chat, text).await;
    }
    let expectations: [(&str, &[&[&str]]); 16] = [
        ("сообщение", &[&["Сообщения"]]),
        ("СООБЩЕНИЯМИ", &[&["Сообщения"]]),
        ("елка", &[&["ёлкой"]]),
        ("ежик", &[&["Ёжик"]]),
        ("run", &[&["run", "run"]]),
        ("runs", &[&["running", "runs"]]),
        ("東京", &[&["東京"]]),
        ("住", &[&["住"]]),
        ("서울", &[&["서울"]]),
        ("搜索", &[&["搜索"]]),
        ("0042", &[&["0042"]]),
        ("%", &[&["%"]]),
        ("a_c", &[&["a_c"]]),
        ("😀", &[&["😀"], &["😀"]]),
        ("nothing of the kind", &[]),
        ("strasse", &[&["STRASSE"]]),
    ];
    for (query, expected) in expectations {
        let found = found(&bob.on(1), &chat, query).await;
        let matches = match query {
            // Whether by part or by form: the whole word or its part may be marked.
            "run" => found.len() == 1 && found[0].len() == 2,
            "strasse" => found.len() == 1 && found[0].contains(&"STRASSE".to_owned()),
            _ => found == expected,
        };
        assert!(matches, "{query}: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_is_found_however_it_is_typed() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    for text in [
        "😀 I don’t know the «Café de Flore»",
        "ｆｕｌｌ　ｗｉｄｔｈ, an oﬃce",
        "soft\u{ad}hyphens and zero\u{200b}width",
        "Ещё раз: за\u{301}мок в Łódź",
        "Diyarbakır",
    ] {
        alice.on(0).send(&chat, text).await;
    }
    let expectations: [(&str, &[&str]); 12] = [
        ("don't", &["don’t"]),
        ("don’t", &["don’t"]),
        ("cafe", &["Café"]),
        ("“cafe de flore”", &["Café de Flore"]),
        ("«Cafe de Flore»", &["Café de Flore"]),
        ("\"full width\"", &["ｆｕｌｌ　ｗｉｄｔｈ"]),
        ("office", &["oﬃce"]),
        ("softhyphens", &["soft\u{ad}hyphens"]),
        ("zerowidth", &["zero\u{200b}width"]),
        ("еще замок", &["Ещё", "за\u{301}мок"]),
        ("lodz", &["Łódź"]),
        ("DIYARBAKIR", &["Diyarbakır"]),
    ];
    for (query, expected) in expectations {
        assert_eq!(found(&bob.on(0), &chat, query).await, [expected], "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn words_phrases_and_exclusions_combine() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let texts = ["the red cat", "a cat and a dog", "red dog", "cat the red\n one"];
    for text in texts {
        alice.on(0).send(&chat, text).await;
    }
    let expectations: [(&str, &[i64]); 12] = [
        ("cat", &[4, 2, 1]),
        ("cat red", &[4, 1]),
        ("RED cat", &[4, 1]),
        ("\"red cat\"", &[1]),
        ("\"the red\" cat", &[4, 1]),
        ("\"red one\"", &[4]),
        ("cat -dog", &[4, 1]),
        ("cat -\"red cat\"", &[4, 2]),
        ("-cat", &[]),
        ("-cat -dog", &[]),
        ("cat zebra", &[]),
        ("\"", &[]),
    ];
    for (query, expected) in expectations {
        let page = ask(&bob.on(0), &chat, query, "").await.expect(200);
        let hits = page["results"].as_array().expect("a list");
        let seqs: Vec<i64> = hits.iter().filter_map(|h| h["message"]["seq"].as_i64()).collect();
        assert_eq!(seqs, expected, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hits_are_whole_messages_paged_newest_first() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut expected = Vec::new();
    for i in 0..25 {
        let text = if i % 3 > 0 { format!("needle {i}") } else { format!("hay {i}") };
        let sent = alice.on(0).send(&chat, &text).await;
        if i % 3 > 0 {
            expected.insert(0, sent);
        }
    }
    for limit in [1, 4, 16, 50] {
        let (mut hits, mut before) = (Vec::new(), String::new());
        loop {
            let rest = format!("&limit={limit}{before}");
            let page = ask(&bob.on(1), &chat, "needle", &rest).await.expect(200);
            let results = page["results"].as_array().expect("a list");
            assert!(results.len() <= limit);
            hits.extend(results.iter().map(|hit| told(hit["message"].clone())));
            assert!(hits.len() <= expected.len(), "limit {limit}: {hits:?}");
            match page["next"].as_i64() {
                Some(next) => before = format!("&before={next}"),
                None => break,
            }
        }
        assert_eq!(hits, expected, "limit {limit}");
    }
    // As they are now: edited in, edited away, deleted.
    let path = |message: &Value| {
        chat.path(&format!("messages/{}/", message["message_id"].as_str().expect("an id")))
    };
    alice.on(0).patch(&path(&expected[0]), json!({ "text": "hay" })).await.expect(200);
    alice.on(0).delete(&path(&expected[1])).await.expect(204);
    let page = ask(&bob.on(1), &chat, "needle", "&limit=50").await.expect(200);
    assert_eq!(page["results"].as_array().map(Vec::len), Some(14));
}

#[tokio::test(flavor = "multi_thread")]
async fn any_text_is_a_valid_query() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    alice.on(0).send(&chat, "plain words, nothing else").await;
    let long = "я".repeat(256);
    let words = "a ".repeat(128);
    let nasty = [
        "'",
        "''; DROP TABLE messages; --",
        "\\",
        "\\\\",
        "%",
        "_",
        "%%%",
        "[",
        "[a-",
        "(",
        "((",
        "*",
        "+",
        "?",
        ".*",
        "^",
        "$",
        "|",
        "&",
        "!",
        "<->",
        "a & | b",
        ":*",
        "\u{0}",
        "a\u{0}b",
        "\u{1}",
        "\u{feff}",
        "\u{202e}abc",
        "\u{fffd}",
        "\u{10ffff}",
        "e\u{301}\u{301}\u{301}",
        "ﬁ",
        "İ",
        "ß",
        "-",
        "--",
        "- -",
        "-\"",
        "\"\"",
        "\"\" \"\"",
        "\"unclosed",
        "- \"-\"",
        "\t\n",
        " ",
        "$1",
        "{}",
        "NULL",
        "👩‍👩‍👧‍👦",
        "\u{e0001}",
        "ต้ม",
        "ﷺ",
        &long,
        &words,
    ];
    for query in nasty {
        let page = ask(&bob.on(0), &chat, query, "").await.expect(200);
        for hit in page["results"].as_array().expect("a list") {
            marked(hit);
        }
    }
    // Not even UTF-8.
    let answer = bob.on(0).get(&chat.path("search/?query=%ff%fe%00")).await;
    assert!(matches!(answer.status, 200 | 400 | 422), "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_refuses_bad_parameters_naming_each() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let get = |rest: &str| alice.on(0).get(&chat.path(&format!("search/{rest}"))).into_future();
    for rest in ["", "?query=", "?q=x", &format!("?query={}", "x".repeat(257))] {
        get(rest).await.expect_faults(&["query"]);
    }
    for limit in ["0", "51", "x", "-1", ""] {
        get(&format!("?query=x&limit={limit}")).await.expect_faults(&["limit"]);
    }
    for before in ["x", "-1", "1.5", ""] {
        get(&format!("?query=x&before={before}")).await.expect_faults(&["before"]);
    }
    get("?limit=x&before=x").await.expect_faults(&["query", "limit", "before"]);
    get("?query=x&limit=50&before=1").await.expect(200);
    assert_eq!(
        get("?query=x").await.expect(200),
        json!({ "results": [], "next": null, "complete": true })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_gets_on_however_far_the_database_is() {
    let mut cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    alice.on(0).send(&chat, "needle").await;
    // A page alone takes longer than a search has for all.
    let port = cluster.stack().postgres.port();
    let delay_proxy = DelayProxy::start(port, Duration::from_millis(450)).await;
    let far = delay_proxy.port().to_string();
    let far = move |config: &mut Config| {
        let url = config.database.database_url.expose().replace(&port.to_string(), &far);
        config.database.database_url = url.into();
    };
    let replica = cluster.add_replica_with(far).await;
    let page = ask(&bob.on(replica), &chat, "needle", "").await.expect(200);
    assert_eq!(page["results"].as_array().map(Vec::len), Some(1), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_chat_is_searched_to_its_start_by_going_on_from_next() {
    const MESSAGES: i64 = 40_000;
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let needle = alice.on(0).send(&chat, "the needle").await;
    let hay = fill::messages(&chat.id, "alice", MESSAGES - 1, "'hay, hay, and more of it'");
    cluster.psql(&hay).await;
    cluster.redis_flush().await;
    let (mut before, mut hits) = (String::new(), Vec::new());
    loop {
        let page = ask(&bob.on(0), &chat, "needle", &before).await.expect(200);
        hits.extend(
            page["results"].as_array().expect("a list").iter().map(|h| told(h["message"].clone())),
        );
        match page["next"].as_i64() {
            Some(next) => {
                // What was not searched is said to be so, and each step gets on.
                assert_eq!(page["complete"], false, "{page}");
                assert!(next > 1 && next <= MESSAGES, "{next}");
                let so_far = before.rsplit('=').next().and_then(|at| at.parse().ok());
                assert!(so_far.is_none_or(|so_far: i64| next < so_far), "{before} to {next}");
                before = format!("&before={next}");
            }
            None => break,
        }
    }
    assert_eq!(hits, [needle]);
}
