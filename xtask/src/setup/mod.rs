//! What has to be installed before anything can run: one table, what of it is missing, and getting
//! it there with the distribution's package manager.
//!
//! Root installs at once; others are shown the line with `sudo` and asked.

mod apt;
mod ask;
pub(crate) mod subordinate;

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::failure::HostNotReady;
use crate::process::{find, is_root};

/// Something that must be there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    /// A program, or an absolute path.
    pub(crate) program: &'static str,
    /// The Debian package that has it.
    pub(crate) package: &'static str,
    /// Fedora's.
    fedora: &'static str,
    /// The attribute in nixpkgs.
    nix: &'static str,
    /// What it is for.
    pub(crate) why: &'static str,
}

const fn need(
    program: &'static str,
    package: &'static str,
    [fedora, nix]: [&'static str; 2],
    why: &'static str,
) -> Need {
    Need { program, package, fedora, nix, why }
}

/// Needed to build images and run compartments.
pub(crate) const RUN: [Need; 12] = [
    need(QEMU.0, QEMU.1, QEMU.2, "runs the virtual machines"),
    need(
        "mmdebstrap",
        "mmdebstrap",
        ["mmdebstrap", "mmdebstrap"],
        "unpacks Debian packages into an image",
    ),
    need("mkfs.erofs", "erofs-utils", ["erofs-utils", "erofs-utils"], "packs the image, read-only"),
    need(
        "apt-get",
        "apt",
        ["apt", "apt"],
        "fetches the image's packages and checks their signatures",
    ),
    need("dpkg", "dpkg", ["dpkg", "dpkg"], "unpacks them"),
    need(
        KEYRING,
        "debian-archive-keyring",
        ["debian-keyring", "debian-archive-keyring"],
        "the keys of those signatures",
    ),
    need(
        "newuidmap",
        "uidmap",
        ["shadow-utils", "shadow"],
        "gives an ordinary user's jails ids of their own",
    ),
    need(
        "setpriv",
        "util-linux",
        ["util-linux", "util-linux"],
        "ends an image build's programs with it",
    ),
    need("timeout", "coreutils", ["coreutils", "coreutils"], "likewise"),
    need("pasta", "passt", ["passt", "passt"], "joins a compartment's network to the host's"),
    need("nft", "nftables", ["nftables", "nftables"], "is a networked compartment's firewall"),
    need(
        STATIC_LIBC,
        "libc6-dev",
        ["glibc-static", "glibc.static"],
        "links the guest's agent statically",
    ),
];

/// Needed by the tests alone.
pub(crate) const TEST: [Need; 24] = [
    need("tmux", "tmux", ["tmux", "tmux"], "is the terminal of the tests of terminals"),
    need(
        "systemd-analyze",
        "systemd",
        ["systemd", "systemd"],
        "checks the systemd units, and activates sockets",
    ),
    need(
        "runuser",
        "util-linux",
        ["util-linux", "util-linux"],
        "becomes the ordinary user of the tests",
    ),
    need("useradd", "passwd", ["shadow-utils", "shadow"], "makes that user"),
    need("ip", "iproute2", ["iproute", "iproute2"], "makes networks for the tests of networks"),
    need("cryptsetup", "cryptsetup-bin", ["cryptsetup", "cryptsetup"], "makes headers of volumes"),
    need("qemu-io", "qemu-utils", ["qemu-img", "qemu"], "writes to volumes as a guest would"),
    need("age", "age", ["age", "age"], "encrypts keys of volumes"),
    need("swtpm", "swtpm", ["swtpm", "swtpm"], "is the TPM that seals keys of volumes"),
    need("minisign", "minisign", ["minisign", "minisign"], "signs manifests of images"),
    need("tpm2_unseal", "tpm2-tools", ["tpm2-tools", "tpm2-tools"], "talks to it"),
    need(
        SECCOMP,
        "libseccomp-dev",
        ["libseccomp-devel", "libseccomp"],
        "is linked by virtiofsd, which serves shares",
    ),
    need(CAPABILITIES, "libcap-ng-dev", ["libcap-ng-devel", "libcap_ng"], "likewise"),
    need(
        "sway",
        "sway",
        ["sway", "sway"],
        "is the desktop, without a screen, of the tests of windows",
    ),
    need("grim", "grim", ["grim", "grim"], "takes pictures of it"),
    need("wtype", "wtype", ["wtype", "wtype"], "is its keyboard"),
    need("wl-copy", "wl-clipboard", ["wl-clipboard", "wl-clipboard"], "copies and pastes there"),
    need("foot", "foot", ["foot", "foot"], "is a program with a window"),
    need("waypipe", "waypipe", ["waypipe", "waypipe"], "carries windows out of guests"),
    need(FONT, "fonts-dejavu-core", ["dejavu-sans-mono-fonts", "dejavu_fonts"], "is its font"),
    need("rsyslogd", "rsyslog", ["rsyslog", "rsyslog"], "is sent records of the audit log"),
    need(GTLS, "rsyslog-gnutls", ["rsyslog-gnutls", "rsyslog"], "is its TLS"),
    need("openssl", "openssl", ["openssl", "openssl"], "makes certificates for that"),
    need(
        "desktop-file-validate",
        "desktop-file-utils",
        ["desktop-file-utils", "desktop-file-utils"],
        "checks entries of menus",
    ),
];

/// Needed by `bench switch` alone.
pub(crate) const SWITCH: [Need; 5] = [
    need("dpdk-testpmd", "dpdk", ["dpdk", "dpdk"], "is DPDK's vhost, to compare with"),
    need(
        "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk",
        "openvswitch-switch-dpdk",
        ["openvswitch-dpdk", "openvswitch-dpdk"],
        "is the switch to compare with",
    ),
    need("ovs-vsctl", "openvswitch-switch", ["openvswitch", "openvswitch"], "sets it up"),
    need(DPDK, "libdpdk-dev", ["dpdk-devel", "dpdk"], "is linked by the generator"),
    need("pkg-config", "pkg-config", ["pkgconf-pkg-config", "pkg-config"], "says with what"),
];

/// Found by asking the C compiler that Rust links with.
const STATIC_LIBC: &str = "libc.a";
const SECCOMP: &str = "libseccomp.so";
const CAPABILITIES: &str = "libcap-ng.so";
const DPDK: &str = "librte_ethdev.so";

/// Found below a folder for each architecture.
const GTLS: &str = "rsyslog/lmnsd_gtls.so";

const FONT: &str = "/usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

#[cfg(target_arch = "x86_64")]
const QEMU: (&str, &str, [&str; 2]) =
    ("qemu-system-x86_64", "qemu-system-x86", ["qemu-system-x86-core", "qemu"]);
#[cfg(target_arch = "aarch64")]
const QEMU: (&str, &str, [&str; 2]) =
    ("qemu-system-aarch64", "qemu-system-arm", ["qemu-system-aarch64-core", "qemu"]);
#[cfg(target_arch = "riscv64")]
const QEMU: (&str, &str, [&str; 2]) =
    ("qemu-system-riscv64", "qemu-system-misc", ["qemu-system-riscv-core", "qemu"]);

impl Need {
    fn is_there(&self) -> bool {
        match self.program {
            library @ (STATIC_LIBC | SECCOMP | CAPABILITIES | DPDK) => has_library(library),
            GTLS => {
                std::fs::read_dir("/usr/lib").is_ok_and(|mut all| {
                    all.any(|one| one.is_ok_and(|one| one.path().join(GTLS).exists()))
                }) || Path::new("/usr/lib64").join(GTLS).exists()
            }
            path if path.starts_with('/') => Path::new(path).exists(),
            program => find(program).is_some(),
        }
    }
}

/// Makes sure that all of it is there: installs what is missing, or says what to type and fails
/// with [`HostNotReady`].
pub(crate) fn ensure_installed(needs: &[Need]) -> Result<()> {
    let missing: Vec<Need> = needs.iter().filter(|need| !need.is_there()).copied().collect();
    if missing.is_empty() {
        println!("all {} programs and files that are needed are there", needs.len());
        return subordinate::ensure();
    }
    println!("missing:");
    for need in &missing {
        println!("  {:<22} {:<24} {}", need.program, need.package, need.why);
    }
    if find("apt-get").is_some() && find("dpkg").is_some() {
        let mut packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
        packages.sort_unstable();
        packages.dedup();
        apt::install(&packages)?;
    } else {
        return Err(HostNotReady(advice(&missing)).into());
    }
    let still: Vec<&str> =
        missing.iter().filter(|need| !need.is_there()).map(|need| need.program).collect();
    ensure!(still.is_empty(), "installed, and yet not there: {}", still.join(", "));
    subordinate::ensure()
}

/// Whether the libraries that virtiofsd is linked with are there.
pub(crate) fn can_build_virtiofsd() -> bool {
    has_library(SECCOMP) && has_library(CAPABILITIES)
}

/// Says what is missing that only some tests need.
pub(crate) fn mention_missing(needs: &[Need]) {
    for need in needs.iter().filter(|need| !need.is_there()) {
        println!("not there: {} ({}), which {}", need.program, need.package, need.why);
    }
}

/// `cc -print-file-name` answers with a path for what it finds, else with what it was asked.
fn has_library(name: &str) -> bool {
    let asked = Command::new("cc").arg(format!("-print-file-name={name}")).output();
    asked.is_ok_and(|answer| answer.stdout.starts_with(b"/"))
}

/// What to type where we do not install by ourselves.
fn advice(missing: &[Need]) -> String {
    let list = |name: fn(&Need) -> &'static str| {
        let mut names: Vec<&str> = missing.iter().map(name).collect();
        names.sort_unstable();
        names.dedup();
        names.join(" ")
    };
    if find("dnf").is_some() {
        let sudo = if is_root() { "" } else { "sudo " };
        format!("install what is missing: {sudo}dnf install {}", list(|need| need.fedora))
    } else if find("nix-shell").is_some() {
        format!("enter a shell that has it: nix-shell -p {}", list(|need| need.nix))
    } else {
        format!(
            "install what is missing with your package manager; Debian's names are: {}",
            list(|need| need.package)
        )
    }
}
