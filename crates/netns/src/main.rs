//! `casemate-netns`: makes the network namespace of one compartment's link and keeps it.
//!
//! ```text
//! casemate-netns ─ order ─▶ user + network namespace: vm0 with the firewall ─▶ vm0's descriptor
//!    │ fork                        ▲ out0                                      to the supervisor
//!    └▶ pasta, in the host's network ┘
//! ```
//!
//! It runs in a jail of `casemate-jail` that leaves it the host's network. Afterwards it does one
//! thing: whenever an address of the host comes or goes, it tells the firewall. No packet of the
//! guest passes through it: the kernel forwards them, and pasta, which has its own sandbox, speaks
//! for them. It ends with its supervisor, with pasta, or when it is told to, and the namespace with
//! it.
//!
//! **Invariant:** one thread; the firewall is there before anything is up.

// UNSAFETY: fork has no safe wrapper.
#![allow(unsafe_code)]

mod order;
mod pasta;

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use casemate_plan::network::{Namespace, ToKeeper};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use casemate_netns::error::{self, KeeperError, While};
use casemate_netns::host::HostAddresses;
use casemate_netns::names::{Names, Resolver};
use casemate_netns::netlink::{self, Groups};
use casemate_netns::{namespace, nft, tap};
use pasta::Pasta;

fn main() -> ExitCode {
    let channel = match order::channel() {
        Ok(channel) => channel,
        Err(error) => {
            eprintln!("casemate-netns: {}", error::sentence(&error));
            return ExitCode::FAILURE;
        }
    };
    match run(&channel) {
        Ok(()) | Err(KeeperError::ToldToEnd) => ExitCode::SUCCESS,
        Err(error) => {
            let reason = error::sentence(&error);
            eprintln!("casemate-netns: {reason}");
            order::tell_failed(&channel, reason);
            ExitCode::FAILURE
        }
    }
}

fn run(channel: &OwnedFd) -> Result<(), KeeperError> {
    let order = order::read()?;
    // Of the host's network: it stays there, whatever namespace this process is in.
    let mut host = HostAddresses::watch()?;
    let signals = signals()?;
    let pasta = pasta::Waiting::fork(&order)?;
    namespace::enter()?;

    let tap = make(&order, &mut host)?;
    let events = netlink::Socket::open(Groups::ROUTES4)?;
    let ending = Ending { signals, pasta: pasta.go_on()? };
    let outside = await_outside(&order, &events, &ending)?;
    let requests = netlink::Socket::open(Groups::NONE)?;
    requests.forward(outside)?;
    let names =
        Names { names: order.names.clone(), server: order.resolver, v6: order.address6.is_some() };
    let resolver = Resolver::fork("casemate-netns", &names)?;
    order::hand_over(channel, &tap)?;
    drop((tap, events));
    namespace::drop_privileges()?;
    keep(&order, channel, &mut host, resolver, &ending)
}

/// The guest's interface, and the firewall before it is up.
fn make(order: &Namespace, host: &mut HostAddresses) -> Result<OwnedFd, KeeperError> {
    let tap = tap::make(&order.tap)?;
    let text = format!("{}{}", order.rules, host.text(&order.table)?);
    nft::load(&order.nft, &text)?;
    let requests = netlink::Socket::open(Groups::NONE)?;
    let index = netlink::index_of(&order.tap)?;
    requests.add_address(index, order.address.into(), 31)?;
    match order.address6 {
        // Packets are forwarded once there is somewhere to forward them to; the firewall is there.
        Some(address) => {
            requests.add_address(index, address.into(), 127)?;
            namespace::forward_ipv6()?;
        }
        None => requests.without_ipv6(index)?,
    }
    requests.bring_up(index)?;
    for network in &order.behind {
        requests.add_route(index, *network, order.guest)?;
    }
    requests.forward(index)?;
    Ok(tap)
}

/// SIGCHLD and SIGTERM, from now on to be read.
fn signals() -> Result<SignalFd, KeeperError> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    set.add(Signal::SIGTERM);
    set.thread_block().while_("block signals")?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC).while_("take signals")
}

/// Waits until pasta has set its interface up, which it ends with the default route; the supervisor
/// has the deadline. Returns the interface.
fn await_outside(
    order: &Namespace,
    events: &netlink::Socket,
    ending: &Ending,
) -> Result<u32, KeeperError> {
    loop {
        let mut ready = [
            PollFd::new(events.as_fd(), PollFlags::POLLIN),
            PollFd::new(ending.signals.as_fd(), PollFlags::POLLIN),
        ];
        wait(&mut ready)?;
        let [told, signalled] = [0, 1].map(|index| is_ready(&ready[index]));
        if signalled {
            ending.look()?;
        }
        if told && events.default_route()? {
            return netlink::index_of(&order.outside);
        }
    }
}

/// Until the end: the host's addresses and the supervisor's questions.
fn keep(
    order: &Namespace,
    channel: &OwnedFd,
    host: &mut HostAddresses,
    mut resolver: Option<Resolver>,
    ending: &Ending,
) -> Result<(), KeeperError> {
    loop {
        let mut ready = vec![
            PollFd::new(host.as_fd(), PollFlags::POLLIN),
            PollFd::new(ending.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(channel.as_fd(), PollFlags::POLLIN),
        ];
        ready.extend(resolver.iter().map(|one| PollFd::new(one.as_fd(), PollFlags::POLLIN)));
        wait(&mut ready)?;
        let [changed, signalled, told, resolved] =
            [0, 1, 2, 3].map(|index| ready.get(index).is_some_and(is_ready));
        if resolved && let Some(names) = &resolver {
            match names.text(&order.names, &order.table) {
                Ok(Some(text)) => nft::load(&order.nft, &text)?,
                // What it found last stays.
                Ok(None) => resolver = None,
                Err(error) => {
                    eprintln!("casemate-netns: {}", error::sentence(&error));
                    resolver = None;
                }
            }
        }
        if changed && host.changed()? {
            nft::load(&order.nft, &host.text(&order.table)?)?;
        }
        if signalled {
            ending.look()?;
        }
        if told {
            match order::receive(channel)? {
                Some(ToKeeper::Counters) => {
                    let counters = nft::counters(&order.nft);
                    order::answer(channel, counters)?;
                }
                // The supervisor is gone.
                None => return Ok(()),
            }
        }
    }
}

/// What says that this is the end.
struct Ending {
    signals: SignalFd,
    pasta: Pasta,
}

impl Ending {
    /// Takes a signal.
    fn look(&self) -> Result<(), KeeperError> {
        let signal = self.signals.read_signal().while_("take a signal")?;
        match signal.map(|signal| signal.ssi_signo as i32) {
            Some(number) if number == Signal::SIGTERM as i32 => Err(KeeperError::ToldToEnd),
            // nft's end is waited for where it is started.
            _ if self.pasta.has_ended() => Err(KeeperError::PastaEnded),
            _ => Ok(()),
        }
    }
}

fn wait(ready: &mut [PollFd<'_>]) -> Result<(), KeeperError> {
    loop {
        match poll(ready, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => {}
            result => return result.map(drop).while_("wait"),
        }
    }
}

fn is_ready(ready: &PollFd<'_>) -> bool {
    ready.revents().is_some_and(|events| !events.is_empty())
}
