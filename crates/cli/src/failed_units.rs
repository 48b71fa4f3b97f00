//! What a guest's systemd says has failed, asked for by a session of its own.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use casemate_config::GuestInit;
use casemate_supervise::control::{Request, Run};
use casemate_supervise::prepare::World;
use casemate_wire::text::harmless_line;

use crate::running;
use crate::session;

/// The question.
const QUESTION: [&str; 5] = ["systemctl", "list-units", "--failed", "--plain", "--no-legend"];
/// Longest answer taken, in bytes.
const LONGEST: usize = 64 * 1024;
/// Longest silence of the guest.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest name of a unit (systemd.unit(5)).
const NAME: usize = 255;

/// Whether the compartment has a systemd that can be asked. A disposable is not: the question would
/// keep it from being idle.
pub(crate) fn can_be_asked(world: &World, name: &str) -> bool {
    let compartments = &world.settings().compartments;
    compartments.values().any(|compartment| {
        compartment.name.as_str() == name
            && compartment.guest.init == GuestInit::Systemd
            && !compartment.disposable
    })
}

/// Names of the failed units; none when the guest gave no answer.
pub(crate) async fn of(world: &World, name: &str) -> Option<Vec<String>> {
    let mut supervisor = running::supervisor(world, name).ok()??;
    let (ours, theirs) = UnixStream::pair().ok()?;
    let run = Run {
        argv: QUESTION.map(str::to_owned).to_vec(),
        argv_bytes: None,
        environment: vec![],
        cwd: None,
        user: Some("root".into()),
        terminal: None,
        detach: false,
        service: None,
        display: None,
    };
    let request = Request::Run(Box::new(run));
    supervisor.send(&request, vec![OwnedFd::from(theirs)], true).await.ok()?;
    let answer = session::collect(ours, LONGEST, PATIENCE)?;
    let text = String::from_utf8_lossy(&answer);
    let names = text.lines().filter_map(|line| line.split_whitespace().next());
    Some(names.map(|name| harmless_line(name, NAME)).collect())
}
