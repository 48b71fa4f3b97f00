//! Compartments that run services: they come back by themselves, are asked how they are, and know
//! secrets.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use systemtest::{BOOT, SHORT, World, has, here, is_root, until};

/// Building both images of the example on a machine that has other things to do.
const BUILD: Duration = Duration::from_secs(600);

/// Three checks that fail, and a start.
const HEALING: Duration = Duration::from_secs(120);

/// Waits for a status that satisfies a condition.
#[track_caller]
fn await_status(world: &World, what: &str, good: impl Fn(&Value) -> bool) -> Value {
    until(what, BOOT, || Some(world.status(world.name())).filter(|status| good(status)))
}

fn kill_machine(world: &World) {
    kill(Pid::from_raw(world.member("qemu").pid), Signal::SIGKILL).expect("it runs");
}

fn runs_again(restarts: u64) -> impl Fn(&Value) -> bool {
    move |status| status["restarts"] == restarts && status["state"] == "running"
}

#[test]
fn compartment_that_failed_is_started_again_until_it_is_stopped() {
    let world = World::new(here!(), "restart = \"on-failure\"");
    world.start();
    for restarts in 1..=2 {
        kill_machine(&world);
        let status = await_status(&world, "the next start", runs_again(restarts));
        assert!(status["lastEnd"].as_str().is_some_and(|why| why.contains("signal 9")), "{status}");
        assert_eq!(world.run(["echo", "back"]).done().ok().text(), "back");
    }
    let crew = world.crew(world.name());
    world.casemate(["stop", world.name()]).within(SHORT).done().ok();
    world.assert_gone_with(world.name(), &crew);
    assert_eq!(world.state(world.name()), "stopped");
}

#[test]
fn command_given_while_a_compartment_waits_to_be_started_again_runs() {
    let world = World::new(here!(), "restart = \"on-failure\"");
    world.start();
    // The fourth wait is one of 8 s, which nobody has to wait for.
    for restarts in 1..=3 {
        kill_machine(&world);
        await_status(&world, "the next start", runs_again(restarts));
    }
    kill_machine(&world);
    await_status(&world, "the end", |status| status["state"] == "waiting");
    let listed = world.casemate(["list"]).done().ok();
    assert!(listed.text().contains("signal 9"), "{listed}");
    assert_eq!(world.run(["echo", "at once"]).done().ok().text(), "at once");
}

#[test]
fn guest_that_shuts_itself_down_is_started_again_only_when_that_is_wanted() {
    let world = World::new(here!(), "");
    world.configure(&format!(
        "[compartment.{}]\nmemory = 256\ncpus = 1\nrestart = \"always\"\n",
        world.name()
    ));
    world.start();
    drop(world.run_with(["--root"], ["kill", "-TERM", "1"]).within(SHORT).done());
    let status = await_status(&world, "the next start", runs_again(1));
    assert!(status["lastEnd"].as_str().is_some_and(|why| why.contains("shut")), "{status}");
    let world = World::new(here!(), "restart = \"on-failure\"");
    world.start();
    drop(world.run_with(["--root"], ["kill", "-TERM", "1"]).within(SHORT).done());
    until("its end", BOOT, || (world.state(world.name()) == "stopped").then_some(()));
}

#[test]
fn compartment_whose_check_fails_is_started_anew() {
    let settings = r#"
        restart = "on-failure"
        health-check.command = ["test", "!", "-e", "/tmp/sick"]
        health-check.interval = 1
        health-check.retries = 2
    "#;
    let world = World::new(here!(), settings);
    world.start();
    await_status(&world, "a good check", |status| status["health"] == "healthy");
    assert!(world.status(world.name())["sessions"].as_array().is_some_and(Vec::is_empty));
    world.run(["touch", "/tmp/sick"]).done().ok();
    let status = await_status(&world, "the next start", |status| {
        status["restarts"] == 1 && status["health"] == "healthy"
    });
    let why = status["lastEnd"].as_str().unwrap_or_default();
    assert_eq!(why, "its health check ended with code 1, 2 times in a row", "{status}");
}

#[test]
fn unhealthy_compartment_that_is_not_to_be_restarted_is_told() {
    let settings = r#"
        health-check.command = ["sleep", "1000"]
        health-check.interval = 1
        health-check.timeout = 1
        health-check.retries = 1
        health-check.start-period = 0
    "#;
    let world = World::new(here!(), settings);
    world.start();
    await_status(&world, "a bad check", |status| status["health"] == "unhealthy");
    let listed = world.casemate(["list"]).done().ok();
    assert!(listed.text().contains("unhealthy"), "{listed}");
    // The checks given up are not left running.
    std::thread::sleep(Duration::from_secs(3));
    let count = world.shell("grep -lz 1000 /proc/[0-9]*/cmdline | wc -l").done().ok().text();
    assert!(count.trim().parse::<u32>().is_ok_and(|count| count <= 3), "{count} are running");
}

#[test]
fn compartments_that_start_by_themselves_are_started_together() {
    let world = World::with(here!(), &[("auto", "autostart = true"), ("other", "")]);
    world.casemate(["start", "--autostart"]).within(BOOT).done().ok();
    assert_eq!(world.state(world.named("auto")), "running");
    assert_eq!(world.state(world.named("other")), "stopped");
}

/// A world with a secret for the user and one for root, both written.
fn secret_world(test: &'static str) -> Option<World> {
    if !has(test, "age") {
        return None;
    }
    let world = World::new(test, "");
    let file = |name: &str| world.path(name).display().to_string();
    world.configure_more(&format!(
        "[compartment.{0}.secrets]\nown = {{ file = {1:?}, owner = \"user\" }}\n\
         roots = {{ file = {2:?} }}\n",
        world.name(),
        file("own.age"),
        file("roots.age")
    ));
    Some(world)
}

/// Where a process has this text in its memory: for each place, whether that is locked.
fn in_memory(pid: i32, text: &str) -> std::io::Result<Vec<bool>> {
    use std::os::unix::fs::FileExt;
    let memory = std::fs::File::open(format!("/proc/{pid}/mem"))?;
    let mappings = std::fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let (mut found, mut before) = (Vec::new(), 0);
    for line in mappings.lines() {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let ends = range.and_then(|(from, to)| {
            Some((u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?))
        });
        if let Some((from, to)) = ends.filter(|_| line.contains(" rw")) {
            let mut bytes = vec![0; usize::try_from(to - from).unwrap_or(0)];
            // Some, such as the kernel's own, cannot be read.
            if memory.read_exact_at(&mut bytes, from).is_ok() {
                let windows = bytes.windows(text.len());
                before = windows.filter(|window| *window == text.as_bytes()).count();
            }
        } else if line.starts_with("VmFlags:") {
            found.extend(std::iter::repeat_n(line.contains(" lo"), std::mem::take(&mut before)));
        }
    }
    Ok(found)
}

#[test]
fn secrets_are_there_for_their_owners_and_nowhere_else() {
    let Some(world) = secret_world(here!()) else { return };
    let name = |secret: &str| format!("{}/{secret}", world.name());
    let done = world.run(["true"]).done().exits(125);
    done.says("could not open the secret").says("casemate secret set");
    let word = "a-word-nobody-else-says";
    world.casemate(["secret", "set", &name("own")]).input(word).done().ok();
    world.casemate(["secret", "set", &name("roots")]).input("only root").done().ok();
    world.start();
    match in_memory(world.supervisor(), word) {
        // A process that the user may not look into, as Yama can have it.
        Err(error) => systemtest::skip(here!(), &format!("no look into the supervisor: {error}")),
        Ok(found) => {
            assert!(!found.is_empty(), "it needs it for the next start");
            assert!(found.iter().all(|locked| *locked), "in {} places: {found:?}", found.len());
            let link = world.member("casemate-link").pid;
            if is_root() {
                let found = in_memory(link, word).expect("root may look");
                assert_eq!(found, Vec::<bool>::new(), "the link passed it on");
            }
        }
    }
    assert_eq!(world.run(["cat", "/run/secrets/own"]).done().ok().text(), word);
    world.run(["cat", "/run/secrets/roots"]).done().exits(1);
    world.run(["ls", "/run/secrets"]).done().exits(2);
    let done = world.run_with(["--root"], ["stat", "-c", "%U %a", "/run/secrets/own"]).done().ok();
    assert_eq!(done.text(), "user 400");
    for place in [world.path("own.age"), world.logs(world.name()), world.runtime()] {
        let done = world.call("grep").args(["-r", "--devices=skip", word]).arg(&place).done();
        assert_eq!(done.code, Some(1), "{}: {done}", place.display());
    }
    let plan = world.casemate(["plan", "--json", world.name()]).done().ok();
    assert!(!plan.text().contains(word));
}

#[test]
fn secret_is_a_credential_of_systemd_too() {
    if !has(here!(), "age") {
        return;
    }
    let world = World::new(here!(), "");
    let (name, file) = (world.name(), world.path("word.age").display().to_string());
    let unit = "[Service]\nType=oneshot\nRemainAfterExit=yes\nLoadCredential=word\n\
                ExecStart=/bin/sh -c 'cat ${CREDENTIALS_DIRECTORY}/word > /run/shown'\n";
    world.configure(&format!(
        "[compartment.{name}]\nmemory = 400\nguest.init = \"systemd\"\n\
         guest.services = [\"show.service\"]\nsecrets.word = {{ file = {file:?} }}\n\n\
         [compartment.{name}.guest.files.\"/etc/systemd/system/show.service\"]\n\
         content = {unit:?}\n"
    ));
    let secret = format!("{name}/word");
    world.casemate(["secret", "set", &secret]).input("of systemd").done().ok();
    world.casemate(["start", name]).within(BUILD).done().ok();
    let line = "systemctl start show.service && cat /run/shown";
    let done = world.run_with(["--root"], ["sh", "-c", line]).within(SHORT).done().ok();
    assert_eq!(done.text(), "of systemd");
    world.casemate(["stop", name]).within(SHORT).done().ok();
}

#[test]
fn secrets_are_edited_and_encrypted_anew_each_to_its_own_keys() {
    if !has(here!(), "age") {
        return;
    }
    let settings = |label: &str| {
        format!(
            "secrets-identity = \"{label}.key\"\nsecrets.pin = {{ file = \"{label}/pin.age\" }}"
        )
    };
    let (bank, shop) = (settings("bank"), settings("shop"));
    let world = World::with(here!(), &[("bank", &bank), ("shop", &shop)]);
    let at = |name: &str| world.path(name).display().to_string();
    for label in ["bank", "shop"] {
        world.call("age-keygen").args(["-o", &at(&format!("{label}.key"))]).done().ok();
    }
    let pin = |label: &str| format!("{}/pin", world.named(label));
    for label in ["bank", "shop"] {
        world.casemate(["secret", "set", &pin(label)]).input("4711").done().ok();
    }
    let opens = |key: &str, label: &str| {
        let file = at(&format!("{label}/pin.age"));
        world.call("age").args(["--decrypt", "--identity", &at(key), &file]).done()
    };
    assert_eq!(opens("bank.key", "bank").ok().text(), "4711");
    opens("shop.key", "bank").exits(1).says("no identity matched");
    // Edited, by an editor that adds the end of a line, as most do, and one that changes nothing.
    let edit =
        |editor: &str| world.casemate(["secret", "edit", &pin("bank")]).env("EDITOR", editor);
    edit("true").done().ok().says("nothing was changed");
    edit("sed -i s/4/5/").done().ok();
    assert_eq!(opens("bank.key", "bank").ok().text(), "5711");
    edit("false").done().exits(1).says("the secret is as it was").says("set EDITOR");
    edit("truncate -s 0").done().exits(1).says("1 byte to");
    assert_eq!(opens("bank.key", "bank").ok().text(), "5711");
    // Nor does somebody who interrupts his editor leave it there.
    edit("kill -INT $PPID; false").done().exits(1).says("the secret is as it was");
    let left = world.host_shell(
        "for left in ${XDG_RUNTIME_DIR:-/run}/casemate-secret-* /dev/shm/casemate-secret-*; do \
         [ ! -e $left ] || echo $left; done",
    );
    assert_eq!(left.done().ok().text(), "");
    // A new key for one: the old one opens it until it is encrypted anew, and then no more.
    world.call("mv").args([at("bank.key"), at("old.key")]).done().ok();
    world.call("age-keygen").args(["-o", &at("bank.key")]).done().ok();
    world
        .casemate(["secret", "rekey", world.named("bank")])
        .done()
        .exits(1)
        .says("not encrypted to")
        .says("--from");
    let rekey = ["secret", "rekey", "--from", &at("old.key"), world.named("bank")];
    assert_eq!(world.casemate(rekey).done().ok().text().trim(), pin("bank"));
    assert_eq!(opens("bank.key", "bank").ok().text(), "5711");
    opens("old.key", "bank").exits(1);
    assert_eq!(opens("shop.key", "shop").ok().text(), "4711");
    // All or none: one that cannot be opened leaves the others as they are.
    let before = std::fs::read(world.path("bank/pin.age")).expect("read");
    std::fs::write(world.path("shop/pin.age"), "age-encryption.org/v1\nnonsense").expect("written");
    world.casemate(["secret", "rekey"]).done().exits(1).says("nothing was written");
    assert_eq!(std::fs::read(world.path("bank/pin.age")).expect("read"), before);
}

#[test]
fn secret_that_cannot_be_decrypted_stops_the_start() {
    let Some(world) = secret_world(here!()) else { return };
    for secret in ["own.age", "roots.age"] {
        std::fs::write(world.path(secret), "age-encryption.org/v1\nnonsense").expect("written");
    }
    let done = world.run(["true"]).done().exits(125);
    done.says("could not open the secret `own`").says("hint:");
    world.assert_gone(world.name());
}

/// The example with two services, under names of this test's own; none when a program is missing.
fn example(test: &'static str) -> Option<World> {
    if !["age", "openssl"].iter().all(|program| has(test, program)) {
        return None;
    }
    let world = World::with(test, &[("dns", ""), ("web", "")]);
    let mut text = include_str!("../../examples/services.toml").to_owned();
    text = text.replace("health-check.command", "health-check.interval = 2\nhealth-check.command");
    for label in ["dns", "web"] {
        let own = format!("[compartment.{}", world.named(label));
        text = text.replace(&format!("[compartment.{label}"), &own);
    }
    world.configure(&text);
    std::fs::create_dir(world.path("website")).expect("made");
    let page = include_str!("../../examples/website/index.html");
    std::fs::write(world.path("website/index.html"), page).expect("written");
    let line = world.host_shell("echo alice:$(openssl passwd -apr1 open-sesame)").done().ok();
    let secret = format!("{}/htpasswd", world.named("web"));
    world.casemate(["secret", "set", &secret]).input(line.stdout).done().ok();
    Some(world)
}

fn in_guest(world: &World, label: &str, line: &str) -> systemtest::Call {
    world.casemate(["run", world.named(label), "--", "bash", "-c", line])
}

#[test]
fn examples_services_run_hardened_and_heal_themselves() {
    let Some(world) = example(here!()) else { return };
    world.casemate(["start", "--autostart"]).within(BUILD).done().ok();
    let healthy = |label: &'static str| {
        let name = world.named(label);
        until("a healthy service", BOOT, || {
            (world.status(name)["health"] == "healthy").then_some(())
        });
    };
    healthy("dns");
    healthy("web");
    // The filter answers for what it knows, and hides what it is told to hide.
    let done = in_guest(&world, "dns", "getent hosts router.example").done().ok();
    assert!(done.text().starts_with("192.0.2.1"), "{done}");
    in_guest(&world, "dns", "getent hosts ads.example").done().exits(2);
    // The server shows the host's folder to who knows the secret.
    let get = |header: &str| {
        let line = format!(
            "exec 3<>/dev/tcp/127.0.0.1/80; printf 'GET / HTTP/1.0\\r\\n{header}\\r\\n' >&3; cat <&3"
        );
        in_guest(&world, "web", &line).done().ok().text()
    };
    assert!(get("").contains("401 Unauthorized"));
    let known = "Authorization: Basic YWxpY2U6b3Blbi1zZXNhbWU=\\r\\n";
    assert!(get(known).contains("Served from a compartment"), "{}", get(known));
    std::fs::write(world.path("website/index.html"), "written anew").expect("written");
    assert!(get(known).contains("written anew"));
    in_guest(&world, "web", "echo x > /srv/www/index.html").done().exits(1);
    for label in ["dns", "web"] {
        let done = world.casemate(["doctor", "--guest", world.named(label)]).done().ok();
        assert!(done.text().contains("0 errors, 0 warnings"), "{done}");
        let status = world.status(world.named(label));
        assert!(status["failedUnits"].as_array().is_none_or(Vec::is_empty), "{status}");
    }
    // A service that is gone is seen by its check, and comes back with its compartment.
    let name = world.named("dns");
    let kill = "systemctl mask --runtime --now dnsmasq";
    world.casemate(["run", "--root", name, "--", "sh", "-c", kill]).done().ok();
    until("the next start", HEALING, || {
        let status = world.status(name);
        (status["restarts"] == 1 && status["health"] == "healthy").then_some(())
    });
    let done = in_guest(&world, "dns", "getent hosts router.example").done().ok();
    assert!(done.text().starts_with("192.0.2.1"), "{done}");
    world.casemate(["stop", world.named("dns"), world.named("web")]).within(SHORT).done().ok();
}
