//! What can go wrong while a jail is built, and how it is said: in one line.

use std::io;

use crate::spec::SpecError;

/// Why there is no jail.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JailError {
    /// The invocation or the specification makes no sense.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The kernel refused something.
    #[error("could not {step}")]
    Kernel {
        /// What was to be done, such as `mount /usr`.
        step: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// `newuidmap` or `newgidmap` refused.
    #[error("could not map the subordinate ids: {program}: {said}")]
    IdMap {
        /// Which of them.
        program: String,
        /// What it printed.
        said: String,
    },
    /// The launcher or the monitor went away meanwhile.
    #[error("could not go on: the {0} has ended")]
    Orphaned(&'static str),
    /// The system call filter is refused.
    #[error("could not filter system calls")]
    Seccomp(#[from] seccompiler::Error),
    /// Landlock is there and refused the rules.
    #[error("could not apply the Landlock rules")]
    Landlock(#[from] landlock::RulesetError),
}

/// Says what was being done when the kernel refused.
pub(crate) trait While<T> {
    /// Turns the error into "could not `step`".
    fn while_(self, step: impl FnOnce() -> String) -> Result<T, JailError>;
}

impl<T, E: Into<io::Error>> While<T> for Result<T, E> {
    fn while_(self, step: impl FnOnce() -> String) -> Result<T, JailError> {
        self.map_err(|error| JailError::Kernel { step: step(), source: error.into() })
    }
}

/// Prints the error and its causes as one line on standard error.
pub(crate) fn report(error: &JailError) {
    let mut line = format!("casemate-jail: {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        line.push_str(&format!(": {next}"));
        cause = next.source();
    }
    say(&line);
}

/// Says a line on standard error, which may be a log on a full disk: that is no reason to end.
pub(crate) fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}
