//! The small tables within a compartment: volumes, disks, shares, memberships, secrets.

use crate::schema::Section;
use crate::schema::section;

pub(crate) static VOLUME: Section = section(
    "a volume",
    "[[compartment.NAME.volumes]]",
    "An encrypted disk that lasts.",
    volume::KEYS,
);
pub(crate) static DISK: Section = section(
    "an additional disk",
    "[[compartment.NAME.additional-disks]]",
    "A disk image or block device of the host, handed in as it is.",
    disk::KEYS,
);
pub(crate) static SHARE: Section = section(
    "a share",
    "[[compartment.NAME.shares]]",
    "A host folder shown in the guest by virtio-fs.",
    share::KEYS,
);
pub(crate) static MEMBERSHIP: Section = section(
    "a network membership",
    "[compartment.NAME.networks.NETWORK]",
    "How the compartment takes part in a virtual network.",
    membership::KEYS,
);
pub(crate) static VHOST_USER_NET: Section = section(
    "a vhost-user interface",
    "[[compartment.NAME.vhost-user-net]]",
    "An interface whose other end is somebody else's switch.",
    vhost_user_net::KEYS,
);
pub(crate) static HEALTH_CHECK: Section = section(
    "a health check",
    "[compartment.NAME.health-check]",
    "A command that is run in the guest again and again. Where `restart` is set, a compartment whose \
     check fails is shut down and started anew.",
    health_check::KEYS,
);
pub(crate) static SECRET: Section = section(
    "a secret",
    "[compartment.NAME.secrets.SECRET]",
    "A file encrypted with age at rest, and a file in the guest's tmpfs at run time.",
    secret::KEYS,
);
pub(crate) static AGE_KEY: Section = section(
    "an age key",
    "`key` of a volume",
    "The key of a volume, encrypted with age.",
    age_key::KEYS,
);

pub(crate) mod volume {
    //! `volumes`
    use crate::schema::Fallback::{Required, Text};
    use crate::schema::{Kind, keys, lists, text};
    use crate::value::choice::{Filesystem, Word};
    use crate::value::name::VolumeName;
    use crate::value::path::MountPoint;

    pub(crate) const KEY_WORDS: &[Word] = &[
        Word { word: "passphrase", doc: " Asked for when the compartment starts." },
        Word { word: "tpm2", doc: " Sealed by the machine's TPM 2.0." },
    ];

    keys! {
        /// Its name, unique within the compartment.
        NAME = "name": text::<VolumeName>(), Required;
        /// Space: MiB as a number, or text with a unit; from 16 MiB to 64 TiB. Taken as it is used.
        SIZE = "size": Kind::Size { min_mib: 16, max_mib: 64 << 20 }, Required;
        /// Where the guest mounts it.
        MOUNT_POINT = "mount-point": text::<MountPoint>(), Required;
        /// How it is formatted when it is first used.
        FILESYSTEM = "filesystem": Kind::Word(Filesystem::WORDS), Text("ext4");
        /// What opens it: `"passphrase"`, `"tpm2"`, or `{ age = "FILE" }`.
        KEY = "key": Kind::Either(&[Kind::Word(KEY_WORDS), Kind::Table(&lists::AGE_KEY)]), Text("passphrase");
    }
}

pub(crate) mod age_key {
    //! `key = { age = … }`
    use crate::schema::Fallback::Required;
    use crate::schema::{Kind, keys};

    keys! {
        /// File holding the volume's key, encrypted with age.
        AGE = "age": Kind::HostPath, Required;
    }
}

pub(crate) mod disk {
    //! `additional-disks`
    use crate::schema::Fallback::{Bool, Integer, Required, Text, Unset};
    use crate::schema::{Kind, keys, text};
    use crate::value::choice::DiskFormat;
    use crate::value::name::DeviceIdentifier;

    keys! {
        /// Image file or block device of the host.
        PATH = "path": Kind::HostPath, Required;
        /// Its format, never probed. A qcow2 with a backing or data file is refused.
        FORMAT = "format": Kind::Word(DiskFormat::WORDS), Text("raw");
        /// The guest may only read.
        READ_ONLY = "read-only": Kind::Bool, Bool(false);
        /// Blocks the guest frees are given back to the host.
        ENABLE_DISCARD = "enable-discard": Kind::Bool, Bool(true);
        /// Logical block size in bytes.
        BLOCK_SIZE = "block-size": Kind::Number(&[512, 4096]), Integer(512);
        /// Serial: the guest finds the disk as `/dev/disk/by-id/virtio-…`. Unique within the
        /// compartment.
        DEV_IDENTIFIER = "dev-identifier": text::<DeviceIdentifier>(), Unset("none");
        /// Avoids the host's page cache (O_DIRECT).
        USE_DIRECT = "use-direct": Kind::Bool, Bool(false);
    }
}

pub(crate) mod share {
    //! `shares`
    use crate::schema::Fallback::{Bool, Required, Unset};
    use crate::schema::{Kind, keys, text};
    use crate::value::name::ShareTag;
    use crate::value::path::MountPoint;

    keys! {
        /// Folder of the host.
        SOURCE = "source": Kind::HostPath, Required;
        /// Where the guest mounts it.
        MOUNT_POINT = "mount-point": text::<MountPoint>(), Required;
        /// virtio-fs tag, unique within the compartment.
        TAG = "tag": text::<ShareTag>(), Unset("`share0`, `share1`, … by position");
        /// The guest may only read.
        READ_ONLY = "read-only": Kind::Bool, Bool(true);
    }
}

pub(crate) mod membership {
    //! `networks`
    use crate::schema::Fallback::{Bool, Unset};
    use crate::schema::{Kind, keys, text};
    use crate::value::mac::MacAddr;

    keys! {
        /// This compartment is the network's router.
        ROUTER = "router": Kind::Bool, Bool(false);
        /// Ethernet address, unique.
        MAC_ADDRESS = "mac-address": text::<MacAddr>(), Unset("derived from the names");
    }
}

pub(crate) mod vhost_user_net {
    //! `vhost-user-net`
    use crate::schema::Fallback::Required;
    use crate::schema::{Kind, keys};

    keys! {
        /// The Unix socket of the back-end.
        SOCKET = "socket": Kind::HostPath, Required;
    }
}

pub(crate) mod secret {
    //! `secrets`
    use crate::schema::Fallback::{Required, Text};
    use crate::schema::{Kind, keys, text};
    use crate::value::name::UserName;
    use crate::value::path::FileMode;

    keys! {
        /// File of the host, encrypted with age.
        FILE = "file": Kind::HostPath, Required;
        /// Who owns it in the guest.
        OWNER = "owner": text::<UserName>(), Text("root");
        /// Its permission bits in the guest, in octal.
        MODE = "mode": text::<FileMode>(), Text("0400");
    }
}

pub(crate) mod health_check {
    //! `health-check`
    use crate::schema::Fallback::{Empty, Integer, Unset};
    use crate::schema::{Kind, keys, text};
    use crate::value::name::{Argument, UserName};

    keys! {
        /// Program and arguments, which must stand here or in a template. Ending with 0 means that all
        /// is well.
        COMMAND = "command": Kind::List(&text::<Argument>()), Empty;
        /// Whom it runs as.
        USER = "user": text::<UserName>(), Unset("the guest's `user`");
        /// Seconds from the end of one check to the next.
        INTERVAL = "interval": Kind::Integer { min: 1, max: 86_400 }, Integer(30);
        /// Seconds after which a check that has not ended counts as failed.
        TIMEOUT = "timeout": Kind::Integer { min: 1, max: 3600 }, Integer(10);
        /// Checks that fail one after the other before the compartment counts as unhealthy.
        RETRIES = "retries": Kind::Integer { min: 1, max: 100 }, Integer(3);
        /// Seconds after the start in which failing checks do not count, until one has succeeded.
        START_PERIOD = "start-period": Kind::Integer { min: 0, max: 3600 }, Integer(60);
    }
}
