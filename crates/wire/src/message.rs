//! Control messages: what the two ends say to each other on stream 0.
//!
//! Encoded with postcard (compact, with a written specification, no self-description to abuse) and
//! carried in one or more frames. Decoding allocates at most what the bytes that really arrived
//! can fill, and those are bounded by [`MAX_MESSAGE`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use postcard::ser_flavors::Size;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::{Zeroize, Zeroizing};

use crate::frame::{Frame, HEADER_LEN, Kind, push_frame};
use crate::limits::{MAX_MESSAGE, MAX_PAYLOAD};

/// From the agent to the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromGuest {
    /// The first message, on every new connection. Its form never changes between versions, so
    /// that ends of different versions can still tell a person so.
    Hello {
        /// [`crate::PROTOCOL_VERSION`] of the agent.
        protocol: u16,
        /// The agent's own version, for people.
        version: String,
        /// Names of what this agent can do beyond the protocol's core.
        features: Vec<String>,
        /// The guest's kernel release.
        kernel: String,
        /// True when the agent has been told to boot already (it reconnects).
        booted: bool,
    },
    /// The guest is set up as [`Boot`] asked; sessions can start.
    Ready,
    /// The guest cannot be set up; the reason is for a person. The agent powers off after it.
    BootFailed {
        /// What went wrong.
        reason: String,
    },
    /// Something a person who debugs this compartment may want to read.
    Log {
        /// The text.
        text: String,
    },
    /// The answer to [`FromHost::Ping`].
    Pong {
        /// The number of the ping.
        id: u32,
    },
    /// The agent has begun to shut the guest down (asked to, or from inside).
    ShuttingDown,
    /// A block of the root file system is not what it was when the image was made. Who reads it
    /// gets an input/output error.
    RootDamaged {
        /// The first such block, in units of 4096 bytes; of the data or of its hash tree.
        block: u64,
    },
    /// The answer to [`FromHost::Freeze`].
    Frozen {
        /// The number of the freeze.
        id: u32,
        /// Why nothing is frozen, for a person; none when all volumes are.
        failure: Option<String>,
    },
    /// A program of the guest asks for a service of another compartment, or of the host. The answer
    /// is [`FromHost::Connect`] or [`FromHost::Refuse`].
    Call {
        /// Number of the call, given by the agent and not used again on this connection.
        call: u32,
        /// Whom it is for, as the caller says it: a name, or a word of the policy language.
        target: String,
        /// `SERVICE` or `SERVICE+ARGUMENT`, as the caller says it.
        service: String,
    },
    /// Who called has gone before there was an answer.
    CallGone {
        /// Number of the call.
        call: u32,
    },
    /// A program of the guest wants to show windows, and the guest's end of what carries them has
    /// connected. The answer is [`FromHost::ShowWindows`] or [`FromHost::RefuseWindows`].
    Windows {
        /// Number of the connection, given by the agent.
        window: u32,
    },
    /// A program of the guest wants to show windows, and nothing in the guest can carry them.
    NoWaypipe,
    /// An X11 program of the guest wants to show windows, and the guest has no X server.
    NoXwayland,
}

/// From the host to the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromHost {
    /// The answer to a first `Hello`: who the guest is and what to set up.
    Boot(Box<Boot>),
    /// Start a command on a new stream.
    Open {
        /// Number of the stream, never 0 and never used before on this connection.
        stream: u32,
        /// What to run.
        session: Box<OpenSession>,
    },
    /// Set the clock (after a pause or a restore): nanoseconds since 1970 UTC.
    SetClock {
        /// Nanoseconds since 1970-01-01 UTC.
        nanoseconds: u64,
    },
    /// Are you alive?
    Ping {
        /// Comes back in [`FromGuest::Pong`].
        id: u32,
    },
    /// End all sessions, unmount, power off.
    Shutdown,
    /// Write what waits to the volumes' file systems and hold up all further writes to them.
    Freeze {
        /// Comes back in [`FromGuest::Frozen`].
        id: u32,
        /// Milliseconds after which they thaw by themselves, so that a host that is gone leaves no
        /// guest frozen.
        milliseconds: u32,
        /// The memory is kept too: programs hold still as well, as far as the guest can make them,
        /// until [`FromHost::Thaw`], or until [`FromHost::Resumed`] says that this is the memory's
        /// next life.
        memory: bool,
    },
    /// Let writes go on.
    Thaw,
    /// The guest goes on from a memory that was kept: the time is another, and what its random
    /// number generator holds, others may have had before. Programs go on when both are set.
    Resumed {
        /// Nanoseconds since 1970-01-01 UTC.
        clock: u64,
        /// 64 random bytes.
        seed: Vec<u8>,
    },
    /// A call goes through. Its stream is a session the other way round: what the caller says is
    /// [`Kind::Stdout`], what the service says is [`Kind::Stdin`], and a [`Kind::Exit`] of the host
    /// tells how the service ended. The agent's own is still the last frame of the stream.
    Connect {
        /// Number of the stream, never 0 and never used before on this connection.
        stream: u32,
        /// Number of the call.
        call: u32,
    },
    /// A call does not go through.
    Refuse {
        /// Number of the call.
        call: u32,
        /// Exit code of whoever called: 125 to 127.
        code: u8,
        /// Why, for a person.
        reason: String,
    },
    /// Windows of a program go to the user's desktop. What the program's end says is
    /// [`Kind::Stdout`], what the desktop's end says is [`Kind::Stdin`]; an [`Kind::Exit`] of the
    /// agent is the last frame.
    ShowWindows {
        /// Number of the stream, never 0 and never used before on this connection.
        stream: u32,
        /// Number of the connection.
        window: u32,
    },
    /// They do not.
    RefuseWindows {
        /// Number of the connection.
        window: u32,
    },
}

/// Everything the agent needs to make the guest out of a kernel and an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// Name in `/etc/hostname` and of the kernel.
    pub hostname: String,
    /// 32 hexadecimal digits for `/etc/machine-id`.
    pub machine_id: String,
    /// Host clock: nanoseconds since 1970-01-01 UTC.
    pub clock: u64,
    /// 64 random bytes, credited to the guest's random number generator.
    pub seed: Vec<u8>,
    /// What to mount as `/`.
    pub root: RootDisk,
    /// Largest size of the tmpfs above the root, in bytes; 0 lets the kernel choose (half the
    /// memory).
    pub overlay_size: u64,
    /// Encrypted disks to mount, in this order.
    pub volumes: Vec<VolumeMount>,
    /// What runs after the set-up.
    pub init: Init,
    /// Units that systemd shall start beside those of the image.
    pub units: Vec<String>,
    /// Accounts to be there. Those missing in the image are created.
    pub users: Vec<User>,
    /// The account sessions run as unless they say otherwise.
    pub default_user: String,
    /// Files to write after the mounts, in this order.
    pub files: Vec<WriteFile>,
    /// `kernel.parameter` and value. A `-` before the name, as in sysctl.d(5): a kernel that lacks
    /// it or refuses the value is left as it is.
    pub sysctls: Vec<(String, String)>,
    /// Name in the time zone database, such as `Europe/Berlin`.
    pub timezone: Option<String>,
    /// Environment of every session.
    pub environment: Vec<(String, String)>,
    /// Account of the shell on the serial console; none when there shall be no shell.
    pub console_user: Option<String>,
    /// Files in a tmpfs of their own, `/run/secrets`, and, with systemd, its credentials.
    pub secrets: Vec<WriteSecret>,
    /// What is taken from every program of the guest.
    pub restrictions: Restrictions,
    /// Folders of the host to mount, in this order.
    pub shares: Vec<ShareMount>,
    /// The guest's link to the host; none when it has none.
    pub network: Option<Interface>,
    /// Its interfaces in networks between compartments, in this order.
    pub ports: Vec<Port>,
}

/// An interface in a network between compartments. It has no IPv6.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Ethernet address, by which it is found.
    pub mac: [u8; 6],
    /// Its address.
    pub address: Ipv4Addr,
    /// How many bits of it are the network's, at most 32.
    pub prefix: u8,
    /// The network's router, where the way to everything else leads through it.
    pub gateway: Option<Ipv4Addr>,
    /// For `/etc/resolv.conf`, behind those of the link to the host.
    pub name_servers: Vec<IpAddr>,
    /// Bytes of the longest packet.
    pub mtu: u16,
}

/// The guest's end of its link to the host, with the addresses of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Ethernet address, by which it is found.
    pub mac: [u8; 6],
    /// Its address, of a /31 (RFC 3021).
    pub address: Ipv4Addr,
    /// The other address of the /31.
    pub gateway: Ipv4Addr,
    /// Address and gateway of a /127; without, the interface has no IPv6 at all.
    pub v6: Option<(Ipv6Addr, Ipv6Addr)>,
    /// For `/etc/resolv.conf`.
    pub name_servers: Vec<IpAddr>,
    /// Bytes of the longest packet.
    pub mtu: u16,
}

/// Privileges that no program of the guest has, nor can get back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restrictions {
    /// The root is mounted so that set-user-id, set-group-id and file capabilities count for
    /// nothing. Other file systems are in any case.
    pub nosuid: bool,
    /// Sessions run with no_new_privs, prctl(2).
    pub no_new_privs: bool,
    /// Sessions may leave no core file: `RLIMIT_CORE` is 0, hard.
    pub no_core_dumps: bool,
}

/// The disk with the root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootDisk {
    /// Serial number of the virtio-blk disk, as in `/sys/block/*/serial`.
    pub serial: String,
    /// File system type given to mount(2), such as `erofs`; [`RootDisk::ANY`] for the first that
    /// the disk turns out to have.
    pub filesystem: String,
    /// With a tmpfs overlay above it (forgotten at shutdown). Without, the root is mounted as it
    /// is, read-only when the disk is.
    pub overlay: bool,
    /// How its blocks are checked when they are read; not at all when none.
    pub verity: Option<Verity>,
}

impl RootDisk {
    /// Stands for a file system that is not known to the host.
    pub const ANY: &'static str = "auto";
}

/// Parameters of dm-verity: SHA-256 over blocks of 4096 bytes, without salt, data and hash tree on
/// one disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verity {
    /// Digest of the tree's top block.
    pub root_hash: [u8; 32],
    /// Blocks of the file system.
    pub data_blocks: u64,
    /// The block of the disk in which the tree begins.
    pub hash_start: u64,
}

/// An encrypted disk and where it is mounted. Its data is encrypted by dm-crypt, `aes-xts-plain64`,
/// from the first byte of the disk on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// Its name, for people and for the mapped device.
    pub name: String,
    /// Serial number of the virtio-blk disk.
    pub serial: String,
    /// Where it is mounted. Made when it is not there, with the default user as its owner.
    pub mount_point: String,
    /// File system type, such as `ext4`.
    pub filesystem: String,
    /// Nothing is in it yet: a file system has to be made first.
    pub blank: bool,
    /// Bytes encrypted as one.
    pub sector_size: u32,
    /// What it is encrypted with.
    pub key: Key,
}

/// A folder of the host, by virtio-fs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareMount {
    /// Tag of the device.
    pub tag: String,
    /// Where it is mounted. Made when it is not there.
    pub mount_point: String,
    /// Mounted read-only. The host enforces it too.
    pub read_only: bool,
}

/// A key or another secret. It is not shown in any text, and overwritten at its end.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(Vec<u8>);

impl Key {
    /// For a volume the 64 bytes of `aes-xts-plain64`; none in a plan that is not carried out.
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The key.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Key({} bytes)", self.0.len())
    }
}

/// What runs in the guest once it is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Init {
    /// The agent stays process 1.
    Agent,
    /// The agent starts `/sbin/init` as process 1 and goes on beside it.
    Systemd,
}

/// An account in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Numeric id; the next free one from 1000 when not given.
    pub uid: Option<u32>,
    /// Supplementary groups; those missing in the image are ignored with a log message.
    pub groups: Vec<String>,
    /// Login shell.
    pub shell: String,
    /// Lines of `~/.ssh/authorized_keys`.
    pub authorized_keys: Vec<String>,
}

/// A file the host wants in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteFile {
    /// Absolute path. Parents are created.
    pub path: String,
    /// Content.
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Owner's login name.
    pub owner: String,
}

/// A secret the host wants in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteSecret {
    /// Name of its file: no `/`, not hidden.
    pub name: String,
    /// Content; none in a plan that is not carried out.
    pub content: Key,
    /// Permission bits.
    pub mode: u32,
    /// Owner's login name.
    pub owner: String,
}

/// One command to run. Strings that name files or arguments are bytes, as in Linux.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSession {
    /// Program and arguments, at least one; empty asks for the user's login shell.
    pub argv: Vec<Vec<u8>>,
    /// Added to (and before) the environment of [`Boot`].
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// Working directory; the home of the user when not given.
    pub cwd: Option<Vec<u8>>,
    /// Login name; the compartment's default user when not given.
    pub user: Option<String>,
    /// Give it a terminal of this size.
    pub terminal: Option<TerminalSize>,
    /// The session outlives its client; its standard input is empty.
    pub detached: bool,
    /// Run a service in place of a program: `argv` is empty then.
    pub service: Option<Service>,
}

/// A service that somebody was allowed to call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name: letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// Its argument, without the `+`; empty when it has none.
    pub argument: String,
    /// Who calls: the name of a compartment, or [`Service::HOST`].
    pub source: String,
    /// What the caller asked for as its target.
    pub target: String,
}

impl Service {
    /// How the host is called as a source, for programs that know it from elsewhere.
    pub const HOST: &'static str = "dom0";
}

/// Size of a terminal in character cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

impl TerminalSize {
    /// The payload of a [`Kind::Resize`] frame.
    pub fn encode(self) -> [u8; 4] {
        let [r0, r1] = self.rows.to_le_bytes();
        let [c0, c1] = self.columns.to_le_bytes();
        [r0, r1, c0, c1]
    }
}

/// How a session ended: the payload of a [`Kind::Exit`] frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// exit(2) with this code.
    Code(u8),
    /// Ended by this signal number.
    Signal(u8),
    /// Could not be started: the program was not found.
    NotFound {
        /// Reason, for a person.
        reason: String,
    },
    /// Could not be started: it may not be executed, or the user or directory does not exist.
    NotExecutable {
        /// Reason, for a person.
        reason: String,
    },
    /// The agent could not do its part.
    AgentFailed {
        /// Reason, for a person.
        reason: String,
    },
}

impl ExitStatus {
    /// The exit code a shell would report: 128 + n for a signal; 127, 126 and 125 as podman and
    /// env(1) use them.
    pub fn code(&self) -> u8 {
        match self {
            Self::Code(code) => *code,
            Self::Signal(signal) => 128u8.saturating_add(*signal),
            Self::NotFound { .. } => 127,
            Self::NotExecutable { .. } => 126,
            Self::AgentFailed { .. } => 125,
        }
    }
}

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Over [`MAX_MESSAGE`].
    #[error("could not take a control message: it is longer than {MAX_MESSAGE} bytes")]
    TooLong,
    /// Not an encoding of the type.
    #[error("could not decode a control message")]
    Malformed(#[source] postcard::Error),
    /// Bytes behind the end of the value.
    #[error("could not decode a control message: {0} bytes stand behind its end")]
    Trailing(usize),
    /// Not the frames that a control message consists of.
    #[error("a frame of kind {0:?} does not belong on the control stream")]
    WrongFrame(Kind),
}

/// Decodes one value that must fill `bytes`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, MessageError> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(MessageError::Malformed)?;
    if rest.is_empty() { Ok(value) } else { Err(MessageError::Trailing(rest.len())) }
}

/// The bytes of one value.
///
/// # Panics
/// Never for the types of this crate: postcard fails only on types it cannot represent.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    const HAVE: &str = "the protocol's types have an encoding";
    // Of its size from the beginning: growing would leave copies of what may be secret.
    let size = postcard::serialize_with_flavor(value, Size::default()).expect(HAVE);
    let mut bytes = vec![0; size];
    postcard::to_slice(value, &mut bytes).expect(HAVE);
    bytes
}

/// Appends the frames of a control message to `out`.
///
/// # Errors
/// [`MessageError::TooLong`] when the peer would refuse it.
pub fn push_message<T: Serialize>(out: &mut Vec<u8>, message: &T) -> Result<(), MessageError> {
    let bytes = Zeroizing::new(encode(message));
    if bytes.len() > MAX_MESSAGE {
        return Err(MessageError::TooLong);
    }
    let mut pieces = bytes.chunks(MAX_PAYLOAD).peekable();
    out.reserve(bytes.len() + pieces.len() * HEADER_LEN);
    while let Some(piece) = pieces.next() {
        let kind = if pieces.peek().is_some() { Kind::MessagePart } else { Kind::Message };
        push_frame(out, 0, kind, piece);
    }
    Ok(())
}

/// Puts control messages together from the frames of stream 0.
#[derive(Debug, Default)]
pub struct Assembler {
    parts: Vec<u8>,
}

impl Assembler {
    /// Takes a frame of stream 0; returns the message it completes.
    pub fn take<T: DeserializeOwned>(
        &mut self,
        frame: Frame<'_>,
    ) -> Result<Option<T>, MessageError> {
        match frame.kind {
            Kind::MessagePart | Kind::Message => {}
            other => return Err(MessageError::WrongFrame(other)),
        }
        if self.parts.len() + frame.payload.len() > MAX_MESSAGE {
            return Err(MessageError::TooLong);
        }
        if frame.kind == Kind::MessagePart {
            self.parts.extend_from_slice(frame.payload);
            return Ok(None);
        }
        if self.parts.is_empty() {
            return decode(frame.payload).map(Some);
        }
        self.parts.extend_from_slice(frame.payload);
        decode(&std::mem::take(&mut self.parts)).map(Some)
    }
}
