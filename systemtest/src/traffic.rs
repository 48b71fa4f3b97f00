//! What a guest is made to send, and what became of it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::World;

/// Tries TCP connections from the guest, all at once, and says what greeted each: nothing, when
/// nothing came back in time.
pub fn greetings(world: &World, name: &str, places: &[(&str, u16)]) -> BTreeMap<String, String> {
    let mut script = String::new();
    for (index, (host, port)) in places.iter().enumerate() {
        script.push_str(&format!(
            "( timeout 8 bash -c 'exec 3<>/dev/tcp/{host}/{port} && head -n 1 <&3' >/tmp/g{index} \
             2>/dev/null ) &\n"
        ));
    }
    script.push_str("wait\n");
    for (index, (host, port)) in places.iter().enumerate() {
        script.push_str(&format!("echo \"{host}:{port}=$(cat /tmp/g{index})\"\n"));
    }
    let done = world.casemate(["run", name, "--", "bash", "-s"]).input(script).done().ok();
    let pair = |line: &str| {
        let (place, greeting) = line.split_once('=').expect("a place and a greeting");
        (place.to_owned(), greeting.to_owned())
    };
    done.text().lines().map(pair).collect()
}

/// Sends a datagram from the guest and returns the answer, empty when none came.
pub fn asked(world: &World, host: &str, port: u16) -> String {
    let line = format!(
        "exec 3<>/dev/udp/{host}/{port}; for n in 1 2 3; do echo guest >&3; \
         timeout 2 head -c 8 <&3 && break; done"
    );
    world.run(["bash", "-c", &line]).done().text()
}

/// What `net show --json` counts for `main`.
pub fn counters(world: &World) -> BTreeMap<String, u64> {
    let shown = world.casemate(["net", "show", world.name(), "--json"]).done().ok().json();
    let counters = shown[0]["link"]["counters"].as_array().expect("counters").clone();
    let pair = |counter: &Value| {
        let name = counter["name"].as_str().expect("a name").to_owned();
        (name, counter["packets"].as_u64().expect("a number"))
    };
    counters.iter().map(pair).collect()
}

/// Sends frames of the guest's root's own making: an honest one, then one with another IP address,
/// with another Ethernet address, ARP for another address, and an honest one again.
pub const FORGE: &str = r#"
my ($dev) = grep { $_ ne 'lo' } map { m{/([^/]+)$} } glob('/sys/class/net/*');
sub slurp { open(my $f, '<', $_[0]) or die; local $/; my $t = <$f>; chomp $t; $t }
my $index = slurp("/sys/class/net/$dev/ifindex");
my $mac = join '', map { chr hex } split /:/, slurp("/sys/class/net/$dev/address");
my ($gw_ip, $own_ip, $to) = map { pack 'C4', split /\./ } @ARGV;
my ($gw) = map { (split)[3] } grep { /^\Q$ARGV[0]\E / } split /\n/, slurp('/proc/net/arp');
$gw = join '', map { chr hex } split /:/, $gw;
my $other_mac = "\x02\0\0\0\0\x99";
my $other_ip = pack 'C4', 172, 16, 200, 251;
socket(my $s, 17, 3, unpack('S', pack('n', 3))) or die "socket: $!";
sub emit { my ($frame) = @_;
  send($s, $frame, 0, pack('SnlSCCa8', 17, 0, $index, 1, 0, 6, $gw)) or die "send: $!"; }
sub udp { my ($from_mac, $from_ip, $text) = @_;
  my $udp = pack('nnnn', 5000, 1000, 8 + length $text, 0) . $text;
  my $head = pack('CCnnnCCna4a4', 0x45, 0, 20 + length $udp, 1, 0, 64, 17, 0, $from_ip, $to);
  my $sum = 0; $sum += $_ for unpack 'n*', $head;
  $sum = ($sum & 0xffff) + ($sum >> 16) while $sum >> 16;
  substr($head, 10, 2) = pack 'n', ~$sum & 0xffff;
  emit($gw . $from_mac . pack('n', 0x0800) . $head . $udp); }
sub arp { my ($mac, $ip) = @_;
  emit(("\xff" x 6) . $mac . pack('n nnCCn', 0x0806, 1, 0x0800, 6, 4, 2) . $mac . $ip . $gw . $gw_ip); }
udp($mac, $own_ip, 'honest-before');
udp($mac, $other_ip, 'forged-address');
udp($other_mac, $own_ip, 'forged-mac');
arp($mac, $other_ip);
arp($other_mac, $own_ip);
emit($gw . $mac . pack('n', 0x88cc) . 'x' x 50);
udp($mac, $own_ip, 'honest-after');
"#;
