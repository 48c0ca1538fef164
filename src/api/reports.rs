//! Reports: members make them, the host application reads them.

use axum::{Json, extract::State, http::StatusCode};
use beseda_protocol::{
    bounds::MAX_REASON_CHARS,
    rest::{NewReport, ReportPage},
};

use super::{
    cursor::{read_cursor, write_cursor},
    extract::{AuthUser, ChatPath, MessagePath, OptionalJsonBody, QueryParams},
};
use crate::{context::Context, error::Error, model::Report};

/// Reports a message, with its current content, to the host application. A member reports a message
/// once; the other member is not told.
#[utoipa::path(post, path = "/chats/{chat}/messages/{message_id}/report/", tag = "messages", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
    ("message_id" = Uuid, Path),
), request_body(content = Option<NewReport>), responses(
    (status = 201, description = "Reported", body = Report),
    (status = 200, description = "The caller had reported it before: that report", body = Report),
))]
pub(super) async fn report_message(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    MessagePath(message_id): MessagePath,
    OptionalJsonBody(mut fields): OptionalJsonBody,
) -> Result<(StatusCode, Json<Report>), Error> {
    let reason = fields.optional_string("reason", check_reason);
    fields.finish()?;
    let (report, created) =
        context.chats.report_message(user.id(), chat_id, message_id, reason.as_deref()).await?;
    Ok((if created { StatusCode::CREATED } else { StatusCode::OK }, Json(report)))
}

/// Checks a reason, of a report or of a ban.
pub(super) fn check_reason(reason: &str) -> Result<(), &'static str> {
    let fits = reason.chars().count() <= MAX_REASON_CHARS && !reason.contains('\0');
    fits.then_some(()).ok_or("must have 1000 characters at most, none of them U+0000")
}

/// Lists the reports, latest first; `chat:admin` only.
#[utoipa::path(get, path = "/reports/", tag = "messages", params(
    ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "30 where not given"),
    ("cursor" = Option<String>, Query, description = "`next` of the page before"),
), responses(
    (status = 200, description = "A page, latest first", body = ReportPage),
))]
pub(super) async fn list_reports(
    State(context): State<Context>,
    user: AuthUser,
    QueryParams(mut params): QueryParams,
) -> Result<Json<ReportPage>, Error> {
    user.require_admin()?;
    let limit = params.integer("limit", 1, 100).unwrap_or(30);
    let cursor = params.string("cursor");
    params.finish()?;
    let after = cursor.as_deref().map(read_cursor).transpose()?;
    let (results, next) = context.chats.list_reports(after, limit).await?;
    Ok(Json(ReportPage { results, next: next.map(write_cursor) }))
}
