//! Settings of rate limits and caps.

use clap::Args;

use super::{ConfigError, Switch};

/// Rate limits and caps. A rate is sustained; ten seconds' worth may come at once.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitConfig {
    /// Apply rate limits and the caps on sockets and requests. `off` lifts all of them.
    #[arg(long, env = "BESEDA_RATE_LIMITS", value_enum, default_value = "on")]
    pub rate_limits: Switch,

    /// Sends, edits, deletions, reports and read markers per second, per user and replica.
    #[arg(long, env = "BESEDA_RATE_SENDS", default_value_t = 10)]
    pub rate_sends: u32,

    /// Reads per second, per user and replica.
    #[arg(long, env = "BESEDA_RATE_READS", default_value_t = 50)]
    pub rate_reads: u32,

    /// Chats opened, changed or deleted, members changed, and people named or blocked, per second, per
    /// user and replica.
    #[arg(long, env = "BESEDA_RATE_ROOMS", default_value_t = 5)]
    pub rate_rooms: u32,

    /// Searches per second, per user and replica.
    #[arg(long, env = "BESEDA_RATE_SEARCHES", default_value_t = 5)]
    pub rate_searches: u32,

    /// Tickets and sockets per second, per user and replica.
    #[arg(long, env = "BESEDA_RATE_CONNECTS", default_value_t = 2)]
    pub rate_connects: u32,

    /// Requests and sockets per second from one address (IPv6: one /64), counted before tokens are
    /// checked. Addresses behind proxies are seen only through BESEDA_TRUSTED_PROXIES.
    #[arg(long, env = "BESEDA_RATE_ADDRESSES", default_value_t = 1_000)]
    pub rate_addresses: u32,

    /// Commands per second on one socket.
    #[arg(long, env = "BESEDA_RATE_COMMANDS", default_value_t = 50)]
    pub rate_commands: u32,

    /// Connections that a replica accepts per second, and 25 times as many at once; the rest wait in
    /// the kernel's queue, with requests on new connections behind them. Raise it with the number of
    /// cores: at 400/s a handshake flood leaves most of two cores to connected clients.
    #[arg(long, env = "BESEDA_RATE_ACCEPTS", default_value_t = 400)]
    pub rate_accepts: u32,

    /// Maximum number of requests of one user in flight on one replica, each until its answer is taken;
    /// one more is answered 429. The largest answers have 4 MB, so 32 of them take a quarter of 512 MiB.
    #[arg(long, env = "BESEDA_REQUESTS_PER_USER", default_value_t = 32)]
    pub requests_per_user: usize,

    /// A user with this many chats can open and join no more: 403 `forbidden`. Other users may still open
    /// chats with them and add them to groups, and a `chat:admin` token may open any. Unread counters list
    /// all of them, in 190 bytes each.
    #[arg(long, env = "BESEDA_ROOMS_PER_USER", default_value_t = 20_000)]
    pub rooms_per_user: u32,

    /// Maximum number of people whom a user may block; beyond it, 403 `forbidden`.
    #[arg(long, env = "BESEDA_BLOCKS_PER_USER", default_value_t = 10_000)]
    pub blocks_per_user: u32,

    /// Maximum number of open sockets of one user on one replica; one more is closed with 4009.
    #[arg(long, env = "BESEDA_SOCKETS_PER_USER", default_value_t = 50)]
    pub sockets_per_user: usize,

    /// Maximum number of open sockets from one address (IPv6: one /64) on one replica; one more is
    /// closed with 4204.
    #[arg(long, env = "BESEDA_SOCKETS_PER_ADDRESS", default_value_t = 5_000)]
    pub sockets_per_address: usize,

    /// Maximum number of open sockets on one replica; one more is closed with 4204.
    #[arg(long, env = "BESEDA_SOCKETS", default_value_t = 50_000)]
    pub sockets: usize,

    /// Maximum number of chats that one socket may follow; one more is refused with `forbidden`.
    #[arg(long, env = "BESEDA_SUBSCRIPTIONS_PER_SOCKET", default_value_t = 1_000)]
    pub subscriptions_per_socket: usize,
}

impl LimitConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let rates = [
            ("BESEDA_RATE_SENDS", self.rate_sends),
            ("BESEDA_RATE_READS", self.rate_reads),
            ("BESEDA_RATE_ROOMS", self.rate_rooms),
            ("BESEDA_RATE_SEARCHES", self.rate_searches),
            ("BESEDA_RATE_CONNECTS", self.rate_connects),
            ("BESEDA_RATE_ADDRESSES", self.rate_addresses),
            ("BESEDA_RATE_COMMANDS", self.rate_commands),
            ("BESEDA_RATE_ACCEPTS", self.rate_accepts),
        ];
        match rates.into_iter().find(|(_, rate)| *rate == 0) {
            Some((name, _)) => Err(ConfigError::new(name, "must be at least 1")),
            None => Ok(()),
        }
    }
}
