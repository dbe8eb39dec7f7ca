use std::sync::atomic::{AtomicU64, Ordering};

use uuid::{Builder, Uuid, Variant, Version};

use crate::Ids;

/// Identifiers that follow from a seed: the same seed gives the same ones, in the order of asking; other seeds give
/// others. Each sorts after those before it.
#[derive(Debug)]
pub struct SequentialIds {
    seed: u64,
    given: AtomicU64,
}

impl SequentialIds {
    /// The identifiers of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, given: AtomicU64::new(0) }
    }
}

impl Ids for SequentialIds {
    fn fresh(&self) -> Uuid {
        let number = self.given.fetch_add(1, Ordering::Relaxed) + 1;
        // The count stands where a version 7 UUID has its 48 bits of time, so it alone decides the order.
        let bits = (u128::from(number) << 80) | u128::from(self.seed);
        Builder::from_u128(bits).with_variant(Variant::RFC4122).with_version(Version::SortRand).into_uuid()
    }
}
