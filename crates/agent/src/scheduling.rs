//! How the kernel schedules the agent among the commands it serves.

use nix::libc;

/// Lets the agent be scheduled for throughput (SCHED_BATCH), its children as usual.
///
/// The port interrupts for every 4 KiB. An agent that each time takes the processor from the
/// command it feeds spends more on switching than on copying: without hardware virtualization a
/// switch costs as much as 30 KiB of data. This way it runs when the command has nothing more to
/// do, or after a few milliseconds, and then finds more to do at once; data moves a fifth to a
/// third cheaper. Without success everything works as well, only slower.
pub(crate) fn prefer_batches() {
    /// linux/sched.h: children begin as SCHED_OTHER.
    const SCHED_RESET_ON_FORK: libc::c_int = 0x4000_0000;
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the structure outlives the call.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH | SCHED_RESET_ON_FORK, &parameters) };
}
