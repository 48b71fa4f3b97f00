//! The guest's network interfaces, the link to the host and ports of networks between compartments: address, the route outside, the name server. All of it comes
//! from the host; nothing is asked of the network (no DHCP, no router advertisements).

use std::ffi::c_int;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use casemate_wire::{Boot, Interface, Port};
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::SetupError;
use super::files::write_public;
use crate::log::Log;

nix::ioctl_write_ptr_bad!(set_address, libc::SIOCSIFADDR, libc::ifreq);
nix::ioctl_write_ptr_bad!(set_netmask, libc::SIOCSIFNETMASK, libc::ifreq);
nix::ioctl_write_ptr_bad!(set_mtu, libc::SIOCSIFMTU, libc::ifreq);
nix::ioctl_write_ptr_bad!(set_flags, libc::SIOCSIFFLAGS, libc::ifreq);
nix::ioctl_write_ptr_bad!(add_route, libc::SIOCADDRT, libc::rtentry);
nix::ioctl_write_ptr_bad!(set_address6, libc::SIOCSIFADDR, Address6);
nix::ioctl_write_ptr_bad!(add_route6, libc::SIOCADDRT, Route6);

/// Bits of the network of a link of two (RFC 3021).
const PREFIX: u8 = 31;
/// Prefix length of an IPv6 link of two (RFC 6164).
const PREFIX6: u32 = 127;

/// The driver is loaded, and has found its device in milliseconds; a loaded machine may need more.
const PATIENCE: Duration = Duration::from_secs(5);

/// `struct in6_ifreq`, linux/ipv6.h.
#[repr(C)]
struct Address6 {
    address: [u8; 16],
    prefix: u32,
    index: c_int,
}

/// `struct in6_rtmsg`, linux/ipv6_route.h.
#[repr(C)]
#[derive(Default)]
struct Route6 {
    destination: [u8; 16],
    source: [u8; 16],
    gateway: [u8; 16],
    kind: u32,
    destination_length: u16,
    source_length: u16,
    metric: u32,
    info: libc::c_ulong,
    flags: u32,
    index: c_int,
}

/// Sets the interface up.
pub(super) fn set_up(interface: &Interface) -> Result<(), SetupError> {
    let name = find(interface.mac)?;
    match interface.v6 {
        None => without_ipv6(&name),
        Some(_) => no_questions(&name),
    }
    let failed = || SetupError::step(format!("set up the network interface {name}"));
    let settings = Settings {
        address: interface.address,
        prefix: PREFIX,
        gateway: Some(interface.gateway),
        mtu: interface.mtu,
    };
    configure(&name, &settings).map_err(failed())?;
    if let Some((address, gateway)) = interface.v6 {
        configure6(&name, address, gateway).map_err(failed())?;
    }
    Ok(())
}

/// Sets an interface in a network between compartments up.
pub(super) fn set_up_port(port: &Port) -> Result<(), SetupError> {
    let name = find(port.mac)?;
    without_ipv6(&name);
    let settings = Settings {
        address: port.address,
        prefix: port.prefix,
        gateway: port.gateway,
        mtu: port.mtu,
    };
    let what = format!("set up the network interface {name}");
    configure(&name, &settings).map_err(SetupError::step(what))
}

/// Whom the guest's programs ask for names: the host's way first.
pub(super) fn name_servers(boot: &Boot) -> Vec<IpAddr> {
    let of_link = boot.network.iter().flat_map(|interface| &interface.name_servers);
    let of_ports = boot.ports.iter().flat_map(|port| &port.name_servers);
    let mut servers: Vec<IpAddr> = of_link.chain(of_ports).copied().collect();
    servers.dedup();
    servers
}

/// Tells the guest's programs whom to ask for names. A root without overlay keeps its own file.
pub(super) fn write_resolv_conf(servers: &[IpAddr], log: &mut Log) -> Result<(), SetupError> {
    const PATH: &str = "/etc/resolv.conf";
    let lines: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    // Images have a link to a file of some service here.
    let removed = match fs::remove_file(PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(SetupError::file("replace", PATH)),
    };
    match removed.and_then(|()| write_public(PATH, &lines)) {
        Err(error) if error.is_read_only() => {
            log.warn(error.sentence());
            Ok(())
        }
        result => result,
    }
}

/// The name of the interface with this Ethernet address.
fn find(mac: [u8; 6]) -> Result<String, SetupError> {
    let wanted = mac.map(|byte| format!("{byte:02x}")).join(":");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let folder = Path::new("/sys/class/net");
        let entries = fs::read_dir(folder).map_err(SetupError::file("list", folder))?;
        for entry in entries.flatten() {
            let address = fs::read_to_string(entry.path().join("address")).unwrap_or_default();
            if address.trim() == wanted {
                return Ok(entry.file_name().to_string_lossy().into_owned());
            }
        }
        if Instant::now() >= deadline {
            let what = format!("find the network interface {wanted}");
            return Err(SetupError::Step { what, source: io::ErrorKind::NotFound.into() });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Loopback keeps its IPv6; interfaces that come later, those of containers, get none either. A kernel without has none of these files.
fn without_ipv6(name: &str) {
    for interface in ["default", name] {
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"), "1");
    }
}

/// The address is the host's to give: neither do routers say it, nor is anybody asked whether it is
/// taken, which takes a second.
fn no_questions(name: &str) {
    for setting in ["accept_ra", "accept_dad"] {
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/{setting}"), "0");
    }
}

/// What every interface is given.
struct Settings {
    address: Ipv4Addr,
    prefix: u8,
    gateway: Option<Ipv4Addr>,
    mtu: u16,
}

fn configure(name: &str, settings: &Settings) -> io::Result<()> {
    let socket = open(AddressFamily::Inet)?;
    let number = socket.as_raw_fd();
    let mut request = request(name);
    request.ifr_ifru.ifru_mtu = c_int::from(settings.mtu);
    // SAFETY: the argument is an ifreq that outlives the call.
    unsafe { set_mtu(number, &request) }?;
    request.ifr_ifru.ifru_addr = address(settings.address);
    // SAFETY: as above.
    unsafe { set_address(number, &request) }?;
    request.ifr_ifru.ifru_netmask = address(netmask(settings.prefix));
    // SAFETY: as above.
    unsafe { set_netmask(number, &request) }?;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: as above.
    unsafe { set_flags(number, &request) }?;

    let Some(gateway) = settings.gateway else { return Ok(()) };
    // SAFETY: rtentry is numbers, sockaddrs and pointers, valid when zero.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = address(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = address(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = address(gateway);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    // SAFETY: the argument is an rtentry without a device's name, and outlives the call.
    unsafe { add_route(number, &route) }?;
    Ok(())
}

/// The netmask with so many bits; all of them beyond 32.
fn netmask(prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(!u32::MAX.checked_shr(prefix.into()).unwrap_or(0))
}

fn configure6(name: &str, address: Ipv6Addr, gateway: Ipv6Addr) -> io::Result<()> {
    let socket = open(AddressFamily::Inet6)?;
    let number = socket.as_raw_fd();
    let index = fs::read_to_string(format!("/sys/class/net/{name}/ifindex"))?;
    let index: c_int = index.trim().parse().map_err(io::Error::other)?;
    let own = Address6 { address: address.octets(), prefix: PREFIX6, index };
    // SAFETY: the argument is an in6_ifreq that outlives the call.
    unsafe { set_address6(number, &own) }?;
    let route = Route6 {
        gateway: gateway.octets(),
        flags: u32::from(libc::RTF_UP | libc::RTF_GATEWAY),
        metric: 1,
        index,
        ..Route6::default()
    };
    // SAFETY: the argument is an in6_rtmsg that outlives the call.
    unsafe { add_route6(number, &route) }?;
    Ok(())
}

fn open(family: AddressFamily) -> io::Result<OwnedFd> {
    Ok(socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?)
}

fn request(name: &str) -> libc::ifreq {
    // SAFETY: ifreq is numbers and a union of such, valid when zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    let places = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..places].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

/// An IPv4 address as these calls take it: `struct sockaddr_in`, whose address follows two bytes of
/// family and two of port.
fn address(address: Ipv4Addr) -> libc::sockaddr {
    // SAFETY: sockaddr is numbers, valid when zero.
    let mut general: libc::sockaddr = unsafe { std::mem::zeroed() };
    general.sa_family = libc::AF_INET as libc::sa_family_t;
    for (to, from) in general.sa_data[2..6].iter_mut().zip(address.octets()) {
        *to = from as libc::c_char;
    }
    general
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_by_its_address_and_no_other_is() {
        assert_eq!(find([0; 6]).expect("lo"), "lo");
    }

    #[test]
    fn netmasks_have_as_many_bits_as_the_prefix_says() {
        for (prefix, expected) in [
            (31, "255.255.255.254"),
            (24, "255.255.255.0"),
            (0, "0.0.0.0"),
            (32, "255.255.255.255"),
            (200, "255.255.255.255"),
        ] {
            assert_eq!(netmask(prefix).to_string(), expected);
        }
    }

    #[test]
    fn an_address_stands_where_sockaddr_in_has_it() {
        let general = address(Ipv4Addr::new(172, 16, 200, 7));
        let bytes: Vec<u8> = general.sa_data[..6].iter().map(|&byte| byte as u8).collect();
        assert_eq!(bytes, [0, 0, 172, 16, 200, 7]);
    }
}
