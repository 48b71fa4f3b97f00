//! `wp_security_context_v1`: connections that the compositor knows for those of a sandbox. It then hides
//! from them what no window needs, as the proxy does, and may show whose they are.
//!
//! For whoever connects to the compositor for a proxy, and never the proxy itself: a few messages on a
//! connection of their own, which carries no byte of a client.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::fault::Fault;
use crate::protocol::Kind;
use crate::socket::Endpoint;
use crate::wire::Arg;

/// The global, and the version of it that is known (wayland-protocols, staging).
const MANAGER: &str = "wp_security_context_manager_v1";
const VERSION: u32 = 1;

/// Who keeps the sandbox, as its name in the list of the protocol would be.
const ENGINE: &str = "org.casemate";

/// Globals that a compositor may tell; they have some fifty.
const MOST_EVENTS: usize = 4096;

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// It has not answered in time.
    #[error("the compositor does not answer")]
    Late,
    /// It has refused.
    #[error("the compositor refuses: {0}")]
    Refused(String),
    /// It has gone, or says what no compositor says.
    #[error("could not talk to the compositor")]
    Fault(#[from] Fault),
    /// A system call.
    #[error("could not talk to the compositor")]
    Io(#[from] io::Error),
}

/// Objects of the connection, in the order in which they are made.
const DISPLAY: u32 = 1;
const REGISTRY: u32 = 2;
const FIRST_SYNC: u32 = 3;
const CONTEXTS: u32 = 4;
const CONTEXT: u32 = 5;
const SECOND_SYNC: u32 = 6;

/// Has the compositor take who connects to `listener` for the sandbox of a compartment, by a connection
/// to it that is used for nothing else. What is returned keeps it: the compositor accepts nobody there
/// any more once that is closed. None when the compositor knows no sandboxes.
///
/// `listener` is closed here, so that it ends with the compositor.
///
/// # Errors
/// See [`SandboxError`].
pub fn enter(
    connection: OwnedFd,
    listener: OwnedFd,
    compartment: &str,
    patience: Duration,
) -> Result<Option<OwnedFd>, SandboxError> {
    let until = Instant::now() + patience;
    let mut end = Endpoint::new(connection);
    // wl_display.get_registry, wl_display.sync
    end.put(DISPLAY, 1, vec![Arg::New(REGISTRY)])?;
    end.put(DISPLAY, 0, vec![Arg::New(FIRST_SYNC)])?;
    let Some(name) = hear(&mut end, FIRST_SYNC, until)? else { return Ok(None) };
    let (closes, keeps) = pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from)?;
    let text = |text: &str| vec![Arg::String(Some(text.to_owned()))];
    let (interface, version) = (Arg::String(Some(MANAGER.into())), Arg::Uint(VERSION));
    // wl_registry.bind
    end.put(REGISTRY, 0, vec![Arg::Uint(name), interface, version, Arg::New(CONTEXTS)])?;
    // create_listener, set_sandbox_engine, set_app_id, set_instance_id, commit
    let descriptors = [Arg::New(CONTEXT), Arg::Fd(listener), Arg::Fd(closes)];
    end.put(CONTEXTS, 1, descriptors.into())?;
    end.put(CONTEXT, 1, text(ENGINE))?;
    end.put(CONTEXT, 2, text(&format!("casemate.{compartment}")))?;
    end.put(CONTEXT, 3, text(compartment))?;
    end.put(CONTEXT, 4, Vec::new())?;
    end.put(DISPLAY, 0, vec![Arg::New(SECOND_SYNC)])?;
    hear(&mut end, SECOND_SYNC, until)?;
    Ok(Some(keeps))
}

/// Sends what waits, and hears events up to the end of this callback. Returns the name of the global.
fn hear(end: &mut Endpoint, callback: u32, until: Instant) -> Result<Option<u32>, SandboxError> {
    let mut found = None;
    let mut heard = 0;
    loop {
        let mut open = end.flush()?;
        while let Some(header) = end.next()? {
            heard += 1;
            if heard > MOST_EVENTS {
                return Err(SandboxError::Late);
            }
            let kinds: &[Kind] = match (header.object, header.opcode) {
                (DISPLAY, 0) => &[Kind::AnyObject, Kind::Uint, Kind::String],
                (REGISTRY, 0) => &[Kind::Uint, Kind::String, Kind::Uint],
                // wl_display.delete_id, wl_registry.global_remove, wl_callback.done
                _ => &[Kind::Uint],
            };
            let arguments = end.take(header, kinds)?;
            match (header.object, &arguments[..]) {
                (DISPLAY, [_, _, Arg::String(why)]) => {
                    let why = why.clone().unwrap_or_default();
                    return Err(SandboxError::Refused(why));
                }
                (REGISTRY, [Arg::Uint(name), Arg::String(Some(interface)), _])
                    if interface == MANAGER =>
                {
                    found = Some(*name);
                }
                (object, _) if object == callback => return Ok(found),
                _ => {}
            }
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(SandboxError::Late);
        }
        let out = if end.waiting() > 0 { PollFlags::OUT } else { PollFlags::empty() };
        let timeout =
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut fds = [PollFd::new(&*end, PollFlags::IN | out)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        open &= end.read()?;
        if !open && end.next()?.is_none() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}
