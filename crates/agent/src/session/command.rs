//! From what the host asks for to what exec needs: account, environment, directory and the files
//! that the program's name may mean. Everything is made ready here, before the fork, so that the
//! child has nothing left to allocate or to look up.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, chown, symlink};

use casemate_wire::{ExitStatus, OpenSession, Restrictions};

use super::service;
use crate::accounts::{self, Account};
use crate::x11;

/// Search path of a session that brings none.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What [`casemate_wire::Boot`] says about every session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// Account of a session that names none.
    pub(crate) default_user: String,
    /// Environment of every session.
    pub(crate) environment: Vec<(String, String)>,
    /// What every session is denied.
    pub(crate) restrictions: Restrictions,
}

/// A program ready to be executed.
#[derive(Debug)]
pub(crate) struct Command {
    /// Files to try in this order: one for a name with a slash, else one per folder of the path.
    pub(crate) candidates: Vec<CString>,
    pub(crate) argv: Vec<CString>,
    pub(crate) environment: Vec<CString>,
    /// Directories to try in this order.
    pub(crate) directories: Vec<CString>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) restrictions: Restrictions,
}

impl Command {
    /// Resolves a request. The error is what the host is told instead of a started command.
    pub(crate) fn resolve(request: &OpenSession, settings: &Settings) -> Result<Self, ExitStatus> {
        let user = request.user.as_deref().unwrap_or(&settings.default_user);
        let (account, groups) = match accounts::look_up(user) {
            Ok(Some(found)) => found,
            Ok(None) => return refuse(format!("the guest has no user {user:?}")),
            Err(error) => {
                return refuse(format!("could not read the guest's accounts: {error}"));
            }
        };
        runtime_folder(&account);
        Self::for_account(request, settings, &account, groups)
    }

    /// A login shell of this account.
    pub(crate) fn login_shell(
        account: &Account,
        groups: Vec<u32>,
        settings: &Settings,
        terminal: &str,
    ) -> Result<Self, ExitStatus> {
        let request = OpenSession {
            argv: Vec::new(),
            environment: vec![(b"TERM".to_vec(), terminal.as_bytes().to_vec())],
            cwd: None,
            user: None,
            terminal: None,
            detached: false,
            service: None,
        };
        Self::for_account(&request, settings, account, groups)
    }

    fn for_account(
        request: &OpenSession,
        settings: &Settings,
        account: &Account,
        groups: Vec<u32>,
    ) -> Result<Self, ExitStatus> {
        let variables = variables(request, settings, account);
        let path = variables.get(b"PATH".as_slice()).cloned().unwrap_or_default();
        let (candidates, argv) = match (&request.service, request.argv.split_first()) {
            (Some(service), _) => service::command(service)?,
            (None, Some((program, _))) => (candidates(program, &path), request.argv.clone()),
            (None, None) => {
                (vec![account.shell.clone().into_bytes()], vec![login_name(&account.shell)])
            }
        };
        let environment = variables
            .into_iter()
            .map(|(name, value)| [name.as_slice(), b"=", &value].concat())
            .collect();
        let directories = match &request.cwd {
            Some(directory) => vec![directory.clone()],
            // As sshd does: a home that is not there is no reason to refuse.
            None => vec![account.home.clone().into_bytes(), b"/".to_vec()],
        };
        Ok(Self {
            candidates: c_strings(candidates)?,
            argv: c_strings(argv)?,
            environment: c_strings(environment)?,
            directories: c_strings(directories)?,
            uid: account.uid,
            gid: account.gid,
            groups,
            restrictions: settings.restrictions,
        })
    }
}

/// The environment: what every login has, then the compartment's, then the session's own; the
/// last one to set a variable wins.
fn variables(
    request: &OpenSession,
    settings: &Settings,
    account: &Account,
) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut variables = BTreeMap::new();
    let mut set = |name: &[u8], value: &[u8]| {
        // A name that is empty or has a '=' in it cannot be said in an environment.
        if !name.is_empty() && !name.contains(&b'=') {
            variables.insert(name.to_vec(), value.to_vec());
        }
    };
    set(b"HOME", account.home.as_bytes());
    set(b"LANG", b"C.UTF-8");
    set(b"LOGNAME", account.name.as_bytes());
    set(b"PATH", DEFAULT_PATH.as_bytes());
    set(b"SHELL", account.shell.as_bytes());
    set(b"USER", account.name.as_bytes());
    set(b"XDG_RUNTIME_DIR", runtime(account).as_bytes());
    if request.terminal.is_some() {
        set(b"TERM", b"xterm");
    }
    // Where there is a compositor.
    if request.environment.iter().any(|(name, _)| name == b"WAYLAND_DISPLAY") && x11::is_there() {
        set(b"DISPLAY", x11::DISPLAY.as_bytes());
    }
    for (name, value) in &settings.environment {
        set(name.as_bytes(), value.as_bytes());
    }
    for (name, value) in &request.environment {
        set(name, value);
    }
    if let Some(service) = &request.service {
        for (name, value) in service::variables(service) {
            set(name.as_bytes(), value.as_bytes());
        }
    }
    variables
}

/// The user's folder for sockets (the XDG Base Directory specification); the one that logind makes.
fn runtime(account: &Account) -> String {
    format!("/run/user/{}", account.uid)
}

/// Makes the user's folder for sockets where nobody has, with the display that programs look for
/// when no variable names one. Who lacks it lacks it.
fn runtime_folder(account: &Account) {
    let folder = runtime(account);
    if std::path::Path::new(&folder).exists() {
        return;
    }
    let made = DirBuilder::new().recursive(true).mode(0o755).create("/run/user");
    let own = || DirBuilder::new().mode(0o700).create(&folder);
    if made.and_then(|()| own()).is_ok() {
        let _ = symlink(crate::windows::DISPLAY, format!("{folder}/wayland-0"));
        let _ = chown(&folder, Some(account.uid), Some(account.gid));
    }
}

/// The files a program's name may mean, as execvp(3) goes through them.
fn candidates(program: &[u8], path: &[u8]) -> Vec<Vec<u8>> {
    if program.contains(&b'/') || program.is_empty() {
        return vec![program.to_vec()];
    }
    path.split(|&byte| byte == b':')
        .map(|folder| match folder {
            b"" => program.to_vec(),
            folder => [folder, b"/", program].concat(),
        })
        .collect()
}

/// Argument 0 of a login shell: `-bash` for `/bin/bash`.
fn login_name(shell: &str) -> Vec<u8> {
    let name = shell.rsplit('/').next().unwrap_or(shell);
    format!("-{name}").into_bytes()
}

fn c_strings(strings: Vec<Vec<u8>>) -> Result<Vec<CString>, ExitStatus> {
    let strings: Result<Vec<_>, _> = strings.into_iter().map(CString::new).collect();
    strings.or_else(|_| refuse("an argument has a zero byte in it".to_owned()))
}

fn refuse<T>(reason: String) -> Result<T, ExitStatus> {
    Err(ExitStatus::NotExecutable { reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use casemate_wire::TerminalSize;

    fn account() -> Account {
        Account {
            name: "user".into(),
            uid: 1000,
            gid: 1000,
            home: "/home/user".into(),
            shell: "/bin/bash".into(),
        }
    }

    fn request(argv: &[&str]) -> OpenSession {
        OpenSession {
            argv: argv.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
            environment: Vec::new(),
            cwd: None,
            user: None,
            terminal: None,
            detached: false,
            service: None,
        }
    }

    fn texts(strings: &[CString]) -> Vec<&str> {
        strings.iter().map(|string| string.to_str().expect("text")).collect()
    }

    #[test]
    fn a_bare_name_is_looked_for_in_every_folder_of_the_sessions_own_path() {
        let mut request = request(&["true", "x y"]);
        request.environment.push((b"PATH".to_vec(), b"/a::/b".to_vec()));
        let command = Command::for_account(&request, &Settings::default(), &account(), vec![1000])
            .expect("resolved");
        assert_eq!(texts(&command.candidates), ["/a/true", "true", "/b/true"]);
        assert_eq!(texts(&command.argv), ["true", "x y"]);
    }

    #[test]
    fn a_name_with_a_slash_is_that_file() {
        let command =
            Command::for_account(&request(&["./x"]), &Settings::default(), &account(), vec![]);
        assert_eq!(texts(&command.expect("resolved").candidates), ["./x"]);
    }

    #[test]
    fn no_arguments_ask_for_the_login_shell() {
        let command = Command::for_account(&request(&[]), &Settings::default(), &account(), vec![])
            .expect("resolved");
        assert_eq!(texts(&command.candidates), ["/bin/bash"]);
        assert_eq!(texts(&command.argv), ["-bash"]);
        assert_eq!(texts(&command.directories), ["/home/user", "/"]);
    }

    #[test]
    fn the_session_overrides_the_compartment_which_overrides_the_defaults() {
        let settings = Settings {
            default_user: "user".into(),
            environment: vec![("LANG".into(), "de_DE".into()), ("A".into(), "1".into())],
            restrictions: Restrictions::default(),
        };
        let mut request = request(&["x"]);
        request.terminal = Some(TerminalSize { rows: 1, columns: 1 });
        request.environment.push((b"A".to_vec(), b"2".to_vec()));
        request.environment.push((b"B=C".to_vec(), b"never".to_vec()));
        let command = Command::for_account(&request, &settings, &account(), vec![]);
        let command = command.expect("resolved");
        let environment = texts(&command.environment);
        for wanted in ["A=2", "LANG=de_DE", "TERM=xterm", "HOME=/home/user", "USER=user"] {
            assert!(environment.contains(&wanted), "{wanted} is missing");
        }
        assert!(!environment.iter().any(|variable| variable.contains("never")));
    }

    #[test]
    fn a_zero_byte_is_refused() {
        let command =
            Command::for_account(&request(&["a\0b"]), &Settings::default(), &account(), vec![]);
        assert!(matches!(command, Err(ExitStatus::NotExecutable { .. })));
    }
}
