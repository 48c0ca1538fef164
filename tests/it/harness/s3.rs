//! A server that speaks S3, on a folder: the program `s3s-fs`.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use beseda::config::{AttachmentConfig, AttachmentPlace, Secret};
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::eventually;

const KEY: &str = "beseda";
const SECRET: &str = "a secret of the tests";

/// An S3 server, killed on drop.
#[derive(Debug)]
pub(crate) struct S3 {
    program: PathBuf,
    port: u16,
    folder: TempDir,
    child: Option<Child>,
}

impl S3 {
    /// Starts a server with one empty bucket; `None` where the program is missing, which is said.
    #[expect(clippy::print_stderr, reason = "what was not tested must be seen")]
    pub(crate) async fn start() -> Option<Self> {
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/s3s-fs");
        let program = if tools.exists() { tools } else { PathBuf::from("s3s-fs") };
        if Command::new(&program).arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!(
                "SKIPPED: s3s-fs is missing \
                 (cargo install --locked --root target/tools --features binary s3s-fs@0.14.1)"
            );
            return None;
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("files")).expect("a bucket");
        let mut server = Self { program, port, folder, child: None };
        server.restart().await;
        Some(server)
    }

    /// Starts it again, on the same port with what it has stored.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        let child = Command::new(&self.program)
            .args(["--host", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--access-key", KEY, "--secret-key", SECRET])
            .arg(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        self.child = Some(child);
        let port = self.port;
        eventually(async || {
            let connected = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
            connected.map_err(|error| error.to_string())
        })
        .await;
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sets replicas up for its bucket, at this port: its own, or that of a proxy.
    pub(crate) fn configure(&self, config: &mut AttachmentConfig, port: u16) {
        let bucket = "s3://files/chat".parse::<AttachmentPlace>().expect("a place");
        let endpoint = format!("http://127.0.0.1:{port}");
        config.attachments = bucket;
        config.aws_endpoint_url = Some(endpoint.parse().expect("a URL"));
        config.aws_access_key_id = Some(Secret::from(KEY.to_owned()));
        config.aws_secret_access_key = Some(Secret::from(SECRET.to_owned()));
    }

    /// The same as settings of the program.
    pub(crate) fn environment(port: u16) -> [(&'static str, String); 4] {
        [
            ("BESEDA_ATTACHMENTS", "s3://files/chat".to_owned()),
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")),
            ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ]
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The names of the objects, without what the server notes beside them.
    pub(crate) fn objects(&self) -> Vec<String> {
        let mut names = Vec::new();
        let chats = std::fs::read_dir(self.folder.path().join("files/chat"));
        for chat in chats.into_iter().flatten() {
            for file in std::fs::read_dir(chat.expect("an entry").path()).expect("a folder") {
                let name = file.expect("an entry").file_name().into_string().expect("UTF-8");
                if !name.starts_with(".bucket") {
                    names.push(name);
                }
            }
        }
        names.sort();
        names
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.kill();
    }
}
