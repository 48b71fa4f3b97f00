//! What the user sees when something fails: `error:`, its causes indented, `hint:`, an exit code.

use std::fmt;

use casemate_supervise::control::Failure;
use casemate_supervise::prepare::PrepareError;

/// An error for a person, with what to do about it and the exit code for it.
#[derive(Debug)]
pub(crate) struct Problem {
    /// What happened.
    pub(crate) what: String,
    /// Why, outermost first.
    pub(crate) causes: Vec<String>,
    /// What the user can do.
    pub(crate) hint: Option<String>,
    /// 1 failed, 2 usage, 3 configuration, 4 host not ready.
    pub(crate) code: u8,
}

impl Problem {
    /// Something failed.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), causes: Vec::new(), hint: None, code: 1 }
    }

    /// With what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With the error behind it.
    pub(crate) fn because(mut self, error: &dyn std::error::Error) -> Self {
        let mut next = Some(error);
        while let Some(cause) = next {
            self.causes.push(cause.to_string());
            next = cause.source();
        }
        self
    }

    /// What a supervisor answered about compartment `name`.
    pub(crate) fn answered(name: &str, failure: Failure) -> Self {
        match failure {
            Failure::Ended { reason, hint } => {
                let problem = Self::new(format!("compartment `{name}` ended"));
                Self { causes: vec![reason], hint, ..problem }
            }
            Failure::Stopping => {
                Self::new(format!("compartment `{name}` is stopping")).hint("try again in a moment")
            }
            Failure::TooManySessions => {
                Self::new(format!("compartment `{name}` has as many sessions as it may have"))
                    .hint("end some of them; `casemate status` lists them")
            }
            Failure::WrongState { state } => {
                let problem = Self::new(format!("compartment `{name}` is {state}"));
                if state == "paused" {
                    problem.hint(format!("run: casemate resume {name}"))
                } else {
                    problem
                }
            }
            Failure::NoSuchSession => {
                Self::new(format!("compartment `{name}` has no such session"))
            }
            Failure::Failed { reason, hint } => {
                let problem = Self::new(format!("compartment `{name}` could not do it"));
                Self { causes: vec![reason], hint, ..problem }
            }
            Failure::PermissionDenied => Self::new(format!("you may not use compartment `{name}`"))
                .hint("its owner can name you in `users`"),
            Failure::NoDescriptor
            | Failure::MethodNotFound { .. }
            | Failure::InvalidParameter { .. } => {
                let problem = Self::new("the supervisor did not accept the request");
                let detail = match failure {
                    Failure::MethodNotFound { method } => format!("it has no method {method}"),
                    Failure::InvalidParameter { parameter } => format!("parameter {parameter}"),
                    _ => "a descriptor is missing".into(),
                };
                Self { causes: vec![detail], ..problem }
                    .hint("stop the compartment if it was started by another version of casemate")
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "error: {}", self.what)?;
        for cause in &self.causes {
            for line in cause.lines() {
                writeln!(formatter, "  {line}")?;
            }
        }
        if let Some(hint) = &self.hint {
            writeln!(formatter, "hint: {hint}")?;
        }
        Ok(())
    }
}

impl From<PrepareError> for Problem {
    fn from(error: PrepareError) -> Self {
        let mut problem = Self::new(error.to_string());
        if let Some(source) = std::error::Error::source(&error) {
            problem = problem.because(source);
        }
        Self { hint: error.hint(), code: error.exit_code(), ..problem }
    }
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}
