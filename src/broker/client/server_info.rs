//! Which servers are there, by their own word: their identity, and whether they are new enough.

use std::hash::{DefaultHasher, Hash, Hasher};

use fred::{
    clients::Client,
    interfaces::ClientLike,
    types::{InfoKind, config::Options},
};

/// The oldest Redis that knows all commands in use: `ZADD … GT`, `SET … GET`. An older one refuses only
/// these, and users of a dead replica would stay online.
const OLDEST: (u32, u32) = (6, 2);
/// [`OLDEST`] as text.
pub(crate) const OLDEST_REDIS: &str = "6.2";

/// A server's answer to INFO.
pub(super) struct ServerInfo {
    /// The process (`run_id`) and its replication history (`master_replid`): a process that was demoted
    /// and promoted again has missed the writes in between.
    identity: String,
    pub(super) version: String,
}

/// Asks all servers that hold data; `None` unless all of them answer.
pub(super) async fn ask_servers(client: &Client) -> Option<Vec<ServerInfo>> {
    if !client.is_clustered() {
        let info = client.info::<String>(Some(InfoKind::Default)).await.ok()?;
        return Some(vec![parse(&info)?]);
    }
    let mut masters = Vec::new();
    for server in client.active_connections() {
        let options = Options { cluster_node: Some(server), ..Options::default() };
        let info = client.with_options(&options).info::<String>(Some(InfoKind::Default)).await;
        masters.push(parse(&info.ok()?)?);
    }
    Some(masters)
}

/// One short name for all of them, as it stands in many values; `None` for none.
pub(super) fn identity(servers: Vec<ServerInfo>) -> Option<String> {
    let mut identities: Vec<String> = servers.into_iter().map(|server| server.identity).collect();
    if identities.is_empty() {
        return None;
    }
    identities.sort_unstable();
    // The hash is stable within one build; a difference between builds only costs a refill.
    let mut hasher = DefaultHasher::new();
    identities.hash(&mut hasher);
    Some(format!("{:016x}", hasher.finish()))
}

fn parse(info: &str) -> Option<ServerInfo> {
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    Some(ServerInfo {
        identity: format!("{}.{}", field("run_id:")?, field("master_replid:")?),
        version: field("redis_version:").unwrap_or_default().to_owned(),
    })
}

/// Whether a version is older than [`OLDEST`]. An unreadable one is not.
pub(super) fn is_outdated(version: &str) -> bool {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < OLDEST,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for old in ["5.0.14", "6.0.16", "6.1.240"] {
            assert!(is_outdated(old), "{old}");
        }
        for new in ["6.2.0", "6.10", "7.0.15", "7.2.4", "8.0.0-rc1", "10.0.0", "", "unknown"] {
            assert!(!is_outdated(new), "{new}");
        }
    }
}
