//! Messages of a hostile front-end, with the descriptors that belong to them: decoded, and done.

#![no_main]

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use casemate_switch::vhost::message::{HEADER, Header, Message};
use casemate_switch::vhost::{Request, Session, Stream};
use libfuzzer_sys::fuzz_target;
use std::io::Write;

/// A file of memory, or an eventfd in its place.
fn descriptor(request: &Request) -> OwnedFd {
    match request {
        Request::SetMemory(_) | Request::AddMemory(_) => {
            let name = c"fuzz";
            let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
            let file = nix::sys::memfd::memfd_create(name, flags).expect("a memory file");
            nix::unistd::ftruncate(&file, 1 << 20).expect("a length");
            file
        }
        _ => nix::sys::eventfd::EventFd::new().expect("an eventfd").into(),
    }
}

fuzz_target!(|data: &[u8]| {
    // What a socket makes of it, which brings no descriptors.
    let (mut front_end, switch) = UnixStream::pair().expect("a pair");
    front_end.set_nonblocking(true).expect("not blocking");
    let _ = front_end.write(data);
    let mut stream = Stream::new(switch.into());
    for _ in 0..64 {
        match stream.receive() {
            Ok(Some((message, descriptors))) => {
                assert_eq!(message.descriptors(), descriptors.len());
            }
            Ok(None) | Err(_) => break,
        }
    }

    let mut session = Session::new(true);
    let mut rest = data;
    while let Some((header, after)) = rest.split_first_chunk::<HEADER>() {
        let Ok(header) = Header::decode(*header) else { return };
        let Some((payload, after)) = after.split_at_checked(header.length) else { return };
        rest = after;
        let Ok(message) = Message::decode(header, payload) else { return };
        let descriptors =
            (0..message.descriptors()).map(|_| descriptor(&message.request)).collect();
        if session.apply(message, descriptors, |_| None, |_| true).is_err() {
            return;
        }
        let _ = (session.transmit(None), session.receive(None));
    }
});
