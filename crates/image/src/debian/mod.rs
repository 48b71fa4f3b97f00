//! An image from Debian packages: mmdebstrap makes the root folder and fetches the kernel,
//! mkfs.erofs packs it. No step needs more privilege than the user's subordinate ids give.

mod hooks;
mod host;
mod output;
mod sources;
mod status;
mod tools;

use std::fs;
use std::path::{Path, PathBuf};

use crate::arch::{self, Architecture};
use crate::build::{Boot, Raw};
use crate::command::{Call, CommandError, MMDEBSTRAP};
use crate::erofs::Pack;
use crate::error::{Attempt, FileError};
use crate::manifest::Inputs;
use crate::recipe::Debian;
use crate::{Phase, Progress};

use output::Output;

pub(crate) use host::Privilege;
pub(crate) use tools::check as check_tools;

/// Packages of every image, beside what Debian calls essential.
const BASE_PACKAGES: [&str; 6] =
    ["ca-certificates", "iproute2", "iputils-ping", "less", "procps", "vim-tiny"];
/// Time of every file of an image, and what packages take for the current time: the first
/// second of 2025. Constant, so that the same packages give the same bytes.
pub(crate) const EPOCH: u64 = 1_735_689_600;
/// Release for hosts that are not Debian, or whose package sources do not serve their own.
const DEFAULT_SUITE: &str = "trixie";
/// The release whose own kernel is too old (no VMGENID) and which has a newer one beside it.
const SUITE_WITH_SECOND_KERNEL: (&str, &str) = ("bookworm", "linux-image-6.12-");
/// Folder in the root folder that is ours and left out of the image.
const OURS: &str = ".casemate";

/// A root file system that could not be made from Debian packages.
#[derive(Debug, thiserror::Error)]
pub enum DebianError {
    /// A program is missing, was killed, or failed for a reason not known here.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A file of the build.
    #[error(transparent)]
    File(#[from] FileError),
    /// No images are known for this processor.
    #[error("could not choose packages for this processor architecture, {0}")]
    Architecture(&'static str),
    /// A program is older than any this was tried with.
    #[error("could not use {program} {found}: version {oldest} is the oldest that works")]
    TooOld {
        /// The program.
        program: &'static str,
        /// What it says its version is.
        found: String,
        /// The version needed.
        oldest: String,
    },
    /// A program does not say its version.
    #[error("could not find out the version of {program}")]
    NoVersion {
        /// The program.
        program: &'static str,
    },
    /// The user has no subordinate ids.
    #[error("could not find subordinate ids of {user} in {}", file.display())]
    NoSubordinateIds {
        /// The user.
        user: String,
        /// The file that lists them.
        file: PathBuf,
    },
    /// The system lets ordinary users make no user namespaces.
    #[error("could not make a user namespace: the system refuses it to ordinary users")]
    NoNamespaces,
    /// A package does not exist in the suite.
    #[error("could not find the package {package} in {suite}; the end of what was said:\n{log}")]
    NoPackage {
        /// The package.
        package: String,
        /// The release.
        suite: String,
        /// The end of the output.
        log: String,
    },
    /// The archive cannot be reached.
    #[error("could not reach the package archive; the end of what was said:\n{log}")]
    NoNetwork {
        /// The end of the output.
        log: String,
    },
    /// There is no room.
    #[error("could not write to {}: no space is left", folder.display())]
    DiskFull {
        /// Where the build works.
        folder: PathBuf,
    },
    /// The kernel package is not what was expected.
    #[error("could not find {what} in the kernel package")]
    NoKernel {
        /// What is missing.
        what: &'static str,
    },
}

/// Everything decided before the build starts.
struct Build<'a> {
    source: &'a Debian,
    architecture: &'static Architecture,
    suite: String,
    /// Package sources of the host, when they serve the suite.
    sources: Option<String>,
    packages: Vec<String>,
    privilege: Privilege,
    work: &'a Path,
    root: PathBuf,
}

/// Builds in the folder `work`.
pub(crate) fn build(
    work: &Path,
    source: &Debian,
    progress: &mut dyn FnMut(Progress),
) -> Result<Raw, DebianError> {
    let tools = tools::check()?;
    let build = Build::decide(work, source)?;
    build.bootstrap(progress)?;
    progress(Progress::begin(Phase::Pack));
    build.pack()?;
    let ours = build.root.join(OURS);
    let (kernel, release) = find_kernel(&ours.join("kernel"))?;
    Ok(Raw {
        root: ours.join("root.erofs"),
        boot: Boot::Shipped {
            kernel,
            modules: find_modules(&ours.join("kernel"), &release)?,
            release,
        },
        architecture: build.architecture.name.to_owned(),
        packages: status::installed(&build.root)?,
        serial: status::archive_date(&ours)?,
        inputs: Inputs {
            suite: build.suite,
            packages: build.packages,
            kernel_packages: status::kernel_packages(&ours)?,
            source_date_epoch: EPOCH,
            content: None,
            kernel_image: None,
            tools,
        },
    })
}

impl<'a> Build<'a> {
    fn decide(work: &'a Path, source: &'a Debian) -> Result<Self, DebianError> {
        let architecture = arch::host().ok_or(DebianError::Architecture(std::env::consts::ARCH))?;
        let components = source.components();
        let host_sources = host::package_sources();
        let serving =
            |suite: &str| sources::serving(&host_sources, suite, &components, architecture.debian);
        let own_suite = || host::debian_codename().filter(|suite| serving(suite).is_some());
        let suite = source.suite.clone().or_else(own_suite);
        let suite = suite.unwrap_or_else(|| DEFAULT_SUITE.to_owned());
        let sources = match source.mirror {
            Some(_) => None,
            None => serving(&suite),
        };
        let base = BASE_PACKAGES.iter().map(|package| (*package).to_owned());
        let mut packages: Vec<_> = base.chain(source.packages.iter().cloned()).collect();
        packages.sort_unstable();
        packages.dedup();
        Ok(Self {
            source,
            architecture,
            suite,
            sources,
            packages,
            privilege: Privilege::of_this_process()?,
            work,
            root: work.join("root"),
        })
    }

    /// Kernel packages to try, in order.
    fn kernel_candidates(&self) -> Vec<String> {
        if let Some(package) = &self.source.kernel_package {
            return vec![package.clone()];
        }
        let flavour = self.architecture.kernel_flavour;
        let (suite, second) = SUITE_WITH_SECOND_KERNEL;
        let newer = (self.suite == suite).then(|| format!("{second}{flavour}"));
        let usual = format!("linux-image-{flavour}");
        newer.into_iter().chain([usual]).collect()
    }

    /// Makes the root folder, with the kernel unpacked in our folder of it.
    fn bootstrap(&self, progress: &mut dyn FnMut(Progress)) -> Result<(), DebianError> {
        let hooks = hooks::write(self.work)?;
        let mut arguments = vec![
            format!("--mode={}", self.privilege.mode()),
            "--variant=minbase".to_owned(),
            "--format=directory".to_owned(),
            "--verbose".to_owned(),
            format!("--components={}", self.source.components().join(",")),
            format!("--include={}", self.packages.join(",")),
            "--aptopt=Acquire::Languages \"none\"".to_owned(),
        ];
        arguments.extend(hooks::PATH_RULES.map(|rule| format!("--dpkgopt={rule}")));
        arguments.extend(hooks.arguments);
        arguments.push(self.suite.clone());
        arguments.push(self.root.display().to_string());
        if let Some(mirror) = &self.source.mirror {
            arguments.push(mirror.clone());
        } else if let Some(sources) = &self.sources {
            let path = self.work.join("casemate.sources");
            fs::write(&path, sources).attempt("write", &path)?;
            arguments.push(path.display().to_string());
        }
        let mut call = MMDEBSTRAP
            .command(arguments)?
            .directory(self.work)
            .env("SOURCE_DATE_EPOCH", EPOCH.to_string())
            .env("TMPDIR", self.work)
            .env(hooks::KERNELS_VARIABLE, self.kernel_candidates().join(" "));
        for (name, address) in host::apt_proxies() {
            call = call.env(name, address);
        }
        self.run(call, progress)
    }

    fn pack(&self) -> Result<(), DebianError> {
        let call = Pack {
            root: &self.root,
            file: &format!("{OURS}/root.erofs"),
            exclude: Some(OURS),
            time: EPOCH,
            in_namespace: self.privilege == Privilege::Subordinate,
        }
        .call()?;
        self.run(call, &mut |_| ())
    }

    /// Runs a program and tells how far it is.
    fn run(&self, call: Call, progress: &mut dyn FnMut(Progress)) -> Result<(), DebianError> {
        let mut output = Output::default();
        let result = call.run(|line| {
            if let Some(step) = output.line(line) {
                progress(step);
            }
        });
        explain(result, output, self.work, &self.suite)
    }
}

/// Runs a program that installs no packages, in a build that works in the folder `work`.
pub(crate) fn run(
    call: Call,
    work: &Path,
    on_line: &mut dyn FnMut(&str),
) -> Result<(), DebianError> {
    let mut output = Output::default();
    let result = call.run(|line| {
        output.line(line);
        on_line(line);
    });
    explain(result, output, work, "")
}

/// Says more exactly than a program's exit status why it failed.
fn explain(
    result: Result<(), CommandError>,
    output: Output,
    work: &Path,
    suite: &str,
) -> Result<(), DebianError> {
    let Err(CommandError::Failed { ref log, .. }) = result else {
        return Ok(result?);
    };
    let log = log.join("\n");
    Err(match output.reason() {
        Some(output::Reason::DiskFull) => DebianError::DiskFull { folder: work.to_owned() },
        Some(output::Reason::NoPackage(package)) => {
            DebianError::NoPackage { package, suite: suite.to_owned(), log }
        }
        Some(output::Reason::NoNetwork) => DebianError::NoNetwork { log },
        Some(output::Reason::NoNamespaces) => DebianError::NoNamespaces,
        None => return Ok(result?),
    })
}

/// The kernel image in an unpacked kernel package, and its release.
fn find_kernel(folder: &Path) -> Result<(PathBuf, String), DebianError> {
    let boot = folder.join("boot");
    for entry in fs::read_dir(&boot).attempt("list", &boot)? {
        let entry = entry.attempt("list", &boot)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(release) = name.strip_prefix("vmlinuz-") {
            return Ok((entry.path(), release.to_owned()));
        }
    }
    Err(DebianError::NoKernel { what: "a kernel" })
}

/// The folder of modules in an unpacked kernel package, before or after the merge of `/usr`.
fn find_modules(folder: &Path, release: &str) -> Result<PathBuf, DebianError> {
    ["lib/modules", "usr/lib/modules"]
        .iter()
        .map(|parent| folder.join(parent).join(release))
        .find(|path| path.is_dir())
        .ok_or(DebianError::NoKernel { what: "modules" })
}
