//! What is said to and heard from the kernel about interfaces, addresses and routes (rtnetlink(7)):
//! a handful of messages, written and read by hand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use casemate_config::ipnet::Ipv4Net;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};

use crate::error::{KeeperError, While};

/// The longest datagram of the kernel: it fills at most what the reader offers, up to 32 KiB
/// (net/netlink/af_netlink.c).
const LONGEST: usize = 32 * 1024;

/// Tries to read routes that change meanwhile.
const TRIES: usize = 100;

/// `struct nlmsghdr`, `struct rtmsg`, `struct ifinfomsg`, `struct ifaddrmsg`: bytes.
const HEADER: usize = 16;
const ROUTE: usize = 12;
/// `struct nfgenmsg`: bytes.
const GENERAL: usize = 4;
/// `NLM_F_DUMP_INTR`, linux/netlink.h: what was listed changed meanwhile.
const INTERRUPTED: u16 = 0x10;

// linux/if_link.h, linux/ip.h.
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INET_CONF: u16 = 1;
const IPV4_DEVCONF_FORWARDING: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;

/// What a socket hears without having asked: bits of multicast groups (linux/rtnetlink.h).
#[derive(Clone, Copy, Debug)]
pub struct Groups(u32);

impl Groups {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Routes of IPv4.
    pub const ROUTES4: Self = Self(1 << (libc::RTNLGRP_IPV4_ROUTE - 1));
    /// Addresses and routes.
    pub const HOST: Self = Self(
        1 << (libc::RTNLGRP_IPV4_IFADDR - 1)
            | 1 << (libc::RTNLGRP_IPV6_IFADDR - 1)
            | 1 << (libc::RTNLGRP_IPV4_ROUTE - 1)
            | 1 << (libc::RTNLGRP_IPV6_ROUTE - 1),
    );
}

/// Families of tables: `NFPROTO_INET` and `NFPROTO_NETDEV`.
#[derive(Clone, Copy, Debug)]
pub enum TableFamily {
    /// IPv4 and IPv6.
    Inet = 1,
    /// What comes in by a device.
    Netdev = 5,
}

/// A socket to the kernel, of the network namespace that it was opened in.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// Opens one to the kernel's packet filter and connection tracking (`nfnetlink`).
    ///
    /// # Errors
    /// See [`KeeperError`].
    pub fn netfilter() -> Result<Self, KeeperError> {
        let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
        socket(AddressFamily::Netlink, kind, flags, SockProtocol::NetlinkNetFilter)
            .map(Self)
            .while_("open a socket to the kernel's packet filter")
    }

    /// Opens one that hears of every change of the kernel's firewall.
    ///
    /// # Errors
    /// See [`KeeperError`]. It takes CAP_NET_ADMIN.
    pub fn firewall() -> Result<Self, KeeperError> {
        let opened = Self::netfilter()?;
        let group = 1 << (libc::NFNLGRP_NFTABLES - 1);
        bind(opened.0.as_raw_fd(), &NetlinkAddr::new(0, group)).while_("hear of tables")?;
        Ok(opened)
    }

    /// Whether the firewall has this table.
    ///
    /// # Errors
    /// See [`KeeperError`].
    pub fn has_table(family: TableFamily, name: &str) -> Result<bool, KeeperError> {
        /// `NFNL_SUBSYS_NFTABLES` with `NFT_MSG_GETTABLE`, and `NFTA_TABLE_NAME`.
        const GET: u16 = (10 << 8) | 1;
        const NAME: u16 = 1;
        let socket = Self::netfilter()?;
        let mut body = vec![family as u8, 0, 0, 0];
        attribute(&mut body, NAME, &[name.as_bytes(), b"\0"].concat());
        // The table comes, or an error.
        match socket.ask(GET, 0, &body) {
            Ok(()) | Err(Errno::EBADMSG) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(error) => Err(error).while_(format!("look for the table {name}")),
        }
    }

    /// Takes what was heard of the firewall; true when a table of which `is_one` is true was removed,
    /// or may have been, as something was missed.
    ///
    /// # Errors
    /// See [`KeeperError`].
    pub fn table_removed(&self, is_one: impl Fn(&str) -> bool) -> Result<bool, KeeperError> {
        let (mut buffer, mut removed) = (vec![0; LONGEST], false);
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    let told = messages(&buffer[..length])?;
                    let mut names = told.iter().filter_map(removed_table);
                    removed |= names.any(&is_one);
                }
                Err(Errno::ENOBUFS) => removed = true,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(removed),
                Err(error) => return Err(error).while_("hear of tables"),
            }
        }
    }

    /// Opens one in this process's network namespace.
    pub fn open(groups: Groups) -> Result<Self, KeeperError> {
        let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
        let protocol = SockProtocol::NetlinkRoute;
        let socket = socket(AddressFamily::Netlink, kind, flags, protocol)
            .while_("open a socket to the kernel's routing")?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups.0)).while_("hear of routes")?;
        Ok(Self(socket))
    }

    /// Forgets what has been said so far.
    pub fn drain(&self) -> Result<(), KeeperError> {
        let mut buffer = vec![0; LONGEST];
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(_) | Err(Errno::EINTR | Errno::ENOBUFS) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(error) => return Err(error).while_("hear of the host's addresses"),
            }
        }
    }

    /// Reads one datagram; true when it tells of a new default route.
    pub fn default_route(&self) -> Result<bool, KeeperError> {
        let datagram = self.receive()?;
        let new = |message: &Message<'_>| {
            message.kind == libc::RTM_NEWROUTE && message.body.get(1) == Some(&0)
        };
        Ok(messages(&datagram)?.iter().any(new))
    }

    /// Every network that the kernel delivers to this machine itself: address and prefix length.
    pub fn own_routes(&self) -> Result<Vec<(IpAddr, u8)>, KeeperError> {
        let mut found = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let mut tries = 0;
            let of_family = loop {
                if let Some(routes) = self.list_routes(family as u8)? {
                    break routes;
                }
                tries += 1;
                if tries == TRIES {
                    return Err(KeeperError::Netlink("routes, which change all the time"));
                }
            };
            found.extend(of_family);
        }
        Ok(found)
    }

    /// None when they changed while they were listed.
    fn list_routes(&self, family: u8) -> Result<Option<Vec<(IpAddr, u8)>>, KeeperError> {
        let mut body = [0; ROUTE];
        body[0] = family;
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
        self.say(libc::RTM_GETROUTE, flags, &body)?;
        let (mut found, mut whole) = (Vec::new(), true);
        loop {
            let datagram = self.receive()?;
            for message in messages(&datagram)? {
                whole &= message.flags & INTERRUPTED == 0;
                match message.kind {
                    kind if kind == libc::NLMSG_DONE as u16 => {
                        return Ok(whole.then_some(found));
                    }
                    kind if kind == libc::NLMSG_ERROR as u16 => {
                        message.result().while_("list the host's addresses")?;
                    }
                    libc::RTM_NEWROUTE => found.extend(own_route(message.body)),
                    _ => {}
                }
            }
        }
    }

    /// Gives an interface an address.
    pub fn add_address(&self, index: u32, address: IpAddr, prefix: u8) -> Result<(), KeeperError> {
        // Nobody else can have an IPv6 one: it need not be asked for (RFC 4862).
        let (family, flags, octets) = match address {
            IpAddr::V4(address) => (libc::AF_INET, 0, address.octets().to_vec()),
            IpAddr::V6(address) => {
                (libc::AF_INET6, libc::IFA_F_NODAD as u8, address.octets().to_vec())
            }
        };
        let mut body = vec![family as u8, prefix, flags, 0];
        body.extend(index.to_ne_bytes());
        attribute(&mut body, libc::IFA_LOCAL, &octets);
        attribute(&mut body, libc::IFA_ADDRESS, &octets);
        let flags = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
        self.ask(libc::RTM_NEWADDR, flags, &body).while_("give the TAP device its address")
    }

    /// Leads packets for a network to a machine behind an interface.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_route(&self, index: u32, network: Ipv4Net, by: Ipv4Addr) -> Result<(), KeeperError> {
        let mut body = vec![libc::AF_INET as u8, network.prefix_len(), 0, 0];
        let scope = libc::RT_SCOPE_UNIVERSE;
        body.extend([libc::RT_TABLE_MAIN, libc::RTPROT_STATIC, scope, libc::RTN_UNICAST]);
        body.extend([0; 4]);
        attribute(&mut body, libc::RTA_DST, &network.network().octets());
        attribute(&mut body, libc::RTA_GATEWAY, &by.octets());
        attribute(&mut body, libc::RTA_OIF, &index.to_ne_bytes());
        let flags = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
        let what = format!("lead {network} to its router");
        self.ask(libc::RTM_NEWROUTE, flags, &body).while_(what)
    }

    /// Brings an interface up.
    pub fn bring_up(&self, index: u32) -> Result<(), KeeperError> {
        let up = libc::IFF_UP as u32;
        self.ask(libc::RTM_NEWLINK, 0, &link(index, up, up)).while_("bring the TAP device up")
    }

    /// Takes an interface down.
    pub fn take_down(&self, index: u32) -> Result<(), KeeperError> {
        let body = link(index, 0, libc::IFF_UP as u32);
        self.ask(libc::RTM_NEWLINK, 0, &body).while_("take the TAP device down")
    }

    /// Lets packets that come in by this interface leave by another. There is no /proc/sys here.
    pub fn forward(&self, index: u32) -> Result<(), KeeperError> {
        let mut setting = Vec::new();
        attribute(&mut setting, IPV4_DEVCONF_FORWARDING, &1_u32.to_ne_bytes());
        let body = with_family(index, libc::AF_INET as u16, IFLA_INET_CONF, &setting);
        self.ask(libc::RTM_NEWLINK, 0, &body).while_("let an interface forward")
    }

    /// Keeps an interface from giving itself an IPv6 address.
    pub fn without_ipv6(&self, index: u32) -> Result<(), KeeperError> {
        let mode = [IN6_ADDR_GEN_MODE_NONE];
        let body = with_family(index, libc::AF_INET6 as u16, IFLA_INET6_ADDR_GEN_MODE, &mode);
        match self.ask(libc::RTM_NEWLINK, 0, &body) {
            // A kernel without IPv6.
            Err(Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP) => Ok(()),
            result => result.while_("keep IPv6 off the TAP device"),
        }
    }

    /// Removes an interface. One that is not there is no error.
    ///
    /// # Errors
    /// See [`KeeperError`].
    pub fn remove(&self, name: &str) -> Result<bool, KeeperError> {
        let Ok(index) = nix::net::if_::if_nametoindex(name) else { return Ok(false) };
        match self.ask(libc::RTM_DELLINK, 0, &link(index, 0, 0)) {
            Err(Errno::ENODEV) => Ok(false),
            result => result.map(|()| true).while_(format!("remove the interface {name}")),
        }
    }

    /// Says something that the kernel answers with a number.
    ///
    /// # Errors
    /// That number.
    pub fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> Result<(), Errno> {
        let always = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        self.send(kind, flags | always, body)?;
        let mut buffer = vec![0; LONGEST];
        let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let answers = messages(&buffer[..length]).map_err(|_| Errno::EBADMSG)?;
        answers.first().ok_or(Errno::EBADMSG)?.result()
    }

    /// Lists connections that the kernel tracks: of each the attributes that it is described by. `kind`
    /// and `body` are the question (nfnetlink_conntrack.h).
    ///
    /// # Errors
    /// The kernel's.
    pub fn list(&self, kind: u16, body: &[u8]) -> Result<Vec<Vec<u8>>, Errno> {
        self.send(kind, (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16, body)?;
        let (mut found, mut buffer) = (Vec::new(), vec![0; LONGEST]);
        loop {
            let length = match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            for message in messages(&buffer[..length]).map_err(|_| Errno::EBADMSG)? {
                match i32::from(message.kind) {
                    libc::NLMSG_DONE => return Ok(found),
                    libc::NLMSG_ERROR => message.result()?,
                    _ => found.push(message.body.get(GENERAL..).ok_or(Errno::EBADMSG)?.to_vec()),
                }
            }
        }
    }

    fn say(&self, kind: u16, flags: u16, body: &[u8]) -> Result<(), KeeperError> {
        self.send(kind, flags, body).while_("ask the kernel for routes")
    }

    fn send(&self, kind: u16, flags: u16, body: &[u8]) -> Result<(), Errno> {
        let mut text = Vec::with_capacity(HEADER + body.len());
        text.extend(((HEADER + body.len()) as u32).to_ne_bytes());
        text.extend(kind.to_ne_bytes());
        text.extend(flags.to_ne_bytes());
        // No sequence number and port: one question at a time.
        text.extend([0; 8]);
        text.extend(body);
        send(self.0.as_raw_fd(), &text, MsgFlags::empty()).map(drop)
    }

    fn receive(&self) -> Result<Vec<u8>, KeeperError> {
        let mut buffer = vec![0; LONGEST];
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => {
                    buffer.truncate(length);
                    return Ok(buffer);
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).while_("hear of routes"),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The number of an interface of this network namespace.
pub fn index_of(name: &str) -> Result<u32, KeeperError> {
    nix::net::if_::if_nametoindex(name).while_(format!("find the interface {name}"))
}

/// One message of a datagram.
struct Message<'a> {
    kind: u16,
    flags: u16,
    body: &'a [u8],
}

impl Message<'_> {
    /// What an answer with a number says: 0, or the number of an error, negated.
    fn result(&self) -> Result<(), Errno> {
        let number = self.body.first_chunk::<4>().map(|bytes| i32::from_ne_bytes(*bytes));
        match (self.kind == libc::NLMSG_ERROR as u16, number) {
            (true, Some(0)) => Ok(()),
            (true, Some(number)) => Err(Errno::from_raw(number.wrapping_neg())),
            _ => Err(Errno::EBADMSG),
        }
    }
}

fn messages(datagram: &[u8]) -> Result<Vec<Message<'_>>, KeeperError> {
    let malformed = || KeeperError::Netlink("routes");
    let mut found = Vec::new();
    let mut rest = datagram;
    while let Some(header) = rest.first_chunk::<HEADER>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let body = rest.get(HEADER..length).ok_or_else(malformed)?;
        found.push(Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            body,
        });
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(found)
}

/// The name of the table that a message says is gone (linux/netfilter/nf_tables.h).
fn removed_table<'a>(message: &Message<'a>) -> Option<&'a str> {
    /// `NFNL_SUBSYS_NFTABLES`, `NFT_MSG_DELTABLE`, `NFTA_TABLE_NAME`.
    const REMOVED: u16 = (10 << 8) | 2;
    const NAME: u16 = 1;
    if message.kind != REMOVED {
        return None;
    }
    let name = value_of(message.body.get(GENERAL..)?, NAME)??;
    std::ffi::CStr::from_bytes_until_nul(name).ok()?.to_str().ok()
}

/// The destination of a route whose packets stay on this machine.
fn own_route(body: &[u8]) -> Option<(IpAddr, u8)> {
    let &[family, prefix, _, _, _, _, _, kind, ..] = body.first_chunk::<ROUTE>()?;
    if ![libc::RTN_LOCAL, libc::RTN_BROADCAST, libc::RTN_ANYCAST].contains(&kind) {
        return None;
    }
    let destination = value_of(body.get(ROUTE..)?, libc::RTA_DST)?.unwrap_or_default();
    let address = match (i32::from(family), destination.len()) {
        (libc::AF_INET, 4) => IpAddr::from(<[u8; 4]>::try_from(destination).ok()?),
        (libc::AF_INET6, 16) => IpAddr::from(<[u8; 16]>::try_from(destination).ok()?),
        // The whole family is routed to this machine.
        (libc::AF_INET, 0) => Ipv4Addr::UNSPECIFIED.into(),
        (libc::AF_INET6, 0) => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    Some((address, prefix))
}

/// The value of the last attribute of a kind, if there is one; none at all when they are cut off.
pub fn value_of(mut attributes: &[u8], wanted: u16) -> Option<Option<&[u8]>> {
    let mut found = None;
    while let Some(&[a, b, c, d]) = attributes.first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = attributes.get(4..length)?;
        if u16::from_ne_bytes([c, d]) == wanted {
            found = Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(found)
}

/// `struct ifinfomsg`.
fn link(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(change.to_ne_bytes());
    body
}

/// A change of one setting that an address family has for an interface.
fn with_family(index: u32, family: u16, kind: u16, value: &[u8]) -> Vec<u8> {
    let (mut setting, mut of_family) = (Vec::new(), Vec::new());
    attribute(&mut setting, kind, value);
    attribute(&mut of_family, family, &setting);
    let mut body = link(index, 0, 0);
    attribute(&mut body, IFLA_AF_SPEC, &of_family);
    body
}

/// Appends `struct rtattr` with a value, and what brings its length to a multiple of four.
pub fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend(((4 + value.len()) as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_their_length_is_not() {
        let mut body = Vec::new();
        attribute(&mut body, 8, &[1]);
        assert_eq!(body, [5, 0, 8, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn removed_table_is_told_by_its_name() {
        let mut body = vec![1, 0, 0, 0];
        attribute(&mut body, 2, &[0; 4]);
        attribute(&mut body, 1, b"cmtap3\0");
        let message = |kind, body| Message { kind, flags: 0, body };
        assert_eq!(removed_table(&message(0xa02, &body)), Some("cmtap3"));
        // A table that was made.
        assert_eq!(removed_table(&message(0xa00, &body)), None);
        for end in 0..body.len() {
            let cut = removed_table(&message(0xa02, &body[..end]));
            assert!(cut.is_none() || cut == Some("cmtap3"), "{end}: {cut:?}");
        }
    }

    #[test]
    fn cut_messages_are_refused_and_cut_attributes_passed_over() {
        let whole = [20_u32.to_ne_bytes().to_vec(), vec![0; 16]].concat();
        assert_eq!(messages(&whole).expect("one").len(), 1);
        assert!(messages(&whole[..19]).is_err());
        let mut route = vec![libc::AF_INET as u8, 32, 0, 0, 0, 0, 0, libc::RTN_LOCAL, 0, 0, 0, 0];
        attribute(&mut route, libc::RTA_DST, &[127, 0, 0, 1]);
        assert_eq!(own_route(&route), Some((Ipv4Addr::LOCALHOST.into(), 32)));
        for end in ROUTE + 1..route.len() {
            let cut = own_route(&route[..end]);
            assert!(cut.is_none_or(|(address, _)| address.is_unspecified()), "{end}: {cut:?}");
        }
    }
}
