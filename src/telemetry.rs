//! Logs to standard error, as text or as JSON; and traces over OTLP, if an endpoint is configured.

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

/// The default filter. These two libraries log at `info` what is worth `debug`.
const DEFAULT_FILTER: &str = "info,refinery_core=warn,tokio_postgres=warn";

/// Why the exporter of traces can't be set up.
#[derive(Debug, thiserror::Error)]
#[error("BESEDA_OTLP_ENDPOINT: no exporter")]
pub struct TelemetryError(#[from] opentelemetry_otlp::ExporterBuildError);

/// Sends traces while it exists; dropping it sends the remaining ones.
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

/// Starts logging, and tracing if there is an `endpoint`. `BESEDA_LOG` is the filter: `info`, `debug`,
/// `beseda=debug,warn` …; by default, or if it can't be parsed, `info`. Below `info` only events of this
/// program are logged, whatever the filter is.
///
/// For programs only, not for libraries and tests, because a process has one subscriber. A second call
/// does nothing.
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
        // Code locations and threads are of no use in a trace.
        spans.with_location(false).with_threads(false).with_filter(
            filter_fn(|span| span.target() == trace::TARGET)
                .with_max_level_hint(LevelFilter::DEBUG),
        )
    });
    // Fails only if there is a subscriber already.
    let _ = tracing_subscriber::registry()
        .with(traces)
        .with(logs(format).with_filter(quiet(filter)))
        .try_init();
    if let Some(error) = refused {
        tracing::warn!(%error, "BESEDA_LOG can't be read; logging at info");
    }
    Ok(Telemetry(provider))
}

/// Restricts `filter` to events of this program below `info`: libraries log there what they carry, such
/// as texts, tokens and values of statements.
fn quiet<S>(filter: EnvFilter) -> impl Filter<S> {
    let ours_or_worth_it = filter_fn(|event| {
        *event.level() <= Level::INFO || event.target().split("::").next() == Some("beseda")
    });
    // Without a level hint of its own, the combined filter would have none, and every record of the `log`
    // crate, thousands a second, would be evaluated.
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

/// Makes a provider that sends spans in batches, from its own thread, to exactly `endpoint`.
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
