//! What may be said: interfaces at capped versions, their messages, and what is done with each.
//!
//! Nothing is forwarded that is not named here. A request beyond the table, or one marked
//! `Refuse`, ends the client that sent it; such an event is dropped. The definitions are
//! compared with the published ones by a test, so a slip of the pen cannot shift an opcode.

mod core;
mod extras;
mod shell;

use crate::client::{Call, Client};
use crate::fault::Fault;

/// An interface of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is named as its interface, without prefix and version")]
pub enum Interface {
    Display,
    Registry,
    Callback,
    Compositor,
    ShmPool,
    Shm,
    Buffer,
    DataOffer,
    DataSource,
    DataDevice,
    DataDeviceManager,
    Surface,
    Seat,
    Pointer,
    Keyboard,
    Touch,
    Output,
    Region,
    Subcompositor,
    Subsurface,
    XdgWmBase,
    XdgPositioner,
    XdgSurface,
    XdgToplevel,
    XdgPopup,
    XdgDecorationManager,
    XdgToplevelDecoration,
    XdgActivation,
    XdgActivationToken,
    Viewporter,
    Viewport,
    CursorShapeManager,
    CursorShapeDevice,
    Presentation,
    PresentationFeedback,
    FractionalScaleManager,
    FractionalScale,
    XdgOutputManager,
    XdgOutput,
    TextInput,
    TextInputManager,
    PrimarySelectionDeviceManager,
    PrimarySelectionDevice,
    PrimarySelectionOffer,
    PrimarySelectionSource,
    PointerConstraints,
    LockedPointer,
    ConfinedPointer,
}

/// In the order of [`Interface`].
static DEFINITIONS: [(Interface, &Definition); COUNT] = [
    (Interface::Display, &core::DISPLAY),
    (Interface::Registry, &core::REGISTRY),
    (Interface::Callback, &core::CALLBACK),
    (Interface::Compositor, &core::COMPOSITOR),
    (Interface::ShmPool, &core::SHM_POOL),
    (Interface::Shm, &core::SHM),
    (Interface::Buffer, &core::BUFFER),
    (Interface::DataOffer, &core::DATA_OFFER),
    (Interface::DataSource, &core::DATA_SOURCE),
    (Interface::DataDevice, &core::DATA_DEVICE),
    (Interface::DataDeviceManager, &core::DATA_DEVICE_MANAGER),
    (Interface::Surface, &core::SURFACE),
    (Interface::Seat, &core::SEAT),
    (Interface::Pointer, &core::POINTER),
    (Interface::Keyboard, &core::KEYBOARD),
    (Interface::Touch, &core::TOUCH),
    (Interface::Output, &core::OUTPUT),
    (Interface::Region, &core::REGION),
    (Interface::Subcompositor, &core::SUBCOMPOSITOR),
    (Interface::Subsurface, &core::SUBSURFACE),
    (Interface::XdgWmBase, &shell::XDG_WM_BASE),
    (Interface::XdgPositioner, &shell::XDG_POSITIONER),
    (Interface::XdgSurface, &shell::XDG_SURFACE),
    (Interface::XdgToplevel, &shell::XDG_TOPLEVEL),
    (Interface::XdgPopup, &shell::XDG_POPUP),
    (Interface::XdgDecorationManager, &shell::XDG_DECORATION_MANAGER),
    (Interface::XdgToplevelDecoration, &shell::XDG_TOPLEVEL_DECORATION),
    (Interface::XdgActivation, &shell::XDG_ACTIVATION),
    (Interface::XdgActivationToken, &shell::XDG_ACTIVATION_TOKEN),
    (Interface::Viewporter, &extras::VIEWPORTER),
    (Interface::Viewport, &extras::VIEWPORT),
    (Interface::CursorShapeManager, &extras::CURSOR_SHAPE_MANAGER),
    (Interface::CursorShapeDevice, &extras::CURSOR_SHAPE_DEVICE),
    (Interface::Presentation, &extras::PRESENTATION),
    (Interface::PresentationFeedback, &extras::PRESENTATION_FEEDBACK),
    (Interface::FractionalScaleManager, &extras::FRACTIONAL_SCALE_MANAGER),
    (Interface::FractionalScale, &extras::FRACTIONAL_SCALE),
    (Interface::XdgOutputManager, &extras::XDG_OUTPUT_MANAGER),
    (Interface::XdgOutput, &extras::XDG_OUTPUT),
    (Interface::TextInput, &extras::TEXT_INPUT),
    (Interface::TextInputManager, &extras::TEXT_INPUT_MANAGER),
    (Interface::PrimarySelectionDeviceManager, &extras::PRIMARY_SELECTION_DEVICE_MANAGER),
    (Interface::PrimarySelectionDevice, &extras::PRIMARY_SELECTION_DEVICE),
    (Interface::PrimarySelectionOffer, &extras::PRIMARY_SELECTION_OFFER),
    (Interface::PrimarySelectionSource, &extras::PRIMARY_SELECTION_SOURCE),
    (Interface::PointerConstraints, &extras::POINTER_CONSTRAINTS),
    (Interface::LockedPointer, &extras::LOCKED_POINTER),
    (Interface::ConfinedPointer, &extras::CONFINED_POINTER),
];

/// Interfaces there are.
const COUNT: usize = 48;

/// An interface's messages.
#[derive(Debug)]
pub struct Definition {
    /// As on the wire.
    pub name: &'static str,
    /// The newest version a client gets.
    pub version: u32,
    /// By opcode.
    pub requests: &'static [Message],
    /// By opcode.
    pub events: &'static [Message],
}

/// One request or event.
#[derive(Debug)]
pub struct Message {
    /// As in the protocol.
    pub name: &'static str,
    /// The version it came with.
    pub since: u32,
    /// Its arguments.
    pub arguments: &'static [Kind],
    /// Whether its object is gone afterwards.
    pub ends: bool,
    /// What is done with it.
    pub(crate) rule: Rule,
}

/// The type of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A signed number.
    Int,
    /// A number.
    Uint,
    /// A signed number of 1/256.
    Fixed,
    /// Text.
    String,
    /// Text, or none.
    StringOrNull,
    /// An object of this interface.
    Object(Interface),
    /// An object of this interface, or none.
    ObjectOrNull(Interface),
    /// An object of an interface that is not said.
    AnyObject,
    /// A new object of this interface.
    New(Interface),
    /// A new object; its interface and version are the arguments before.
    NewAny,
    /// Bytes.
    Array,
    /// A descriptor.
    Fd,
}

/// What is done with a message.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule {
    /// It goes to the other side with its objects translated.
    Forward,
    /// This decides.
    Handle(Handler),
    /// It is not for clients.
    Refuse,
}

/// What handles a message.
pub(crate) type Handler = fn(&mut Client, Call) -> Result<(), Fault>;

impl Interface {
    /// Its messages.
    pub fn definition(self) -> &'static Definition {
        DEFINITIONS[self as usize].1
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.definition().name
    }

    /// The interface of this name.
    pub fn named(name: &str) -> Option<Self> {
        DEFINITIONS.iter().find(|(_, it)| it.name == name).map(|&(interface, _)| interface)
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        DEFINITIONS.iter().map(|&(interface, _)| interface)
    }
}

impl Definition {
    /// The opcode of a request.
    pub fn request(&self, name: &str) -> Option<u16> {
        position(self.requests, name)
    }

    /// The opcode of an event.
    pub fn event(&self, name: &str) -> Option<u16> {
        position(self.events, name)
    }
}

fn position(messages: &[Message], name: &str) -> Option<u16> {
    messages.iter().position(|message| message.name == name)?.try_into().ok()
}

/// A line of the table.
const fn message(
    name: &'static str,
    since: u32,
    arguments: &'static [Kind],
    rule: Rule,
) -> Message {
    Message { name, since, arguments, ends: false, rule }
}

/// A line of the table: the object's last message.
const fn last(name: &'static str, since: u32, arguments: &'static [Kind], rule: Rule) -> Message {
    Message { name, since, arguments, ends: true, rule }
}

#[cfg(test)]
mod tests;
