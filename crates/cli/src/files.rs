//! `copy`, `move`: files from the host into a compartment's `~/Incoming/dom0`, and from a compartment into
//! `~/Incoming/NAME` of the host.
//!
//! What the host sends, this process reads. What a guest sends, another reads that can do nothing else:
//! [`take`].

mod confine;
pub(crate) mod frames;
pub(crate) mod open;
pub(crate) mod session;
pub(crate) mod take;
pub(crate) mod taker;

use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};

use casemate_audit::Event;
use casemate_files::{Bar, Reply, Sender, WalkError};
use casemate_supervise::control;
use casemate_supervise::prepare::{Target, World};
use casemate_wire::Service;
use casemate_wire::text::harmless_line;

use crate::arguments::Copy;
use crate::audit;
use crate::failure::Problem;
use frames::FrameWriter;
use taker::{Report, Taker, What};

/// The service that takes files in a guest.
const SERVICE: &str = "casemate.Filecopy";

/// The agent's program in a guest, and what makes it send files.
pub(crate) const AGENT: &str = "/run/casemate/agent";
const SEND: &str = "--send-files";

/// `casemate copy` and `casemate move`.
pub(crate) fn copy(
    world: &World,
    arguments: &Copy,
    moving: bool,
    verbose: bool,
) -> Result<u8, Problem> {
    match direction(&arguments.words)? {
        Direction::In { paths, name } => copy_in(world, &paths, &name, moving, verbose),
        Direction::Out { name, paths } => copy_out(world, &name, &paths, moving, verbose),
    }
}

/// From where to where.
#[derive(Debug, PartialEq, Eq)]
enum Direction {
    In { paths: Vec<PathBuf>, name: String },
    Out { name: String, paths: Vec<String> },
}

/// `FILE… NAME:` or `NAME:PATH…`. A file of the host with a colon in its name is written with a slash.
fn direction(words: &[String]) -> Result<Direction, Problem> {
    let usage = |what: &str| Problem {
        code: 2,
        ..Problem::new(what).hint("either FILE… NAME:, or NAME:PATH…; see --help")
    };
    let remote = |word: &str| {
        let (name, path) = word.split_once(':')?;
        (!name.is_empty() && !name.contains('/')).then(|| (name.to_owned(), path.to_owned()))
    };
    let Some((last, files)) = words.split_last() else {
        return Err(usage("there is nothing to copy"));
    };
    if let Some((name, path)) = remote(last)
        && path.is_empty()
        && !files.is_empty()
    {
        if files.iter().any(|word| remote(word).is_some()) {
            return Err(usage(
                "files go from the host to a compartment or back, one way at a time",
            ));
        }
        return Ok(Direction::In { paths: files.iter().map(PathBuf::from).collect(), name });
    }
    let all: Option<Vec<_>> = words.iter().map(|word| remote(word)).collect();
    let Some(all) = all else {
        return Err(usage("no compartment is named, or it is not clear which way files shall go"));
    };
    let name = all[0].0.clone();
    if all.iter().any(|(other, path)| *other != name || path.is_empty()) {
        return Err(usage("files are fetched from one compartment at a time, by their paths"));
    }
    Ok(Direction::Out { name, paths: all.into_iter().map(|(_, path)| path).collect() })
}

impl From<WalkError> for Problem {
    fn from(error: WalkError) -> Self {
        let problem = Self::new(error.to_string());
        match std::error::Error::source(&error) {
            Some(source) => problem.because(source),
            None => problem,
        }
    }
}

/// Looks at what shall go, and tells what is left out.
fn prepare(paths: &[PathBuf], moving: bool) -> Result<Sender, Problem> {
    let sender = Sender::new(paths, moving)?;
    for left in &sender.survey().left_out {
        let path = harmless_line(&left.path.to_string_lossy(), 4096);
        eprintln!("note: {path} is left out: {}", left.why);
    }
    Ok(sender)
}

fn service(name: &str, argument: &str, target: &str) -> control::Run {
    control::Run {
        service: Some(control::Service {
            name: name.into(),
            argument: argument.into(),
            source: Service::HOST.into(),
            target: target.into(),
        }),
        ..control::Run::default()
    }
}

fn copy_in(
    world: &World,
    paths: &[PathBuf],
    name: &str,
    moving: bool,
    verbose: bool,
) -> Result<u8, Problem> {
    world.compartment(name)?;
    let sender = prepare(paths, moving)?;
    let wanted = service(SERVICE, "", name);
    let socket = session::open(world, &Target::Declared(name.into()), &wanted, verbose)?;
    let mut taker = Taker::start(&What::Reply, &socket, None)?;
    let (sent, reply) = send(sender, &socket, &mut taker);
    let totals = sent.as_ref().map(|sent| sent.totals).ok();
    let confirmed = confirm(name, sent, reply);
    let event = Event::of(name, "copy").with("from", Service::HOST).with("to", name);
    let event = match (totals, &confirmed) {
        (Some(totals), Ok(_)) => event
            .with("items", totals.items)
            .with("files", totals.entries)
            .with("bytes", totals.bytes),
        _ => event,
    };
    audit::note(world, event.with("whole", confirmed.is_ok()));
    let sent = confirmed?;
    if !moving {
        return Ok(0);
    }
    let kept = sent.remove();
    if kept.is_empty() {
        return Ok(0);
    }
    let mut problem = Problem::new("it was copied, and not everything could be removed here");
    problem.causes = kept
        .iter()
        .map(|(path, error)| format!("{}: {error}", harmless_line(&path.to_string_lossy(), 4096)))
        .collect();
    Err(problem)
}

/// Sends everything while `taker` listens for the answer.
fn send(
    sender: Sender,
    socket: &std::os::unix::net::UnixStream,
    taker: &mut Taker,
) -> (Result<casemate_files::Sent, casemate_files::SendError>, Result<Reply, Problem>) {
    let mut bar = Bar::new(sender.survey().bytes);
    let terminal = stderr().is_terminal();
    let mut progress = |done| {
        if terminal && let Some(line) = bar.line(done) {
            eprint!("{line}");
        }
    };
    let mut out = FrameWriter::new(socket);
    let (sent, reply) = std::thread::scope(|scope| {
        let listening = scope.spawn(|| {
            let heard = taker.next_reply();
            if !matches!(heard, Ok(Reply { problem: None, .. })) {
                // Nobody takes the rest.
                let _ = socket.shutdown(std::net::Shutdown::Write);
            }
            heard
        });
        let sent = sender.send(&mut out, &mut progress);
        // The end of what is said; who has gone needs none.
        let _ = out.end();
        let heard = listening.join();
        (sent, heard.unwrap_or_else(|_| Err(Problem::new("could not hear the answer"))))
    });
    if let Some(line) = bar.clear() {
        eprint!("{line}");
    }
    (sent, reply)
}

/// What was sent, when the receiver has it all.
fn confirm(
    name: &str,
    sent: Result<casemate_files::Sent, casemate_files::SendError>,
    reply: Result<Reply, Problem>,
) -> Result<casemate_files::Sent, Problem> {
    let failed = |causes: Vec<String>| Problem {
        causes,
        ..Problem::new(format!("not everything arrived in `{name}`"))
    };
    use casemate_files::SendError;
    match (sent, reply) {
        (Err(error), _) if !matches!(error, SendError::Write(_)) => {
            Err(Problem::new("could not send everything").because(&error))
        }
        (_, Err(problem)) => Err(problem),
        (_, Ok(Reply { problem: Some(problem), .. })) => {
            Err(failed(vec![harmless_line(&problem, 512)]))
        }
        (Ok(sent), Ok(reply)) if sent.is_confirmed_by(&reply) => Ok(sent),
        (Ok(_), Ok(_)) => Err(failed(vec!["what it confirmed is not what was sent".into()])),
        (Err(error), Ok(_)) => Err(failed(vec![error.to_string()])),
    }
}

fn copy_out(
    world: &World,
    name: &str,
    paths: &[String],
    moving: bool,
    verbose: bool,
) -> Result<u8, Problem> {
    world.compartment(name)?;
    let home = home(world)?;
    let mut argv = vec![AGENT.to_owned(), SEND.to_owned()];
    argv.extend(moving.then(|| "--move".to_owned()));
    argv.push("--".into());
    // The guest's shell is not there to do it.
    argv.extend(paths.iter().map(|path| path.strip_prefix("~/").unwrap_or(path).to_owned()));
    let wanted = control::Run { argv, ..control::Run::default() };
    let socket = session::open(world, &Target::Declared(name.into()), &wanted, verbose)?;
    let what = What::Folder { home: home.into(), source: name.into(), served: false };
    let mut taker = Taker::start(&what, &socket, None)?;
    drop(socket);
    let mut bar = None;
    let mut last = None;
    while let Some(report) = taker.next()? {
        match report {
            Report::Progress { bytes, total } => {
                let bar = bar.get_or_insert_with(|| Bar::new(total));
                if stderr().is_terminal()
                    && let Some(line) = bar.line(bytes)
                {
                    eprint!("{line}");
                }
            }
            Report::Reply(_) | Report::Application { .. } | Report::Note(_) => {}
            Report::Done(done) => last = Some(done),
        }
    }
    if let Some(line) = bar.as_mut().and_then(Bar::clear) {
        eprint!("{line}");
    }
    let Some(done) = last else { return Err(taker.vanished()) };
    let event = Event::of(name, "copy").with("from", name).with("to", Service::HOST);
    let event = event.with("items", done.items).with("files", done.entries);
    let event = event.with("bytes", done.bytes).with("whole", done.problem.is_none());
    audit::note(world, event);
    for name in &done.names {
        outln!("{}", harmless_line(&done.folder.join(name).display().to_string(), 8192));
    }
    if !done.said.is_empty() {
        eprintln!("note: `{name}` says: {}", harmless_line(done.said.trim_end(), 2048));
    }
    match (&done.problem, done.code) {
        (None, Some(0)) => Ok(0),
        (problem, _) => {
            let mut said = Problem::new(format!("not everything could be fetched from `{name}`"));
            said.causes = match problem {
                Some(problem) => vec![harmless_line(problem, 1024)],
                None => vec!["its sender did not end well".into()],
            };
            Err(said)
        }
    }
}

/// Where the user's own files are.
pub(crate) fn home(world: &World) -> Result<&Path, Problem> {
    let home = world.environment.home.as_deref();
    home.ok_or_else(|| Problem::new("there is no home for what arrives").hint("set HOME"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(words: &[&str]) -> Option<Direction> {
        direction(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()).ok()
    }

    #[test]
    fn the_colon_says_which_way() {
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect();
        let name = "work".to_owned();
        assert_eq!(
            way(&["a", "./b:c", "work:"]),
            Some(Direction::In { paths: paths(&["a", "./b:c"]), name: name.clone() })
        );
        assert_eq!(
            way(&["work:a", "work:/b:c"]),
            Some(Direction::Out { name, paths: vec!["a".into(), "/b:c".into()] })
        );
        for wrong in [
            &[][..],
            &["a"],
            &["a", "b"],
            &["work:"],
            &["work:a", "b"],
            &["a:b", "c:"],
            &["a:b", "c:d"],
        ] {
            assert_eq!(way(wrong), None, "{wrong:?}");
        }
    }
}
