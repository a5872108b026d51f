//! Seeded choices. They depend only on the seed, the fault and the repetition.

use shared::checksum::digests;

/// A seeded sequence of choices.
#[derive(Debug, Clone)]
pub struct Choices(u64);

impl Choices {
    /// Starts the sequence of a seed and a purpose.
    pub fn new(seed: u64, purpose: &str) -> Self {
        let hash = digests(format!("{seed} {purpose}").as_bytes()).sha256;
        Self(u64::from_str_radix(&hash.as_str()[..16], 16).unwrap_or(seed))
    }

    /// Returns the next number of the sequence, by `SplitMix64`.
    pub fn next_number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below a limit of at least 1.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = limit.max(1) as u64;
        usize::try_from(self.next_number() % limit).unwrap_or(0)
    }

    /// Flips one bit, and returns its number.
    pub fn flip(&mut self, bytes: &mut [u8]) -> usize {
        let bit = self.below(8 * bytes.len());
        bytes[bit / 8] ^= 1 << (bit % 8);
        bit
    }

    /// Returns one of several.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Shuffles a list.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
