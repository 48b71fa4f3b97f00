//! A network between virtual machines, as one process: each machine's network card is a vhost-user
//! socket, and frames are copied from one guest's memory to another's.
//!
//! ```text
//!  VMM ══ messages ══▶ vhost ── what was agreed on ──▶ switch ── turns ──▶ forward ─ rules
//!  guest ── rings in shared memory ──────────────────────────────────────▶ ring, memory
//!  supervisor ══ control socket ══▶ control
//! ```
//!
//! - [`memory`]: guests' memory, checked pieces of it, and its loss; [`ring`]: split virtqueues.
//!   With [`descriptor`], which takes descriptors from sockets, they have all the `unsafe` code.
//! - [`rules`]: who may send what to whom; pure.
//! - [`forward`]: the data path, one turn of one port; pure, but for the memory it is given.
//! - [`vhost`]: messages of front-ends; [`switch`]: ports, turns, sleep.
//! - [`control`]: what supervisors ask; [`confine`]: what the process may still do.
//!
//! Front-ends and guests are hostile. One thread, one epoll, no lock.

pub mod arguments;
pub mod confine;
pub mod control;
pub mod descriptor;
pub mod forward;
pub mod listen;
pub mod memory;
pub mod ring;
pub mod rules;
pub mod switch;
pub mod vhost;
