//! Every scenario for a few seconds against the real thing, as an operator would start it.

#![expect(clippy::unwrap_used, reason = "a test that panics has done its work")]

use std::{path::Path, process::Output};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

/// Runs of their own installation at once: each takes a Postgres, a Redis and two replicas.
static TURNS: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(2);

struct Outcome {
    output: Output,
    folder: TempDir,
}

/// `loadtest local` with these arguments, in a folder of its own.
async fn local(arguments: &str) -> Outcome {
    let _turn = TURNS.acquire().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .arg("local")
        .args(arguments.split_whitespace())
        .args(["--json", "result.json", "--html", "result.html"])
        .current_dir(&folder)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    Outcome { output, folder }
}

impl Outcome {
    fn text(&self) -> String {
        let Output { stdout, stderr, .. } = &self.output;
        format!("{}{}", String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr))
    }

    fn json(&self) -> Value {
        let text = std::fs::read_to_string(self.folder.path().join("result.json"));
        serde_json::from_str(&text.unwrap_or_else(|_| panic!("{}", self.text()))).unwrap()
    }

    /// Its result, where it ended well.
    fn right(&self) -> Value {
        assert!(self.output.status.success(), "{}", self.text());
        let json = self.json();
        assert_eq!(json["violations"], serde_json::json!({}), "{json}");
        for phase in json["phases"].as_array().unwrap() {
            assert!(phase["count"].as_u64() > Some(0), "{phase}");
            let first = phase["latencies"].as_object().unwrap().values().next().unwrap();
            assert!(
                first["p50"].as_f64() > Some(0.0) && first["max"].as_f64() >= first["p50"].as_f64()
            );
        }
        json
    }
}

/// A number of the result.
fn number(json: &Value, pointer: &str) -> f64 {
    json.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer}: {json}"))
}

fn figure(json: &Value, name: &str) -> f64 {
    let mut figures = json["figures"].as_array().unwrap().iter();
    let figure = figures.find(|figure| figure["name"] == name);
    number(figure.unwrap_or_else(|| panic!("{name}: {json}")), "/value")
}

#[tokio::test]
async fn send_counts_cpu_and_memory_of_all_and_draws_a_page() {
    let outcome = local("send --chats 6 --clients 4 --seconds 2").await;
    let json = outcome.right();
    for name in ["service", "postgres", "redis", "loadtest"] {
        assert!(number(&json, &format!("/phases/0/memory_mib/{name}/max")) > 1.0);
    }
    assert!(number(&json, "/phases/0/cpu_seconds_per_1000/service") > 0.0);
    assert_eq!(json["phases"][0]["latencies"]["POST"]["count"], json["phases"][0]["count"]);
    let page = std::fs::read_to_string(outcome.folder.path().join("result.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("violations: none"));
}

#[tokio::test]
async fn a_limit_that_is_not_kept_fails_the_run() {
    let outcome = local("send --chats 2 --clients 2 --seconds 1 --max-p99 0.001").await;
    assert_eq!(outcome.output.status.code(), Some(1), "{}", outcome.text());
    assert_eq!(outcome.json()["exceeded"].as_array().map(Vec::len), Some(1));
    assert!(outcome.text().contains("FAILED: beyond a limit"), "{}", outcome.text());
}

#[tokio::test]
async fn latency_sends_what_was_due_and_compares_with_the_bare_pair() {
    let json = local("latency --chats 6 --rate 40 --seconds 2 --baseline").await.right();
    for phase in [0, 1] {
        assert_eq!(number(&json, &format!("/phases/{phase}/count")), 80.0, "{json}");
    }
    assert!(figure(&json, "p99 for each p99 of the bare pair") > 0.0);
}

#[tokio::test]
async fn fanout_delivers_to_every_socket() {
    let json = local("fanout --sockets 30 --seconds 1 --burst 8").await.right();
    assert_eq!(number(&json, "/phases/0/count") % 30.0, 0.0);
    assert_eq!(number(&json, "/phases/1/count") % 240.0, 0.0);
}

#[tokio::test]
async fn fanout_delivers_to_every_member_of_a_group() {
    let arguments = "fanout --members 40 --sockets 60 --seconds 1 --burst 8";
    let json = local(arguments).await.right();
    assert_eq!(number(&json, "/phases/0/count") % 60.0, 0.0);
}

#[tokio::test]
async fn groups_with_and_without_receipts_end_with_right_counters() {
    let rates = "--online 12 --senders 3 --rate 30 --marks 30 --seconds 2";
    let (small, silent) =
        (format!("group --members 8 {rates}"), format!("group --members 40 {rates}"));
    let (small, silent) = tokio::join!(local(&small), local(&silent));
    for (outcome, members) in [(small, 8.0), (silent, 40.0)] {
        let json = outcome.right();
        assert_eq!(number(&json, "/phases/0/count"), 60.0, "{json}");
        assert_eq!(figure(&json, "read markers set"), 60.0, "{json}");
        assert_eq!(figure(&json, "members whose counters were recounted"), members, "{json}");
    }
}

#[tokio::test]
async fn a_channel_reaches_everybody_who_is_online() {
    let arguments = "channel --members 1500 --online 40 --messages 4 --pause 10 --checked 100";
    let json = local(arguments).await.right();
    assert_eq!(number(&json, "/phases/0/count"), 160.0, "{json}");
    let after = |which| figure(&json, &format!("a message is with all after, {which}"));
    assert!(after("median") > 0.0 && after("worst") >= after("median"), "{json}");
    assert_eq!(figure(&json, "members whose counters were recounted"), 100.0, "{json}");
}

#[tokio::test]
async fn idle_weighs_sockets() {
    let json = local("idle --from 10 --to 60 --chats 5 --quiet 1 --burst 1").await.right();
    assert_eq!(number(&json, "/phases/0/count"), 60.0);
    assert!(figure(&json, "memory for a socket").is_finite());
}

#[tokio::test]
async fn history_reads_what_was_there_before() {
    let arguments = "--preload 4x120 history --chats 4 --messages 120 --clients 3 --seconds 1";
    local(arguments).await.right();
}

#[tokio::test]
async fn inbox_and_unread_find_all_chats() {
    let inbox = local("inbox --people 2 --chats-each 20 --limit 15 --clients 3 --seconds 1");
    let unread = local("unread --people 2 --chats-each 20 --clients 3 --seconds 1");
    let (inbox, unread) = tokio::join!(inbox, unread);
    inbox.right();
    unread.right();
}

#[tokio::test]
async fn a_storm_ends_with_all_in_step() {
    let json = local("storm --sockets 60 --chats 5 --quiet 1 --rate 10").await.right();
    assert!(figure(&json, "all in step again after") > 0.0);
    assert!(figure(&json, "slowest send meanwhile") > 0.0);
}

#[tokio::test]
async fn a_soak_loses_nothing_to_cut_sockets() {
    let json = local("soak --chats 4 --rate 20 --seconds 6 --cuts 2").await.right();
    assert_eq!(number(&json, "/phases/0/count"), 120.0);
    assert!(figure(&json, "growth of the service's memory").is_finite());
}

#[tokio::test]
async fn two_programs_are_compared_in_turn() {
    let _turn = TURNS.acquire().await.unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_loadtest")).with_file_name("beseda");
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["local", "--rounds", "2", "--against", &format!("{}=twin", program.display())])
        .args("send --chats 2 --clients 2 --seconds 1".split_whitespace())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let (text, said) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}{said}");
    assert!(text.contains("| send | this | twin | ratio |"), "{text}");
    assert!(text.contains("violations of this: none"), "{text}");
    let all = text.lines().find_map(|line| line.strip_prefix("| CPU s per 1,000: all three |"));
    let figures: Vec<f64> =
        all.unwrap().split(['|', ' ']).filter_map(|word| word.parse().ok()).collect();
    let [this, twin, ratio, least, most] = figures[..] else { panic!("{text}") };
    assert!(this > 0.0 && twin > 0.0 && least <= ratio && ratio <= most, "{text}");
}

#[tokio::test]
async fn what_is_asked_wrongly_is_said_before_anything_starts() {
    for (arguments, hint) in [
        ("send", "--url"),
        ("local send --url http://127.0.0.1:1/", "local"),
        ("local send --min-pgbench-ratio 1", "--baseline"),
        ("latency --url http://127.0.0.1:1/ --jwt-secret x --baseline", "local"),
        ("idle --url http://127.0.0.1:1/ --jwt-secret x", "--pid"),
        ("local latency --rate 0", "--rate"),
        ("local group --members 1", "--members"),
        ("local channel --members 100001", "--members"),
        ("local --preload 7 send", "CHATSxMESSAGES"),
        ("local --rounds 2 send", "--against"),
        ("local --against x send --json -", "--json"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
            .args(arguments.split_whitespace())
            .current_dir(Path::new("/"))
            .env_remove("BESEDA_JWT_HS256_SECRET")
            .output()
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(hint), "{arguments}: {text}");
    }
}
