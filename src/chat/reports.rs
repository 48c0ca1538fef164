//! Reports: a member reports a message to the host application.

use super::{Chats, chats::cut};
use crate::{
    error::Error,
    model::{ChatId, MessageId, Report, ReportId, Time, UserId},
};

impl Chats {
    /// Reports a message with its current content; true if the reporter had not reported it before.
    pub async fn report_message(
        &self,
        reporter: &UserId,
        chat_id: ChatId,
        message_id: MessageId,
        reason: Option<&str>,
    ) -> Result<(Report, bool), Error> {
        // Read first, for the reason given in `delete_chat`.
        self.get_head(reporter, chat_id).await?;
        self.store.report_message(chat_id, message_id, reporter, reason).await
    }

    /// Decides a report; once more: nothing.
    pub async fn decide_report(&self, report_id: ReportId) -> Result<(), Error> {
        Ok(self.store.decide_report(report_id).await?)
    }

    /// Lists a page of all reports, latest first, with the cursor of the next page.
    pub async fn list_reports(
        &self,
        after: Option<(Time, ReportId)>,
        limit: i64,
    ) -> Result<(Vec<Report>, Option<(Time, ReportId)>), Error> {
        let mut reports = self.store.list_reports(after, limit + 1).await?;
        let more = cut(&mut reports, limit);
        let last = reports.last().filter(|_| more);
        let next = last.map(|report| (report.created_at, report.report_id));
        Ok((reports, next))
    }
}
