//! Memories of guests: what of a machine must stay the same for one to go on, and going on from one
//! at a start.
//!
//! A wish, written by `casemate snapshot revert`, asks the next start for it. The start forgets the
//! wish, checks that the memory fits, takes the volumes back to the snapshot, and lets the VMM read the
//! memory, all under its claim on the compartment: nobody can come between memory and volumes. What
//! fails up to the check changes nothing, and whatever fails is not tried again: the next start boots.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use casemate_config::Compartment;
use casemate_plan::process::Role;
use casemate_plan::{Plan, Resume};
use casemate_volume::memory::Record;
use casemate_volume::{KeyError, LockedVolume, Memories, SnapshotName, age};
use sha2::{Digest as _, Sha256};

use crate::prepare::{PrepareError, World};
use crate::volumes::OpenVolume;

/// Why a guest cannot go on from a kept memory.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// There is none with this snapshot.
    #[error("could not go on from the memory of {snapshot}: none was kept with it")]
    None {
        /// Of whom.
        compartment: String,
        /// The snapshot.
        snapshot: SnapshotName,
    },
    /// The machine is another.
    #[error("could not go on from the memory of {snapshot}: {what} is not what it was")]
    OtherMachine {
        /// Of whom.
        compartment: String,
        /// The snapshot.
        snapshot: SnapshotName,
        /// What differs, with what it was and is where that can be said.
        what: String,
    },
    /// Nothing there decrypts it.
    #[error("could not decrypt the memory")]
    Key(#[source] KeyError),
    /// A file the machine is made from cannot be read.
    #[error("could not read {path}")]
    Part {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl MemoryError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::None { compartment, .. } => {
                Some(format!("casemate snapshot list {compartment} shows those kept"))
            }
            Self::OtherMachine { compartment, snapshot, .. } => Some(format!(
                "undo that, or go back without the memory: casemate snapshot revert \
                 --without-memory {compartment} {snapshot}"
            )),
            Self::Key(KeyError::NoIdentity(file)) => {
                Some(format!("put the identity back that it was encrypted to: {}", file.display()))
            }
            Self::Key(_) => {
                Some("go back without the memory: snapshot revert --without-memory".into())
            }
            Self::Part { .. } => None,
        }
    }
}

/// A memory that a start goes on from.
#[derive(Debug)]
pub(crate) struct OpenMemory {
    /// The snapshot it was kept with.
    pub(crate) snapshot: SnapshotName,
    /// Its encrypted file.
    pub(crate) file: File,
}

/// Where memories are kept and what opens them, for a running compartment.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) memories: Memories,
    pub(crate) identity: PathBuf,
}

impl World {
    /// The kept memories of a compartment.
    ///
    /// # Errors
    /// There is no place for them.
    pub fn memories(&self, compartment: &Compartment) -> Result<Memories, PrepareError> {
        Ok(Memories::of(self.places.data()?, &compartment.name))
    }

    pub(crate) fn memory_place(&self, compartment: &Compartment) -> Result<Place, PrepareError> {
        Ok(Place { memories: self.memories(compartment)?, identity: self.identity()? })
    }

    /// The kept memory that the next start is asked to go on from.
    pub(crate) fn wanted_memory(
        &self,
        compartment: &Compartment,
    ) -> Result<Option<Resume>, PrepareError> {
        let memories = self.memories(compartment)?;
        let wanted = memories.wanted()?;
        Ok(wanted.map(|name| Resume { snapshot: name.to_string(), file: memories.file(&name) }))
    }
}

/// Goes back to a snapshot: checks that its memory fits `plan`, then takes the volumes back.
pub(crate) fn revert(
    place: &Place,
    plan: &Plan,
    resume: &Resume,
    volumes: &mut [OpenVolume],
) -> Result<OpenMemory, PrepareError> {
    let name: SnapshotName =
        resume.snapshot.parse().map_err(|_| PrepareError::Unreadable(resume.file.clone()))?;
    place.memories.forget_wish()?;
    let record = place.memories.find(&name)?;
    let locked: Vec<&LockedVolume> = volumes.iter().map(|volume| &volume.locked).collect();
    let record = record.filter(|record| record.is_whole_with(&name, &locked));
    let compartment = &plan.instance.name;
    let none = || MemoryError::None { compartment: compartment.clone(), snapshot: name.clone() };
    let record = record.ok_or_else(none)?;
    compare(compartment, &name, &record, &machine(plan)?)?;
    let file = place.memories.open(&name, &record)?;
    age::opens_by_itself(&place.identity).map_err(MemoryError::Key)?;
    for volume in volumes {
        if record.volumes.iter().any(|name| volume.locked.id().volume.as_str() == name) {
            volume.locked.revert(&name)?;
        }
    }
    Ok(OpenMemory { snapshot: name, file })
}

/// Tells what of a machine is not as it was when its memory was kept.
fn compare(
    compartment: &str,
    snapshot: &SnapshotName,
    record: &Record,
    now: &[(String, String)],
) -> Result<(), MemoryError> {
    let differs = |what: String| MemoryError::OtherMachine {
        compartment: compartment.to_owned(),
        snapshot: snapshot.clone(),
        what,
    };
    for (name, was) in &record.machine {
        match now.iter().find(|(other, _)| other == name) {
            Some((_, is)) if is == was => {}
            Some((_, is)) if is.len().max(was.len()) <= 32 => {
                return Err(differs(format!("{name} (it was {was}, and is {is})")));
            }
            _ => return Err(differs(name.clone())),
        }
    }
    if now.len() != record.machine.len() {
        return Err(differs("the machine".into()));
    }
    Ok(())
}

/// What must be the same for a memory to go on in the machine of `plan`.
pub(crate) fn machine(plan: &Plan) -> Result<Vec<(String, String)>, MemoryError> {
    let mut parts: Vec<(String, String)> = plan
        .machine
        .iter()
        .map(|(name, value)| match value.len() {
            0..=32 => (name.clone(), value.clone()),
            _ => (name.clone(), hexadecimal(&Sha256::digest(value))),
        })
        .collect();
    for (name, target) in [("the kernel", "/boot/kernel"), ("the initrd", "/boot/initrd")] {
        let files = &plan.process(Role::Vmm).jail.files;
        if let Some(file) = files.iter().find(|file| file.target == Path::new(target)) {
            parts.push((name.into(), digest(&file.source)?));
        }
    }
    if plan.acceleration == "kvm" {
        // Under emulation the guest sees the same processor everywhere.
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let lines = text.lines().take_while(|line| !line.is_empty());
        let lines = lines.filter(|line| ["model", "flags"].iter().any(|key| line.starts_with(key)));
        let lines: Vec<&str> = lines.collect();
        parts.push(("the processor".into(), hexadecimal(&Sha256::digest(lines.join("\n")))));
    }
    Ok(parts)
}

fn digest(path: &Path) -> Result<String, MemoryError> {
    let mut hash = Sha256::new();
    let hashed = File::open(path).and_then(|mut file| io::copy(&mut file, &mut hash));
    hashed.map_err(|source| MemoryError::Part { path: path.into(), source })?;
    Ok(hexadecimal(&hash.finalize()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_as_it_was_is_named() {
        let name: SnapshotName = "before".parse().expect("a name");
        let part = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let was = vec![part("QEMU", "7.2.19"), part("the machine", &"a".repeat(64))];
        let record = Record { taken: 1, bytes: 1, volumes: vec![], machine: was.clone() };
        assert!(compare("work", &name, &record, &was).is_ok());
        let said = |now: Vec<(String, String)>| {
            compare("work", &name, &record, &now).expect_err("differs").to_string()
        };
        let now = vec![part("QEMU", "8.2.0"), was[1].clone()];
        assert_eq!(
            said(now),
            "could not go on from the memory of before: QEMU (it was 7.2.19, and is 8.2.0) is not \
             what it was"
        );
        let now = vec![was[0].clone(), part("the machine", &"b".repeat(64))];
        assert!(said(now).contains("the machine is not what it was"));
        assert!(said(vec![was[0].clone()]).contains("the machine"));
        assert!(said([was.clone(), vec![part("the processor", "x")]].concat()).contains("machine"));
    }
}
