//! A TCP proxy that delays requests.

use std::{net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// Bytes read at once.
const CHUNK: usize = 16 * 1024;

/// Listens on a loopback port until dropped. Delays data to the server, in order; passes answers at
/// once.
#[derive(Debug)]
pub(crate) struct DelayProxy {
    port: u16,
    _carrying: JoinSet<()>,
}

impl DelayProxy {
    pub(crate) async fn start(server: u16, delay: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let port = listener.local_addr().expect("it listens").port();
        let mut carrying = JoinSet::new();
        carrying.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(carry(client, server, delay));
            }
        });
        Self { port, _carrying: carrying }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

async fn carry(client: TcpStream, server: u16, delay: Duration) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else { return };
    // Nagle's delay would be added to ours.
    if client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_err() {
        return;
    }
    let (mut said, mut answers) = client.into_split();
    let (mut answered, mut to_server) = server.into_split();
    let (on, mut coming) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let reading = async move {
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = said.read(&mut buffer).await {
            let _ = on.send((Instant::now() + delay, buffer[..count].to_vec()));
        }
    };
    let writing = async move {
        while let Some((due, chunk)) = coming.recv().await {
            sleep_until(due).await;
            if to_server.write_all(&chunk).await.is_err() {
                return;
            }
        }
    };
    // Neither protocol half-closes: the end of one direction is that of both.
    tokio::select! {
        _ = async { tokio::join!(reading, writing) } => {}
        _ = copy(&mut answered, &mut answers) => {}
    }
}
