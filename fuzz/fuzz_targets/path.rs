#![no_main]

use std::sync::OnceLock;

use beseda::fuzz_entry::FuzzEntry;
use libfuzzer_sys::fuzz_target;

static ENTRY: OnceLock<FuzzEntry> = OnceLock::new();

fuzz_target!(|raw: &str| ENTRY.get_or_init(FuzzEntry::default).path(raw));
