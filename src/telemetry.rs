//! Logs, to standard error, for people or for machines; and traces, over OTLP, where an endpoint is
//! given.

use std::io::IsTerminal;

use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing::Level;
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, LevelFilter, filter_fn},
    fmt,
    layer::{Filter, SubscriberExt},
    util::SubscriberInitExt,
};
use url::Url;

use crate::{config::LogFormat, trace};

/// What is logged where nobody says: these two libraries call at `info` what is worth `debug`.
const DEFAULT_FILTER: &str = "info,refinery_core=warn,tokio_postgres=warn";

/// Why traces can't be sent.
#[derive(Debug, thiserror::Error)]
#[error("BESEDA_OTLP_ENDPOINT: no exporter")]
pub struct TelemetryError(#[from] opentelemetry_otlp::ExporterBuildError);

/// What sends traces, while it lives; dropped, it sends what is left.
#[derive(Debug)]
pub struct Telemetry(Option<SdkTracerProvider>);

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = &self.0
            && let Err(error) = provider.shutdown()
        {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// Begins logging, and tracing where there is an `endpoint`. `BESEDA_LOG` says what is logged: `info`,
/// `debug`, `beseda=debug,warn` …; without it, or where it can't be read, `info`. Below that only the
/// program's own is logged, whatever it says.
///
/// For programs only: a process has one subscriber, so tests and libraries leave it alone. A second
/// call does nothing.
pub fn init(format: LogFormat, endpoint: Option<&Url>) -> Result<Telemetry, TelemetryError> {
    let (filter, refused) = match std::env::var("BESEDA_LOG") {
        Ok(text) => match EnvFilter::try_new(&text) {
            Ok(filter) => (filter, None),
            Err(error) => (EnvFilter::new(DEFAULT_FILTER), Some(error)),
        },
        Err(_) => (EnvFilter::new(DEFAULT_FILTER), None),
    };
    let provider = endpoint.map(provider).transpose()?;
    let traces = provider.as_ref().map(|provider| {
        let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer("beseda"));
        // The library's own code lines and threads are of no use to anybody's trace.
        spans.with_location(false).with_threads(false).with_filter(
            filter_fn(|span| span.target() == trace::TARGET)
                .with_max_level_hint(LevelFilter::DEBUG),
        )
    });
    // Fails only where there is a subscriber already.
    let _ = tracing_subscriber::registry()
        .with(traces)
        .with(logs(format).with_filter(quiet(filter)))
        .try_init();
    if let Some(error) = refused {
        tracing::warn!(%error, "BESEDA_LOG can't be read; logging at info");
    }
    Ok(Telemetry(provider))
}

/// `filter` without what libraries say below `info`: that is what they carry, such as texts, tokens
/// and values of statements.
fn quiet<S>(filter: EnvFilter) -> impl Filter<S> {
    let ours_or_worth_it = filter_fn(|event| {
        *event.level() <= Level::INFO || event.target().split("::").next() == Some("beseda")
    });
    // Without a level of its own the two would have none in common, and each record of each library,
    // made with the `log` crate thousands of times a second, would be looked at.
    filter.and(ours_or_worth_it.with_max_level_hint(LevelFilter::TRACE))
}

fn logs<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a> + Send + Sync,
{
    let layer = fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => layer.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_ansi(false).boxed(),
    }
}

/// Sends spans in batches, from a thread of its own, to `endpoint` as it is given.
fn provider(endpoint: &Url) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
        .with_endpoint(endpoint.as_str())
        .build()?;
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let instance = KeyValue::new("service.instance.id", uuid::Uuid::now_v7().to_string());
    let resource = Resource::builder()
        .with_service_name("beseda")
        .with_attributes([version, instance])
        .build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::Registry;

    use super::*;

    #[test]
    fn what_is_below_the_level_is_not_even_looked_at() {
        for (said, level) in [(DEFAULT_FILTER, LevelFilter::INFO), ("debug", LevelFilter::DEBUG)] {
            let filter = quiet::<Registry>(EnvFilter::new(said));
            assert_eq!(Filter::<Registry>::max_level_hint(&filter), Some(level), "{said}");
        }
    }
}
