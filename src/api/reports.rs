//! Reports: members make them, the host application reads them.

use axum::{Json, extract::State, http::StatusCode, response::Response};
use beseda_protocol::{
    bounds::MAX_REASON_CHARS,
    rest::{AttachmentLink, NewReport, ReportPage},
};

use super::{
    attachments::WantedAttachment,
    cursor::{read_cursor, write_cursor},
    extract::{
        AttachmentPath, AuthUser, ChatPath, MessagePath, OptionalJsonBody, QueryParams, ReportPath,
    },
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

/// Decides a report: it is gone, and so are the attachments that were kept for it; `chat:admin` only.
#[utoipa::path(delete, path = "/reports/{report_id}/", tag = "messages",
params(("report_id" = Uuid, Path)), responses(
    (status = 204, description = "Decided, or decided before"),
))]
pub(super) async fn decide_report(
    State(context): State<Context>,
    user: AuthUser,
    ReportPath(report_id): ReportPath,
) -> Result<StatusCode, Error> {
    user.require_admin()?;
    context.chats.decide_report(report_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Reads an attachment of a reported message, even if the message was deleted since; `chat:admin` only. The
/// answers are those of an attachment of a chat.
#[utoipa::path(get, path = "/reports/{report_id}/attachments/{attachment_id}/", tag = "attachments", params(
    ("report_id" = Uuid, Path),
    ("attachment_id" = Uuid, Path),
    ("variant" = Option<String>, Query, description = "`thumbnail`: the smaller image"),
    ("link" = Option<bool>, Query, description = "`true`: a URL in place of the bytes"),
    ("Range" = Option<String>, Header, description = "`bytes=first-last`"),
), responses(
    (status = 200, description = "The bytes; with `link=true` a URL", content(
        (AttachmentLink = "application/json"),
        (String = "*/*"),
    )),
    (status = 206, description = "The range", body = String, content_type = "*/*"),
    (status = 304, description = "As `If-None-Match` has it"),
    (status = 307, description = "The bytes are at `Location`", headers(("Location" = String))),
))]
pub(super) async fn get_reported_attachment(
    State(context): State<Context>,
    user: AuthUser,
    ReportPath(report_id): ReportPath,
    AttachmentPath(attachment_id): AttachmentPath,
    wanted: WantedAttachment,
) -> Result<Response, Error> {
    user.require_admin()?;
    let attachments = &context.attachments;
    let found = attachments.find_reported(report_id, attachment_id, wanted.variant).await?;
    wanted.answer(&context, &found).await
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
