//! `beseda chat`: a client in a terminal, for development and for scripts.
//!
//! It uses the service only through [`beseda_client`]. [`screen`] decides what is shown, without I/O;
//! `conversation` has the loop.

mod console;
mod conversation;
mod credentials;
mod lines;
mod screen;

use std::time::Duration;

use beseda_client::{Client, Rest, protocol::rest::OpenedChat};
use tokio::pin;
use url::Url;

use self::{
    console::Console,
    conversation::Conversation,
    credentials::Credentials,
    lines::{Line, harmless},
};
use crate::{
    dev::{DevError, Signing},
    model::{User, UserId},
    signals::Signals,
    tls::{self, TlsError},
};

/// Attempts at every address to open the chat, so that a wrong address is reported soon. Later a lost
/// connection is retried without a limit.
const ROUNDS: usize = 3;

/// Pause between two of these attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// Options of `beseda chat`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Address of the service. Repeat it for several replicas: when one is lost, the next is used.
    #[arg(long, env = "BESEDA_URL", default_value = "http://127.0.0.1:8080", value_delimiter = ',', value_parser = http_url)]
    pub url: Vec<Url>,

    /// Id of the user to chat with.
    #[arg(long)]
    pub with: String,

    /// Your id. Without a token, one is signed as by `beseda token`.
    #[arg(long = "as", required_unless_present = "token")]
    pub me: Option<String>,

    /// Your token from the host application. Prefer BESEDA_TOKEN, or the file in BESEDA_TOKEN_FILE,
    /// because other users of this machine can see arguments.
    #[arg(long, env = "BESEDA_TOKEN", hide_env_values = true)]
    pub token: Option<String>,

    /// Number of latest messages to show at the start, up to 100.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub history: u8,

    #[command(flatten)]
    pub signing: Signing,
}

/// Why a conversation did not begin, or ended by itself. Texts of others in it contain no control
/// characters.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    #[error("there is no token")]
    Token(#[from] DevError),
    #[error("this is a token of {theirs:?}, not of {me:?}")]
    TokenOfAnother { theirs: String, me: String },
    #[error("TLS can't be used")]
    Tls(#[from] TlsError),
    #[error("HTTP can't be used")]
    Http(#[source] beseda_client::Error),
    #[error("signals can't be caught")]
    Signals(#[source] std::io::Error),
    #[error("{url} can't be reached: {why}")]
    Unreachable { url: Url, why: String },
    #[error("the token is refused: {0}")]
    TokenRefused(String),
    #[error("the chat can't be opened: {0}")]
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

/// Runs a conversation until the input ends or a signal comes.
///
/// # Errors
/// It could not begin, the service ended it, or a message may not have arrived.
pub async fn run(options: Options) -> Result<(), ChatError> {
    let mut signals = Signals::catch().map_err(ChatError::Signals)?;
    let credentials = Credentials::new(options.token, options.me, options.signing)?;
    let me = credentials.user().clone();
    let tokens = credentials.into_tokens()?;
    let tls = tls::client_config(None)?;
    let rest =
        Rest::with_tls(&options.url, tokens.clone(), tls.clone()).map_err(ChatError::Http)?;
    let opened = tokio::select! {
        opened = open_chat(&rest, &options.with) => opened?,
        () = signals.next() => return Ok(()),
    };
    let chat_id = opened.chat.chat_id;
    let other = opened.chat.other_user;
    let other = other.ok_or_else(|| ChatError::Refused("it is no chat of two".to_owned()))?;
    let console = Console::open(&format!("{}: ", harmless(me.as_str())));
    console.show(greeting(&other, rest.url())).await;
    // The address that answered is first.
    let [first, others @ ..] = &*rest.urls() else { unreachable!("an option with a default") };
    let builder = Client::builder(first.clone(), tokens)
        .tls(tls)
        .only(chat_id)
        .page(options.history)
        .attempts(u32::MAX);
    let builder = others.iter().cloned().fold(builder, beseda_client::ClientBuilder::url);
    let connected = builder.connect().map_err(ChatError::Http)?;
    let both = [me, other.user_id];
    let mut conversation = Conversation::new(connected, console, chat_id, both, options.history);
    let outcome = {
        let running = conversation.run();
        pin!(running);
        tokio::select! {
            outcome = &mut running => outcome,
            () = signals.next() => Ok(()),
        }
    };
    conversation.close(outcome).await
}

fn greeting(other: &User, url: &Url) -> Line {
    let name = match &other.name {
        Some(name) if *name != other.user_id.as_str() => format!("{name} ({})", other.user_id),
        _ => other.user_id.to_string(),
    };
    Line::note(format!("with {name} at {url}; Ctrl-D ends"))
}

async fn open_chat(rest: &Rest, with: &str) -> Result<OpenedChat, ChatError> {
    let other = UserId::parse(with);
    let other = other.ok_or_else(|| ChatError::Refused(format!("{with:?} is no user id")))?;
    let mut tries = 0;
    loop {
        let error = match rest.open_chat(&other).await {
            Ok(opened) => return Ok(opened),
            Err(error) => error,
        };
        let why = harmless(&error.detail);
        if error.is_unauthenticated() {
            return Err(ChatError::TokenRefused(why));
        } else if !error.is_temporary() {
            return Err(ChatError::Refused(why));
        }
        tries += 1;
        if tries >= ROUNDS * rest.urls().len() {
            return Err(ChatError::Unreachable { url: rest.url().clone(), why });
        }
        rest.turn();
        tokio::time::sleep(error.retry_after.unwrap_or(PAUSE)).await;
    }
}
