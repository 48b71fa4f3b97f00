//! The processor architectures images are built for: the only table that names them.

/// One architecture.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Architecture {
    /// As the Rust compiler, and so `uname -m`, names it.
    pub(crate) name: &'static str,
    /// As Debian names it.
    pub(crate) debian: &'static str,
    /// Debian's kernel flavour for virtual machines.
    pub(crate) kernel_flavour: &'static str,
}

const ARCHITECTURES: [Architecture; 2] = [
    Architecture { name: "x86_64", debian: "amd64", kernel_flavour: "cloud-amd64" },
    Architecture { name: "aarch64", debian: "arm64", kernel_flavour: "cloud-arm64" },
];

/// The architecture this program runs on, when images can be built for it.
pub(crate) fn host() -> Option<&'static Architecture> {
    ARCHITECTURES.iter().find(|architecture| architecture.name == std::env::consts::ARCH)
}
