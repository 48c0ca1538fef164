//! `beseda chat`: a client in a terminal, for development and for scripts.
//!
//! It uses the service only through [`beseda_client`]. [`screen`] decides what is shown, without I/O;
//! `conversation` has the loop.

mod console;
mod conversation;
mod credentials;
mod files;
mod lines;
mod names;
mod screen;

use std::time::Duration;

use beseda_client::{Client, Rest};
use tokio::pin;
use url::Url;

use self::{
    console::Console,
    conversation::Conversation,
    credentials::Credentials,
    lines::{Line, harmless},
    screen::Screen,
};
use crate::{
    chat::ChatRef,
    dev::{DevError, Signing},
    model::{Chat, UserId},
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
    #[arg(long, required_unless_present = "group")]
    pub with: Option<String>,

    /// Room name or id of a group to talk in; you must be a member.
    #[arg(long, conflicts_with = "with", value_name = "CHAT")]
    pub group: Option<String>,

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
    let wanted = Wanted::new(options.with, options.group)?;
    let chat = tokio::select! {
        chat = find_chat(&rest, &wanted) => chat?,
        () = signals.next() => return Ok(()),
    };
    let chat_id = chat.chat_id;
    let console = Console::open(&format!("{}: ", harmless(me.as_str())));
    console.show(greeting(&chat, rest.url())).await;
    // The address that answered is first.
    let [first, others @ ..] = &*rest.urls() else { unreachable!("an option with a default") };
    let builder = Client::builder(first.clone(), tokens)
        .tls(tls)
        .only(chat_id)
        .page(options.history)
        .attempts(u32::MAX);
    let builder = others.iter().cloned().fold(builder, beseda_client::ClientBuilder::url);
    let connected = builder.connect().map_err(ChatError::Http)?;
    let screen = Screen::new(me, &chat);
    let mut conversation = Conversation::new(connected, console, chat_id, screen, options.history);
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

/// The chat that was asked for.
enum Wanted {
    With(UserId),
    /// A room name or a chat's id.
    Chat(String),
}

impl Wanted {
    fn new(with: Option<String>, group: Option<String>) -> Result<Self, ChatError> {
        if let Some(group) = group {
            return match ChatRef::parse(&group) {
                Some(_) => Ok(Self::Chat(group)),
                None => Err(ChatError::Refused(format!("{group:?} is no room name and no id"))),
            };
        }
        let with = with.unwrap_or_default();
        let other = UserId::parse(&with);
        other.map(Self::With).ok_or_else(|| ChatError::Refused(format!("{with:?} is no user id")))
    }
}

fn greeting(chat: &Chat, url: &Url) -> Line {
    let text = match (&chat.other_user, &chat.title) {
        (Some(other), _) => {
            let id = &other.user_id;
            let name = other.name.as_ref().filter(|name| **name != id.as_str());
            match name {
                Some(name) => format!("with {name} ({id})"),
                None => format!("with {id}"),
            }
        }
        (None, title) => {
            let title = title.as_deref().unwrap_or_default();
            format!("in {title:?} ({} members)", chat.member_count)
        }
    };
    Line::note(format!("{text} at {url}; Ctrl-D ends"))
}

async fn find_chat(rest: &Rest, wanted: &Wanted) -> Result<Chat, ChatError> {
    let mut tries = 0;
    loop {
        let found = match wanted {
            Wanted::With(other) => rest.open_chat(other).await.map(|opened| opened.chat),
            Wanted::Chat(name) => rest.get_chat(name).await,
        };
        let error = match found {
            Ok(chat) => return Ok(chat),
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
