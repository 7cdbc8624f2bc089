//! See `fuzz_bodies`, where the corpus of this target is replayed as a test too.
#![no_main]

#[path = "../../crates/proto/tests/fuzz_bodies/mod.rs"]
mod fuzz_bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_bodies::run("net_surroundings", data));
