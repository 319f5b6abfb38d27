//! A 64-bit hash of bytes, the same in every release and on every machine.
//!
//! It finds what differs by a mistake or a broken disk. It does not withstand somebody who
//! chooses bytes to collide.

/// Where a chain of [`bytes`] begins.
pub const SEED: u64 = 0x7465_7075_6921_2121;
// Odd, with about half of the bits set: the golden ratio and a prime below 2^64.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
const MIX: u64 = 0xd6e8_feb8_6659_fd93;

/// Hash of `bytes` behind what `seed` is the hash of.
pub fn bytes(seed: u64, bytes: &[u8]) -> u64 {
    // The length first, so that trailing zeros count.
    let mut hash = mix(seed ^ (bytes.len() as u64).wrapping_mul(SPREAD));
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let mut buffer = [0; 8];
        buffer.copy_from_slice(word);
        hash = absorb(hash, u64::from_le_bytes(buffer));
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let mut buffer = [0; 8];
        buffer[..rest.len()].copy_from_slice(rest);
        hash = absorb(hash, u64::from_le_bytes(buffer));
    }
    mix(hash)
}

// Each step is a bijection of the hash for a given word, so nothing seen earlier is lost.
fn absorb(hash: u64, word: u64) -> u64 {
    (hash ^ word.wrapping_mul(SPREAD))
        .rotate_left(29)
        .wrapping_mul(MIX)
}

// A bijection in which every bit of the input reaches every bit of the output.
fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(MIX);
    hash ^= hash >> 29;
    hash = hash.wrapping_mul(SPREAD);
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_counts() {
        let zeros = [0_u8; 20];
        let base = bytes(SEED, &zeros);
        for bit in 0..zeros.len() * 8 {
            let mut changed = zeros;
            changed[bit / 8] ^= 1 << (bit % 8);
            let flipped = (bytes(SEED, &changed) ^ base).count_ones();
            assert!(
                (12..=52).contains(&flipped),
                "bit {bit}: {flipped} bits differ"
            );
        }
        assert_ne!(base, bytes(SEED, &zeros[..19]));
    }
}
