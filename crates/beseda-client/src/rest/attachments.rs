//! Attachments: announced, uploaded with progress and in parts where the service takes them, and read.

use std::time::Duration;

use beseda_protocol::{
    model::{AttachmentId, ReportId},
    rest::{AttachmentLink, AttachmentTicket, NewAttachment, UploadLink},
};
use http::{Method, StatusCode, header};

use super::Rest;
use crate::Error;

/// Bytes of a part: large enough for a fast line, small enough to be sent again on a bad one.
const PART: usize = 4 * 1024 * 1024;

/// Attempts to go on where the line broke, and the pause before each that is not given by the service.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

impl Rest {
    /// Announces an attachment; its bytes go to [`upload`](Self::upload), its id into a message.
    pub async fn announce_attachment(
        &self,
        chat: &str,
        new: &NewAttachment,
    ) -> Result<AttachmentTicket, Error> {
        self.ask(self.call(Method::POST, &["chats", chat, "attachments"]).json(new)).await
    }

    /// Uploads the bytes of an announced attachment as a whole.
    pub async fn upload(&self, link: &UploadLink, bytes: Vec<u8>) -> Result<(), Error> {
        let mut request = self.http.put(&link.url).timeout(super::UPLOAD_TIMEOUT).body(bytes);
        for (name, value) in &link.headers {
            request = request.header(name, value);
        }
        let response = request.send().await.map_err(Error::network)?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let body = response.bytes().await.map_err(Error::network)?;
        Err(Error::answered(status.as_u16(), &body))
    }

    /// Announces and uploads a file to a chat; its id is then to be sent with a message. `progress` is told how many
    /// bytes are there, and goes on where the line broke. To abort, drop the future: what is never sent is removed
    /// by the service.
    ///
    /// # Errors
    /// The service refuses it, or the line broke too often.
    pub async fn attach(
        &self,
        chat: &str,
        name: &str,
        content_type: &str,
        bytes: &[u8],
        mut progress: impl FnMut(usize),
    ) -> Result<AttachmentId, Error> {
        let (name, content_type) = (name.to_owned(), content_type.to_owned());
        let new = NewAttachment { name, content_type, size: bytes.len() as u64 };
        let ticket = self.announce_attachment(chat, &new).await?;
        let (mut there, mut failures) = (0, 0);
        while there < bytes.len() {
            match self.upload_part(&ticket.upload, bytes, there).await {
                Ok(now) => {
                    (there, failures) = (now, 0);
                    progress(there);
                }
                Err(error) if error.is_temporary() && failures < ATTEMPTS => {
                    failures += 1;
                    tokio::time::sleep(error.retry_after.unwrap_or(PAUSE)).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(ticket.attachment_id)
    }

    /// Uploads what follows the first `there` bytes, or a part of it; returns how many are there then.
    async fn upload_part(
        &self,
        link: &UploadLink,
        bytes: &[u8],
        there: usize,
    ) -> Result<usize, Error> {
        let total = bytes.len();
        // An object store takes the whole only.
        let is_replica = link.url.contains("/api/v1/uploads/");
        let end = if is_replica { total.min(there + PART) } else { total };
        let mut request = self.http.put(&link.url).timeout(super::UPLOAD_TIMEOUT);
        for (name, value) in &link.headers {
            request = request.header(name, value);
        }
        if (there, end) != (0, total) {
            let range = format!("bytes {there}-{}/{total}", end - 1);
            request = request.header(header::CONTENT_RANGE, range);
        }
        let answer = request.body(bytes[there..end].to_vec()).send().await;
        let answer = answer.map_err(Error::network)?;
        let status = answer.status();
        if status == StatusCode::PERMANENT_REDIRECT {
            let range = answer.headers().get(header::RANGE).and_then(|range| range.to_str().ok());
            let last = range.and_then(|range| range.strip_prefix("bytes=0-")?.parse().ok());
            return Ok(last.map_or(0, |last: usize| last + 1));
        }
        if status.is_success() {
            return Ok(total);
        }
        let body = answer.bytes().await.map_err(Error::network)?;
        Err(Error::answered(status.as_u16(), &body))
    }

    /// A URL at which an attachment, or its thumbnail, can be read for a minute without a token.
    pub async fn attachment_link(
        &self,
        chat: &str,
        id: AttachmentId,
        thumbnail: bool,
    ) -> Result<AttachmentLink, Error> {
        let path = ["chats", chat, "attachments", &id.to_string()];
        let call = self.call(Method::GET, &path).query("link", Some(true));
        self.ask(call.query("variant", thumbnail.then_some("thumbnail"))).await
    }

    /// For the host application's server: decides a report, which is gone then with what was kept for it.
    pub async fn decide_report(&self, id: ReportId) -> Result<(), Error> {
        self.done(self.call(Method::DELETE, &["reports", &id.to_string()])).await
    }

    /// For the host application's server: the same of an attachment that is kept for a report.
    pub async fn reported_attachment_link(
        &self,
        report: ReportId,
        id: AttachmentId,
        thumbnail: bool,
    ) -> Result<AttachmentLink, Error> {
        let path = ["reports", &report.to_string(), "attachments", &id.to_string()];
        let call = self.call(Method::GET, &path).query("link", Some(true));
        self.ask(call.query("variant", thumbnail.then_some("thumbnail"))).await
    }
}
