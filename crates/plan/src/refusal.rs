//! Why there is no plan.

use std::fmt;

/// A compartment that cannot be planned, with what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The configuration asks for what this version does not have yet.
    #[error("compartment `{compartment}` asks for what is not available yet: {}", list(.features))]
    NotAvailableYet {
        /// The compartment.
        compartment: String,
        /// Settings and what they ask for.
        features: Vec<String>,
    },
    /// The machine lacks something.
    #[error("{what}")]
    HostNotReady {
        /// What is missing.
        what: String,
        /// How to mend it.
        hint: String,
    },
}

impl Refusal {
    /// What the user can do.
    pub fn hint(&self) -> String {
        match self {
            Self::NotAvailableYet { .. } => {
                "remove the setting, or wait for the version that has it".into()
            }
            Self::HostNotReady { hint, .. } => hint.clone(),
        }
    }
}

fn list(features: &[String]) -> impl fmt::Display {
    features.join("; ")
}
