//! Carrying out those steps of a plan that are effects on the host, and undoing them.
//!
//! The plan's [`Step`] is the data. A [`Host`] applies one and undoes one; [`Applied`] remembers
//! what is to be undone, in reverse. Building and checking images and waiting for the guest are not
//! effects of the host: the supervisor does them itself, between the others.

use casemate_plan::Step;

use crate::launch::LaunchError;
use crate::network::NetworkError;
use crate::rundir::RunDirError;
use crate::switch::SwitchError;

/// What steps have their effect on: the machine ([`crate::linux::LinuxHost`]) or, in tests, nothing
/// ([`crate::fake::FakeHost`]).
pub trait Host {
    /// Carries out one step. On an error nothing of it is left. A step that is no effect on the
    /// host ([`is_effect`]) is none.
    ///
    /// # Errors
    /// See [`StepError`].
    fn apply(&mut self, step: &Step) -> Result<(), StepError>;

    /// Undoes one step that was applied.
    ///
    /// # Errors
    /// See [`StepError`]; as much as possible is undone all the same.
    fn undo(&mut self, step: &Step) -> Result<(), StepError>;
}

/// Why a step could not be carried out or undone.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The run directory.
    #[error(transparent)]
    RunDirectory(#[from] RunDirError),
    /// A process.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The sockets between the processes.
    #[error("could not connect the processes with each other")]
    Channels(#[source] std::io::Error),
    /// A process that was started could not be ended.
    #[error("could not end {process}")]
    End {
        /// Which, in words.
        process: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The network of the link.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A port of a network.
    #[error(transparent)]
    Switch(#[from] SwitchError),
    /// The fake host was told to fail here.
    #[error("could not {0}: failed on purpose")]
    OnPurpose(String),
}

/// The steps that were applied, to be undone in reverse.
#[derive(Debug, Default)]
pub struct Applied(Vec<Step>);

impl Applied {
    /// Applies a step and remembers it.
    ///
    /// # Errors
    /// That of the step. The ones before it stay applied: [`Applied::undo`] them.
    pub fn apply(&mut self, host: &mut impl Host, step: &Step) -> Result<(), StepError> {
        host.apply(step)?;
        self.0.push(step.clone());
        Ok(())
    }

    /// Undoes everything, the last first, and returns what went wrong on the way.
    pub fn undo(self, host: &mut impl Host) -> Vec<StepError> {
        self.0.iter().rev().filter_map(|step| host.undo(step).err()).collect()
    }
}

/// Whether a step is an effect on the host.
pub fn is_effect(step: &Step) -> bool {
    match step {
        Step::RunDirectory { .. }
        | Step::Channels
        | Step::Start { .. }
        | Step::AwaitNetwork { .. }
        | Step::Join { .. }
        | Step::AskHelper { .. } => true,
        Step::BuildImage { .. }
        | Step::CheckImage { .. }
        | Step::OpenVolume { .. }
        | Step::Revert { .. }
        | Step::StartRouter { .. }
        | Step::AwaitGuest { .. } => false,
    }
}
