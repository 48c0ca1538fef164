//! Reports: a member tells the host application of a message.

use super::Chats;
use crate::{
    error::Error,
    model::{ChatId, MessageId, Report, ReportId, Time, UserId},
};

impl Chats {
    /// Reports a message as it is now; true where this reporter had not done so before.
    pub async fn report_message(
        &self,
        reporter: &UserId,
        chat_id: ChatId,
        message_id: MessageId,
        reason: Option<&str>,
    ) -> Result<(Report, bool), Error> {
        // As in `delete_chat`.
        self.get_head(reporter, chat_id).await?;
        self.store.report_message(chat_id, message_id, reporter, reason).await
    }

    /// A page of all reports, latest first, and the position of the next one.
    pub async fn list_reports(
        &self,
        after: Option<(Time, ReportId)>,
        limit: i64,
    ) -> Result<(Vec<Report>, Option<(Time, ReportId)>), Error> {
        let mut reports = self.store.list_reports(after, limit + 1).await?;
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = reports.len() > wanted;
        reports.truncate(wanted);
        let last = reports.last().filter(|_| more);
        let next = last.map(|report| (report.created_at, report.report_id));
        Ok((reports, next))
    }
}
