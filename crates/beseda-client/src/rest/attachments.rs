//! Attachments.

use beseda_protocol::{
    model::{AttachmentId, ReportId},
    rest::{AttachmentLink, AttachmentTicket, NewAttachment, UploadLink},
};
use http::Method;

use super::Rest;
use crate::Error;

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
