//! Calls of the guest's programs that wait for the host's answer: what of them is passed on.
//!
//! **Invariant:** what the supervisor hears of a call are two short words of printable ASCII, and no
//! more calls than [`MAX_CALLS`] at a time.

use std::collections::BTreeSet;

use casemate_wire::FromHost;
use casemate_wire::limits::{MAX_CALL_NAME, MAX_CALLS};

use crate::orders::Report;

/// Exit code of a call that is refused.
const REFUSED: u8 = 126;

/// The numbers of those that wait.
#[derive(Debug, Default)]
pub(crate) struct Calls(BTreeSet<u32>);

impl Calls {
    /// Takes a call: what the supervisor is told, or (`Err` inside) what the guest is told at once.
    ///
    /// # Errors
    /// What the guest did that an agent does not do.
    pub(crate) fn take(
        &mut self,
        call: u32,
        target: String,
        service: String,
    ) -> Result<Result<Report, FromHost>, String> {
        if self.0.len() >= MAX_CALLS {
            return Err(format!("more than {MAX_CALLS} of its calls wait for an answer"));
        }
        if !is_word(&target) || !is_word(&service) || service.is_empty() {
            let reason = "a target and a service are words without blanks or control characters";
            return Ok(Err(FromHost::Refuse { call, code: REFUSED, reason: reason.into() }));
        }
        if !self.0.insert(call) {
            return Err("it used the number of a call that waits for another".into());
        }
        Ok(Ok(Report::Call { call, target, service }))
    }

    /// It was answered, or its caller has gone. False when it did not wait.
    pub(crate) fn answered(&mut self, call: u32) -> bool {
        self.0.remove(&call)
    }

    /// The connection they came over is lost.
    pub(crate) fn abandon(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.0)
    }
}

fn is_word(text: &str) -> bool {
    text.len() <= MAX_CALL_NAME && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(calls: &mut Calls, call: u32, target: &str, service: &str) -> Option<Report> {
        calls.take(call, target.into(), service.into()).expect("no breach").ok()
    }

    #[test]
    fn only_short_printable_words_are_passed_on() {
        let mut calls = Calls::default();
        assert!(take(&mut calls, 1, "work", "casemate.Date+x").is_some());
        assert!(take(&mut calls, 2, "", "a").is_some(), "no target is the default one");
        let long = "x".repeat(MAX_CALL_NAME + 1);
        for (target, service) in
            [("a b", "s"), ("a", ""), ("a", "s\n"), ("a", "\u{1b}[1m"), ("ä", "s"), (&long, "s")]
        {
            assert_eq!(take(&mut calls, 3, target, service), None, "{target} {service}");
        }
        assert!(take(&mut calls, 3, "a", "s").is_some(), "a refused one does not wait");
    }

    #[test]
    fn a_number_waits_once_and_not_too_many_do() {
        let mut calls = Calls::default();
        for call in 0..MAX_CALLS as u32 {
            assert!(take(&mut calls, call, "a", "s").is_some());
        }
        assert!(calls.take(1000, "a".into(), "s".into()).is_err());
        assert!(calls.answered(5) && !calls.answered(5));
        assert!(calls.take(6, "a".into(), "s".into()).is_err(), "it waits already");
        assert!(take(&mut calls, 5, "a", "s").is_some());
        assert_eq!(calls.abandon().len(), MAX_CALLS);
        assert!(!calls.answered(5));
    }
}
