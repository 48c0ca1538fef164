#![no_main]

use std::sync::OnceLock;

use beseda::fuzz_entry::Doors;
use libfuzzer_sys::fuzz_target;

static DOORS: OnceLock<Doors> = OnceLock::new();

// A query and a text, parted by a line's end.
fuzz_target!(|raw: &str| {
    let (query, text) = raw.split_once('\n').unwrap_or((raw, raw));
    DOORS.get_or_init(Doors::default).search(query, text);
});
