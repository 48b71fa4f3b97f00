//! The checksum of a copy: XXH64, by its specification
//! (<https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>), with seed 0.
//!
//! It finds what was lost or changed by accident on the way. Nobody's honesty hangs on it: a sender may
//! send what it likes, and a receiver may throw it away afterwards. An emulated processor does 1 GB/s
//! of it; of SHA-256, 60 MB/s.

const P1: u64 = 0x9e37_79b1_85eb_ca87;
const P2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const P3: u64 = 0x1656_67b1_9e37_79f9;
const P4: u64 = 0x85eb_ca77_c2b2_ae63;
const P5: u64 = 0x27d4_eb2f_1656_67c5;

/// Bytes that are taken in at a time.
const STRIPE: usize = 32;

/// A checksum as it grows.
#[derive(Clone, Debug)]
pub struct Sum {
    lanes: [u64; 4],
    total: u64,
    held: [u8; STRIPE],
}

impl Default for Sum {
    fn default() -> Self {
        let lanes = [P1.wrapping_add(P2), P2, 0, 0u64.wrapping_sub(P1)];
        Self { lanes, total: 0, held: [0; STRIPE] }
    }
}

impl Sum {
    /// Takes in more bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        let held = (self.total % STRIPE as u64) as usize;
        self.total = self.total.wrapping_add(bytes.len() as u64);
        if held > 0 {
            let count = bytes.len().min(STRIPE - held);
            self.held[held..held + count].copy_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            if held + count < STRIPE {
                return;
            }
            let full = self.held;
            self.stripes(&full);
        }
        let whole = bytes.len() - bytes.len() % STRIPE;
        self.stripes(&bytes[..whole]);
        let rest = &bytes[whole..];
        self.held[..rest.len()].copy_from_slice(rest);
    }

    fn stripes(&mut self, bytes: &[u8]) {
        let [mut a, mut b, mut c, mut d] = self.lanes;
        for stripe in bytes.chunks_exact(STRIPE) {
            a = round(a, word(stripe, 0));
            b = round(b, word(stripe, 8));
            c = round(c, word(stripe, 16));
            d = round(d, word(stripe, 24));
        }
        self.lanes = [a, b, c, d];
    }

    /// That of everything so far.
    pub fn value(&self) -> u64 {
        let mut sum = match self.total {
            0..32 => P5,
            _ => {
                let turned = [1, 7, 12, 18].into_iter().zip(self.lanes);
                let sum = turned.map(|(by, lane)| lane.rotate_left(by));
                let sum = sum.fold(0u64, u64::wrapping_add);
                self.lanes
                    .into_iter()
                    .fold(sum, |sum, lane| (sum ^ round(0, lane)).wrapping_mul(P1).wrapping_add(P4))
            }
        };
        sum = sum.wrapping_add(self.total);
        let mut rest = &self.held[..(self.total % STRIPE as u64) as usize];
        while rest.len() >= 8 {
            sum = (sum ^ round(0, word(rest, 0))).rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
            rest = &rest[8..];
        }
        if let Some((four, behind)) = rest.split_first_chunk::<4>() {
            sum ^= u64::from(u32::from_le_bytes(*four)).wrapping_mul(P1);
            sum = sum.rotate_left(23).wrapping_mul(P2).wrapping_add(P3);
            rest = behind;
        }
        for byte in rest {
            sum = (sum ^ u64::from(*byte).wrapping_mul(P5)).rotate_left(11).wrapping_mul(P1);
        }
        sum = (sum ^ (sum >> 33)).wrapping_mul(P2);
        sum = (sum ^ (sum >> 29)).wrapping_mul(P3);
        sum ^ (sum >> 32)
    }
}

#[inline]
fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
}

#[inline]
fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> u64 {
        let mut sum = Sum::default();
        sum.update(bytes);
        sum.value()
    }

    /// What `xxhsum -H1` prints.
    #[test]
    fn it_is_what_others_compute() {
        assert_eq!(of(b""), 0xef46_db37_51d8_e999);
        assert_eq!(of(b"a"), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(of(b"abc"), 0x44bc_2cf5_ad77_0999);
        let long = b"Nobody inspects the spammish repetition";
        assert_eq!(of(long), 0xfbce_a83c_8a37_8bf1);
    }

    #[test]
    fn pieces_of_any_size_give_the_same() {
        let bytes: Vec<u8> = (0..1000u32).map(|n| (n * 7) as u8).collect();
        for size in [1, 3, 31, 32, 33, 100, 999] {
            let mut sum = Sum::default();
            bytes.chunks(size).for_each(|piece| sum.update(piece));
            assert_eq!(sum.value(), of(&bytes), "{size}");
        }
    }
}
