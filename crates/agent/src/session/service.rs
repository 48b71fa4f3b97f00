//! Services of the guest: the file or socket that a call is for, and what it is told of the caller.
//!
//! As in Qubes, a service is a program `NAME+ARGUMENT` or `NAME` in a folder of services; the first
//! that is there is run, with the argument as its only one. A unix socket in its place is connected
//! to, and is told the service and the caller in a line that ends with a zero byte.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use casemate_wire::{ExitStatus, Service};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect as connect_to, send, socket,
};

use crate::calls::PROGRAM;
use crate::tools;

/// Where services are, in this order: the compartment's own, the image's, and an image's for Qubes.
const FOLDERS: [&str; 3] = ["/etc/casemate/rpc", "/usr/lib/casemate/rpc", "/etc/qubes-rpc"];

/// The files that may be the service, in order.
fn files(service: &Service) -> impl Iterator<Item = PathBuf> {
    let full = full_name(service);
    let names = [full, service.name.clone()];
    FOLDERS
        .into_iter()
        .flat_map(move |folder| names.clone().map(|name| Path::new(folder).join(name)).into_iter())
}

fn full_name(service: &Service) -> String {
    format!("{}+{}", service.name, service.argument)
}

/// The host checks names; a path out of the folder is worth a second look.
fn is_sound(service: &Service) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte);
    let name = &service.name;
    !name.is_empty() && !name.starts_with('.') && full_name(service).bytes().all(allowed)
}

/// What to execute: the files to try, and the argument vector.
pub(super) type Words = (Vec<Vec<u8>>, Vec<Vec<u8>>);

/// How a service is run.
pub(super) fn command(service: &Service) -> Result<Words, ExitStatus> {
    if !is_sound(service) {
        let reason = format!("{:?} is no name of a service", full_name(service));
        return Err(ExitStatus::NotExecutable { reason });
    }
    let path = |path: PathBuf| path.into_os_string().into_encoded_bytes();
    let mut argv = vec![service.name.clone().into_bytes()];
    if !service.argument.is_empty() {
        argv.push(service.argument.clone().into_bytes());
    }
    let mut candidates: Vec<_> = files(service).map(path).collect();
    if tools::is_service(&service.name) {
        // Behind every file: an image's own takes its place.
        candidates.push(PROGRAM.into());
    }
    Ok((candidates, argv))
}

/// What a service finds in its environment; the second half under the names that Qubes gives them.
pub(super) fn variables(service: &Service) -> Vec<(&'static str, String)> {
    let keyword = service.target.strip_prefix('@');
    let kind = if keyword.is_some() { "keyword" } else { "name" };
    let mut variables = vec![
        ("CASEMATE_SOURCE", service.source.clone()),
        ("CASEMATE_SERVICE", service.name.clone()),
        ("CASEMATE_ARGUMENT", service.argument.clone()),
        ("CASEMATE_TARGET", service.target.clone()),
        ("QREXEC_REMOTE_DOMAIN", service.source.clone()),
        ("QREXEC_SERVICE_FULL_NAME", full_name(service)),
        ("QREXEC_REQUESTED_TARGET_TYPE", kind.to_owned()),
    ];
    if !service.argument.is_empty() {
        variables.push(("QREXEC_SERVICE_ARGUMENT", service.argument.clone()));
    }
    variables.push(match keyword {
        Some(keyword) => ("QREXEC_REQUESTED_TARGET_KEYWORD", keyword.to_owned()),
        None => ("QREXEC_REQUESTED_TARGET", service.target.clone()),
    });
    variables
}

/// Connects to the service when it is a socket; none when it is something else.
pub(super) fn connect(service: &Service) -> Option<Result<OwnedFd, ExitStatus>> {
    use std::os::unix::fs::FileTypeExt;
    if !is_sound(service) {
        return None;
    }
    let first = files(service).find_map(|path| {
        let kind = std::fs::metadata(&path).ok()?.file_type();
        Some((path, kind.is_socket()))
    });
    let path = first.filter(|(_, is_socket)| *is_socket)?.0;
    Some(greet(&path, service).map_err(failed))
}

fn greet(path: &Path, service: &Service) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect_to(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    let line = format!("{} {}\0", full_name(service), service.source);
    // An empty socket takes a line at once.
    match send(socket.as_raw_fd(), line.as_bytes(), MsgFlags::MSG_NOSIGNAL)? {
        count if count == line.len() => Ok(socket),
        _ => Err(Errno::EAGAIN.into()),
    }
}

/// What the caller is told when a socket cannot be used.
pub(super) fn failed(error: io::Error) -> ExitStatus {
    ExitStatus::NotExecutable { reason: format!("could not connect to the service: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, argument: &str, target: &str) -> Service {
        let [name, argument, target] = [name, argument, target].map(str::to_owned);
        Service { name, argument, source: "web".into(), target }
    }

    #[test]
    fn the_file_with_the_argument_comes_first_and_the_compartments_folder_before_others() {
        let (candidates, argv) = command(&service("my.Service", "a-b", "work")).expect("a name");
        let candidates: Vec<_> =
            candidates.iter().map(|path| String::from_utf8_lossy(path)).collect();
        assert_eq!(
            candidates[..2],
            ["/etc/casemate/rpc/my.Service+a-b", "/etc/casemate/rpc/my.Service"]
        );
        assert_eq!(candidates.len(), 6);
        assert_eq!(argv, [b"my.Service".to_vec(), b"a-b".to_vec()]);
        let (_, argv) = command(&service("my.Service", "", "work")).expect("a name");
        assert_eq!(argv.len(), 1);
    }

    #[test]
    fn services_of_the_agents_own_come_behind_every_file() {
        let (candidates, argv) =
            command(&service("casemate.Filecopy", "", "work")).expect("a name");
        assert_eq!(candidates.len(), 7);
        assert_eq!(candidates[6], PROGRAM.as_bytes());
        assert_eq!(argv, [b"casemate.Filecopy".to_vec()]);
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        for (name, argument) in [("../x", ""), ("", ""), ("a/b", ""), ("a", "../../x"), (".a", "")]
        {
            let refused = command(&service(name, argument, ""));
            assert!(matches!(refused, Err(ExitStatus::NotExecutable { .. })), "{name} {argument}");
            assert!(connect(&service(name, argument, "")).is_none(), "{name} {argument}");
        }
    }

    #[test]
    fn a_service_learns_who_calls_and_what_for() {
        let find = |service: &Service, name: &str| {
            variables(service).into_iter().find(|(one, _)| *one == name).map(|(_, value)| value)
        };
        let one = service("s", "x", "@default");
        assert_eq!(find(&one, "QREXEC_REMOTE_DOMAIN").as_deref(), Some("web"));
        assert_eq!(find(&one, "QREXEC_SERVICE_FULL_NAME").as_deref(), Some("s+x"));
        assert_eq!(find(&one, "QREXEC_REQUESTED_TARGET_KEYWORD").as_deref(), Some("default"));
        assert_eq!(find(&one, "QREXEC_REQUESTED_TARGET"), None);
        let other = service("s", "", "work");
        assert_eq!(find(&other, "QREXEC_REQUESTED_TARGET").as_deref(), Some("work"));
        assert_eq!(find(&other, "QREXEC_SERVICE_ARGUMENT"), None);
        assert_eq!(find(&other, "CASEMATE_TARGET").as_deref(), Some("work"));
    }
}
