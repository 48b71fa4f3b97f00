//! What a person hands from one compartment to another: files, and with them web addresses and
//! notices.
//!
//! ```text
//! files ─ walk ─▶ Sender ══ stream ══▶ Decoder ─ events ─▶ Receiver ─▶ ~/Incoming/SOURCE
//!                    ◀═════ Reply ═════════════════════════
//! ```
//! Host and guest have the same code, and neither believes the other: the [`Decoder`] does no I/O and
//! holds every number against a limit, the [`Receiver`] makes new files in one folder and nothing else.
//! Both directions are fuzzed. docs/design/0017 has the rules.

mod bar;
mod decode;
mod entry;
pub mod limits;
mod name;
pub mod notice;
mod original;
mod place;
mod receive;
mod reply;
mod send;
mod stream;
mod sum;
pub mod url;
mod walk;

pub use bar::Bar;
pub use decode::{Decoder, Event, Limits};
pub use name::{NameError, check as check_name, is_mark, is_shown, numbered};
pub use original::{Original, ReplaceError, Replaced, receive_single};
pub use place::{Place, PlaceError};
pub use receive::{Modes, Outcome, ReceiveError, Receiver};
pub use reply::{Reply, Totals};
pub use send::{SendError, Sender, Sent};
pub use stream::{StreamError, encode_abort};
pub use sum::Sum;
pub use walk::{LeftOut, Survey, WalkError, survey};
