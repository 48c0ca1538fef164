//! Progress on stderr.

use std::io::Write;

/// Writes a line of progress. It is not a result, so a closed stderr is no failure.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
