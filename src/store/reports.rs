//! Reported messages.

use tokio_postgres::types::{Json, Type};
use uuid::Uuid;

use super::{
    Store, StoreError,
    refusals::lasting,
    row::Row,
    rows::{json, time, user},
    webhooks::note_webhooks,
};
use crate::{
    error::Error,
    model::{Attachment, AttachmentId, ChatId, MessageId, Report, ReportId, Time, UserId},
};

impl Store {
    /// Reports a message as it is now. True: the report is new; false: this reporter has made it before.
    pub async fn report_message(
        &self,
        chat_id: ChatId,
        message_id: MessageId,
        reporter: &UserId,
        reason: Option<&str>,
    ) -> Result<(Report, bool), Error> {
        let report_id = Uuid::now_v7();
        let noting = self.webhook_delay.is_some();
        let row = self
            .query_one(
                if noting { REPORT_MESSAGE_NOTING } else { REPORT_MESSAGE },
                &[
                    (&chat_id, Type::UUID),
                    (&message_id, Type::UUID),
                    (&reporter.as_str(), Type::TEXT),
                    (&report_id, Type::UUID),
                    (&reason, Type::TEXT),
                ],
            )
            .await?;
        match row.get("outcome") {
            outcome @ ("created" | "found") => Ok((report(&row), outcome == "created")),
            refused => Err(lasting(refused)),
        }
    }

    /// Lists a page of all reports, latest first, past `after` (time and id of the last one seen).
    pub async fn list_reports(
        &self,
        after: Option<(Time, ReportId)>,
        limit: i64,
    ) -> Result<Vec<Report>, StoreError> {
        let (time, id) = after.map(|(time, id)| (time.0, id)).unzip();
        let rows = self
            .query(
                LIST_REPORTS,
                &[(&time, Type::TIMESTAMPTZ), (&id, Type::UUID), (&limit, Type::INT8)],
            )
            .await?;
        Ok(rows.iter().map(report).collect())
    }
}

impl Store {
    /// Decides a report: it is gone, and so are the bytes that were kept for it.
    pub async fn decide_report(&self, report_id: ReportId) -> Result<(), StoreError> {
        self.query(DECIDE_REPORT, &[(&report_id, Type::UUID)]).await?;
        Ok(())
    }

    /// Reads an attachment that is kept for a report.
    pub async fn get_reported_attachment(
        &self,
        report_id: ReportId,
        attachment_id: AttachmentId,
    ) -> Result<Option<(ChatId, Attachment)>, StoreError> {
        let params = [(&report_id as _, Type::UUID), (&attachment_id as _, Type::UUID)];
        let row = self.query_opt(REPORTED_ATTACHMENT, &params).await?;
        Ok(row.map(|row| (row.get("chat_id"), row.get::<Json<Attachment>>("attachment").0)))
    }

    /// Reads an attachment that is kept for any report.
    pub async fn get_kept_attachment(
        &self,
        chat_id: ChatId,
        attachment_id: AttachmentId,
    ) -> Result<Option<Attachment>, StoreError> {
        let params = [(&chat_id as _, Type::UUID), (&attachment_id as _, Type::UUID)];
        let row = self.query_opt(KEPT_ATTACHMENT, &params).await?;
        Ok(row.map(|row| row.get::<Json<Attachment>>("attachment").0))
    }
}

/// The columns that [`report`] reads, of a table named `r`.
macro_rules! report_columns {
    () => {
        "r.report_id AS r_report_id, r.chat_id AS r_chat_id, r.message_id AS r_message_id, \
         r.seq AS r_seq, r.sender_id AS r_sender_id, r.reporter_id AS r_reporter_id, \
         r.reason AS r_reason, r.text AS r_text, r.metadata AS r_metadata, \
         reported_attachments(r.report_id) AS r_attachments, r.created_at AS r_created_at"
    };
}
pub(super) use report_columns;

/// Reads [`report_columns!`].
pub(super) fn report(row: &Row) -> Report {
    Report {
        report_id: row.get("r_report_id"),
        chat_id: row.get("r_chat_id"),
        message_id: row.get("r_message_id"),
        seq: row.get("r_seq"),
        sender_id: user(row.get("r_sender_id")),
        reporter_id: row.get::<Option<&str>>("r_reporter_id").map(user),
        reason: row.get("r_reason"),
        text: row.get("r_text"),
        metadata: json(row, "r_metadata"),
        attachments: row
            .get::<Option<Json<Vec<Attachment>>>>("r_attachments")
            .map(|json| json.0)
            .unwrap_or_default(),
        created_at: time(row, "r_created_at"),
    }
}

const REPORT_MESSAGE: &str = concat!(
    "-- store.report_message
SELECT f.outcome, ",
    report_columns!(),
    " FROM report_message($1, $2, $3, $4, $5) f, LATERAL (SELECT (f.report).*) r"
);

/// Also adds a webhook event for a new report, in the same transaction.
const REPORT_MESSAGE_NOTING: &str = concat!(
    "-- store.report_message_noting
WITH f AS MATERIALIZED (
    SELECT * FROM report_message($1, $2, $3, $4, $5)
), events (kind, chat_id, recipient_id, seq, report_id, due_at) AS (
    SELECT 'report.created', (f.report).chat_id, NULL::text, NULL::bigint, (f.report).report_id,
           clock_timestamp()
      FROM f WHERE f.outcome = 'created'
), ",
    note_webhooks!(),
    " SELECT f.outcome, ",
    report_columns!(),
    " FROM f, LATERAL (SELECT (f.report).*) r"
);

/// The bound is a row comparison, so that a page is a range of the index, read backwards.
const LIST_REPORTS: &str = concat!(
    "-- store.list_reports\nSELECT ",
    report_columns!(),
    " FROM reports r
 WHERE (r.created_at, r.report_id)
       < (coalesce($1, 'infinity'), coalesce($2, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
 ORDER BY r.created_at DESC, r.report_id DESC LIMIT $3"
);

const DECIDE_REPORT: &str = "\
-- store.decide_report
WITH kept AS (
    DELETE FROM report_attachments WHERE report_id = $1
)
DELETE FROM reports WHERE report_id = $1";

const REPORTED_ATTACHMENT: &str = "\
-- store.reported_attachment
SELECT chat_id, attachment FROM report_attachments WHERE report_id = $1 AND attachment_id = $2";

const KEPT_ATTACHMENT: &str = "\
-- store.kept_attachment
SELECT attachment FROM report_attachments WHERE chat_id = $1 AND attachment_id = $2 LIMIT 1";
