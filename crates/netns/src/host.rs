//! Every address of the host, kept up to date: what the kernel of the host's network delivers to
//! itself, as its routing tables say it (routes of the types local, broadcast and anycast). That
//! includes addresses of all interfaces and networks that are routed to the host as a whole.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use casemate_config::ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::error::KeeperError;
use crate::netlink::{Groups, Socket};

/// The host's addresses, and news of them.
#[derive(Debug)]
pub struct HostAddresses {
    /// Gets a message when an address or a route changes.
    events: Socket,
    requests: Socket,
    known: Vec<IpNet>,
}

impl HostAddresses {
    /// Looks at the network that this process is in, now and later.
    pub fn watch() -> Result<Self, KeeperError> {
        // News first: what changes in between is seen twice and not missed.
        let events = Socket::open(Groups::HOST)?;
        let requests = Socket::open(Groups::NONE)?;
        let known = look(&requests)?;
        Ok(Self { events, requests, known })
    }

    /// Takes the news; true when an address came or went.
    pub fn changed(&mut self) -> Result<bool, KeeperError> {
        self.events.drain()?;
        let found = look(&self.requests)?;
        let changed = found != self.known;
        self.known = found;
        Ok(changed)
    }

    /// Whether the host has this address.
    pub fn has(&self, address: std::net::Ipv4Addr) -> bool {
        self.known.iter().any(|net| net.contains(&IpAddr::V4(address)))
    }

    /// What makes the sets `host4` and `host6` of the table equal to them, for nft.
    pub fn text(&self, table: &str) -> Result<String, KeeperError> {
        let mut text = String::new();
        for family in [4, 6] {
            let of_family = |net: &&IpNet| matches!(net, IpNet::V4(_)) == (family == 4);
            let all: Vec<String> =
                self.known.iter().filter(of_family).map(ToString::to_string).collect();
            text.push_str(&format!("flush set inet {table} host{family}\n"));
            if !all.is_empty() {
                let all = all.join(", ");
                text.push_str(&format!("add element inet {table} host{family} {{ {all} }}\n"));
            }
        }
        Ok(text)
    }
}

impl AsFd for HostAddresses {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

/// The networks that are the host's own, none within another.
fn look(requests: &Socket) -> Result<Vec<IpNet>, KeeperError> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for (address, prefix) in requests.own_routes()? {
        match address {
            IpAddr::V4(address) => v4.extend(Ipv4Net::new(address, prefix)),
            IpAddr::V6(address) => v6.extend(Ipv6Net::new(address, prefix)),
        }
    }
    let v4 = Ipv4Net::aggregate(&v4).into_iter().map(IpNet::V4);
    let v6 = Ipv6Net::aggregate(&v6).into_iter().map(IpNet::V6);
    let mut all: Vec<IpNet> = v4.chain(v6).collect();
    all.sort();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_among_the_hosts_addresses() {
        let host = HostAddresses::watch().expect("the kernel answers");
        let loopback: IpAddr = "127.0.0.1".parse().expect("an address");
        assert!(host.known.iter().any(|net| net.contains(&loopback)), "{:?}", host.known);
        let text = host.text("casemate").expect("a text");
        assert!(text.contains("add element inet casemate host4 { 127.0.0.0/8"), "{text}");
    }
}
