//! Runs the programs that know the formats: cryptsetup, qemu-img, age, tpm2-tools.
//!
//! What is secret goes in by standard input and comes out by standard output, both pipes; arguments
//! are seen by everybody on the machine and files outlive us. A program dies with the thread that
//! called it (by `setpriv`), so a killed operation does not go on behind the next one's back.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use casemate_host::lock::Lock;
use casemate_host::secret::Locked;

use crate::confine;
use crate::secret::Secret;

/// Folders searched after `$PATH`, which of an ordinary user may lack them.
const SYSTEM_FOLDERS: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";
/// Bytes of output taken: none of these programs says more where we listen.
const OUTPUT: usize = 64 << 10;
/// Bytes kept of what a program says on standard error.
const LOG: usize = 4 << 10;
/// Bytes given on standard input at once: what a pipe holds without anybody reading, pipe(7).
pub(crate) const INPUT: usize = 16 << 10;

/// A program and the Debian package that has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
}

pub(crate) const CRYPTSETUP: Tool = Tool { program: "cryptsetup", package: "cryptsetup-bin" };
pub(crate) const QEMU_IMG: Tool = Tool { program: "qemu-img", package: "qemu-utils" };
pub(crate) const AGE: Tool = Tool { program: "age", package: "age" };
pub(crate) const AGE_KEYGEN: Tool = Tool { program: "age-keygen", package: "age" };
const SETPRIV: Tool = Tool { program: "setpriv", package: "util-linux" };
const PRLIMIT: Tool = Tool { program: "prlimit", package: "util-linux" };
const SETSID: Tool = Tool { program: "setsid", package: "util-linux" };

/// A program that could not be run, or did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is not installed.
    #[error("could not find the program {program} (Debian package {package})")]
    Missing {
        /// The program.
        program: &'static str,
        /// The package that has it.
        package: &'static str,
    },
    /// It could not be started, or not be talked to.
    #[error("could not run {program}")]
    Run {
        /// The program.
        program: &'static str,
        /// What the system said.
        #[source]
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
    #[error("could not finish {program} (exit code {code}); what it said:\n{log}")]
    Failed {
        /// The program.
        program: &'static str,
        /// Its exit code.
        code: i32,
        /// What it wrote to standard error, made harmless to print.
        log: String,
    },
}

impl ToolError {
    /// Whether the program ended with this code.
    pub(crate) fn is_code(&self, wanted: i32) -> bool {
        matches!(self, Self::Failed { code, .. } if *code == wanted)
    }

    /// Whether the program said this.
    pub(crate) fn says(&self, words: &str) -> bool {
        matches!(self, Self::Failed { log, .. } if log.contains(words))
    }
}

impl Tool {
    /// Where the program is.
    pub(crate) fn find(self) -> Result<PathBuf, ToolError> {
        std::env::split_paths(&search_path())
            .map(|folder| folder.join(self.program))
            .find(|path| path.is_file())
            .ok_or(ToolError::Missing { program: self.program, package: self.package })
    }

    /// Runs the program with `input` on its standard input; returns its standard output.
    ///
    /// # Errors
    /// See [`ToolError`]. The output is lost when the program failed.
    pub(crate) fn run<A: AsRef<OsStr>>(
        self,
        arguments: impl IntoIterator<Item = A>,
        input: &[u8],
    ) -> Result<Secret, ToolError> {
        let failed = |source| ToolError::Run { program: self.program, source };
        if input.len() > INPUT {
            return Err(failed(io::ErrorKind::InvalidInput.into()));
        }
        let mut command = bound(&[self])?;
        command.args(arguments).stdin(Stdio::piped());
        let mut running = Running::start(command).map_err(failed)?;
        if let Some(mut pipe) = running.0.stdin.take() {
            // It may have failed already without reading: its own words say why.
            let _ = pipe.write_all(input);
        }
        self.finish(running)
    }

    /// Runs the program where it reaches no file but the system's and those in `folder`, since it
    /// reads what guests' VMMs have written. It keeps a lock of ours, as its standard input:
    /// should we be killed, nobody takes the lock before the kernel has ended the program too.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(crate) fn run_confined<A: AsRef<OsStr>>(
        self,
        arguments: impl IntoIterator<Item = A>,
        folder: &Path,
        lock: &Lock,
    ) -> Result<Secret, ToolError> {
        let failed = |source| ToolError::Run { program: self.program, source };
        let program = self.find()?;
        let mut command = bound(&[self])?;
        command.args(arguments).stdin(lock.share().map_err(failed)?);
        // A thread of its own, which ends when the program has: what confines one lasts as long as
        // the other.
        std::thread::scope(|scope| {
            let confined = scope.spawn(|| {
                confine::this_thread(&program, folder).map_err(failed)?;
                self.finish(Running::start(command).map_err(failed)?)
            });
            confined.join().unwrap_or_else(|_| Err(failed(io::ErrorKind::Other.into())))
        })
    }

    /// Runs the program on a terminal of its own on which `line` has been typed.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(crate) fn run_on_terminal<A: AsRef<OsStr>>(
        self,
        arguments: impl IntoIterator<Item = A>,
        line: &Secret,
    ) -> Result<Secret, ToolError> {
        let failed = |source| ToolError::Run { program: self.program, source };
        let terminal =
            nix::pty::openpty(None, None).map_err(|errno| failed(io::Error::from(errno)))?;
        let mut command = bound(&[SETSID, self])?;
        command.args(arguments).stdin(terminal.slave);
        // What is typed early waits in the terminal until somebody reads, termios(3).
        let mut keyboard = File::from(close_on_exec(terminal.master).map_err(failed)?);
        let running = Running::start(command).map_err(failed)?;
        keyboard
            .write_all(line.bytes())
            .and_then(|()| keyboard.write_all(b"\n"))
            .map_err(failed)?;
        self.finish(running)
    }

    /// Starts the program between two descriptors; it goes on by itself until [`Streaming::finish`],
    /// and ends with the thread that called this. With `most`, a file it writes becomes no longer than
    /// so many bytes.
    ///
    /// # Errors
    /// It is missing, or cannot be started.
    pub(crate) fn stream<A: AsRef<OsStr>>(
        self,
        arguments: impl IntoIterator<Item = A>,
        input: impl Into<Stdio>,
        output: impl Into<Stdio>,
        most: Option<u64>,
    ) -> Result<Streaming, ToolError> {
        let failed = |source| ToolError::Run { program: self.program, source };
        let mut command = bound(&[])?;
        if let Some(bytes) = most {
            command.arg(PRLIMIT.find()?).arg(format!("--fsize={bytes}:{bytes}"));
        }
        command.arg(self.find()?);
        command.args(arguments).stdin(input).stdout(output);
        Ok(Streaming { tool: self, running: Running::start(command).map_err(failed)? })
    }

    fn finish(self, mut running: Running) -> Result<Secret, ToolError> {
        let failed = |source| ToolError::Run { program: self.program, source };
        let child = &mut running.0;
        let (output, log) = match (child.stdout.take(), child.stderr.take()) {
            (Some(mut output), Some(log)) => std::thread::scope(|scope| {
                let log = scope.spawn(|| read_log(log));
                let output = read_bounded(&mut output);
                if output.is_err() {
                    // It may be waiting for us to read on.
                    let _ = child.kill();
                }
                (output, log.join().unwrap_or_default())
            }),
            _ => (Err(io::ErrorKind::BrokenPipe.into()), String::new()),
        };
        let output = output.map_err(failed)?;
        let status = child.wait().map_err(failed)?;
        let program = self.program;
        match (status.code(), status.signal()) {
            (Some(0), _) => Ok(output),
            (Some(code), _) => Err(ToolError::Failed { program, code, log }),
            (None, signal) => Err(ToolError::Killed { program, signal: signal.unwrap_or(0) }),
        }
    }
}

/// A program that works between two descriptors. Dropping it kills it.
#[derive(Debug)]
pub struct Streaming {
    tool: Tool,
    running: Running,
}

impl Streaming {
    /// Number of the process.
    pub fn pid(&self) -> u32 {
        self.running.0.id()
    }

    /// Waits until it has done its work.
    ///
    /// # Errors
    /// It has not.
    pub fn finish(mut self) -> Result<(), ToolError> {
        let program = self.tool.program;
        let child = &mut self.running.0;
        let log = child.stderr.take().map(read_log).unwrap_or_default();
        let status = child.wait().map_err(|source| ToolError::Run { program, source })?;
        match (status.code(), status.signal()) {
            (Some(0), _) => Ok(()),
            (Some(code), _) => Err(ToolError::Failed { program, code, log }),
            (None, signal) => Err(ToolError::Killed { program, signal: signal.unwrap_or(0) }),
        }
    }
}

/// A command that ends with this thread and gains no privilege: each of `tools` starts the next.
fn bound(tools: &[Tool]) -> Result<Command, ToolError> {
    let mut command = Command::new(SETPRIV.find()?);
    command.args(["--pdeathsig", "KILL", "--no-new-privs", "--"]);
    for tool in tools {
        command.arg(tool.find()?);
        if tool.program == SETSID.program {
            command.arg("--ctty");
        }
    }
    command.env("PATH", search_path()).env("LC_ALL", "C");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// A child that is killed unless it has ended.
#[derive(Debug)]
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> io::Result<Self> {
        command.spawn().map(Self)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

fn close_on_exec(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    // A duplicate made by the standard library is closed on exec, openpty's own is not.
    descriptor.try_clone()
}

/// All of a stream, into memory that is locked and never moved, so that no copy is left behind.
fn read_bounded(stream: &mut impl Read) -> io::Result<Secret> {
    let mut bytes = Locked::zeroed(OUTPUT);
    let mut length = 0;
    loop {
        match stream.read(&mut bytes[length..]) {
            Ok(0) if length == OUTPUT => return Err(io::ErrorKind::FileTooLarge.into()),
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Secret::copied(&bytes[..length]))
}

/// The beginning of what is said, without control characters; the rest is read and forgotten.
fn read_log(mut stream: impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = stream.by_ref().take(LOG as u64).read_to_end(&mut bytes);
    let _ = io::copy(&mut stream, &mut io::sink());
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.trim_end().lines().map(|line| {
        line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect::<String>()
    });
    lines.collect::<Vec<_>>().join("\n")
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

#[cfg(test)]
mod tests {
    use casemate_host::lock::Taking;

    use super::*;

    const SH: Tool = Tool { program: "sh", package: "dash" };

    #[test]
    fn input_goes_in_and_output_comes_out() {
        let output = SH.run(["-c", "cat; echo noise >&2"], b"a\0b").expect("run");
        assert_eq!(output.bytes(), b"a\0b");
        let typed = Secret::new(b"typed".to_vec());
        let script = "read -r line </dev/tty; echo got $line";
        let output = SH.run_on_terminal(["-c", script], &typed).expect("run");
        assert_eq!(output.bytes(), b"got typed\n");
    }

    #[test]
    fn confined_programs_reach_one_folder() {
        let test = "confined_programs_reach_one_folder";
        if casemate_host::landlock::abi() == 0 {
            return println!("skipped: {test}: this kernel has no Landlock");
        }
        let (folder, other) = (tempfile::tempdir(), tempfile::tempdir());
        let (folder, other) = (folder.expect("a directory"), other.expect("a directory"));
        let Ok(Taking::Ours(lock)) = Lock::take(&folder.path().join("lock")) else {
            panic!("nobody else has it")
        };
        let run = |script: &str| SH.run_confined(["-c", script], folder.path(), &lock);
        let (inside, outside) = (folder.path().display(), other.path().display());
        let output = run(&format!("echo written > {inside}/file; cat {inside}/file")).expect("run");
        assert_eq!(output.bytes(), b"written\n");
        for script in [
            format!("echo written > {outside}/file"),
            format!("ls {outside}"),
            "cat /etc/passwd".to_owned(),
        ] {
            let refused = run(&script).expect_err(&script);
            assert!(refused.says("ermission denied"), "{script}: {refused}");
        }
        // This thread is as free as before.
        std::fs::write(other.path().join("file"), "free").expect("written");
    }

    #[test]
    fn a_stream_ends_with_its_program_and_is_no_longer_than_it_may_be() {
        let path = tempfile::NamedTempFile::new().expect("a file");
        let run = |line: &str| {
            let output = File::create(path.path()).expect("made");
            let running = SH.stream(["-c", line], Stdio::null(), output, Some(5000));
            running.expect("started").finish()
        };
        run("head -c 5000 /dev/zero").expect("short enough");
        assert_eq!(std::fs::metadata(path.path()).expect("there").len(), 5000);
        run("head -c 5001 /dev/zero || exit 1").expect_err("too long");
        assert_eq!(std::fs::metadata(path.path()).expect("there").len(), 5000);
    }

    #[test]
    fn failures_are_told_apart_and_harmless_to_print() {
        let failed = SH.run(["-c", "printf 'no\\033[2J' >&2; exit 3"], b"").expect_err("3");
        assert!(failed.is_code(3) && failed.says("no\u{fffd}[2J"), "{failed}");
        let killed = SH.run(["-c", "kill -9 $$"], b"").expect_err("killed");
        assert!(matches!(killed, ToolError::Killed { signal: 9, .. }), "{killed}");
        let endless = SH.run(["-c", "while :; do echo yyyyyyyyyyyyyyyy; done"], b"");
        assert!(matches!(endless, Err(ToolError::Run { .. })), "bounded");
        let missing = Tool { program: "casemate-no-such-program", package: "some-package" };
        assert_eq!(
            missing.run([""; 0], b"").expect_err("missing").to_string(),
            "could not find the program casemate-no-such-program (Debian package some-package)"
        );
    }
}
