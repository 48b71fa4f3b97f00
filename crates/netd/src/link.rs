//! One link: its TAP device, addresses, tables and children; made in an order in which nothing is
//! open before it is closed to what it must not reach, and removed whole.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use casemate_netns::error::{KeeperError, While, sentence};
use casemate_netns::names::{Names, Resolver};
use casemate_netns::netlink::{self, Groups, Socket, TableFamily};
use casemate_netns::{nft, tap};
use casemate_plan::firewall::{Firewall, Link as Ends, OnHost, device, removal};
use casemate_plan::helper::Order;
use casemate_plan::network::{Name, RESOLVER, names};
use nix::unistd::Uid;

use crate::children::{self, Child};
use crate::conntrack;
use crate::grants::Allowed;

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// A link that is there.
#[derive(Debug)]
pub(crate) struct Link {
    /// Whose it is.
    pub(crate) uid: Uid,
    /// For which compartment, as its owner calls it.
    pub(crate) compartment: String,
    /// The guest's address.
    pub(crate) guest: Ipv4Addr,
    /// Name of its device and tables.
    pub(crate) device: String,
    /// Its firewall, for nft, but for what is in sets.
    rules: String,
    names: Vec<Name>,
    /// Who is asked for names.
    server: Option<Ipv4Addr>,
    resolver: Option<(Resolver, Child)>,
    questions: Option<Child>,
}

impl Link {
    /// Makes the link that was asked for and is allowed. `host` says the text that fills the sets
    /// of the host's addresses in a table.
    ///
    /// # Errors
    /// See [`KeeperError`]; nothing is left of it.
    pub(crate) fn make(
        program: &Path,
        uid: Uid,
        order: &Order,
        allowed: &Allowed,
        (gateway, guest): (Ipv4Addr, Ipv4Addr),
        host: impl Fn(&str) -> Result<String, KeeperError>,
    ) -> Result<(Self, OwnedFd), KeeperError> {
        let mut link = Self {
            uid,
            compartment: order.compartment.to_string(),
            guest,
            device: device(order.id.get()),
            rules: String::new(),
            names: names(&order.rules),
            server: name_server(),
            resolver: None,
            questions: None,
        };
        if nix::net::if_::if_nametoindex(link.device.as_str()).is_ok() {
            let there = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
            return Err(there).while_(format!("make the TAP device {}", link.device));
        }
        let ends = Ends {
            mac: order.mac,
            guest,
            host: gateway,
            v6: None,
            resolver: RESOLVER,
            links: allowed.network.cidr.net(),
            behind: Vec::new(),
        };
        match link.complete(program, order, allowed, &ends, host) {
            Ok(tap) => Ok((link, tap)),
            Err(error) => {
                link.remove(program);
                Err(error)
            }
        }
    }

    fn complete(
        &mut self,
        program: &Path,
        order: &Order,
        allowed: &Allowed,
        ends: &Ends,
        host: impl Fn(&str) -> Result<String, KeeperError>,
    ) -> Result<OwnedFd, KeeperError> {
        conntrack::forget(ends.guest)?;
        let tap = tap::make(&self.device)?;
        let requests = Socket::open(Groups::NONE)?;
        let index = netlink::index_of(&self.device)?;
        requests.without_ipv6(index)?;
        requests.add_address(index, ends.host.into(), 31)?;
        let sockets = match self.server {
            Some(_) => Some(sockets(ends.host)?),
            None => None,
        };
        let interface = allowed.network.nat_interface.as_ref().map(ToString::to_string);
        let at = OnHost {
            name: &self.device,
            outside: interface.as_deref(),
            questions: sockets.as_ref().map(|(_, _, ports)| *ports),
        };
        let firewall = Firewall {
            link: ends,
            rules: &order.rules,
            default: order.default,
            masquerade: allowed.network.nat_enable,
        };
        self.rules = firewall.render_on_host(&at);
        self.close(program, host)?;
        if let (Some((udp, tcp, _)), Some(server)) = (sockets, self.server) {
            self.questions = Some(children::questions(udp, tcp, server)?);
        }
        requests.bring_up(index)?;
        requests.forward(index)?;
        Ok(tap)
    }

    /// Loads its firewall, and has the names in it looked up.
    fn close(
        &mut self,
        program: &Path,
        host: impl Fn(&str) -> Result<String, KeeperError>,
    ) -> Result<(), KeeperError> {
        nft::load(program, &format!("{}{}", self.rules, host(&self.device)?))?;
        if let (false, Some(server)) = (self.names.is_empty(), self.server) {
            let names = Names { names: self.names.clone(), server, v6: false };
            self.resolver = Some(children::names(&names)?);
        }
        Ok(())
    }

    /// Whether both of its tables are there.
    ///
    /// # Errors
    /// See [`KeeperError`].
    pub(crate) fn is_closed(&self) -> Result<bool, KeeperError> {
        Ok(Socket::has_table(TableFamily::Inet, &self.device)?
            && Socket::has_table(TableFamily::Netdev, &self.device)?)
    }

    /// Lets nothing pass, or everything that its firewall lets pass.
    ///
    /// # Errors
    /// See [`KeeperError`].
    pub(crate) fn set_up(&self, up: bool) -> Result<(), KeeperError> {
        let requests = Socket::open(Groups::NONE)?;
        let index = netlink::index_of(&self.device)?;
        if up { requests.bring_up(index) } else { requests.take_down(index) }
    }

    /// Makes its firewall anew, after somebody has removed it. Its device is down.
    ///
    /// # Errors
    /// See [`KeeperError`].
    pub(crate) fn restore(
        &mut self,
        program: &Path,
        host: impl Fn(&str) -> Result<String, KeeperError>,
    ) -> Result<(), KeeperError> {
        self.resolver = None;
        // One of its two tables may be there still.
        nft::load(program, &removal(&self.device))?;
        self.close(program, host)?;
        // What it was not allowed to begin meanwhile shall not go on.
        conntrack::forget(self.guest)
    }

    /// Removes it. What cannot be removed is said to the log, and tried again at the next start.
    pub(crate) fn remove(&mut self, program: &Path) {
        (self.resolver, self.questions) = (None, None);
        let device = Socket::open(Groups::NONE).and_then(|requests| requests.remove(&self.device));
        let tables = nft::load(program, &removal(&self.device));
        let connections = conntrack::forget(self.guest);
        for error in [device.err(), tables.err(), connections.err()].into_iter().flatten() {
            eprintln!("casemate-netd: link {} is left: {}", self.device, sentence(&error));
        }
    }

    /// What is heard when an address of a name is found.
    pub(crate) fn resolver(&self) -> Option<BorrowedFd<'_>> {
        self.resolver.as_ref().map(|(resolver, _)| resolver.as_fd())
    }

    /// Tells the firewall an address that was found.
    ///
    /// # Errors
    /// See [`KeeperError`].
    pub(crate) fn take_addresses(&mut self, program: &Path) -> Result<(), KeeperError> {
        let Some((resolver, _)) = &self.resolver else { return Ok(()) };
        match resolver.text(&self.names, &self.device) {
            Ok(Some(text)) => nft::load(program, &text),
            // What it found last stays.
            Ok(None) => {
                self.resolver = None;
                Ok(())
            }
            Err(error) => {
                self.resolver = None;
                Err(error)
            }
        }
    }

    /// Whether the guest's questions for names are no longer answered, though they were.
    pub(crate) fn is_mute(&mut self) -> bool {
        self.questions.as_mut().is_some_and(Child::has_ended)
    }

    /// How many packets met which rule, as nft's JSON: of both tables in one list.
    ///
    /// # Errors
    /// See [`KeeperError`].
    pub(crate) fn counters(&self, program: &Path) -> Result<String, KeeperError> {
        let mut all = Vec::new();
        for family in ["netdev", "inet"] {
            let text = nft::counters_of(program, family, &self.device)?;
            let mut listed: serde_json::Value =
                serde_json::from_str(&text).map_err(KeeperError::Order)?;
            if let Some(list) = listed["nftables"].as_array_mut() {
                all.append(list);
            }
        }
        Ok(serde_json::json!({ "nftables": all }).to_string())
    }
}

/// The host's first name server with an IPv4 address.
fn name_server() -> Option<Ipv4Addr> {
    let text = fs::read_to_string(RESOLV_CONF).ok()?;
    casemate_host::network::resolvers(&text).into_iter().find_map(|address| match address {
        std::net::IpAddr::V4(address) => Some(address),
        std::net::IpAddr::V6(_) => None,
    })
}

/// Sockets for questions, on the host's end of the link, and their ports. None of them is 53, which
/// would need one privilege more and may be somebody else's.
fn sockets(gateway: Ipv4Addr) -> Result<(OwnedFd, OwnedFd, (u16, u16)), KeeperError> {
    let bind = || -> std::io::Result<_> {
        let udp = UdpSocket::bind((gateway, 0))?;
        let tcp = TcpListener::bind((gateway, 0))?;
        let ports = (udp.local_addr()?.port(), tcp.local_addr()?.port());
        Ok((udp.into(), tcp.into(), ports))
    };
    bind().while_(format!("listen for questions at {gateway}"))
}
