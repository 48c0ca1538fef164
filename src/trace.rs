//! Traces of a request and its message across replicas, from the request to the sockets. The context is
//! the W3C's (`traceparent`, <https://www.w3.org/TR/trace-context/>) and travels with the publication.
//!
//! Spans and events of this target are recorded only with `BESEDA_OTLP_ENDPOINT` or with
//! `BESEDA_LOG=beseda::trace=debug`; otherwise each costs one check of a flag. They carry ids and numbers,
//! never a text.

use http::HeaderMap;
use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator},
    trace::TraceContextExt,
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Level, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::model::{ChatId, Message};

/// The target of all spans and events of this module.
pub const TARGET: &str = "beseda::trace";

/// The header's name in requests and in publications.
const TRACEPARENT: &str = "traceparent";

/// Begins the span of a request, within its sender's trace.
pub fn request(headers: &HeaderMap, method: &'static str, route: &str, request_id: &str) -> Span {
    let span = tracing::debug_span!(
        target: TARGET, "request",
        otel.kind = "server", http.request.method = method, http.route = route, request_id,
    );
    if !span.is_disabled()
        && let Some(parent) = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok())
    {
        join(&span, parent);
    }
    span
}

/// Begins the span of a socket's command. A command carries no context, so this begins a trace.
pub fn command() -> Span {
    tracing::debug_span!(target: TARGET, "command", otel.kind = "server")
}

/// Records for a message that its batch of `batch` messages was committed.
pub fn committed(request: &Span, message: &Message, batch: usize) {
    let Message { message_id, chat_id, ev, .. } = message;
    request.in_scope(|| {
        tracing::debug!(target: TARGET, %message_id, %chat_id, ev, batch, "committed");
    });
}

/// Records that Redis accepted a message's publication.
pub fn published(request: &Span, message: &Message) {
    let Message { message_id, chat_id, ev, .. } = message;
    request.in_scope(|| tracing::debug!(target: TARGET, %message_id, %chat_id, ev, "published"));
}

/// Records that a publication reached a replica with `sockets` of the chat.
pub fn delivered(parent: Option<&str>, chat_id: ChatId, ev: i64, sockets: usize) {
    if !tracing::enabled!(target: TARGET, Level::DEBUG) {
        return;
    }
    let span = tracing::debug_span!(
        target: TARGET, "deliver", otel.kind = "consumer", %chat_id, ev, sockets,
    );
    if let Some(parent) = parent {
        join(&span, parent);
    }
    span.in_scope(|| tracing::debug!(target: TARGET, %chat_id, ev, sockets, "delivered"));
}

/// Returns the span's context, to be continued on other replicas; `None` if it is not traced.
pub fn parent_of(span: &Span) -> Option<String> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let context = context.span().span_context().clone();
    context.is_valid().then(|| {
        let (trace, span, flags) = (context.trace_id(), context.span_id(), context.trace_flags());
        format!("00-{trace}-{span}-{:02x}", flags.to_u8())
    })
}

fn join(span: &Span, parent: &str) {
    // With an unreadable parent the span begins a trace of its own.
    let _ = span.set_parent(read(parent));
}

fn read(parent: &str) -> Context {
    struct One<'a>(&'a str);

    impl Extractor for One<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            (key == TRACEPARENT).then_some(self.0)
        }

        fn keys(&self) -> Vec<&str> {
            vec![TRACEPARENT]
        }
    }

    TraceContextPropagator::new().extract(&One(parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_read_and_what_is_none_is_ignored() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = read(parent);
        let parent = context.span().span_context().clone();
        assert_eq!(parent.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert!(parent.is_remote());
        for none in ["", "00-0-0-01", "nonsense", "00-00000000000000000000000000000000-0-01"] {
            assert!(!read(none).span().span_context().is_valid(), "{none}");
        }
    }
}
