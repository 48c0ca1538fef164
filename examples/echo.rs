//! A socket that says what it hears, with the settings of Beseda's own sockets and on its own server:
//! what `scripts/security-test` lets a conformance suite talk to. Prints its address.

use axum::{
    Router,
    extract::{
        WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    response::Response,
    routing::any,
};
use beseda::{config::HttpConfig, server, socket};
use clap::Parser;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    http: HttpConfig,
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    #[expect(clippy::print_stdout, reason = "the script reads it")]
    {
        println!("{}", listener.local_addr()?);
    }
    let router =
        Router::new().fallback_service(any(async |upgrade: WebSocketUpgrade| -> Response {
            socket::configured(upgrade).on_upgrade(echo)
        }));
    let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
    server::serve(listener, router, Settings::parse().http, None, stop, abort).await;
    Ok(())
}

async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        let echoed = match message {
            Message::Text(_) | Message::Binary(_) => socket.send(message).await,
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => Ok(()),
        };
        if echoed.is_err() {
            return;
        }
    }
}
