//! Values that cannot be wrong: each parses from text and keeps its promise afterwards.

pub(crate) mod choice;
pub(crate) mod color;
mod css_colors;
pub(crate) mod firewall;
pub(crate) mod grant;
pub(crate) mod hash;
pub(crate) mod id;
pub(crate) mod mac;
pub(crate) mod name;
pub(crate) mod net;
pub(crate) mod path;
pub(crate) mod pci;
pub(crate) mod size;
pub(crate) mod syslog;
pub(crate) mod text;
