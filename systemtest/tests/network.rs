//! Networks: a compartment reaches what its file says, and nothing of the host.

use std::net::TcpListener;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use systemtest::lab::{
    HOST, HOST6, Lab, NAME_SERVER, OTHER, OUTSIDE, OUTSIDE_TOO, OUTSIDE6, Side, has_network,
};
use systemtest::traffic::{FORGE, asked, counters, greetings};
use systemtest::{SHORT, World, here, skip, until};

const NETWORKED: &str = "host-networking = true";

#[test]
fn offline_compartment_has_no_interface() {
    let world = World::new(here!(), "");
    let done = world.shell("ls /sys/class/net; cat /proc/net/route | wc -l").done().ok();
    assert_eq!(done.text(), "lo\n1");
    let shown = world.casemate(["net", "show"]).done().ok();
    assert_eq!(shown.text(), format!("{}: offline", world.name()));
    let done = world.casemate(["net", "test", world.name(), "192.0.2.1:80"]).done().exits(1);
    done.says("is offline");
}

#[test]
fn networked_compartment_reaches_the_outside_as_the_host_and_resolves_names() {
    let Some(mut lab) = Lab::new(here!()) else { return };
    let world = World::new(here!(), NETWORKED);
    lab.enter();
    lab.greet(Side::Outside, OUTSIDE, 80, "outside");
    lab.answer_names(OUTSIDE.parse().expect("an address"));
    let found = greetings(&world, world.name(), &[(OUTSIDE, 80), ("some.example", 80)]);
    for (place, greeting) in &found {
        assert_eq!(greeting, &format!("outside {HOST}"), "{place}");
    }
    assert_eq!(found.len(), 2);
    let done =
        world.shell("getent ahostsv4 other.example | head -n 1; cat /etc/resolv.conf").done();
    let done = done.ok();
    assert!(done.text().starts_with(OUTSIDE), "{done}");
    assert!(done.text().contains("nameserver 169.254.1.1"), "{done}");
    // One interface with one address of a /31, and no IPv6 but that of loopback.
    let line = "ls /sys/class/net | wc -l; cat /proc/net/if_inet6 | grep -v ' lo$'; \
                grep -c . /proc/net/route; cat /sys/class/net/e*/mtu";
    assert_eq!(world.run(["sh", "-c", line]).done().ok().text(), "2\n3\n1500");
}

#[test]
fn host_is_out_of_reach_on_each_of_its_addresses() {
    let Some(mut lab) = Lab::new(here!()) else { return };
    let world = World::new(here!(), NETWORKED);
    lab.enter();
    lab.greet(Side::Outside, OUTSIDE, 80, "outside");
    lab.greet(Side::Host, "0.0.0.0", 81, "host");
    lab.greet(Side::Host, "127.0.0.1", 82, "host");
    lab.greet(Side::Host, HOST6, 83, "host");
    let plan = world.casemate(["plan", world.name()]).done().ok().text();
    let gateway = plan.lines().find_map(|line| line.trim().strip_prefix("gateway "));
    let gateway = gateway.expect("a gateway").split_whitespace().next().expect("an address");
    let mut places = vec![(OUTSIDE, 80), (HOST6, 83)];
    for host in [
        HOST,
        OTHER,
        gateway,
        "0.0.0.0",
        NAME_SERVER,
        "169.254.1.1",
        "169.254.2.1",
        "169.254.2.2",
        "10.9.0.255",
    ] {
        places.extend([(host, 81), (host, 82)]);
    }
    let found = greetings(&world, world.name(), &places);
    for (place, greeting) in &found {
        let expected = match place.starts_with(OUTSIDE) {
            true => format!("outside {HOST}"),
            false => String::new(),
        };
        assert_eq!(greeting, &expected, "{place}");
    }
    assert_eq!(found.len(), places.len());
    assert!(counters(&world)["protected"] > 0);
    // An address that comes later is closed, too.
    lab.on_host(&["address", "add", "10.78.0.1/24", "dev", "up1"]);
    let later = greetings(&world, world.name(), &[("10.78.0.1", 81), (OUTSIDE, 80)]);
    assert_eq!(later["10.78.0.1:81"], "");
    assert_eq!(later[&format!("{OUTSIDE}:80")], format!("outside {HOST}"));
}

#[test]
fn ipv6_reaches_the_outside_where_it_is_asked_for_and_the_host_never() {
    let Some(mut lab) = Lab::new(here!()) else { return };
    let settings = "host-networking = true\nfirewall = [\n\
        \"action=drop proto=tcp dst6=2001:db8:7::/48 dstports=82\",\n]";
    let world = World::new(here!(), settings);
    world.configure_more("[network]\nipv6 = true");
    lab.enter();
    lab.greet(Side::Outside, OUTSIDE, 80, "outside");
    for port in [80, 82] {
        lab.greet(Side::Outside, OUTSIDE6, port, "outside");
    }
    lab.greet(Side::Host, "::", 81, "host");
    let places =
        [(OUTSIDE, 80), (OUTSIDE6, 80), (OUTSIDE6, 82), (HOST6, 81), ("::ffff:10.9.0.2", 81)];
    let found = greetings(&world, world.name(), &places);
    assert_eq!(found[&format!("{OUTSIDE}:80")], format!("outside {HOST}"));
    assert_eq!(found[&format!("{OUTSIDE6}:80")], format!("outside {HOST6}"));
    for closed in [format!("{OUTSIDE6}:82"), format!("{HOST6}:81"), "::ffff:10.9.0.2:81".into()] {
        assert_eq!(found[&closed], "", "{closed}");
    }
    lab.on_host(&["address", "add", "2001:db8:9::1/64", "dev", "up1", "nodad"]);
    let later = greetings(&world, world.name(), &[("2001:db8:9::1", 81), (OUTSIDE6, 80)]);
    assert_eq!(later["2001:db8:9::1:81"], "");
    assert_eq!(later[&format!("{OUTSIDE6}:80")], format!("outside {HOST6}"));
    let counted = counters(&world);
    assert!(counted["rule0"] > 0 && counted["protected"] > 1, "{counted:?}");
}

#[test]
fn rules_of_each_kind_decide() {
    let Some(mut lab) = Lab::new(here!()) else { return };
    let settings = "host-networking = true\nfirewall-default = \"drop\"\nfirewall = [\n\
        \"action=accept special=dns\",\n\
        \"action=accept proto=tcp dst4=203.0.113.7 dstports=80\",\n\
        \"action=accept proto=udp dst4=203.0.113.0/24 dstports=1000-1001\",\n\
        \"action=accept proto=tcp dst4=10.77.0.1 dstports=80 comment=a service of the host\",\n\
        \"action=drop dst4=203.0.113.8\",\n\
        \"action=accept proto=tcp dst4=203.0.113.0/24 dstports=82\",\n\
        \"action=accept proto=icmp icmptype=8\",\n]";
    let world = World::new(here!(), settings);
    lab.enter();
    for port in [80, 81, 82] {
        lab.greet(Side::Outside, OUTSIDE, port, "outside");
        lab.greet(Side::Outside, OUTSIDE_TOO, port, "outside");
        lab.greet(Side::Host, OTHER, port, "host");
        lab.greet(Side::Host, HOST, port, "host");
    }
    for port in [1000, 1001, 1002] {
        lab.collect(Side::Outside, OUTSIDE, port);
    }
    lab.answer_names(OUTSIDE_TOO.parse().expect("an address"));
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
    assert_eq!(open, ["10.77.0.1:80", "203.0.113.7:80", "203.0.113.7:82"]);
    assert_eq!(asked(&world, OUTSIDE, 1000), HOST);
    assert_eq!(asked(&world, OUTSIDE, 1001), HOST);
    assert_eq!(asked(&world, OUTSIDE, 1002), "");
    let done = world.shell("getent ahostsv4 some.example | head -n 1").done().ok();
    assert!(done.text().starts_with(OUTSIDE_TOO), "{done}");
    let counted = counters(&world);
    for rule in ["rule0", "rule1", "rule2", "rule3", "rule4", "rule5", "default", "protected"] {
        assert!(counted[rule] > 0, "{rule}: {counted:?}");
    }
    for (place, flag, expected) in [
        ("203.0.113.7:80", "", "203.0.113.7: accept, by rule 2: action=accept"),
        ("203.0.113.7:1001", "--udp", "203.0.113.7: accept, by rule 3"),
        ("10.77.0.1:80", "", "10.77.0.1: accept, by rule 4"),
        ("10.77.0.1:81", "", "10.77.0.1: drop, as it is an address of the host"),
        ("203.0.113.8:82", "", "203.0.113.8: drop, by rule 5"),
        ("203.0.113.9:81", "", "203.0.113.9: drop, as no rule matches"),
        ("203.0.113.9", "--icmp", "203.0.113.9: accept, by rule 7"),
        ("127.0.0.1:81", "", "127.0.0.1: drop, as it is an address of the host"),
        ("[2001:db8::1]:81", "", "2001:db8::1: drop, as the compartment has no IPv6"),
    ] {
        let words = ["net", "test", world.name(), place, flag];
        let done = world.casemate(words.into_iter().filter(|word| !word.is_empty())).done().ok();
        assert!(done.text().starts_with(expected), "{done}");
    }
}

#[test]
fn names_in_rules_open_what_they_resolve_to_and_never_the_host() {
    let Some(mut lab) = Lab::new(here!()) else { return };
    let settings = "host-networking = true\nfirewall-default = \"drop\"\n\
        firewall = [\"action=accept proto=tcp dsthost=some.example dstports=80\"]";
    let world = World::new(here!(), settings);
    lab.enter();
    lab.answer_names(OUTSIDE.parse().expect("an address"));
    for port in [80, 81] {
        lab.greet(Side::Outside, OUTSIDE, port, "outside");
        lab.greet(Side::Outside, OUTSIDE_TOO, port, "outside");
        lab.greet(Side::Host, OTHER, port, "host");
    }
    world.start();
    let greeted = || greetings(&world, world.name(), &[(OUTSIDE, 80)]).into_values().next();
    until("the name's address", SHORT, || {
        greeted().filter(|greeting| greeting.starts_with("outside"))
    });
    let places = [(OUTSIDE, 81), (OUTSIDE_TOO, 80)];
    let found = greetings(&world, world.name(), &places);
    assert!(found.values().all(String::is_empty), "{found:?}");
    world.stop_force().ok();
    world.assert_gone(world.name());

    // Who answers for the name may say what he likes of the host.
    lab.answer_names_with(OTHER.parse().expect("an address"));
    world.start();
    let resolves = "getent ahostsv4 some.example | head -n 1";
    let done = world.shell(resolves).done();
    assert_eq!(done.text(), "", "the guest itself may not ask: {done}");
    let found = greetings(&world, world.name(), &[(OTHER, 80), (OUTSIDE, 80)]);
    assert!(found.values().all(String::is_empty), "{found:?}");
    let counted = counters(&world);
    assert!(counted["protected"] > 0 && counted["default"] > 0, "{counted:?}");
}

#[test]
fn forged_packets_are_dropped_and_honest_ones_pass() {
    let Some(mut lab) = Lab::new(here!()) else { return };
    let world = World::new(here!(), NETWORKED);
    lab.enter();
    let received = lab.collect(Side::Outside, OUTSIDE, 1000);
    assert_eq!(asked(&world, OUTSIDE, 1000), HOST);
    let shown = world.casemate(["net", "show", world.name(), "--json"]).done().ok().json();
    let word = |key: &str| shown[0]["link"][key].as_str().expect("a word").to_owned();
    let (gateway, own) = (word("gateway"), word("address"));
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
fn killed_supervisor_leaves_nothing_and_others_go_on() {
    let Some(mut lab) = Lab::new(here!()) else { return };
    let world = World::with(here!(), &[("main", NETWORKED), ("other", NETWORKED)]);
    lab.enter();
    lab.greet(Side::Outside, OUTSIDE, 80, "outside");
    let (main, other) = (world.name(), world.named("other"));
    let reached = |name: &str| {
        let found = greetings(&world, name, &[(OUTSIDE, 80)]);
        found.into_values().next().expect("one")
    };
    assert_eq!(reached(main), format!("outside {HOST}"));
    assert_eq!(reached(other), format!("outside {HOST}"));
    let crew = world.crew(main);
    for name in ["casemate-netns", "pasta", "passt"] {
        println!("{name}: {}", crew.iter().filter(|one| one.name.starts_with(name)).count());
    }
    assert!(crew.iter().any(|one| one.arguments.iter().any(|word| word == "--no-map-gw")));
    kill(Pid::from_raw(world.supervisor()), Signal::SIGKILL).expect("it is ours");
    for process in &crew {
        until("its end", SHORT, || (!process.runs()).then_some(()));
    }
    assert_eq!(reached(other), format!("outside {HOST}"));
    world.casemate(["net", "repair"]).done().ok();
    assert_eq!(reached(main), format!("outside {HOST}"));
    let crew = world.crew(main);
    world.stop_force().ok();
    world.assert_gone_with(main, &crew);
}

#[test]
fn compartment_whose_pasta_ended_is_shut_down() {
    let Some(mut lab) = Lab::new(here!()) else { return };
    let world = World::new(here!(), NETWORKED);
    lab.enter();
    world.start();
    let crew = world.crew(world.name());
    let is_pasta = |one: &&systemtest::processes::Process| {
        one.arguments.iter().any(|word| word == "--no-map-gw")
    };
    let pasta = crew.iter().find(is_pasta).expect("it runs");
    kill(Pid::from_raw(pasta.pid), Signal::SIGKILL).expect("it is ours");
    world.assert_gone_with(world.name(), &crew);
    let told = world.casemate(["status", world.name()]).done().ok().text();
    assert!(told.contains("the keeper of the network ended"), "{told}");
    assert!(told.contains("pasta, which leads outside, has ended"), "{told}");
}

#[test]
fn start_without_a_way_outside_says_so() {
    let Some(mut lab) = Lab::new(here!()) else { return };
    let world = World::new(here!(), NETWORKED);
    lab.enter();
    lab.on_host(&["route", "delete", "default"]);
    // Versions of passt since late 2024 need no route.
    let done = world.casemate(["start", world.name()]).done();
    if done.code == Some(0) {
        return skip(here!(), "this pasta needs no route");
    }
    let done = done.exits(1);
    done.says("could not make the network").says("has the host a default route?");
    world.assert_gone(world.name());
}

/// Without a lab, as an ordinary user has none: in the network that the machine has.
#[test]
fn services_of_this_machine_are_out_of_reach() {
    if !has_network(here!()) {
        return;
    }
    let routes = std::fs::read_to_string("/proc/net/route").expect("it is there");
    if !routes.lines().any(|line| line.split_whitespace().nth(1) == Some("00000000")) {
        return skip(here!(), "this machine has no default route");
    }
    let world = World::new(here!(), NETWORKED);
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("it has one").port();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut client, b"host\n");
        }
    });
    let own =
        world.host_shell("ip -4 -o address | sed 's/.*inet \\([0-9.]*\\).*/\\1/'").done().ok();
    let own = own.text();
    let mut places: Vec<(&str, u16)> = own.lines().map(|address| (address, port)).collect();
    places.extend([("0.0.0.0", port), ("169.254.1.1", port), ("169.254.2.1", port)]);
    for greeting in greetings(&world, world.name(), &places).values() {
        assert_eq!(greeting, "");
    }
    let crew = world.crew(world.name());
    kill(Pid::from_raw(world.supervisor()), Signal::SIGKILL).expect("it is ours");
    for process in &crew {
        until("its end", SHORT, || (!process.runs()).then_some(()));
    }
}

#[test]
fn keeper_and_pasta_are_users_of_their_own_and_see_no_file_of_anybody() {
    let Some(mut lab) = Lab::new(here!()) else { return };
    let world = World::new(here!(), NETWORKED);
    lab.enter();
    world.start();
    let own = nix::unistd::geteuid().as_raw().to_string();
    let mut seen = 0;
    for process in world.crew(world.name()) {
        let is_pasta = process.arguments.iter().any(|word| word == "--no-map-gw");
        let is_keeper = process.name.starts_with("casemate-netns");
        if !is_pasta && !is_keeper {
            continue;
        }
        seen += 1;
        let read = |name: &str| {
            std::fs::read_to_string(format!("/proc/{}/{name}", process.pid)).expect("root reads it")
        };
        let status = read("status");
        let line = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
            line.split_whitespace().next().expect("a word").to_owned()
        };
        assert_ne!(line("Uid:"), own);
        assert_eq!(line("NoNewPrivs:"), "1");
        if is_keeper {
            assert_eq!(line("CapEff:"), "0000000000001000", "CAP_NET_ADMIN of its namespace");
            assert_eq!(line("CapBnd:"), "0000000000001000");
        } else {
            assert_eq!(line("Seccomp:"), "2");
        }
        let mounts = read("mountinfo");
        assert!(!mounts.contains("/root") && !mounts.contains("/home"), "{mounts}");
    }
    assert_eq!(seen, 2);
}
