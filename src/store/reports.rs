//! Reported messages.

use serde_json::value::RawValue;
use tokio_postgres::{
    Row,
    types::{Json, Type},
};
use uuid::Uuid;

use super::{Store, StoreError, messages::refusal, rows::user, webhooks::note_webhooks};
use crate::{
    error::Error,
    model::{ChatId, MessageId, Report, ReportId, Time, UserId},
};

impl Store {
    /// Reports a message as it is now, or finds that its reporter has done so; true where it is new.
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
        match row.get::<_, &str>(0) {
            outcome @ ("created" | "found") => Ok((report(&row, 1), outcome == "created")),
            refused => Err(refusal(refused)),
        }
    }

    /// A page of all reports, latest first, past `after` (time and id of the last one seen).
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
        Ok(rows.iter().map(|row| report(row, 0)).collect())
    }
}

/// Columns of [`report`], of a table named `r`.
macro_rules! report_columns {
    () => {
        "r.report_id, r.chat_id, r.message_id, r.seq, r.sender_id, r.reporter_id, r.reason, r.text, \
         r.metadata, r.created_at"
    };
}
pub(super) use report_columns;

/// `report_columns!()` from column `at` on.
pub(super) fn report(row: &Row, at: usize) -> Report {
    Report {
        report_id: row.get(at),
        chat_id: row.get(at + 1),
        message_id: row.get(at + 2),
        seq: row.get(at + 3),
        sender_id: user(row.get(at + 4)),
        reporter_id: row.get::<_, Option<&str>>(at + 5).map(user),
        reason: row.get(at + 6),
        text: row.get(at + 7),
        metadata: row.get::<_, Option<Json<Box<RawValue>>>>(at + 8).map(|json| json.0),
        created_at: Time(row.get(at + 9)),
    }
}

const REPORT_MESSAGE: &str = concat!(
    "-- store.report_message
SELECT f.outcome, ",
    report_columns!(),
    " FROM report_message($1, $2, $3, $4, $5) f, LATERAL (SELECT (f.report).*) r"
);

/// The same, and an event for a new report, in the same transaction.
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
