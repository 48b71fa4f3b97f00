//! Who the guest is: its names, its time zone, its loopback interface, its kernel's settings.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::Path;

use casemate_wire::Boot;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::SetupError;
use super::files::write_public;
use crate::log::Log;

nix::ioctl_write_ptr_bad!(set_interface_flags, libc::SIOCSIFFLAGS, libc::ifreq);

/// Sets everything of `boot` that this file is responsible for.
pub(super) fn set(boot: &Boot, log: &mut Log) -> Result<(), SetupError> {
    nix::unistd::sethostname(&boot.hostname).map_err(SetupError::step("set the host name"))?;
    // A guest out of memory would otherwise read the same pages of its root again and again for
    // minutes before the kernel ends what took the memory. Kernels without the setting have to.
    for (file, value) in [("enabled", "y"), ("min_ttl_ms", "1000")] {
        let _ = std::fs::write(format!("/sys/kernel/mm/lru_gen/{file}"), value);
    }
    for (name, value) in &boot.sysctls {
        set_sysctl(name, value, log)?;
    }
    write_public("/etc/hostname", &format!("{}\n", boot.hostname))?;
    write_public("/etc/hosts", &hosts(&boot.hostname))?;
    write_public("/etc/machine-id", &format!("{}\n", boot.machine_id))?;
    match &boot.timezone {
        Some(zone) => set_timezone(zone, log),
        None => Ok(()),
    }
}

fn hosts(name: &str) -> String {
    format!("127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n::1\tlocalhost ip6-localhost ip6-loopback\n")
}

/// Brings the loopback interface up.
pub(crate) fn loopback_up() -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: ifreq is numbers and a union of such, valid when zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the argument is an ifreq that outlives the call.
    unsafe { set_interface_flags(socket.as_raw_fd(), &request) }?;
    Ok(())
}

/// Writes one kernel setting. One that this kernel does not have is logged. With a `-` before its
/// name, as in sysctl.d(5), nothing is said of that, and one that is refused is logged: hardening
/// names settings of several kernels.
fn set_sysctl(name: &str, value: &str, log: &mut Log) -> Result<(), SetupError> {
    let (name, lenient) = match name.strip_prefix('-') {
        Some(name) => (name, true),
        None => (name, false),
    };
    let no_sysctl = || SetupError::Value { value: name.to_owned(), what: "kernel setting" };
    let path = sysctl_path(name).ok_or_else(no_sysctl)?;
    match fs::write(&path, value) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if !lenient {
                log.warn(format!("this kernel has no setting {name}"));
            }
            Ok(())
        }
        Err(error) if lenient => {
            log.warn(format!("could not set {name} = {value}: {error}"));
            Ok(())
        }
        Err(source) => Err(SetupError::Step { what: format!("set {name} = {value}"), source }),
    }
}

/// The file of a kernel setting, as sysctl(8) finds it: dots become slashes, and slashes (in the
/// name of an interface) dots.
fn sysctl_path(name: &str) -> Option<String> {
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let path: String = name.chars().map(swap).collect();
    let safe = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    safe.then(|| format!("/proc/sys/{path}"))
}

fn set_timezone(zone: &str, log: &mut Log) -> Result<(), SetupError> {
    let safe = zone.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if !safe {
        return Err(SetupError::Value { value: zone.to_owned(), what: "time zone" });
    }
    let target = format!("/usr/share/zoneinfo/{zone}");
    if !Path::new(&target).exists() {
        log.warn(format!("the image does not know the time zone {zone}"));
        return Ok(());
    }
    match fs::remove_file("/etc/localtime") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(SetupError::file("replace", "/etc/localtime")(error));
        }
        _ => {}
    }
    symlink(&target, "/etc/localtime").map_err(SetupError::file("write", "/etc/localtime"))?;
    write_public("/etc/timezone", &format!("{zone}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_with_a_dash_are_passed_over_where_the_kernel_has_or_takes_none() {
        let mut log = Log::new();
        assert!(set_sysctl("-casemate.none", "1", &mut log).is_ok());
        assert!(log.take().is_empty());
        assert!(set_sysctl("casemate.none", "1", &mut log).is_ok());
        assert_eq!(log.take().len(), 1);
        // It can only be read, by root too.
        assert!(set_sysctl("-kernel.ostype", "x", &mut log).is_ok());
        assert_eq!(log.take().len(), 1);
        assert!(set_sysctl("kernel.ostype", "x", &mut log).is_err());
    }

    #[test]
    fn settings_are_found_where_sysctl_finds_them() {
        let path = |name| sysctl_path(name).unwrap_or_default();
        assert_eq!(path("kernel.kptr_restrict"), "/proc/sys/kernel/kptr_restrict");
        assert_eq!(
            path("net.ipv4.conf.eth0/1.rp_filter"),
            "/proc/sys/net/ipv4/conf/eth0.1/rp_filter"
        );
        assert_eq!(path("kernel..x"), "");
        assert_eq!(path("//.//.etc"), "");
        assert_eq!(path(""), "");
    }
}
