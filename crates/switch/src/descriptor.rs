//! Descriptors that come as plain numbers: over a socket, and inherited.

// UNSAFETY: the type that owns a descriptor is made from its number.
#![expect(unsafe_code, reason = "received and inherited descriptors are plain numbers")]

use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

/// Room for control messages: a header of 16 bytes and eight numbers, as words.
const CONTROL: usize = 6;

/// Reads into `buffer` without blocking, with at most eight descriptors beside it. Says how many
/// bytes came, and takes ownership of the descriptors; nothing, if something was cut off, and then
/// the descriptors that did come are closed.
///
/// # Errors
/// As for recvmsg(2).
pub fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Result<Option<(usize, Vec<OwnedFd>)>, Errno> {
    let mut control = [0_u64; CONTROL];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: a structure of integers and pointers, for which zeroes are values.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: all pointers are to buffers above, with their lengths.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let length = Errno::result(length)?;
    // Not by nix, which leaves descriptors open when something was cut off.
    let descriptors = take(&message);
    let cut = message.msg_flags & (libc::MSG_CTRUNC | libc::MSG_TRUNC) != 0;
    Ok((!cut).then_some((length as usize, descriptors)))
}

/// Takes ownership of all descriptors that came with a message.
fn take(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    // SAFETY: recvmsg(2) has filled in the message and its control buffer.
    let mut part = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !part.is_null() {
        // SAFETY: the macros of cmsg(3) give headers within the control buffer, which is aligned
        // as they are.
        let header = unsafe { part.read() };
        if (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: as above; the data begins after the header.
            let (data, start) = unsafe { (libc::CMSG_DATA(part), libc::CMSG_LEN(0)) };
            let bytes = (header.cmsg_len as usize).saturating_sub(start as usize);
            for index in 0..bytes / size_of::<RawFd>() {
                // SAFETY: so many numbers are there.
                descriptors.push(own(unsafe { data.cast::<RawFd>().add(index).read_unaligned() }));
            }
        }
        // SAFETY: `part` is a header within the control buffer.
        part = unsafe { libc::CMSG_NXTHDR(message, part) };
    }
    descriptors
}

/// Sends without blocking, with descriptors beside it. Says how many bytes went.
///
/// # Errors
/// As for sendmsg(2).
pub fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<usize, Errno> {
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &[] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None)
}

/// Takes over a descriptor that this program was started with.
///
/// Each number must be asked for once. One that is not open gives an error at its first use.
#[must_use]
pub fn inherited(number: RawFd) -> OwnedFd {
    own(number)
}

/// Nothing else in this program owns `number`: the kernel has just made it for us, or whoever
/// started us named it.
fn own(number: RawFd) -> OwnedFd {
    // SAFETY: as said; recvmsg(2) and exec are the only sources of these numbers.
    unsafe { OwnedFd::from_raw_fd(number) }
}
