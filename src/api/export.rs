//! Export of a user's data: `/api/v1/users/{user_id}/export/`.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream::try_unfold;

use super::{
    connect::ExternalOrigin,
    extract::{AuthUser, UserPath},
};
use crate::{
    chat::Export,
    context::Context,
    error::{Error, chain},
    model::ExportLine,
};

const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// Exports all data of a user as JSON lines; `chat:admin` only. The profile comes first, then the
/// devices, the blocks, the chats, each followed by the user's own messages, the user's reactions,
/// attachments (with links that are good for an hour) and reports, and as the last line `end`: without
/// it the export broke off and has to be repeated. It is read while it is sent, so changes made
/// meanwhile may be missing; everything else is in it once.
#[utoipa::path(get, path = "/users/{user_id}/export/", tag = "users",
params(("user_id" = String, Path)), responses(
    (status = 200, description = "A JSON object a line", body = ExportLine,
     content_type = "application/x-ndjson"),
))]
pub(super) async fn export_user(
    State(context): State<Context>,
    user: AuthUser,
    UserPath(user_id): UserPath,
    reached: ExternalOrigin,
) -> Result<Response, Error> {
    user.require_admin()?;
    let export = context.chats.export_user(&user_id, reached.http("")).await?;
    let pages = try_unfold((context, export), next_page);
    Ok(([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(pages)).into_response())
}

/// The reason why an export broke off; the reader only sees a broken response.
#[derive(Debug, thiserror::Error)]
enum BrokenOff {
    #[error("the replica shuts down")]
    Draining,
    #[error(transparent)]
    Failed(#[from] Error),
}

/// Reads the next page once the client has taken the previous one. An error breaks the connection.
async fn next_page(
    (context, mut export): (Context, Export),
) -> Result<Option<(Bytes, (Context, Export))>, BrokenOff> {
    // An export may take longer than the grace; the client's retry reaches another replica.
    let next = if context.is_closing() {
        Err(BrokenOff::Draining)
    } else {
        export.next_page().await.map_err(BrokenOff::from)
    };
    match next {
        Ok(lines) => Ok(lines.map(|lines| (encode(&lines), (context, export)))),
        Err(error) => {
            tracing::warn!(error = chain(&error), "an export broke off");
            Err(error)
        }
    }
}

fn encode(lines: &[ExportLine]) -> Bytes {
    let mut bytes = Vec::new();
    for line in lines {
        let from = bytes.len();
        // Writing a plain struct to memory cannot fail.
        let _ = serde_json::to_writer(&mut bytes, line);
        // Metadata is kept as sent and may contain line breaks between tokens (JSON escapes those
        // within strings). Such a break would end the line and let the rest pass for another one.
        for byte in &mut bytes[from..] {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        bytes.push(b'\n');
    }
    bytes.into()
}
