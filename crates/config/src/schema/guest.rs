//! The `guest` table: what is set inside of a guest.

use crate::schema::Fallback::{Empty, Text, Unset};
use crate::schema::{Kind, Map, Section, keys, section, text};
use crate::value::choice::{Allocator, GuestInit, Hardening};
use crate::value::name::{
    Argument, AuthorizedKey, Hostname, SysctlName, Timezone, UnitName, UserName, VariableName,
};
use crate::value::path::GuestPath;
use crate::value::text::Textual;

pub(crate) static GUEST: Section =
    section("the guest table", "[compartment.NAME.guest]", "Settings inside of the guest.", KEYS);
pub(crate) static USER_TABLE: Section = section(
    "a guest's user",
    "[[compartment.NAME.guest.users]]",
    "A user of the guest. A bare name stands for a table with nothing but the name.",
    user::KEYS,
);
pub(crate) static FILE_TABLE: Section = section(
    "a guest's file",
    "[compartment.NAME.guest.files.\"/PATH\"]",
    "A file written into the guest before anything starts: `content` or `source`.",
    file::KEYS,
);

keys! {
    /// Host name.
    HOSTNAME = "hostname": text::<Hostname>(), Unset("the compartment's name");
    /// Users beside root and the image's own: names, or tables.
    USERS = "users": Kind::List(&Kind::Either(&[text::<UserName>(), Kind::Table(&USER_TABLE)])), Unset("the one named by `user`");
    /// Whom sessions run as when nothing else is asked for.
    USER = "user": text::<UserName>(), Text("user");
    /// OpenSSH public keys that open a session as `user`.
    AUTHORIZED_KEYS = "authorized-keys": Kind::List(&text::<AuthorizedKey>()), Empty;
    /// Who is process 1.
    INIT = "init": Kind::Word(GuestInit::WORDS), Text("agent");
    /// Largest size of what is written to the root, which is kept in memory until the end: MiB as a
    /// number, or text with a unit.
    OVERLAY_SIZE = "overlay-size": Kind::Size { min_mib: 1, max_mib: 1 << 20 }, Unset("half the memory");
    /// How strictly the guest's kernel and services are set.
    HARDENING = "hardening": Kind::Word(Hardening::WORDS), Text("none");
    /// Memory allocator that programs are started with.
    ALLOCATOR = "allocator": Kind::Word(Allocator::WORDS), Text("default");
    /// systemd units to start; needs `init = "systemd"`.
    SERVICES = "services": Kind::List(&text::<UnitName>()), Empty;
    /// Files to write, by path.
    FILES = "files": Kind::Map(&Map { key: GuestPath::FORMAT, of: Kind::Table(&FILE_TABLE) }), Empty;
    /// Kernel settings by name, applied after those of `hardening`.
    SYSCTLS = "sysctls": Kind::Map(&Map { key: SysctlName::FORMAT, of: Kind::Either(&[text::<Argument>(), Kind::Integer { min: i64::MIN, max: i64::MAX }]) }), Empty;
    /// Time zone.
    TIMEZONE = "timezone": text::<Timezone>(), Unset("the image's");
    /// Environment variables of every session.
    ENV = "env": Kind::Map(&Map { key: VariableName::FORMAT, of: text::<Argument>() }), Empty;
}

pub(crate) mod user {
    //! `guest.users`
    use crate::schema::Fallback::{Bool, Empty, Required, Unset};
    use crate::schema::{Kind, keys, text};
    use crate::value::name::{GroupName, UserName};
    use crate::value::path::GuestPath;

    keys! {
        /// Login name.
        NAME = "name": text::<UserName>(), Required;
        /// User id, unique.
        UID = "uid": Kind::Integer { min: 1, max: 65_533 }, Unset("the lowest free one from 1000 on");
        /// Groups beside the user's own.
        GROUPS = "groups": Kind::List(&text::<GroupName>()), Empty;
        /// Login shell.
        SHELL = "shell": text::<GuestPath>(), Unset("the image's default");
        /// Becomes root within the guest without a password.
        PASSWORD_LESS = "password-less": Kind::Bool, Bool(false);
    }
}

pub(crate) mod file {
    //! `guest.files`
    use crate::schema::Fallback::{Text, Unset};
    use crate::schema::{Kind, keys, text};
    use crate::value::name::UserName;
    use crate::value::path::FileMode;

    keys! {
        /// The text of the file. Not for secrets.
        CONTENT = "content": Kind::Prose, Unset("`source` is used");
        /// File of the host that is copied.
        SOURCE = "source": Kind::HostPath, Unset("`content` is used");
        /// Its permission bits, in octal.
        MODE = "mode": text::<FileMode>(), Text("0644");
        /// Who owns it.
        OWNER = "owner": text::<UserName>(), Text("root");
    }
}
