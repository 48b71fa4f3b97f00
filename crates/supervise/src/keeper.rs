//! A supervisor process from its start to its end: claims the compartment, prepares it, says
//! whether it is ready, keeps it, and clears up.
//!
//! Whoever starts it reads one line of JSON ([`Announcement`]) from its standard output.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use casemate_host::facts::{self, Sources};
use casemate_host::linux::LinuxHost;
use casemate_host::places;
use casemate_host::rundir::{Leftovers, RunDirError};
use casemate_host::step::{Applied, StepError};
use casemate_host::{durable, kvm, sockets};
use casemate_image::Image;
use casemate_plan::Step;
use casemate_plan::switch::Switch;
use serde::{Deserialize, Serialize};

use crate::audit::{self, Audit};
use crate::broker;
use crate::chain;
use crate::control::Failure;
use crate::life::Outcome;
use crate::prepare::{PrepareError, Prepared, Purpose, Target, World};
use crate::runtime::{self, Assignment};
use crate::volumes::{self, PassphraseNeeded, Passphrases};

/// Where a compartment's control socket is. It stands beside the run directory, not in it, so that
/// systemd can hold it while no supervisor runs.
pub fn socket_path(runtime: &Path, name: &str) -> PathBuf {
    runtime.join(format!("{name}.sock"))
}

/// First descriptor of socket activation, sd_listen_fds(3).
const FIRST_ACTIVATED: i32 = 3;

/// What to keep.
#[derive(Debug)]
pub struct Start {
    /// Which compartment.
    pub target: Target,
    /// The only configuration to read.
    pub config: Option<PathBuf>,
    /// Passphrases of volumes, typed by who starts it.
    pub passphrases: Passphrases,
}

/// The line a supervisor says when it can tell how its start went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "supervisor")]
pub enum Announcement {
    /// The control socket can be connected to.
    Ready {
        /// Things the user should know.
        notes: Vec<String>,
    },
    /// Another supervisor has the compartment.
    Taken,
    /// There will be none until somebody types a passphrase.
    Passphrase(PassphraseNeeded),
    /// There will be none.
    Failed {
        /// What happened.
        error: String,
        /// What the user can do.
        hint: Option<String>,
        /// Exit code for it.
        code: u8,
    },
}

/// What is remembered of a compartment that has ended: a file in the state directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LastRun {
    /// Nanoseconds since 1970.
    pub ended: u64,
    /// It did not end as somebody wanted.
    pub failed: bool,
    /// Why it ended.
    pub reason: String,
}

/// Where a compartment's [`LastRun`] is kept.
pub fn last_run_path(state: &Path, name: &str) -> PathBuf {
    state.join("last").join(format!("{name}.json"))
}

/// Finds out whether KVM works and prints it; see [`casemate_host::kvm`].
pub fn probe_kvm() -> ExitCode {
    kvm::answer_probe()
}

/// Runs a supervisor until its compartment has ended.
pub fn keep(start: Start) -> ExitCode {
    // Away from the terminal of whoever started it. It fails only for a group leader, as one
    // started by hand or by systemd is, and those need no other session.
    let _ = nix::unistd::setsid();
    forbid_core_dumps();
    let activated = activated_socket();
    close_inherited(activated.as_ref());
    // A copy for the case that nobody else will answer whoever connects.
    let refusing = activated.as_ref().and_then(|socket| socket.try_clone().ok());
    match keep_claimed(&start, activated) {
        Ok(code) => code,
        Err(Trouble::Taken) => {
            announce(&Announcement::Taken);
            ExitCode::FAILURE
        }
        Err(Trouble::Passphrase(needed, error)) => {
            announce(&Announcement::Passphrase(needed));
            if let Some(socket) = refusing {
                refuse_clients(socket, &chain(&*error), error.hint());
            }
            ExitCode::FAILURE
        }
        Err(Trouble::Failed { error, hint, code }) => {
            complain(&error);
            announce(&Announcement::Failed { error: error.clone(), hint: hint.clone(), code });
            if let Some(socket) = refusing {
                refuse_clients(socket, &error, hint);
            }
            ExitCode::from(code)
        }
    }
}

/// Says something on standard error; a full disk behind it must not end a compartment.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "casemate-supervisor: {text}");
}

enum Trouble {
    Taken,
    Passphrase(PassphraseNeeded, Box<PrepareError>),
    Failed { error: String, hint: Option<String>, code: u8 },
}

impl From<PrepareError> for Trouble {
    fn from(error: PrepareError) -> Self {
        if let PrepareError::Passphrase(needed) = &error {
            return Self::Passphrase(needed.clone(), Box::new(error));
        }
        Self::Failed { error: chain(&error), hint: error.hint(), code: error.exit_code() }
    }
}

impl From<StepError> for Trouble {
    fn from(error: StepError) -> Self {
        match error {
            StepError::RunDirectory(RunDirError::Taken { .. }) => Self::Taken,
            other => Self::Failed { error: chain(&other), hint: None, code: 1 },
        }
    }
}

fn trouble(what: &str, error: &dyn std::error::Error) -> Trouble {
    Trouble::Failed { error: format!("{what}: {}", chain(error)), hint: None, code: 1 }
}

fn keep_claimed(start: &Start, activated: Option<OwnedFd>) -> Result<ExitCode, Trouble> {
    let world = World::load(start.config.as_deref())?;
    world.places.make_runtime().map_err(PrepareError::from)?;
    let programs = facts::own_programs(&Sources::current(&world.places));
    let mut host = LinuxHost::new(programs.jail);
    let mut applied = Applied::default();
    let claim = Step::RunDirectory { path: world.run_directory(&start.target.name()) };
    applied.apply(&mut host, &claim)?;
    let routers = start_routers(&world, start);
    if let Err(trouble) = routers {
        applied.undo(&mut host);
        return Err(trouble);
    }
    // Volumes are taken under the claim, so that of two starts only one asks for them.
    let prepared = world.prepare(&start.target, Purpose::Start, &start.passphrases);
    let switches: Vec<Switch> = match &prepared {
        Ok(prepared) => prepared.plan.ports.iter().map(|port| port.switch.clone()).collect(),
        Err(_) => vec![],
    };
    let result = prepared
        .map_err(Trouble::from)
        .and_then(|prepared| serve(&world, start, activated, prepared, &mut host));
    // Before others see that it is gone, so that they never see it gone without a reason.
    if let Ok(outcome) = &result {
        remember(&world, start, outcome);
    }
    for error in applied.undo(&mut host) {
        complain(&chain(&error));
    }
    switches.iter().for_each(casemate_host::switch::tidy);
    Ok(match result? {
        Outcome::Stopped { .. } => ExitCode::SUCCESS,
        Outcome::Failed { .. } => ExitCode::FAILURE,
    })
}

/// Starts the routers that the compartment is behind, unless they run, and waits until they are ready.
/// The command line does so before it starts a supervisor, and can ask for passphrases; this is for
/// those that systemd starts.
fn start_routers(world: &World, start: &Start) -> Result<(), Trouble> {
    for (router, network) in world.routers(start.target.declared())? {
        let mut command = Command::new(broker::command_line(&own_program()));
        command.args(["start", &router]).stdin(Stdio::null()).stdout(Stdio::null());
        if let Some(config) = &start.config {
            command.arg("--config").arg(config);
        }
        let what = format!("could not start `{router}`, the router of the network `{network}`");
        let done = command.output().map_err(|error| trouble(&what, &error))?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            let lines = said.lines().map(|line| line.trim().trim_start_matches("error: "));
            let said: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
            return Err(Trouble::Failed {
                error: format!("{what}: {}", said.join(": ")),
                hint: Some(format!("run: casemate start {router}")),
                code: 1,
            });
        }
    }
    Ok(())
}

/// What has to hold before anything is started.
fn check(world: &World, start: &Start, prepared: &Prepared<'_>) -> Result<Image, Trouble> {
    let Some(image) = &prepared.image else {
        let (image, _) = world.image_of(world.compartment(start.target.declared())?)?;
        return Err(PrepareError::NoImage(image.to_string()).into());
    };
    places::make_directory(&prepared.log_directory).map_err(PrepareError::from)?;
    set_up_log(&prepared.log_directory)
        .map_err(|error| trouble("could not open the log of the compartment", &error))?;
    Ok(image.clone())
}

fn leftovers_note(leftovers: &Leftovers) -> String {
    let who =
        leftovers.holder.as_ref().map_or_else(String::new, |h| format!(" (process {})", h.pid));
    format!("the last supervisor{who} did not end in order; what it left behind was removed")
}

/// Serves the control socket until the life is over.
fn serve<'w>(
    world: &'w World,
    start: &Start,
    activated: Option<OwnedFd>,
    mut prepared: Prepared<'w>,
    host: &'w mut LinuxHost,
) -> Result<Outcome, Trouble> {
    if let Some(leftovers) = host.take_leftovers() {
        prepared.plan.notes.insert(0, leftovers_note(&leftovers));
    }
    let image = check(world, start, &prepared)?;
    let _held = image.hold().map_err(|error| trouble("could not keep the image", &error))?;
    let path = socket_path(world.places.runtime(), &start.target.name());
    let (listener, own) = control_socket(path, activated)
        .map_err(|error| trouble("could not make the control socket", &error))?;
    let event_loop = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| trouble("could not start the event loop", &error))?;
    let notes = prepared.plan.notes.clone();
    let audit = Audit::of(world);
    let name = start.target.name();
    audit.write(&audit::started(&name, &image.digest.to_string(), prepared.plan.acceleration));
    let assignment = Assignment {
        request: prepared.request,
        facts: prepared.facts,
        image,
        image_name: prepared.image_name.to_string(),
        plan: prepared.plan,
        plan_without_kvm: prepared.without_kvm,
        log_directory: prepared.log_directory,
        users: prepared.users,
        volumes: prepared.volumes,
        secrets: prepared.secrets,
        _shares: prepared.shares,
        memory: prepared.memory,
        audit: audit.clone(),
        broker: broker::Program {
            path: broker::command_line(&own_program()),
            config: start.config.clone(),
            source: start.target.name(),
        },
        memory_place: world.memory_place(world.compartment(start.target.declared())?)?,
    };
    let ending = tokio::task::LocalSet::new().block_on(&event_loop, async {
        let listener = tokio::net::UnixListener::from_std(listener)?;
        announce(&Announcement::Ready { notes });
        runtime::run(assignment, host, listener).await
    });
    if let Ok(ending) = &ending {
        audit.write(&audit::stopped(&name, &ending.outcome));
    }
    drop(own);
    let ending = ending.map_err(|error| trouble("could not keep the compartment", &error))?;
    if ending.kvm_never_worked
        && let Ok(state) = world.places.state()
        && let Err(error) = kvm::remember_silent_guest(state)
    {
        tracing::warn!("could not remember that KVM does not work here: {error}");
    }
    let compartment = world.compartment(start.target.declared())?;
    if let (Some(rule), Outcome::Stopped { .. }) = (&compartment.keep_snapshots, &ending.outcome) {
        volumes::keep_state(ending.volumes, rule.as_str());
    }
    Ok(ending.outcome)
}

/// Where the clipboard's commands reach the proxy of a compartment that shows windows.
pub fn clipboard_socket(run_directory: &Path) -> PathBuf {
    run_directory.join("clipboard")
}

/// Where connections to the user's compositor are made that it knows for the compartment's.
pub(crate) fn compositor_socket(run_directory: &Path) -> PathBuf {
    run_directory.join("compositor")
}

/// The file of this program.
fn own_program() -> PathBuf {
    std::env::current_exe().unwrap_or_default()
}

/// The control socket: systemd's, or one that goes with this supervisor.
fn control_socket(
    path: PathBuf,
    activated: Option<OwnedFd>,
) -> io::Result<(UnixListener, Option<OwnSocket>)> {
    let (listener, own) = match activated {
        Some(descriptor) => (UnixListener::from(descriptor), None),
        None => {
            let (listener, own) = listen(path)?;
            (listener, Some(own))
        }
    };
    listener.set_nonblocking(true)?;
    Ok((listener, own))
}

/// A socket file that goes with its supervisor.
struct OwnSocket(PathBuf);

impl Drop for OwnSocket {
    fn drop(&mut self) {
        // Whoever starts the compartment next removes what is left.
        let _ = fs::remove_file(&self.0);
    }
}

/// Listens at `path`. What is there belongs to a supervisor that was killed: this one has the
/// compartment's lock.
fn listen(path: PathBuf) -> io::Result<(UnixListener, OwnSocket)> {
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = sockets::listen(&path)?;
    Ok((listener, OwnSocket(path)))
}

/// Says one line to whoever started this process, and closes standard output.
fn announce(announcement: &Announcement) {
    let mut line = serde_json::to_string(announcement).unwrap_or_default();
    line.push('\n');
    let mut out = io::stdout();
    // Nobody has to listen.
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    if let Ok(null) = OpenOptions::new().write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdout(null);
    }
}

/// Standard error and tracing go to `supervisor.log` from now on. Logs begin anew with each start;
/// those of the start before are kept beside them.
fn set_up_log(directory: &Path) -> io::Result<()> {
    for name in ["supervisor.log", "console.log"] {
        let path = directory.join(name);
        match fs::rename(&path, directory.join(format!("{name}.1"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let path = directory.join("supervisor.log");
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    nix::unistd::dup2_stderr(&log)?;
    let filter = tracing_subscriber::EnvFilter::try_from_env("CASEMATE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // A second subscriber in one process cannot happen; nothing is lost if it did.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        // It would say so on standard error, and panic when that is the full disk.
        .log_internal_errors(false)
        .with_writer(io::stderr)
        .try_init();
    Ok(())
}

/// Keeps that a compartment's supervisor was killed, for `status`; said by whoever finds what it
/// left behind.
pub fn remember_killed(world: &World, name: &str) {
    let reason = "its supervisor was killed".into();
    keep_last_run(
        world,
        name,
        LastRun { ended: casemate_host::clock::now_ns(), failed: true, reason },
    );
}

/// Keeps how the compartment ended, for `status`. A disposable leaves nothing.
fn remember(world: &World, start: &Start, outcome: &Outcome) {
    let (failed, reason) = match outcome {
        Outcome::Stopped { why } => (false, why.clone()),
        Outcome::Failed { reason } => (true, reason.clone()),
    };
    tracing::info!("ended: {reason}");
    if let Target::Declared(name) = &start.target {
        let ended = casemate_host::clock::now_ns();
        keep_last_run(world, name, LastRun { ended, failed, reason });
    }
}

fn keep_last_run(world: &World, name: &str, last: LastRun) {
    let Ok(state) = world.places.state() else { return };
    let path = last_run_path(state, name);
    let kept = path
        .parent()
        .map_or(Ok(()), |parent| places::make_directory(parent).map_err(|error| chain(&error)))
        .and_then(|()| durable::store(&path, &last).map_err(|error| chain(&error)));
    if let Err(error) = kept {
        tracing::warn!("could not keep how it ended: {error}");
    }
}

/// Keys and secrets of the compartment are in this process: with a limit of 1 the kernel neither
/// writes a core dump nor pipes one to a handler (core(5), fs/coredump.c).
fn forbid_core_dumps() {
    use nix::sys::resource::{Resource, setrlimit};
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 1, 1) {
        tracing::debug!("core dumps are as they were: {error}");
    }
}

/// Closes what whoever started this process had open: a lock or a pipe of his must not stay held
/// for as long as the compartment runs.
#[expect(unsafe_code, reason = "close_range(2) has no safe wrapper")]
fn close_inherited(activated: Option<&OwnedFd>) {
    let first = match activated {
        Some(_) => FIRST_ACTIVATED + 1,
        None => FIRST_ACTIVATED,
    };
    // SAFETY: this is the beginning of the process; nothing of it has opened a descriptor yet but
    // the activated socket, which is spared. A kernel without the call leaves them open.
    unsafe { nix::libc::syscall(nix::libc::SYS_close_range, first, u32::MAX, 0) };
}

/// Tells the clients of an activated socket why there is no compartment; systemd would otherwise
/// start one supervisor after the other for the same unanswered connection.
fn refuse_clients(socket: OwnedFd, error: &str, hint: Option<String>) {
    let listener = UnixListener::from(socket);
    let failure = Failure::Ended { reason: error.to_owned(), hint };
    if listener.set_nonblocking(true).is_err() {
        return;
    }
    // Those that wait already; who comes later starts the next try.
    while let Ok((client, _)) = listener.accept() {
        refuse(client, &failure);
    }
}

/// Tells one client why there is no compartment, whatever it asks.
pub(crate) fn refuse(mut client: UnixStream, failure: &Failure) {
    use std::io::Read;
    let mut reply = serde_json::to_vec(&failure.to_reply()).unwrap_or_default();
    reply.push(0);
    let patience = Some(std::time::Duration::from_secs(1));
    let _ = client.set_nonblocking(false);
    let _ = client.set_read_timeout(patience);
    let _ = client.set_write_timeout(patience);
    let _ = client.read(&mut [0; 4096]);
    let _ = client.write_all(&reply);
}

/// The listening socket systemd passed, sd_listen_fds(3).
#[expect(unsafe_code, reason = "activated sockets are inherited as plain numbers")]
fn activated_socket() -> Option<OwnedFd> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    if number("LISTEN_PID")? != std::process::id() || number("LISTEN_FDS")? < 1 {
        return None;
    }
    // SAFETY: the variables above say that systemd passed this descriptor to this very process,
    // and it is taken once, before anything else was opened.
    let descriptor = unsafe { OwnedFd::from_raw_fd(FIRST_ACTIVATED) };
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    let _ = fcntl(&descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
    Some(descriptor)
}
