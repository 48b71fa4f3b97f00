//! Everything that is known about the machine, gathered into one value.
//!
//! It never fails: what cannot be found out is absent from the facts, and the plan refuses what
//! needs it. Answers that cost much are kept (see [`crate::qemu`], [`crate::kvm`], [`crate::tsc`]);
//! with them gathering takes about a millisecond.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use casemate_plan::facts::{Caller, HostFacts, OwnPrograms};
use nix::sys::sysinfo::sysinfo;
use nix::sys::utsname::uname;
use nix::unistd::{User, getgid, getuid};

use crate::places::{self, Places};
use crate::versions::{is_program, search};
use crate::{kvm, landlock, namespaces, network, qemu, subordinate, tsc, virtiofsd};

/// Top-level directories with programs and libraries, in the distributions known.
const SYSTEM_DIRECTORIES: [&str; 9] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"];

/// Where `newuidmap` and `newgidmap` can be, as `casemate-jail` looks for them.
const IDMAP_DIRECTORIES: [&str; 4] = ["/run/wrappers/bin", "/usr/bin", "/usr/local/bin", "/bin"];

/// Where to look, taken from the process and the configuration.
#[derive(Clone, Debug)]
pub struct Sources<'a> {
    /// Where answers are kept.
    pub places: &'a Places,
    /// `PATH`.
    pub search_path: OsString,
    /// `CASEMATE_LIBEXEC`: where casemate's own programs are, if not beside the running one.
    pub libexec: Option<PathBuf>,
    /// The running program.
    pub program: PathBuf,
    /// The QEMU that the configuration names.
    pub qemu: Option<PathBuf>,
}

impl<'a> Sources<'a> {
    /// Those of this process, without a configured QEMU.
    pub fn current(places: &'a Places) -> Self {
        Self {
            places,
            search_path: std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()),
            libexec: std::env::var_os("CASEMATE_LIBEXEC")
                .map(PathBuf::from)
                .filter(|path| path.is_absolute()),
            program: std::env::current_exe().unwrap_or_default(),
            qemu: None,
        }
    }
}

/// Gathers the facts.
pub fn gather(sources: &Sources<'_>) -> HostFacts {
    let architecture =
        uname().map_or_else(|_| String::new(), |name| name.machine().display().to_string());
    let cache = sources.places.cache().ok().filter(|path| places::make_directory(path).is_ok());
    let programs = own_programs(sources);
    HostFacts {
        qemu: qemu::find(&architecture, sources.qemu.as_deref(), &sources.search_path, cache),
        virtiofsd: virtiofsd::find(
            programs.jail.parent().unwrap_or(Path::new("/")),
            &sources.search_path,
            cache,
        ),
        kvm: kvm::facts(&programs.supervisor, sources.places.state().ok()),
        architecture,
        cpus: std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u32),
        memory_mib: sysinfo().map_or(0, |memory| memory.ram_total() >> 20),
        caller: caller(),
        tsc_khz: tsc::khz(cache),
        landlock_abi: landlock::abi(),
        user_namespaces: namespaces::try_user_namespace(),
        newidmap: ["newuidmap", "newgidmap"].iter().all(|name| {
            IDMAP_DIRECTORIES.iter().any(|directory| Path::new(directory).join(name).exists())
        }),
        programs,
        system_directories: SYSTEM_DIRECTORIES
            .iter()
            .map(PathBuf::from)
            // A link counts: the jail recreates it.
            .filter(|path| fs::symlink_metadata(path).is_ok())
            .collect(),
        network: network::facts(&sources.search_path),
    }
}

/// The user this process runs as.
fn caller() -> Caller {
    let uid = getuid();
    let name = match User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    };
    Caller {
        uid: uid.as_raw(),
        gid: getgid().as_raw(),
        subordinate_uids: subordinate::longest_range(Path::new("/etc/subuid"), &name, uid.as_raw()),
        subordinate_gids: subordinate::longest_range(Path::new("/etc/subgid"), &name, uid.as_raw()),
        name,
    }
}

/// A program in the caller's search path.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    search(&path, Path::new(name)).find(is_program)
}

/// `CASEMATE_LIBEXEC`, or beside the running program, or where distributions put programs that are
/// nobody's commands: `PREFIX/libexec/casemate`.
pub fn own_programs(sources: &Sources<'_>) -> OwnPrograms {
    let program = fs::canonicalize(&sources.program).unwrap_or_else(|_| sources.program.clone());
    let beside = program.parent().unwrap_or(Path::new("/")).to_owned();
    let libexec = beside.parent().map(|prefix| prefix.join("libexec/casemate"));
    let directory = sources.libexec.clone().unwrap_or_else(|| {
        let has_jail = |directory: &PathBuf| directory.join("casemate-jail").exists();
        if has_jail(&beside) { beside } else { libexec.filter(has_jail).unwrap_or(beside) }
    });
    OwnPrograms {
        supervisor: directory.join("casemate-supervisor"),
        link: directory.join("casemate-link"),
        jail: directory.join("casemate-jail"),
        agent: directory.join("casemate-agent"),
        netns: directory.join("casemate-netns"),
        switch: directory.join("casemate-switch"),
        wayland: directory.join("casemate-wayland"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::places::Environment;

    /// Places of an ordinary user below a directory, whoever runs the test.
    fn places(directory: &Path) -> Places {
        let environment = Environment {
            uid: u32::MAX,
            home: Some(directory.into()),
            temporary: directory.into(),
            ..Environment::default()
        };
        Places::find(&environment)
    }

    #[test]
    fn facts_are_the_same_twice_and_quick_the_second_time() {
        let home = tempfile::tempdir().expect("a directory");
        let places = places(home.path());
        let sources = Sources::current(&places);
        let first = gather(&sources);
        let start = Instant::now();
        assert_eq!(gather(&sources), first);
        let elapsed = start.elapsed();
        println!("gathered in {elapsed:?}");
        // A few milliseconds, with room for a busy machine.
        assert!(elapsed < Duration::from_millis(100), "{elapsed:?}");
        assert!(first.cpus > 0 && first.memory_mib > 0);
        assert!(first.system_directories.contains(&"/usr".into()) || Path::new("/nix").exists());
        println!("{first:#?}");
    }

    #[test]
    fn home_that_cannot_be_written_only_makes_it_slower() {
        let places = places(Path::new("/proc/none"));
        let facts = gather(&Sources::current(&places));
        assert!(facts.cpus > 0);
    }

    #[test]
    fn own_programs_are_beside_unless_said() {
        let home = tempfile::tempdir().expect("a directory");
        let places = places(home.path());
        let bin = home.path().join("bin");
        let mut sources = Sources { program: bin.join("casemate"), ..Sources::current(&places) };
        sources.libexec = None;
        assert_eq!(own_programs(&sources).jail, bin.join("casemate-jail"));
        let libexec = home.path().join("libexec/casemate");
        fs::create_dir_all(&libexec).expect("made");
        fs::write(libexec.join("casemate-jail"), "").expect("written");
        assert_eq!(own_programs(&sources).jail, libexec.join("casemate-jail"));
        sources.libexec = Some("/elsewhere".into());
        assert_eq!(own_programs(&sources).link, Path::new("/elsewhere/casemate-link"));
    }
}
