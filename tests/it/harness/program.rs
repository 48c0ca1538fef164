//! The real program as a replica beside those in this process.

use std::{
    io::Read,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use super::{Cluster, SECRET, eventually};

/// `beseda serve`, whose log is collected; killed on drop.
pub(crate) struct Program {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Program {
    /// Starts it with the cluster's database and Redis, and returns its index among the replicas.
    /// `settings` take precedence over the default ones.
    pub(crate) async fn join(cluster: &mut Cluster, settings: &[(&str, &str)]) -> (Self, usize) {
        let program = Self::start(cluster, settings);
        let replica = program.joined(cluster).await;
        (program, replica)
    }

    /// Starts it like [`Self::join`], but does not wait until it serves.
    pub(crate) fn start(cluster: &Cluster, settings: &[(&str, &str)]) -> Self {
        let (url, redis) = (cluster.database_url(), cluster.stack().redis.url());
        let needed = [
            ("DATABASE_URL", url.as_str()),
            ("REDIS_URL", &redis),
            ("BESEDA_REDIS_PREFIX", cluster.redis_prefix()),
            ("BESEDA_JWT_HS256_SECRET", SECRET),
            ("BESEDA_LISTEN", "127.0.0.1:0"),
            ("BESEDA_INTERNAL_LISTEN", "127.0.0.1:0"),
        ];
        Self::serve(needed.iter().chain(settings).copied())
    }

    /// Returns its index among the replicas, once it serves.
    pub(crate) async fn joined(&self, cluster: &mut Cluster) -> usize {
        let (public, internal) = eventually(async || self.addresses()).await;
        cluster.add_foreign_replica(public, internal)
    }

    /// Starts it with this environment; does not wait until it serves.
    fn serve<'a>(environment: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_beseda"))
            .arg("serve")
            .env_clear()
            .envs(environment)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let log = Arc::new(Mutex::new(String::new()));
        let (mut stderr, gathered) = (child.stderr.take().expect("its log"), Arc::clone(&log));
        std::thread::spawn(move || {
            let mut buffer = [0; 4_096];
            while let Ok(read @ 1..) = stderr.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..read]);
                gathered.lock().expect("no panic").push_str(&text);
            }
        });
        Self { child, log }
    }

    /// Returns its addresses, once it has logged them.
    fn addresses(&self) -> Result<(SocketAddr, SocketAddr), String> {
        let log = self.log();
        // At `debug` a line before it has the settings.
        let serving = log.lines().rfind(|line| line.contains("serving"));
        let address = |name: &str| {
            let (_, rest) = serving?.split_once(name)?;
            let address: String = rest
                .chars()
                .skip_while(|c| !c.is_ascii_digit())
                .take_while(|c| c.is_ascii_digit() || ".:".contains(*c))
                .collect();
            address.parse().ok()
        };
        address("public").zip(address("internal")).ok_or(log)
    }

    /// Returns the process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns its log so far, without colours.
    pub(crate) fn log(&self) -> String {
        strip_colours(&self.log.lock().expect("no panic"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The log's colours stand between a name and its value.
fn strip_colours(log: &str) -> String {
    let mut plain = String::new();
    let mut rest = log;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain + rest
}
