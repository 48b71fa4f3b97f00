//! `casemate-netd`: the root helper. It makes links of compartments among the host's own network
//! interfaces, for users whom the system's configuration lets have them, and for as long as they
//! stay connected.
//!
//! ```text
//! supervisor ═ one connection, one link ═ casemate-netd ─ cmtap3: device, /31, tables of nft
//!    ▲ descriptor of cmtap3                  │ children without any privilege:
//!    └────────────────────────────────────── ├─ questions: answers the guest's DNS, one a link
//!                                            └─ names: resolves `dsthost` of rules, one a link
//! ```
//!
//! It keeps CAP_NET_ADMIN and nothing else, as a user of its own. No packet of a guest passes through
//! it, and no text of a request reaches nft, a path or a name of a device: a request is read into
//! types that cannot hold more than they say (`casemate_plan::helper`), and everything is made of
//! those and of the system's configuration, read again for each request.
//!
//! **Invariant:** one thread; the firewall is there before an interface is up; whatever has a name
//! that begins with `cmtap` is its own, and it touches nothing else but `net.ipv4.ip_forward`.

mod activation;
mod arguments;
mod children;
mod client;
mod confine;
mod conntrack;
mod forwarding;
mod grants;
mod left;
mod link;
mod questions;
mod serve;

use std::process::ExitCode;

use casemate_host::lock::{Lock, Taking};
use casemate_netns::error::{KeeperError, sentence};

use arguments::{Arguments, Task};

/// Why the helper ends.
#[derive(Debug, thiserror::Error)]
enum NetdError {
    /// The command line.
    #[error("{0}")]
    Usage(String),
    /// A file or folder of its own.
    #[error("could not use {}", .path.display())]
    Place {
        /// Which.
        path: std::path::PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Another one runs.
    #[error("another casemate-netd keeps the links of this machine")]
    Another,
    /// What it needs is not installed.
    #[error("could not find the program nft (package nftables)")]
    NoNft,
    /// The user it shall be is not there.
    #[error(
        "there is no user `{0}`; make it (systemd-sysusers does), or name another one with --user"
    )]
    NoUser(String),
    /// Something of the kernel.
    #[error(transparent)]
    Kernel(#[from] KeeperError),
}

fn main() -> ExitCode {
    let done = match Arguments::read(std::env::args().skip(1)) {
        Ok(arguments) => run(arguments),
        Err(usage) => Err(NetdError::Usage(usage)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("casemate-netd: {}", sentence(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), NetdError> {
    match arguments.task {
        Task::Help => {
            print!("{}", arguments::HELP);
            return Ok(());
        }
        Task::Questions => return Ok(questions::main(arguments.parent, arguments.server)?),
        Task::Names => return Ok(children::names_main(arguments.parent)?),
        Task::Repair if !arguments.state.exists() => {
            println!("nothing to repair: casemate-netd was not started since this machine was");
            return Ok(());
        }
        Task::Serve | Task::Repair => {}
    }
    let place = |source| NetdError::Place { path: arguments.state.clone(), source };
    let user = confine::user(&arguments)?;
    confine::make_state(&arguments.state, user).map_err(place)?;
    let listener = match arguments.task {
        Task::Serve => Some(activation::listener(arguments.listen.as_deref())?),
        _ => None,
    };
    let nft = casemate_host::network::facts(&confine::search_path()).nft;
    let nft = nft.ok_or(NetdError::NoNft)?;
    // The rules for files first, as root finds them all.
    confine::confine(&arguments)?;
    casemate_netns::namespace::become_administrator(user)?;
    let _lock = match Lock::take(&arguments.state.join("lock")).map_err(place)? {
        Taking::Ours(lock) => lock,
        // It has mended what there was, or will.
        Taking::Theirs(_) if arguments.task == Task::Repair => {
            println!(
                "nothing to repair: casemate-netd runs, and removed what was left when it began"
            );
            return Ok(());
        }
        Taking::Theirs(_) => return Err(NetdError::Another),
    };
    let mended = left::mend(&nft, &arguments.state)?;
    for what in &mended {
        match arguments.task {
            Task::Repair => println!("{what}"),
            _ => eprintln!("casemate-netd: {what}"),
        }
    }
    match listener {
        Some(listener) => Ok(serve::Helper::new(arguments, nft, listener, mended)?.run()?),
        None => {
            if mended.is_empty() {
                println!("nothing to repair");
            }
            Ok(())
        }
    }
}
