//! A response that holds its request's permit until the client has read all of it.

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

/// Holds the permit while any part of the response is in memory.
pub(super) fn keep(response: Response, permit: Permit<UserId>) -> Response {
    let permit = Arc::new(permit);
    response.map(|body| Body::new(Answer { body, permit }))
}

struct Answer {
    body: Body,
    permit: Kept,
}

/// One chunk of the body. It holds the permit until it is written, because the HTTP library drops
/// the body once its chunks are queued.
struct Piece {
    bytes: Bytes,
    _permit: Kept,
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
        let Self { body, permit } = &mut *self;
        let piece = |bytes| Bytes::from_owner(Piece { bytes, _permit: Arc::clone(permit) });
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
