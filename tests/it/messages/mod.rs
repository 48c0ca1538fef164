//! Sending, editing, deleting and reading messages.

mod annotations;
mod changes;
mod content;
mod history;
mod replies;
mod sending;

use serde_json::Value;

use crate::harness::Chat;

fn path_of(chat: &Chat, message: &Value) -> String {
    chat.path(&format!("messages/{}/", message["message_id"].as_str().expect("an id")))
}
