//! The client's end of a session: standard input, output and error on one side, frames on the
//! session's socket on the other.
//!
//! Two threads, because a reader of our output that stalls must not keep input or signals from
//! flowing: [`take_output`] blocks on standard output, [`give_input`] on standard input.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use casemate_wire::limits::MAX_PAYLOAD;
use casemate_wire::{Decoder, ExitStatus, HEADER_LEN, Kind, decode, encode_header};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How a session ended for its client.
#[derive(Debug)]
pub(crate) enum End {
    /// The command ended.
    Exit(ExitStatus),
    /// The socket was closed first: the compartment ended.
    Lost,
    /// Nobody reads our output any more.
    OutputClosed,
}

/// Passes the session's output on until it ends. `started` is called when the command runs.
pub(crate) fn take_output(mut socket: &UnixStream, started: impl FnOnce()) -> End {
    let mut started = Some(started);
    let mut decoder = Decoder::new();
    loop {
        let count = match socket.read(decoder.space()) {
            Ok(0) => return End::Lost,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return End::Lost,
        };
        decoder.filled(count);
        loop {
            let frame = match decoder.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(_) => return End::Lost,
            };
            let written = match frame.kind {
                Kind::Started => {
                    if let Some(started) = started.take() {
                        started();
                    }
                    Ok(())
                }
                Kind::Stdout => write(io::stdout().as_fd(), frame.payload),
                Kind::Stderr => write(io::stderr().as_fd(), frame.payload),
                Kind::Exit => return decode(frame.payload).map_or(End::Lost, End::Exit),
                // The link sends nothing else.
                _ => return End::Lost,
            };
            if written.is_err() {
                return End::OutputClosed;
            }
        }
    }
}

/// What a session without input writes to its standard output, at most `limit` bytes; none when it
/// did not end in order within `patience` after its last word, or within ten times that in all.
pub(crate) fn collect(mut socket: UnixStream, limit: usize, patience: Duration) -> Option<Vec<u8>> {
    let deadline = Instant::now() + 10 * patience;
    socket.set_read_timeout(Some(patience)).ok()?;
    send(&socket, Kind::Stdin, &[]).ok()?;
    let mut decoder = Decoder::new();
    let mut output = Vec::new();
    loop {
        match socket.read(decoder.space()).ok()? {
            _ if Instant::now() > deadline => return None,
            0 => return None,
            count => decoder.filled(count),
        }
        while let Some(frame) = decoder.next_frame().ok()? {
            match frame.kind {
                Kind::Stdout => {
                    let room = limit.saturating_sub(output.len()).min(frame.payload.len());
                    output.extend_from_slice(&frame.payload[..room]);
                }
                Kind::Exit => return Some(output),
                _ => {}
            }
        }
    }
}

/// Writes everything past the standard library's buffers: the bytes are not ours to hold back. A
/// descriptor that somebody made non-blocking is waited for.
fn write(to: BorrowedFd<'_>, mut bytes: &[u8]) -> nix::Result<()> {
    use nix::errno::Errno;
    while !bytes.is_empty() {
        match nix::unistd::write(to, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                poll(&mut [PollFd::new(to, PollFlags::POLLOUT)], PollTimeout::NONE)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Passes standard input on until it ends, and the terminal's size whenever `resized` becomes
/// readable. Returns when the session's socket is closed or `resized` is.
pub(crate) fn give_input(socket: &UnixStream, mut resized: &UnixStream) {
    let input = io::stdin();
    let mut buffer = vec![0u8; HEADER_LEN + MAX_PAYLOAD];
    let mut open = true;
    loop {
        let mut watched = [
            PollFd::new(resized.as_fd(), PollFlags::POLLIN),
            PollFd::new(input.as_fd(), PollFlags::POLLIN),
        ];
        let watched = if open { &mut watched[..] } else { &mut watched[..1] };
        match poll(watched, PollTimeout::NONE) {
            Err(nix::Error::EINTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        let ready = |entry: Option<&PollFd<'_>>| entry.is_some_and(|e| e.any().unwrap_or(true));
        let (resize, readable) = (ready(watched.first()), ready(watched.get(1)));
        if resize {
            match resized.read(&mut buffer[..64]) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let size = crate::terminal::size().encode();
            if send(socket, Kind::Resize, &size).is_err() {
                return;
            }
        }
        if readable {
            let count = match nix::unistd::read(input.as_fd(), &mut buffer[HEADER_LEN..]) {
                Ok(count) => count,
                Err(nix::Error::EINTR | nix::Error::EAGAIN) => continue,
                // As at the end of the file: a background process may not read its terminal.
                Err(_) => 0,
            };
            open = count > 0;
            buffer[..HEADER_LEN].copy_from_slice(&encode_header(0, Kind::Stdin, count));
            if (&mut &*socket).write_all(&buffer[..HEADER_LEN + count]).is_err() {
                return;
            }
        }
    }
}

fn send(mut socket: &UnixStream, kind: Kind, payload: &[u8]) -> io::Result<()> {
    let mut frame = encode_header(0, kind, payload.len()).to_vec();
    frame.extend_from_slice(payload);
    socket.write_all(&frame)
}
