//! A scanner judges what was uploaded; until then nobody but its sender gets the bytes.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use beseda::config::ScanAddress;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use super::{File, announce, pair, read, send, stored};
use crate::harness::{Cluster, eventually};

/// What stands for a virus.
const BAD: &[u8] = b"something bad";

/// A scanner that speaks clamd's protocol, and waits until it may answer.
struct Scanner {
    port: u16,
    may_answer: Arc<Semaphore>,
    asked: Arc<AtomicUsize>,
}

impl Scanner {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (may_answer, asked) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let scanner = Self { port, may_answer: Arc::clone(&may_answer), asked: Arc::clone(&asked) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                asked.fetch_add(1, SeqCst);
                tokio::spawn(judge(stream, Arc::clone(&may_answer)));
            }
        });
        scanner
    }

    fn address(&self) -> Option<ScanAddress> {
        Some(ScanAddress { host: "127.0.0.1".to_owned(), port: self.port })
    }
}

async fn judge(mut stream: TcpStream, may_answer: Arc<Semaphore>) -> std::io::Result<()> {
    let mut command = [0; 10];
    stream.read_exact(&mut command).await?;
    assert_eq!(&command, b"zINSTREAM\0");
    let mut file = Vec::new();
    loop {
        let size = stream.read_u32().await?;
        if size == 0 {
            break;
        }
        let mut chunk = vec![0; size as usize];
        stream.read_exact(&mut chunk).await?;
        file.extend(chunk);
    }
    may_answer.acquire().await.expect("never closed").forget();
    let bad = file.windows(BAD.len()).any(|part| part == BAD);
    let answer: &[u8] = if bad { b"stream: Test.Bad FOUND\0" } else { b"stream: OK\0" };
    stream.write_all(answer).await
}

#[tokio::test(flavor = "multi_thread")]
async fn until_the_scanner_has_answered_only_the_sender_gets_the_bytes() {
    let scanner = Scanner::start().await;
    let cluster = Cluster::with(2, |config| config.attachments.scan = scanner.address()).await;
    let (alice, bob, chat) = pair(&cluster).await;
    let mut socket = bob.on(1).connect(&chat).await;
    let (sent, message) = send(&cluster, &alice, &chat, &File::text()).await;
    assert_eq!(message["attachments"][0]["status"], "scanning");
    socket.expect("message.created").await;
    assert_eq!(read(&alice.on(0), &chat, &sent).await.text, "Some notes.");
    read(&bob.on(0), &chat, &sent).await.expect_problem(404, "attachment_not_found");
    scanner.may_answer.add_permits(1);
    let told = socket.expect("message.updated").await;
    assert_eq!(told["changed"], serde_json::json!(["attachments"]));
    assert_eq!(told["message"]["attachments"][0]["status"], "ready");
    assert_eq!(read(&bob.on(0), &chat, &sent).await.text, "Some notes.");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_scanner_refuses_nobody_gets_and_its_bytes_go() {
    let scanner = Scanner::start().await;
    let cluster = Cluster::with(1, |config| config.attachments.scan = scanner.address()).await;
    let (alice, bob, chat) = pair(&cluster).await;
    let mut socket = bob.on(0).connect(&chat).await;
    let bad = File::new("bad.bin", "application/octet-stream", BAD);
    let (sent, _) = send(&cluster, &alice, &chat, &bad).await;
    let unsent = announce(&alice.on(0), &chat, &bad).await;
    unsent.put(&cluster.anyone(0), BAD).await.expect(204);
    scanner.may_answer.add_permits(2);
    socket.expect("message.created").await;
    let told = socket.expect("message.updated").await;
    assert_eq!(told["message"]["attachments"][0]["status"], "blocked");
    for user in [&alice, &bob] {
        read(&user.on(0), &chat, &sent).await.expect_problem(404, "attachment_not_found");
    }
    eventually(async || {
        let left = stored(&cluster);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    let body = serde_json::json!({ "text": "", "attachments": [unsent.id] });
    alice.on(0).post(&chat.path("messages/"), body).await.expect_faults(&["attachments"]);
    let history = bob.on(0).history(&chat, "").await;
    assert_eq!(history["results"][0]["attachments"][0]["status"], "blocked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_goes_on_after_a_crash_and_while_the_scanner_is_away() {
    let scanner = Scanner::start().await;
    let mut cluster = Cluster::with(2, |config| {
        config.attachments.scan = Some(ScanAddress { host: "127.0.0.1".to_owned(), port: 9 });
    })
    .await;
    let (alice, bob, chat) = pair(&cluster).await;
    let (sent, _) = send(&cluster, &alice, &chat, &File::text()).await;
    eventually(async || {
        match cluster.psql_value::<i32>("SELECT attempts FROM attachments").await {
            0 => Err("not tried".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    cluster.abort(0);
    cluster.abort(1);
    let late = cluster.add_replica_with(|config| config.attachments.scan = scanner.address()).await;
    scanner.may_answer.add_permits(1);
    cluster.psql("UPDATE attachments SET busy_until = now()").await;
    eventually(async || {
        let answer = read(&bob.on(late), &chat, &sent).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text) }
    })
    .await;
    assert!(scanner.asked.load(SeqCst) >= 1);
}

/// A real clamd with one signature of its own, ended on drop.
struct Clamd {
    child: std::process::Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Clamd {
    /// `None` where the program is missing, which is said.
    #[expect(clippy::print_stderr, reason = "what was not tested must be seen")]
    async fn start() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let signature: String = BAD.iter().map(|byte| format!("{byte:02x}")).collect();
        let database = folder.path().join("test.ndb");
        std::fs::write(database, format!("Test.Bad:0:*:{signature}\n")).expect("a database");
        let settings = folder.path().join("clamd.conf");
        let text = format!(
            "DatabaseDirectory {}\nTCPAddr 127.0.0.1\nTCPSocket {port}\nForeground yes\n",
            folder.path().display()
        );
        std::fs::write(&settings, text).expect("settings");
        let child = std::process::Command::new("/usr/sbin/clamd")
            .arg("--config-file")
            .arg(settings)
            .stdout(std::process::Stdio::null())
            .spawn();
        let Ok(child) = child else {
            eprintln!("SKIPPED: clamd is missing (Debian: scripts/install clamav-daemon)");
            return None;
        };
        let clamd = Self { child, port, _folder: folder };
        eventually(async || {
            let connected = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
            connected.map_err(|error| error.to_string())
        })
        .await;
        Some(clamd)
    }
}

impl Drop for Clamd {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clamd_itself_is_understood() {
    let Some(clamd) = Clamd::start().await else { return };
    let address = ScanAddress { host: "127.0.0.1".to_owned(), port: clamd.port };
    let cluster = Cluster::with(1, |config| config.attachments.scan = Some(address)).await;
    let (alice, bob, chat) = pair(&cluster).await;
    let mut socket = bob.on(0).connect(&chat).await;
    let good = File::of_size(1_000_000);
    let bad = File::new("bad.bin", "application/octet-stream", BAD);
    for (file, status) in [(&good, "ready"), (&bad, "blocked")] {
        send(&cluster, &alice, &chat, file).await;
        socket.expect("message.created").await;
        let told = socket.expect("message.updated").await;
        assert_eq!(told["message"]["attachments"][0]["status"], status);
    }
}
