//! An echo server for the conformance suite of `scripts/security-test`. It has the settings of Beseda's
//! sockets, runs on Beseda's HTTP server, and prints its address.

use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::any,
};
use beseda::{
    config::HttpConfig,
    server,
    socket::{Upgrade, WsMessage},
};
use clap::Parser;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::protocol::frame::{
    Frame,
    coding::{Data, OpCode},
};
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
    let router = Router::new().fallback_service(any(async |mut request: Request| -> Response {
        let Some((upgrade, response)) = Upgrade::accept(&mut request) else {
            return StatusCode::UPGRADE_REQUIRED.into_response();
        };
        tokio::spawn(echo(upgrade));
        response
    }));
    let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
    server::serve(listener, router, Settings::parse().http, None, stop, abort).await;
    Ok(())
}

async fn echo(upgrade: Upgrade) {
    let Some(mut wire) = upgrade.finish().await else { return };
    while let Some(Ok(message)) = wire.recv().await {
        let kind = match message {
            WsMessage::Text(_) => Data::Text,
            WsMessage::Binary(_) => Data::Binary,
            _ => continue,
        };
        let echoed = Frame::message(message.into_data(), OpCode::Data(kind), true);
        if wire.send([echoed]).await.is_err() {
            return;
        }
    }
}
