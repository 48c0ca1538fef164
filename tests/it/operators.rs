//! The program's commands for operators: the real binary, as a shell or an orchestrator runs it.

use std::process::Output;

use beseda::config::Switch;
use serde_json::json;
use tokio::process::Command;

use crate::harness::{Cluster, Program, Psql, eventually};

/// Runs `beseda` with these words, and nothing in the environment but this.
async fn beseda(words: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beseda"));
    command.args(words).env_clear().envs(environment.iter().copied());
    command.output().await.expect("the program runs")
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_is_content_with_a_living_database_and_finds_each_kind_of_damage() {
    let cluster = Cluster::start(2).await;
    let (alice, bob, carol) = (cluster.user("alice"), cluster.user("bob"), cluster.user("carol"));
    let chat = alice.on(0).open_chat(&bob).await;
    let other = carol.on(1).open_chat(&bob).await;
    for text in ["one", "two", "three"] {
        alice.on(0).send(&chat, text).await;
    }
    carol.on(1).send(&other, "hello").await;
    bob.on(1).mark_read(&other).await;
    let kept = alice.on(0).history(&chat, "").await["results"][0]["message_id"].take();
    let kept = kept.as_str().expect("an id");
    let reaction = chat.path(&format!("messages/{kept}/reactions/:x:/"));
    bob.on(0).put(&reaction, json!({})).await.expect(200);
    bob.on(1).put(&chat.path(&format!("pins/{kept}/")), json!({})).await.expect(204);
    let gone = alice.on(0).send(&chat, "oops").await;
    let path =
        format!("/chats/{}/messages/{}/", chat.id, gone["message_id"].as_str().unwrap_or(""));
    alice.on(1).delete(&path).await.expect(204);
    let url = cluster.database_url();
    let verify = async || beseda(&["verify"], &[("DATABASE_URL", &url)]).await;
    let healthy = verify().await;
    assert_eq!(healthy.status.code(), Some(0), "{healthy:?}");
    assert_eq!(printed(&healthy).trim(), "2 chats looked at: all is well");

    let id = &chat.id;
    // Each damage is undone by the statement after it.
    for (check, damage, repair) in [
        (
            "numbers",
            format!("UPDATE chats SET last_seq = last_seq + 1 WHERE chat_id = '{id}'"),
            format!("UPDATE chats SET last_seq = last_seq - 1 WHERE chat_id = '{id}'"),
        ),
        (
            "numbers",
            format!("UPDATE messages SET ev = 5 WHERE chat_id = '{id}' AND seq = 2"),
            format!("UPDATE messages SET ev = 2 WHERE chat_id = '{id}' AND seq = 2"),
        ),
        (
            "counters",
            format!(
                "UPDATE members SET own_after = own_after + 1 WHERE chat_id = '{id}' AND user_id = 'bob'"
            ),
            format!(
                "UPDATE members SET own_after = own_after - 1 WHERE chat_id = '{id}' AND user_id = 'bob'"
            ),
        ),
        (
            "times",
            "UPDATE messages SET created_at = created_at + interval '1 day' WHERE seq = 1".into(),
            "UPDATE messages SET created_at = created_at - interval '1 day' WHERE seq = 1".into(),
        ),
        (
            "tombstones",
            "UPDATE messages SET text = 'still here' WHERE deleted_at IS NOT NULL".into(),
            "UPDATE messages SET text = '' WHERE deleted_at IS NOT NULL".into(),
        ),
        (
            "reactions, pins and attachments",
            "UPDATE messages SET reactions = '[{\"emoji\":\":x:\",\"count\":2,\"user_ids\":[\"bob\"]}]'
              WHERE reactions IS NOT NULL"
                .into(),
            "UPDATE messages SET reactions = '[{\"emoji\":\":x:\",\"count\":1,\"user_ids\":[\"bob\"]}]'
              WHERE reactions IS NOT NULL"
                .into(),
        ),
        (
            "reactions, pins and attachments",
            "UPDATE messages SET pinned_at = pinned_at + interval '1 s'".into(),
            "UPDATE messages SET pinned_at = pinned_at - interval '1 s'".into(),
        ),
        (
            "members",
            format!(
                "UPDATE members SET user_id = 'eve' WHERE user_id = 'bob' AND chat_id <> '{id}'"
            ),
            "UPDATE members SET user_id = 'bob' WHERE user_id = 'eve'".into(),
        ),
        (
            "blocks and erasures",
            format!("UPDATE chats SET blocked = true WHERE chat_id = '{id}'"),
            format!("UPDATE chats SET blocked = false WHERE chat_id = '{id}'"),
        ),
        (
            "orphans",
            "INSERT INTO members VALUES ('ffffffff-ffff-4fff-bfff-ffffffffffff', 'eve')".into(),
            "DELETE FROM members WHERE user_id = 'eve'".into(),
        ),
        (
            "outbox",
            "INSERT INTO outbox (created_at, due_at, chats)
             VALUES (now() - interval '1 hour', now() + interval '1 hour', '{}')"
                .into(),
            "DELETE FROM outbox".into(),
        ),
        (
            "webhooks",
            format!(
                "INSERT INTO webhooks (kind, chat_id, recipient_id, seq, due_at)
                 VALUES ('message.created', '{id}', 'bob', 1, now())"
            ),
            "DELETE FROM webhooks".into(),
        ),
        (
            "webhooks",
            "INSERT INTO webhooks (kind, chat_id, after_id, seq, due_at, dead_at)
             VALUES ('message.created', gen_random_uuid(), '', 1, now(), now())"
                .into(),
            "DELETE FROM webhooks".into(),
        ),
        (
            "push",
            "INSERT INTO push_lanes (user_id, device_id) VALUES ('bob', 'phone')".into(),
            "DELETE FROM push_lanes".into(),
        ),
        (
            "push",
            format!(
                "INSERT INTO push_marks (user_id, device_id, chat_id, want_seq)
                 VALUES ('bob', 'phone', '{id}', 1)"
            ),
            "DELETE FROM push_marks".into(),
        ),
    ] {
        cluster.psql(&damage).await;
        let found = verify().await;
        let text = printed(&found);
        assert_eq!(found.status.code(), Some(1), "{damage}: {text}");
        // A counter that is wrong may show in more than one check.
        assert!(text.contains(&format!("{check}: 1 wrong")), "{damage}: {text}");
        cluster.psql(&repair).await;
    }
    let nowhere = beseda(&["verify"], &[("DATABASE_URL", "postgresql://127.0.0.1:1/none")]).await;
    assert_eq!(nowhere.status.code(), Some(2), "{nowhere:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_is_checked_without_changing_it_and_the_url_may_come_from_a_file() {
    let cluster = Cluster::start(1).await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), cluster.database_url() + "\n").expect("a file");
    let path = file.path().to_str().expect("text");
    let check = async || beseda(&["migrate", "--check"], &[("DATABASE_URL_FILE", path)]).await;
    let current = check().await;
    assert_eq!((current.status.code(), printed(&current)), (Some(0), String::new()));
    cluster.psql("ALTER TABLE refinery_schema_history RENAME TO kept").await;
    let missing = check().await;
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
    assert!(printed(&missing).starts_with("missing: V1__tables"), "{missing:?}");
    let made = "SELECT count(*) FROM pg_tables WHERE tablename = 'refinery_schema_history'";
    assert_eq!(cluster.psql_value::<u32>(made).await, 0, "nothing was made by looking");
    cluster.psql("ALTER TABLE kept RENAME TO refinery_schema_history").await;
    assert_eq!(check().await.status.code(), Some(0));

    // A migration was applied from another text: by a fork, or before a released file was edited.
    let was = "SELECT checksum FROM refinery_schema_history WHERE version = 2";
    let was = cluster.psql_value::<String>(was).await;
    let set = async |checksum: &str| {
        let set = "UPDATE refinery_schema_history SET checksum = ";
        cluster.psql(&format!("{set}{checksum} WHERE version = 2")).await;
    };
    for foreign in ["'1'", "NULL"] {
        set(foreign).await;
        let different = check().await;
        assert_eq!(different.status.code(), Some(1), "{different:?}");
        let said = printed(&different);
        assert!(said.starts_with("different: V2__") && said.lines().count() == 1, "{said}");
    }
    set(&format!("'{was}'")).await;
    assert_eq!(check().await.status.code(), Some(0));

    // Applied by the next release, which left what this one needs.
    let newer = "INSERT INTO refinery_schema_history (version, name) VALUES (9999, 'more')";
    cluster.psql(newer).await;
    let migrate = async || beseda(&["migrate"], &[("DATABASE_URL_FILE", path)]).await;
    for compatible in [check().await, migrate().await] {
        assert_eq!(compatible.status.code(), Some(0), "{compatible:?}");
        assert_eq!(printed(&compatible), "");
    }
    // By the one after that, which did not.
    cluster.psql("UPDATE instance SET compatible_from = 9998").await;
    let unknown = check().await;
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
    let said = "unknown: V9999__more was applied by a newer release; on it only programs run that \
                know schema 9998\n";
    assert_eq!(printed(&unknown), said);
    let refused = migrate().await;
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("too old"), "{refused:?}");
    cluster.psql("UPDATE instance SET compatible_from = 9").await;
    cluster.psql("DELETE FROM refinery_schema_history WHERE version = 9999").await;
    assert_eq!(check().await.status.code(), Some(0));

    let both = [("DATABASE_URL_FILE", path), ("DATABASE_URL", "postgresql://x")];
    let refused = beseda(&["migrate", "--check"], &both).await;
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("DATABASE_URL_FILE: set this or DATABASE_URL, not both"), "{said}");
}

/// As left by the files from before the baseline: others under the same numbers, and two more.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_another_baseline_is_refused_with_a_way_out() {
    let cluster = Cluster::start(1).await;
    cluster
        .psql(
            "CREATE TABLE kept AS SELECT * FROM refinery_schema_history;
             UPDATE refinery_schema_history SET name = 'schema', checksum = '1' WHERE version = 1;
             INSERT INTO refinery_schema_history (version, name, checksum)
             VALUES (98, 'one_plan', '98'), (99, 'compatible_and_blocks', '99');
             UPDATE instance SET compatible_from = 11",
        )
        .await;
    let url = cluster.database_url();
    let migrated = beseda(&["migrate"], &[("DATABASE_URL", url.as_str())]).await;
    assert_eq!(migrated.status.code(), Some(1), "{migrated:?}");
    let told = String::from_utf8_lossy(&migrated.stderr).into_owned();
    let on = cluster.refusal(|config| config.migrate_on_start = Switch::On).await;
    let off = cluster.refusal(|config| config.migrate_on_start = Switch::Off).await;
    for told in [told, on, off] {
        assert!(told.contains("V1__tables was applied to the database with another"), "{told}");
        assert!(told.contains("begin with a new database (`make clean-data`"), "{told}");
    }
    cluster
        .psql(
            "DELETE FROM refinery_schema_history;
             INSERT INTO refinery_schema_history SELECT * FROM kept;
             DROP TABLE kept;
             UPDATE instance SET compatible_from = 9",
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_makes_nobody_wait_behind_a_table_that_is_held() {
    let cluster = Cluster::start(1).await;
    let url = cluster.database_url();
    let holder = Psql::connect(&url).await;
    holder.run("BEGIN; LOCK TABLE refinery_schema_history").await;
    let waiting = "SELECT count(*) FROM pg_locks
                    WHERE NOT granted AND relation = 'refinery_schema_history'::regclass";
    let environment = [("DATABASE_URL", url.as_str())];
    let migrate = beseda(&["migrate"], &environment);
    let release = async {
        // It comes, and steps back.
        for expected in [1, 0] {
            eventually(async || match cluster.psql_value::<i64>(waiting).await {
                count if count == expected => Ok(()),
                count => Err(format!("{count} wait")),
            })
            .await;
        }
        holder.run("ROLLBACK").await;
    };
    let (migrated, ()) = tokio::join!(migrate, release);
    assert_eq!(migrated.status.code(), Some(0), "{migrated:?}");
    let said = String::from_utf8_lossy(&migrated.stderr);
    assert!(said.contains("somebody holds a table"), "{said}");
}

/// Other than for the other programs on the machine: with huge pages it takes twice the memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_asks_for_no_huge_pages() {
    let mut cluster = Cluster::start(1).await;
    let (program, _) = Program::join(&mut cluster, &[]).await;
    let huge_pages = |process: &str| {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("THP_enabled:"));
        line.map(|value| value.trim().to_owned())
    };
    // Kernels before 5.0 do not tell.
    if huge_pages("self").is_some() {
        assert_eq!(huge_pages(&program.id().to_string()).as_deref(), Some("0"));
    }
}
