//! Files, uploaded before the message that carries them is sent.

use std::sync::Arc;

use beseda_protocol::{
    model::{AttachmentId, ChatId},
    rest::AttachmentTicket,
};
use reqwest::Method;
use serde_json::json;

use super::Writer;
use crate::chaos::findings::{now_micros, tick};

impl Writer {
    /// Uploads a text file to the chat; `None`: it was refused, or the service was away for too long.
    pub(super) async fn upload(&mut self, chat_id: ChatId) -> Option<AttachmentId> {
        let context = Arc::clone(&self.context);
        let content = format!("file {} of {}", self.count, self.person.id);
        let body =
            json!({ "name": "file.txt", "content_type": "text/plain", "size": content.len() });
        let (path, from) = (Self::path(chat_id, "attachments/"), now_micros());
        let answer =
            context.call(&mut self.rng, Method::POST, &path, &self.person, Some(&body)).await?;
        let ticket = match (answer.status, answer.read::<AttachmentTicket>()) {
            (201, Ok(ticket)) => ticket,
            _ if self.is_refused(chat_id, &answer, from) => return None,
            _ => {
                context.unexpected("an attachment", &answer);
                return None;
            }
        };
        let id = ticket.attachment_id;
        let upload = context.upload(&mut self.rng, &ticket.upload, &content).await?;
        match (upload.status, upload.code().as_str()) {
            (204, _) => {
                context.history.uploaded(id, content);
                tick(&context.figures.uploads);
                Some(id)
            }
            // Its chat was deleted meanwhile.
            (404, "attachment_not_found") => None,
            _ => {
                context.unexpected("an upload", &upload);
                None
            }
        }
    }
}
