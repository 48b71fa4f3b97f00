//! A small stable hash, for colours and MAC addresses derived from names.
//!
//! Not for security. Its results are written to disk and shown on screens, so it must never
//! change: FNV-1a (64 bit, draft-eastlake-fnv), then the finalizer of SplitMix64 so that names
//! differing in the last letter differ in all bits.

/// Hash of the parts, each closed by a zero byte so that ("ab", "c") and ("a", "bc") differ.
pub(crate) fn stable_hash(parts: &[&str]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for byte in part.bytes().chain(std::iter::once(0)) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::stable_hash;

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(stable_hash(&[]), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(stable_hash(&["color", "banking"]), 0xf2eb_93d9_c85d_d8be);
        assert_ne!(stable_hash(&["ab", "c"]), stable_hash(&["a", "bc"]));
    }
}
