//! A server that speaks Azure's blob storage: Microsoft's own emulator, Azurite.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::Method;
use tempfile::TempDir;

use super::eventually_within;

const ACCOUNT: &str = "beseda";
const KEY: &[u8] = b"a key of the tests";

/// It is a program of Node.js, which takes some seconds on a machine with more to do.
const START: Duration = Duration::from_secs(60);

/// A store with one empty container, killed on drop.
#[derive(Debug)]
pub(crate) struct Azure {
    port: u16,
    child: Child,
    _folder: TempDir,
}

impl Azure {
    /// Starts it; `None` where the program is missing, which is said.
    #[expect(clippy::print_stderr, reason = "what was not tested must be seen")]
    pub(crate) async fn start() -> Option<Self> {
        let tools = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("target/tools/azurite/node_modules/.bin/azurite-blob");
        let program = if tools.exists() { tools } else { PathBuf::from("azurite-blob") };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let folder = tempfile::tempdir().expect("a folder");
        let started = Command::new(program)
            .args(["--silent", "--disableTelemetry", "--skipApiVersionCheck"])
            .args(["--blobPort", &port.to_string()])
            .arg("--location")
            .arg(folder.path())
            .env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{}", STANDARD.encode(KEY)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = started else {
            eprintln!(
                "SKIPPED: Azurite is missing (npm install --prefix target/tools/azurite azurite@3.37.0)"
            );
            return None;
        };
        let server = Self { port, child, _folder: folder };
        eventually_within(START, async || server.ask(Method::PUT, &[]).await).await;
        Some(server)
    }

    /// The settings of a replica for its container.
    pub(crate) fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("BESEDA_ATTACHMENTS", "az://files/chat".to_owned()),
            ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT.to_owned()),
            ("AZURE_STORAGE_ACCOUNT_KEY", STANDARD.encode(KEY)),
            ("AZURE_STORAGE_ENDPOINT", format!("http://127.0.0.1:{}/{ACCOUNT}", self.port)),
            ("AZURE_ALLOW_HTTP", "true".to_owned()),
        ]
    }

    /// The names of the objects, without their folders.
    pub(crate) async fn objects(&self) -> Vec<String> {
        let list = self.ask(Method::GET, &[("comp", "list")]).await.expect("a list");
        let names = list.split("<Name>").skip(1).filter_map(|rest| rest.split_once("</Name>"));
        names.filter_map(|(name, _)| Some(name.rsplit_once('/')?.1.to_owned())).collect()
    }

    /// Asks about the container, signed with the account's key
    /// (<https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key>).
    async fn ask(&self, method: Method, query: &[(&str, &str)]) -> Result<String, String> {
        let date = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let version = "2021-08-06";
        let query = [query, &[("restype", "container")]].concat();
        let listed: String =
            query.iter().map(|(name, value)| format!("\n{name}:{value}")).collect();
        // Eleven headers, none of which is sent, then the others and the resource.
        let signed = format!(
            "{method}\n{}x-ms-date:{date}\nx-ms-version:{version}\n/{ACCOUNT}/{ACCOUNT}/files{listed}",
            "\n".repeat(11)
        );
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), signed.as_bytes());
        let url = format!("http://127.0.0.1:{}/{ACCOUNT}/files", self.port);
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let asked = http
            .request(method, reqwest::Url::parse_with_params(&url, &query).expect("a URL"))
            .header("x-ms-date", date)
            .header("x-ms-version", version)
            .header("Authorization", format!("SharedKey {ACCOUNT}:{}", STANDARD.encode(tag)))
            .header("Content-Length", "0")
            .send();
        let answer = asked.await.map_err(|error| error.to_string())?;
        let (status, text) = (answer.status(), answer.text().await.unwrap_or_default());
        if status.is_success() { Ok(text) } else { Err(format!("{status} {text}")) }
    }
}

impl Drop for Azure {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
