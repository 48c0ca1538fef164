//! Logs: to standard error, for people or for machines.

use std::io::IsTerminal;

use tracing::Level;
use tracing_subscriber::{
    EnvFilter, filter::filter_fn, fmt, layer::SubscriberExt, util::SubscriberInitExt,
};

use crate::config::LogFormat;

/// What is logged where nobody says: these two libraries call at `info` what is worth `debug`.
const DEFAULT_FILTER: &str = "info,refinery_core=warn,tokio_postgres=warn";

/// Begins logging. `BESEDA_LOG` says what: `info`, `debug`, `beseda=debug,warn` …; without it, or
/// where it can't be read, `info`. Below that only the program's own is logged, whatever it says.
///
/// For programs only: a process has one subscriber, so tests and libraries leave it alone. A second
/// call does nothing.
pub fn init(format: LogFormat) {
    let (filter, refused) = match std::env::var("BESEDA_LOG") {
        Ok(text) => match EnvFilter::try_new(&text) {
            Ok(filter) => (filter, None),
            Err(error) => (EnvFilter::new(DEFAULT_FILTER), Some(error)),
        },
        Err(_) => (EnvFilter::new(DEFAULT_FILTER), None),
    };
    // What libraries say below that is what they carry: texts, tokens, values of statements.
    let quiet = filter_fn(|event| {
        *event.level() <= Level::INFO || event.target().split("::").next() == Some("beseda")
    });
    let registry = tracing_subscriber::registry().with(filter).with(quiet);
    let layer = fmt::layer().with_writer(std::io::stderr);
    // Fails only where there is a subscriber already.
    let _ = match format {
        LogFormat::Text => {
            registry.with(layer.with_ansi(std::io::stderr().is_terminal())).try_init()
        }
        LogFormat::Json => {
            registry.with(layer.json().flatten_event(true).with_ansi(false)).try_init()
        }
    };
    if let Some(error) = refused {
        tracing::warn!(%error, "BESEDA_LOG can't be read; logging at info");
    }
}
