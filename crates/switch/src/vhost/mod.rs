//! The vhost-user protocol, as a back-end for one virtio-net device with one pair of queues.
//!
//! ```text
//!  socket ─▶ stream::Stream (never blocks) ─▶ message::Message ─▶ session::Session ─▶ rings
//! ```
//!
//! The peer is a VMM, and so as hostile as its guest. Sizes and numbers of descriptors are bounded
//! before anything is kept; whatever does not fit the protocol ends the connection, and only that.
//! Messages may come in any order that QEMU and DPDK use: `SET_VRING_ENABLE` before `SET_FEATURES`
//! among them.

pub mod message;
pub mod session;
pub mod stream;

pub use message::{Features, Message, MessageError, Request};
pub use session::{Change, Session, SessionError};
pub use stream::{Stream, StreamError};
