//! A PgBouncer in transaction mode.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::eventually;

/// Debian's folder is not in the PATH of ordinary users.
const PROGRAM: &str = "/usr/sbin/pgbouncer";

/// Ends the program when this process ends, which closes the pipe.
const GUARD: &str = r#""$@" & read -r _; kill "$!""#;

/// Connections to Postgres: fewer than its clients', so that a client's statements change connections.
const POOL: usize = 4;

/// A PgBouncer, killed on drop.
#[derive(Debug)]
pub(crate) struct PgBouncer {
    guard: Child,
    port: u16,
    _settings: TempDir,
}

impl PgBouncer {
    /// Starts a PgBouncer in front of all databases of the Postgres on this port.
    pub(crate) async fn start(postgres: u16) -> Self {
        let program = if Path::new(PROGRAM).exists() { PROGRAM } else { "pgbouncer" };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let settings = tempfile::tempdir().expect("a folder");
        let file = settings.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={postgres} user=beseda\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = transaction\ndefault_pool_size = {POOL}\n"
        );
        std::fs::write(&file, text).expect("it can be written");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", GUARD, "guard", program, "-q"]).arg(file);
        if nix::unistd::geteuid().is_root() {
            // It refuses to be root.
            command.args(["-u", "postgres"]);
        }
        let guard = command.stdin(Stdio::piped()).spawn().expect("a shell");
        let bouncer = Self { guard, port, _settings: settings };
        eventually(async || {
            let connected = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
            connected.map_err(|error| {
                format!("{error}; is PgBouncer installed? Debian: apt-get install pgbouncer")
            })
        })
        .await;
        bouncer
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // It was told to end; a failure here has no consequence.
        let _ = self.guard.wait();
    }
}
