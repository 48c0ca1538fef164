//! Hostile clients in a process that the scenario `hostile` starts at the lowest priority: real attackers
//! have their own machines, so the attack's own use of CPU must not slow the service.

mod bot;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use beseda::{
    config::Secret,
    dev::{Claims, sign},
};
use beseda_protocol::{model::ChatId, rest::NewMessage};
use clap::Args;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use self::bot::{Bot, Counts, Kind};
use crate::{
    error::Error,
    rest::{Rest, Sent},
};

/// Sockets of one hostile user: the burst that the rate of new sockets allows.
const SOCKETS_EACH: u32 = 20;

/// Longer than any run.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 3_600);

/// Pause between two lines of progress.
const TOLD_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[arg(long = "url", required = true)]
    pub urls: Vec<Url>,

    #[arg(long, env = "BESEDA_JWT_HS256_SECRET", hide_env_values = true,
          value_parser = |raw: &str| Ok::<_, std::convert::Infallible>(Secret::from(raw.to_owned())))]
    pub secret: Secret,

    #[arg(long)]
    pub prefix: String,

    #[arg(long)]
    pub sockets: u32,

    /// Loopback source addresses, if the service is on a loopback address.
    #[arg(long)]
    pub addresses: u8,

    /// Messages a second of one flooding user.
    #[arg(long)]
    pub flood: u32,
}

/// The progress of the attack, one line of JSON.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Told {
    /// Bots with at least one connection so far.
    pub came: u64,
    /// Open connections.
    pub open: u64,
    /// Connections so far.
    pub connections: u64,
    /// Accepted and refused messages of the flood.
    pub flood_sent: u64,
    pub flood_refused: u64,
}

/// Attacks until killed by the parent process.
pub(crate) async fn run(options: &Options) -> Result<(), Error> {
    let counts = Arc::new(Counts::default());
    let mut tasks = JoinSet::new();
    // The flood connects first: behind ten thousand bots its connection would wait.
    let flooded = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
    let flood = Flood::prepare(options).await?;
    tasks.spawn(flood.run(options.flood, Arc::clone(&flooded)));
    for number in 0..options.sockets {
        let url = &options.urls[number as usize % options.urls.len()];
        let at = address(url).await?;
        let user = format!("{}-hostile-{}", options.prefix, number / SOCKETS_EACH);
        let bot = Bot {
            kind: Kind::of(number),
            at,
            from: source(at, number, options.addresses),
            token: sign(&options.secret, &Claims::new(&user, TOKEN_TTL))?,
        };
        tasks.spawn(bot.run(Arc::clone(&counts)));
    }
    loop {
        tokio::time::sleep(TOLD_EVERY).await;
        let told = Told {
            came: counts.came.load(Relaxed),
            open: counts.open.load(Relaxed),
            connections: counts.connections.load(Relaxed),
            flood_sent: flooded.0.load(Relaxed),
            flood_refused: flooded.1.load(Relaxed),
        };
        crate::print(&serde_json::to_string(&told)?)?;
    }
}

async fn address(url: &Url) -> Result<SocketAddr, Error> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_or_known_default().unwrap_or(80);
    let found = tokio::net::lookup_host((host, port)).await;
    let mut found = found.map_err(|error| Error::Io("an address of --url", error))?;
    found.next().ok_or(Error::Usage("an address of --url is none"))
}

/// Returns 127.0.1.1 and so on, distinct from the well-behaved users' address, if the target is on loopback.
fn source(at: SocketAddr, number: u32, addresses: u8) -> Option<IpAddr> {
    let last = number % u32::from(addresses.max(1)) + 1;
    let last = u8::try_from(last).unwrap_or(u8::MAX);
    (at.ip().is_loopback() && at.is_ipv4()).then_some(Ipv4Addr::new(127, 0, 1, last).into())
}

/// Sends as one user, regardless of refusals.
#[derive(Clone)]
struct Flood {
    rest: Rest,
    url: Url,
    chat_id: ChatId,
    token: String,
}

impl Flood {
    async fn prepare(options: &Options) -> Result<Self, Error> {
        let user = format!("{}-flood", options.prefix);
        let token = sign(&options.secret, &Claims::new(&user, TOKEN_TTL))?;
        let (rest, url) = (Rest::new()?, &options.urls[0]);
        let chat = rest.open_chat(url, &token, &format!("{user}ed")).await?;
        Ok(Self { rest, url: url.clone(), chat_id: chat.chat_id, token })
    }

    async fn run(self, rate: u32, flooded: Arc<(AtomicU64, AtomicU64)>) {
        let mut every = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
        for number in 0_u64.. {
            every.tick().await;
            let flood = self.clone();
            let flooded = Arc::clone(&flooded);
            tokio::spawn(async move {
                let id = format!("{}-{number}", std::process::id());
                let Self { rest, url, chat_id, token } = &flood;
                let message = NewMessage {
                    text: "one of very many".to_owned(),
                    client_msg_id: Some(id),
                    ..NewMessage::default()
                };
                let sent = rest.send(url, token, *chat_id, &message).await;
                let counter = match sent {
                    Sent::Acknowledged { .. } => &flooded.0,
                    _ => &flooded.1,
                };
                counter.fetch_add(1, Relaxed);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_ones_have_other_addresses_than_the_others() {
        let at = |raw: &str| raw.parse::<SocketAddr>().expect("an address");
        let found: Vec<_> = (0..4).map(|number| source(at("127.0.0.1:80"), number, 3)).collect();
        let expected = ["127.0.1.1", "127.0.1.2", "127.0.1.3", "127.0.1.1"];
        assert_eq!(found, expected.map(|raw| raw.parse().ok()));
        assert_eq!(source(at("192.0.2.1:80"), 0, 3), None);
        assert_eq!(source(at("[::1]:80"), 0, 3), None);
    }
}
