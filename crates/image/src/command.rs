//! Runs other programs: found first, without input unless a file is given, their output read line by line, and ended
//! with us.
//!
//! A child leads a process group, killed when the call is given up. When this thread ends
//! first, the kernel tells the child (by `setpriv`), which is `timeout` without a time: it
//! passes the signal on to the group, and a second later kills all of it.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Folders searched after `$PATH`, which of an ordinary user may lack them.
const SYSTEM_FOLDERS: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";
/// Lines kept for an error.
const LOG_LINES: usize = 25;
/// Characters kept of a line.
const LINE_LENGTH: usize = 500;

/// A program and the Debian package that has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
}

pub(crate) const MMDEBSTRAP: Tool = Tool { program: "mmdebstrap", package: "mmdebstrap" };
pub(crate) const MKFS_EROFS: Tool = Tool { program: "mkfs.erofs", package: "erofs-utils" };
pub(crate) const NEWUIDMAP: Tool = Tool { program: "newuidmap", package: "uidmap" };
pub(crate) const APT_CONFIG: Tool = Tool { program: "apt-config", package: "apt" };
pub(crate) const MKDIR: Tool = Tool { program: "mkdir", package: "coreutils" };
pub(crate) const TAR: Tool = Tool { program: "tar", package: "tar" };
const TIMEOUT: Tool = Tool { program: "timeout", package: "coreutils" };
pub(crate) const SETPRIV: Tool = Tool { program: "setpriv", package: "util-linux" };

/// A program that could not be run, or did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It is not installed.
    #[error("could not find the program {program} (Debian package {package})")]
    Missing {
        /// The program.
        program: &'static str,
        /// The package that has it.
        package: &'static str,
    },
    /// It could not be started, or its output not be read.
    #[error("could not run {program}")]
    Run {
        /// The program.
        program: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A signal ended it.
    #[error("could not finish {program}: it was killed by signal {signal}")]
    Killed {
        /// The program.
        program: &'static str,
        /// The signal's number.
        signal: i32,
    },
    /// It reported a failure.
    #[error("could not finish {program} ({status}); the end of what it said:\n{}", log.join("\n"))]
    Failed {
        /// The program.
        program: &'static str,
        /// Its exit status.
        status: ExitStatus,
        /// The end of its output, made harmless to print.
        log: Vec<String>,
    },
    /// It succeeded, but said that it did not do all of its work.
    #[error("could not do all that {program} was asked for: {line}")]
    Warned {
        /// The program.
        program: &'static str,
        /// What it said, made harmless to print.
        line: String,
    },
}

impl Tool {
    /// Where the program is.
    pub(crate) fn find(self) -> Result<PathBuf, CommandError> {
        std::env::split_paths(&search_path())
            .map(|folder| folder.join(self.program))
            .find(|path| path.is_file())
            .ok_or(CommandError::Missing { program: self.program, package: self.package })
    }

    /// The program with these arguments, to be [`run`].
    pub(crate) fn command<A: AsRef<OsStr>>(
        self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Call, CommandError> {
        let mut command = Command::new(SETPRIV.find()?);
        command
            .args(["--pdeathsig", "TERM", "--"])
            .arg(TIMEOUT.find()?)
            .args(["--kill-after=1", "0"])
            .arg(self.find()?)
            .args(arguments);
        command.stdin(Stdio::null());
        Ok(Call { program: self.program, command })
    }
}

/// A program about to be run.
#[derive(Debug)]
pub(crate) struct Call {
    program: &'static str,
    command: Command,
}

impl Call {
    /// Sets a variable of its environment.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Gives it a file to read as its input.
    pub(crate) fn input(mut self, file: File) -> Self {
        self.command.stdin(file);
        self
    }

    /// Sets the folder it runs in.
    pub(crate) fn directory(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// Runs it to its end; `on_line` gets every line of its output, made harmless to print.
    pub(crate) fn run(mut self, mut on_line: impl FnMut(&str)) -> Result<(), CommandError> {
        let program = self.program;
        let failed = |source| CommandError::Run { program, source };
        let (reader, writer) = io::pipe().map_err(failed)?;
        self.command
            .env("PATH", search_path())
            .stdout(writer.try_clone().map_err(failed)?)
            .stderr(writer)
            .process_group(0);
        let mut running = Running(self.command.spawn().map_err(failed)?);
        // It holds our copies of the pipe's end, which would never be seen to close.
        drop(self.command);
        let mut log = VecDeque::with_capacity(LOG_LINES);
        for line in BufReader::new(reader).split(b'\n') {
            let line = harmless(&line.map_err(failed)?);
            on_line(&line);
            if log.len() == LOG_LINES {
                log.pop_front();
            }
            log.push_back(line);
        }
        let status = running.0.wait().map_err(failed)?;
        match status.signal() {
            _ if status.success() => Ok(()),
            Some(signal) => Err(CommandError::Killed { program, signal }),
            None => Err(CommandError::Failed { program, status, log: log.into() }),
        }
    }
}

/// A child whose process group is killed unless it has ended.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = killpg(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGKILL);
            let _ = self.0.wait();
        }
    }
}

/// Removes a tree that belongs to our subordinate users; a failure shows by its being there.
pub(crate) fn remove_in_namespace(folder: &Path) {
    let arguments: [&OsStr; 5] = [
        "--unshare-helper".as_ref(),
        "rm".as_ref(),
        "-rf".as_ref(),
        "--".as_ref(),
        folder.as_os_str(),
    ];
    if let Ok(call) = MMDEBSTRAP.command(arguments) {
        let _ = call.run(|_| ());
    }
}

/// `$PATH` and the folders of system programs.
fn search_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    if !path.is_empty() {
        path.push(":");
    }
    path.push(SYSTEM_FOLDERS);
    path
}

/// A line without control characters and of bearable length. Of a line that was written over,
/// as progress is, the last version.
fn harmless(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end();
    let text = text.rsplit('\r').next().unwrap_or(text);
    text.chars()
        .take(LINE_LENGTH)
        .map(|character| match character {
            '\t' => ' ',
            control if control.is_control() => '\u{fffd}',
            other => other,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SH: Tool = Tool { program: "sh", package: "dash" };

    #[test]
    fn output_comes_by_line_and_input_is_empty() {
        let mut lines = Vec::new();
        let script = "cat; echo one; printf '10%%\\r20%%\\rtwo\\033[2J' >&2";
        let call = SH.command(["-c", script]).unwrap();
        call.run(|line| lines.push(line.to_owned())).unwrap();
        assert_eq!(lines, ["one", "two\u{fffd}[2J"]);
    }

    #[test]
    fn failure_carries_the_end_of_the_output() {
        let script = "for i in $(seq 100); do echo $i; done; exit 3";
        let error = SH.command(["-c", script]).unwrap().run(|_| ()).unwrap_err();
        let CommandError::Failed { status, log, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(status.code(), Some(3));
        assert_eq!((&*log[0], &*log[24]), ("76", "100"));
    }

    #[test]
    fn a_killed_program_is_told_apart() {
        let call = SH.command(["-c", "kill -9 $$"]).unwrap();
        assert!(matches!(call.run(|_| ()), Err(CommandError::Killed { signal: 9, .. })));
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let tool = Tool { program: "casemate-no-such-program", package: "some-package" };
        assert_eq!(
            tool.find().unwrap_err().to_string(),
            "could not find the program casemate-no-such-program (Debian package some-package)"
        );
    }
}
