//! Signatures of files in blocks: a checksum that can be rolled over content byte by byte, and the beginning of a BLAKE3 hash.
//! Made by a receiver, used by a sender.

use remotely_proto::file::BLOCK_ENTRY;

/// Bytes of the hash that are kept. The hash of the whole file guards against what that leaves.
pub(crate) const STRONG: usize = BLOCK_ENTRY - 4;

/// What a byte is multiplied with (an odd number of many bits, from librsync), and what is added to it, so that zeros count.
const MULTIPLIER: u32 = 0x0810_4225;
const ADDEND: u32 = 0x0a;
/// Bytes that are summed at once, and what each of them is multiplied with.
const LANES: usize = 16;
const POWERS: [u32; LANES] = {
    let mut powers = [1; LANES];
    let mut at = LANES - 1;
    while at > 0 {
        powers[at - 1] = MULTIPLIER.wrapping_mul(powers[at]);
        at -= 1;
    }
    powers
};

/// Rabin and Karp's checksum of a window, modulo 2^32.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rolling {
    value: u32,
    /// What the oldest byte of a full window is multiplied with.
    oldest: u32,
}

impl Rolling {
    /// Of a window.
    pub(crate) fn new(window: &[u8]) -> Self {
        // Several bytes at once, since each multiplication has to wait for the one before.
        let (runs, rest) = window.as_chunks::<LANES>();
        let value = runs.iter().fold(0_u32, |value, run| {
            let sum = run
                .iter()
                .zip(&POWERS)
                .fold(0_u32, |sum, (&byte, &power)| sum.wrapping_add((u32::from(byte) + ADDEND).wrapping_mul(power)));
            value.wrapping_mul(MULTIPLIER.wrapping_pow(LANES as u32)).wrapping_add(sum)
        });
        let step = |value: u32, byte: &u8| value.wrapping_mul(MULTIPLIER).wrapping_add(u32::from(*byte) + ADDEND);
        let value = rest.iter().fold(value, step);
        let oldest = MULTIPLIER.wrapping_pow(u32::try_from(window.len()).unwrap_or(u32::MAX));
        Self { value, oldest }
    }

    pub(crate) fn value(self) -> u32 {
        self.value
    }

    /// Moves the window on by one byte.
    pub(crate) fn roll(&mut self, out: u8, into: u8) {
        let gone = (u32::from(out) + ADDEND).wrapping_mul(self.oldest);
        let come = u32::from(into) + ADDEND;
        self.value = self.value.wrapping_mul(MULTIPLIER).wrapping_add(come).wrapping_sub(gone);
    }
}

/// The beginning of the hash of a block.
pub(crate) fn strong(block: &[u8]) -> [u8; STRONG] {
    let mut start = [0; STRONG];
    start.copy_from_slice(&blake3::hash(block).as_bytes()[..STRONG]);
    start
}

/// Appends the entry of a block to a signature.
pub(crate) fn sign(block: &[u8], to: &mut Vec<u8>) {
    to.extend_from_slice(&Rolling::new(block).value().to_le_bytes());
    to.extend_from_slice(&strong(block));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rolling_is_summing_anew() {
        let data: Vec<u8> = (0..5000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for window in [1, 2, 7, 512, 1000] {
            let mut rolling = Rolling::new(&data[..window]);
            for at in 1..data.len() - window {
                rolling.roll(data[at - 1], data[at + window - 1]);
                assert_eq!(rolling.value(), Rolling::new(&data[at..at + window]).value(), "{window} at {at}");
            }
        }
        assert_ne!(Rolling::new(&[0; 10]).value(), Rolling::new(&[0; 11]).value());
    }
}
