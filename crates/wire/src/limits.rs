//! Every limit of the protocol, in one place. Both ends enforce them on what they receive.

/// Largest payload of one frame, in bytes. 64 KiB is twice the largest buffer that Linux's
/// `virtio_console` queues for one write (32 KiB), so larger frames would not travel better.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// Data bytes that may be on the way on one stream in one direction before the receiver has to
/// give credit back. At the 460 MB/s measured guest to host this is 1 ms of travel, four round
/// trips of the link.
pub const WINDOW: u32 = 512 * 1024;

/// Sessions open at one time in one compartment.
pub const MAX_SESSIONS: usize = 256;

/// Longest encoded control message, in bytes: a `Boot` with files in it is the largest.
pub const MAX_MESSAGE: usize = 1024 * 1024;

/// Longest argument vector and environment of a session together, in bytes.
/// Linux itself allows a quarter of the stack limit (2 MiB of 8 MiB by default).
pub const MAX_ARGUMENTS: usize = 512 * 1024;

/// Longest text a guest may send to be shown to a person, in bytes; longer is cut.
pub const MAX_TEXT: usize = 4096;

/// Control messages a guest may send in one second before the host calls it a flood.
pub const MAX_MESSAGES_PER_SECOND: u32 = 1000;

/// Calls of one guest that may wait for an answer at one time.
pub const MAX_CALLS: usize = 256;

/// Longest name of a service with its argument, and of a target, in bytes.
pub const MAX_CALL_NAME: usize = 512;

/// Connections of one guest that show windows at one time; each is a program. As many as the proxy
/// takes clients.
pub const MAX_WINDOWS: usize = 32;
