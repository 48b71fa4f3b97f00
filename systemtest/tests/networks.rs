//! Networks between compartments: clients reach their router and what is behind it, and nothing else;
//! the switch between them may be killed, as may guests and supervisors.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use systemtest::lab::{HOST, Lab, NAME_SERVER, OTHER, OUTSIDE, Side};
use systemtest::processes::{self, Process};
use systemtest::{SHORT, World, here, until};

const ROUTER: &str = "networks.{net} = { router = true }";
const CLIENT: &str = "networks.{net} = {}";

/// Runs a line of the guest's shell as root in a compartment.
fn shell(world: &World, label: &str, line: &str) -> systemtest::Done {
    world.casemate(["run", "--root", world.named(label), "--", "sh", "-c", line]).done()
}

/// Asks a machine that often, a fifth of a second apart; returns how many answers came.
fn answers(world: &World, label: &str, address: &str, count: u32) -> usize {
    let line = format!("ping -n -c {count} -i 0.2 -W 1 {address}");
    shell(world, label, &line).text().matches("bytes from").count()
}

/// It reaches a machine that was not there, as soon as its kernel asks anew for the address of that.
fn reaches(world: &World, label: &str, address: &str) {
    until("an answer", SHORT, || (answers(world, label, address, 1) == 1).then_some(()));
    assert_eq!(answers(world, label, address, 3), 3);
}

/// The ports of the world's network, as `net stats --json` has them.
fn ports(world: &World) -> Vec<Value> {
    let shown = world.casemate(["net", "stats", &world.network(), "--json"]).done().ok().json();
    shown[0]["ports"].as_array().expect("ports").clone()
}

fn port(world: &World, label: &str) -> Value {
    let name = world.named(label);
    let found = ports(world).into_iter().find(|port| port["name"] == name);
    found.unwrap_or(Value::Null)
}

fn address(world: &World, label: &str) -> String {
    port(world, label)["ip"][0].as_str().expect("an address").to_owned()
}

/// The switch of the world's network, while it runs.
fn switch(world: &World) -> Option<Process> {
    let network = world.network();
    let is_it = |one: &Process| {
        let program = one.arguments.first().is_some_and(|word| word.ends_with("casemate-switch"));
        program && one.arguments.contains(&network)
    };
    let mut all: Vec<Process> = processes::all().into_iter().filter(is_it).collect();
    assert!(all.len() < 2, "two switches for one network: {all:?}");
    all.pop()
}

fn end(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it runs");
}

fn supervisor(world: &World, label: &str) -> i32 {
    let status = world.status(world.named(label));
    status["supervisorPid"].as_i64().expect("it runs") as i32
}

/// The example of a router and two clients, under names of this test's own.
fn example(test: &'static str) -> World {
    let labels = ["router", "banking", "shopping"];
    let world = World::with(test, &labels.map(|label| (label, "")));
    let mut text = include_str!("../../examples/networks.toml").to_owned();
    text = text.replace("internal", &world.network());
    for label in labels {
        let own = format!("[compartment.{}]\nmemory = 256", world.named(label));
        text = text.replace(&format!("[compartment.{label}]"), &own);
    }
    world.configure(&text);
    world
}

#[test]
fn clients_reach_the_outside_by_way_of_their_router_and_neither_each_other_nor_the_host() {
    let Some(mut lab) = Lab::new(here!()) else { return };
    let world = example(here!());
    lab.enter();
    lab.greet(Side::Outside, OUTSIDE, 80, "outside");
    lab.greet(Side::Host, "0.0.0.0", 81, "host");
    lab.answer_names(OUTSIDE.parse().expect("an address"));
    let names = ["banking", "shopping"].map(|label| world.named(label));
    world.casemate(["start"].into_iter().chain(names)).done().ok();
    let router = world.named("router");
    assert_eq!(world.state(router), "running", "it is started before its clients");

    let greeting = |host: &str, port: u16| {
        let line = format!("timeout 5 bash -c 'exec 3<>/dev/tcp/{host}/{port} && head -n 1 <&3'");
        shell(&world, "banking", &line).text()
    };
    let fetched = greeting("some.example", 80);
    assert_eq!(fetched, format!("outside {HOST}"), "by a name, as the host's own");
    lab.greet(Side::Outside, OUTSIDE, 25, "mail");
    assert_eq!(greeting(OUTSIDE, 25), "", "the router's rule");
    for host in [HOST, OTHER, "172.16.200.2", "0.0.0.0", NAME_SERVER, "169.254.1.1"] {
        assert_eq!(greeting(host, 81), "", "{host}");
    }
    let set_up =
        shell(&world, "banking", "cat /etc/resolv.conf; ip route; ip -6 address show eth0");
    let set_up = set_up.ok().text();
    assert!(set_up.contains("nameserver 169.254.1.1"), "{set_up}");
    assert!(set_up.contains("default via 10.88."), "{set_up}");
    assert!(!set_up.contains("inet6"), "{set_up}");
    assert_eq!(answers(&world, "banking", &address(&world, "router"), 3), 3);
    assert_eq!(answers(&world, "banking", &address(&world, "shopping"), 3), 0);

    // The router's own rules are those of its clients.
    let counted = world.casemate(["net", "show", router, "--json"]).done().ok().json();
    let counters = counted[0]["link"]["counters"].as_array().expect("counters").clone();
    let protected = counters.iter().find(|one| one["name"] == "protected").expect("one");
    assert!(protected["packets"].as_u64().is_some_and(|count| count > 0), "{protected}");
    assert_eq!(counted[0]["networks"][0]["role"], "router");
    assert_eq!(counted[0]["networks"][0]["connected"], true);
}

/// Sends frames of the guest's root's own making to the router: from another IP address, from another
/// Ethernet address, ARP for another's address, with a tag, and one to the other client.
const FORGE: &str = r#"
my ($router_ip, $own_ip, $other_ip, $router_mac, $other_mac) = @ARGV;
my ($dev) = grep { $_ ne 'lo' } map { m{/([^/]+)$} } glob('/sys/class/net/*');
sub slurp { open(my $f, '<', $_[0]) or die; local $/; my $t = <$f>; chomp $t; $t }
sub mac { join '', map { chr hex } split /:/, $_[0] }
my $index = slurp("/sys/class/net/$dev/ifindex");
my $own = mac(slurp("/sys/class/net/$dev/address"));
my ($router, $other) = map { mac($_) } $router_mac, $other_mac;
my ($to, $from, $else) = map { pack 'C4', split /\./ } $router_ip, $own_ip, $other_ip;
socket(my $s, 17, 3, unpack('S', pack('n', 3))) or die "socket: $!";
sub emit { my ($frame) = @_;
  send($s, $frame, 0, pack('SnlSCCa8', 17, 0, $index, 1, 0, 6, $router)) or die "send: $!"; }
sub ip { my ($ip) = @_; pack('CCnnnCCna4a4', 0x45, 0, 28, 1, 0, 64, 17, 0, $ip, $to) . ("\0" x 8) }
sub arp { my ($ip) = @_; pack('nnCCn', 1, 0x0800, 6, 4, 2) . $own . $ip . $router . $to }
for (1 .. 3) {
  emit($router . $own . pack('n', 0x0800) . ip($else));
  emit($router . $other . pack('n', 0x0800) . ip($from));
  emit($router . $own . pack('n', 0x0806) . arp($else));
  emit($router . $own . pack('nnn', 0x8100, 0, 0x0800) . ip($from));
  emit($other . $own . pack('n', 0x0800) . ip($from));
}
"#;

#[test]
fn clients_talk_to_their_router_only_and_forged_frames_are_dropped_and_counted() {
    let microvm = format!("machine = \"microvm\"\n{CLIENT}");
    let all = [("main", CLIENT), ("other", microvm.as_str()), ("router", ROUTER)];
    let world = World::with(here!(), &all);
    let shown = world.casemate(["net", "stats", &world.network()]).done().ok();
    assert_eq!(shown.text(), format!("{}: not running", world.network()));
    world.casemate(["start", world.name(), world.named("other")]).done().ok();
    let [main, other, router] = ["main", "other", "router"].map(|label| address(&world, label));
    let running = switch(&world).expect("it runs");
    assert!(router.ends_with(".1"), "{router}");
    for (from, to, expected) in
        [("main", &router, 3), ("other", &router, 3), ("main", &other, 0), ("router", &other, 3)]
    {
        assert_eq!(answers(&world, from, to, 3), expected, "{from} to {to}");
    }
    // Nor by a way through the router.
    let line = format!("ip route add {other}/32 via {router}; ping -c 2 -W 1 {other}");
    shell(&world, "main", &line).exits(1);
    let crossing = &port(&world, "router")["drops"]["crossing"];
    assert!(crossing.as_u64().is_some_and(|count| count >= 2), "{crossing}");

    let [router_mac, other_mac] =
        ["router", "other"].map(|label| port(&world, label)["mac"].as_str().map(str::to_owned));
    let (router_mac, other_mac) = (router_mac.expect("a MAC"), other_mac.expect("a MAC"));
    let before = port(&world, "other")["received"]["frames"].clone();
    let words = ["perl", "-", &router, &main, &other, &router_mac, &other_mac];
    world.run_with(["--root"], words).input(FORGE).done().ok();
    let counted = port(&world, "main");
    for reason in ["address", "source", "arp", "vlan", "not-router"] {
        let count = counted["drops"][reason].as_u64().unwrap_or(0);
        assert!(count >= 3, "{reason}: {counted}");
    }
    assert!(counted["latencyMicroseconds"].as_f64().is_some_and(|time| time > 0.0), "{counted}");
    let after = &port(&world, "other")["received"]["frames"];
    // Its own probes.
    let frames = |count: &Value| count.as_u64().expect("a number");
    assert!(frames(after) <= frames(&before) + 4, "{before} and then {after}");
    assert_eq!(answers(&world, "main", &router, 3), 3);

    let told = world.casemate(["net", "stats", world.name()]).done().ok();
    let told = told.text();
    assert!(told.contains("from an IP address that is not its own"), "{told}");
    assert!(told.contains("(client)") && !told.contains(world.named("other")), "{told}");
    let shown = world.casemate(["net", "show", world.name()]).done().ok().text();
    let behind = format!("behind `{}`, connected", world.named("router"));
    assert!(shown.contains("no link to the host") && shown.contains(&behind), "{shown}");
    let file = world.path("frames.pcap");
    let file = file.to_str().expect("text");
    let refused = world.casemate(["net", "capture", world.name(), file]).done().exits(1);
    refused.says("recording frames is not allowed").says("capture = true in [switch]");
    assert!(!world.path("frames.pcap").exists());

    // The last one puts out the light.
    for label in ["router", "main", "other"] {
        assert!(running.runs());
        world.casemate(["stop", world.named(label)]).done().ok();
    }
    until("the end of the switch", SHORT, || (!running.runs()).then_some(()));
    for file in ["sock", "lock"] {
        let path = world.runtime().join(format!(".networks/{}.{file}", world.network()));
        until("the end of its files", SHORT, || (!path.exists()).then_some(()));
    }
}

#[test]
fn a_network_survives_its_switch_its_guests_and_its_supervisors() {
    let all = [("main", CLIENT), ("other", CLIENT), ("router", ROUTER)];
    let world = World::with(here!(), &all);
    world.configure_more("[switch]\ncapture = true");
    world.casemate(["start", world.name(), world.named("other")]).done().ok();
    let router = address(&world, "router");

    // Its frames, in a file.
    let file = world.path("frames.pcap");
    let words = ["net", "capture", world.name(), file.to_str().expect("text"), "--frames", "6"];
    let recording = world.casemate(words).start();
    until("a recording", SHORT, || file.exists().then_some(()));
    assert_eq!(answers(&world, "main", &router, 5), 5);
    recording.done().ok();
    let bytes = fs::read(&file).expect("written");
    assert_eq!(bytes[..4], 0xa1b2_3c4d_u32.to_le_bytes());
    assert!(bytes.len() > 24 + 6 * (16 + 40), "{}", bytes.len());

    // The switch is killed while there is traffic.
    let line = format!("ping -n -c 30 -i 0.2 {router}");
    let words = ["run", "--root", world.name(), "--", "sh", "-c", &line];
    let pinging = world.casemate(words).start();
    std::thread::sleep(Duration::from_secs(2));
    let killed = switch(&world).expect("it runs");
    end(killed.pid);
    let again = until("another switch", SHORT, || switch(&world).filter(|new| *new != killed));
    let told = pinging.done().ok().text();
    let count = told.matches("bytes from").count();
    let summary = told.lines().last().unwrap_or_default();
    println!("switch killed: {count} of 30 answers; {summary}");
    assert!(count >= 25, "{told}");
    let longest = summary.split('/').nth(5).and_then(|text| text.parse::<f64>().ok());
    assert!(longest.is_some_and(|milliseconds| milliseconds < 4_000.0), "{told}");
    assert!(again.runs());

    // A guest is killed in the middle of a burst.
    let burst = format!("timeout 20 ping -f -s 1400 {router} >/dev/null");
    let words = ["run", "--root", world.named("other"), "--", "sh", "-c", &burst];
    let bursting = world.casemate(words).start();
    let sent = |label| port(&world, label)["sent"]["frames"].as_u64().unwrap_or(0);
    let before = sent("other");
    until("a burst", SHORT, || (sent("other") > before + 100).then_some(()));
    let crew = world.crew(world.named("other"));
    let vmm = crew.iter().find(|one| one.name.starts_with("qemu")).expect("it runs");
    end(vmm.pid);
    assert_eq!(answers(&world, "main", &router, 10), 10);
    bursting.done();
    assert_eq!(switch(&world).as_ref(), Some(&again), "it is the same one");
    until("the end of its port", SHORT, || port(&world, "other").is_null().then_some(()));
    world.casemate(["start", world.named("other")]).done().ok();
    reaches(&world, "other", &router);

    // The router goes and comes back.
    world.casemate(["stop", world.named("router")]).done().ok();
    assert_eq!(answers(&world, "main", &router, 2), 0);
    assert_eq!(world.state(world.name()), "running", "clients stay");
    world.casemate(["start", world.named("router")]).done().ok();
    reaches(&world, "main", &router);

    // Supervisors are killed, the one that has started the switch among them, one after the other.
    for label in ["router", "other"] {
        end(supervisor(&world, label));
        until("the end of its port", SHORT, || port(&world, label).is_null().then_some(()));
    }
    world.casemate(["start", world.named("router")]).done().ok();
    reaches(&world, "main", &router);
    assert!(again.runs(), "others used it all the time");
    for label in ["router", "main"] {
        end(supervisor(&world, label));
    }
    until("the end of the switch", SHORT, || (!again.runs()).then_some(()));
    assert!(switch(&world).is_none());
    for label in ["main", "other", "router"] {
        let nobody = || world.crew(world.named(label)).is_empty().then_some(());
        until("the end of its processes", SHORT, nobody);
    }
}

#[test]
fn networks_without_a_router_or_with_two_are_refused_with_their_place() {
    let none = World::with(here!(), &[("main", CLIENT), ("other", CLIENT)]);
    let refused = none.casemate(["start", none.name()]).done().exits(3);
    refused.says("has no router").says("casemate.toml:5");
    let two = World::with(here!(), &[("main", ROUTER), ("other", ROUTER)]);
    let refused = two.casemate(["start", two.name()]).done().exits(3);
    refused.says("has two routers").says("casemate.toml:");
}
