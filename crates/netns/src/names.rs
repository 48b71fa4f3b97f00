//! The addresses of names in rules, found and found again by a process of its own: it reads what
//! strangers answer, so it has no capability, no file, and few system calls. It is in the
//! compartment's network namespace and asks what the guest asks: the host's name server, by pasta.
//!
//! What it says is a list of addresses for a rule; whoever hears it believes nothing else.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::dns::{self, Answer, Family};
use casemate_plan::network::Name;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::unistd::{ForkResult, fork};
use seccompiler::{SeccompAction, SeccompFilter, TargetArch};
use serde::{Deserialize, Serialize};

use crate::error::{KeeperError, While};
use crate::namespace;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Seconds between two questions for one name: what its answer says, within these. A name that
/// could not be resolved is tried again after the lowest.
const SECONDS: std::ops::RangeInclusive<u32> = 30..=3600;

/// While a name was never resolved it is tried again sooner: pasta may have just begun.
const SOON: Duration = Duration::from_secs(2);

/// The longest message between the two, in bytes: 64 addresses.
const LONGEST: usize = 4096;

/// What the resolver does after it began.
const CALLS: &[i64] = &[
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_setsockopt,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_rt_sigreturn,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// The addresses of one rule's name.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Resolved {
    rule: usize,
    v6: bool,
    addresses: Vec<IpAddr>,
}

/// What is resolved.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Names {
    /// The names.
    pub names: Vec<Name>,
    /// Who is asked.
    pub server: Ipv4Addr,
    /// IPv6 addresses are wanted too.
    pub v6: bool,
}

/// The process that resolves, as its keeper sees it.
#[derive(Debug)]
pub struct Resolver(OwnedFd);

impl From<OwnedFd> for Resolver {
    /// Another process at the other end of this socket.
    fn from(socket: OwnedFd) -> Self {
        Self(socket)
    }
}

impl Resolver {
    /// Starts it as a child of this process, when there are names to resolve. What it has to say
    /// goes to the standard error output, after the program's name.
    ///
    /// # Errors
    /// See [`KeeperError`].
    pub fn fork(program: &str, order: &Names) -> Result<Option<Self>, KeeperError> {
        if order.names.is_empty() {
            return Ok(None);
        }
        let (kind, flags) = (SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
        let (own, other) =
            socketpair(AddressFamily::Unix, kind, None, flags).while_("make a socket")?;
        // SAFETY: there is one thread, so the child may go on as it likes.
        match unsafe { fork() }.while_("start the resolver of names")? {
            ForkResult::Parent { .. } => Ok(Some(Self(own))),
            ForkResult::Child => {
                drop(own);
                if let Err(error) = resolve(order, &other) {
                    let said = crate::error::sentence(&error);
                    eprintln!("{program}: names are not resolved: {said}");
                }
                std::process::exit(1)
            }
        }
    }

    /// What makes a rule's set equal to the addresses that were found, for nft; none when the
    /// resolver has ended.
    ///
    /// # Errors
    /// What it says makes no sense.
    pub fn text(&self, names: &[Name], table: &str) -> Result<Option<String>, KeeperError> {
        let mut buffer = [0; LONGEST];
        let length = match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            // Whoever was heard is another by now.
            Err(Errno::EAGAIN) => return Ok(Some(String::new())),
            other => other.while_("hear the resolver of names")?,
        };
        if length == 0 {
            return Ok(None);
        }
        let Resolved { rule, v6, addresses } =
            serde_json::from_slice(&buffer[..length]).map_err(KeeperError::Order)?;
        let Some(name) = names.iter().find(|name| name.rule == rule) else {
            return Ok(Some(String::new()));
        };
        let set = if v6 { &name.set6 } else { &name.set4 };
        let of_family = addresses.iter().filter(|address| address.is_ipv6() == v6);
        let list: Vec<String> = of_family.map(ToString::to_string).collect();
        let mut text = format!("flush set inet {table} {set}\n");
        if !list.is_empty() {
            let list = list.join(", ");
            text.push_str(&format!("add element inet {table} {set} {{ {list} }}\n"));
        }
        Ok(Some(text))
    }
}

impl AsFd for Resolver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The resolver's life, for a process of its own: it gives up every privilege and most system calls.
/// It ends with an error, or when its keeper is gone.
///
/// # Errors
/// See [`KeeperError`].
pub fn resolve(order: &Names, keeper: &OwnedFd) -> Result<(), KeeperError> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).while_("make a socket")?;
    socket.connect((order.server, 53)).while_("name the name server")?;
    socket.set_read_timeout(Some(PATIENCE)).while_("set a deadline")?;
    let mut random = std::fs::File::open("/dev/urandom").while_("open /dev/urandom")?;
    namespace::drop_all()?;
    confine()?;
    let families = [Some(Family::V4), order.v6.then_some(Family::V6)];
    let families = families.into_iter().flatten();
    let mut due: BTreeMap<(usize, Family), Instant> = families
        .flat_map(|family| order.names.iter().map(move |name| (name.rule, family)))
        .map(|question| (question, Instant::now()))
        .collect();
    let mut known: BTreeMap<(usize, Family), Vec<IpAddr>> = BTreeMap::new();
    loop {
        let Some((&question, &at)) = due.iter().min_by_key(|(_, at)| **at) else { return Ok(()) };
        let (rule, family) = question;
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        let Some(name) = order.names.iter().find(|name| name.rule == rule) else { return Ok(()) };
        let wait = match ask(&socket, &mut random, &name.host, family) {
            Some(Answer { addresses, seconds }) => {
                if known.get(&question) != Some(&addresses) {
                    let resolved = Resolved { rule, v6: family == Family::V6, addresses };
                    let text = serde_json::to_vec(&resolved).map_err(KeeperError::Order)?;
                    send(keeper.as_raw_fd(), &text, MsgFlags::MSG_NOSIGNAL)
                        .while_("tell addresses")?;
                    known.insert(question, resolved.addresses);
                }
                let seconds = seconds.unwrap_or(*SECONDS.start());
                Duration::from_secs(seconds.clamp(*SECONDS.start(), *SECONDS.end()).into())
            }
            // What was known before stays.
            None if known.contains_key(&question) => Duration::from_secs((*SECONDS.start()).into()),
            None => SOON,
        };
        due.insert(question, Instant::now() + wait);
    }
}

/// One question; none when no answer that counts came in time.
fn ask(socket: &UdpSocket, random: &mut impl Read, host: &str, family: Family) -> Option<Answer> {
    let mut id = [0; 2];
    random.read_exact(&mut id).ok()?;
    let question = dns::question(u16::from_ne_bytes(id), host, family)?;
    socket.send(&question).ok()?;
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = [0; dns::LONGEST];
    while Instant::now() < deadline {
        let length = socket.recv(&mut buffer).ok()?;
        if let Ok(answer) = dns::answer(&question, &buffer[..length], family) {
            return Some(answer);
        }
    }
    None
}

/// Leaves no other system call.
fn confine() -> Result<(), KeeperError> {
    let filter = || {
        let architecture: TargetArch = std::env::consts::ARCH.try_into()?;
        let rules = CALLS.iter().map(|&call| (call, vec![])).collect();
        let filter = SeccompFilter::new(
            rules,
            SeccompAction::KillProcess,
            SeccompAction::Allow,
            architecture,
        )?;
        filter.try_into()
    };
    let program: Result<seccompiler::BpfProgram, seccompiler::BackendError> = filter();
    let applied = program
        .map_err(seccompiler::Error::Backend)
        .and_then(|program| seccompiler::apply_filter(&program));
    applied.map_err(std::io::Error::other).while_("filter system calls")
}
