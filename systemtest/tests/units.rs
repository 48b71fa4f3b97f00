//! The systemd units, and a supervisor that is started by its socket.

use std::path::{Path, PathBuf};

use systemtest::{SHORT, World, here, skip, until};

/// A program of the host; none when it is not installed.
fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path);
    places.find_map(|folder| Some(folder.join(name)).filter(|file| file.is_file()))
}

#[test]
fn units_are_printed_and_written() {
    let world = World::new(here!(), "autostart = true");
    let text = world.casemate(["units"]).done().ok().text();
    for wanted in ["casemate@.socket", "casemate@.service", "ListenStream=%t/casemate/%i.sock"] {
        assert!(text.contains(wanted), "`{wanted}` is missing in\n{text}");
    }
    let folder = world.path("units");
    let done = world.casemate(["units", "--output"]).arg(&folder).done().ok();
    assert!(done.error().contains(&format!("casemate@{}.service", world.name())), "{done}");
    let timed = ["casemate-verify.service", "casemate-verify.timer"];
    for unit in ["casemate@.socket", "casemate@.service"].iter().chain(&timed) {
        let unit = std::fs::read_to_string(folder.join(unit)).expect("written");
        assert!(text.contains(unit.trim()), "what is printed is what is written");
    }
    let drop_in = folder.join(format!("casemate@{}.service.d", world.name()));
    assert!(!drop_in.exists(), "nobody wants it restarted");
    // A supervisor that was killed comes back where its compartment is to come back.
    world.configure(&format!("[compartment.{}]\nrestart = \"on-failure\"\n", world.name()));
    world.casemate(["units", "--output"]).arg(&folder).done().ok();
    let text = std::fs::read_to_string(drop_in.join("restart.conf")).expect("written");
    assert!(text.contains("\nRestart=on-abnormal\n"), "{text}");
    // Who takes the wish back gets rid of it.
    world.configure(&format!("[compartment.{}]\n", world.name()));
    world.casemate(["units", "--output"]).arg(&folder).done().ok();
    assert!(!drop_in.exists());
}

#[test]
fn units_are_valid_for_systemd() {
    let Some(analyze) = tool("systemd-analyze") else {
        return skip(here!(), "systemd-analyze is not installed");
    };
    let world = World::new(here!(), "");
    let folder = world.path("units");
    world.casemate(["units", "--output"]).arg(&folder).done().ok();
    // A template is verified as one of its instances.
    for kind in ["socket", "service"] {
        let instance = folder.join(format!("casemate@{}.{kind}", world.name()));
        std::fs::copy(folder.join(format!("casemate@.{kind}")), instance).expect("copied");
    }
    let unit = |kind: &str| folder.join(format!("casemate@{}.{kind}", world.name()));
    let scope = if systemtest::is_root() { "--system" } else { "--user" };
    let done = world
        .call(analyze)
        .args([scope, "--man=no", "--recursive-errors=no", "verify"])
        .arg(unit("socket"))
        .arg(unit("service"))
        .args(["casemate-verify.service", "casemate-verify.timer"].map(|unit| folder.join(unit)))
        .done();
    let about_it = done.error().lines().any(|line| line.contains("casemate@"));
    assert!(done.code == Some(0) && !about_it, "{done}");
}

/// Starts a supervisor by the first connection to its socket.
fn activate(world: &World, activator: &Path) -> systemtest::Background {
    let runtime = world.runtime();
    std::fs::create_dir_all(&runtime).expect("made");
    if !systemtest::is_root() {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&runtime, std::fs::Permissions::from_mode(0o700)).expect("set");
    }
    let socket = runtime.join(format!("{}.sock", world.name()));
    let activator = world
        .call(activator)
        .arg("--listen")
        .arg(&socket)
        // It hands nothing on but what it is told to.
        .args(
            [
                "HOME",
                "PATH",
                "XDG_DATA_HOME",
                "XDG_STATE_HOME",
                "XDG_CACHE_HOME",
                "XDG_RUNTIME_DIR",
            ]
            .iter()
            .filter(|name| std::env::var_os(name).is_some() || !systemtest::is_root())
            .map(|name| format!("--setenv={name}")),
        )
        .arg(systemtest::programs::program("casemate-supervisor"))
        .arg("--config")
        .arg(world.config())
        .arg(world.name())
        .start();
    until("the socket", SHORT, || socket.exists().then_some(()));
    activator
}

#[test]
fn supervisor_is_started_by_a_connection_to_its_socket() {
    let Some(activator) = tool("systemd-socket-activate") else {
        return skip(here!(), "systemd-socket-activate is not installed");
    };
    let world = World::new(here!(), "");
    let activated = activate(&world, &activator);
    let pid = activated.pid().as_raw();
    assert_eq!(world.run(["echo", "activated"]).done().ok().text(), "activated");
    // It is the one systemd started, not another.
    assert_eq!(world.supervisor(), pid);
    world.run(["true"]).done().ok();
    world.casemate(["stop", world.name()]).done().ok();
    activated.within(SHORT).done().ok();
    // The socket is systemd's: it stays, and only it.
    assert!(world.runtime().join(format!("{}.sock", world.name())).exists());
    assert!(!world.runtime().join(world.name()).exists());
    let _ = std::fs::remove_file(world.runtime().join(format!("{}.sock", world.name())));
    world.assert_gone(world.name());
}

#[test]
fn socket_that_waits_is_no_running_compartment() {
    let Some(activator) = tool("systemd-socket-activate") else {
        return skip(here!(), "systemd-socket-activate is not installed");
    };
    let world = World::new(here!(), "");
    let mut activated = activate(&world, &activator);
    // Neither question may start it.
    assert_eq!(world.state(world.name()), "stopped");
    let list = world.casemate(["list"]).done().ok();
    assert!(list.text().contains("stopped"), "{list}");
    world.casemate(["stop", world.name()]).done().ok();
    assert!(activated.runs());
    assert!(!world.runtime().join(world.name()).exists());
    let _ = std::fs::remove_file(world.runtime().join(format!("{}.sock", world.name())));
}
