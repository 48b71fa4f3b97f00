//! What keeping a guest's memory, and going on from one, does on the disk and asks of QEMU and age.
//! When, is decided in [`crate::life`].
//!
//! ```text
//! keeping:   QEMU ──pipe──▶ age --encrypt ──▶ .new-… , which gets its name when all is on the disk
//! going on:  SNAPSHOT.age ──▶ age --decrypt ──socket──▶ QEMU
//! ```
//! Both programs of age are this process's children and die with it. No byte of the memory passes
//! through it, and none is ever on a disk unencrypted.

use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use casemate_link::orders::Order;
use casemate_plan::qmp;
use casemate_volume::memory::NewMemory;
use casemate_volume::{KeyError, LockedVolume, SnapshotName, ToolError, age};
use nix::fcntl::OFlag;

use super::Runtime;
use super::snapshot::Commands;
use crate::chain;
use crate::life::Event;
use crate::memory;

/// signal(7): what ends a program that writes to somebody who has gone.
const SIGPIPE: i32 = 13;

/// Bytes that the memory of a guest with so many MiB may take on the disk: a VMM that was taken over
/// may write anything. Beside the memory there are devices and firmware, and 28 bytes to each 64 KiB.
fn most(mib: u64) -> u64 {
    (mib + mib / 8 + 256) << 20
}

/// A machine's parts, once somebody has looked at them.
type Machine = Arc<OnceLock<Vec<(String, String)>>>;

/// A memory that is being kept.
#[derive(Debug)]
pub(super) struct Keeping {
    new: NewMemory,
    machine: Machine,
}

impl Runtime<'_> {
    /// Makes a place for a memory, and what tells QEMU of it.
    pub(super) fn make_memory(
        &mut self,
        number: u32,
        name: &SnapshotName,
    ) -> Result<(Keeping, Commands), String> {
        let place = self.assignment.memory_place.clone();
        let told = |error: &dyn std::error::Error| chain(error);
        // One that something killed had left without its volumes is none.
        let locked: Vec<&LockedVolume> =
            self.assignment.volumes.iter().map(|volume| &volume.locked).collect();
        if let Some(old) = place.memories.find(name).map_err(|error| told(&error))?
            && !old.is_whole_with(name, &locked)
        {
            place.memories.delete(name).map_err(|error| told(&error))?;
        }
        let new = place.memories.begin(name).map_err(|error| told(&error))?;
        let output = new.output().map_err(|error| told(&error))?;
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|error| told(&error))?;
        let most = most(self.assignment.request.compartment.memory.mib());
        let running = match age::encrypting(read, output, most, &place.identity) {
            Ok(running) => running,
            Err(KeyError::PassphraseNeeded(path)) => {
                return Err(format!(
                    "the age identity {} has a passphrase, so nobody can tell to whom to encrypt",
                    path.display()
                ));
            }
            Err(error) => return Err(told(&error)),
        };
        let machine = Machine::default();
        let (found, plan, events, launch) =
            (machine.clone(), self.assignment.plan.clone(), self.events.clone(), self.launches);
        let file = new.output().map_err(|error| told(&error))?;
        // Waiting and hashing take long; nobody listens when the life has ended meanwhile.
        std::thread::spawn(move || {
            let result = memory::machine(&plan)
                .map_err(|error| chain(&error))
                .map(|parts| drop(found.set(parts)))
                .and_then(|()| running.finish().map_err(|error| chain(&error)))
                .and_then(|()| file.sync_all().map_err(|error| error.to_string()));
            let _ = events.send((launch, Event::MemoryEncrypted { snapshot: number, result }));
        });
        let descriptors = std::iter::once(Some(write)).chain(std::iter::repeat_with(|| None));
        let commands = qmp::prepare_memory().into_iter().zip(descriptors).collect();
        Ok((Keeping { new, machine }, commands))
    }

    pub(super) fn write_memory(&mut self, number: u32) {
        let commands = qmp::write_memory().into_iter().map(|command| (command, None));
        self.ask(number, commands.collect());
    }

    /// QEMU need not write it any more.
    pub(super) fn forget_memory(&mut self) {
        for command in qmp::forget_memory() {
            // Each for itself: what was not begun cannot be given up.
            self.ask(0, Commands::from([(command, None)]));
        }
    }

    /// Gives a memory its name. The volumes' snapshots are prepared, and of this time.
    pub(super) fn keep_memory(&self, keeping: Keeping, taken: Option<u64>) -> Result<(), String> {
        let machine = keeping.machine.get().cloned().unwrap_or_default();
        let volumes = self.assignment.volumes.iter();
        let volumes = volumes.map(|volume| volume.locked.id().volume.to_string()).collect();
        let taken = taken.unwrap_or_else(|| casemate_host::clock::now_ns() / 1_000_000_000);
        keeping.new.keep(taken, volumes, machine).map_err(|error| chain(&error))
    }

    /// Lets the VMM read the memory that its guest goes on from.
    pub(super) fn read_memory(&mut self, vmm: OwnedFd) {
        let Some(memory) = self.assignment.memory.take() else { return };
        let identity = &self.assignment.memory_place.identity;
        tracing::info!("reading the memory of {}", memory.snapshot);
        let running = match age::decrypting(memory.file, vmm, identity) {
            Ok(running) => running,
            Err(error) => return self.tell(Event::MemoryRead(Err(chain(&error)))),
        };
        let (events, launch) = (self.events.clone(), self.launches);
        std::thread::spawn(move || {
            let result = match running.finish() {
                // The VMM has gone, and knows better why.
                Err(ToolError::Killed { signal: SIGPIPE, .. }) => Ok(()),
                other => other.map_err(|error| chain(&error)),
            };
            let _ = events.send((launch, Event::MemoryRead(result)));
        });
    }

    /// Tells the agent that it goes on from a kept memory.
    pub(super) fn resumed(&mut self) {
        let seed =
            casemate_host::random::seed().map(|seed| seed.to_vec()).unwrap_or_else(|error| {
                tracing::warn!("the guest gets no random seed: {error}");
                Vec::new()
            });
        let clock = casemate_host::clock::now_ns();
        self.order(Order::Resumed { clock, seed }, None);
    }
}
