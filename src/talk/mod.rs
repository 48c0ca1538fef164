//! `beseda chat`: a client in a terminal, for trying out and for scripts.
//!
//! It knows the service from outside only: REST to open the room and read its history, then a socket
//! that resumes by `ev` wherever it lands. [`room`] and [`outbox`] decide and do no I/O; `talk` has
//! the loop.

mod console;
mod conversation;
mod credentials;
mod lines;
mod outbox;
mod room;
mod service;
mod socket;
mod wire;

use tokio::pin;
use url::Url;

use self::{
    console::Console,
    conversation::{Conversation, pause_after},
    credentials::Credentials,
    lines::{Line, harmless},
    service::{Failure, Service},
    wire::Room,
};
use crate::{
    dev::{DevError, Signing},
    signals::Signals,
    tls::TlsError,
};

/// How often every address is tried before the room is open: later it is tried for ever, but an
/// address that is wrong should be told at once.
const ROUNDS: usize = 3;

/// What `beseda chat` takes.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Where the service is; several times for several replicas, of which the next one is taken
    /// when one is lost.
    #[arg(long, env = "BESEDA_URL", default_value = "http://127.0.0.1:8080", value_delimiter = ',', value_parser = http_url)]
    pub url: Vec<Url>,

    /// The other one: the id that the host application knows them by.
    #[arg(long)]
    pub with: String,

    /// Who you are. A token is made as by `beseda token`, unless there is one already.
    #[arg(long = "as", required_unless_present = "token")]
    pub me: Option<String>,

    /// Your token, from the host application. Better in BESEDA_TOKEN, or in the file that
    /// BESEDA_TOKEN_FILE names: others on this machine can see arguments.
    #[arg(long, env = "BESEDA_TOKEN", hide_env_values = true)]
    pub token: Option<String>,

    /// How many of the latest messages are shown at the beginning, up to 100.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub history: u8,

    #[command(flatten)]
    pub signing: Signing,
}

/// Why a talk did not begin, or ended by itself. No text of others is in it that a terminal would
/// obey.
#[derive(Debug, thiserror::Error)]
pub enum TalkError {
    #[error("there is no token")]
    Token(#[from] DevError),
    #[error("this is a token of {theirs:?}, not of {me:?}")]
    TokenOfAnother { theirs: String, me: String },
    #[error("TLS can't be used")]
    Tls(#[from] TlsError),
    #[error("HTTP can't be used")]
    Http(#[from] reqwest::Error),
    #[error("signals can't be caught")]
    Signals(#[source] std::io::Error),
    #[error("{url} can't be reached: {why}")]
    Unreachable { url: Url, why: String },
    #[error("the token is refused: {0}")]
    TokenRefused(String),
    #[error("the room can't be opened: {0}")]
    Refused(String),
    #[error("it is over: {0}")]
    Over(String),
    #[error("of your messages {0} were refused, or are not known to have arrived")]
    Unsent(usize),
}

fn http_url(raw: &str) -> Result<Url, String> {
    let url: Url = raw.parse().map_err(|error: url::ParseError| error.to_string())?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err("an address that begins with http:// or https://".to_owned()),
    }
}

/// Talks until the input ends, or a signal comes.
///
/// # Errors
/// It could not begin, was ended by the service, or something written here may not have arrived.
pub async fn run(options: Options) -> Result<(), TalkError> {
    let mut signals = Signals::catch().map_err(TalkError::Signals)?;
    let mut service = Service::new(&options.url)?;
    let credentials = Credentials::new(options.token, options.me, options.signing)?;
    let room = tokio::select! {
        room = open_room(&mut service, &credentials, &options.with) => room?,
        () = signals.next() => return Ok(()),
    };
    let me = credentials.user().to_owned();
    let console = Console::open(&format!("{}: ", harmless(&me)));
    console.show(greeting(&room, &service)).await;
    let mut conversation = Conversation::new(service, credentials, console, &room, options.history);
    let outcome = {
        let talking = conversation.run();
        pin!(talking);
        tokio::select! {
            outcome = &mut talking => outcome,
            () = signals.next() => Ok(()),
        }
    };
    conversation.close(outcome).await
}

fn greeting(room: &Room, service: &Service) -> Line {
    let other = &room.other_user;
    let name = match &other.name {
        Some(name) if *name != other.user_id => format!("{name} ({})", other.user_id),
        _ => other.user_id.clone(),
    };
    Line::note(format!("with {name} at {}; Ctrl-D ends", service.url()))
}

async fn open_room(
    service: &mut Service,
    credentials: &Credentials,
    with: &str,
) -> Result<Room, TalkError> {
    let mut tries = 0;
    loop {
        let token = credentials.token()?;
        let (why, pause) = match service.open_room(&token, with).await {
            Ok(room) => return Ok(room),
            Err(Failure::Token(why)) => return Err(TalkError::TokenRefused(why)),
            Err(Failure::Final(why)) => return Err(TalkError::Refused(why)),
            Err(Failure::Again { why, pause }) => (why, pause),
        };
        tries += 1;
        if tries >= ROUNDS * service.addresses() {
            return Err(TalkError::Unreachable { url: service.url().clone(), why });
        }
        service.turn();
        tokio::time::sleep(pause.unwrap_or_else(|| pause_after(tries))).await;
    }
}
