//! What the supervisor says and is told: the order on one descriptor, messages on another.

use std::fs::File;
use std::io::{IoSlice, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use casemate_plan::network::{FromKeeper, LONGEST_MESSAGE, Namespace, ToKeeper};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{ControlMessage, MsgFlags, recv, send, sendmsg};

use casemate_netns::error::{KeeperError, While};

/// The numbers of the plan (`casemate_plan::network`).
const CHANNEL: RawFd = 3;
const ORDER: RawFd = 4;

/// The longest order read, in bytes: some thousand rules.
const LONGEST: u64 = 1 << 20;

/// The socket to the supervisor.
pub(crate) fn channel() -> Result<OwnedFd, KeeperError> {
    take(CHANNEL)
}

/// Reads the order.
pub(crate) fn read() -> Result<Namespace, KeeperError> {
    let file = File::from(take(ORDER)?);
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text).while_("read the order")?;
    serde_json::from_slice(&text).map_err(KeeperError::Order)
}

/// A descriptor that was handed to this process; not to those it starts.
fn take(number: RawFd) -> Result<OwnedFd, KeeperError> {
    // SAFETY: the plan hands this number to this process, which takes each once, at its beginning.
    // When it is not open the next call says so.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    match fcntl(&descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
        Ok(_) => Ok(descriptor),
        Err(error) => {
            std::mem::forget(descriptor);
            Err(error).while_(format!("use descriptor {number}"))
        }
    }
}

/// Hands the guest's interface to the supervisor: the namespace is there.
pub(crate) fn hand_over(channel: &OwnedFd, tap: &OwnedFd) -> Result<(), KeeperError> {
    let text = encode(&FromKeeper::Ready);
    let descriptors = [tap.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let parts = [IoSlice::new(&text)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(channel.as_raw_fd(), &parts, &rights, flags, None)
        .map(drop)
        .while_("hand the interface over")
}

/// Says why there is no network. Nobody may be listening any more.
pub(crate) fn tell_failed(channel: &OwnedFd, reason: String) {
    let text = encode(&FromKeeper::Failed { reason });
    let _ = send(channel.as_raw_fd(), &text, MsgFlags::MSG_NOSIGNAL);
}

/// Answers with the counters, or why there are none.
pub(crate) fn answer(
    channel: &OwnedFd,
    counters: Result<String, KeeperError>,
) -> Result<(), KeeperError> {
    let message = match counters {
        Ok(text) => FromKeeper::Counters { text },
        Err(error) => FromKeeper::NoCounters { reason: casemate_netns::error::sentence(&error) },
    };
    match send(channel.as_raw_fd(), &encode(&message), MsgFlags::MSG_NOSIGNAL) {
        // Its end is seen when the next message is waited for.
        Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
        result => result.map(drop).while_("answer the supervisor"),
    }
}

/// The next message; none when the supervisor is gone.
pub(crate) fn receive(channel: &OwnedFd) -> Result<Option<ToKeeper>, KeeperError> {
    let mut buffer = vec![0; LONGEST_MESSAGE];
    match recv(channel.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
        Ok(0) | Err(Errno::ECONNRESET) => Ok(None),
        Ok(length) => {
            serde_json::from_slice(&buffer[..length]).map(Some).map_err(KeeperError::Order)
        }
        Err(error) => Err(error).while_("hear the supervisor"),
    }
}

fn encode(message: &FromKeeper) -> Vec<u8> {
    serde_json::to_vec(message).unwrap_or_default()
}
