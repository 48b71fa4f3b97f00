//! Applications of a guest in the user's menu: how they are told, and which of it is believed.
//!
//! ```text
//! guest: .desktop, PNG ═ stream ═▶ Reader ─▶ parse ─▶ Application ─▶ Entry::text ─▶ .desktop
//!                                     └────▶ icon::decode ─▶ pixels ─▶ icon::encode ─▶ PNG with a frame
//! ```
//! The guest's part ends before `Application`: nothing behind it has a byte of the guest's that was not
//! looked at. No command line, no path and no name of a file is taken from a guest; only the id goes back
//! to it. There is no I/O here beyond reading from what is handed in. docs/design/0018 has the rules.

mod application;
mod categories;
mod entry;
#[cfg(feature = "icons")]
pub mod icon;
pub mod limits;
mod stream;
mod text;

pub use application::{Application, LeftOut, Localized, check_id, parse};
pub use entry::{Entry, app_id, compartment_of, file_name};
pub use stream::{Reader, Record, StreamError, Writer};
