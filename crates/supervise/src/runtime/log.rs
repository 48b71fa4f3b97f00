//! A log of processes that read what a guest says, and may be made to say much: kept up to a size, and
//! read all the same, so that none of them waits.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{pipe2, read};
use tokio::io::Interest;

use crate::crew::register;

/// Largest log, in bytes. One that is full begins anew with the next process.
const LARGEST: u64 = 1 << 20;

/// Bytes read at a time: what a pipe holds by default.
const PIECE: usize = 64 * 1024;

/// Between two pieces once the log is full.
const PAUSE: Duration = Duration::from_millis(100);

const FULL: &str = "casemate: this log is full; what follows is not kept\n";

/// Where a process writes its log to. It is kept at `path` for as long as this thread serves its tasks.
///
/// # Errors
/// The log cannot be opened.
pub(super) fn bounded(path: &Path) -> io::Result<OwnedFd> {
    if fs::metadata(path).is_ok_and(|found| found.len() >= LARGEST) {
        fs::remove_file(path)?;
    }
    let mut log = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let (from, to) = pipe2(OFlag::O_CLOEXEC)?;
    nix::fcntl::fcntl(&from, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let from = register(from, Interest::READABLE)?;
    tokio::task::spawn_local(async move {
        let mut buffer = vec![0; PIECE];
        loop {
            let Ok(mut ready) = from.readable().await else { return };
            match read(from.get_ref(), &mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    let is_full = keep(&mut log, &buffer[..length]);
                    drop(ready);
                    // Others of this thread come first, whoever writes without end.
                    tokio::time::sleep(if is_full { PAUSE } else { Duration::ZERO }).await;
                }
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    });
    Ok(to)
}

/// Appends what there is room for; true when there is no more. A log that cannot be written is none.
fn keep(log: &mut File, bytes: &[u8]) -> bool {
    let before = log.metadata().map_or(u64::MAX, |found| found.len());
    let room = usize::try_from(LARGEST.saturating_sub(before)).unwrap_or(usize::MAX);
    if room == 0 {
        return true;
    }
    let _ = log.write_all(&bytes[..bytes.len().min(room)]);
    if bytes.len() >= room {
        let _ = log.write_all(FULL.as_bytes());
    }
    bytes.len() >= room
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn log_is_kept_up_to_a_size_and_its_writer_never_waits() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("windows.log");
        tokio::task::LocalSet::new()
            .run_until(async {
                let to = bounded(&path).expect("opened");
                let writer = std::thread::spawn(move || {
                    let mut to = File::from(to);
                    (0..60_000)
                        .for_each(|number| writeln!(to, "line {number} of many").expect("taken"));
                });
                while !writer.is_finished() {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            })
            .await;
        let text = fs::read_to_string(&path).expect("kept");
        assert!(text.starts_with("line 0 of many\n") && text.ends_with(FULL), "{}", text.len());
        assert_eq!(text.len() as u64, LARGEST + FULL.len() as u64);
        // The next one finds it full.
        tokio::task::LocalSet::new()
            .run_until(async { bounded(&path).map(drop) })
            .await
            .expect("opened");
        assert_eq!(fs::metadata(&path).expect("there").len(), 0);
    }
}
