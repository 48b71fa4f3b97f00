//! What a build tells its caller while it runs.

use std::fmt;

/// One step of a build, or a step further within it.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// How much of the phase is done, 0 to 1, where that is known.
    pub fraction: Option<f32>,
    /// What it is being done to, such as a package's name.
    pub subject: Option<String>,
}

/// The phases of a build, in the order they come. Packages come in two rounds (the essential
/// ones, then the rest), so the phases from `Download` to `Configure` are seen twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Another build of the same image holds its lock.
    Wait,
    /// An archive, folder or OCI image is being read.
    Read,
    /// Package lists are being fetched.
    Lists,
    /// Packages are being fetched.
    Download,
    /// Packages are being unpacked.
    Unpack,
    /// Packages are being configured.
    Configure,
    /// The kernel and its modules are being fetched and unpacked.
    Kernel,
    /// What was read is being unpacked.
    Extract,
    /// The root file system is being packed.
    Pack,
    /// An archive with an image is being read and checked.
    Import,
    /// The image is being put into the store.
    Store,
}

impl fmt::Display for Phase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Wait => "waiting for another build",
            Self::Read => "reading the source",
            Self::Lists => "fetching package lists",
            Self::Download => "downloading packages",
            Self::Unpack => "unpacking packages",
            Self::Configure => "configuring packages",
            Self::Kernel => "preparing the kernel",
            Self::Extract => "unpacking the root file system",
            Self::Pack => "packing the root file system",
            Self::Import => "reading the archive",
            Self::Store => "storing the image",
        })
    }
}

impl Progress {
    /// The phase begins; nothing more is known.
    pub(crate) fn begin(phase: Phase) -> Self {
        Self { phase, fraction: None, subject: None }
    }

    /// `done` of `total` steps of the phase are done, the last one on `subject`.
    pub(crate) fn step(phase: Phase, done: usize, total: usize, subject: &str) -> Self {
        Self {
            phase,
            fraction: (total > 0).then(|| (done as f32 / total as f32).min(1.0)),
            subject: Some(subject.to_owned()),
        }
    }
}
