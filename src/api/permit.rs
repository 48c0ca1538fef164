//! An answer that keeps its request's place until the client has taken the last of it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    body::{Body, HttpBody},
    response::Response,
};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use crate::{limits::Permit, model::UserId};

type Kept = Arc<Permit<UserId>>;

/// Keeps the place as long as anything of the answer is in memory.
pub(super) fn keep(response: Response, place: Permit<UserId>) -> Response {
    let place = Arc::new(place);
    response.map(|body| Body::new(Answer { body, place }))
}

struct Answer {
    body: Body,
    place: Kept,
}

/// Bytes of it. The HTTP library is done with a body when it has queued these, so they keep the place.
struct Piece {
    bytes: Bytes,
    _place: Kept,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { body, place } = &mut *self;
        let piece = |bytes| Bytes::from_owner(Piece { bytes, _place: Arc::clone(place) });
        Pin::new(body)
            .poll_frame(context)
            .map(|frame| frame.map(|frame| frame.map(|frame| frame.map_data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
