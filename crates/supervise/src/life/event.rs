//! What a life is told, and what it has its runtime do. Their order is the life's; here is only what
//! they say.

use std::path::PathBuf;

use casemate_link::orders::{Order, Report};
use casemate_plan::process::Role;
use casemate_wire::{Boot, OpenSession};

use super::WindowTrouble;
use crate::control::{Failure, Progress, Request};

/// Number of a client's request, given by the runtime.
pub type RequestId = u64;

/// What the life is told.
#[derive(Debug)]
pub enum Event {
    /// All processes were started.
    Launched,
    /// A client asks for something.
    Request(RequestId, Request),
    /// A client's connection is closed.
    RequestGone(RequestId),
    /// The link process reports.
    Report(Report),
    /// QMP: the guest was reset or powered off.
    GuestStopped {
        /// It did not power off but was reset, as after a kernel panic.
        reset: bool,
    },
    /// QMP: the guest opened (or closed) the agent's port.
    PortOpened(bool),
    /// A process has ended; how, in words.
    Exited(Role, String),
    /// SIGTERM or SIGINT.
    Terminate,
    /// The time of [`Life::deadline`](super::Life::deadline) has come.
    Deadline,
    /// What the VMM was asked to do for a snapshot is done, or it refused.
    MachineDid {
        /// The snapshot's number.
        snapshot: u32,
        /// Why not.
        result: Result<(), String>,
    },
    /// QMP: the guest's memory is written, or (false) is not; or, of a guest that is to go on from
    /// one, it is read.
    MemoryWritten(bool),
    /// All that was written of the memory is encrypted and on the disk, or cannot be.
    MemoryEncrypted {
        /// The snapshot's number.
        snapshot: u32,
        /// Why not.
        result: Result<(), String>,
    },
    /// The memory that the guest goes on from was decrypted and read, or could not be.
    MemoryRead(Result<(), String>),
    /// The answer to [`Effect::Decide`].
    CallDecided {
        /// The guest's number of the call.
        call: u32,
        /// Its service is there to be connected; or the exit code of the caller and why.
        result: Result<(), (u8, String)>,
    },
    /// [`Effect::OpenWindows`] is done, or could not be.
    WindowsOpened {
        /// The guest's number of the connection.
        window: u32,
        /// Why not.
        result: Result<(), WindowTrouble>,
    },
    /// [`Effect::KeepSnapshot`] is done, or could not be.
    SnapshotKept {
        /// The snapshot's number.
        snapshot: u32,
        /// Why not.
        result: Result<(), String>,
    },
}

/// What the runtime shall do.
#[derive(Debug)]
pub enum Effect {
    /// Send the link process an order, with the descriptor that came with a request.
    Order(Order, Option<RequestId>),
    /// Fill in clock and seed, and send the agent its orders.
    SendBoot(Box<Boot>),
    /// Send the link an order for a detached session, with a new log file for it.
    OpenDetached(u32, Box<OpenSession>),
    /// Ask the VMM to stop (false) or continue (true) executing guest code.
    Execute(bool),
    /// Kill every process.
    Kill,
    /// Tell a client something and wait for more.
    Progress(RequestId, Progress),
    /// Tell a client the last thing.
    Reply(RequestId, Result<Progress, Failure>),
    /// Run a health check: the same, always with the same log.
    OpenCheck(u32, Box<OpenSession>),
    /// Everything of the last launch is gone: undo what is left of it.
    ClearUp,
    /// Start all processes again.
    Relaunch,
    /// Start again under TCG: this KVM never brought a guest up.
    RelaunchWithoutKvm,
    /// Write a line to the log; true for a warning.
    Log(bool, String),
    /// Make a new layer for each volume and the VMM know it; [`Event::MachineDid`] follows.
    PrepareSnapshot {
        /// The snapshot's number.
        number: u32,
        /// Its name, as the client gave it.
        name: String,
        /// The memory shall be kept too: make a place for it.
        memory: bool,
    },
    /// Start a broker for a call of the guest; [`Event::CallDecided`] follows.
    Decide {
        /// The guest's number of the call.
        call: u32,
        /// As the caller says it.
        target: String,
        /// As the caller says it, with its argument.
        service: String,
    },
    /// Connect a call with what its broker has for it.
    ConnectCall {
        /// The stream it gets.
        stream: u32,
        /// The guest's number of the call.
        call: u32,
    },
    /// End the broker of a call that nobody waits for.
    ForgetCall {
        /// The guest's number of the call.
        call: u32,
    },
    /// Stop the guest and have the VMM write its memory; [`Event::MachineDid`] follows, then
    /// [`Event::MemoryWritten`] and [`Event::MemoryEncrypted`].
    WriteMemory {
        /// The snapshot's number.
        number: u32,
    },
    /// Fill in clock and seed, and tell the agent that the guest goes on from a kept memory.
    Resumed,
    /// The memory is in its place: the guest may execute code when the image is known to be good.
    GoOn,
    /// Let the VMM go over to the new layers; [`Event::MachineDid`] follows.
    SwitchLayers {
        /// The snapshot's number.
        number: u32,
    },
    /// Write down that the VMM went over; always the last effect, and [`Event::SnapshotKept`]
    /// follows.
    KeepSnapshot {
        /// The snapshot's number.
        number: u32,
    },
    /// A client has the compositor whose socket is this.
    UseDisplay(PathBuf),
    /// Have everything running that shows windows; [`Event::WindowsOpened`] follows.
    OpenWindows {
        /// The guest's number of the connection.
        window: u32,
    },
    /// Show them.
    ShowWindows {
        /// The stream they get.
        stream: u32,
        /// The guest's number of the connection.
        window: u32,
    },
    /// Remove the new layers, to which nothing went over.
    DropSnapshot {
        /// The snapshot's number.
        number: u32,
    },
}
