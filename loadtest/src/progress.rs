//! How a run goes, for people who watch it.

use std::io::Write;

/// Writes a line for people who watch. Progress is no result, so a closed stderr is no failure.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
