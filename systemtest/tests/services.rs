//! Compartments that run services: they come back by themselves, and are asked how they are.

use std::time::{Duration, Instant};

use serde_json::Value;
use systemtest::processes::kill_now;
use systemtest::{BOOT, SHORT, World, here, until};

/// Waits for a status that satisfies a condition.
fn await_status(world: &World, what: &str, good: impl Fn(&Value) -> bool) -> Value {
    until(what, BOOT, || Some(world.status(world.name())).filter(|status| good(status)))
}

fn kill_machine(world: &World) {
    let crew = world.crew(world.name());
    let machine = crew.iter().find(|process| process.name.starts_with("qemu")).expect("it runs");
    kill_now(machine.pid);
}

#[test]
fn compartment_that_failed_is_started_again_with_its_volume() {
    let settings = r#"
        restart = "on-failure"
        volumes = [{ name = "data", size = "64MiB", mount-point = "/data", key = "KEY" }]
    "#;
    let world = World::new(here!(), "");
    let key = world.age_key();
    let world = world.with_settings(&settings.replace("\"KEY\"", &key));
    world.run(["sh", "-c", "echo kept > /data/file; sync"]).done().ok();
    kill_machine(&world);
    let status = await_status(&world, "the next start", |status| {
        status["restarts"] == 1 && status["state"] == "running"
    });
    assert!(status["lastEnd"].as_str().is_some_and(|why| why.contains("signal 9")), "{status}");
    assert_eq!(world.run(["cat", "/data/file"]).done().ok().text(), "kept");
    world.casemate(["stop", world.name()]).done().ok();
    world.assert_gone(world.name());
}
