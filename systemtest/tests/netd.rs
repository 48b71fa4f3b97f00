//! Links by the root helper: what a compartment reaches by them, who may have them, and what is left.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use systemtest::lab::{HOST, Lab, NAME_SERVER, OTHER, OUTSIDE, OUTSIDE_TOO, Side};
use systemtest::netd::{Client, Netd, forwards, traces};
use systemtest::traffic::{FORGE, asked, counters, greetings};
use systemtest::{Call, SHORT, World, here, skip, until};

const LINKED: &str = "host-networking = true";

/// Only the helper's way will do.
const TAP: &str = "[network]\nmode = \"tap\"";

/// Set in a process of an ordinary user's: the helper's socket.
const AS_USER: &str = "CASEMATE_TEST_NETD";

/// Whom tests of ordinary users are: the first who is there. The second is on every machine, and has
/// no home.
const USERS: [&str; 2] = ["casemate-test", "daemon"];

/// A lab, a world whose networks are the helper's, and the helper.
fn set_up(test: &'static str, compartments: &[(&'static str, &str)]) -> Option<(Lab, World, Netd)> {
    let mut lab = Lab::new(test)?;
    let mut world = World::with(test, compartments);
    world.configure_more(TAP);
    lab.enter();
    let netd = Netd::start(&mut world, "");
    Some((lab, world, netd))
}

/// What `net show --json` says of a compartment's link.
fn link(world: &World, name: &str, key: &str) -> String {
    let shown = world.casemate(["net", "show", name, "--json"]).done().ok().json();
    shown[0]["link"][key].as_str().expect("a word").to_owned()
}

/// Waits until nothing of a helper is left.
#[track_caller]
fn assert_no_traces() {
    let mut left = traces();
    for _ in 0..250 {
        if left.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
        left = traces();
    }
    panic!("left: {left:?}");
}

#[test]
fn compartment_reaches_the_outside_as_the_host_and_nothing_of_it() {
    let Some((lab, world, netd)) = set_up(here!(), &[("main", LINKED)]) else { return };
    lab.greet(Side::Outside, OUTSIDE, 80, "outside");
    lab.greet(Side::Host, "0.0.0.0", 81, "host");
    lab.greet(Side::Host, "127.0.0.1", 82, "host");
    lab.answer_names(OUTSIDE.parse().expect("an address"));
    assert!(!forwards());
    let plan = world.casemate(["plan", world.name()]).done().ok().text();
    assert!(plan.contains("the network is made by casemate-netd"), "{plan}");
    let gateway = plan.lines().find_map(|line| line.trim().strip_prefix("gateway "));
    let gateway = gateway.expect("a gateway").split_whitespace().next().expect("an address");
    let mut places = vec![(OUTSIDE, 80), ("some.example", 80)];
    for host in [HOST, OTHER, gateway, "0.0.0.0", NAME_SERVER, "169.254.1.1", "10.9.0.255"] {
        places.extend([(host, 81), (host, 82)]);
    }
    let found = greetings(&world, world.name(), &places);
    for (place, greeting) in &found {
        let outside = place.ends_with(":80").then(|| format!("outside {HOST}"));
        assert_eq!(greeting, &outside.unwrap_or_default(), "{place}");
    }
    assert_eq!(found.len(), places.len());
    assert!(forwards());
    assert!(counters(&world)["protected"] > 0);
    let shown = world.casemate(["net", "show", world.name()]).done().ok().text();
    assert!(shown.contains("by casemate-netd: the TAP device cmtap"), "{shown}");
    let told = world.casemate(["net", "repair"]).done().ok().text();
    assert!(told.contains("nothing to repair: casemate-netd runs"), "{told}");
    // An address that comes later is closed, too, and the host does not reach the guest unasked.
    lab.on_host(&["address", "add", "10.78.0.1/24", "dev", "up1"]);
    let later = greetings(&world, world.name(), &[("10.78.0.1", 81), (OUTSIDE, 80)]);
    assert_eq!(later["10.78.0.1:81"], "");
    assert_eq!(later[&format!("{OUTSIDE}:80")], format!("outside {HOST}"));
    let address = link(&world, world.name(), "address");
    let line =
        format!("timeout 2 bash -c 'echo >/dev/udp/{address}/9; exec 3<>/dev/tcp/{address}/9'");
    assert_ne!(world.host_shell(&line).done().code, Some(0));
    assert!(counters(&world)["from-host"] > 0);

    // What the helper may do, and its children may not.
    let status = |pid: &str| fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let own = status(&netd.pid().to_string());
    for line in ["CapEff:\t0000000000001000", "CapBnd:\t0000000000001000", "NoNewPrivs:\t1"] {
        assert!(own.contains(line), "{own}");
    }
    assert!(!own.contains("Uid:\t0"), "{own}");
    let place = format!("/proc/{0}/task/{0}/children", netd.pid());
    let children = fs::read_to_string(place).expect("it runs");
    assert_eq!(children.split_whitespace().count(), 1, "questions alone");
    for child in children.split_whitespace() {
        let status = status(child);
        for line in ["CapEff:\t0000000000000000", "CapAmb:\t0000000000000000", "Seccomp:\t2"] {
            assert!(status.contains(line), "{status}");
        }
    }
    // Of its connections nothing is left for who has the address next.
    let tracked = || {
        let table = fs::read_to_string("/proc/thread-self/net/nf_conntrack").ok()?;
        Some(table.lines().filter(|line| line.contains(&format!("src={address} "))).count())
    };
    let before = tracked();
    world.stop_force().ok();
    world.assert_gone(world.name());
    assert_no_traces();
    match before {
        Some(count) => assert!(count > 0 && tracked() == Some(0), "{count}, {:?}", tracked()),
        None => skip(here!(), "its last part: this kernel lists no connections"),
    }
}

#[test]
fn firewall_that_somebody_removes_is_made_anew() {
    let settings = "host-networking = true\nfirewall-default = \"drop\"\nfirewall = [\n\
        \"action=accept special=dns proto=udp\",\n\
        \"action=accept proto=tcp dsthost=some.example dstports=80\",\n]";
    let compartments = [("main", settings), ("other", LINKED)];
    let Some((lab, world, _netd)) = set_up(here!(), &compartments) else { return };
    lab.greet(Side::Outside, OUTSIDE, 80, "outside");
    lab.greet(Side::Outside, OUTSIDE, 81, "outside");
    lab.greet(Side::Host, HOST, 81, "host");
    lab.answer_names(OUTSIDE.parse().expect("an address"));
    let places = [(OUTSIDE, 80), (OUTSIDE, 81), (HOST, 81)];
    let seen = |name: &str| {
        let found = greetings(&world, name, &places);
        places.map(|(host, port)| !found[&format!("{host}:{port}")].is_empty())
    };
    let as_declared = || {
        let both = [seen(world.name()), seen(world.named("other"))];
        both == [[true, false, false], [true, true, false]]
    };
    until("both links", SHORT, || as_declared().then_some(()));
    let sorted = || {
        let mut all = traces();
        all.sort();
        all
    };
    let kept = sorted();
    // As a reload of /etc/nftables.conf does, and as somebody does who knows what he does.
    let first = kept.iter().find(|line| line.contains("netdev")).expect("a table").clone();
    let one = format!("delete table {}", first.trim_start_matches("table "));
    for (change, again) in [("flush ruleset", 0), (&*one, 0), ("flush ruleset", 8)] {
        // Again and again, as a restart of a firewall's unit does, at other moments of the mending.
        for pause in 0..=again {
            let done = Command::new("nft").args(change.split(' ')).status().expect("nft starts");
            assert!(done.success(), "{change}");
            std::thread::sleep(Duration::from_millis(pause * 7));
        }
        until("the tables", SHORT, || (sorted() == kept).then_some(()));
        until("both links", SHORT, || as_declared().then_some(()));
    }
}

#[test]
fn compartments_reach_each_other_by_a_rule_alone() {
    let compartments = [("main", LINKED), ("other", LINKED)];
    let Some((_lab, world, _netd)) = set_up(here!(), &compartments) else { return };
    let (main, other) = (world.name(), world.named("other"));
    let serve = "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalPort => 80, Listen => 9, \
                 ReuseAddr => 1) or die; while ($c = $s->accept) { print $c \"guest \" . $c->peerhost . \
                 \"\\n\"; close $c }' >/dev/null 2>&1 &";
    for name in [main, other] {
        world.casemate(["run", "--root", name, "--", "sh", "-c", serve]).done().ok();
    }
    let address = |name: &str| link(&world, name, "address");
    let (of_main, of_other) = (address(main), address(other));
    let reached = |from: &str, to: &str| {
        greetings(&world, from, &[(to, 80)]).into_values().next().expect("one")
    };
    assert_eq!(reached(main, &of_other), "", "nothing was said");
    world.casemate(["stop", "--force", main]).done().ok();
    let text = fs::read_to_string(world.config()).expect("read");
    let rule = format!("firewall = [\"action=accept dst4={of_other}\"]\n");
    let head = format!("[compartment.{main}]\n");
    world.configure(&text.replace(&head, &format!("{head}{rule}")));
    assert_eq!(reached(main, &of_other), format!("guest {of_main}"));
    assert_eq!(reached(other, &of_main), "", "the other has no rule");
    let tested = world.casemate(["net", "test", main, &format!("{of_other}:80")]).done().ok();
    assert!(tested.text().contains("accept, by rule 1"), "{tested}");
}

#[test]
fn forged_packets_are_dropped_and_honest_ones_pass() {
    let Some((lab, world, _netd)) = set_up(here!(), &[("main", LINKED)]) else { return };
    let received = lab.collect(Side::Outside, OUTSIDE, 1000);
    assert_eq!(asked(&world, OUTSIDE, 1000), HOST);
    let (gateway, own) =
        (link(&world, world.name(), "gateway"), link(&world, world.name(), "address"));
    let words = ["perl", "-", &gateway, &own, OUTSIDE];
    world.run_with(["--root"], words).input(FORGE).done().ok();
    let has = |text: &str| received.lock().expect("no panic").iter().any(|got| got == text);
    until("the last honest datagram", SHORT, || has("honest-after").then_some(()));
    assert!(has("honest-before"));
    assert!(!received.lock().expect("no panic").iter().any(|got| got.contains("forged")));
    let counted = counters(&world);
    assert_eq!(counted["spoofed-mac"], 2, "{counted:?}");
    assert_eq!(counted["spoofed-arp"], 1, "{counted:?}");
    assert!(counted["spoofed-address"] >= 1, "{counted:?}");
    assert!(counted["other-protocol"] >= 1, "{counted:?}");
    assert_eq!(asked(&world, OUTSIDE, 1000), HOST);
}

#[test]
fn rules_decide_about_ports_hosts_and_names() {
    let settings = "host-networking = true\nfirewall-default = \"drop\"\nfirewall = [\n\
        \"action=accept special=dns proto=udp\",\n\
        \"action=accept proto=tcp dst4=203.0.113.7 dstports=80\",\n\
        \"action=accept proto=udp dst4=203.0.113.0/24 dstports=1000-1001\",\n\
        \"action=accept proto=tcp dst4=10.77.0.1 dstports=80 comment=a service of the host\",\n\
        \"action=accept proto=tcp dsthost=some.example dstports=82\",\n]";
    let Some((lab, world, _netd)) = set_up(here!(), &[("main", settings)]) else { return };
    lab.answer_names(OUTSIDE_TOO.parse().expect("an address"));
    for port in [80, 81, 82] {
        lab.greet(Side::Outside, OUTSIDE, port, "outside");
        lab.greet(Side::Outside, OUTSIDE_TOO, port, "outside");
        lab.greet(Side::Host, OTHER, port, "host");
        lab.greet(Side::Host, HOST, port, "host");
    }
    for port in [1001, 1002] {
        lab.collect(Side::Outside, OUTSIDE, port);
    }
    world.start();
    let named = || greetings(&world, world.name(), &[(OUTSIDE_TOO, 82)]).into_values().next();
    until("the name's address", SHORT, || named().filter(|found| found.starts_with("outside")));
    let mut places = Vec::new();
    for host in [OUTSIDE, OUTSIDE_TOO, OTHER, HOST] {
        places.extend([80, 81, 82].map(|port| (host, port)));
    }
    let found = greetings(&world, world.name(), &places);
    let open: Vec<&str> = found
        .iter()
        .filter(|(_, greeting)| !greeting.is_empty())
        .map(|(place, _)| place.as_str())
        .collect();
    assert_eq!(open, ["10.77.0.1:80", "203.0.113.7:80", "203.0.113.8:82"]);
    assert_eq!(asked(&world, OUTSIDE, 1001), HOST);
    assert_eq!(asked(&world, OUTSIDE, 1002), "");
    let done = world.shell("getent ahostsv4 some.example | head -n 1").done().ok();
    assert!(done.text().starts_with(OUTSIDE_TOO), "{done}");
    let counted = counters(&world);
    for rule in ["rule0", "rule1", "rule2", "rule3", "rule4", "default", "protected"] {
        assert!(counted[rule] > 0, "{rule}: {counted:?}");
    }
}

#[test]
fn killed_supervisor_leaves_nothing_and_others_go_on() {
    let compartments = [("main", LINKED), ("other", LINKED)];
    let Some((lab, world, _netd)) = set_up(here!(), &compartments) else { return };
    lab.greet(Side::Outside, OUTSIDE, 80, "outside");
    let (main, other) = (world.name(), world.named("other"));
    let reached = |name: &str| {
        let found = greetings(&world, name, &[(OUTSIDE, 80)]);
        found.into_values().next().expect("one")
    };
    assert_eq!(reached(other), format!("outside {HOST}"));
    let kept = traces();
    // At any moment of a start, and once it runs.
    for milliseconds in [0, 40, 80, 120, 200, 1500] {
        let started = world.casemate(["start", main]).start();
        let supervisor = until("a supervisor", SHORT, || {
            let is_it = |word: &String| word.ends_with("casemate-supervisor");
            let mut crew = world.crew(main).into_iter();
            crew.find(|process| process.arguments.first().is_some_and(is_it))
        });
        std::thread::sleep(Duration::from_millis(milliseconds));
        kill(Pid::from_raw(supervisor.pid), Signal::SIGKILL).expect("it is ours");
        // The client may start another one.
        started.done();
        world.casemate(["stop", "--force", main]).within(SHORT).done();
        let crew = world.crew(main);
        until("the end of its processes", SHORT, || {
            crew.iter().all(|process| !process.runs()).then_some(())
        });
        until("only the other's link", SHORT, || (traces() == kept).then_some(()));
    }
    assert_eq!(reached(other), format!("outside {HOST}"));
    assert_eq!(reached(main), format!("outside {HOST}"));
    for name in [main, other] {
        world.casemate(["stop", "--force", name]).done().ok();
    }
    assert_no_traces();
}

#[test]
fn killed_helper_is_cleaned_up_after_and_its_guests_shut_down() {
    let compartments = [("main", LINKED), ("other", LINKED)];
    let Some((lab, world, mut netd)) = set_up(here!(), &compartments) else { return };
    lab.greet(Side::Outside, OUTSIDE, 80, "outside");
    world.start();
    netd.kill();
    world.assert_gone(world.name());
    let told = world.casemate(["status", world.name()]).done().ok().text();
    assert!(told.contains("casemate-netd is gone"), "{told}");
    assert!(forwards(), "nobody was there to switch it off");
    // Root mends without a helper, too.
    let told = world.casemate(["net", "repair"]).done().ok().text();
    assert!(told.contains("switched net.ipv4.ip_forward off, as it was before"), "{told}");
    assert!(told.contains("removed the tables cmtap"), "{told}");
    assert_no_traces();
    netd.begin();
    // In the middle of starts.
    for milliseconds in [40, 100, 200, 1500] {
        let started = world.casemate(["start", world.named("other")]).start();
        std::thread::sleep(Duration::from_millis(milliseconds));
        netd.kill();
        std::thread::sleep(Duration::from_millis(50));
        netd.begin();
        // Who waited to be heard is heard by the next one.
        started.done();
        world.casemate(["stop", "--force", world.named("other")]).within(SHORT).done();
        assert_no_traces();
    }
    let told = world.casemate(["net", "repair"]).done().ok();
    assert!(told.text().contains("casemate-netd"), "{told}");
    let found = greetings(&world, world.name(), &[(OUTSIDE, 80)]);
    assert_eq!(found.into_values().next(), Some(format!("outside {HOST}")));
    // Told to end, it leaves nothing.
    netd.end();
    assert_no_traces();
    world.assert_gone(world.name());
}

#[test]
fn forwarding_that_was_on_stays_on_and_what_was_off_opens_for_links_alone() {
    let Some((lab, world, _netd)) = set_up(here!(), &[("main", LINKED)]) else { return };
    world.start();
    let guard = Command::new("nft").args(["list", "table", "inet", "casemate"]).output();
    let guard = String::from_utf8_lossy(&guard.expect("nft starts").stdout).into_owned();
    assert!(guard.contains("drop"), "{guard}");
    world.stop_force().ok();
    assert_no_traces();
    lab.forward();
    world.start();
    let tables = traces();
    assert!(!tables.iter().any(|line| line.ends_with("inet casemate")), "{tables:?}");
    world.stop_force().ok();
    until("its end", SHORT, || (traces() == ["net.ipv4.ip_forward"]).then_some(()));
}

/// A call as the ordinary user, of the programs in a folder that he can read.
fn as_user(world: &World, user: &User, words: &[&str]) -> Call {
    world
        .call("setpriv")
        .args(["--reuid", &user.uid.to_string(), "--regid", &user.gid.to_string()])
        .args(["--clear-groups", "--inh-caps=-all"])
        .args(words)
        .env("USER", &user.name)
}

/// By another process: no child of another thread has it open to write when it is to run.
fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").args([from, to]).status();
    assert!(copied.expect("cp starts").success());
}

fn user() -> User {
    let found = USERS.iter().find_map(|name| User::from_name(name).expect("a list of users"));
    found.expect("one of them is there")
}

#[test]
fn ordinary_user_gets_what_the_system_grants_and_no_more() {
    let user = user();
    let Some((lab, world, netd)) = set_up(here!(), &[("main", LINKED)]) else { return };
    // One that no name of other tests leads to, and for each name another: it is remembered.
    let number: u32 = world.name().split('-').nth(1).expect("a number").parse().expect("digits");
    let id = 149 + 2 * number;
    let text = fs::read_to_string(world.config()).expect("read");
    world.configure(&text.replace(LINKED, &format!("{LINKED}\nid = {id}")));
    lab.greet(Side::Outside, OUTSIDE, 80, "outside");
    let folder = tempfile::tempdir().expect("made");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("set");
    for entry in fs::read_dir(systemtest::programs::directory()).expect("built").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("casemate") && !name.contains('.') && entry.path().is_file() {
            copy_program(&entry.path(), &folder.path().join(name));
        }
    }
    let config = folder.path().join("casemate.toml");
    fs::copy(world.config(), &config).expect("copied");
    fs::set_permissions(&config, Permissions::from_mode(0o644)).expect("set");
    let runtime = folder.path().join("run");
    fs::create_dir(&runtime).expect("made");
    nix::unistd::chown(&runtime, Some(user.uid), Some(user.gid)).expect("root may");
    fs::set_permissions(&runtime, Permissions::from_mode(0o700)).expect("set");
    let program = folder.path().join("casemate").display().to_string();
    let config = config.display().to_string();
    let grant =
        |to: &str, more: &str| format!("[network]\ngrants = [\"{to}={} {more}\"]", user.name);
    let has_home = user.dir.join(".local/share/casemate").exists();
    let home = if has_home { user.dir.clone() } else { runtime.clone() };
    let call = |words: &[&str]| {
        as_user(&world, &user, &[&[&program[..], "--config", &config], words].concat())
            .env("HOME", &home)
            .env("XDG_RUNTIME_DIR", &runtime)
    };
    let plan = || call(&["plan", world.name()]);
    plan().done().exits(4).says(&format!("user `{}` has no grant", user.name)).says("grants = ");
    netd.configure(&grant("user", "ids=111-119"));
    plan().done().exits(4).says(&format!("id {id} is not among those granted to you, 111 to 119"));
    netd.configure(&format!("{}\nnat.enable = false", grant("group", "")));
    plan().done().exits(4).says("differ from the system's configuration");
    netd.configure(&grant("group", &format!("ids={id}-{id}")));
    let planned = plan().done().ok().text();
    assert!(planned.contains("ask casemate-netd"), "{planned}");
    if planned.contains("build the image") {
        skip(here!(), "its second part: the ordinary user has no image yet");
    } else {
        let line = format!("exec 3<>/dev/tcp/{OUTSIDE}/80; head -n 1 <&3");
        let done = call(&["run", world.name(), "--", "bash", "-c", &line]).done().ok();
        assert_eq!(done.text(), format!("outside {HOST}"));
        assert!(traces().iter().any(|line| *line == format!("cmtap{id}")), "{:?}", traces());
        call(&["stop", "--force", world.name()]).done().ok();
        assert_no_traces();
    }
    // What he grants himself is an error.
    let own = folder.path().join("own.toml").display().to_string();
    fs::write(&own, grant("user", "")).expect("written");
    let done =
        as_user(&world, &user, &[&program, "--config", &own, "check"]).env("HOME", &home).done();
    done.exits(3).says("only the system's configuration");

    // A link of root's is not his, whatever he asks for.
    world.start();
    let order = |id: u32| {
        format!(
            "{{\"link\":{{\"compartment\":\"x\",\"id\":{id},\"address\":\"172.16.200.{id}\",\
             \"mac\":\"02:00:00:00:00:01\",\"rules\":[],\"default\":\"accept\"}}}}"
        )
    };
    let told = ask_as(&user, &netd, &[&order(id)]);
    let used = format!("172.16.200.{id} is in use by a compartment of another user");
    assert!(told.contains(&used), "{told}");
    let told = ask_as(&user, &netd, &[&order(171)]);
    assert!(told.contains("id 171 is not among those granted"), "{told}");
    let told = ask_as(&user, &netd, &["\"counters\""]);
    assert!(told.contains("this connection has no link"), "{told}");
    let elsewhere = order(id).replace("172.16.200.", "172.16.201.");
    let told = ask_as(&user, &netd, &[&elsewhere]);
    assert!(told.contains("the system's `cidr` counts"), "{told}");
    world.stop_force().ok();
    world.assert_gone(world.name());
    assert_no_traces();
    netd.configure(&grant("user", "links=1"));
    let told = ask_as(&user, &netd, &[&order(id), &order(171)]);
    assert!(told.contains("\"ready\""), "{told}");
    assert!(told.contains("has 1 links, and may have no more"), "{told}");
    assert_no_traces();
}

/// Says each of these on a connection of its own, as the user, and returns the answers.
fn ask_as(user: &User, netd: &Netd, requests: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("made");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("set");
    let program = folder.path().join("test");
    copy_program(&std::env::current_exe().expect("a path"), &program);
    let input = requests.join("\n");
    let done = Call::new("setpriv")
        .args(["--reuid", &user.uid.to_string(), "--regid", &user.gid.to_string()])
        .arg("--clear-groups")
        .arg(&program)
        .args(["--exact", "hostile_clients_are_refused_and_harm_nobody", "--nocapture"])
        .env(AS_USER, netd.socket())
        .input(input)
        .done();
    done.ok().text()
}

/// What an ordinary user's process does for the tests: asks what its input says; or, when that says
/// nothing, whatever it can think of.
fn as_somebody(socket: &std::path::Path) {
    let input = std::io::read_to_string(std::io::stdin()).expect("text");
    let mut kept = Vec::new();
    for line in input.lines() {
        let client = Client::to(socket).expect("somebody listens");
        assert!(client.say(line.as_bytes()));
        println!("answer: {}", client.answer().unwrap_or_default());
        kept.push(client);
    }
    if !input.is_empty() {
        return;
    }
    let devnull = fs::File::open("/dev/null").expect("it is there");
    let descriptors = [std::os::fd::AsRawFd::as_raw_fd(&devnull); 200];
    let long = vec![b'"'; 1 << 20];
    let half = br#"{"link":{"compartment":"x","id":"#;
    let deep = "[".repeat(60_000);
    for (bytes, descriptors) in [
        (&b""[..], &descriptors[..0]),
        (b"\0", &descriptors[..]),
        (&long[..65_537], &descriptors[..0]),
        (&long[..], &descriptors[..1]),
        (half, &descriptors[..]),
        (deep.as_bytes(), &descriptors[..0]),
        (b"\"terms\" \"terms\"", &descriptors[..0]),
        (b"{\"link\":{}}", &descriptors[..0]),
        (b"\xff\xfe\xfd", &descriptors[..0]),
    ] {
        let client = Client::to(socket).expect("somebody listens");
        client.say_with(bytes, descriptors);
        if let Some(answer) = client.answer() {
            assert!(answer.contains("failed"), "{answer}");
        }
        assert_eq!(client.answer(), None, "it is closed");
    }
    // One that never says anything, many at once, and many one after another.
    let silent = Client::to(socket).expect("somebody listens");
    let many: Vec<Client> = (0..200).filter_map(|_| Client::to(socket)).collect();
    let refused = many.iter().rev().find_map(|client| {
        let answer = client.answer();
        answer.filter(|answer| answer.contains("too many connections"))
    });
    assert!(refused.is_some());
    drop(many);
    let mut answers = std::collections::BTreeMap::<bool, u32>::new();
    for _ in 0..1000 {
        let Some(client) = Client::to(socket) else { continue };
        client.say(b"\"terms\"");
        let answer = client.answer().unwrap_or_default();
        *answers.entry(answer.contains("too many")).or_default() += 1;
    }
    println!("of 1000 requests refused: {answers:?}");
    assert!(answers.get(&true).is_some_and(|count| *count > 800), "{answers:?}");
    assert_eq!(silent.answer(), None, "nobody waits for ever");
}

#[test]
fn hostile_clients_are_refused_and_harm_nobody() {
    if let Some(socket) = std::env::var_os(AS_USER) {
        return as_somebody(socket.as_ref());
    }
    let user = user();
    let Some((lab, world, netd)) = set_up(here!(), &[("main", LINKED)]) else { return };
    lab.greet(Side::Outside, OUTSIDE, 80, "outside");
    let reached = || greetings(&world, world.name(), &[(OUTSIDE, 80)]).into_values().next();
    assert_eq!(reached(), Some(format!("outside {HOST}")));
    let before = traces();
    let open = || fs::read_dir(format!("/proc/{}/fd", netd.pid())).expect("it runs").count();
    let descriptors = open();
    let told = ask_as(&user, &netd, &[]);
    assert!(told.contains("of 1000 requests refused"), "{told}");
    println!("{told}");
    assert_eq!(traces(), before);
    until("its connections closed", SHORT, || (open() == descriptors).then_some(()));
    assert_eq!(reached(), Some(format!("outside {HOST}")));
}

#[test]
fn without_a_helper_tap_is_refused_and_auto_is_rootless() {
    let world = World::new(here!(), LINKED);
    let absent = world.path("no-socket");
    let plan = || world.casemate(["plan", world.name()]).env("CASEMATE_NETD", &absent);
    if !systemtest::lab::has_network(here!()) {
        return;
    }
    assert!(plan().done().ok().text().contains("the network is rootless"));
    world.configure_more(TAP);
    plan().done().exits(4).says("casemate-netd, which is not set up").says("casemate-netd.socket");
}
