//! `beseda admin`: traces of single messages, and failed webhooks and pushes.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    config::DatabaseConfig,
    store::{self, DeadLetter, DeadPush, DeadPushFate, StoreError, Trail},
    trace::TARGET,
};

#[derive(Debug, Subcommand)]
pub enum Question {
    /// Trace one message: its rows in the database, and the log lines of replicas about it.
    Trace(TraceOptions),
    /// List webhook events that were given up, or send them again.
    Webhooks(WebhookOptions),
    /// List pushes that were given up, send them again, or discard them.
    Push(PushOptions),
}

#[derive(Debug, Args)]
pub struct TraceOptions {
    /// The message's id.
    message_id: Uuid,

    /// Its chat's id. Without it, all messages are scanned.
    #[arg(long)]
    chat: Option<Uuid>,

    /// Logs of replicas, written with BESEDA_LOG_FORMAT=json and BESEDA_LOG=info,beseda::trace=debug;
    /// `-` is standard input. May be given several times.
    #[arg(long = "log")]
    logs: Vec<PathBuf>,

    #[command(flatten)]
    database: DatabaseConfig,
}

#[derive(Debug, Args)]
pub struct WebhookOptions {
    /// Send this event again, as if it were new.
    #[arg(long, value_name = "EVENT_ID", conflicts_with = "replay_all")]
    replay: Option<Uuid>,

    /// Send all events again that were given up.
    #[arg(long)]
    replay_all: bool,

    #[command(flatten)]
    database: DatabaseConfig,
}

#[derive(Debug, Args)]
pub struct PushOptions {
    /// Send this push again, as if it were new.
    #[arg(long, value_name = "PUSH_ID", group = "what")]
    replay: Option<i64>,

    /// Send all pushes again that were given up.
    #[arg(long, group = "what")]
    replay_all: bool,

    /// Forget this push.
    #[arg(long, value_name = "PUSH_ID", group = "what")]
    discard: Option<i64>,

    /// Forget all pushes that were given up.
    #[arg(long, group = "what")]
    discard_all: bool,

    #[command(flatten)]
    database: DatabaseConfig,
}

/// Dead letters that are listed: a screen or two. Further ones are only counted.
const LISTED: i64 = 100;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("there is no such message")]
    NoSuchMessage,
    #[error("no such event was given up")]
    NoSuchEvent,
    #[error("no such push was given up")]
    NoSuchPush,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{}: {error}", path.display())]
    Log { path: PathBuf, error: io::Error },
}

/// Runs a command and returns its output.
pub async fn answer(question: Question) -> Result<String, AdminError> {
    match question {
        Question::Trace(options) => trace(options).await,
        Question::Webhooks(options) => webhooks(options).await,
        Question::Push(options) => pushes(options).await,
    }
}

async fn webhooks(options: WebhookOptions) -> Result<String, AdminError> {
    let WebhookOptions { replay, replay_all, database } = options;
    if replay_all || replay.is_some() {
        let replayed = store::replay_dead_letters(&database, replay).await?;
        if replayed == 0 && replay.is_some() {
            return Err(AdminError::NoSuchEvent);
        }
        return Ok(format!("{replayed} to be sent again"));
    }
    let (letters, all) = store::dead_letters(&database, LISTED).await?;
    let lines = letters.iter().map(|letter| {
        let DeadLetter { event_id, kind, chat_id, dead_at, attempts, last_error } = letter;
        format!(
            "{event_id}  {kind}  chat {chat_id}  given up {} after {attempts} attempts: {last_error}\n",
            dead_at.0
        )
    });
    Ok(lines.collect::<String>() + &format!("{all} given up"))
}

async fn pushes(options: PushOptions) -> Result<String, AdminError> {
    let PushOptions { replay, replay_all, discard, discard_all, database } = options;
    if replay_all || replay.is_some() || discard_all || discard.is_some() {
        let is_replay = replay_all || replay.is_some();
        let fate = if is_replay { DeadPushFate::Replayed } else { DeadPushFate::Discarded };
        let push_id = replay.or(discard);
        let ended = store::end_dead_pushes(&database, push_id, fate).await?;
        if ended == 0 && push_id.is_some() {
            return Err(AdminError::NoSuchPush);
        }
        return Ok(match fate {
            DeadPushFate::Replayed => format!("{ended} to be sent again"),
            DeadPushFate::Discarded => format!("{ended} discarded"),
        });
    }
    let (pushes, all) = store::dead_pushes(&database, LISTED).await?;
    let lines = pushes.iter().map(|push| {
        let DeadPush { push_id, user_id, device_id, platform, chat_id, dead_at, last_error } = push;
        let platform = platform.as_str();
        format!(
            "{push_id}  {platform}  {user_id}: {device_id}  chat {chat_id}  given up {}: {last_error}\n",
            dead_at.0
        )
    });
    Ok(lines.collect::<String>() + &format!("{all} given up"))
}

async fn trace(options: TraceOptions) -> Result<String, AdminError> {
    let trail = store::trail(&options.database, options.message_id, options.chat).await?;
    let trail = trail.ok_or(AdminError::NoSuchMessage)?;
    let mut sightings = Vec::new();
    for path in &options.logs {
        let failed = |error| AdminError::Log { path: path.clone(), error };
        let lines: Box<dyn BufRead> = if path == Path::new("-") {
            Box::new(io::stdin().lock())
        } else {
            Box::new(BufReader::new(File::open(path).map_err(failed)?))
        };
        for line in lines.lines() {
            sightings.extend(sighting(&trail, &line.map_err(failed)?, path));
        }
    }
    // Times in RFC 3339 sort as text.
    sightings.sort();
    let mut text = trail.to_string();
    for sighting in sightings {
        text += &format!("logged     {sighting}\n");
    }
    Ok(text.trim_end().to_owned())
}

/// Reads a log line. Returns when and what it says about the message, and the log's path; `None` if it is
/// about something else.
fn sighting(trail: &Trail, line: &str, log: &Path) -> Option<String> {
    let entry: Value = serde_json::from_str(line).ok()?;
    let is = |name: &str, id: Uuid| entry[name].as_str() == Some(&id.to_string());
    // A delivery carries only its chat and its `ev`.
    let ours = is("message_id", trail.message_id)
        || is("chat_id", trail.chat_id) && entry["ev"].as_i64() == Some(trail.ev);
    if entry["target"] != TARGET || !ours {
        return None;
    }
    let detail = ["batch", "sockets"]
        .iter()
        .filter(|name| !entry[**name].is_null())
        .map(|name| format!(" {name}={}", entry[*name]));
    let (at, what) = (entry["timestamp"].as_str()?, entry["message"].as_str()?);
    Some(format!("{at} {what}{} ({})", detail.collect::<String>(), log.display()))
}
