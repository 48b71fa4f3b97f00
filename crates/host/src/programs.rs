//! Whether casemate's own programs are all there, and linked as they have to be; and the libraries
//! it brings for guests.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use casemate_config::Allocator;
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
    /// The library of an allocator is not there, or not readable.
    #[error("could not read {}, which `guest.allocator` asks for", .path.display())]
    Allocator {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Largest library of an allocator, in bytes: it travels in one message with everything else. Ours
/// have 50 KiB.
const LONGEST_LIBRARY: u64 = 256 * 1024;

/// The library that a compartment's `guest.allocator` asks for; empty when it asks for none.
///
/// # Errors
/// It is asked for and was not built.
pub fn allocator(programs: &OwnPrograms, wanted: Allocator) -> Result<Vec<u8>, ProgramsError> {
    if wanted == Allocator::Default {
        return Ok(Vec::new());
    }
    let path = programs.agent.with_file_name(format!("casemate-malloc-{wanted}.so"));
    let mut library = Vec::new();
    let read = File::open(&path)
        .and_then(|file| file.take(LONGEST_LIBRARY + 1).read_to_end(&mut library))
        .and_then(|_| match library {
            ref bytes if bytes.len() as u64 > LONGEST_LIBRARY => {
                Err(io::ErrorKind::FileTooLarge.into())
            }
            ref bytes if !bytes.starts_with(b"\x7fELF") => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "it is no library"))
            }
            _ => Ok(()),
        });
    match read {
        Ok(()) => Ok(library),
        Err(source) => Err(ProgramsError::Allocator { path, source }),
    }
}

/// Checks the programs that run where there are no libraries: the agent in the guest's initrd, the
/// link process in a jail without files, and the jail itself, which is started as early.
///
/// # Errors
/// Names the first that is missing or not static.
pub fn check(programs: &OwnPrograms) -> Result<(), ProgramsError> {
    check_each(&[&programs.agent, &programs.link, &programs.jail])
}

/// Checks the program that compartments with `host-networking` need beside them.
///
/// # Errors
/// It is missing or not static.
pub fn check_network(programs: &OwnPrograms) -> Result<(), ProgramsError> {
    check_each(&[&programs.netns])
}

/// Checks the program that networks between compartments need.
///
/// # Errors
/// It is missing or not static.
pub fn check_switch(programs: &OwnPrograms) -> Result<(), ProgramsError> {
    check_each(&[&programs.switch])
}

fn check_each(paths: &[&PathBuf]) -> Result<(), ProgramsError> {
    for &path in paths {
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
    fn library_of_an_allocator_is_missed_only_when_it_is_asked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = |name: &str| folder.path().join(name);
        let programs = OwnPrograms {
            supervisor: program("casemate-supervisor"),
            link: program("casemate-link"),
            jail: program("casemate-jail"),
            agent: program("casemate-agent"),
            netns: program("casemate-netns"),
            switch: program("casemate-switch"),
            wayland: program("casemate-wayland"),
        };
        assert!(allocator(&programs, Allocator::Default).expect("not needed").is_empty());
        let missing = allocator(&programs, Allocator::HardenedLight).expect_err("is not there");
        assert!(missing.to_string().contains("casemate-malloc-hardened-light.so"), "{missing}");
        let library = program("casemate-malloc-hardened.so");
        std::fs::write(&library, "text").expect("written");
        assert!(allocator(&programs, Allocator::Hardened).is_err());
        std::fs::write(&library, b"\x7fELF, the rest").expect("written");
        assert!(allocator(&programs, Allocator::Hardened).expect("read").starts_with(b"\x7fELF"));
    }

    #[test]
    fn a_missing_program_is_named() {
        let nowhere = PathBuf::from("/nonexistent/casemate-agent");
        let programs = OwnPrograms {
            supervisor: nowhere.clone(),
            link: nowhere.clone(),
            jail: nowhere.clone(),
            agent: nowhere.clone(),
            netns: nowhere.clone(),
            switch: nowhere.clone(),
            wayland: nowhere.clone(),
        };
        let error = check(&programs).expect_err("missing");
        assert!(error.to_string().contains("/nonexistent/casemate-agent"));
    }
}
