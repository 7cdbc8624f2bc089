//! Maps whose keys are numbers given one after the other. Not for keys that somebody may choose to make us slow; a client that
//! does slows its own calls only.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// By the number of a call, or of a function.
pub(crate) type Numbered<T> = HashMap<u32, T, BuildHasherDefault<Spread>>;

/// Spreads a number over all bits.
#[derive(Debug, Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        // The golden ratio of 2^64; the map takes the place from the low bits, and the mark from the high ones.
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}
