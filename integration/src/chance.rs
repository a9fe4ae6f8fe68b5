// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Chance that can be repeated: `EVANESCE_SEED` brings back the choices of a run that failed.

use std::time::{SystemTime, UNIX_EPOCH};

/// A stream of numbers that its seed decides (SplitMix64).
#[derive(Debug, Clone)]
pub struct Chance(u64);

/// The seed of this run: that of `EVANESCE_SEED`, or else another one each time. Print it.
///
/// # Panics
/// When the variable holds no number.
#[must_use]
pub fn seed() -> u64 {
    match std::env::var("EVANESCE_SEED") {
        Ok(seed) => seed.parse().expect("EVANESCE_SEED is a number"),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_nanos().into()),
    }
}

impl Chance {
    /// The stream of this seed and this name.
    #[must_use]
    pub fn new(seed: u64, name: u64) -> Self {
        let mut stream = Self(seed);
        let mixed = stream.next() ^ name.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self(mixed)
    }

    /// The next number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u32) -> u32 {
        // The bias of the remainder is nothing for such limits.
        u32::try_from(self.next() % u64::from(limit)).expect("less than a u32")
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_brings_the_same_numbers_again_and_another_name_others() {
        let stream = |seed, name| {
            let mut chance = Chance::new(seed, name);
            (0..100).map(|_| chance.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(stream(7, 1), stream(7, 1));
        assert_ne!(stream(7, 1), stream(7, 2));
        assert_ne!(stream(7, 1), stream(8, 1));
    }
}
