//! A client, the proxy's part for it, and a compositor, all in one thread and without waiting.

use std::cell::RefCell;
use std::rc::Rc;

use casemate_wayland::Fault;
use casemate_wayland::client::Client as Proxied;
use casemate_wayland::compartment::Compartment;
use casemate_wayland::label::Label;
use casemate_wayland::settings::Settings;
use casemate_wayland::socket::pair;

use super::client::Client;
use super::compositor::Compositor;

/// The three.
pub struct Bench {
    pub client: Client,
    pub proxied: Proxied,
    pub compositor: Compositor,
    pub compartment: Rc<RefCell<Compartment>>,
}

impl Bench {
    pub fn new() -> Self {
        let compartment = Rc::new(RefCell::new(Compartment::default()));
        let color = [0xcc, 0x22, 0x22];
        let settings = Rc::new(Settings {
            name: "work".into(),
            color,
            label: Label::draw("work", color),
            allow_fullscreen: false,
            allow_activation: true,
            allow_constraints: true,
        });
        let (client, down) = pair().expect("a pair");
        let (up, compositor) = pair().expect("a pair");
        let proxied = Proxied::new(1, settings, compartment.clone(), down, up);
        let mut bench = Self {
            client: Client::of(client),
            proxied: proxied.expect("begun"),
            compositor: Compositor::new(compositor),
            compartment,
        };
        bench.run().expect("ready");
        assert!(bench.proxied.is_ready());
        bench
    }

    /// Lets all three talk until they are done. An error is why the client has to go.
    pub fn run(&mut self) -> Result<(), Fault> {
        let mut quiet = 0;
        // Twice: what was said last is answered.
        while quiet < 2 {
            self.client.endpoint.flush()?;
            self.proxied.turn()?;
            let heard = self.compositor.turn();
            self.proxied.turn()?;
            let hears = self.client.listen();
            let waits = self.client.endpoint.waiting() > 0 || self.proxied.has_requests();
            quiet = if heard || hears || waits { 0 } else { quiet + 1 };
        }
        Ok(())
    }
}
