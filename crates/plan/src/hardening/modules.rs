//! Kernel modules that no compartment needs: old or rare code of the kernel that a program can have
//! loaded by asking for its protocol or file system.

/// Rare network protocols, each loaded by a socket(2) of an ordinary user.
pub(super) const PROTOCOLS: [&str; 22] = [
    "af_802154",
    "appletalk",
    "ax25",
    "can",
    "atm",
    "dccp",
    "decnet",
    "econet",
    "ieee802154",
    "ipx",
    "kcm",
    "l2tp_core",
    "n_hdlc",
    "netrom",
    "p8022",
    "p8023",
    "phonet",
    "psnap",
    "rds",
    "rose",
    "tipc",
    "x25",
];

/// Rare file systems, whose parsers were never made for hostile disks.
pub(super) const FILESYSTEMS: [&str; 16] = [
    "adfs", "affs", "befs", "cramfs", "efs", "freevxfs", "gfs2", "hfs", "hfsplus", "jffs2", "jfs",
    "ksmbd", "minix", "nilfs2", "omfs", "udf",
];

/// Drivers of devices that a guest has not, and that reach far into its memory or have only ever
/// been made for tests.
pub(super) const DRIVERS: [&str; 4] = ["firewire_core", "floppy", "thunderbolt", "vivid"];
