#![no_main]

use std::sync::OnceLock;

use beseda::fuzz_entry::FuzzEntry;
use libfuzzer_sys::fuzz_target;

static ENTRY: OnceLock<FuzzEntry> = OnceLock::new();

// The first line is the query, the rest the text.
fuzz_target!(|raw: &str| {
    let (query, text) = raw.split_once('\n').unwrap_or((raw, raw));
    ENTRY.get_or_init(FuzzEntry::default).search(query, text);
});
