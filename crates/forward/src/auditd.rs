//! The kernel's audit (netlink(7), `NETLINK_AUDIT`), which auditd writes down. Needs CAP_AUDIT_WRITE.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use casemate_audit::Entry;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use crate::message;

/// `AUDIT_TRUSTED_APP`, linux/audit.h: a message of an application that may write to the audit.
const TRUSTED_APP: u16 = 1121;
/// `NLMSG_ERROR`, linux/netlink.h: how it was taken, 0 for well.
const NLMSG_ERROR: u16 = 2;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const FLAGS: u16 = 1 | 4;
/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;

/// An open socket to it.
#[derive(Debug)]
pub struct Kernel {
    socket: OwnedFd,
    sequence: u32,
}

impl Kernel {
    /// Opens it.
    ///
    /// # Errors
    /// The kernel has none.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let protocol = SockProtocol::NetlinkAudit;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Writes a record to it.
    ///
    /// # Errors
    /// `EPERM` without the capability.
    pub fn send(&mut self, entry: &Entry) -> io::Result<()> {
        self.sequence += 1;
        let text = message::audit(entry);
        let length = u32::try_from(HEADER + text.len() + 1).unwrap_or(u32::MAX);
        let mut request = length.to_ne_bytes().to_vec();
        request.extend(TRUSTED_APP.to_ne_bytes());
        request.extend(FLAGS.to_ne_bytes());
        request.extend(self.sequence.to_ne_bytes());
        request.extend(0_u32.to_ne_bytes());
        request.extend(text);
        request.push(0);
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.socket.as_raw_fd(), &request, &kernel, MsgFlags::empty())?;
        let mut answer = [0; 4096];
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
            let answer = &answer[..length];
            let word = |at: usize| -> Option<[u8; 4]> { answer.get(at..at + 4)?.try_into().ok() };
            let kind = answer.get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
            let ours = word(8).map(u32::from_ne_bytes) == Some(self.sequence);
            if kind != Some(NLMSG_ERROR) || !ours {
                continue;
            }
            return match word(HEADER).map(i32::from_ne_bytes) {
                Some(0) => Ok(()),
                Some(error) => Err(Errno::from_raw(error.wrapping_neg()).into()),
                None => Err(io::ErrorKind::InvalidData.into()),
            };
        }
    }
}
