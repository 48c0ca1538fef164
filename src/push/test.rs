//! `beseda push-test`: a push to one device, past all queues.

use std::time::Duration;

use clap::Args;

use super::{
    content::{Content, What},
    senders::{Answer, Senders},
};
use crate::{
    config::{ConfigError, DatabaseConfig, PushConfig},
    model::UserId,
    store::{self, StoreError},
};

/// How long its provider keeps it: an operator waits no longer.
const LIFE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub struct PushTest {
    /// The device's id, as its client has registered it.
    device_id: String,

    /// Whose it is; only needed where several users have a device of this id.
    #[arg(long)]
    user: Option<String>,

    #[command(flatten)]
    push: PushConfig,

    #[command(flatten)]
    database: DatabaseConfig,
}

/// Why a device was not reached.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    #[error("there is no such device")]
    NoSuchDevice,
    #[error("{0} users have a device of this id: say whose, with --user")]
    Ambiguous(usize),
    #[error("{0}")]
    NotAccepted(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Sends a push that says it is a test, and tells what its provider has answered. Writes nothing.
pub async fn test(options: PushTest) -> Result<String, TestError> {
    let PushTest { device_id, user, push, database } = options;
    push.validate()?;
    let senders = Senders::new(&push)?;
    let user = user.map(|user| UserId::parse(&user).ok_or(TestError::NoSuchDevice)).transpose()?;
    let found = store::find_devices(&database, &device_id, user.as_ref()).await?;
    let [device] = &found[..] else {
        let is_none = found.is_empty();
        return Err(if is_none {
            TestError::NoSuchDevice
        } else {
            TestError::Ambiguous(found.len())
        });
    };
    let what = What::Test { title: "Beseda", text: "This is a test." };
    let content = Content { what, badge: device.badge };
    let platform = device.platform.as_str();
    let refused =
        |why: String| TestError::NotAccepted(format!("{platform} did not accept it: {why}"));
    match senders.send(device.platform, &device.address, &content, LIFE).await {
        Answer::Accepted => Ok(format!("{platform} has accepted it")),
        Answer::Gone => Err(refused("it knows this device no more".to_owned())),
        Answer::Unauthorized(why) => Err(refused(format!("{why}; the key is not accepted"))),
        Answer::Refused(why) | Answer::Later { reason: why, .. } => Err(refused(why)),
    }
}
