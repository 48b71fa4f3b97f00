//! The system tests once more, as an ordinary user: root makes him, gives him the programs, the
//! tests and a copy of the image store, and becomes him.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::unistd::User;

use super::suite::{Runs, Suite};
use crate::build::programs;
use crate::process::{find, output, run, workspace};
use crate::setup::subordinate;

const NAME: &str = "casemate-test";

/// His folder of one run: this and the process id of the run, so that two may run at once.
const CHECKOUT: &str = "checkout-";

/// What of the image store makes a store; the rest is made again.
const STORE: [&str; 2] = ["images", "names"];

/// Where root's casemate keeps it.
const ROOT_STORE: &str = "/var/lib/casemate";

/// A place in the home of an ordinary user. Removed at the end, the user stays.
#[derive(Debug)]
pub(crate) struct Ordinary {
    user: User,
    /// Laid out as a checkout: `target/release`, `examples`, `tests`.
    checkout: PathBuf,
}

impl Ordinary {
    /// Makes his copies.
    pub(crate) fn prepare() -> Result<Self> {
        let user = user()?;
        remove_abandoned(&user.dir);
        let checkout = user.dir.join(format!("{CHECKOUT}{}", std::process::id()));
        let ordinary = Self { checkout, user };
        ordinary.copy().with_context(|| format!("could not give `{NAME}` his copies"))?;
        Ok(ordinary)
    }

    fn copy(&self) -> Result<()> {
        let release = self.checkout.join("target/release");
        fs::create_dir_all(&release)?;
        for entry in fs::read_dir(programs())?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let others = ["hostile-agent", "virtiofsd"];
            let is_program = name.starts_with("casemate") || others.contains(&name.as_str());
            let is_part = !name.contains('.') || name.ends_with(".so");
            if is_program && is_part && entry.file_type()?.is_file() {
                fs::copy(entry.path(), release.join(name))?;
            }
        }
        let store = self.user.dir.join(".local/share/casemate");
        DirBuilder::new().recursive(true).mode(0o700).create(&store)?;
        for part in STORE {
            let (from, to) = (Path::new(ROOT_STORE).join(part), store.join(part));
            fs::create_dir_all(&to)?;
            for entry in fs::read_dir(from)?.flatten() {
                let copy = to.join(entry.file_name());
                // An image never changes: its folder is named by its digest.
                if !copy.is_dir() {
                    copy_tree(&entry.path(), &copy)?;
                }
            }
        }
        copy_tree(&workspace().join("examples"), &self.checkout.join("examples"))?;
        own(&self.user.dir.join(".local"), &self.user)?;
        own(&self.checkout, &self.user)?;
        self.check_image()
    }

    /// The copied store must serve him, else each of his tests would build an image.
    fn check_image(&self) -> Result<()> {
        let mut words = self.become_him().into_iter();
        let mut command = Command::new(words.next().context("no words")?);
        command
            .args(words)
            .arg(self.checkout.join("target/release/casemate"))
            .arg("--config")
            .arg(self.checkout.join("examples/demo.toml"))
            .args(["image", "list", "--json"])
            .current_dir(&self.checkout);
        let list: serde_json::Value = serde_json::from_str(&output(&mut command)?)?;
        let current = list.as_array().is_some_and(|images| {
            images.iter().any(|image| image["name"] == "debian" && image["state"] == "current")
        });
        ensure!(current, "the copied image is not what he would build: {list}");
        Ok(())
    }

    /// A test program where he can read it.
    pub(crate) fn adopt(&self, suite: &Suite) -> Result<Suite> {
        let tests = self.checkout.join("tests");
        fs::create_dir_all(&tests)?;
        let file = suite.executable.file_name().context("a test program has no name")?;
        let executable = tests.join(file);
        fs::copy(&suite.executable, &executable)?;
        own(&tests, &self.user)?;
        Ok(Suite { name: format!("{} as {NAME}", suite.name), executable, ..suite.clone() })
    }

    /// The same runs as him.
    pub(crate) fn runs(&self, runs: &Runs) -> Runs {
        let mut environment = runs.environment.clone();
        environment.retain(|(name, _)| *name != "CASEMATE_BIN");
        environment.push(("CASEMATE_BIN", self.checkout.join("target/release").into()));
        Runs { before: self.become_him(), environment, ..runs.clone() }
    }

    /// Words before a command that make it his, in his folder and with nothing of root's
    /// environment but what the tests are told.
    fn become_him(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> =
            vec![find("setpriv").unwrap_or_else(|| "setpriv".into()).into()];
        words.push(format!("--reuid={}", self.user.uid).into());
        words.push(format!("--regid={}", self.user.gid).into());
        words.extend(["--init-groups", "--inh-caps=-all", "--", "env"].map(OsString::from));
        words.push("--chdir".into());
        words.push(self.checkout.clone().into());
        let roots = std::env::vars_os().map(|(name, _)| name).filter(|name| {
            let name = name.to_string_lossy();
            ["XDG_", "CARGO", "RUSTUP"].iter().any(|prefix| name.starts_with(prefix))
        });
        for name in roots {
            words.push("-u".into());
            words.push(name);
        }
        let mut home = OsString::from("HOME=");
        home.push(&self.user.dir);
        words.extend([home, format!("USER={NAME}").into(), format!("LOGNAME={NAME}").into()]);
        words.push("PATH=/usr/local/bin:/usr/bin:/bin".into());
        words
    }
}

impl Drop for Ordinary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.checkout);
    }
}

/// Removes the folders of runs that were killed.
fn remove_abandoned(home: &Path) {
    for entry in fs::read_dir(home).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(process) = name.strip_prefix(CHECKOUT) else { continue };
        if !Path::new("/proc").join(process).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The user with his subordinate ids, made if he is not there. Tests of jails take him too.
pub(crate) fn user() -> Result<User> {
    let user = match User::from_name(NAME)? {
        Some(user) => user,
        None => {
            let useradd = find("useradd").context("useradd is not installed")?;
            run(Command::new(useradd).args(["--create-home", "--shell", "/bin/bash", NAME]))?;
            User::from_name(NAME)?.context("a user was made, and yet is not there")?
        }
    };
    subordinate::ensure_for(&user)?;
    Ok(user)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp")
        .args(["--recursive", "--preserve=mode,timestamps", "--"])
        .arg(from)
        .arg(to))
}

/// Gives a tree to a user.
fn own(path: &Path, user: &User) -> Result<()> {
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path)? {
            own(&entry?.path(), user)?;
        }
    }
    if path.is_symlink() {
        return Ok(());
    }
    chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
        .with_context(|| format!("could not give {} away", path.display()))
}
