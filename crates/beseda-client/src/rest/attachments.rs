//! Attachments: announced, uploaded with progress and in parts where the service takes them, and read.

use std::time::Duration;

use beseda_protocol::{
    model::{AttachmentId, ReportId},
    rest::{AttachmentLink, AttachmentTicket, NewAttachment, UploadLink},
};
use http::{Method, StatusCode, header};
use url::Url;

use super::Rest;
use crate::{
    Error, NewFile,
    machine::{Brought, Upload, UploadPhase, UploadStep, takes_parts},
};

/// Bytes of a part: large enough for a fast line, small enough to be sent again on a bad one.
const PART: u64 = 4 * 1024 * 1024;

/// Of a part: at 35 KiB/s. What a slower line brought until then counts, too.
const PART_TIMEOUT: Duration = Duration::from_secs(120);

/// Of a whole file, to an object store: 100 MiB at 300 KiB/s.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(350);

impl Rest {
    /// Announces an attachment; its bytes go to the link that this gives, its id into a message.
    pub async fn announce_attachment(
        &self,
        chat: &str,
        new: &NewAttachment,
    ) -> Result<AttachmentTicket, Error> {
        self.ask(self.call(Method::POST, &["chats", chat, "attachments"]).json(new)).await
    }

    /// Announces and uploads a file to a chat; its id is then to be sent with a message. `progress` is told how many
    /// bytes are there. To give up, drop the future: what is never sent is removed by the service. A
    /// [`Client`](crate::Client) does both at once, and waits for a connection.
    ///
    /// # Errors
    /// The service refuses it, or the line broke too often.
    pub async fn attach(
        &self,
        chat: &str,
        file: NewFile,
        mut progress: impl FnMut(u64),
    ) -> Result<AttachmentId, Error> {
        let mut upload = Upload::new(0, file);
        loop {
            let outcome = self.bring(chat, upload.step()).await;
            if let Err(error) = upload.take(outcome) {
                // The credentials were asked for another token already, and nobody can be told to find one.
                if error.is_unauthenticated() {
                    return Err(error);
                }
                let pause = upload.pause(&error, true, 1, rand::random::<f64>).ok_or(error)?;
                tokio::time::sleep(pause).await;
            }
            progress(upload.sent);
            if let UploadPhase::Done(id) = upload.phase {
                return Ok(id);
            }
        }
    }

    /// Makes one call of an upload.
    pub(crate) async fn bring(&self, chat: &str, step: UploadStep) -> Result<Brought, Error> {
        match step {
            UploadStep::Announce(file) => {
                let (size, content_type) = (file.size().await?, file.content_type().to_owned());
                let new = NewAttachment { name: file.name().to_owned(), content_type, size };
                let ticket = Box::new(self.announce_attachment(chat, &new).await?);
                Ok(Brought::Announced { ticket, size })
            }
            UploadStep::Ask { link, size } => {
                let request = self.http.head(self.here(&link));
                self.received(request, size).await.map(Brought::There)
            }
            UploadStep::Bring { link, file, from, size } => {
                let (end, time) = match takes_parts(&link) {
                    true => (size.min(from + PART), PART_TIMEOUT),
                    false => (size, WHOLE_TIMEOUT),
                };
                let mut request = self.http.put(self.here(&link)).timeout(time);
                for (name, value) in &link.headers {
                    request = request.header(name, value);
                }
                if (from, end) != (0, size) {
                    let range = format!("bytes {from}-{}/{size}", end - 1);
                    request = request.header(header::CONTENT_RANGE, range);
                }
                let request = request.body(file.read(from, end).await?);
                self.received(request, size).await.map(Brought::There)
            }
        }
    }

    /// A link to a replica at the address in use: any of them goes on with what another one began.
    fn here(&self, link: &UploadLink) -> String {
        let below = |url: &Url| {
            let base = url.as_str().split(['?', '#']).next().unwrap_or_default();
            format!("{}/api/v1/uploads/", base.trim_end_matches('/'))
        };
        let path = self.urls.iter().find_map(|url| link.url.strip_prefix(&below(url)));
        path.map_or_else(|| link.url.clone(), |path| below(self.url()) + path)
    }

    /// How many bytes are there, by the answer to a request at a link of `size` bytes.
    async fn received(&self, request: reqwest::RequestBuilder, size: u64) -> Result<u64, Error> {
        let answer = request.send().await.map_err(Error::network)?;
        let status = answer.status();
        if status == StatusCode::PERMANENT_REDIRECT {
            let range = answer.headers().get(header::RANGE).and_then(|range| range.to_str().ok());
            let last = range.and_then(|range| range.strip_prefix("bytes=0-")?.parse::<u64>().ok());
            return Ok(last.map_or(0, |last| last + 1));
        }
        if status.is_success() {
            return Ok(size);
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
