//! `casemate-forward`: sends records of the audit log to a syslog server and to the kernel's audit.
//! Whoever writes a record starts it; it ends when all has arrived.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use casemate_audit::Forwarded;
use casemate_config::{SyslogServer, SyslogSettings, SyslogTransport};
use casemate_forward::auditd::Kernel;
use casemate_forward::server::{SendError, Server};
use casemate_forward::{Forwarder, Place, confine};
use casemate_host::chain;
use clap::Parser;

/// How long a process stays that can send nothing at all: the next ones are not started meanwhile.
const HOPELESS: Duration = Duration::from_secs(60);

/// Sends records of an audit log elsewhere. casemate starts it; there is no need to do so by hand.
#[derive(Debug, Parser)]
#[command(name = "casemate-forward", version)]
struct Arguments {
    /// The folder of the log.
    #[arg(long, value_name = "FOLDER")]
    log: PathBuf,
    /// The syslog server: tls://, tcp:// or udp://, a name or address, and perhaps a port.
    #[arg(long, value_name = "SERVER", value_parser = server)]
    syslog: Option<SyslogServer>,
    /// Certificates (PEM) one of which must have signed the server's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Certificate (PEM) that the server is shown.
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// The key (PEM) of that certificate.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Write to the kernel's audit.
    #[arg(long)]
    auditd: bool,
    /// Try once, say what went wrong, and end.
    #[arg(long)]
    once: bool,
}

fn server(text: &str) -> Result<SyslogServer, String> {
    text.parse().map_err(|flaw: casemate_config::Flaw| flaw.to_string())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("casemate-forward: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let log = &arguments.log;
    let Some(mut lock) = Forwarded::lock(log)? else {
        return match arguments.once {
            true => {
                Err("another process sends them; `casemate audit status` says how far it is".into())
            }
            false => Ok(()),
        };
    };
    let places = match places(arguments) {
        Ok(places) => places,
        Err(error) => {
            tell(log, &error)?;
            if !arguments.once {
                std::thread::sleep(HOPELESS);
            }
            return Err(error.into());
        }
    };
    confined(arguments, log)?;
    let mut forwarder = Forwarder::new(log, places);
    loop {
        forwarder.run(arguments.once)?;
        drop(lock);
        // Whoever wrote between the last look and now found the lock taken, and started nobody.
        if arguments.once || !forwarder.has_more()? {
            return Ok(());
        }
        match Forwarded::lock(log)? {
            Some(again) => lock = again,
            None => return Ok(()),
        }
    }
}

fn confined(arguments: &Arguments, log: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let state = Forwarded::make_folder(log)?;
    let of_stream = |server: &&SyslogServer| server.transport != SyslogTransport::Udp;
    let port = arguments.syslog.as_ref().filter(of_stream).map(|server| server.port);
    Ok(confine::sender(log, &state, port)?)
}

fn places(arguments: &Arguments) -> Result<Vec<Place>, SendError> {
    let mut places = Vec::new();
    if let Some(server) = &arguments.syslog {
        let settings = SyslogSettings {
            server: server.clone(),
            ca: arguments.ca.clone(),
            identity: arguments.certificate.clone().zip(arguments.key.clone()),
        };
        let host = nix::unistd::gethostname().unwrap_or_default();
        places.push(Place::Syslog(Server::new(&settings, host.to_string_lossy().into_owned())?));
    }
    if arguments.auditd {
        places.push(Place::Kernel(Kernel::open().map_err(SendError::Audit)?));
    }
    Ok(places)
}

/// Keeps why nothing can be sent, for `casemate audit status`.
fn tell(log: &Path, error: &SendError) -> Result<(), Box<dyn std::error::Error>> {
    let mut state = Forwarded::load(log)?;
    let progress = match error {
        SendError::Audit(_) => &mut state.auditd,
        _ => &mut state.syslog,
    };
    progress.error = Some(chain(error));
    Ok(state.store(log)?)
}
