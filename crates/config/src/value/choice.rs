//! Settings that are one word out of a few.
//!
//! The words and their explanations stand once, here; reading, "did you mean", the JSON Schema and
//! the reference all take them from `WORDS`.

use crate::flaw::Flaw;
use crate::suggest;

/// One permitted word and what it means.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Word {
    pub(crate) word: &'static str,
    pub(crate) doc: &'static str,
}

/// The flaw of a word that is none of `words`.
pub(crate) fn unknown_word(written: &str, words: &[Word]) -> Flaw {
    let known: Vec<&str> = words.iter().map(|word| word.word).collect();
    let hint = match suggest::nearest(written, known.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"? Known are: {}", known.join(", ")),
        None if known.len() == 1 => format!("it can only be \"{}\"", known.join("")),
        None => format!("one of: {}", known.join(", ")),
    };
    Flaw::new(format!("`{written}` is not known here")).hint(hint)
}

macro_rules! choice {
    (
        $(#[$meta:meta])*
        $name:ident { $( $(#[doc = $doc:literal])+ $variant:ident = $word:literal ),+ $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $( $(#[doc = $doc])+ $variant ),+ }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            pub(crate) const WORDS: &'static [Word] =
                &[$(Word { word: $word, doc: concat!($($doc),+) }),+];

            /// The word that stands for it in the configuration.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = Flaw;
            fn from_str(text: &str) -> Result<Self, Flaw> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    other => Err(unknown_word(other, Self::WORDS)),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

choice! {
    /// What runs a compartment.
    EngineKind {
        /// QEMU: virtual machine, with KVM or without.
        Qemu = "qemu",
        /// crosvm: virtual machine.
        Crosvm = "crosvm",
        /// Cloud Hypervisor: virtual machine.
        CloudHypervisor = "cloud-hypervisor",
        /// libvirt: virtual machine kept by libvirtd.
        Libvirt = "libvirt",
        /// systemd-nspawn: container, weaker than a virtual machine.
        Nspawn = "nspawn",
        /// podman: container, weaker than a virtual machine.
        Podman = "podman",
        /// bubblewrap: container, weaker than a virtual machine.
        Bwrap = "bwrap",
    }
}

impl EngineKind {
    /// Whether a kernel of its own stands between guest and host.
    pub const fn is_virtual_machine(self) -> bool {
        matches!(self, Self::Qemu | Self::Crosvm | Self::CloudHypervisor | Self::Libvirt)
    }
}

choice! {
    /// QEMU's machine model.
    Machine {
        /// The full PC with PCI Express.
        Q35 = "q35",
        /// The minimal machine: faster to start, no PCI passthrough.
        Microvm = "microvm",
    }
}

choice! {
    /// How QEMU executes guest code.
    Accel {
        /// KVM where it works, else TCG.
        Auto = "auto",
        /// KVM, or not at all.
        Kvm = "kvm",
        /// Emulation: runs anywhere, is slow, and is no security boundary.
        Tcg = "tcg",
    }
}

choice! {
    /// How networked compartments reach the outside.
    NetworkMode {
        /// TAP through the root helper where it is set up, else rootless.
        Auto = "auto",
        /// TAP through the root helper, or not at all.
        Tap = "tap",
        /// A user-space network stack; needs no privilege.
        Rootless = "rootless",
    }
}

choice! {
    /// What happens to a packet.
    FirewallAction {
        /// Let it through.
        Accept = "accept",
        /// Drop it silently.
        Drop = "drop",
    }
}

choice! {
    /// Whether a compartment that ended is started again.
    RestartPolicy {
        /// Never.
        No = "no",
        /// When it failed, not when it was stopped or ended by itself.
        OnFailure = "on-failure",
        /// Whenever it ended without having been stopped.
        Always = "always",
    }
}

choice! {
    /// How much a program writes into its log.
    LogLevel {
        /// Errors only.
        Error = "error",
        /// Errors and warnings.
        Warn = "warn",
        /// Also what it does.
        Info = "info",
        /// Also how it does it.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

choice! {
    /// Format of an additional disk; never probed.
    DiskFormat {
        /// The bytes of the disk as they are.
        Raw = "raw",
        /// QEMU's copy-on-write format; one with a backing or data file is refused.
        Qcow2 = "qcow2",
    }
}

choice! {
    /// Filesystem of a volume.
    Filesystem {
        /// The usual one of Linux.
        Ext4 = "ext4",
    }
}

choice! {
    /// Who is process 1 in the guest.
    GuestInit {
        /// casemate's agent: fastest, for applications and disposables.
        Agent = "agent",
        /// systemd, with the agent beside it: for service compartments.
        Systemd = "systemd",
    }
}

choice! {
    /// How strictly the guest's own kernel and services are set.
    Hardening {
        /// As the image has it.
        None = "none",
        /// Settings that ordinary programs do not notice; nothing set-user-id (sudo, su), no core
        /// dumps, ssh by key only.
        Standard = "standard",
        /// Also those that break some programs: no user namespaces, no ptrace, no module loading.
        Strict = "strict",
    }
}

choice! {
    /// Memory allocator that guest programs are started with.
    Allocator {
        /// The C library's.
        Default = "default",
        /// hardened_malloc with its lighter settings, in all programs that use glibc as a library.
        HardenedLight = "hardened-light",
        /// hardened_malloc: slower, and finds more.
        Hardened = "hardened",
    }
}

choice! {
    /// Where the root filesystem of an image comes from.
    ImageSourceKind {
        /// Built from Debian packages.
        Debian = "debian",
        /// An archive of a root filesystem.
        Tar = "tar",
        /// A folder holding a root filesystem.
        Dir = "dir",
        /// A folder in the OCI image layout.
        Oci = "oci",
        /// A NixOS system built from a flake.
        Nixos = "nixos",
        /// Never built here: `casemate image import` brings it.
        Imported = "imported",
    }
}

choice! {
    /// What windows may do only where it is said.
    WindowRight {
        /// Fill the screen, still inside their border; without it they are maximized.
        Fullscreen = "fullscreen",
        /// Ask for the focus (xdg_activation_v1).
        Activation = "activation",
        /// Hold the pointer, as games do (zwp_pointer_constraints_v1).
        Constraints = "constraints",
    }
}
