//! `casemate run`: behaves like `ssh host command`, without the shell in between.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::OnceLock;
use std::time::Duration;

use sha2::{Digest, Sha256};
use systemtest::{Shared, World, here, soak, until};

static WORLD: OnceLock<World> = OnceLock::new();

fn world(test: &'static str) -> Shared {
    World::shared(test, &WORLD, "guest.env = { FROM_CONFIGURATION = \"yes\" }")
}

const MIB: u64 = 1024 * 1024;

/// The same unpredictable-looking bytes each time: xorshift64*.
struct Noise {
    state: u64,
    left: u64,
}

impl Noise {
    fn new(length: u64) -> Self {
        Self { state: 0x9e37_79b9_7f4a_7c15, left: length }
    }

    fn bytes(length: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        Self::new(length).read_to_end(&mut bytes).expect("it never fails");
        bytes
    }

    fn digest(length: u64) -> Vec<u8> {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        let mut noise = Self::new(length);
        while let Ok(count @ 1..) = noise.read(&mut buffer) {
            hash.update(&buffer[..count]);
        }
        hash.finalize().to_vec()
    }
}

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        for piece in buffer[..count].chunks_mut(8) {
            self.state ^= self.state >> 12;
            self.state ^= self.state << 25;
            self.state ^= self.state >> 27;
            let word = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            piece.copy_from_slice(&word[..piece.len()]);
        }
        self.left -= count as u64;
        Ok(count)
    }
}

#[test]
fn arguments_arrive_exactly_as_given() {
    let world = world(here!());
    let arguments: Vec<OsString> = vec![
        "two words".into(),
        "".into(),
        "'single' \"double\" `back` $HOME $(id) ; & | > < * ? ~".into(),
        "line\nbreak\ttab\\".into(),
        "--help".into(),
        "--".into(),
        "ünïcödé 漢字".into(),
        OsString::from_vec(vec![0xff, 0xfe, b'x', 0x80, 1]),
        "".into(),
    ];
    let mut command: Vec<OsString> = vec!["printf".into(), "%s\\0".into()];
    command.extend(arguments.iter().cloned());
    let done = world.run(&command).done().ok();
    let received: Vec<&[u8]> = done.stdout.split(|&byte| byte == 0).collect();
    let mut expected: Vec<&[u8]> = arguments.iter().map(|word| word.as_bytes()).collect();
    expected.push(b"");
    assert_eq!(received, expected);
}

#[test]
fn long_argument_vector_arrives_and_one_over_the_limit_is_refused() {
    let world = world(here!());
    let long = "x".repeat(100_000);
    let words = vec!["printf", "%s", &long, &long, &long, &long];
    assert_eq!(world.run(words).done().ok().stdout.len(), 400_000);
    let words: Vec<&str> = ["printf", "%s"].into_iter().chain([long.as_str(); 6]).collect();
    let done = world.run(words).done().exits(125).says("error:");
    assert!(done.error().contains("argument"), "it must name what is too long: {done}");
}

#[test]
fn output_and_errors_are_kept_apart() {
    let world = world(here!());
    let done = world.shell("printf out; printf err >&2; printf out2").done().ok();
    assert_eq!(done.text(), "outout2");
    assert!(done.error().ends_with("err"), "{done}");
}

#[test]
fn exit_codes_pass_through() {
    let world = world(here!());
    for code in [0, 1, 2, 42, 124, 125, 126, 127, 128, 137, 200, 254, 255] {
        world.run(["sh", "-c", &format!("exit {code}")]).done().exits(code);
    }
}

#[test]
fn command_that_is_not_there_ends_with_127_and_one_that_is_not_executable_with_126() {
    let world = world(here!());
    world.run(["no-such-program"]).done().exits(127).says("error:").says("no-such-program");
    world.run(["/no/such/program"]).done().exits(127).says("/no/such/program");
    world.run(["/etc/passwd"]).done().exits(126).says("error:").says("/etc/passwd");
    world.run(["/etc"]).done().exits(126);
    world.run_with(["--user", "nobody-at-all"], ["true"]).done().exits(126).says("nobody-at-all");
    world
        .run_with(["--cwd", "/no/such/folder"], ["true"])
        .done()
        .exits(126)
        .says("/no/such/folder");
}

#[test]
fn command_ended_by_a_signal_gives_128_and_its_number() {
    let world = world(here!());
    for (signal, number) in [("TERM", 15), ("KILL", 9), ("SEGV", 11), ("USR1", 10), ("HUP", 1)] {
        world.shell(&format!("kill -{signal} $$; sleep 60")).done().exits(128 + number);
    }
}

#[test]
fn random_bytes_come_back_from_cat_unchanged() {
    let world = world(here!());
    let bytes = Noise::bytes(8 * MIB);
    let done = world.run(["cat"]).input(bytes.clone()).done().ok();
    assert_eq!(done.stdout.len(), bytes.len());
    assert!(done.stdout == bytes, "the bytes differ");
}

#[test]
fn much_data_passes_in_with_equal_checksums() {
    let world = world(here!());
    let length = if soak() { 1024 * MIB } else { 64 * MIB };
    let limit = Duration::from_secs(if soak() { 1800 } else { 180 });
    let call = world.run(["sha256sum"]).stream(Noise::new(length)).within(limit);
    let digest: String = Noise::digest(length).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(call.done().ok().text(), format!("{digest}  -"));
}

#[test]
fn much_data_passes_out_with_equal_checksums() {
    let world = world(here!());
    // Lines of nine bytes: 64 MiB, or 1 GiB.
    let lines: u64 = if soak() { 120_000_000 } else { 7_500_000 };
    let limit = Duration::from_secs(if soak() { 1800 } else { 180 });
    let last = (10_000_000 + lines).to_string();
    let call = world.run(["seq", "10000001", &last]).digest_only().within(limit).start();
    let mut hash = Sha256::new();
    let mut piece = String::new();
    for number in 10_000_001..=10_000_000 + lines {
        writeln!(piece, "{number}").expect("memory");
        if piece.len() > 60_000 || number == 10_000_000 + lines {
            hash.update(&piece);
            piece.clear();
        }
    }
    let done = call.done().ok();
    assert!(done.digest.1 >= 9 * lines, "{} bytes are too few", done.digest.1);
    assert!(done.digest.0 == hash.finalize().to_vec(), "the checksums differ");
}

#[test]
fn end_of_input_reaches_the_command_and_output_goes_on_after_it() {
    let world = world(here!());
    let lines = "pear\napple\n".repeat(1000);
    let done = world.run(["sort", "-u"]).input(lines).done().ok();
    assert_eq!(done.text(), "apple\npear");
    let bytes = Noise::bytes(300_000);
    assert_eq!(world.run(["wc", "-c"]).input(bytes).done().ok().text(), "300000");
    let line = "cat >/dev/null; for i in 1 2 3; do sleep 0.2; echo after $i; done";
    let done = world.shell(line).input("x").done().ok();
    assert_eq!(done.text(), "after 1\nafter 2\nafter 3");
}

#[test]
fn input_that_stays_open_does_not_keep_a_command_from_ending() {
    let world = world(here!());
    let mut call = world.run(["head", "-n", "1"]).hold_input().start();
    call.give(b"first\n");
    assert_eq!(call.done().ok().text(), "first");
    world.run(["true"]).hold_input().start().done().ok();
}

#[test]
fn command_without_input_sees_end_of_file_at_once() {
    let world = world(here!());
    assert_eq!(world.run(["wc", "-c"]).done().ok().text(), "0");
    assert_eq!(world.run(["cat"]).input("").done().ok().text(), "");
}

/// `while read line; do casemate run …; done` must see all its lines when the command inside reads
/// nothing and `</dev/null` is given, and the first command must leave nothing half read behind.
#[test]
fn input_that_belongs_to_others_is_left_alone() {
    let world = world(here!());
    let program = systemtest::programs::program("casemate");
    let line = format!(
        "printf 'a\\nb\\nc\\n' | while read x; do '{}' --config '{}' run {} -- echo $x </dev/null; done",
        program.display(),
        world.config().display(),
        world.name(),
    );
    assert_eq!(world.host_shell(&line).done().ok().text(), "a\nb\nc");
}

#[test]
fn user_root_directory_and_environment_are_as_asked_for() {
    let world = world(here!());
    assert_eq!(world.run(["id", "-un"]).done().ok().text(), "user");
    assert_eq!(world.run_with(["--root"], ["id", "-u"]).done().ok().text(), "0");
    assert_eq!(world.run_with(["--user", "root"], ["id", "-un"]).done().ok().text(), "root");
    assert_eq!(world.run_with(["--user", "nobody"], ["id", "-un"]).done().ok().text(), "nobody");
    assert_eq!(world.run(["pwd"]).done().ok().text(), "/home/user");
    assert_eq!(world.run_with(["--cwd", "/usr/share"], ["pwd"]).done().ok().text(), "/usr/share");
    let environment = world
        .run_with(["--env", "ONE=1 =x", "--env", "EMPTY=", "--env", "TWO=zwei\n2"], ["env", "-0"])
        .env("NOT_PASSED", "1")
        .done()
        .ok();
    let variables: Vec<&[u8]> = environment.stdout.split(|&byte| byte == 0).collect();
    for wanted in [
        "ONE=1 =x",
        "EMPTY=",
        "TWO=zwei\n2",
        "FROM_CONFIGURATION=yes",
        "HOME=/home/user",
        "USER=user",
    ] {
        assert!(variables.contains(&wanted.as_bytes()), "{wanted} is missing in {environment}");
    }
    assert!(!environment.text().contains("NOT_PASSED"), "{environment}");
    let done =
        world.run_with(["--env", "PASSED"], ["printenv", "PASSED"]).env("PASSED", "42").done();
    assert_eq!(done.ok().text(), "42");
    world.run_with(["--root", "--user", "user"], ["true"]).done().exits(125);
    world.run_with(["--env", "=x"], ["true"]).done().exits(125);
}

#[test]
fn command_whose_reader_has_gone_ends_in_the_guest() {
    let world = world(here!());
    let program = systemtest::programs::program("casemate");
    let line = format!(
        "'{}' --config '{}' run {} -- yes here-is-the-flood | head -n 2; sleep 0",
        program.display(),
        world.config().display(),
        world.name(),
    );
    let done = world.host_shell(&line).done().ok();
    assert_eq!(done.text(), "here-is-the-flood\nhere-is-the-flood");
    until("the end of the command in the guest", Duration::from_secs(20), || {
        let found = world.run(["pgrep", "-f", "^yes here-is-the-flood"]).done();
        (found.code == Some(1)).then_some(())
    });
}

#[test]
fn client_whose_reader_has_gone_ends_as_one_killed_by_sigpipe_would() {
    let world = world(here!());
    let program = systemtest::programs::program("casemate");
    let line = format!(
        "{{ '{}' --config '{}' run {} -- yes; echo code $? >&2; }} | head -n 1",
        program.display(),
        world.config().display(),
        world.name(),
    );
    world.host_shell(&line).done().ok().says("code 141");
}

#[test]
fn closed_standard_output_is_no_crash() {
    let world = world(here!());
    let program = systemtest::programs::program("casemate");
    let base = format!(
        "'{}' --config '{}' run {} --",
        program.display(),
        world.config().display(),
        world.name()
    );
    let done = world.host_shell(&format!("{base} true >&-; echo $?")).done().ok();
    assert_eq!(done.text(), "0");
    let done = world.host_shell(&format!("{base} cat <&-; echo $?")).done().ok();
    assert_eq!(done.text(), "0");
    assert!(!done.error().contains("panic"), "{done}");
}

#[test]
fn compartment_that_is_unknown_is_named_with_what_is_near() {
    let world = world(here!());
    let near = format!("{}x", world.name());
    let done = world.casemate(["run", &near, "--", "true"]).done().exits(125);
    done.says("error: there is no compartment").says("hint: did you mean");
    world.casemate(["run"]).done().exits(125);
    world.casemate(["start"]).done().exits(2);
}

#[test]
fn short_names_of_the_original_system_work_as_links() {
    let world = world(here!());
    let link = world.path("vm-run");
    std::os::unix::fs::symlink(systemtest::programs::program("casemate"), &link).expect("linked");
    let done = world
        .call(OsStr::new(&link))
        .args(["--config".as_ref(), world.config().as_os_str()])
        .args([world.name(), "echo", "--hello"])
        .done()
        .ok();
    assert_eq!(done.text(), "--hello");
}
