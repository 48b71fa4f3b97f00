//! One call of a program: its input given, its output taken, its end awaited, all bounded.

use std::ffi::OsStr;
use std::fmt;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use sha2::{Digest, Sha256};

use crate::wait::BOOT;

/// Bytes of an output that are shown when a test fails.
const SHOWN: usize = 2000;

/// A program about to be called.
#[derive(Debug)]
pub struct Call {
    pub(crate) command: Command,
    input: Input,
    digest_only: bool,
    limit: Duration,
}

/// What stands at standard input.
enum Input {
    Nothing,
    Bytes(Vec<u8>),
    Stream(Box<dyn Read + Send>),
    Held,
}

impl fmt::Debug for Input {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Input")
    }
}

/// A call that has ended.
#[derive(Debug)]
pub struct Done {
    what: String,
    /// The exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Standard output; empty when only its digest was wanted.
    pub stdout: Vec<u8>,
    /// SHA-256 and length of standard output.
    pub digest: (Vec<u8>, u64),
    /// Standard error.
    pub stderr: Vec<u8>,
    /// From start to end.
    pub took: Duration,
}

/// A call that runs. Its process group is killed when dropped.
#[derive(Debug)]
pub struct Background {
    what: String,
    child: Child,
    ended: Option<ExitStatus>,
    stdin: Option<ChildStdin>,
    stdout: Taken,
    stderr: Taken,
    begin: Instant,
    limit: Duration,
}

/// What was read of a pipe so far, and the thread that reads it.
#[derive(Debug)]
struct Taken {
    state: Arc<(Mutex<Gathered>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Gathered {
    bytes: Vec<u8>,
    hash: Sha256,
    length: u64,
    ended: bool,
}

impl Call {
    /// A call of `program` with no arguments and no input.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let command = Command::new(program);
        Self { command, input: Input::Nothing, digest_only: false, limit: BOOT }
    }

    /// Appends an argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Appends arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Unsets a variable.
    pub fn without_env(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Sets the working directory.
    pub fn directory(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// Gives these bytes, then end of file.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Input::Bytes(bytes.into());
        self
    }

    /// Gives what `source` has, then end of file.
    pub fn stream(mut self, source: impl Read + Send + 'static) -> Self {
        self.input = Input::Stream(Box::new(source));
        self
    }

    /// Leaves standard input open until [`Background::close_input`].
    pub fn hold_input(mut self) -> Self {
        self.input = Input::Held;
        self
    }

    /// Keeps length and digest of standard output, not the bytes.
    pub fn digest_only(mut self) -> Self {
        self.digest_only = true;
        self
    }

    /// The longest it may take.
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Calls it and waits for its end.
    #[track_caller]
    pub fn done(self) -> Done {
        self.start().done()
    }

    /// Calls it, waits for its end as long as `limit`, and never panics.
    pub fn attempt(mut self, limit: Duration) {
        self.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(mut child) = self.command.spawn() else { return };
        let begin = Instant::now();
        while matches!(child.try_wait(), Ok(None)) && begin.elapsed() < limit {
            std::thread::sleep(Duration::from_millis(10));
        }
        // One that has ended needs no signal.
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Calls it.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn start(mut self) -> Background {
        let what = format!("{:?}", self.command);
        let stdin =
            if matches!(self.input, Input::Nothing) { Stdio::null() } else { Stdio::piped() };
        self.command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let begin = Instant::now();
        let mut child = match self.command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("could not start {what}: {error}"),
        };
        let stdout = Taken::from(child.stdout.take().expect("a pipe"), self.digest_only);
        let stderr = Taken::from(child.stderr.take().expect("a pipe"), false);
        let mut stdin = child.stdin.take();
        match self.input {
            Input::Nothing | Input::Held => {}
            Input::Bytes(bytes) => feed(stdin.take(), std::io::Cursor::new(bytes)),
            Input::Stream(source) => feed(stdin.take(), source),
        }
        Background { what, child, ended: None, stdin, stdout, stderr, begin, limit: self.limit }
    }
}

/// Gives it all, in a thread: the program may write before it reads.
fn feed(stdin: Option<ChildStdin>, mut source: impl Read + Send + 'static) {
    let mut stdin = stdin.expect("a pipe");
    // A program that does not want it all is no mistake.
    std::thread::spawn(move || std::io::copy(&mut source, &mut stdin));
}

impl Taken {
    fn from(mut pipe: impl Read + Send + 'static, digest_only: bool) -> Self {
        let state = Arc::new((Mutex::new(Gathered::default()), Condvar::new()));
        let shared = state.clone();
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let count = pipe.read(&mut buffer).unwrap_or(0);
                let mut read = shared.0.lock().expect("no panic");
                read.hash.update(&buffer[..count]);
                read.length += count as u64;
                if !digest_only {
                    read.bytes.extend_from_slice(&buffer[..count]);
                }
                read.ended = count == 0;
                shared.1.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        Self { state, thread: Some(thread) }
    }

    fn so_far(&self) -> Vec<u8> {
        self.state.0.lock().expect("no panic").bytes.clone()
    }

    /// Waits until `enough` of what was read; false when the time is up or the pipe is closed.
    fn wait(&self, limit: Duration, mut enough: impl FnMut(&Gathered) -> bool) -> bool {
        let guard = self.state.0.lock().expect("no panic");
        let (guard, _) = self
            .state
            .1
            .wait_timeout_while(guard, limit, |read| !enough(read) && !read.ended)
            .expect("no panic");
        enough(&guard)
    }
}

impl Background {
    /// The longest it may still take.
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Its process id; also that of its group.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Signals the process.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("it can be signalled");
    }

    /// Writes to standard input.
    pub fn give(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().expect("input is held").write_all(bytes).expect("it takes input");
    }

    /// End of file at standard input.
    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// What it said on standard output so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout.so_far()).into_owned()
    }

    /// What it said on standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.so_far()).into_owned()
    }

    /// Waits until `text` stands in its standard output.
    #[track_caller]
    pub fn expect(&self, text: &str) {
        self.expect_in(&self.stdout, text);
    }

    /// Waits until `text` stands in its standard error.
    #[track_caller]
    pub fn expect_error(&self, text: &str) {
        self.expect_in(&self.stderr, text);
    }

    #[track_caller]
    fn expect_in(&self, taken: &Taken, text: &str) {
        let found = taken.wait(self.limit, |read| contains(&read.bytes, text.as_bytes()));
        assert!(
            found,
            "{}\nnever said `{text}`\nstdout: {}\nstderr: {}",
            self.what,
            shown(&self.stdout.so_far()),
            shown(&self.stderr.so_far())
        );
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("a child");
        }
        self.ended.is_none()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end in time.
    #[track_caller]
    pub fn done(mut self) -> Done {
        let begin = Instant::now();
        let status = loop {
            if !self.runs()
                && let Some(status) = self.ended
            {
                break status;
            }
            assert!(
                begin.elapsed() < self.limit,
                "{}\ndid not end within {:?}\nstdout: {}\nstderr: {}",
                self.what,
                self.limit,
                shown(&self.stdout.so_far()),
                shown(&self.stderr.so_far())
            );
            std::thread::sleep(Duration::from_millis(2));
        };
        let took = self.begin.elapsed();
        // A process it left behind may hold the pipes; what is there by then is all.
        for taken in [&mut self.stdout, &mut self.stderr] {
            let closed = taken.wait(Duration::from_secs(10), |read| read.ended);
            if closed && let Some(thread) = taken.thread.take() {
                thread.join().expect("no panic");
            }
        }
        let stdout = std::mem::take(&mut *self.stdout.state.0.lock().expect("no panic"));
        Done {
            what: self.what.clone(),
            code: status.code(),
            signal: status.signal(),
            digest: (stdout.hash.finalize().to_vec(), stdout.length),
            stdout: stdout.bytes,
            stderr: self.stderr.so_far(),
            took,
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // The whole group; one that has just ended needs no signal.
            let _ = killpg(self.pid(), Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

impl Done {
    /// Standard output as text, without the line break at its end.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end_matches('\n').to_owned()
    }

    /// Standard error as text.
    pub fn error(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.stdout) {
            Ok(value) => value,
            Err(error) => panic!("no JSON ({error}) from {self}"),
        }
    }

    /// It must have ended with this code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "the exit code of {self}");
        self
    }

    /// It must have ended with code 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Standard error must have this text.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.error().contains(text), "`{text}` is missing on standard error of {self}");
        self
    }
}

impl fmt::Display for Done {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", self.what.chars().take(SHOWN).collect::<String>())?;
        writeln!(formatter, "code {:?}, signal {:?}, {:?}", self.code, self.signal, self.took)?;
        writeln!(formatter, "stdout: {}", shown(&self.stdout))?;
        write!(formatter, "stderr: {}", shown(&self.stderr))
    }
}

/// Bytes for a person: the end of them, and how many they were.
fn shown(bytes: &[u8]) -> String {
    let end = &bytes[bytes.len().saturating_sub(SHOWN)..];
    let text = String::from_utf8_lossy(end).escape_debug().to_string().replace("\\n", "\n");
    if end.len() < bytes.len() { format!("({} bytes) …{text}", bytes.len()) } else { text }
}

/// Whether `needle` stands in `bytes`.
pub fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}
