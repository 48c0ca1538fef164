//! `beseda chat`, the real program, at pipes and at a terminal.

use serde_json::{Value, json};

use crate::harness::{Chat, Cluster, Program, SECRET, Talker, User, claims, eventually};

async fn texts(user: &User, replica: usize, chat: &Chat) -> Vec<Value> {
    let history = user.on(replica).history(chat, "?limit=100").await;
    let messages = history["results"].as_array().expect("messages");
    messages.iter().map(|message| message["text"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_talk_on_two_replicas_and_see_all_that_happens() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    alice.on(0).send(&chat, "before").await;
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("jwt-secret"), SECRET).expect("a secret");
    let mut hers = Talker::beside(folder.path(), &alice, "bob", 0);
    let mut his = Talker::start(&bob, "alice", &[1]);
    hers.notes_that("bob is online").await;
    his.notes_that("alice is online").await;

    hers.types("Привет!\n");
    his.hears("alice: Привет!").await;
    hers.notes_that("bob has read it").await;
    his.types("\n  \nHello, Alice\n");
    hers.hears("bob: Hello, Alice").await;
    eventually(async || {
        match (bob.on(0).unread_in(&chat).await, alice.on(0).unread_in(&chat).await) {
            (0, 0) => Ok(()),
            unread => Err(format!("{unread:?} are not marked as read")),
        }
    })
    .await;

    let mut elsewhere = alice.on(0).connect(&chat).await;
    elsewhere.send(json!({ "type": "typing", "typing": true })).await;
    his.notes_that("alice is typing").await;
    elsewhere.close().await;
    let sent = alice.on(0).send(&chat, "from elsewhere").await;
    let path = chat.path(&format!("messages/{}/", sent["message_id"].as_str().expect("an id")));
    hers.hears("alice: from elsewhere").await;
    alice.on(0).patch(&path, json!({ "text": "edited" })).await.expect(200);
    his.hears("alice (edited): edited").await;
    alice.on(1).delete(&path).await.expect(204);
    for talker in [&hers, &his] {
        eventually(async || match talker.said().last() {
            Some(line) if line.contains("was deleted") => Ok(()),
            _ => Err(talker.raw()),
        })
        .await;
    }
    hers.end_input();
    assert_eq!(hers.ended().await, 0);
    his.notes_that("alice is offline").await;
    his.end_input();
    assert_eq!(his.ended().await, 0);
    let expected = [
        "alice: before",
        "alice: Привет!",
        "bob: Hello, Alice",
        "alice: from elsewhere",
        "alice (edited): edited",
    ];
    for talker in [&hers, &his] {
        assert_eq!(talker.said()[..expected.len()], expected, "{}", talker.raw());
        assert_eq!(talker.said().len(), expected.len() + 1, "{}", talker.raw());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_killed_and_one_that_drains_cost_a_talk_nothing() {
    let mut cluster = Cluster::start(2).await;
    let (program, doomed) = Program::join(&mut cluster, &[]).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut his = Talker::start(&bob, "alice", &[doomed, 0, 1]);
    his.notes_that("alice is offline").await;
    alice.on(1).send(&chat, "one").await;
    his.hears("alice: one").await;

    drop(program);
    his.types("two\n");
    his.notes_that("connection lost").await;
    his.notes_that("connected again").await;
    his.hears("bob: two").await;
    for text in ["three", "four"] {
        alice.on(1).send(&chat, text).await;
    }
    his.hears("alice: four").await;

    let draining = tokio::spawn(cluster.drain(0));
    for text in ["five", "six", "seven"] {
        alice.on(1).send(&chat, text).await;
        his.types(&format!("{text} heard\n"));
    }
    draining.await.expect("the replica ends");
    alice.on(1).send(&chat, "eight").await;
    his.hears("alice: eight").await;
    his.hears("bob: seven heard").await;
    his.end_input();
    assert_eq!(his.ended().await, 0, "{}", his.notes());

    let history = alice.on(1).history(&chat, "?limit=100").await;
    let expected: Vec<String> = history["results"]
        .as_array()
        .expect("messages")
        .iter()
        .map(|message| {
            let part = |name: &str| message[name].as_str().expect("a text");
            format!("{}: {}", part("sender_id"), part("text"))
        })
        .collect();
    assert_eq!(his.said(), expected, "each once, in their order");
    assert_eq!(expected.len(), 11, "{expected:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_pipe_every_line_is_a_message_and_the_end_comes_once_all_have_arrived() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let lines: Vec<String> = (1..=60).map(|number| format!("line {number}")).collect();
    let mut hers = Talker::start(&alice, "bob", &[0]);
    // The last one without a line break.
    hers.types(&lines.join("\r\n"));
    hers.end_input();
    assert_eq!(hers.ended().await, 0, "{}", hers.notes());
    assert_eq!(texts(&bob, 0, &chat).await, lines);
    let said: Vec<String> = lines.iter().map(|line| format!("alice: {line}")).collect();
    assert_eq!(hers.said(), said);
    assert!(hers.raw().starts_with("20"), "a line begins with its time: {}", hers.raw());

    // Nothing to say: shows what there is, marks it, and ends.
    let mut his = Talker::start(&bob, "alice", &[0]);
    his.end_input();
    assert_eq!(his.ended().await, 0, "{}", his.notes());
    assert_eq!(his.said(), said[40..]);
    assert_eq!(bob.on(0).unread_in(&chat).await, 0);

    // A script must see that something did not arrive.
    let mut hers = Talker::start(&alice, "bob", &[0]);
    hers.types(&format!("{}\nafter it\n", "x".repeat(4_001)));
    hers.end_input();
    assert_eq!(hers.ended().await, 1);
    assert!(hers.notes().contains("not sent: xxx"), "{}", hers.notes());
    assert_eq!(texts(&bob, 0, &chat).await.last(), Some(&json!("after it")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_no_message_is_refused_by_itself_and_no_other_line_is_lost() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut hers = Talker::start(&alice, "bob", &[0]);
    // More than a frame or a body may have, and more than is kept in memory.
    for length in [70_000, 2_000_000] {
        hers.types(&format!("{}\nafter {length}\n", "x".repeat(length)));
    }
    hers.types_bytes(b"caf\xe9\nafter Latin-1\n\xff\n");
    hers.types("nul \0\nlast");
    hers.end_input();
    assert_eq!(hers.ended().await, 1, "a script must see it: {}", hers.notes());
    let sent = ["after 70000", "after 2000000", "after Latin-1", "last"];
    assert_eq!(texts(&bob, 0, &chat).await, sent);
    let notes = hers.notes();
    assert_eq!(notes.matches("not sent: xxx").count(), 2, "{notes}");
    for refused in ["not sent: line 5 (is not UTF-8)", "line 7 (is not UTF-8)", "not sent: nul"] {
        assert!(notes.contains(refused), "{refused}: {notes}");
    }
    assert!(notes.contains("of your messages 5 were refused"), "{notes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_text_of_others_reaches_a_terminal_as_anything_but_text() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("al\u{202e}ice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let hostile =
        "\u{1b}[2J\u{1b}]0;mine\u{7}\u{9b}31m\r\n2026-11-25 00:00:00 bob: I agree\u{202e}";
    alice.on(0).send(&chat, hostile).await;
    let mut his = Talker::start(&bob, &alice.id, &[0]);
    his.notes_that("is offline").await;
    alice.on(0).send(&chat, hostile).await;
    alice.on(0).send(&chat, "done").await;
    his.hears("al\\u{202e}ice: done").await;
    his.end_input();
    his.ended().await;
    for text in [his.raw(), his.notes()] {
        let obeyed = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(obeyed), "{text:?}");
    }
    let forged = "    | 2026-11-25 00:00:00 bob: I agree\\u{202e}";
    assert_eq!(his.raw().lines().filter(|line| *line == forged).count(), 2, "{}", his.raw());
    assert!(his.raw().contains("␛[2J␛]0;mine␇"), "{}", his.raw());
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_terminal_what_comes_leaves_alone_what_is_being_typed() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let mut hers = Talker::at_terminal(&alice, "bob", 0);
    hers.notes_that("bob is offline").await;
    hers.types("half a li");
    hers.notes_that("alice: half a li").await;
    bob.on(0).send(&chat, "\u{1b}[2Jhello").await;
    hers.notes_that("bob: ␛[2Jhello").await;
    // The line is there again, below.
    eventually(async || {
        let screen = hers.raw();
        let (_, below) = screen.split_once("hello").expect("what came");
        if below.contains("alice: half a li") { Ok(()) } else { Err(screen) }
    })
    .await;
    hers.types("ne\r");
    eventually(async || {
        let texts = texts(&bob, 0, &chat).await;
        if texts.last() == Some(&json!("half a line")) { Ok(()) } else { Err(format!("{texts:?}")) }
    })
    .await;
    assert!(!hers.terminal_is_as_before(), "the line is edited here");
    hers.types("\u{4}");
    assert_eq!(hers.ended().await, 0, "{}", hers.raw());
    assert!(hers.terminal_is_as_before());

    // Whatever ends it, the terminal is given back.
    let mut hers = Talker::at_terminal(&alice, "bob", 0);
    hers.notes_that("bob is offline").await;
    alice.on(0).delete(&chat.path("")).await.expect(204);
    assert_eq!(hers.ended().await, 1);
    assert!(hers.terminal_is_as_before(), "{}", hers.raw());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_go_on_ends_and_says_why() {
    let cluster = Cluster::start(1).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let refusal = async |mut talker: Talker| {
        let status = talker.ended().await;
        assert_eq!(status, 1, "{}", talker.notes());
        talker.notes()
    };
    let strange = alice.with_token(format!("{}x", alice.token));
    let told = refusal(Talker::start(&strange, "bob", &[0])).await;
    assert!(told.contains("the token is refused"), "{told}");
    let other = alice.with_token(bob.token.clone());
    let told = refusal(Talker::start(&other, "carol", &[0])).await;
    assert!(told.contains(r#"a token of "bob", not of "alice""#), "{told}");
    let told = refusal(Talker::start(&alice, "alice", &[0])).await;
    assert!(told.contains("the chat can't be opened"), "{told}");

    let chat = alice.on(0).open_chat(&bob).await;
    let talker = Talker::start(&bob, "alice", &[0]);
    talker.notes_that("alice is offline").await;
    alice.on(0).delete(&chat.path("")).await.expect(204);
    let told = refusal(talker).await;
    assert!(told.contains("it is over") && told.contains("4004"), "{told}");

    let folder = tempfile::tempdir().expect("a folder");
    let told = refusal(Talker::beside(folder.path(), &alice, "bob", 0)).await;
    assert!(told.contains("there is no token"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_group_lines_have_names_and_tell_who_comes_and_goes() {
    let cluster = Cluster::start(2).await;
    let named = |id: &str, name: &str| {
        let mut claims = claims(id);
        claims["name"] = json!(name);
        cluster.user_claiming(&claims)
    };
    let (alice, bob, carol) = (named("alice", "Alice"), named("bob", "Bob"), named("carol", "Bob"));
    for user in [&alice, &bob, &carol] {
        user.on(0).get("/chats/").await.expect(200);
    }
    let body = json!({ "kind": "group", "title": "Sailing", "user_ids": ["bob"] });
    let group = Chat::from_json(&alice.on(0).post("/chats/", body).await.expect(201));
    alice.on(0).send(&group, "before").await;
    let mut hers = Talker::in_group(&alice, &group.room_name, &[0]);
    hers.notes_that(r#"in "Sailing" (2 members)"#).await;
    let mut his = Talker::in_group(&bob, &group.id, &[1]);
    his.hears("Alice: before").await;
    hers.notes_that("Bob is online").await;
    his.types("a boat!\n");
    hers.hears("Bob: a boat!").await;
    eventually(async || match alice.on(0).unread_in(&group).await {
        0 => Ok(()),
        unread => Err(format!("{unread} are not marked as read")),
    })
    .await;

    let members = group.path("members/");
    alice.on(1).post(&members, json!({ "user_ids": ["carol"] })).await.expect(200);
    his.hears("* Alice added Bob (carol)").await;
    carol.on(0).send(&group, "me too").await;
    his.hears("Bob (carol): me too").await;
    carol.on(0).delete(&group.path("members/carol/")).await.expect(204);
    hers.hears("* Bob (carol) left").await;
    alice.on(0).patch(&group.path(""), json!({ "title": "Rowing" })).await.expect(200);
    his.hears(r#"* Alice called the chat "Rowing""#).await;
    hers.end_input();
    assert_eq!(hers.ended().await, 0, "{}", hers.notes());

    // For whoever is removed it is over.
    alice.on(0).delete(&group.path("members/bob/")).await.expect(204);
    assert_eq!(his.ended().await, 1);
    assert!(his.notes().contains("it is over: no such chat among yours"), "{}", his.notes());
    let mut stranger = Talker::in_group(&carol, &group.room_name, &[0]);
    assert_eq!(stranger.ended().await, 1);
    assert!(stranger.notes().contains("the chat can't be opened"), "{}", stranger.notes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_sent_and_shown_by_its_name_and_reactions_are_no_news() {
    let cluster = Cluster::start(2).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notes.txt");
    std::fs::write(&path, "Some notes.").expect("a file");
    let mut hers = Talker::start(&alice, "bob", &[0]);
    let mut his = Talker::start(&bob, "alice", &[1]);
    his.notes_that("alice is online").await;
    hers.types(&format!("/file {}\n", path.display()));
    his.hears("alice: [notes.txt, 11 bytes]").await;
    let page = bob.on(0).history(&chat, "").await;
    let sent = page["results"][0]["message_id"].as_str().expect("an id");
    let reaction = chat.path(&format!("messages/{sent}/reactions/:x:/"));
    bob.on(1).put(&reaction, json!({})).await.expect(200);
    let body = json!({ "text": "thank you", "reply_to": sent });
    bob.on(1).post(&chat.path("messages/"), body).await.expect(201);
    hers.hears("    | thank you").await;
    assert_eq!(his.said().iter().filter(|line| line.contains("notes.txt")).count(), 1);
    hers.types("/file /nowhere/at all\n");
    hers.notes_that("not sent: /nowhere/at all").await;
    hers.end_input();
    his.end_input();
    assert_eq!((hers.ended().await, his.ended().await), (1, 0), "a file was not sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_with_a_file_keeps_its_place_when_its_replica_dies() {
    // More than a socket's buffers take at once, so that the replica dies in the middle.
    const BYTES: usize = 50_000_000;
    let mut cluster = Cluster::start(2).await;
    let place = format!("file://{}", cluster.files().display());
    let (program, doomed) =
        Program::join(&mut cluster, &[("BESEDA_ATTACHMENTS", place.as_str())]).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("large.bin");
    std::fs::write(&path, vec![0x80; BYTES]).expect("a file");
    let mut hers = Talker::start(&alice, "bob", &[doomed, 0]);
    hers.notes_that("bob is offline").await;
    hers.types(&format!("before\n/file {}\nafter\n", path.display()));
    let arrived = || received_bytes(cluster.files());
    eventually(async || if arrived() > 0 { Ok(()) } else { Err("nothing of it came".to_owned()) })
        .await;
    drop(program);
    assert!(arrived() < BYTES as u64, "it is in the middle");
    hers.end_input();
    assert_eq!(hers.ended().await, 0, "{}", hers.notes());
    let page = bob.on(1).history(&chat, "").await;
    let sent = page["results"].as_array().expect("messages").iter();
    let sent: Vec<_> = sent.map(|one| (&one["text"], &one["attachments"][0]["size"])).collect();
    let none = Value::Null;
    let (before, file, after) = (json!("before"), json!(""), json!("after"));
    assert_eq!(sent, [(&before, &none), (&file, &json!(BYTES)), (&after, &none)]);
}

/// The bytes of attachments in a folder of theirs.
fn received_bytes(files: &std::path::Path) -> u64 {
    let entries = |folder: &std::path::Path| {
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
    };
    let bytes = entries(files).flat_map(|chat| entries(&chat).collect::<Vec<_>>());
    bytes.filter_map(|path| path.metadata().ok()).map(|about| about.len()).sum()
}
