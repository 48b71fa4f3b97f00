//! The serial console: `casemate shell`, and what `-v` shows while a compartment starts.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use casemate_supervise::control::{Progress, Request, View};
use casemate_supervise::prepare::{Target, World};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::arguments::ShellArguments;
use crate::connect::Supervisor;
use crate::failure::Problem;
use crate::lifecycle;
use crate::terminal::RawMode;

/// Ctrl-], which leaves the console.
const LEAVE: u8 = 0x1d;

/// Shows what the guest writes to its console on standard error until dropped.
#[derive(Debug)]
pub(crate) struct Shown(UnixStream);

impl Drop for Shown {
    fn drop(&mut self) {
        // Ends the thread that copies.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

/// Shows the console of a running compartment, made harmless.
pub(crate) async fn show(world: &World, name: &str) -> Result<Shown, Problem> {
    let ours = view(world, name, false).await?;
    let mut copied = ours.try_clone()?;
    std::thread::spawn(move || io::copy(&mut copied, &mut io::stderr()));
    Ok(Shown(ours))
}

async fn view(world: &World, name: &str, interactive: bool) -> Result<UnixStream, Problem> {
    let mut supervisor = Supervisor::of(world, &Target::Declared(name.into())).await?;
    let (ours, theirs) = UnixStream::pair()?;
    let request = Request::View(View { interactive });
    supervisor.ask_with::<Progress>(&request, vec![OwnedFd::from(theirs)]).await?;
    Ok(ours)
}

/// `casemate shell`.
pub(crate) fn shell(
    world: &World,
    arguments: &ShellArguments,
    verbose: bool,
) -> Result<u8, Problem> {
    world.compartment(&arguments.name)?;
    if arguments.root {
        return crate::run::root_shell(world, &arguments.name, verbose);
    }
    let name = &arguments.name;
    let socket = crate::event_loop()?.block_on(async {
        let ready = lifecycle::start_one(world, name, verbose, lifecycle::ATTEMPTS).await;
        ready?;
        view(world, name, true).await
    })?;
    eprintln!("console of `{name}`; Ctrl-] leaves");
    let stop = stop_signals()?;
    let raw = RawMode::enter();
    let end = attach(socket, &stop);
    drop(raw);
    eprintln!();
    match end {
        // As the signal would have done, but with the terminal as it was.
        Ok(Left::Signal) => Ok(128 + nix::libc::SIGTERM as u8),
        Ok(Left::User) => Ok(0),
        Ok(Left::Guest) => {
            eprintln!("compartment `{name}` has ended");
            Ok(0)
        }
        Err(error) => Err(Problem::new(format!("lost the console of `{name}`")).because(&error)),
    }
}

enum Left {
    User,
    Guest,
    Signal,
}

/// A socket that becomes readable when this process shall end.
fn stop_signals() -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    for signal in [nix::libc::SIGTERM, nix::libc::SIGHUP] {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    Ok(read)
}

/// Copies both ways until one side leaves.
fn attach(mut socket: UnixStream, stop: &UnixStream) -> io::Result<Left> {
    let input = io::stdin();
    let mut buffer = [0u8; 16 * 1024];
    let mut open = true;
    loop {
        let (mut from_user, mut from_guest, mut stopped) = (false, false, false);
        {
            let mut watched = [
                PollFd::new(socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(stop.as_fd(), PollFlags::POLLIN),
                PollFd::new(input.as_fd(), PollFlags::POLLIN),
            ];
            let watched = if open { &mut watched[..] } else { &mut watched[..2] };
            match poll(watched, PollTimeout::NONE) {
                Err(nix::Error::EINTR) => continue,
                other => other?,
            };
            from_guest |= watched[0].any().unwrap_or(true);
            stopped |= watched[1].any().unwrap_or(true);
            from_user |= watched.get(2).is_some_and(|entry| entry.any().unwrap_or(true));
        }
        if stopped {
            return Ok(Left::Signal);
        }
        if from_guest {
            match socket.read(&mut buffer)? {
                0 => return Ok(Left::Guest),
                count => {
                    let mut out = io::stdout();
                    out.write_all(&buffer[..count])?;
                    out.flush()?;
                }
            }
        }
        if from_user {
            let count = nix::unistd::read(input.as_fd(), &mut buffer)?;
            let typed = &buffer[..count];
            let leave = typed.iter().position(|&byte| byte == LEAVE);
            socket.write_all(&typed[..leave.unwrap_or(count)])?;
            if leave.is_some() {
                return Ok(Left::User);
            }
            open = count > 0;
        }
    }
}
