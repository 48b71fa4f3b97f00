//! What a snapshot of the running compartment's volumes does on the disk and asks of QEMU. When,
//! is decided in [`crate::life`].

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;

use casemate_plan::qmp::{self, NewLayer};
use casemate_volume::{LockedVolume, SnapshotName};
use nix::libc;
use serde_json::Value;

use super::Runtime;
use super::memory::Keeping;
use crate::audit;
use crate::chain;
use crate::life::Event;
use crate::monitor::{Ask, Command};

/// Numbers of QEMU's sets of descriptors for new layers; those of its arguments are numbers of
/// descriptors, which are smaller.
const FIRST_SET: u32 = 100_000;

/// The layers of a snapshot that is being taken, one for each volume.
#[derive(Debug)]
pub(super) struct Shot {
    number: u32,
    name: String,
    layers: Vec<NewLayer>,
    memory: Option<Keeping>,
}

pub(super) type Commands = VecDeque<(Value, Option<OwnedFd>)>;

impl Runtime<'_> {
    /// The nodes the volumes' disks write to at first.
    pub(super) fn first_nodes(&self) -> Vec<String> {
        self.assignment.plan.guest.volumes.iter().map(|volume| volume.serial.clone()).collect()
    }

    pub(super) fn prepare_snapshot(&mut self, number: u32, name: &str, memory: bool) {
        match self.make_layers(number, name, memory) {
            Ok(commands) => self.ask(number, commands),
            Err(reason) => {
                let result = Err(reason);
                // Not `tell`: the effects of this round come first.
                let event = Event::MachineDid { snapshot: number, result };
                let _ = self.events.send((self.launches, event));
            }
        }
    }

    /// Makes the layers and what tells QEMU of them; nothing is left when that fails.
    fn make_layers(&mut self, number: u32, name: &str, memory: bool) -> Result<Commands, String> {
        let name: SnapshotName = name.parse().map_err(|error| chain(&error))?;
        let (memory, written) = match memory {
            true => self.make_memory(number, &name).map(|(keeping, told)| (Some(keeping), told))?,
            false => (None, Commands::new()),
        };
        let paths = casemate_volume::prepare(&mut self.locked(), &name, false)
            .map_err(|error| chain(&error))?;
        let (mut commands, mut layers) = (Commands::new(), Vec::new());
        for (path, below) in paths.iter().zip(&self.nodes) {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path);
            let file = match file {
                Ok(file) => OwnedFd::from(file),
                Err(error) => {
                    self.drop_prepared();
                    return Err(format!("could not open {}: {error}", path.display()));
                }
            };
            self.layers_made += 1;
            let disk = below.split('-').next().unwrap_or(below);
            let layer = NewLayer {
                below: below.clone(),
                node: format!("{disk}-{}", self.layers_made),
                set: FIRST_SET + self.layers_made,
            };
            let descriptors = std::iter::once(Some(file)).chain(std::iter::repeat_with(|| None));
            commands.extend(layer.add().into_iter().zip(descriptors));
            layers.push(layer);
        }
        commands.extend(written);
        self.shot = Some(Shot { number, name: name.to_string(), layers, memory });
        Ok(commands)
    }

    pub(super) fn switch_layers(&mut self, number: u32) {
        if let Some(shot) = &self.shot {
            let command = qmp::switch(&shot.layers);
            self.ask(number, Commands::from([(command, None)]));
        }
    }

    /// QEMU went over to the new layers.
    pub(super) fn keep_snapshot(&mut self, number: u32) {
        let Some(shot) = self.shot.take_if(|shot| shot.number == number) else { return };
        self.nodes = shot.layers.into_iter().map(|layer| layer.node).collect();
        let taken = casemate_volume::prepared_at(&self.locked());
        // Before the volumes: a memory without them is none, and they with it are one.
        let with_memory = shot.memory.is_some();
        let memory = shot.memory.map_or(Ok(()), |keeping| self.keep_memory(keeping, taken));
        let result =
            casemate_volume::keep_prepared(&mut self.locked()).map_err(|error| chain(&error));
        let result = memory.and(result);
        if result.is_ok() {
            let event = audit::snapshot(self.name(), &shot.name, with_memory);
            self.assignment.audit.write(&event);
        }
        self.tell(Event::SnapshotKept { snapshot: number, result });
    }

    /// QEMU did not go over to the new layers, and was not told to.
    pub(super) fn drop_snapshot(&mut self, number: u32) {
        // Without one there is nothing of it; what is prepared then is of one that was not kept.
        let Some(shot) = self.shot.take_if(|shot| shot.number == number) else { return };
        for command in shot.layers.iter().flat_map(NewLayer::remove) {
            // Each for itself: what was not added cannot be removed.
            self.ask(0, Commands::from([(command, None)]));
        }
        if shot.memory.is_some() {
            self.forget_memory();
        }
        self.drop_prepared();
    }

    fn drop_prepared(&mut self) {
        if let Err(error) = casemate_volume::drop_prepared(&mut self.locked()) {
            tracing::warn!("could not remove the layers of a snapshot: {}", chain(&error));
        }
    }

    /// Decides what became of a snapshot that was not finished. The VMM has ended.
    pub(super) fn settle_volumes(&mut self) {
        for volume in self.locked() {
            if let Err(error) = volume.settle() {
                // Whoever takes the volume next tries again.
                tracing::warn!("could not finish a snapshot: {}", chain(&error));
            }
        }
    }

    fn locked(&mut self) -> Vec<&mut LockedVolume> {
        self.assignment.volumes.iter_mut().map(|volume| &mut volume.locked).collect()
    }

    pub(super) fn ask(&self, snapshot: u32, commands: Commands) {
        self.execute(Command::Ask(Ask { snapshot, commands }));
    }
}
