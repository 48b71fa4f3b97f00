//! Which compartments run: the run directories and control sockets, and clearing what supervisors
//! that were killed left of them.

use casemate_host::rundir::{self, RunDirectory};
use casemate_supervise::keeper::{remember_killed, socket_path};
use casemate_supervise::prepare::World;

use crate::connect::Supervisor;
use crate::failure::Problem;

/// The supervisor of a running compartment. One that was killed is cleared away first, so that
/// asking does not make systemd start another.
pub(crate) fn supervisor(world: &World, name: &str) -> Result<Option<Supervisor>, Problem> {
    if is_known(world, name) { Supervisor::running(world.places.runtime(), name) } else { Ok(None) }
}

/// Somebody keeps the compartment just now.
pub(crate) fn is_known(world: &World, name: &str) -> bool {
    let directory = world.run_directory(name);
    directory.is_dir() && matches!(rundir::holder(&directory), Ok(Some(_)))
}

/// Names of all running compartments, disposables too, in order.
///
/// # Errors
/// The runtime directory cannot be read.
pub(crate) fn names(world: &World) -> Result<Vec<String>, Problem> {
    let runtime = world.places.runtime();
    let entries = match std::fs::read_dir(runtime) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(
                Problem::new(format!("could not read {}", runtime.display())).because(&error)
            );
        }
    };
    let mut names = Vec::new();
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        // No name of a compartment has a full stop; `policy.d` may lie here too.
        if name.contains('.') || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        match rundir::holder(&entry.path()) {
            Ok(Some(_)) => names.push(name),
            Ok(None) => clear(world, &name),
            Err(_) => {}
        }
    }
    names.sort();
    Ok(names)
}

/// Removes what a supervisor that was killed left behind, and says so.
fn clear(world: &World, name: &str) {
    let Ok((claimed, leftovers)) = RunDirectory::claim(&world.run_directory(name)) else { return };
    if let Some(leftovers) = leftovers {
        let who = leftovers.holder.map_or_else(String::new, |h| format!(" (process {})", h.pid));
        eprintln!(
            "note: the supervisor{who} of `{name}` did not end in order; what it left behind was \
             removed"
        );
        let _ = std::fs::remove_file(socket_path(world.places.runtime(), name));
        if world.settings().compartments.keys().any(|declared| declared.as_str() == name) {
            remember_killed(world, name);
        }
    }
    let _ = claimed.remove();
}

#[cfg(test)]
mod tests {
    use casemate_host::places::{Environment, Places};

    use super::*;

    #[test]
    fn policy_files_beside_the_run_directories_are_left_alone() {
        let temporary = tempfile::tempdir().expect("a directory");
        let environment = Environment {
            uid: 12345,
            temporary: temporary.path().into(),
            ..Environment::default()
        };
        let places = Places::find(&environment);
        let folder = places.runtime().join("policy.d");
        std::fs::create_dir_all(&folder).expect("made");
        std::fs::write(folder.join("30-work.policy"), "").expect("written");
        let nobody = casemate_config::Environment { home: None, user: "nobody".into() };
        let loaded = casemate_config::load(&[], &nobody);
        let world = World { places, environment, loaded, named: None, user: "nobody".into() };
        assert_eq!(names(&world).expect("listed"), [""; 0]);
        assert!(folder.join("30-work.policy").exists());
    }
}
