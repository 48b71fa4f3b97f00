//! The file as a whole, and the sections about more than one compartment.

use crate::diagnostic::Concern;
use crate::schema::Fallback::Empty;
use crate::schema::{Kind, Map, Role, Section, compartment, keys, section, text};
use crate::value::name::{ImageName, NetworkName, TemplateName};
use crate::value::pci::Bdf;
use crate::value::text::{Format, Textual};

static ENGINE_NAME: Format = Format {
    what: "an engine",
    pattern: Some("^(qemu|crosvm|cloud-hypervisor|libvirt|nspawn|podman|bwrap)$"),
    example: "qemu",
    check: |text| {
        let flaw = |flaw: crate::Flaw| crate::Flaw {
            message: format!("{} is not an engine", crate::value::text::quoted(text)),
            ..flaw
        };
        text.parse::<crate::value::choice::EngineKind>().map(drop).map_err(flaw)
    },
};

pub(crate) static TOP: Section = section(
    "the configuration",
    "",
    "Tables merge by key over all files; a later file wins over an earlier one, and lists replace \
     each other as a whole. A compartment, template, image or network is declared in one file only.",
    KEYS,
);

keys! {
    /// Links between compartments, host and outside; sub-tables declare virtual networks.
    NETWORK = "network": Kind::Table(&NETWORK_TABLE), Empty;
    /// PCI devices kept away from the host's drivers, for `pci-devices`.
    ISOLATED_PCI_DEVICES = "isolated-pci-devices": Kind::List(&text::<Bdf>()), Empty;
    /// A template applied to every compartment.
    DEFAULTS = "defaults": Kind::Table(&compartment::DEFAULTS), Empty;
    /// Templates by name; `hardened` exists without being declared.
    TEMPLATE = "template": Kind::Map(&Map { key: TemplateName::FORMAT, of: Kind::Table(&compartment::TEMPLATE_TABLE) }), Empty;
    /// Compartments by name.
    COMPARTMENT = "compartment": Kind::Map(&Map { key: crate::value::name::CompartmentName::FORMAT, of: Kind::Table(&compartment::COMPARTMENT) }), Empty;
    /// Images by name; `debian` exists without being declared.
    IMAGE = "image": Kind::Map(&Map { key: ImageName::FORMAT, of: Kind::Table(&IMAGE_TABLE) }), Empty;
    /// How engines are started, by engine.
    ENGINE = "engine": Kind::Map(&Map { key: &ENGINE_NAME, of: Kind::Table(&ENGINE_TABLE) }), Empty;
    /// The switches of virtual networks.
    SWITCH = "switch": Kind::Table(&SWITCH_TABLE), Empty;
    /// The audit log.
    AUDIT = "audit": Kind::Table(&AUDIT_TABLE), Empty;
    /// How the user is asked about calls.
    ASK = "ask": Kind::Table(&ASK_TABLE), Empty;
}

pub(crate) static NETWORK_TABLE: Section = Section {
    rest: Some(&Map { key: NetworkName::FORMAT, of: Kind::Table(&VIRTUAL_NETWORK) }),
    ..section(
        "the network table",
        "[network]",
        "Links between compartments, host and outside. A sub-table other than `nat` declares a \
         virtual network.",
        network::KEYS,
    )
};
pub(crate) static NAT: Section =
    section("the nat table", "[network.nat]", "Network address translation.", nat::KEYS);
pub(crate) static VIRTUAL_NETWORK: Section = Section {
    owner: Some(|name| Some(Concern::Network(name.to_owned()))),
    ..section(
        "a virtual network",
        "[network.NAME]",
        "A virtual network between compartments. Only needed to set something about it: a network \
         exists because compartments name it in `networks`.",
        virtual_network::KEYS,
    )
};
pub(crate) static IMAGE_TABLE: Section = Section {
    owner: Some(|name| Some(Concern::Image(name.to_owned()))),
    ..section("an image", "[image.NAME]", "A root filesystem, and how it is obtained.", image::KEYS)
};
pub(crate) static ENGINE_TABLE: Section = Section {
    owner: Some(|name| name.parse().ok().map(Concern::Engine)),
    ..section("an engine", "[engine.NAME]", "How an engine is started.", engine::KEYS)
};
pub(crate) static SWITCH_TABLE: Section = Section {
    role: Role::Other,
    owner: Some(|_| Some(Concern::Switch)),
    ..section("the switch table", "[switch]", "The switches of virtual networks.", switch::KEYS)
};
pub(crate) static AUDIT_TABLE: Section =
    section("the audit table", "[audit]", "The hash-chained record of decisions.", audit::KEYS);

pub(crate) static ASK_TABLE: Section = section(
    "the ask table",
    "[ask]",
    "How the user is asked about calls that the policy leaves to him.",
    ask::KEYS,
);

pub(crate) mod network {
    //! `[network]`
    use crate::schema::Fallback::{Bool, Empty, Text};
    use crate::schema::{Kind, keys, text, top};
    use crate::value::choice::NetworkMode;
    use crate::value::grant::LinkGrant;
    use crate::value::net::Ipv4Cidr;

    keys! {
        /// Network that the /31 links are cut from. A wider one has room for more compartments.
        CIDR = "cidr": text::<Ipv4Cidr>(), Text("172.16.200.0/24");
        /// Network address translation.
        NAT = "nat": Kind::Table(&top::NAT), Empty;
        /// Compartments get IPv6 too.
        IPV6 = "ipv6": Kind::Bool, Bool(false);
        /// How compartments reach the outside.
        MODE = "mode": Kind::Word(NetworkMode::WORDS), Text("auto");
        /// Users who may have links through the root helper: `user=NAME` or `group=NAME`, with
        /// `ids=A-B` and `links=N` as limits. Counts in the system's configuration only.
        GRANTS = "grants": Kind::List(&text::<LinkGrant>()), Empty;
    }
}

pub(crate) mod nat {
    //! `[network.nat]`
    use crate::schema::Fallback::{Bool, Unset};
    use crate::schema::{Kind, keys, text};
    use crate::value::name::InterfaceName;

    keys! {
        /// Packets to the outside leave with the host's address.
        ENABLE = "enable": Kind::Bool, Bool(true);
        /// The only host interface they leave by.
        INTERFACE = "interface": text::<InterfaceName>(), Unset("any");
    }
}

pub(crate) mod virtual_network {
    //! `[network.NAME]`
    use crate::schema::Fallback::Unset;
    use crate::schema::{keys, text};
    use crate::value::net::Ipv4Cidr;

    keys! {
        /// Its network. The router has the first address, clients that of their id.
        CIDR = "cidr": text::<Ipv4Cidr>(), Unset("a /24 of 10.88.0.0/16, assigned and kept");
    }
}

pub(crate) mod image {
    //! `[image.NAME]`
    use crate::schema::Fallback::{Empty, Text, Unset};
    use crate::schema::{Kind, keys, text};
    use crate::value::choice::ImageSourceKind;
    use crate::value::name::{Argument, MinisignKey, MirrorUrl, PackageName, ReleaseName};

    keys! {
        /// Where the root filesystem comes from.
        SOURCE = "source": Kind::Word(ImageSourceKind::WORDS), Text("debian");
        /// Release of Debian (debian only).
        SUITE = "suite": text::<ReleaseName>(), Unset("the builder's choice");
        /// Package archive (debian only).
        MIRROR = "mirror": text::<MirrorUrl>(), Unset("the builder's choice");
        /// Areas of the archive, such as `main` (debian only).
        COMPONENTS = "components": Kind::List(&text::<ReleaseName>()), Unset("the builder's choice");
        /// Package with the kernel (debian only).
        KERNEL_PACKAGE = "kernel-package": text::<PackageName>(), Unset("the builder's choice");
        /// Packages beside the base system (debian and nixos).
        PACKAGES = "packages": Kind::List(&text::<PackageName>()), Empty;
        /// Archive (tar), folder (dir, oci), or folder of the flake or built system in the Nix store
        /// (nixos).
        PATH = "path": Kind::HostPath, Unset("needed by all but debian and imported");
        /// Output of the flake that is the system (nixos only).
        ATTRIBUTE = "attribute": text::<Argument>(), Unset("`nixosConfigurations.NAME.config.system.build.toplevel`, NAME being the image's");
        /// Key its manifests must be signed with: the second line of a minisign public key file.
        PUBLIC_KEY = "public-key": text::<MinisignKey>(), Unset("signatures are not asked for");
        /// The finished image may not be larger: MiB as a number, or text with a unit.
        SIZE = "size": Kind::Size { min_mib: 16, max_mib: 1 << 20 }, Unset("no limit");
    }
}

pub(crate) mod engine {
    //! `[engine.NAME]`
    use crate::schema::Fallback::{Empty, Text, Unset};
    use crate::schema::{Kind, keys, text};
    use crate::value::choice::{Accel, LogLevel, Machine};
    use crate::value::name::Argument;
    use crate::value::path::Program;

    keys! {
        /// The program: an absolute path, or a name looked up in PATH.
        BINARY = "binary": text::<Program>(), Unset("its usual name");
        /// How much the engine logs.
        LOG_LEVEL = "log-level": Kind::Word(LogLevel::WORDS), Unset("the engine's default");
        /// Appended to the engine's arguments.
        EXTRA_ARGS = "extra-args": Kind::List(&text::<Argument>()), Empty;
        /// Machine model (qemu only); a compartment may set its own.
        MACHINE = "machine": Kind::Word(Machine::WORDS), Text("q35");
        /// How guest code is executed (qemu only).
        ACCEL = "accel": Kind::Word(Accel::WORDS), Text("auto");
    }
}

pub(crate) mod switch {
    //! `[switch]`
    use crate::schema::Fallback::{Bool, Integer, Text};
    use crate::schema::{Kind, keys};
    use crate::value::choice::LogLevel;

    keys! {
        /// How much a switch logs.
        LOG_LEVEL = "log-level": Kind::Word(LogLevel::WORDS), Text("warn");
        /// Largest packet in bytes, without the Ethernet header. 1280 is the least IPv6 allows
        /// (RFC 8200, 5).
        MTU = "mtu": Kind::Integer { min: 1280, max: 9000 }, Integer(1500);
        /// Frames of a member may be recorded: casemate net capture. It holds for switches that
        /// start from then on.
        CAPTURE = "capture": Kind::Bool, Bool(false);
    }
}

pub(crate) mod audit {
    //! `[audit]`
    use crate::schema::Fallback::{Bool, Integer, Unset};
    use crate::schema::{Kind, keys, text};
    use crate::value::syslog::SyslogServer;

    keys! {
        /// The audit log is written.
        ENABLE = "enable": Kind::Bool, Bool(true);
        /// Each record is also sent there (RFC 5424): `tls://`, `tcp://` or `udp://`, a name or
        /// address, and a port if it is not the usual one. Kept until it has arrived, but for `udp`.
        SYSLOG = "syslog": text::<SyslogServer>(), Unset("records stay on this machine");
        /// Certificates (PEM) one of which must have signed the server's.
        SYSLOG_CA = "syslog-ca": Kind::HostPath, Unset("those that the system trusts");
        /// Certificate (PEM) that the server is shown.
        SYSLOG_CERTIFICATE = "syslog-certificate": Kind::HostPath, Unset("none");
        /// The key (PEM) of that certificate.
        SYSLOG_KEY = "syslog-key": Kind::HostPath, Unset("none");
        /// Each record also goes to the kernel's audit, for auditd; root's compartments only.
        AUDITD = "auditd": Kind::Bool, Bool(false);
        /// A file that grew beyond this is closed, and the chain goes on in the next.
        MAX_FILE_SIZE = "max-file-size": Kind::Size { min_mib: 1, max_mib: 1 << 20 }, Integer(64);
    }
}

pub(crate) mod ask {
    //! `[ask]`
    use crate::schema::Fallback::{Integer, Unset};
    use crate::schema::{Kind, keys, text};
    use crate::value::path::Program;

    keys! {
        /// The program that asks: it gets the question as its argument and the possible targets as
        /// lines of standard input, and prints the one that was chosen.
        PROGRAM = "program": text::<Program>(), Unset("a dialogue of the desktop");
        /// Seconds until a question that nobody answers is answered with no.
        TIMEOUT = "timeout": Kind::Integer { min: 5, max: 3600 }, Integer(60);
    }
}
