//! How large the screens are. A window larger than all of them could show its middle everywhere and
//! its border nowhere.

use std::collections::BTreeMap;

use super::Client;
use super::frame::Edges;
use super::ids::Role;
use crate::fault::Fault;
use crate::limits;
use crate::protocol::Interface;
use crate::wire::Arg;

/// The proxy's own look at the compositor's outputs.
#[derive(Debug, Default)]
pub(crate) struct Screens {
    /// By the compositor's name: its version, the output, and what tells its size; 0 until then.
    outputs: BTreeMap<u32, (u32, u32, u32)>,
    /// Width and height by what told them.
    sizes: BTreeMap<u32, (i32, i32)>,
}

/// Outputs that are looked at.
const MOST: usize = 32;

impl Client {
    /// The compositor has an output.
    pub(crate) fn watch_output(&mut self, name: u32, version: u32) -> Result<(), Fault> {
        if self.screens.outputs.len() >= MOST {
            return Ok(());
        }
        let version = version.min(Interface::Output.definition().version);
        let output = self.ids.ours(Interface::Output, Role::Silent)?;
        self.bind_up(name, Interface::Output, version, output)?;
        self.screens.outputs.insert(name, (version, output, 0));
        self.ask_sizes()
    }

    /// Asks for the sizes of outputs that were not asked yet, if the compositor tells them.
    pub(crate) fn ask_sizes(&mut self) -> Result<(), Fault> {
        let manager = self.own.xdg_output_manager;
        if manager == 0 {
            return Ok(());
        }
        let unasked = self.screens.outputs.iter().filter(|(_, it)| it.2 == 0);
        let unasked: Vec<(u32, u32)> = unasked.map(|(name, it)| (*name, it.1)).collect();
        for (name, output) in unasked {
            let new = self.ids.ours(Interface::XdgOutput, Role::Screen)?;
            let arguments = vec![Arg::New(new), Arg::Object(output)];
            self.request(manager, Interface::XdgOutputManager, "get_xdg_output", arguments)?;
            if let Some(kept) = self.screens.outputs.get_mut(&name) {
                kept.2 = new;
            }
        }
        Ok(())
    }

    /// An output has this size.
    pub(crate) fn screen_size(&mut self, teller: u32, width: i32, height: i32) {
        self.screens.sizes.insert(teller, (width, height));
    }

    /// A global of the compositor's is gone; perhaps an output.
    pub(crate) fn unwatch_output(&mut self, name: u32) -> Result<(), Fault> {
        let Some((version, output, teller)) = self.screens.outputs.remove(&name) else {
            return Ok(());
        };
        if teller != 0 {
            self.screens.sizes.remove(&teller);
            self.request(teller, Interface::XdgOutput, "destroy", Vec::new())?;
        }
        match version >= 3 {
            true => self.request(output, Interface::Output, "release", Vec::new()),
            false => Ok(()),
        }
    }

    /// The largest size inside such a border that is on the screen with it, as far as that is known.
    pub(crate) fn largest(&self, edges: Edges) -> (i32, i32) {
        let sizes = self.screens.sizes.values().filter(|(width, height)| *width > 0 && *height > 0);
        let most = sizes.fold((0, 0), |most, it| (most.0.max(it.0), most.1.max(it.1)));
        match most {
            (0, _) | (_, 0) => (limits::BUFFER_SIDE, limits::BUFFER_SIDE),
            most => edges.within(most),
        }
    }
}
