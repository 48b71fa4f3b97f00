//! Every number a client can push against, in one table.
//!
//! What they add up to is more than the process allows itself: that is measured, and whoever has most
//! of it goes ([`HEAP`]).

use std::time::Duration;

/// Clients of one compartment at a time.
pub const CLIENTS: usize = 32;

/// Live objects of one client. A browser with many tabs has some 2 000.
pub const OBJECTS: usize = 8192;

/// Live objects of all clients together.
pub const ALL_OBJECTS: usize = 65_536;

/// Surfaces of one client.
pub const SURFACES: usize = 512;

/// Subsurfaces above one another.
pub const DEPTH: usize = 16;

/// Buffers of one client.
pub const BUFFERS: usize = 2048;

/// Pools of shared memory of one client.
pub const POOLS: usize = 512;

/// Bytes of one client's pools together: the compositor maps them. Four 8K frames are 530 MB.
pub const POOL_BYTES: i64 = 2 << 30;

/// Width and height of a buffer in pixels.
pub const BUFFER_SIDE: i32 = 16_384;

/// Windows of one client.
pub const WINDOWS: usize = 64;

/// Popups of one client.
pub const POPUPS: usize = 32;

/// Width and height of a popup.
pub const POPUP_SIDE: i32 = 4096;

/// Repositions of a popup that the compositor has not answered.
pub const REPOSITIONS: u32 = 64;

/// Width and height of a cursor.
pub const CURSOR_SIDE: i32 = 128;

/// Width and height of what is dragged.
pub const DRAG_ICON_SIDE: i32 = 256;

/// Coordinates and lengths beyond this are cut: sums of a tree of surfaces then fit 32 bits.
pub const COORDINATE: i32 = 1 << 20;

/// Rectangles of one region.
pub const REGION: usize = 512;

/// Rectangles of all regions of a client, and of those that its surfaces keep.
pub const REGION_SUM: usize = 16_384;

/// Rectangles of damage between two commits; more become one that is everything.
pub const DAMAGE: usize = 32;

/// Callbacks and feedbacks between two commits that reach the compositor.
pub const CALLBACKS: usize = 256;

/// Types that a selection is offered in.
pub const TYPES: usize = 128;

/// Bytes of a type's name.
pub const TYPE: usize = 255;

/// Bytes of the names of all types of a selection. Office programs have 2 KiB.
pub const TYPE_SUM: usize = 8 * 1024;

/// Selections and drags a client was told of and has not destroyed; it is told of no other until
/// it has.
pub const OFFERS: usize = 64;

/// Characters of a title behind the compartment's name.
pub const TITLE: usize = 200;

/// Characters of an application's id.
pub const APP_ID: usize = 64;

/// Bytes of one message (libwayland's limit).
pub const MESSAGE: usize = 4096;

/// Bytes read at a time.
pub const READ: usize = 16 * 1024;

/// Descriptors in one message of the kernel (libwayland's limit).
pub const FDS: usize = 28;

/// Descriptors that came and belong to no message yet.
pub const FDS_WAITING: usize = 56;

/// Bytes for the compositor that are not sent: the client is not read while there are more.
pub const UP_PAUSE: usize = 64 * 1024;

/// Descriptors for the compositor that are not sent, likewise.
pub const UP_FDS: usize = 28;

/// Bytes for a client that are not sent: it is disconnected when there are more.
pub const DOWN: usize = 512 * 1024;

/// Bytes for a client that are not sent: it hears of no other selection until it has read them.
pub const DOWN_LATE: usize = 64 * 1024;

/// Descriptors for a client that are not sent; more data is then not asked of it.
pub const DOWN_FDS: usize = 32;

/// Bytes for the compositor that are not sent, the answers to one read included; a client beyond
/// is disconnected.
pub const UP: usize = 1024 * 1024;

/// Messages of a client between two looks at the others.
pub const TURN: usize = 512;

/// The longest such a turn takes: a commit of many surfaces is more work than most.
pub const TURN_TIME: Duration = Duration::from_millis(4);

/// Milliseconds until the compositor has answered a new connection.
pub const READY: u64 = 10_000;

/// What a pipe is made to hold that a client pastes through, in bytes: what the kernel lets everybody have
/// by default (`fs.pipe-max-size`).
pub const PIPE: usize = 1 << 20;

/// Bytes of a selection that the broker offers or takes.
pub const CLIPBOARD: u64 = 16 << 20;

/// Connections to the control socket.
pub const CONTROLS: usize = 4;

/// Bytes of a line on the control socket.
pub const CONTROL_LINE: usize = 64 * 1024;

/// Lines of the log in [`LOG_TIME`]; further ones are counted and not written.
pub const LOG_LINES: u32 = 60;

/// See [`LOG_LINES`].
pub const LOG_TIME: Duration = Duration::from_secs(60);

/// Descriptors of this process: those that the limits above allow 32 clients, and some more.
pub const OPEN_FILES: u64 = 4096;

/// Bytes of this process's memory.
pub const MEMORY: u64 = 64 << 20;

/// Bytes that it has allocated for all clients; beyond, the one with most of them is disconnected. What is
/// between this and [`MEMORY`] is for gaps of the allocator, stack and program, and one turn of a client.
pub const HEAP: usize = 40 << 20;

/// Bytes that it has allocated for one client. A browser with many tabs has some 2 MiB.
pub const CLIENT_HEAP: usize = 12 << 20;
