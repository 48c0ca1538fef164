//! For clients that keep a store: `/api/v1/chats/{chat}/changes/` and `/api/v1/sync/`.

use axum::{Json, extract::State};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use beseda_protocol::rest::{ChangePage, SyncPage};
use uuid::Uuid;

use super::{
    cursor::UNREADABLE,
    extract::{AuthUser, ChatPath, QueryParams},
};
use crate::{
    chat::Synced,
    context::Context,
    error::Error,
    model::Time,
    store::{Mark, OpenRound, SyncCursor},
};

/// Reads all that changed in a chat since a position, however old it is, as a socket that resumes is told
/// it: each row as it is now. Go on from the last frame's `ev` while `has_more`. Clients upsert: the first
/// that they are told of a message or a member may be that it was changed. A position is of one `epoch`:
/// where the page has another, what the client keeps of the chat is of a history that is no more. It begins
/// again with 0.
#[utoipa::path(get, path = "/chats/{chat}/changes/", tag = "chats", params(
    ("chat" = String, Path, description = "`chat_id` or `room_name`"),
    ("after_ev" = Option<i64>, Query, minimum = 0,
     description = "Only changes past this `ev`; 0 where not given. Past the head there are none"),
    ("limit" = Option<i64>, Query, minimum = 1, maximum = 1000,
     description = "500 where not given. A page has fewer where they are large"),
), responses(
    (status = 200, description = "A page, ascending by `ev`", body = ChangePage),
))]
pub(super) async fn list_changes(
    State(context): State<Context>,
    user: AuthUser,
    ChatPath(chat_id): ChatPath,
    QueryParams(mut params): QueryParams,
) -> Result<Json<ChangePage>, Error> {
    let limit = params.integer("limit", 1, 1_000).unwrap_or(500);
    let after_ev = params.integer("after_ev", 0, i64::MAX).unwrap_or(0);
    params.finish()?;
    Ok(Json(context.chats.list_changes(user.id(), chat_id, after_ev, limit).await?))
}

/// Lists the caller's chats that changed since a cursor was given: by messages and changes of all kinds, by
/// the caller's own settings and read markers, by joining. Profiles and presence of others are no changes.
/// Without a cursor, with one of another epoch, and with one older than 30 days it lists all chats, and its
/// first page has `reset`. A chat may come again without a change.
#[utoipa::path(get, path = "/sync/", tag = "chats", params(
    ("limit" = Option<i64>, Query, minimum = 1, maximum = 200,
     description = "100 where not given, of `results` and `gone` together. A page has fewer where last \
                    messages are large"),
    ("cursor" = Option<String>, Query, description = "`next` of the page before, or of the last time"),
), responses(
    (status = 200, description = "A page, in any order", body = SyncPage),
))]
pub(super) async fn sync(
    State(context): State<Context>,
    user: AuthUser,
    QueryParams(mut params): QueryParams,
) -> Result<Json<SyncPage>, Error> {
    let limit = params.integer("limit", 1, 200).unwrap_or(100);
    let cursor = params.string("cursor");
    params.finish()?;
    let cursor = cursor.as_deref().map(read_sync_cursor).transpose()?;
    let Synced { chats, gone, next, more, reset } =
        context.chats.sync(user.id(), cursor.as_ref(), limit).await?;
    let next = write_sync_cursor(&next);
    Ok(Json(SyncPage { results: chats, gone, next, has_more: more, reset }))
}

/// Encodes when the round began, how far an open one has come, and the history.
pub(super) fn write_sync_cursor(cursor: &SyncCursor) -> String {
    let SyncCursor { history, begun, open } = cursor;
    let mut bytes = vec![match open {
        None => 0,
        Some(OpenRound { since: None, .. }) => 1,
        Some(OpenRound { since: Some(_), .. }) => 2,
    }];
    let mut write = |mark: &Mark| {
        bytes.extend_from_slice(&mark.xid.to_be_bytes());
        bytes.extend_from_slice(&mark.at.0.as_microsecond().to_be_bytes());
    };
    write(begun);
    if let Some(OpenRound { since, after }) = open {
        since.iter().for_each(write);
        bytes.extend_from_slice(after.as_bytes());
    }
    bytes.extend_from_slice(history.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn read_sync_cursor(raw: &str) -> Result<SyncCursor, Error> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(raw).map_err(|_| UNREADABLE)?;
    read_bytes(&bytes).ok_or(UNREADABLE)
}

fn read_bytes(bytes: &[u8]) -> Option<SyncCursor> {
    let (kind, rest) = bytes.split_first()?;
    let (begun, mut rest) = read_mark(rest)?;
    let mut open = None;
    if let 1 | 2 = kind {
        let mut since = None;
        if *kind == 2 {
            let mark;
            (mark, rest) = read_mark(rest)?;
            since = Some(mark);
        }
        let after;
        (after, rest) = rest.split_first_chunk::<16>()?;
        open = Some(OpenRound { since, after: Uuid::from_bytes(*after) });
    } else if *kind != 0 {
        return None;
    }
    let history = std::str::from_utf8(rest).ok().filter(|it| !it.contains('\0'))?;
    Some(SyncCursor { history: history.to_owned(), begun, open })
}

/// Numbers of transactions are below 2^62, so that they may be subtracted from each other.
fn read_mark(bytes: &[u8]) -> Option<(Mark, &[u8])> {
    let (xid, rest) = bytes.split_first_chunk::<8>()?;
    let (micros, rest) = rest.split_first_chunk::<8>()?;
    let xid = i64::from_be_bytes(*xid);
    let at = Time::from_micros(i64::from_be_bytes(*micros))?;
    (0..1 << 62).contains(&xid).then_some((Mark { xid, at }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let mark = |xid| Mark { xid, at: Time::from_micros(1_800_000_000_123_456).expect("valid") };
        let open = |since| Some(OpenRound { since, after: Uuid::from_u128(7) });
        for open in [None, open(None), open(Some(mark(5)))] {
            let history = "0a1b2c".to_owned();
            let cursor = SyncCursor { history, begun: mark(1 << 40), open };
            let raw = write_sync_cursor(&cursor);
            assert_eq!(read_sync_cursor(&raw).expect("readable"), cursor);
            assert!(read_sync_cursor(&raw[..20]).is_err(), "{raw}");
        }
        for none in ["", "!", "AA", "Aw"] {
            assert!(read_sync_cursor(none).is_err(), "{none}");
        }
    }
}
