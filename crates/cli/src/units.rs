//! `casemate units`: systemd units, so that connecting to a compartment starts it.
//!
//! One pair of template units serves all compartments: `casemate@.socket` holds the control socket
//! while nothing runs, `casemate@.service` is the supervisor it starts. A supervisor starts its
//! compartment again by itself; what systemd does beside it is start a supervisor that was killed.
//! `casemate-verify.timer` has every image checked once a week.

use std::path::Path;

use casemate_config::RestartPolicy;
use casemate_host::facts::{self, Sources};
use casemate_supervise::prepare::World;

use crate::failure::Problem;

/// `casemate units`.
pub(crate) fn units(world: &World, output: Option<&Path>) -> Result<u8, Problem> {
    let units = [
        ("casemate@.socket", socket(world)),
        ("casemate@.service", service(world)?),
        ("casemate-verify.service", verification(world)?),
        ("casemate-verify.timer", TIMER.to_owned()),
    ];
    let Some(directory) = output else {
        for (name, text) in units {
            outln!("# {name}\n{text}");
        }
        return Ok(0);
    };
    std::fs::create_dir_all(directory)?;
    for (name, text) in units {
        let path = directory.join(name);
        write(&path, &text)?;
        outln!("{}", path.display());
    }
    for compartment in world.settings().compartments.values() {
        let folder = directory.join(format!("casemate@{}.service.d", compartment.name));
        let path = folder.join("restart.conf");
        if compartment.restart == RestartPolicy::No {
            // What an earlier configuration wanted; another's drop-ins keep the folder.
            let _ = std::fs::remove_file(path).and_then(|()| std::fs::remove_dir(folder));
            continue;
        }
        std::fs::create_dir_all(folder)?;
        write(&path, RESTART)?;
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
    eprintln!(
        "hint: to have the images checked every week, run: systemctl {scope}enable --now \
         casemate-verify.timer"
    );
    if !autostart.is_empty() {
        eprintln!("hint: for `autostart`, run: systemctl {scope}enable {}", autostart.join(" "));
    }
    Ok(0)
}

const TIMER: &str = "[Unit]\n\
     Description=Check of the images of compartments\n\
     \n\
     [Timer]\n\
     OnCalendar=weekly\n\
     RandomizedDelaySec=1h\n\
     Persistent=true\n\
     \n\
     [Install]\n\
     WantedBy=timers.target\n";

/// For a compartment that is to come back: its supervisor is started again when it was killed.
/// Whatever else happens to the compartment, the supervisor mends itself.
const RESTART: &str = "[Unit]\n\
     StartLimitIntervalSec=0\n\
     \n\
     [Service]\n\
     Restart=on-abnormal\n\
     RestartSec=1\n";

/// Reads every byte of every image, with the least claim on disk and processor.
fn verification(world: &World) -> Result<String, Problem> {
    Ok(format!(
        "[Unit]\n\
         Description=Check of the images of compartments\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         ExecStart={}{} image verify\n\
         Nice=19\n\
         IOSchedulingClass=idle\n",
        quoted(&std::env::current_exe()?),
        config(world)?,
    ))
}

fn write(path: &Path, text: &str) -> Result<(), Problem> {
    std::fs::write(path, text).map_err(|error| {
        Problem::new(format!("could not write {}", path.display())).because(&error)
    })
}

/// ` --config FILE`, where the user named one.
fn config(world: &World) -> Result<String, Problem> {
    Ok(match &world.named {
        Some(path) => format!(" --config {}", quoted(&std::path::absolute(path)?)),
        None => String::new(),
    })
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
    let config = config(world)?;
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
