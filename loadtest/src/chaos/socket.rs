//! Opens and reads sockets, like a careful client.

use std::time::Duration;

use beseda_client::{Closed, Wire, WireOptions, WsMessage};
use rand::{Rng, rngs::StdRng};
use reqwest::{
    Method,
    header::{AUTHORIZATION, HeaderValue},
};
use serde_json::Value;

use super::{
    context::{Person, SimContext},
    findings::{Kind, tick},
    frame::Frame,
};

/// Time-out for the opening of a socket.
const OPENING: Duration = Duration::from_secs(5);

/// Time without any frame after which a socket counts as dead: the service pings every 5 s here.
const SILENCE: Duration = Duration::from_secs(12);

#[derive(Debug)]
pub(super) struct Socket {
    wire: Wire,
    pub replica: usize,
}

/// A received frame, or the end.
#[derive(Debug)]
pub(super) enum Incoming {
    Frame(Box<Frame>),
    /// Closed by the service with this code.
    Closed(u16),
    /// Ended without a close frame.
    Broken,
}

impl Socket {
    /// Opens the socket `path` (`/ws/…`) on a random replica: with the token, or with a ticket that
    /// another replica may have issued (by `connect`, a method and a path of REST).
    pub(super) async fn open(
        context: &SimContext,
        rng: &mut StdRng,
        person: &Person,
        path: &str,
        query: &[(&str, String)],
        connect: (Method, &str),
    ) -> Result<Self, String> {
        let replica = context.any_replica(rng);
        let mut query: Vec<String> = query
            .iter()
            // Numbers and epochs need no encoding.
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let with_ticket = rng.random_bool(0.5);
        if with_ticket {
            let giver = context.any_replica(rng);
            let answer = context.once(giver, &connect.0, connect.1, person, None).await;
            let answer = answer.ok_or("no answer about a ticket")?;
            let ticket: Option<Value> = answer.read().ok();
            let ticket = ticket.and_then(|t| Some(t.get("ticket")?.as_str()?.to_owned()));
            let Some(ticket) = ticket else { return Err(format!("no ticket: {}", answer.text())) };
            query.push(format!("ticket={ticket}"));
        }
        let url = format!("ws://{}{path}?{}", context.replicas[replica], query.join("&"));
        let mut options = WireOptions::default();
        if !with_ticket {
            let bearer = HeaderValue::from_str(&format!("Bearer {}", person.token));
            options.headers.insert(AUTHORIZATION, bearer.map_err(|error| error.to_string())?);
        }
        let opening = Wire::open(&url, &options);
        match tokio::time::timeout(OPENING, opening).await {
            Ok(Ok(wire)) => {
                tick(&context.figures.sockets);
                Ok(Self { wire, replica })
            }
            Ok(Err(error)) => {
                // A draining replica answers upgrades with 503; no other status is expected.
                if let Some(status) = error.status().filter(|status| status.as_u16() != 503) {
                    let what = format!("an upgrade of {path} was answered {status}");
                    context.findings.add(Kind::Answer, what);
                }
                Err(error.to_string())
            }
            Err(_) => Err("not in time".to_owned()),
        }
    }

    pub(super) async fn next(&mut self, context: &SimContext) -> Incoming {
        loop {
            match self.wire.next_text_within(SILENCE).await {
                Ok(text) => {
                    tick(&context.figures.frames);
                    match serde_json::from_str::<Frame>(&text) {
                        Ok(frame) => return Incoming::Frame(Box::new(frame)),
                        Err(error) => {
                            let what = format!("a frame could not be read: {error}: {text}");
                            context.findings.add(Kind::Answer, what);
                        }
                    }
                }
                Err(Closed { code: 1005 | 1006, .. }) => return Incoming::Broken,
                Err(Closed { code, .. }) => return Incoming::Closed(code),
            }
        }
    }

    pub(super) async fn send(&mut self, command: &Value) -> bool {
        self.wire.send_raw(WsMessage::text(command.to_string())).await.is_ok()
    }

    /// Disconnects, sometimes without a close frame.
    pub(super) async fn leave(&mut self, rng: &mut StdRng) {
        if rng.random_bool(0.7) {
            self.wire.close().await;
        }
    }
}
