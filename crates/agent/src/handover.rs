//! Giving process 1 to the image's own init: the agent forks, the parent becomes `/sbin/init`,
//! the child goes on with the link, the connection and all it knows.
//!
//! The child's command line begins with `@`, which is how systemd is told that a process of the
//! initrd serves the system and is to be left alone at switches and at shutdown.

use std::ffi::{CStr, CString};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::{ForkResult, execv, fork};

/// What the child is called in lists of processes.
const NAME: &CStr = c"@casemate-agent";

/// Candidates for the image's init, in the kernel's own order.
const INITS: [&CStr; 3] = [c"/sbin/init", c"/usr/lib/systemd/systemd", c"/bin/init"];

/// Where systemd takes orders (sd_bus_open_system_machine's way around the message bus).
const SOCKET: &str = "/run/systemd/private";

/// How long an init may take to come up; systemd needs 1 to 2 s without hardware virtualization.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether the image has an init at all.
pub(crate) fn is_possible() -> bool {
    INITS.iter().any(|init| nix::unistd::access(*init, nix::unistd::AccessFlags::X_OK).is_ok())
}

/// Hands process 1 over. Returns in the child, which is the agent from now on.
///
/// # Errors
/// When there can be no child. The agent then is process 1 still.
pub(crate) fn hand_over() -> io::Result<()> {
    // SAFETY: the process has one thread.
    match unsafe { fork() }? {
        ForkResult::Child => {
            rename();
            Ok(())
        }
        ForkResult::Parent { .. } => become_init(),
    }
}

/// Waits until systemd takes orders, so that the first session can give it some. False when it does
/// not within a bounded time, or the init is another; sessions can run all the same.
pub(crate) fn await_init() -> bool {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if Path::new(SOCKET).exists() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// Does not return: without an init the kernel stops, and says so on the console.
fn become_init() -> ! {
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    // SAFETY: restores the default that Rust's runtime changed.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    for init in INITS {
        let _ = execv(init, &[init]);
    }
    std::process::exit(1)
}

/// Lets the command line of this process be [`NAME`]. Without success systemd may end the agent
/// when the guest shuts down, a moment earlier than need be.
fn rename() {
    let name: &'static CStr = Box::leak(CString::from(NAME).into_boxed_c_str());
    let begin = name.as_ptr() as usize;
    let end = begin + name.to_bytes_with_nul().len();
    // SAFETY: the memory is leaked, hence valid for as long as the process lives.
    unsafe {
        // Begin must not be behind end in between: the new one lies on the heap, below the stack
        // where the old one is.
        libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_ARG_START, begin, 0, 0);
        libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_ARG_END, end, 0, 0);
        libc::prctl(libc::PR_SET_NAME, NAME.as_ptr(), 0, 0, 0);
    }
}
