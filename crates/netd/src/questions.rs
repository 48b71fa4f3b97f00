//! What answers the questions for names of one guest: it passes them to the host's name server, over
//! UDP and TCP, and the answers back. Each question leaves by a socket of its own, so its port is as
//! hard to guess as the kernel makes it. Nothing of a question or answer is looked at.
//!
//! It has no privilege, no file, and may make sockets of IPv4 alone. The host's firewall lets nothing
//! but questions of its guest come here.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use casemate_netns::error::{KeeperError, While};
use casemate_netns::namespace::{drop_all, end_with_parent};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// Questions at a time; the oldest makes room for the next.
const QUESTIONS: usize = 64;

/// How long an answer may take: what resolvers wait for one (resolv.conf(5)).
const PATIENCE: Duration = Duration::from_secs(5);

/// Connections at a time, and how long each may last: what BIND gives an idle one.
const CONNECTIONS: usize = 8;
const LASTING: Duration = Duration::from_secs(30);

/// The longest datagram passed on, in bytes: any that UDP can carry.
const LONGEST: usize = 65536;

/// What it does after it began.
const CALLS: &[i64] = &[
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_accept4,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_clock_gettime,
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_rt_sigreturn,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

struct Question {
    /// To the name server.
    socket: UdpSocket,
    client: SocketAddr,
    until: Instant,
}

struct Connection {
    client: TcpStream,
    server: TcpStream,
    until: Instant,
}

/// The child's life: its sockets are descriptors 0 and 1.
///
/// # Errors
/// See [`KeeperError`].
pub(crate) fn main(parent: i32, server: Ipv4Addr) -> Result<(), KeeperError> {
    end_with_parent(parent)?;
    let take = |descriptor: BorrowedFd<'_>| -> Result<OwnedFd, KeeperError> {
        descriptor.try_clone_to_owned().while_("use the socket of the helper")
    };
    let udp = UdpSocket::from(take(std::io::stdin().as_fd())?);
    let tcp = TcpListener::from(take(std::io::stdout().as_fd())?);
    udp.set_nonblocking(true).while_("use the socket of the helper")?;
    tcp.set_nonblocking(true).while_("use the socket of the helper")?;
    drop_all()?;
    confine().map_err(std::io::Error::other).while_("filter system calls")?;
    let server = SocketAddr::new(server.into(), 53);
    serve(&udp, &tcp, server)
}

fn serve(udp: &UdpSocket, tcp: &TcpListener, server: SocketAddr) -> Result<(), KeeperError> {
    let mut questions: BTreeMap<u64, Question> = BTreeMap::new();
    let mut connections: BTreeMap<u64, Connection> = BTreeMap::new();
    let mut number = 0;
    let mut buffer = vec![0; LONGEST];
    loop {
        let now = Instant::now();
        questions.retain(|_, question| question.until > now);
        connections.retain(|_, connection| connection.until > now);
        let ready = wait(udp, tcp, &questions, &connections)?;
        if ready.contains(&udp.as_raw_fd()) {
            while let Ok((length, client)) = udp.recv_from(&mut buffer) {
                number += 1;
                if questions.len() >= QUESTIONS {
                    questions.pop_first();
                }
                // One that cannot be passed on is not answered; the guest asks again.
                if let Ok(socket) = pass(&buffer[..length], server) {
                    let until = Instant::now() + PATIENCE;
                    questions.insert(number, Question { socket, client, until });
                }
            }
        }
        if ready.contains(&tcp.as_raw_fd())
            && let Ok((client, _)) = tcp.accept()
        {
            number += 1;
            if connections.len() >= CONNECTIONS {
                connections.pop_first();
            }
            if let Ok(connection) = connect(client, server) {
                connections.insert(number, connection);
            }
        }
        questions.retain(|_, question| {
            if !ready.contains(&question.socket.as_raw_fd()) {
                return true;
            }
            if let Ok(length) = question.socket.recv(&mut buffer) {
                // A guest that has gone needs no answer.
                let _ = udp.send_to(&buffer[..length], question.client);
            }
            false
        });
        connections.retain(|_, Connection { client, server, .. }| {
            [(&*client, &*server), (&*server, &*client)].into_iter().all(|(from, to)| {
                !ready.contains(&from.as_raw_fd()) || carry(from, to, &mut buffer)
            })
        });
    }
}

/// The descriptors that have something.
fn wait(
    udp: &UdpSocket,
    tcp: &TcpListener,
    questions: &BTreeMap<u64, Question>,
    connections: &BTreeMap<u64, Connection>,
) -> Result<Vec<i32>, KeeperError> {
    let mut all: Vec<BorrowedFd<'_>> = vec![udp.as_fd(), tcp.as_fd()];
    all.extend(questions.values().map(|question| question.socket.as_fd()));
    for connection in connections.values() {
        all.extend([connection.client.as_fd(), connection.server.as_fd()]);
    }
    let mut polled: Vec<PollFd<'_>> =
        all.iter().map(|one| PollFd::new(*one, PollFlags::POLLIN)).collect();
    let idle = questions.is_empty() && connections.is_empty();
    let timeout = if idle { PollTimeout::NONE } else { PollTimeout::from(1000_u16) };
    match poll(&mut polled, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(error).while_("wait for questions"),
    }
    let ready = |one: &PollFd<'_>| one.revents().is_some_and(|events| !events.is_empty());
    let found = polled.iter().zip(&all).filter(|(one, _)| ready(one));
    Ok(found.map(|(_, descriptor)| descriptor.as_raw_fd()).collect())
}

fn pass(question: &[u8], server: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(server)?;
    socket.send(question)?;
    Ok(socket)
}

fn connect(client: TcpStream, server: SocketAddr) -> std::io::Result<Connection> {
    // Only this guest waits for it.
    let server = TcpStream::connect_timeout(&server, PATIENCE)?;
    client.set_nonblocking(true)?;
    server.set_nonblocking(true)?;
    Ok(Connection { client, server, until: Instant::now() + LASTING })
}

/// Carries what is there; false when the connection is over. Whoever does not read what fills the
/// kernel's buffers is no resolver.
fn carry(mut from: &TcpStream, mut to: &TcpStream, buffer: &mut [u8]) -> bool {
    match from.read(buffer) {
        Ok(0) => false,
        Ok(length) => to.write_all(&buffer[..length]).is_ok(),
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

/// Leaves no other system call, and sockets of IPv4 only.
fn confine() -> Result<(), seccompiler::Error> {
    let filter = || {
        let architecture: TargetArch = std::env::consts::ARCH.try_into()?;
        let of_ipv4 = SeccompRule::new(vec![SeccompCondition::new(
            0,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::Eq,
            libc::AF_INET as u64,
        )?])?;
        let rules = CALLS.iter().map(|&call| (call, vec![]));
        let rules = rules.chain([(libc::SYS_socket, vec![of_ipv4])]).collect();
        let kill = SeccompAction::KillProcess;
        SeccompFilter::new(rules, kill, SeccompAction::Allow, architecture)?.try_into()
    };
    let program: Result<seccompiler::BpfProgram, seccompiler::BackendError> = filter();
    seccompiler::apply_filter(&program.map_err(seccompiler::Error::Backend)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_passed_on_and_answers_back() {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let (own, server) = (bind(), bind());
        let listener = TcpListener::bind(server.local_addr().expect("bound")).expect("the same");
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let (place, streams) = (own.local_addr().expect("bound"), tcp.local_addr().expect("bound"));
        let upstream = server.local_addr().expect("bound");
        own.set_nonblocking(true).expect("set");
        tcp.set_nonblocking(true).expect("set");
        std::thread::spawn(move || serve(&own, &tcp, upstream));
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, peer)) = server.recv_from(&mut buffer) {
                buffer[..length].reverse();
                server.send_to(&buffer[..length], peer).expect("sent");
            }
        });
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let mut text = [0; 3];
                client.read_exact(&mut text).expect("three");
                text.reverse();
                client.write_all(&text).expect("written");
            }
        });
        let clients: Vec<UdpSocket> = (0..100).map(|_| bind()).collect();
        for (number, client) in clients.iter().enumerate().rev().take(20) {
            client.set_read_timeout(Some(PATIENCE)).expect("set");
            client.send_to(format!("{number:02}x").as_bytes(), place).expect("sent");
            let mut buffer = [0; 8];
            let (length, _) = client.recv_from(&mut buffer).expect("an answer");
            let expected: String = format!("{number:02}x").chars().rev().collect();
            assert_eq!(buffer[..length], *expected.as_bytes());
        }
        for _ in 0..2 * CONNECTIONS {
            let mut client = TcpStream::connect(streams).expect("connected");
            client.write_all(b"abc").expect("written");
            let mut text = [0; 3];
            client.read_exact(&mut text).expect("an answer");
            assert_eq!(&text, b"cba");
        }
    }
}
