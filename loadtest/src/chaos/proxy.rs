//! A TCP proxy that cuts and delays a replica's traffic with Postgres or Redis.

use std::{net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use crate::error::Error;

/// Bytes read at once.
const CHUNK: usize = 16 * 1024;

/// Chunks in flight in one direction: still megabytes a second at a delay of half a second.
const ON_THE_WAY: usize = 256;

/// The proxy's effect on its traffic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Flow {
    Pass,
    /// All data is delayed, in order.
    Slow(Duration),
    /// Connections stay open, and no data passes until this ends.
    Silent,
    /// Connections break, new ones at once.
    Cut,
}

/// Listens on a loopback port until dropped.
#[derive(Debug)]
pub(super) struct Proxy {
    port: u16,
    flow: watch::Sender<Flow>,
    _accepting: JoinSet<()>,
}

impl Proxy {
    pub(super) async fn start(upstream: u16) -> Result<Self, Error> {
        let failed = |error| Error::Io("no free port on 127.0.0.1", error);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let (flow, watching) = watch::channel(Flow::Pass);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, upstream, watching));
        Ok(Self { port, flow, _accepting: accepting })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn set(&self, flow: Flow) {
        self.flow.send_replace(flow);
    }
}

async fn accept(listener: TcpListener, upstream: u16, flow: watch::Receiver<Flow>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    connections.spawn(carry(client, upstream, flow.clone()));
                }
                // Out of file descriptors for a moment.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(client: TcpStream, upstream: u16, flow: watch::Receiver<Flow>) {
    let mut cut = flow.clone();
    let carrying = async {
        let mut open = flow.clone();
        open.wait_for(|flow| *flow != Flow::Silent).await.ok()?;
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).await.ok()?;
        // Nagle's delay would falsify the measured latencies.
        client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).ok()?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        // Each direction's end ends the other: neither protocol half-closes.
        tokio::select! {
            () = pump(from_client, to_server, flow.clone()) => {}
            () = pump(from_server, to_client, flow) => {}
        }
        Some(())
    };
    tokio::select! {
        _ = carrying => {}
        _ = cut.wait_for(|flow| *flow == Flow::Cut) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, flow: watch::Receiver<Flow>) {
    let (on, mut coming) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    let reading = {
        let flow = flow.clone();
        async move {
            let mut buffer = vec![0; CHUNK];
            while let Ok(count @ 1..) = from.read(&mut buffer).await {
                let delay = match *flow.borrow() {
                    Flow::Slow(delay) => delay,
                    _ => Duration::ZERO,
                };
                if on.send((Instant::now() + delay, buffer[..count].to_vec())).await.is_err() {
                    return;
                }
            }
        }
    };
    let writing = async move {
        let mut flow = flow;
        while let Some((due, chunk)) = coming.recv().await {
            tokio::time::sleep_until(due).await;
            if flow.wait_for(|flow| *flow != Flow::Silent).await.is_err() {
                return;
            }
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    };
    // The reader's end closes the channel; chunks in flight are still written.
    tokio::select! {
        ((), ()) = async { tokio::join!(reading, writing) } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_passes_delays_holds_and_cuts() {
        let echo = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = echo.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = echo.accept().await.unwrap();
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        let proxy = Proxy::start(port).await.unwrap();
        let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port()));
        let mut stream = connect().await.unwrap();
        let mut answer = [0; 2];
        let began = Instant::now();
        proxy.set(Flow::Slow(Duration::from_millis(60)));
        stream.write_all(b"hi").await.unwrap();
        stream.read_exact(&mut answer).await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(120), "{:?}", began.elapsed());

        proxy.set(Flow::Silent);
        stream.write_all(b"ho").await.unwrap();
        let silent = Duration::from_millis(100);
        assert!(tokio::time::timeout(silent, stream.read_exact(&mut answer)).await.is_err());
        proxy.set(Flow::Pass);
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"ho");

        proxy.set(Flow::Cut);
        assert!(matches!(stream.read(&mut answer).await, Ok(0) | Err(_)));
        let mut refused = connect().await.unwrap();
        assert!(matches!(refused.read(&mut answer).await, Ok(0) | Err(_)));
        proxy.set(Flow::Pass);
        let mut again = connect().await.unwrap();
        again.write_all(b"ok").await.unwrap();
        again.read_exact(&mut answer).await.unwrap();
    }
}
