//! The end of a share's file server: whose fault it is, and what becomes of the compartment.
//!
//! A server ends with the connection to it, so the VMM may be the reason; and a VMM whose server is
//! not there ends at once. Which it was is known when the other has had a moment to end too.

use std::time::Instant;

use casemate_link::orders::Order;

use super::{EXIT_DEADLINE, Effect, Life, Outcome, State};

/// How a server ends when the VMM has closed its connection.
const DISCONNECTED: &str = "ended with code 0";

impl Life {
    /// The server of a share has ended while nobody was asked to end.
    pub(super) fn share_exited(&mut self, index: u16, how: &str, now: Instant) {
        if self.share_at_fault().is_none() {
            self.share_exit = Some((index, how.to_owned(), now + EXIT_DEADLINE));
        }
    }

    /// Why the VMM ended, if a server that ended otherwise than with it is the reason.
    pub(super) fn share_at_fault(&self) -> Option<String> {
        let (index, how, _) = self.share_exit.as_ref()?;
        (!how.starts_with(DISCONNECTED)).then(|| self.share_reason(*index, how))
    }

    /// Ends the compartment when a server ended and the VMM did not; true when it does.
    pub(super) fn share_deadline_passed(&mut self, now: Instant) -> bool {
        let due = self.share_exit.take_if(|(_, _, patience)| *patience <= now);
        let Some((index, how, _)) = due else { return false };
        let alive = matches!(self.state, State::Booting { .. } | State::Running | State::Paused);
        if alive {
            self.share_ended(index, &how, now);
        }
        alive
    }

    fn share_reason(&self, index: u16, how: &str) -> String {
        let share = self.terms.guest.shares.get(usize::from(index));
        let tag = share.map_or("", |share| share.tag.as_str());
        format!("the file server of the share `{tag}` {how}")
    }

    /// A share is gone, and whatever uses it in the guest waits for it for good. The rest is told
    /// to end in order, so that what it has on volumes gets there.
    fn share_ended(&mut self, index: u16, how: &str, now: Instant) {
        self.end_without(self.share_reason(index, how), now);
    }

    /// Ends the compartment in order, for this reason: something is gone that its guest counts on,
    /// but not to shut down.
    pub(super) fn end_without(&mut self, reason: String, now: Instant) {
        self.log(true, reason.clone());
        match &self.state {
            State::Running | State::Paused => {
                if self.state == State::Paused {
                    self.effects.push(Effect::Execute(true));
                }
                self.order(Order::Shutdown);
                let outcome = Outcome::Failed { reason };
                self.begin_stopping(outcome, now + self.terms.stop_deadline, false, now);
            }
            _ => self.fail(reason, now),
        }
    }
}
