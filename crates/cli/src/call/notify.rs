//! Telling the user of a call that was refused or let through, where its rule says so: a notification
//! of the desktop, not more often than every few seconds for each compartment, so that a guest cannot
//! bury him in them.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use casemate_supervise::prepare::World;

/// Between two notifications about one compartment.
const PAUSE: Duration = Duration::from_secs(10);

/// Shows `text`, unless something about `source` was shown just before.
pub(super) fn notify(world: &World, source: &str, text: &str) {
    let desktop =
        ["WAYLAND_DISPLAY", "DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
    // In the run directory, which is gone with the compartment.
    let mark = world.run_directory(source).join("notified");
    if !desktop || !is_due(fs::metadata(&mark).and_then(|mark| mark.modified()).ok()) {
        return;
    }
    // Without the mark there would be no measure.
    if File::create(&mark).is_err() {
        return;
    }
    let mut command = Command::new("notify-send");
    command.args(["--app-name=casemate", "--", &format!("casemate: {source}"), text]);
    // It may not be installed.
    let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
}

fn is_due(last: Option<SystemTime>) -> bool {
    // A time to come is of a clock that was set back.
    last.is_none_or(|last| last.elapsed().is_ok_and(|since| since >= PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_notification_waits() {
        assert!(is_due(None));
        assert!(!is_due(Some(SystemTime::now())));
        assert!(is_due(Some(SystemTime::now() - PAUSE)));
    }
}
