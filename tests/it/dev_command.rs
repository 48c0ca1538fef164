//! `beseda dev`, as `make run` starts it.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::harness::{eventually, eventually_within};

/// A pause, a recovery from a crash, and the replicas' own tries.
const RESTART: Duration = Duration::from_secs(40);

/// One that is ended in order when it goes out of scope.
struct Desk {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Desk {
    fn start(data: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_beseda"))
            .args(["dev", "--data", data, "--port", "0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let said = Arc::new(Mutex::new(String::new()));
        let (output, gathered) = (child.stdout.take().expect("its output"), Arc::clone(&said));
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                gathered.lock().expect("no panic").push_str(&(line + "\n"));
            }
        });
        Self { child, said }
    }

    fn said(&self) -> String {
        self.said.lock().expect("no panic").clone()
    }

    /// What stands on a line that begins so, between the two.
    fn told(&self, line: &str, before: &str, after: &str) -> Result<String, String> {
        let said = self.said();
        let found = said.lines().find(|it| it.starts_with(line)).and_then(|it| {
            let (_, rest) = it.split_once(before)?;
            rest.split_once(after).map(|(found, _)| found.to_owned())
        });
        found.ok_or(said)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        let _ = kill(pid, Signal::SIGINT);
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_has_groups_of_named_people_and_makes_them_once() {
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
    let data = folder.path().to_str().expect("text");
    let mut names = Vec::new();
    for start in 1..=2 {
        let desk = Desk::start(data);
        let told = async |line: &str, before: &str, after: &str| {
            eventually_within(RESTART, async || desk.told(line, before, after)).await
        };
        let few = told("Demo  ", "        ", " (3 members)").await;
        let many = told("Demo of many", "  ", " (200 members)").await;
        names.push([few.trim().to_owned(), many.trim().to_owned()]);
        told("Data is kept", "in ", ".").await;
        let environment = std::fs::read_to_string(folder.path().join("demo.env")).expect("a file");
        let value = |name: &str| {
            let line = environment.lines().find_map(|line| line.strip_prefix(name));
            line.expect("it is there").to_owned()
        };
        let (replica, bob) = (value("B="), value("BOB="));
        let get = async |path: &str| {
            let request = reqwest::Client::new().get(format!("{replica}/api/v1/chats/{path}"));
            let answer = request.bearer_auth(&bob).send().await.expect("an answer");
            answer.json::<serde_json::Value>().await.expect("JSON")
        };
        let chats = get("").await;
        let chats = chats["results"].as_array().expect("chats");
        assert_eq!(chats.len(), 2, "start {start}: {chats:?}");
        for name in &names[0] {
            let listed = get(&format!("{name}/members/?limit=100")).await;
            let members = listed["results"].as_array().expect("members");
            assert_eq!(members[0]["user"]["user_id"], "alice");
            assert_eq!(members[0]["role"], "owner");
            assert!(members.iter().all(|one| one["user"]["name"].is_string()), "{members:?}");
        }
    }
    assert_eq!(names[0], names[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_somebody_kills_are_started_again() {
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
    let desk = Desk::start(folder.path().to_str().expect("text"));
    let told = async |line: &str, before: &str, after: &str| {
        eventually_within(RESTART, async || desk.told(line, before, after)).await
    };
    let replica: SocketAddr = told("Replica A", "http://", "/").await.parse().expect("an address");
    let ready = async || {
        let answer = reqwest::get(format!("http://{replica}/readyz")).await;
        let text = answer.map_err(|error| error.to_string())?.text().await;
        let text = text.map_err(|error| error.to_string())?;
        let up = text.contains(r#""postgres":"up""#) && text.contains(r#""redis":"up""#);
        if up { Ok(()) } else { Err(text) }
    };
    eventually(ready).await;
    for server in ["Postgres", "Redis"] {
        let pid = told(server, "(pid ", ")").await.parse().expect("a number");
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it is there");
        told(&format!("{server} has ended"), "(", ")").await;
        eventually_within(RESTART, ready).await;
    }
}
