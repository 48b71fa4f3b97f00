//! Process 1 of the bare guest that casemate is measured beside. Compiled alone and statically by
//! `cargo xtask bench run`; not a crate.
//!
//! Prints `ready` on the console, then answers on the first virtio-serial port: one byte is
//! answered once a program has been started and has ended, anything longer comes back as it is,
//! up to 32 KiB at a time, which is what a good program of such a guest would do.

use std::ffi::{CString, c_char, c_int, c_short, c_ulong, c_void};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const O_NONBLOCK: c_int = 0o4000;
const POLLIN: c_short = 1;
const POLLOUT: c_short = 4;
const AT_ONCE: usize = 32 * 1024;

#[repr(C)]
struct PollFd {
    descriptor: c_int,
    events: c_short,
    returned: c_short,
}

// SAFETY: the C library's own signatures, poll(2) and mount(2).
unsafe extern "C" {
    fn poll(descriptors: *mut PollFd, count: c_ulong, timeout: c_int) -> c_int;
    fn mount(
        source: *const c_char,
        target: *const c_char,
        kind: *const c_char,
        flags: c_ulong,
        data: *const c_void,
    ) -> c_int;
}

fn main() {
    // The program that is started for a byte: this one, in another role.
    if std::process::id() != 1 {
        return;
    }
    println!("ready");
    answer(port());
}

fn port() -> File {
    let device_files = CString::new("devtmpfs").expect("no zero byte");
    let folder = CString::new("/dev").expect("no zero byte");
    // SAFETY: the strings live until it returns; the data may be null.
    unsafe {
        mount(device_files.as_ptr(), folder.as_ptr(), device_files.as_ptr(), 0, std::ptr::null())
    };
    loop {
        let found = fs::read_dir("/dev").into_iter().flatten().flatten().map(|entry| entry.path());
        let mut ports: Vec<PathBuf> =
            found.filter(|path| path.to_string_lossy().contains("vport")).collect();
        ports.sort();
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(O_NONBLOCK);
        if let Some(file) = ports.first().and_then(|port| options.open(port).ok()) {
            return file;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn answer(mut port: File) {
    let mut bytes = vec![0; AT_ONCE];
    loop {
        let mut held = 0;
        while held < AT_ONCE {
            match port.read(&mut bytes[held..]) {
                // The host is not connected.
                Ok(0) => std::thread::sleep(Duration::from_millis(1)),
                Ok(count) => held += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock && held > 0 => break,
                Err(error) if error.kind() == ErrorKind::WouldBlock => wait(&port, POLLIN),
                Err(error) => panic!("could not read: {error}"),
            }
        }
        if held == 1 {
            let status = Command::new("/init").status();
            assert!(status.is_ok_and(|status| status.success()), "could not start a program");
        }
        give(&mut port, &bytes[..held]);
    }
}

fn give(port: &mut File, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match port.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait(port, POLLOUT),
            Err(error) => panic!("could not write: {error}"),
        }
    }
}

fn wait(port: &File, events: c_short) {
    let mut one = PollFd { descriptor: port.as_raw_fd(), events, returned: 0 };
    // SAFETY: one structure, as said.
    unsafe { poll(&mut one, 1, -1) };
}
