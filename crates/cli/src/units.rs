//! `casemate units`: systemd units, so that connecting to a compartment starts it.
//!
//! One pair of template units serves all compartments: `casemate@.socket` holds the control socket
//! while nothing runs, `casemate@.service` is the supervisor it starts.

use std::path::Path;

use casemate_host::facts::{self, Sources};
use casemate_supervise::prepare::World;

use crate::failure::Problem;

/// `casemate units`.
pub(crate) fn units(world: &World, output: Option<&Path>) -> Result<u8, Problem> {
    let units = [("casemate@.socket", socket(world)), ("casemate@.service", service(world)?)];
    let Some(directory) = output else {
        for (name, text) in units {
            outln!("# {name}\n{text}");
        }
        return Ok(0);
    };
    std::fs::create_dir_all(directory)?;
    for (name, text) in units {
        let path = directory.join(name);
        std::fs::write(&path, text).map_err(|error| {
            Problem::new(format!("could not write {}", path.display())).because(&error)
        })?;
        outln!("{}", path.display());
    }
    let autostart: Vec<String> = world
        .settings()
        .compartments
        .values()
        .filter(|compartment| compartment.autostart)
        .map(|compartment| format!("casemate@{}.service", compartment.name))
        .collect();
    let scope = if world.places.is_system() { "" } else { "--user " };
    if !autostart.is_empty() {
        eprintln!("hint: for `autostart`, run: systemctl {scope}enable {}", autostart.join(" "));
    }
    Ok(0)
}

fn socket(world: &World) -> String {
    // %t is /run for the system and XDG_RUNTIME_DIR for a user: the runtime directory's parent.
    format!(
        "[Unit]\n\
         Description=Control socket of the compartment %i\n\
         \n\
         [Socket]\n\
         ListenStream=%t/casemate/%i.sock\n\
         SocketMode=0600\n\
         DirectoryMode={}\n\
         RemoveOnStop=true\n\
         \n\
         [Install]\n\
         WantedBy=sockets.target\n",
        if world.places.is_system() { "0755" } else { "0700" }
    )
}

fn service(world: &World) -> Result<String, Problem> {
    let program = facts::own_programs(&Sources::current(&world.places)).supervisor;
    let config = match &world.named {
        Some(path) => format!(" --config {}", quoted(&std::path::absolute(path)?)),
        None => String::new(),
    };
    let target = if world.places.is_system() { "multi-user.target" } else { "default.target" };
    Ok(format!(
        "[Unit]\n\
         Description=Compartment %i\n\
         Requires=casemate@%i.socket\n\
         After=casemate@%i.socket\n\
         \n\
         [Service]\n\
         ExecStart={}{config} %i\n\
         KillMode=mixed\n\
         TimeoutStopSec=30\n\
         \n\
         [Install]\n\
         WantedBy={target}\n\
         Also=casemate@%i.socket\n",
        quoted(&program)
    ))
}

/// A path as systemd.service(5) wants it: quoted, with specifiers and variables escaped.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let escaped =
        text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_systemd() {
        assert_eq!(quoted(Path::new("/a b/100%/$x")), "\"/a b/100%%/$$x\"");
    }
}
