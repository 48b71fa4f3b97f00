//! Whether casemate's own programs are all there, and linked as they have to be.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use casemate_plan::facts::OwnPrograms;

/// How much of a program is read: the ELF header and its program headers, which linkers put first.
const HEAD: u64 = 4096;

/// Type of the program header that names a dynamic linker, elf(5).
const PT_INTERP: u32 = 3;

/// Why the programs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProgramsError {
    /// One is not there.
    #[error("could not read casemate's own program {}", .path.display())]
    Missing {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// One needs libraries, and has none where it runs.
    #[error("could not use {}: it is not linked statically", .0.display())]
    NotStatic(PathBuf),
}

/// Checks the programs that run where there are no libraries: the agent in the guest's initrd, the
/// link process in a jail without files, and the jail itself, which is started as early.
///
/// # Errors
/// Names the first that is missing or not static.
pub fn check(programs: &OwnPrograms) -> Result<(), ProgramsError> {
    for path in [&programs.agent, &programs.link, &programs.jail] {
        let head =
            head(path).map_err(|source| ProgramsError::Missing { path: path.clone(), source })?;
        if has_interpreter(&head) {
            return Err(ProgramsError::NotStatic(path.clone()));
        }
    }
    Ok(())
}

fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(HEAD).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether a little-endian 64-bit ELF file names a dynamic linker. What is no such file does not.
fn has_interpreter(head: &[u8]) -> bool {
    let number = |at: usize, length: usize| -> Option<usize> {
        let mut bytes = [0; 8];
        bytes[..length].copy_from_slice(head.get(at..at.checked_add(length)?)?);
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    };
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return false;
    }
    let (Some(offset), Some(size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2))
    else {
        return false;
    };
    (0..count).any(|index| {
        let at = index.checked_mul(size).and_then(|at| at.checked_add(offset));
        at.and_then(|at| number(at, 4)) == Some(PT_INTERP as usize)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_is_not_static_and_a_text_is_no_program() {
        let own = head(&std::env::current_exe().expect("a path")).expect("readable");
        assert_eq!(has_interpreter(&own), !cfg!(target_feature = "crt-static"));
        assert!(!has_interpreter(b"#!/bin/sh"));
        assert!(!has_interpreter(b"\x7fELF\x02\x01"));
    }

    #[test]
    fn a_missing_program_is_named() {
        let nowhere = PathBuf::from("/nonexistent/casemate-agent");
        let programs = OwnPrograms {
            supervisor: nowhere.clone(),
            link: nowhere.clone(),
            jail: nowhere.clone(),
            agent: nowhere.clone(),
        };
        let error = check(&programs).expect_err("missing");
        assert!(error.to_string().contains("/nonexistent/casemate-agent"));
    }
}
