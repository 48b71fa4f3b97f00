//! Asking the user about a call that the policy leaves to him. The guest has no part in it: it draws
//! nothing, chooses no word but the service's name (which the policy's language bounds), and waits.
//!
//! Asked is, in this order: the program of `[ask]`; `casemate ask` where it runs in a terminal; a
//! dialogue of the desktop. Where there is none, and when nobody answers in time, the answer is no.

use std::fs;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use casemate_host::sockets;
use casemate_supervise::prepare::{PrepareError, World};
use serde::{Deserialize, Serialize};

use crate::failure::Problem;

/// Longest answer, in bytes: the name of a target, and some.
const MAX_ANSWER: u64 = 4096;

/// How often a program is looked at that has not answered yet.
const LOOK: Duration = Duration::from_millis(20);

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Question {
    /// Who calls.
    pub(super) source: String,
    /// `SERVICE` or `SERVICE+ARGUMENT`.
    pub(super) service: String,
    /// Where it can go, at least one.
    pub(super) choices: Vec<String>,
    /// What is offered first.
    pub(super) default: Option<String>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
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

/// Asks, and waits for the answer.
pub(super) fn ask(world: &World, question: &Question) -> Answer {
    let settings = &world.settings().ask;
    let deadline = Instant::now() + settings.timeout;
    if let Some(program) = &settings.program {
        let mut command = Command::new(program.as_path());
        command.arg(question.text());
        return run(command, question, deadline);
    }
    match sockets::connect(&socket(world)) {
        Ok(terminal) => return in_terminal(terminal, question, deadline),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Answer::No(format!("could not ask in the terminal: {error}"));
        }
        // Nobody has one open.
        Err(_) => {}
    }
    match dialogue(question) {
        Some(command) => run(command, question, deadline),
        None => Answer::No(
            "there is nobody to ask: no desktop dialogue (zenity or kdialog), no `casemate ask` in \
             a terminal, no program in [ask]"
                .into(),
        ),
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

/// Runs a program that asks: it prints the chosen target.
fn run(mut command: Command, question: &Question, deadline: Instant) -> Answer {
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
    let stdout = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let read = stdout.map(|stdout| stdout.take(MAX_ANSWER).read_to_string(&mut text));
        read.and_then(Result::ok).map(|_| text)
    });
    let status = loop {
        match child.try_wait() {
            Ok(None) if Instant::now() < deadline => std::thread::sleep(LOOK),
            Ok(Some(status)) => break status,
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return Answer::No(format!("{what} had no answer in time"));
            }
        }
    };
    if !status.success() {
        return Answer::No(format!("the user said no ({what}, {status})"));
    }
    // Others may hold its output open; what it said itself is there.
    match reader.join().ok().flatten() {
        Some(text) => question.judge(&text),
        None => Answer::No(format!("could not read the answer of {what}")),
    }
}

/// Where a terminal that answers listens.
fn socket(world: &World) -> PathBuf {
    world.places.runtime().join("ask.sock")
}

fn in_terminal(terminal: UnixStream, question: &Question, deadline: Instant) -> Answer {
    let exchange = || -> io::Result<Option<String>> {
        let mut line = serde_json::to_vec(question).map_err(io::Error::other)?;
        line.push(b'\n');
        (&terminal).write_all(&line)?;
        let left = deadline.saturating_duration_since(Instant::now());
        terminal.set_read_timeout(Some(left.max(LOOK)))?;
        let mut answer = String::new();
        BufReader::new((&terminal).take(MAX_ANSWER)).read_line(&mut answer)?;
        Ok(answer.ends_with('\n').then_some(answer))
    };
    match exchange() {
        Ok(Some(answer)) => question.judge(&answer),
        Ok(None) => Answer::No("the terminal that was asked has gone".into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Answer::No("nobody answered in the terminal in time".into())
        }
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
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run(command, &question(), Instant::now() + timeout)
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
    fn a_terminal_that_goes_away_has_said_no() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        drop(theirs);
        let answer = in_terminal(ours, &question(), Instant::now() + LONG);
        assert!(matches!(answer, Answer::No(_)), "{answer:?}");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        (&theirs).write_all(b"a\n").expect("written");
        let answer = in_terminal(ours, &question(), Instant::now() + LONG);
        assert_eq!(answer, Answer::Target("a".into()));
    }
}
