//! Asking the user about a call that the policy leaves to him. The guest has no part in it: it draws
//! nothing, chooses no word but the service's name (which the policy's language bounds), and waits.
//!
//! Asked is, in this order: the program of `[ask]`; `casemate ask` where it runs in a terminal; a
//! dialogue of the desktop. Where there is none, and when nobody answers in time, the answer is no.

use std::fs;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use casemate_host::sockets;
use casemate_supervise::prepare::{PrepareError, World};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use crate::failure::Problem;

/// Longest answer, in bytes: the name of a target, and some.
const MAX_ANSWER: usize = 4096;

/// How often a program is looked at that has answered and not ended yet.
const LOOK: Duration = Duration::from_millis(20);

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Question {
    /// Who calls.
    pub(crate) source: String,
    /// `SERVICE` or `SERVICE+ARGUMENT`.
    pub(crate) service: String,
    /// Where it can go, at least one.
    pub(crate) choices: Vec<String>,
    /// What is offered first.
    pub(crate) default: Option<String>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It may go there.
    Target(String),
    /// It may not; why, for the log.
    No(String),
}

impl Question {
    /// The question in a sentence.
    fn text(&self) -> String {
        match &self.choices[..] {
            [one] => format!("May `{}` call {} of `{one}`?", self.source, self.service),
            _ => format!("Whom may `{}` call for {}?", self.source, self.service),
        }
    }

    /// The choices, the one that is offered first at the beginning.
    fn ordered(&self) -> Vec<&str> {
        let mut all: Vec<&str> = self.choices.iter().map(String::as_str).collect();
        if let Some(first) = self.default.as_deref() {
            all.sort_by_key(|choice| *choice != first);
        }
        all
    }

    /// A word is an answer only when it is one of the choices.
    fn judge(&self, word: &str) -> Answer {
        match self.choices.iter().find(|choice| *choice == word.trim()) {
            Some(choice) => Answer::Target(choice.clone()),
            None => Answer::No("the user said no".into()),
        }
    }
}

/// Asks, and waits for the answer, as long as `caller`, a socket, is open at its other end.
pub(crate) fn ask(world: &World, question: &Question, caller: BorrowedFd<'_>) -> Answer {
    let settings = &world.settings().ask;
    let wait = Wait { until: Instant::now() + settings.timeout, caller };
    if let Some(program) = &settings.program {
        let mut command = Command::new(program.as_path());
        command.arg(question.text());
        return run(command, question, wait);
    }
    match sockets::connect(&socket(world)) {
        Ok(terminal) => return in_terminal(terminal, question, wait),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Answer::No(format!("could not ask in the terminal: {error}"));
        }
        // Nobody has one open.
        Err(_) => {}
    }
    match dialogue(question) {
        Some(command) => run(command, question, wait),
        None => Answer::No(
            "there is nobody to ask: no desktop dialogue (zenity or kdialog), no `casemate ask` in \
             a terminal, no program in [ask]"
                .into(),
        ),
    }
}

/// The other end of a socket is closed.
pub(super) fn is_closed(socket: BorrowedFd<'_>) -> bool {
    let mut watched = [PollFd::new(socket, PollFlags::empty())];
    let found = poll(&mut watched, PollTimeout::ZERO);
    found.is_ok_and(|count| count > 0)
}

/// How long an answer is waited for.
#[derive(Clone, Copy)]
struct Wait<'a> {
    until: Instant,
    caller: BorrowedFd<'a>,
}

impl Wait<'_> {
    /// A line of whoever was asked; why there is none.
    fn line(&self, from: &mut (impl Read + AsFd)) -> Result<String, &'static str> {
        let mut line = Vec::new();
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            // Rounded up, so that it is over when poll says so.
            let left = PollTimeout::try_from(left + Duration::from_micros(999));
            let mut watched = [
                PollFd::new(from.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.caller, PollFlags::empty()),
            ];
            match poll(&mut watched, left.unwrap_or(PollTimeout::MAX)) {
                Ok(0) => return Err("there was no answer in time"),
                Err(Errno::EINTR) => continue,
                Err(_) => return Err("the answer could not be waited for"),
                Ok(_) if watched[1].any() == Some(true) => return Err("whoever called has gone"),
                Ok(_) => {}
            }
            let mut bytes = [0; 256];
            match from.read(&mut bytes) {
                // A program may leave out the end of its only line.
                Ok(0) => break,
                Ok(count) => line.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err("the answer could not be read"),
            }
            if line.contains(&b'\n') || line.len() > MAX_ANSWER {
                break;
            }
        }
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        Ok(String::from_utf8_lossy(line).into_owned())
    }
}

/// What the desktop has for it. The words on it are ours and names that have no markup in them.
fn dialogue(question: &Question) -> Option<Command> {
    if !["WAYLAND_DISPLAY", "DISPLAY"].iter().any(|name| std::env::var_os(name).is_some()) {
        return None;
    }
    let title = format!("casemate: {}", question.source);
    let choices = question.ordered();
    if let Some(zenity) = find("zenity") {
        let mut command = Command::new(zenity);
        command.args(["--list", "--width=480", "--height=320", "--title", &title]);
        command.args(["--text", &question.text(), "--column", "target"]).args(choices);
        return Some(command);
    }
    let mut command = Command::new(find("kdialog")?);
    command.args(["--title", &title, "--menu", &question.text()]);
    command.args(choices.iter().flat_map(|choice| [choice, choice]));
    Some(command)
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Runs a program that asks: it prints the chosen target, and ends with 0. It is killed when nobody
/// waits for it any more.
fn run(mut command: Command, question: &Question, wait: Wait<'_>) -> Answer {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.env("CASEMATE_SOURCE", &question.source);
    command.env("CASEMATE_SERVICE", &question.service);
    command.env("CASEMATE_DEFAULT", question.default.as_deref().unwrap_or_default());
    let what = command.get_program().to_string_lossy().into_owned();
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Answer::No(format!("could not ask by {what}: {error}")),
    };
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read them has them in its question.
        let _ = stdin.write_all((question.ordered().join("\n") + "\n").as_bytes());
    }
    let Some(mut stdout) = child.stdout.take() else {
        return Answer::No(format!("could not hear {what}"));
    };
    let said = wait.line(&mut stdout).and_then(|line| {
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok((line, status)),
                Ok(None) if Instant::now() < wait.until => std::thread::sleep(LOOK),
                _ => return Err("there was no answer in time"),
            }
        }
    });
    match said {
        Ok((line, status)) if status.success() => question.judge(&line),
        Ok((_, status)) => Answer::No(format!("the user said no ({what}, {status})")),
        Err(why) => {
            let _ = child.kill();
            let _ = child.wait();
            Answer::No(format!("{why} ({what})"))
        }
    }
}

/// Where a terminal that answers listens.
fn socket(world: &World) -> PathBuf {
    world.places.runtime().join("ask.sock")
}

fn in_terminal(mut terminal: UnixStream, question: &Question, wait: Wait<'_>) -> Answer {
    let put = serde_json::to_vec(question).map_err(io::Error::other).and_then(|mut line| {
        line.push(b'\n');
        terminal.write_all(&line)
    });
    match put {
        Ok(()) => match wait.line(&mut terminal) {
            Ok(line) => question.judge(&line),
            Err(why) => Answer::No(format!("{why} (in the terminal)")),
        },
        Err(error) => Answer::No(format!("could not ask in the terminal: {error}")),
    }
}

/// `casemate ask`: answers questions in this terminal until it is interrupted.
pub(crate) fn answer_here(world: &World) -> Result<u8, Problem> {
    if !io::stdin().is_terminal() {
        return Err(Problem::new("questions can be answered in a terminal only")
            .hint("a program can answer them, too: see [ask] in the configuration"));
    }
    world.places.make_runtime().map_err(PrepareError::from)?;
    let path = socket(world);
    if sockets::connect(&path).is_ok() {
        return Err(Problem::new("another terminal answers questions already"));
    }
    remove_stale(&path)?;
    let listener = sockets::listen(&path)?;
    outln!("questions about calls are answered here; Ctrl-C ends it");
    for connection in listener.incoming() {
        // One that went away meanwhile is no reason to end.
        let _ = answer_one(connection?);
    }
    Ok(0)
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn answer_one(connection: UnixStream) -> io::Result<()> {
    let mut line = String::new();
    BufReader::new((&connection).take(1 << 20)).read_line(&mut line)?;
    let question: Question = serde_json::from_str(&line).map_err(io::Error::other)?;
    outln!("\n{}", question.text());
    let choices = question.ordered();
    let single = choices.len() == 1;
    if !single {
        for (number, choice) in choices.iter().enumerate() {
            outln!("  {}. {choice}", number + 1);
        }
    }
    out!("{}", if single { "y/N: " } else { "number, or nothing for no: " });
    io::stdout().flush()?;
    let mut word = String::new();
    io::stdin().read_line(&mut word)?;
    let chosen = match word.trim() {
        "y" | "Y" | "yes" if single => choices.first(),
        number => {
            number.parse::<usize>().ok().and_then(|number| choices.get(number.wrapping_sub(1)))
        }
    };
    let mut answer = chosen.copied().unwrap_or_default().to_owned();
    answer.push('\n');
    (&connection).write_all(answer.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        Question {
            source: "web".into(),
            service: "casemate.Date".into(),
            choices: vec!["a".into(), "b".into()],
            default: Some("b".into()),
        }
    }

    fn by(script: &str, timeout: Duration) -> Answer {
        let (caller, _link) = UnixStream::pair().expect("a pair");
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run(command, &question(), Wait { until: Instant::now() + timeout, caller: caller.as_fd() })
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn only_one_of_the_choices_is_a_yes() {
        assert_eq!(by("echo a", LONG), Answer::Target("a".into()));
        assert_eq!(by("head -n 1", LONG), Answer::Target("b".into()), "the default comes first");
        assert_eq!(by("echo $CASEMATE_DEFAULT", LONG), Answer::Target("b".into()));
        for script in ["echo c", "echo", "true", "echo a; exit 1", "echo a b", "kill -9 $$"] {
            assert!(matches!(by(script, LONG), Answer::No(_)), "{script}");
        }
    }

    #[test]
    fn no_answer_in_time_is_no() {
        let begin = Instant::now();
        let answer = by("exec sleep 60", Duration::from_millis(100));
        assert!(matches!(&answer, Answer::No(why) if why.contains("in time")), "{answer:?}");
        assert!(begin.elapsed() < LONG);
    }

    #[test]
    fn a_program_that_leaves_others_behind_is_not_waited_for() {
        let begin = Instant::now();
        assert_eq!(by("echo a; sleep 30 &", LONG), Answer::Target("a".into()));
        assert!(begin.elapsed() < LONG);
    }

    #[test]
    fn a_question_whose_caller_goes_is_taken_back() {
        let (caller, link) = UnixStream::pair().expect("a pair");
        assert!(!is_closed(caller.as_fd()));
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0\"; exec sleep 60"]).arg(file.path());
        let asked = std::thread::spawn(move || {
            let wait = Wait { until: Instant::now() + LONG, caller: caller.as_fd() };
            (run(command, &question(), wait), is_closed(caller.as_fd()))
        });
        let pid = loop {
            let text = fs::read_to_string(file.path()).expect("read");
            if let Ok(pid) = text.trim().parse::<i32>() {
                break pid;
            }
            std::thread::sleep(LOOK);
        };
        drop(link);
        let (answer, closed) = asked.join().expect("asked");
        assert!(matches!(&answer, Answer::No(why) if why.contains("has gone")), "{answer:?}");
        assert!(closed);
        let gone = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None);
        assert_eq!(gone, Err(Errno::ESRCH), "the program goes with it");
    }

    #[test]
    fn a_terminal_that_goes_away_has_said_no() {
        let (caller, _link) = UnixStream::pair().expect("a pair");
        let wait = Wait { until: Instant::now() + LONG, caller: caller.as_fd() };
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        drop(theirs);
        let answer = in_terminal(ours, &question(), wait);
        assert!(matches!(answer, Answer::No(_)), "{answer:?}");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        (&theirs).write_all(b"a\n").expect("written");
        let answer = in_terminal(ours, &question(), wait);
        assert_eq!(answer, Answer::Target("a".into()));
    }
}
