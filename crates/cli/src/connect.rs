//! Reaching a compartment's supervisor, and starting one where there is none.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use casemate_host::facts::{self, Sources};
use casemate_host::{rundir, sockets};
use casemate_supervise::control::{ErrorReply, Failure, Progress, Request};
use casemate_supervise::keeper::{Announcement, socket_path};
use casemate_supervise::prepare::{Target, World};
use serde::de::DeserializeOwned;
use zlink::tokio::unix::Stream;
use zlink::{Call, Connection};

use crate::failure::Problem;
use crate::passphrase::Asked;
use crate::progress::Progress as Shown;
use crate::{image, lifecycle, menu, running};

/// How long a supervisor that is starting or ending somewhere else is waited for. The longest stop
/// is 15 s (the plan's stop deadline) and some.
const PATIENCE: Duration = Duration::from_secs(25);

/// How often it is shown that something still goes on.
const TICK: Duration = Duration::from_millis(500);

/// A connection to a supervisor.
#[derive(Debug)]
pub(crate) struct Supervisor {
    connection: Connection<Stream>,
    name: String,
    /// Things the user should know, when this process started the supervisor.
    pub(crate) notes: Vec<String>,
    /// This process started the supervisor.
    pub(crate) started_here: bool,
}

/// A reply that may be followed by more.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    /// Its parameters.
    pub(crate) value: T,
    /// More will come.
    pub(crate) more: bool,
}

impl Supervisor {
    /// The running supervisor of a compartment, if there is one.
    ///
    /// # Errors
    /// There is one that cannot be reached.
    pub(crate) fn running(runtime: &Path, name: &str) -> Result<Option<Self>, Problem> {
        match sockets::connect(&socket_path(runtime, name)) {
            Ok(stream) => {
                let failed = |error: std::io::Error| {
                    Problem::new(format!("could not talk to the supervisor of `{name}`"))
                        .because(&error)
                };
                stream.set_nonblocking(true).map_err(failed)?;
                let stream = tokio::net::UnixStream::from_std(stream).map_err(failed)?;
                let stream = Stream::try_from(stream)
                    .map_err(|error| failed(std::io::Error::other(error)))?;
                let connection = Connection::new(stream);
                Ok(Some(Self {
                    connection,
                    name: name.into(),
                    notes: Vec::new(),
                    started_here: false,
                }))
            }
            Err(error) => match error.kind() {
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => Ok(None),
                _ => Err(Problem::new(format!("could not reach the supervisor of `{name}`"))
                    .because(&error)),
            },
        }
    }

    /// The supervisor of a compartment, started if there is none, with its image built first.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) async fn of(world: &World, target: &Target) -> Result<Self, Problem> {
        let name = target.name();
        let mut begin = Instant::now();
        let mut checked_image = false;
        let mut passphrases = Asked::default();
        loop {
            // Before the socket: connecting to systemd's would start a supervisor that finds no
            // image.
            if !checked_image && !running::is_known(world, &name) {
                checked_image = true;
                start_routers(world, target.declared()).await?;
                image::ensure(world, target)?;
            }
            if let Some(supervisor) = Self::running(world.places.runtime(), &name)? {
                // systemd may have started it.
                if checked_image {
                    menu::follow::started(world, target);
                }
                return Ok(supervisor);
            }
            match start(world, target, &passphrases)? {
                Announcement::Ready { notes } => {
                    if let Some(mut supervisor) = Self::running(world.places.runtime(), &name)? {
                        supervisor.notes = notes;
                        supervisor.started_here = true;
                        menu::follow::started(world, target);
                        return Ok(supervisor);
                    }
                }
                Announcement::Passphrase(needed) => {
                    passphrases.ask(&name, &needed)?;
                    begin = Instant::now();
                }
                // Another process starts it just now, or it is about to be gone.
                Announcement::Taken => {}
                Announcement::Failed { error, hint, code } => {
                    let problem = Problem::new(format!("could not start compartment `{name}`"));
                    return Err(Problem { causes: vec![error], hint, code, ..problem });
                }
            }
            if begin.elapsed() > PATIENCE {
                return Err(stuck(world, &name));
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// Sends a request, with a descriptor for the supervisor.
    ///
    /// # Errors
    /// The connection is broken.
    pub(crate) async fn send(
        &mut self,
        request: &Request,
        descriptors: Vec<OwnedFd>,
        more: bool,
    ) -> Result<(), Problem> {
        let call = Call::new(request.to_message()).set_more(more);
        let sent = self.connection.send_call(&call, descriptors).await;
        sent.map_err(|_| self.vanished())
    }

    /// The next answer; `Err(Ok(failure))` when the supervisor refuses.
    ///
    /// # Errors
    /// The connection is broken, or what came is no answer.
    pub(crate) async fn receive<T>(&mut self) -> Result<Result<Answer<T>, Failure>, Problem>
    where
        T: DeserializeOwned + std::fmt::Debug,
    {
        let received = self.connection.receive_reply::<T, ErrorReply>().await;
        match received {
            Ok((Ok(reply), _)) => {
                let more = reply.continues() == Some(true);
                match reply.into_parameters() {
                    Some(value) => Ok(Ok(Answer { value, more })),
                    None => Err(self.vanished()),
                }
            }
            Ok((Err(error), _)) => Ok(Err(Failure::from_reply(&error))),
            Err(zlink::Error::VarlinkService(error)) => Ok(Err(service_failure(error))),
            Err(_) => Err(self.vanished()),
        }
    }

    /// The next news of something that takes a while, shown meanwhile.
    ///
    /// # Errors
    /// The connection is broken.
    pub(crate) async fn news<T>(
        &mut self,
        shown: &mut Shown,
        state: &str,
    ) -> Result<Result<Answer<T>, Failure>, Problem>
    where
        T: DeserializeOwned + std::fmt::Debug,
    {
        loop {
            tokio::select! {
                answer = self.receive::<T>() => return answer,
                () = tokio::time::sleep(TICK) => shown.tick(state),
            }
        }
    }

    /// Sends a request and waits for its last answer.
    ///
    /// # Errors
    /// It is refused, or the connection is broken.
    pub(crate) async fn ask<T>(&mut self, request: &Request) -> Result<T, Problem>
    where
        T: DeserializeOwned + std::fmt::Debug,
    {
        self.ask_with(request, vec![]).await
    }

    /// The same with a descriptor.
    pub(crate) async fn ask_with<T>(
        &mut self,
        request: &Request,
        descriptors: Vec<OwnedFd>,
    ) -> Result<T, Problem>
    where
        T: DeserializeOwned + std::fmt::Debug,
    {
        self.send(request, descriptors, false).await?;
        match self.receive::<T>().await? {
            Ok(answer) => Ok(answer.value),
            Err(failure) => Err(Problem::answered(&self.name, failure)),
        }
    }

    /// Waits until the supervisor closes the connection, as it does when it ends.
    pub(crate) async fn closed(&mut self) {
        while let Ok(Ok(_)) = self.receive::<Progress>().await {}
    }

    fn vanished(&self) -> Problem {
        Problem::new(format!("the supervisor of `{}` ended unexpectedly", self.name))
            .hint("its processes ended with it; run the command again")
    }
}

/// Starts the routers that a compartment is behind. Its supervisor would, too, but cannot ask for
/// passphrases. Boxed, as a router may be behind another.
fn start_routers<'a>(
    world: &'a World,
    declared: &str,
) -> Pin<Box<dyn Future<Output = Result<(), Problem>> + 'a>> {
    let routers = world.routers(declared);
    Box::pin(async move {
        for (router, _) in routers? {
            if !running::is_known(world, &router) {
                lifecycle::start_one(world, &router, false, lifecycle::ATTEMPTS).await?;
            }
        }
        Ok(())
    })
}

/// A supervisor that has the compartment and cannot be talked to.
fn stuck(world: &World, name: &str) -> Problem {
    let problem = Problem::new(format!("another supervisor of `{name}` neither answers nor ends"));
    match rundir::holder(&world.run_directory(name)) {
        Ok(Some(holder)) => problem
            .hint(format!("look at its log: casemate logs {name}; end it: kill {}", holder.pid)),
        _ => problem.hint("try again"),
    }
}

/// A refusal in the words of `org.varlink.service`.
fn service_failure(error: zlink::varlink_service::OwnedError) -> Failure {
    use zlink::varlink_service::Error;
    match error.into_inner() {
        Error::InvalidParameter { parameter } => {
            Failure::InvalidParameter { parameter: parameter.into_owned() }
        }
        Error::PermissionDenied => Failure::PermissionDenied,
        other => Failure::MethodNotFound { method: other.to_string() },
    }
}

/// Starts a supervisor and waits for the line it says about it.
fn start(world: &World, target: &Target, asked: &Asked) -> Result<Announcement, Problem> {
    let program = facts::own_programs(&Sources::current(&world.places)).supervisor;
    let mut command = Command::new(&program);
    match target {
        Target::Declared(name) => command.arg(name),
        Target::Fresh { template, number } => {
            command.arg(template).args(["--fresh", &number.to_string()])
        }
    };
    if let Some(named) = &world.named {
        command.arg("--config").arg(std::path::absolute(named)?);
    }
    // Its directory must not keep a file system busy.
    command.current_dir("/").stdout(Stdio::piped()).stderr(Stdio::null());
    match asked.line() {
        None => drop(command.stdin(Stdio::null())),
        Some(_) => drop(command.arg("--passphrases").stdin(Stdio::piped())),
    }
    let failed = |error: &std::io::Error| {
        Problem::new(format!("could not start {}", program.display())).because(error)
    };
    let mut child = command.spawn().map_err(|error| failed(&error))?;
    if let (Some(mut stdin), Some(line)) = (child.stdin.take(), asked.line()) {
        stdin.write_all(line.bytes()).map_err(|error| failed(&error))?;
    }
    let Some(stdout) = child.stdout.take() else {
        return Err(Problem::new(format!("could not hear {}", program.display())));
    };
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).map_err(|error| failed(&error))?;
    serde_json::from_str(&line).map_err(|_| {
        // It has said nothing and ended; it is waited for so that its end can be told.
        let how = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        Problem::new(format!("{} ended before it was ready ({how})", program.display()))
    })
}
