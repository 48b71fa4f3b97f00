//! dm-verity: the hash tree that lets a kernel check each block of a file system when it reads it.
//!
//! The tree stands behind the data in the same file, as `veritysetup format FILE FILE
//! --hash-offset=SIZE --salt=-` would put it (its superblock included, so that `veritysetup verify`
//! can be asked for a second opinion): 4 KiB blocks, SHA-256, no salt. A salt would only hide that
//! two images have a block in common.
//!
//! ```text
//! data … │ superblock │ top level (1 block) │ next level │ … │ digests of the data blocks
//!        └ hash offset └ hash start
//! ```
//! Format: the kernel's `Documentation/admin-guide/device-mapper/verity.rst`, and the superblock
//! of cryptsetup's `lib/verity/verity.c`.

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

use crate::Digest;

/// Bytes in a block, of data and of digests alike.
pub(crate) const BLOCK: usize = 4096;
/// Bytes in a digest.
const DIGEST: usize = 32;

/// The digests of a file's blocks, level by level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tree {
    /// Number of data blocks.
    pub(crate) data_blocks: u64,
    /// Digest of the top level's only block.
    pub(crate) root: Digest,
    /// From the digests of the data up to the top; whole blocks.
    levels: Vec<Vec<u8>>,
}

impl Tree {
    /// Hashes what remains in `data`. A last block that is not whole counts as filled with zeros.
    ///
    /// # Errors
    /// Whatever reading reports; [`io::ErrorKind::InvalidInput`] when there is nothing.
    pub(crate) fn of(data: impl Read) -> io::Result<Self> {
        let (data_blocks, lowest) = digests(data)?;
        if data_blocks == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no data to hash"));
        }
        // A single block needs no tree: its digest is the root.
        if let ([digest, ..], 1) = (lowest.as_chunks::<DIGEST>().0, data_blocks) {
            return Ok(Self { data_blocks, root: Digest::from(*digest), levels: Vec::new() });
        }
        let mut levels = vec![lowest];
        while let Some(level) = levels.last().filter(|level| level.len() > BLOCK) {
            let (_, next) = digests(level.as_slice())?;
            levels.push(next);
        }
        let top = levels.last().map_or(&[][..], Vec::as_slice);
        Ok(Self { data_blocks, root: Digest::of(top), levels })
    }

    /// Bytes that [`Tree::write`] writes.
    pub(crate) fn len(&self) -> u64 {
        (BLOCK + self.levels.iter().map(Vec::len).sum::<usize>()) as u64
    }

    /// Writes the superblock and the levels, the top first.
    ///
    /// # Errors
    /// Whatever writing reports.
    pub(crate) fn write(&self, mut out: impl Write) -> io::Result<()> {
        let mut block = vec![0; BLOCK];
        let mut at = 0;
        let mut put = |bytes: &[u8], room: usize| {
            block[at..at + bytes.len()].copy_from_slice(bytes);
            at += room;
        };
        put(b"verity", 8);
        put(&1_u32.to_le_bytes(), 4); // version of the superblock
        put(&1_u32.to_le_bytes(), 4); // format of the tree
        put(&[], 16); // UUID
        put(b"sha256", 32);
        put(&(BLOCK as u32).to_le_bytes(), 4); // data
        put(&(BLOCK as u32).to_le_bytes(), 4); // digests
        put(&self.data_blocks.to_le_bytes(), 8);
        out.write_all(&block)?;
        self.levels.iter().rev().try_for_each(|level| out.write_all(level))
    }
}

/// The number of blocks in `data`, and their digests, filled up to whole blocks.
fn digests(mut data: impl Read) -> io::Result<(u64, Vec<u8>)> {
    let mut block = [0; BLOCK];
    let mut digests = Vec::new();
    let mut blocks = 0;
    loop {
        let count = fill(&mut data, &mut block)?;
        if count == 0 {
            break;
        }
        block[count..].fill(0);
        digests.extend_from_slice(&Sha256::digest(block));
        blocks += 1;
    }
    debug_assert_eq!(digests.len() as u64, blocks * DIGEST as u64);
    digests.resize(digests.len().next_multiple_of(BLOCK), 0);
    Ok((blocks, digests))
}

/// Reads until `block` is full or nothing is left.
fn fill(data: &mut impl Read, block: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < block.len() {
        match data.read(&mut block[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn data(blocks: usize) -> Vec<u8> {
        (0..blocks * BLOCK).map(|index| (index / 7 + index / BLOCK) as u8).collect()
    }

    #[test]
    fn one_block_has_no_tree() {
        let tree = Tree::of(data(1).as_slice()).unwrap();
        assert_eq!((tree.data_blocks, tree.root), (1, Digest::of(&data(1))));
        assert_eq!(tree.len(), BLOCK as u64);
    }

    #[test]
    fn nothing_has_no_tree_and_a_part_of_a_block_is_filled_up() {
        assert!(Tree::of(&[][..]).is_err());
        let mut filled = vec![7; 100];
        let part = Tree::of(filled.as_slice()).unwrap();
        filled.resize(BLOCK, 0);
        assert_eq!(part, Tree::of(filled.as_slice()).unwrap());
    }

    #[test]
    fn every_bit_counts() {
        let good = data(130);
        let root = Tree::of(good.as_slice()).unwrap().root;
        for at in [0, BLOCK - 1, 64 * BLOCK + 17, 130 * BLOCK - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_ne!(Tree::of(bad.as_slice()).unwrap().root, root);
        }
    }

    /// 1, 128 and 129 blocks: no level, one full level, two levels; 16 385: three.
    #[test]
    fn veritysetup_agrees() {
        let found = Command::new("veritysetup").arg("--version").output();
        if found.is_err() {
            println!("skipped: veritysetup_agrees: veritysetup is not installed");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        for blocks in [1, 128, 129, 16_385] {
            let mut file = data(blocks);
            let tree = Tree::of(file.as_slice()).unwrap();
            tree.write(&mut file).unwrap();
            let path = folder.path().join("image");
            std::fs::write(&path, &file).unwrap();
            assert_eq!(file.len() as u64, (blocks * BLOCK) as u64 + tree.len());
            let verify = |root: &str| {
                Command::new("veritysetup")
                    .arg("verify")
                    .args([&path, &path])
                    .arg(root)
                    .arg(format!("--hash-offset={}", blocks * BLOCK))
                    .output()
                    .unwrap()
            };
            let done = verify(&tree.root.to_string());
            assert!(done.status.success(), "{blocks}: {done:?}");
            assert!(!verify(&"0".repeat(64)).status.success());
        }
    }
}
