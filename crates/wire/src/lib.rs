//! The protocol between the host and the agent in a guest: messages, limits and framing.
//!
//! Responsible for every byte that crosses the link and for nothing else: this crate opens no
//! socket, spawns nothing and reads no clock. Both ends hand it bytes and get typed values.
//!
//! ```text
//! bytes of the port ──▶ preamble::Hunter ──▶ frame::Decoder ──▶ Frame ──▶ message::decode
//!                        (find this connection)  (limits first)          (control stream only)
//! ```
//!
//! A connection begins with a preamble ([`preamble`]) because a reopened virtio-serial port can
//! hold bytes of the connection before. Frames follow ([`frame`]): stream 0 carries control
//! messages ([`message`]), every other stream carries one session. Data frames are paid for with
//! credit ([`credit`]), so that a session nobody reads holds up only itself.
//!
//! **Invariant:** no length that a peer states is believed before it was compared with a limit of
//! [`limits`], and nothing is allocated for it before that.

pub mod credit;
pub mod date;
pub mod frame;
pub mod limits;
pub mod message;
pub mod preamble;
pub mod text;

pub use credit::{CreditError, Receiver, Sender};
pub use frame::{Decoder, Frame, FrameError, HEADER_LEN, Kind, encode_header, push_frame};
pub use message::{
    Boot, ExitStatus, FromGuest, FromHost, Init, Interface, Key, MessageError, OpenSession, Port,
    Restrictions, RootDisk, Service, ShareMount, TerminalSize, User, Verity, VolumeMount,
    WriteFile, WriteSecret, decode, encode,
};

/// Version of the protocol. The two ends talk only when theirs are equal: the agent always comes
/// from the host's own initrd, so there is no older agent to be kind to.
pub const PROTOCOL_VERSION: u16 = 3;

/// Name of the virtio-serial port, as the guest finds it in `/sys/class/virtio-ports/*/name`.
pub const PORT_NAME: &str = "casemate.link";
