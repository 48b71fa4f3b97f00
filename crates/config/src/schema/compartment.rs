//! The settings of a compartment, shared by `[compartment.*]`, `[template.*]` and `[defaults]`.

use crate::diagnostic::Concern;
use crate::schema::Fallback::{Bool, Empty, Integer, Text, Unset};
use crate::schema::{Kind, Map, Role, Section, guest, keys, lists, text};
use crate::value::choice::{
    EngineKind, FirewallAction, LogLevel, Machine, RestartPolicy, WindowRight,
};
use crate::value::color::Color;
use crate::value::firewall::FirewallRule;
use crate::value::id::CompartmentId;
use crate::value::name::{
    Argument, CompartmentName, CompartmentType, DeviceModel, ImageName, KernelParam, Label,
    NetworkName, PackageName, SecretName, SnapshotRule, Tag, TemplateName, UserName,
};
use crate::value::pci::Bdf;
use crate::value::size::MemorySize;

keys! {
    /// Odd number: the guest's address within `[network] cidr`, and its vsock context id where the
    /// kernel's vhost-vsock is used. Unique. A /24 has room for ids up to 255.
    ID = "id": Kind::Integer { min: CompartmentId::MIN.get() as i64, max: CompartmentId::MAX.get() as i64 },
        Unset("assigned, and kept"), OnlyCompartment;
    /// What runs the compartment.
    ENGINE = "engine": Kind::Word(EngineKind::WORDS), Text("qemu");
    /// Template whose settings apply where this table has none.
    TEMPLATE = "template": text::<TemplateName>(), Unset("none"), NotInDefaults;
    /// Image it starts from: `debian`, or one declared as `[image.NAME]`.
    IMAGE = "image": text::<ImageName>(), Text(ImageName::DEFAULT);
    /// Memory: MiB as a number, or text with a unit.
    MEMORY = "memory": Kind::Size { min_mib: MemorySize::MIN_MIB, max_mib: MemorySize::MAX_MIB }, Integer(1024);
    /// Virtual processors.
    CPUS = "cpus": Kind::Integer { min: 1, max: 255 }, Integer(2);
    /// QEMU's machine model for this compartment.
    MACHINE = "machine": Kind::Word(Machine::WORDS), Unset("as in `[engine.qemu]`");
    /// A /31 link to the host and NAT to the outside. Without it the compartment is offline.
    HOST_NETWORKING = "host-networking": Kind::Bool, Bool(false);
    /// What a networked compartment may reach: rules of the form `action=accept|drop
    /// [proto=tcp|udp|icmp] [dst4=CIDR|dst6=CIDR|dsthost=NAME] [dstports=A-B] [icmptype=N]
    /// [special=dns] [comment=…]`. The first that matches decides. Other compartments and the host
    /// are out of reach unless a rule names them.
    FIREWALL = "firewall": Kind::List(&text::<FirewallRule>()), Empty;
    /// What happens to packets that no rule matches.
    FIREWALL_DEFAULT = "firewall-default": Kind::Word(FirewallAction::WORDS), Text("accept");
    /// Words that the policy matches as `@tag:WORD`.
    TAGS = "tags": Kind::List(&text::<Tag>()), Empty;
    /// Word that the policy matches as `@type:WORD`.
    TYPE = "type": text::<CompartmentType>(), Unset("`DispVM` for a disposable, else `AppVM`");
    /// Never offered when the policy asks for a target.
    INTERNAL = "internal": Kind::Bool, Bool(false);
    /// What `@dispvm` means for requests of this compartment: one with `disposable-template = true`.
    DEFAULT_DISPOSABLE = "default-disposable": text::<CompartmentName>(), Unset("none: such requests are denied");
    /// Fresh disposables may be made from this compartment.
    DISPOSABLE_TEMPLATE = "disposable-template": Kind::Bool, Bool(false);
    /// Who may use a compartment of the system's configuration.
    USERS = "users": Kind::List(&text::<UserName>()), Unset("root for the system's, the user himself for his own");
    /// Ends by itself when idle, and is erased.
    DISPOSABLE = "disposable": Kind::Bool, Bool(false);
    /// Seconds without a session after which a disposable ends.
    IDLE_TIMEOUT = "idle-timeout": Kind::Integer { min: 1, max: 604_800 }, Integer(60);
    /// Encrypted disks that last.
    VOLUMES = "volumes": Kind::List(&Kind::Table(&lists::VOLUME)), Empty;
    /// Takes a snapshot of the volumes at each stop, and keeps so many of those it took.
    KEEP_SNAPSHOTS = "keep-snapshots": text::<SnapshotRule>(), Unset("none is taken");
    /// Disk images and block devices handed in as they are.
    ADDITIONAL_DISKS = "additional-disks": Kind::List(&Kind::Table(&lists::DISK)), Empty;
    /// Root disk in place of the image's.
    ROOT_DISK = "root-disk": Kind::HostPath, Unset("from the image");
    /// Protects the root disk from writing.
    ROOT_DISK_READONLY = "root-disk-readonly": Kind::Bool, Bool(true);
    /// Kernel in place of the image's.
    KERNEL = "kernel": Kind::HostPath, Unset("from the image");
    /// Initial RAM filesystem in place of the image's.
    INITRAMFS = "initramfs": Kind::HostPath, Unset("from the image");
    /// Appended to the kernel's command line, one parameter each.
    KERNEL_PARAMS = "kernel-params": Kind::List(&text::<KernelParam>()), Empty;
    /// Host folders shown in the guest by virtio-fs.
    SHARES = "shares": Kind::List(&Kind::Table(&lists::SHARE)), Empty;
    /// Accelerated graphics: `false`, or a model in the engine's words.
    GPU = "gpu": Kind::Either(&[Kind::Only(false), text::<DeviceModel>()]), Unset("the engine's default");
    /// Sound: `true` for the engine's default device, or a model in the engine's words.
    SOUND = "sound": Kind::Either(&[Kind::Bool, text::<DeviceModel>()]), Bool(false);
    /// PCI devices handed to the guest. Each must be listed in `isolated-pci-devices`, and belongs
    /// to one compartment only.
    PCI_DEVICES = "pci-devices": Kind::List(&text::<Bdf>()), Empty;
    /// Virtual networks this compartment is a member of, by name. Each network has exactly one
    /// router.
    NETWORKS = "networks": Kind::Map(&Map { key: <NetworkName as crate::value::text::Textual>::FORMAT, of: Kind::Table(&lists::MEMBERSHIP) }), Empty;
    /// Interfaces whose other end is somebody else's vhost-user switch.
    VHOST_USER_NET = "vhost-user-net": Kind::List(&Kind::Table(&lists::VHOST_USER_NET)), Unset("those that `networks` needs");
    /// Packages added to the image of this compartment.
    PROGRAMS = "programs": Kind::List(&text::<PackageName>()), Empty;
    /// Settings inside of the guest.
    GUEST = "guest": Kind::Table(&guest::GUEST), Empty;
    /// Files encrypted with age, opened into a tmpfs of the guest when it runs, by name.
    SECRETS = "secrets": Kind::Map(&Map { key: <SecretName as crate::value::text::Textual>::FORMAT, of: Kind::Table(&lists::SECRET) }), Empty;
    /// The age identity, or ssh key, that opens this compartment's secrets and no other's. With a
    /// `recipients.txt` in their folder (`age --recipients-file`), they are encrypted to those.
    SECRETS_IDENTITY = "secrets-identity": Kind::HostPath, Unset("the user's `identity.txt`");
    /// Colour of its window borders: a CSS name or `#rrggbb`.
    COLOR = "color": text::<Color>(), Unset("derived from the name");
    /// Text on its window borders.
    LABEL = "label": text::<Label>(), Unset("the name");
    /// What its windows may do that they may not by themselves: be fullscreen (inside their
    /// border), take the focus, hold the pointer.
    WINDOW_RIGHTS = "window-rights": Kind::List(&Kind::Word(WindowRight::WORDS)), Empty;
    /// Starts with the machine (the system's) or the login (a user's).
    AUTOSTART = "autostart": Kind::Bool, Bool(false);
    /// Whether it is started again after it ended.
    RESTART = "restart": Kind::Word(RestartPolicy::WORDS), Text("no");
    /// A command that tells whether what the compartment is for works.
    HEALTH_CHECK = "health-check": Kind::Table(&lists::HEALTH_CHECK), Unset("none is made");
    /// How much its engine logs.
    LOG_LEVEL = "log-level": Kind::Word(LogLevel::WORDS), Unset("as in `[engine.*]`");
    /// Appended to the engine's arguments, after those of `[engine.*]`.
    EXTRA_ARGS = "extra-args": Kind::List(&text::<Argument>()), Empty;
}

pub(crate) static COMPARTMENT: Section = Section {
    title: "a compartment",
    header: "[compartment.NAME]",
    doc: "One compartment. What it leaves out comes from its template, then from `[defaults]`.",
    keys: KEYS,
    rest: None,
    role: Role::Compartment,
    owner: Some(|name| Some(Concern::Compartment(name.to_owned()))),
};

pub(crate) static TEMPLATE_TABLE: Section = Section {
    title: "a template",
    header: "[template.NAME]",
    doc: "Settings for compartments that name it; may itself name one template.",
    keys: KEYS,
    rest: None,
    role: Role::Template,
    owner: Some(|name| Some(Concern::Template(name.to_owned()))),
};

pub(crate) static DEFAULTS: Section = Section {
    title: "the defaults",
    header: "[defaults]",
    doc: "A template applied to every compartment. Those of a user's file apply to the user's own \
          compartments only.",
    keys: KEYS,
    rest: None,
    role: Role::Defaults,
    owner: None,
};
