//! Telling the user of a call that was refused or let through, where its rule says so: a notification
//! of the desktop, not more often than every few seconds for each compartment, so that a guest cannot
//! bury him in them.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use casemate_files::notice::Notice;
use casemate_supervise::prepare::World;

/// Between two notifications about one compartment.
const PAUSE: Duration = Duration::from_secs(10);

/// Between two notices of one compartment.
const NOTICE_PAUSE: Duration = Duration::from_secs(3);

/// Shows `text`, unless something about `source` was shown just before.
pub(super) fn notify(world: &World, source: &str, text: &str) {
    let desktop =
        ["WAYLAND_DISPLAY", "DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
    // In the run directory, which is gone with the compartment.
    let mark = world.run_directory(source).join("notified");
    if !desktop || !is_due(fs::metadata(&mark).and_then(|mark| mark.modified()).ok(), PAUSE) {
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

/// Shows what a guest has worded, under its name. False when the desktop has shown something of it just
/// before, or there is none.
pub(super) fn show(world: &World, source: &str, notice: &Notice) -> bool {
    let mark = world.run_directory(source).join("noticed");
    if !is_due(fs::metadata(&mark).and_then(|mark| mark.modified()).ok(), NOTICE_PAUSE)
        || File::create(&mark).is_err()
    {
        return false;
    }
    let mut command = Command::new("notify-send");
    let headline = format!("[{source}] {}", notice.headline);
    command.args(["--app-name=casemate", "--", &headline, &notice.text]);
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn is_due(last: Option<SystemTime>, pause: Duration) -> bool {
    // A time to come is of a clock that was set back.
    last.is_none_or(|last| last.elapsed().is_ok_and(|since| since >= pause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_notification_waits() {
        assert!(is_due(None, PAUSE));
        assert!(!is_due(Some(SystemTime::now()), PAUSE));
        assert!(is_due(Some(SystemTime::now() - PAUSE), PAUSE));
    }
}
