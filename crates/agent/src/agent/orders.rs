//! What the agent does about each control message of the host.

use std::io;
use std::time::Duration;

use casemate_wire::message::Assembler;
use casemate_wire::{Boot, FromGuest, FromHost, Init, PROTOCOL_VERSION};

use super::{Agent, Role, since_boot};
use crate::boot;
use crate::console::Console;
use crate::events::{Epoll, Token};
use crate::freeze::{Freeze, Mounted};
use crate::handover;
use crate::hold::Hold;
use crate::session::Desk;
use crate::session::command::Settings;
use crate::session::table::StreamError;
use crate::signals::Signals;
use crate::uevents::Uevents;

impl Agent {
    /// The first message of a connection.
    pub(super) fn hello(&mut self) {
        self.assembler = Assembler::default();
        let kernel = nix::sys::utsname::uname().ok();
        let kernel = kernel.map(|kernel| kernel.release().to_string_lossy().into_owned());
        self.link.out.message(&FromGuest::Hello {
            protocol: PROTOCOL_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            features: Vec::new(),
            kernel: kernel.unwrap_or_default(),
            booted: self.booted,
        });
        self.link.flush(&self.epoll);
    }

    /// Something that can be done before the host says more.
    pub(super) fn use_the_wait(&mut self) {
        if self.role == Role::Init
            && !self.booted
            && let Err(error) = boot::identity::loopback_up()
        {
            self.log.warn(format!("could not bring the loopback interface up: {error}"));
        }
    }

    /// Does what a control message asks.
    pub(super) fn obey(&mut self, message: FromHost) -> Result<(), StreamError> {
        match message {
            FromHost::Boot(boot) if !self.booted && self.role == Role::Init => self.boot(*boot),
            FromHost::Boot(_) => self.log.warn("the host asked twice to boot"),
            FromHost::Open { stream, session } => {
                let mut at = Desk { epoll: &self.epoll, outbox: &mut self.link.out };
                self.sessions.open(stream, &session, &self.settings, &mut at)?;
            }
            FromHost::SetClock { nanoseconds } => {
                if let Err(error) = boot::set_clock(nanoseconds) {
                    self.log.warn(format!("could not set the clock: {error}"));
                }
            }
            FromHost::Ping { id } => self.link.out.message(&FromGuest::Pong { id }),
            FromHost::Shutdown => self.stop(),
            FromHost::Freeze { id, milliseconds, memory } => {
                self.freeze(id, milliseconds, memory);
            }
            FromHost::Thaw => (self.freeze, self.hold) = (None, None),
            FromHost::Resumed { clock, seed } => self.resumed(clock, &seed),
            FromHost::Connect { stream, call } => {
                let mut at = Desk { epoll: &self.epoll, outbox: &mut self.link.out };
                match self.calls.connect(call) {
                    Some((caller, pipes)) => self.sessions.call(stream, caller, pipes, &mut at)?,
                    None => self.sessions.no_call(stream, &mut at),
                }
            }
            FromHost::Refuse { call, code, reason } => self.calls.refused(call, code, &reason),
            FromHost::ShowWindows { stream, window } => {
                let mut at = Desk { epoll: &self.epoll, outbox: &mut self.link.out };
                match self.windows.take(window) {
                    Some(socket) => self.sessions.windows(stream, socket, &mut at)?,
                    None => self.sessions.no_call(stream, &mut at),
                }
            }
            FromHost::RefuseWindows { window } => drop(self.windows.take(window)),
        }
        Ok(())
    }

    /// This is another life of the memory: nothing runs on before it has a time and random numbers
    /// of its own.
    fn resumed(&mut self, clock: u64, seed: &[u8]) {
        if let Err(error) = boot::set_clock(clock) {
            self.log.warn(format!("could not set the clock: {error}"));
        }
        if let Err(error) = boot::reseed(seed) {
            self.log.warn(format!("could not reseed the random number generator: {error}"));
        }
        self.hold = None;
    }

    /// Begins to freeze the volumes, and the programs for `memory`, unless that is done already.
    fn freeze(&mut self, id: u32, milliseconds: u32, memory: bool) {
        let time = Duration::from_millis(milliseconds.into());
        let begun = if self.freeze.is_some() {
            Err("the volumes are being frozen already".to_owned())
        } else if !self.booted || self.shutdown.is_some() {
            Err("the guest is not up".to_owned())
        } else {
            Freeze::begin(id, &self.volumes, time, &self.epoll)
                .map_err(|error| format!("could not start a process that freezes: {error}"))
        };
        match begun {
            Ok(freeze) => {
                self.freeze = Some(freeze);
                self.hold = memory.then(|| Hold::begin(time));
                self.hear_freeze();
            }
            Err(reason) => self.link.out.message(&FromGuest::Frozen { id, failure: Some(reason) }),
        }
    }

    /// Tells the host how the freezing went.
    pub(super) fn hear_freeze(&mut self) {
        let Some(freeze) = &mut self.freeze else { return };
        if let Some(answer) = freeze.hear() {
            let (id, failure) = (freeze.id(), answer.err());
            if failure.is_some() {
                (self.freeze, self.hold) = (None, None);
            }
            self.link.out.message(&FromGuest::Frozen { id, failure });
        } else if freeze.is_over() {
            self.log.warn("the host has not said that the volumes may thaw; they did");
            self.freeze = None;
        }
    }

    /// Sets the guest up and says how that went.
    fn boot(&mut self, boot: Boot) {
        let asked = since_boot();
        if boot.root.verity.is_some() {
            self.listen_for_damage();
        }
        let made = boot::set_up(&boot, &mut self.log);
        let failure = match (made, boot.init) {
            (Err(error), _) => Some(error.sentence()),
            (Ok(()), Init::Systemd) if !handover::is_possible() => {
                Some("guest.init is \"systemd\", but the image has no /sbin/init".to_owned())
            }
            (Ok(()), _) => None,
        };
        if let Some(reason) = failure {
            self.log.critical(&reason);
            self.link.out.message(&FromGuest::BootFailed { reason });
            return self.stop();
        }
        self.booted = true;
        for volume in &boot.volumes {
            match Mounted::at(&volume.name, &volume.mount_point) {
                Ok(mounted) => self.volumes.push(mounted),
                Err(error) => self.log.warn(format!("{:?} cannot be frozen: {error}", volume.name)),
            }
        }
        self.sessions.use_cgroups();
        if let Err(error) = self.calls.open(&self.epoll) {
            self.log.warn(format!("programs of the guest cannot call: {error}"));
        }
        if let Err(error) = self.windows.open(&self.epoll) {
            self.log.warn(format!("programs of the guest cannot show windows: {error}"));
        }
        self.settings = Settings {
            default_user: boot.default_user,
            environment: boot.environment,
            restrictions: boot.restrictions,
        };
        if boot.init == Init::Systemd
            && let Err(error) = self.hand_over()
        {
            let reason = format!("could not start the image's init: {error}");
            self.log.critical(&reason);
            self.link.out.message(&FromGuest::BootFailed { reason });
            return self.stop();
        }
        if self.role == Role::Service && !handover::await_init() {
            self.log.warn("the image's init has not come up in time");
        }
        // Not before: systemd empties the folder of these sockets when it comes up.
        if let Err(error) = self.x11.open(&self.settings, &self.epoll) {
            self.log.warn(format!("X11 programs of the guest cannot show windows: {error}"));
        }
        if self.role == Role::Init {
            self.console = boot.console_user.map(Console::new);
        }
        self.link.out.message(&FromGuest::Ready);
        self.link.flush(&self.epoll);
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        self.log.info(&format!(
            "ready at {:.1} ms: began at {:.1}, asked to boot at {:.1}",
            milliseconds(since_boot()),
            milliseconds(self.started),
            milliseconds(asked),
        ));
    }

    fn listen_for_damage(&mut self) {
        let listening = Uevents::listen().and_then(|uevents| {
            self.epoll.add_read(&uevents, Token::UEVENTS)?;
            Ok(uevents)
        });
        match listening {
            Ok(uevents) => self.uevents = Some(uevents),
            // Readers get their errors all the same.
            Err(error) => self.log.warn(format!("could not listen for damaged blocks: {error}")),
        }
    }

    /// Goes on beside the image's own init.
    fn hand_over(&mut self) -> io::Result<()> {
        handover::hand_over()?;
        self.role = Role::Service;
        // Signal descriptors report to the process that made them known to epoll.
        self.epoll = Epoll::new()?;
        self.signals = Signals::new()?;
        self.epoll.add_read(&self.signals, Token::SIGNALS)?;
        if let Some(uevents) = &self.uevents {
            self.epoll.add_read(uevents, Token::UEVENTS)?;
        }
        self.calls.watch(&self.epoll)?;
        self.windows.watch(&self.epoll)?;
        self.link.watch(&self.epoll)
    }
}
