//! What the clients of one compartment share: selections, a drag, and who has the focus.
//!
//! A client's handler cannot reach other clients; what concerns them is left here as an [`Effect`]
//! and carried out by the server once the handler is done.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// Types that something is offered in.
pub type Types = Rc<Vec<String>>;

/// Which selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Copy and paste.
    Clipboard,
    /// Selected text and the middle button.
    Primary,
}

/// Who answers when somebody pastes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A client, with its source.
    Client {
        /// The client's key.
        client: u64,
        /// Its source.
        source: u32,
    },
    /// The broker, once.
    Broker,
}

/// A selection.
#[derive(Clone, Debug)]
pub struct Held {
    /// Counts selections, so that an old offer is known for one.
    pub number: u64,
    /// Who has it.
    pub holder: Holder,
    /// In which types.
    pub types: Types,
}

/// Something being dragged.
#[derive(Clone, Debug)]
pub struct Drag {
    /// Counts as selections do.
    pub number: u64,
    /// Whose it is.
    pub client: u64,
    /// Its source; none when only that client takes it.
    pub source: Option<u32>,
    /// In which types.
    pub types: Types,
    /// Actions of the source.
    pub actions: u32,
    /// The only type that the compositor and other programs see. They get nothing for it.
    pub token: String,
    /// The type that whoever is below the pointer wants.
    pub accepted: Option<String>,
}

/// Something to be done for another client.
#[derive(Debug)]
pub enum Effect {
    /// All clients learn of a selection.
    Announce(Which),
    /// A client writes its selection or what it drags to this descriptor.
    Send {
        /// The client.
        client: u64,
        /// Its source.
        source: u32,
        /// The type.
        kind: String,
        /// Where to.
        fd: OwnedFd,
    },
    /// The broker's offer is written to this descriptor.
    Broker {
        /// The number of the selection.
        number: u64,
        /// The type.
        kind: String,
        /// Where to.
        fd: OwnedFd,
    },
    /// A client's source is no longer the selection.
    Cancelled {
        /// The client.
        client: u64,
        /// Its source.
        source: u32,
    },
    /// The focus has come or gone.
    Focus(bool),
}

/// The shared state.
#[derive(Debug, Default)]
pub struct Compartment {
    /// In the order in which they came.
    pub effects: VecDeque<Effect>,
    /// What is dragged.
    pub drag: Option<Drag>,
    clipboard: Option<Held>,
    primary: Option<Held>,
    last: u64,
    focused: BTreeSet<u64>,
}

impl Compartment {
    /// A selection.
    pub fn selection(&self, which: Which) -> Option<&Held> {
        match which {
            Which::Clipboard => self.clipboard.as_ref(),
            Which::Primary => self.primary.as_ref(),
        }
    }

    /// Replaces a selection. Returns its number.
    pub fn select(&mut self, which: Which, new: Option<(Holder, Types)>) -> u64 {
        self.last += 1;
        let number = self.last;
        let new = new.map(|(holder, types)| Held { number, holder, types });
        let kept = new.as_ref().map(|it| it.holder);
        let place = match which {
            Which::Clipboard => &mut self.clipboard,
            Which::Primary => &mut self.primary,
        };
        let before = std::mem::replace(place, new);
        if let Some(Held { holder: Holder::Client { client, source }, .. }) = before
            && kept != Some(Holder::Client { client, source })
        {
            self.effects.push_back(Effect::Cancelled { client, source });
        }
        let told = |it: &Effect| matches!(it, Effect::Announce(one) if *one == which);
        if !self.effects.iter().any(told) {
            self.effects.push_back(Effect::Announce(which));
        }
        number
    }

    /// A client's source is gone.
    pub fn forget_source(&mut self, client: u64, source: u32) {
        let gone = Holder::Client { client, source };
        for which in [Which::Clipboard, Which::Primary] {
            if self.selection(which).is_some_and(|it| it.holder == gone) {
                self.select(which, None);
                // Who is gone needs no word of it.
                self.effects.retain(|it| {
                    !matches!(it, Effect::Cancelled { client: c, source: s }
                        if *c == client && *s == source)
                });
            }
        }
        self.drag.take_if(|it| it.client == client && it.source == Some(source));
    }

    /// A client is gone.
    pub fn forget_client(&mut self, client: u64) {
        for which in [Which::Clipboard, Which::Primary] {
            if let Some(Holder::Client { client: owner, source }) =
                self.selection(which).map(|it| it.holder)
                && owner == client
            {
                self.forget_source(client, source);
            }
        }
        self.drag.take_if(|it| it.client == client);
        self.set_focus(client, false);
    }

    /// Begins a drag. Returns the type that the compositor sees.
    pub fn begin_drag(
        &mut self,
        client: u64,
        source: Option<u32>,
        types: Types,
        actions: u32,
    ) -> String {
        self.last += 1;
        // Not a secret to keep: nothing is given for it. It tells this drag from others'.
        let token =
            format!("application/x-casemate-drag-{:016x}", RandomState::new().hash_one(self.last));
        self.drag = Some(Drag {
            number: self.last,
            client,
            source,
            types,
            actions,
            token: token.clone(),
            accepted: None,
        });
        token
    }

    /// A client's windows have the focus, or no longer.
    pub fn set_focus(&mut self, client: u64, focused: bool) {
        let before = !self.focused.is_empty();
        if focused {
            self.focused.insert(client);
        } else {
            self.focused.remove(&client);
        }
        let now = self.has_focus();
        if now != before {
            self.effects.push_back(Effect::Focus(now));
        }
    }

    /// Whether a window of this compartment has the focus.
    pub fn has_focus(&self) -> bool {
        !self.focused.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_selection_is_cancelled_and_a_gone_one_is_not() {
        let mut compartment = Compartment::default();
        let holder = Holder::Client { client: 1, source: 7 };
        compartment.select(Which::Clipboard, Some((holder, Types::default())));
        compartment.effects.clear();
        compartment.select(Which::Clipboard, Some((Holder::Broker, Types::default())));
        let seen = format!("{:?}", compartment.effects);
        assert_eq!(seen, "[Cancelled { client: 1, source: 7 }, Announce(Clipboard)]");
        compartment.select(Which::Clipboard, Some((holder, Types::default())));
        compartment.effects.clear();
        compartment.forget_client(1);
        assert_eq!(format!("{:?}", compartment.effects), "[Announce(Clipboard)]");
        assert!(compartment.selection(Which::Clipboard).is_none());
    }

    #[test]
    fn the_focus_is_told_when_it_changes() {
        let mut compartment = Compartment::default();
        compartment.set_focus(1, true);
        compartment.set_focus(2, true);
        compartment.set_focus(1, false);
        assert_eq!(format!("{:?}", compartment.effects), "[Focus(true)]");
        compartment.forget_client(2);
        assert!(!compartment.has_focus());
    }
}
