//! Calls of services: between guests, to the host, from the host; and guests that call without end.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use systemtest::{Done, SHORT, World, here, until};

/// For starting a compartment, or many calls, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Two compartments, and what they may call: lines of policy with `A` and `B` for their names.
struct Pair {
    world: World,
}

impl Pair {
    fn new(test: &'static str, policy: &str) -> Self {
        let echo = r#"echo "$QREXEC_REMOTE_DOMAIN $QREXEC_SERVICE_FULL_NAME $#"; cat; exit 7"#;
        let cat = "exec cat";
        let file = |name: &str, script: &str| {
            let content = format!("#!/bin/sh\n{script}\n");
            format!(
                "guest.files.\"/etc/casemate/rpc/{name}\" = {{ content = {content:?}, mode = \
                 \"0755\" }}\n"
            )
        };
        let both = "memory = 256\n";
        let services = [both.to_owned(), file("test.Echo", echo), file("test.Cat", cat)].concat();
        let world = World::with(test, &[("a", both), ("b", &services)]);
        let pair = Self { world };
        pair.allow(policy);
        pair
    }

    fn allow(&self, policy: &str) {
        let words = policy.split('\n').map(|line| {
            let words = line.split(' ').map(|word| match word {
                "A" => self.world.named("a"),
                "B" => self.world.named("b"),
                other => other,
            });
            words.collect::<Vec<_>>().join(" ")
        });
        let folder = self.world.path("policy.d");
        fs::create_dir_all(&folder).expect("made");
        let text = words.collect::<Vec<_>>().join("\n") + "\n";
        fs::write(folder.join("30-test.policy"), text).expect("written");
    }

    /// A shell line in A, in which `$B` is the other's name.
    fn in_a(&self, line: &str) -> systemtest::Call {
        let (a, b) = (self.world.named("a"), self.world.named("b"));
        let line = format!("B={b}; {line}");
        self.world.casemate(["run", a, "--", "sh", "-c", &line]).within(PATIENCE)
    }

    fn log_of_a(&self) -> String {
        let log = self.world.logs(self.world.named("a")).join("supervisor.log");
        fs::read_to_string(log).expect("a log")
    }
}

fn first_line(done: &Done) -> String {
    done.text().lines().next().unwrap_or_default().to_owned()
}

#[test]
fn guest_calls_a_service_of_another_that_is_started_for_it() {
    let pair = Pair::new(here!(), "test.Echo * A B allow\ntest.Cat * A B allow");
    let (a, b) = (pair.world.named("a"), pair.world.named("b"));
    let done = pair.in_a("printf 'in\\0put' | casemate-call $B test.Echo+x-1").done().exits(7);
    assert_eq!(done.stdout, format!("{a} test.Echo+x-1 1\nin\0put").into_bytes());
    assert_eq!(pair.world.state(b), "running");
    // The same by the name that scripts know, with a program that speaks for the caller.
    let line = "qrexec-client-vm --buffer-size=4096 $B test.Echo \
                sh -c 'echo asked; exec 1>&2; head -n 2'";
    let done = pair.in_a(line).done().exits(7);
    assert_eq!(done.error().trim(), format!("{a} test.Echo+ 0\nasked"));
    // Half-close both ways: the answer comes while the caller still speaks, and after it.
    let line = "cd $(mktemp -d); mkfifo in; \
                casemate-call $B test.Cat < in | while read l; do echo $l; touch $l; done & \
                exec 3> in; echo one >&3; until [ -e one ]; do sleep 0.1; done; \
                echo two >&3; exec 3>&-; wait";
    assert_eq!(pair.in_a(line).done().ok().text(), "one\ntwo");
    // Binary-clean and whole, more than any buffer holds.
    let line = "head -c 20M /dev/urandom > /tmp/r; sha256sum < /tmp/r; \
                casemate-call $B test.Cat < /tmp/r | sha256sum";
    let done = pair.in_a(line).done().ok();
    let sums: Vec<String> = done.text().lines().map(str::to_owned).collect();
    assert!(sums.len() == 2 && sums[0] == sums[1], "{done}");
    // A caller that reads no more gets no more; its service ends.
    let line = "yes | casemate-call $B test.Cat | head -n 1; echo done";
    assert_eq!(pair.in_a(line).done().ok().text(), "y\ndone");
    until("the service to end", SHORT, || {
        let sessions = pair.world.status(b)["sessions"].as_array().map(Vec::len);
        (sessions == Some(0)).then_some(())
    });
    assert!(pair.log_of_a().contains("30-test.policy:1"), "the rule is named");
}

#[test]
fn call_that_no_rule_allows_is_refused_and_the_guest_learns_no_rule() {
    let pair = Pair::new(here!(), "test.Echo +yes A B allow\n* * A B deny");
    pair.in_a("casemate-call $B test.Echo+yes </dev/null").done().exits(7);
    for (target, service) in [
        ("$B", "test.Echo+no"),
        ("$B", "test.Cat"),
        ("nobody", "test.Echo+yes"),
        ("@default", "test.Echo+yes"),
        ("@adminvm", "casemate.Date"),
        ("$B", "'test Echo'"),
        ("$B", "../../bin/sh"),
        ("$B", "\"$(printf 'a\\033[2J')\""),
        ("$B", "''"),
    ] {
        let done = pair.in_a(&format!("casemate-call {target} {service} </dev/null")).done();
        assert_eq!(done.code, Some(126), "{target} {service}: {done}");
        assert!(!done.error().contains("policy.d"), "{done}");
    }
    assert!(pair.log_of_a().contains("refused (126), a rule denies it ("), "{}", pair.log_of_a());
    // What the policy says now counts.
    pair.allow("* * A B allow");
    pair.in_a("casemate-call $B test.Echo+no </dev/null").done().exits(7);
    pair.in_a("casemate-call $B no.Such </dev/null").done().exits(127).says("no.Such");
    // One that cannot be read stands in the way of everything.
    pair.allow("this is no rule");
    pair.in_a("casemate-call $B test.Echo </dev/null").done().exits(126);
}

#[test]
fn user_is_asked_where_the_policy_leaves_it_to_him() {
    let pair = Pair::new(here!(), "test.Echo * A B ask\ncasemate.Date * A @adminvm ask");
    let world = &pair.world;
    let configure = |program: &str| {
        let path = world.path("asks");
        fs::write(&path, format!("#!/bin/sh\n{program}\n")).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("set");
        let text = fs::read_to_string(world.config()).expect("read");
        let text = text.split("[ask]").next().unwrap_or_default();
        world.configure(&format!("{text}[ask]\nprogram = {path:?}\ntimeout = 5\n"));
    };
    let asked = world.path("asked");
    let b = world.named("b");
    let a = world.named("a");
    configure(&format!("echo \"$1\" > {}; head -n 1", asked.display()));
    pair.in_a("casemate-call $B test.Echo+x </dev/null").done().exits(7);
    let question = fs::read_to_string(&asked).expect("it was asked");
    assert_eq!(question, format!("May `{a}` call test.Echo+x of `{b}`?\n"));
    // No, nothing, something else, and no answer in time.
    for program in ["exit 1", "true", "echo somebody", "exec sleep 60"] {
        configure(program);
        let done = pair.in_a("casemate-call $B test.Echo </dev/null").done();
        assert_eq!(done.code, Some(126), "{program}: {done}");
    }
    assert!(pair.log_of_a().contains("no answer in time"), "{}", pair.log_of_a());
    // A question whose caller has gone goes away.
    configure(&format!("touch {0}.up; exec sleep 61.5", asked.display()));
    let call = pair.in_a("timeout 2 casemate-call dom0 casemate.Date </dev/null").start();
    let up = world.path("asked.up");
    until("the question", SHORT, || up.exists().then_some(()));
    call.done().exits(124);
    let brokers = || world.host_shell(&format!("pgrep -f '[b]roker {a}' | wc -l")).done().text();
    until("the broker to end", SHORT, || (brokers() == "0").then_some(()));
    let programs = || world.host_shell("pgrep -f '[s]leep 61.5' | wc -l").done().text();
    until("the program that asked to end", SHORT, || (programs() == "0").then_some(()));
}

#[test]
fn guest_calls_services_of_the_host() {
    let pair = Pair::new(here!(), "* * A @adminvm allow\n* * A B allow");
    let folder = pair.world.path("rpc");
    fs::create_dir_all(&folder).expect("made");
    let write = |name: &str, script: &str| {
        let path = folder.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("set");
    };
    write("host.Cat", "echo \"$CASEMATE_SOURCE $1 $#\"; cat; exit 5");
    write("host.Cat+special", "echo special");
    write("host.Long", "exec sleep 6543");
    let a = pair.world.named("a");
    let done = pair.in_a("echo in | casemate-call @adminvm host.Cat+x").done().exits(5);
    assert_eq!(done.text(), format!("{a} x 1\nin"));
    let done = pair.in_a("casemate-call dom0 host.Cat+special </dev/null").done().ok();
    assert_eq!(done.text(), "special");
    let done = pair.in_a("date -d \"$(casemate-call dom0 casemate.Date)\" +%s; date +%s").done();
    let times: Vec<i64> = done.text().lines().filter_map(|line| line.parse().ok()).collect();
    assert!(times.len() == 2 && (times[0] - times[1]).abs() <= 2, "{done}");
    pair.in_a("casemate-call dom0 host.None </dev/null").done().exits(127);
    // A program of the host whose caller goes, goes.
    pair.in_a("timeout 2 casemate-call dom0 host.Long </dev/null").done().exits(124);
    let gone = || pair.world.host_shell("pgrep -f '[s]leep 6543' | wc -l").done().text() == "0";
    until("the program to end", SHORT, || gone().then_some(()));
}

#[test]
fn host_calls_a_service_of_a_guest() {
    let pair = Pair::new(here!(), "");
    let b = pair.world.named("b");
    let call = |words: &[&str]| pair.world.casemate(words).within(PATIENCE);
    let done = call(&["call", b, "test.Echo+arg"]).input("in").done().exits(7);
    assert_eq!(done.text(), "dom0 test.Echo+arg 1\nin");
    call(&["call", b, "test.None"]).done().exits(127).says("test.None");
    call(&["call", b, "a b"]).done().exits(125).says("service");
    call(&["call", "nobody-here", "test.Echo"]).done().exits(125);
    assert_eq!(first_line(&call(&["call", b, "test.Cat"]).input("x\ny").done().ok()), "x");
}

#[test]
fn service_may_be_a_socket() {
    let pair = Pair::new(here!(), "* * A B allow");
    let (a, b) = (pair.world.named("a"), pair.world.named("b"));
    let server = "use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Listen => 5, \
                  Local => '/etc/casemate/rpc/test.Socket') or die; chmod 0777, \
                  '/etc/casemate/rpc/test.Socket'; while (my $c = $s->accept) { \
                  local $/ = \"\\0\"; my $l = <$c>; chop $l; print $c \"[$l]\"; local $/; \
                  my $r = <$c>; print $c uc $r; close $c }";
    pair.world
        .casemate(["run", "--root", "--detach", b, "--", "perl", "-e", server])
        .within(PATIENCE)
        .done()
        .ok();
    let line = "for i in 1 2 3 4 5 6 7 8 9; do printf hello | \
                casemate-call $B test.Socket+arg && exit; sleep 0.5; done";
    let done = pair.in_a(line).done().ok();
    assert_eq!(done.text(), format!("[test.Socket+arg {a}]HELLO"));
}

#[test]
fn calls_without_end_are_bounded_and_others_pass() {
    let pair = Pair::new(here!(), "* * A B allow");
    let (a, b) = (pair.world.named("a"), pair.world.named("b"));
    pair.world.casemate(["start", a, b]).within(PATIENCE).done().ok();
    // Forty at once go through.
    let line = "for i in $(seq 40); do casemate-call $B test.Echo+$i </dev/null >/tmp/o.$i; \
                echo $? >> /tmp/codes & done; wait; sort /tmp/codes | uniq -c";
    let done = pair.in_a(line).done().ok();
    assert_eq!(done.text().trim(), "40 7");
    // A guest that calls without end; the other's and the host's calls pass meanwhile.
    let endless = "while :; do casemate-call nobody test.No </dev/null 2>/dev/null & \
                   sleep 0.02; done";
    let flood = pair.in_a(endless).start();
    for _ in 0..3 {
        let call = pair.world.casemate(["call", b, "test.Cat"]).within(PATIENCE);
        assert_eq!(call.input("x").done().ok().text(), "x");
        assert_eq!(pair.world.state(a), "running");
    }
    drop(flood);
    // A target that ends in the middle is trouble, not a refusal.
    let held = pair.in_a("sleep 600 | casemate-call $B test.Cat").start();
    until("the call to go through", SHORT, || {
        let sessions = pair.world.status(b)["sessions"].as_array().map(Vec::len);
        (sessions == Some(1)).then_some(())
    });
    pair.world.casemate(["stop", "--force", b]).within(SHORT).done().ok();
    held.expect_error("without saying how");
    drop(held);
    pair.world.casemate(["stop", a]).within(SHORT).done().ok();
    pair.world.assert_gone(a);
    pair.world.assert_gone(b);
}
