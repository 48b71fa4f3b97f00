//! What becomes of a compartment that ends or fails by itself.

use std::time::Duration;

use casemate_config::{Compartment, RestartPolicy};
use serde::Serialize;

/// When it is started again without being asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// When it failed.
    OnFailure,
    /// Whenever nobody stopped it.
    Always,
}

impl Restart {
    /// Whether it is started again after an end that nobody asked for.
    pub fn covers(self, failed: bool) -> bool {
        match self {
            Self::No => false,
            Self::OnFailure => failed,
            Self::Always => true,
        }
    }
}

/// How it is found out whether what it is for works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct HealthCheck {
    /// Program and arguments, run as a session of the guest. All is well when it ends with 0.
    pub command: Vec<String>,
    /// Whom it runs as; the guest's default user when none.
    pub user: Option<String>,
    /// From the end of one check to the next.
    pub interval: Duration,
    /// A check that takes longer has failed.
    pub timeout: Duration,
    /// So many failures in a row make the compartment unhealthy.
    pub retries: u32,
    /// How long failures do not count after the start, before the first success.
    pub start_period: Duration,
}

/// A fresh disposable is for one command, whatever becomes of it.
pub(crate) fn restart(compartment: &Compartment, fresh: bool) -> Restart {
    match compartment.restart {
        _ if fresh => Restart::No,
        RestartPolicy::No => Restart::No,
        RestartPolicy::OnFailure => Restart::OnFailure,
        RestartPolicy::Always => Restart::Always,
    }
}

pub(crate) fn health_check(compartment: &Compartment, fresh: bool) -> Option<HealthCheck> {
    let check = compartment.health_check.as_ref().filter(|_| !fresh)?;
    Some(HealthCheck {
        command: check.command.iter().map(|argument| argument.as_str().to_owned()).collect(),
        user: check.user.as_ref().map(ToString::to_string),
        interval: check.interval,
        timeout: check.timeout,
        retries: check.retries,
        start_period: check.start_period,
    })
}
