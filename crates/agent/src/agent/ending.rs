//! Ends: of children, and of the guest when no child is left.

use std::time::Duration;

use casemate_wire::FromGuest;

use super::{Agent, Role};
use crate::session::Desk;
use crate::shutdown::{self, Shutdown};
use crate::signals::{Reaped, reap};

impl Agent {
    /// Begins the end: of the guest, or (a service that got a signal) of the agent.
    pub(super) fn stop(&mut self) {
        if self.shutdown.is_some() {
            return;
        }
        // What is frozen could not be unmounted.
        (self.freeze, self.hold) = (None, None);
        self.link.out.message(&FromGuest::ShuttingDown);
        self.link.flush(&self.epoll);
        if self.role == Role::Service {
            return shutdown::ask_init();
        }
        self.sessions.hang_up_terminals();
        if let Some(console) = &mut self.console {
            console.stop();
        }
        self.shutdown = Some(Shutdown::begin());
        self.reap();
    }

    /// Collects every child that has ended. When the guest shuts down and none is left, it ends.
    pub(super) fn reap(&mut self) {
        loop {
            match reap() {
                Reaped::Child(pid, _) if self.windows.reaped(pid) => {}
                Reaped::Child(pid, status) => {
                    match self.x11.reaped(pid, &self.settings, &self.epoll) {
                        None => {}
                        Some(Ok(())) => continue,
                        Some(Err(problem)) => {
                            self.log.warn(problem);
                            continue;
                        }
                    }
                    let mut at = Desk { epoll: &self.epoll, outbox: &mut self.link.out };
                    if !self.sessions.reaped(pid, status, &mut at)
                        && let Some(console) = &mut self.console
                    {
                        console.reaped(pid);
                    }
                }
                Reaped::NoneYet => break,
                Reaped::NoChildren => {
                    if self.shutdown.is_some() {
                        self.end();
                    }
                    break;
                }
            }
        }
        self.sessions.tidy();
    }

    /// Sends what still waits, then resets the machine.
    pub(super) fn end(&mut self) {
        for _ in 0..20 {
            self.take_turns();
            self.link.flush(&self.epoll);
            if self.link.out.waiting().is_empty() {
                break;
            }
            // The host does not take it; it has a fifth of a second.
            std::thread::sleep(Duration::from_millis(10));
        }
        let error = shutdown::reset();
        self.log.critical(&format!("could not reset the machine: {error}"));
    }
}
