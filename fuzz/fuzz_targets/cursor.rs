#![no_main]

use std::sync::OnceLock;

use beseda::fuzz_entry::Doors;
use libfuzzer_sys::fuzz_target;

static DOORS: OnceLock<Doors> = OnceLock::new();

fuzz_target!(|raw: &str| DOORS.get_or_init(Doors::default).cursor(raw));
