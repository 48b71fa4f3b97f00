//! Any bytes as archives of a root file system: the first byte says whether they are layers of an
//! OCI image and how long the first one is, the rest are the archives.
//!
//! Nothing may panic, and what comes out is clean: it is read again without an error, and comes to
//! the same bytes.
#![no_main]

use casemate_image::normalize;
use libfuzzer_sys::fuzz_target;

/// Bytes of a block. The first archive is so many of them.
const BLOCK: usize = 512;

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    let layers = choice & 1 == 1;
    let first = (usize::from(choice >> 1) * BLOCK).min(bytes.len());
    let (first, second) = bytes.split_at(first);
    let archives = [first, second].into_iter().filter(|archive| !archive.is_empty());
    // A file without a name: nothing is left of it.
    let scratch = std::env::temp_dir();
    let mut clean = Vec::new();
    let Ok(digest) = normalize(archives, layers, &scratch, &mut clean) else { return };
    let mut again = Vec::new();
    let same = normalize([&clean[..]], false, &scratch, &mut again);
    assert_eq!(same.expect("what was written clean is taken"), digest);
    assert_eq!(again, clean);
});
