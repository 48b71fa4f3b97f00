//! `casemate run`: a command in a compartment, as `ssh host command` would run it.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use casemate_supervise::control::{self, Failure, Request};
use casemate_supervise::prepare::{PrepareError, Target, World};
use casemate_wire::ExitStatus;
use casemate_wire::limits::MAX_ARGUMENTS;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::arguments::Run;
use crate::connect::{Answer, Supervisor};
use crate::failure::Problem;
use crate::progress::Progress;
use crate::session::{self, End};
use crate::terminal::{self, RawMode};
use crate::{console, say_notes};

/// Exit code when casemate itself failed.
pub(crate) const OWN_FAILURE: u8 = 125;

/// How long the supervisor may take to say why a session was lost.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Times a compartment that is just ending is waited for and started again.
pub(crate) const ATTEMPTS: u32 = 3;

/// What the output thread tells.
enum News {
    /// The command runs; its output is shown once this is dropped.
    Started(std::sync::mpsc::Sender<()>),
    End(End),
}

/// How an attempt to run something went.
enum Attempt {
    Code(u8),
    /// The compartment was just ending: nothing was run.
    Again,
}

/// Runs a command; returns the exit code.
///
/// # Errors
/// casemate itself failed.
pub(crate) fn run(world: &World, arguments: &Run, verbose: bool) -> Result<u8, Problem> {
    world.compartment(&arguments.name)?;
    let wanted = request(arguments);
    check_length(arguments)?;
    in_compartment(world, &arguments.name, arguments.disposable, &wanted, verbose)
}

/// Runs what is wanted in a compartment, or (`disposable`) in a fresh one made from it.
///
/// # Errors
/// casemate itself failed.
pub(crate) fn in_compartment(
    world: &World,
    name: &str,
    disposable: bool,
    wanted: &control::Run,
    verbose: bool,
) -> Result<u8, Problem> {
    let compartment = world.compartment(name)?;
    let target = if disposable {
        if !compartment.disposable_template {
            return Err(PrepareError::NoTemplate(name.into()).into());
        }
        fresh(world, name)?
    } else {
        Target::Declared(name.into())
    };
    crate::event_loop()?.block_on(async {
        let mut target = target;
        for _ in 0..ATTEMPTS {
            match attempt(world, &target, wanted, verbose).await? {
                Attempt::Code(code) => return Ok(code),
                // Another call drew the same number first.
                Attempt::Again if disposable => {
                    target = fresh(world, name)?;
                }
                Attempt::Again => {}
            }
        }
        Err(Problem::answered(&target.name(), Failure::Stopping))
    })
}

/// Opens a session as root with a terminal: `casemate shell --root`.
pub(crate) fn root_shell(world: &World, name: &str, verbose: bool) -> Result<u8, Problem> {
    let arguments = Run {
        disposable: false,
        user: None,
        root: true,
        cwd: None,
        env: vec![],
        detach: false,
        tty: true,
        no_tty: false,
        name: name.into(),
        command: vec![],
    };
    run(world, &arguments, verbose)
}

/// Refuses what no guest would take, before anything is started for it.
fn check_length(arguments: &Run) -> Result<(), Problem> {
    let words: usize = arguments.command.iter().map(|word| word.len()).sum();
    let length = words + arguments.env.iter().map(String::len).sum::<usize>();
    if length <= MAX_ARGUMENTS {
        return Ok(());
    }
    let what = format!("the arguments and variables are too long: {length} bytes");
    Err(Problem::new(what).hint(format!(
        "at most {MAX_ARGUMENTS} bytes can be passed; give the rest on standard input"
    )))
}

fn request(arguments: &Run) -> control::Run {
    let wants_terminal = arguments.tty || (!arguments.no_tty && terminal::is_interactive());
    let terminal = (wants_terminal && !arguments.detach).then(|| {
        let size = terminal::size();
        control::Size { rows: size.rows, columns: size.columns }
    });
    let mut environment = Vec::new();
    if terminal.is_some()
        && let Ok(term) = std::env::var("TERM")
    {
        environment.push(format!("TERM={term}"));
    }
    environment.extend(arguments.env.iter().cloned());
    let texts: Option<Vec<String>> =
        arguments.command.iter().map(|word| word.to_str().map(str::to_owned)).collect();
    let bytes = || arguments.command.iter().map(|word| word.as_bytes().to_vec()).collect();
    let argv_bytes = texts.is_none().then(bytes);
    control::Run {
        argv: texts.unwrap_or_default(),
        argv_bytes,
        environment,
        cwd: arguments.cwd.clone(),
        user: if arguments.root { Some("root".into()) } else { arguments.user.clone() },
        terminal,
        detach: arguments.detach,
        service: None,
        display: display(),
    }
}

/// The socket of the user's compositor, if there is one: what `WAYLAND_DISPLAY` names, in
/// `XDG_RUNTIME_DIR` where it is no path (`wl_display_connect`).
pub(crate) fn display() -> Option<String> {
    let named = std::env::var_os("WAYLAND_DISPLAY").filter(|name| !name.is_empty())?;
    let path = match Path::new(&named).is_absolute() {
        true => named.into(),
        false => PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?).join(named),
    };
    let is_socket = path.metadata().is_ok_and(|found| found.file_type().is_socket());
    path.into_os_string().into_string().ok().filter(|_| is_socket)
}

/// A fresh disposable whose number nobody uses.
pub(crate) fn fresh(world: &World, template: &str) -> Result<Target, Problem> {
    for _ in 0..100 {
        let seed = casemate_host::random::seed()?;
        let number = 1000 + u32::from(u16::from_le_bytes([seed[0], seed[1]])) % 9000;
        let target = Target::Fresh { template: template.into(), number };
        if !world.run_directory(&target.name()).exists() {
            return Ok(target);
        }
    }
    Err(Problem::new(format!("there are too many disposables of `{template}`"))
        .hint("stop some of them; `casemate list` shows them"))
}

async fn attempt(
    world: &World,
    target: &Target,
    wanted: &control::Run,
    verbose: bool,
) -> Result<Attempt, Problem> {
    let name = target.name();
    let mut supervisor = Supervisor::of(world, target).await?;
    if matches!(target, Target::Fresh { .. }) && !supervisor.started_here {
        return Ok(Attempt::Again);
    }
    say_notes(&supervisor.notes);
    let console = if verbose { console::show(world, &name).await.ok() } else { None };
    let request = Request::Run(Box::new(wanted.clone()));
    if wanted.detach {
        supervisor.send(&request, vec![], true).await?;
        return detached(&mut supervisor, &name).await;
    }
    let (ours, theirs) = UnixStream::pair()?;
    if supervisor.send(&request, vec![OwnedFd::from(theirs)], true).await.is_err() {
        return Ok(Attempt::Again);
    }
    let outcome = attached(world, &mut supervisor, &name, wanted, ours).await;
    drop(console);
    outcome
}

async fn detached(supervisor: &mut Supervisor, name: &str) -> Result<Attempt, Problem> {
    let mut progress = Progress::new(format!("starting `{name}`"));
    let mut state = String::new();
    loop {
        match supervisor.news::<control::Progress>(&mut progress, &state).await? {
            Ok(Answer { value, more: true }) => state = value.state,
            Ok(Answer { value, more: false }) => {
                progress.clear();
                outln!("{}", value.session.unwrap_or_default());
                return Ok(Attempt::Code(0));
            }
            Err(Failure::Stopping) => {
                supervisor.closed().await;
                return Ok(Attempt::Again);
            }
            Err(failure) => return Err(Problem::answered(name, failure)),
        }
    }
}

async fn attached(
    world: &World,
    supervisor: &mut Supervisor,
    name: &str,
    wanted: &control::Run,
    ours: UnixStream,
) -> Result<Attempt, Problem> {
    let socket = Arc::new(ours);
    let mut news = hear(socket.clone());
    let mut progress = Progress::new(format!("starting `{name}`"));
    let mut state = String::new();
    let mut session = None;
    let mut signals = None;
    let mut raw = None;
    // Its last answer was given; what the session still says is on its socket.
    let mut answered = false;
    loop {
        let started = signals.is_some();
        tokio::select! {
            // What the session says comes first: its end is the answer.
            biased;
            message = news.recv() => match message {
                Some(News::Started(shows)) => {
                    progress.clear();
                    signals = Some(Signals::catch()?);
                    let resized = if wanted.terminal.is_some() {
                        raw = RawMode::enter();
                        Some(watch_size()?)
                    } else {
                        None
                    };
                    // Not before the terminal is raw: it would be shown otherwise.
                    drop(shows);
                    let socket = socket.clone();
                    std::thread::spawn(move || give_input(&socket, resized));
                }
                Some(News::End(End::Exit(status))) => {
                    drop(raw);
                    return Ok(Attempt::Code(exit(name, wanted, &status)));
                }
                Some(News::End(End::OutputClosed)) => {
                    // As a program ended by SIGPIPE would.
                    return Ok(Attempt::Code(128 + nix::libc::SIGPIPE as u8));
                }
                Some(News::End(End::Lost)) | None => {
                    progress.clear();
                    drop(raw);
                    let opened = started || session.is_some();
                    return lost(supervisor, name, opened).await;
                }
            },
            answer = supervisor.receive::<control::Progress>(), if !answered => match answer {
                Ok(Ok(Answer { value, more })) => {
                    state = value.state;
                    session = value.session.or(session);
                    if let Some(warning) = value.warning {
                        progress.clear();
                        warn(&warning, raw.is_some());
                    }
                    answered = !more;
                }
                // The supervisor has gone: the session's socket will end, after what is left in it.
                Err(_) => answered = true,
                Ok(Err(Failure::Stopping)) if !started => {
                    progress.clear();
                    supervisor.closed().await;
                    return Ok(Attempt::Again);
                }
                Ok(Err(failure)) => {
                    progress.clear();
                    drop(raw);
                    return Err(Problem::answered(name, failure));
                }
            },
            Some(signal) = next_signal(signals.as_mut()) => {
                if let Some(session) = session {
                    let _ = forward(world, name, session, signal).await;
                }
            }
            () = tokio::time::sleep(Duration::from_millis(500)), if !started => {
                progress.tick(&state);
            }
        }
    }
}

/// Shows what did not work while the command goes on.
fn warn(warning: &control::Warning, raw: bool) {
    let control::Warning { what, why, hint } = warning;
    let text = format!("warning: {what}\n  {why}\nhint: {hint}\n");
    // A raw terminal does not go back to the margin by itself.
    eprint!("{}", if raw { text.replace('\n', "\r\n") } else { text });
}

/// Starts the thread that passes the session's output on.
fn hear(socket: Arc<UnixStream>) -> mpsc::UnboundedReceiver<News> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let started = sender.clone();
        let end = session::take_output(&socket, || {
            let (shows, waits) = std::sync::mpsc::channel();
            // Nobody listens any more when the process ends; then nobody waits, either.
            let _ = started.send(News::Started(shows));
            let _ = waits.recv();
        });
        let _ = sender.send(News::End(end));
    });
    receiver
}

fn give_input(socket: &UnixStream, resized: Option<UnixStream>) {
    match resized {
        Some(resized) => session::give_input(socket, &resized),
        None => {
            // A pair whose other end stays open and silent.
            let Ok((silent, _open)) = UnixStream::pair() else { return };
            session::give_input(socket, &silent);
        }
    }
}

/// A socket that becomes readable when the terminal's size changes.
fn watch_size() -> std::io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    signal_hook::low_level::pipe::register(nix::libc::SIGWINCH, write)?;
    Ok(read)
}

/// The session's socket was closed without an exit status: the supervisor knows why.
/// One that was never opened may be tried again: it met a supervisor that was just ending.
async fn lost(supervisor: &mut Supervisor, name: &str, opened: bool) -> Result<Attempt, Problem> {
    let words = async {
        loop {
            match supervisor.receive::<control::Progress>().await? {
                Ok(Answer { more: true, .. }) => {}
                Ok(_) => return Ok(None),
                Err(failure) => return Ok(Some(failure)),
            }
        }
    };
    match tokio::time::timeout(LAST_WORDS, words).await {
        Ok(Ok(Some(Failure::Stopping))) if !opened => {
            supervisor.closed().await;
            Ok(Attempt::Again)
        }
        Ok(Err(_)) if !opened => Ok(Attempt::Again),
        Ok(Ok(Some(failure))) => Err(Problem::answered(name, failure)),
        Ok(Err(problem)) => Err(problem),
        Ok(Ok(None)) | Err(_) => Err(Problem::new(format!("the session in `{name}` was ended"))),
    }
}

/// The exit code of a command that ended, with a word when it never ran.
fn exit(name: &str, wanted: &control::Run, status: &ExitStatus) -> u8 {
    if let ExitStatus::NotFound { reason }
    | ExitStatus::NotExecutable { reason }
    | ExitStatus::AgentFailed { reason } = status
    {
        let service = wanted.service.as_ref().map(|service| &service.name);
        let program = wanted.argv.first().or(service).map_or("the login shell", String::as_str);
        let what = format!("could not run `{program}` in compartment `{name}`");
        eprint!("{}", Problem { causes: vec![reason.clone()], ..Problem::new(what) });
    }
    status.code()
}

/// Signals that are passed on to the command.
struct Signals(Vec<(u8, Signal)>);

impl Signals {
    fn catch() -> std::io::Result<Self> {
        use nix::libc::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
        let mut caught = Vec::new();
        for number in [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2] {
            caught.push((number as u8, signal(SignalKind::from_raw(number))?));
        }
        Ok(Self(caught))
    }
}

/// The next signal that arrives; never when none are caught.
async fn next_signal(signals: Option<&mut Signals>) -> Option<u8> {
    let Some(Signals(signals)) = signals else { return std::future::pending().await };
    std::future::poll_fn(|context| {
        for (number, signal) in signals.iter_mut() {
            if let std::task::Poll::Ready(Some(())) = signal.poll_recv(context) {
                return std::task::Poll::Ready(Some(*number));
            }
        }
        std::task::Poll::Pending
    })
    .await
}

/// Asks the supervisor to signal the command; past the session's socket, where it would stand
/// behind input that the command may never read.
async fn forward(world: &World, name: &str, session: u32, signal: u8) -> Result<(), Problem> {
    let Some(mut supervisor) = Supervisor::running(world.places.runtime(), name)? else {
        return Ok(());
    };
    let request = Request::Signal(control::Signal { session, signal });
    supervisor.ask::<control::Progress>(&request).await.map(drop)
}
