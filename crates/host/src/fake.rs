//! A host that does nothing but remember, and that fails where it is told to. For the tests of
//! whatever carries plans out.

use casemate_plan::Step;

use crate::step::{Host, StepError, is_effect};

/// A host without effects.
#[derive(Debug, Default)]
pub struct FakeHost {
    /// What was done, in order, in the words of [`Step::describe`]; undoing begins with `undo: `.
    pub done: Vec<String>,
    /// The effects that are there now.
    pub present: Vec<Step>,
    /// The number of the effect, from 0, whose application fails.
    pub fail_apply: Option<usize>,
    /// The number of the undoing, from 0, that fails. The effect is gone all the same.
    pub fail_undo: Option<usize>,
    applied: usize,
    undone: usize,
}

impl FakeHost {
    /// One whose `number`th effect, from 0, fails.
    pub fn failing_at(number: usize) -> Self {
        Self { fail_apply: Some(number), ..Self::default() }
    }
}

impl Host for FakeHost {
    fn apply(&mut self, step: &Step) -> Result<(), StepError> {
        if !is_effect(step) {
            return Ok(());
        }
        let number = self.applied;
        self.applied += 1;
        if self.fail_apply == Some(number) {
            return Err(StepError::OnPurpose(step.describe()));
        }
        self.done.push(step.describe());
        self.present.push(step.clone());
        Ok(())
    }

    fn undo(&mut self, step: &Step) -> Result<(), StepError> {
        if !is_effect(step) {
            return Ok(());
        }
        let number = self.undone;
        self.undone += 1;
        self.done.push(format!("undo: {}", step.describe()));
        self.present.retain(|present| present != step);
        if self.fail_undo == Some(number) {
            return Err(StepError::OnPurpose(format!("undo: {}", step.describe())));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use casemate_plan::process::Role;

    use super::*;
    use crate::step::Applied;

    fn steps() -> Vec<Step> {
        vec![
            Step::RunDirectory { path: "/run/x".into() },
            Step::CheckImage { digest: "0".repeat(64) },
            Step::Channels,
            Step::Start { role: Role::Link },
            Step::Start { role: Role::Vmm },
            Step::AwaitGuest { seconds: 1 },
        ]
    }

    #[test]
    fn host_is_clean_after_a_failure_at_any_step() {
        for failing in 0..4 {
            let mut host = FakeHost::failing_at(failing);
            let mut applied = Applied::default();
            let failed = steps().iter().try_for_each(|step| applied.apply(&mut host, step));
            failed.expect_err("as told");
            assert_eq!(host.present.len(), failing);
            assert!(applied.undo(&mut host).is_empty());
            assert_eq!(host.present, []);
        }
    }

    #[test]
    fn undoing_goes_in_reverse_and_on_after_an_error() {
        let mut host = FakeHost { fail_undo: Some(1), ..FakeHost::default() };
        let mut applied = Applied::default();
        for step in steps() {
            applied.apply(&mut host, &step).expect("applied");
        }
        assert_eq!(applied.undo(&mut host).len(), 1);
        assert_eq!(host.present, []);
        let undone: Vec<&str> = host.done[4..].iter().map(|done| &done[6..]).collect();
        assert_eq!(undone.len(), 4);
        assert!(undone[0].contains("virtual machine monitor"), "{undone:?}");
        assert!(undone[3].contains("/run/x"), "{undone:?}");
    }
}
