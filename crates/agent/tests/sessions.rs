//! Sessions in a real guest: what a command gets, and what comes back of it.

#[allow(dead_code, unreachable_pub)]
mod machine;

use std::time::{Duration, Instant};

use casemate_wire::{ExitStatus, OpenSession, TerminalSize};
use machine::host::{Stream, session};
use machine::{Machine, Parts};

/// A guest that is ready, or none when a test must be skipped.
fn guest(test: &str) -> Option<Machine> {
    match Parts::find(option_env!("CARGO_BIN_EXE_casemate-agent")) {
        Ok(parts) => Some(Machine::boot(&parts)),
        Err(reason) => {
            println!("skipped: {test}: {reason}");
            None
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn shell(script: &str) -> OpenSession {
    session(&["sh", "-c", script])
}

fn on_terminal(mut session: OpenSession) -> OpenSession {
    session.terminal = Some(TerminalSize { rows: 24, columns: 80 });
    session
}

fn code(ended: &Stream) -> u8 {
    ended.exit.as_ref().expect("it has ended").code()
}

#[test]
fn a_command_has_the_streams_arguments_account_and_directory_it_was_promised() {
    let Some(mut guest) = guest("a_command_has_the_streams…") else { return };
    let host = &mut guest.host;

    let ended = host.run(session(&["printf", "%s|", "a b", "", "$x", "*"]), b"");
    assert_eq!((text(&ended.stdout).as_str(), code(&ended)), ("a b||$x|*|", 0));
    assert!(ended.started.is_some() && ended.stdout_closed && ended.stderr_closed);

    let ended = host.run(shell("cat; echo err >&2; exit 7"), b"in\0put\xff");
    assert_eq!(
        (ended.stdout.as_slice(), ended.stderr.as_slice()),
        (&b"in\0put\xff"[..], &b"err\n"[..])
    );
    assert_eq!(ended.exit, Some(ExitStatus::Code(7)));

    let ended =
        host.run(shell("id -un; id -Gn; pwd; umask; ulimit -n; echo $COMPARTMENT $HOME"), b"");
    assert_eq!(
        text(&ended.stdout),
        "tess\ntess audio video\n/home/tess\n0022\n1024\ntest /home/tess\n"
    );

    let mut as_root = shell("id -u; pwd; echo $PATH:$A");
    as_root.user = Some("root".into());
    as_root.cwd = Some(b"/usr".to_vec());
    as_root.environment = vec![(b"A".to_vec(), b"\xfe".to_vec())];
    let ended = host.run(as_root, b"");
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:";
    assert_eq!(ended.stdout, [b"0\n/usr\n", path.as_bytes(), b"\xfe\n"].concat());

    // No descriptor of the agent, no blocked and no ignored signal.
    let ended = host.run(shell("ls /proc/$$/fd; grep -E 'Sig(Blk|Ign)' /proc/self/status"), b"");
    let expected = "0\n1\n2\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n";
    let got = text(&ended.stdout).replace("10\n", "");
    assert_eq!(got, expected);

    let ended = host.run(session(&[]), b"echo $0; shopt -q login_shell && echo login\n");
    assert_eq!(text(&ended.stdout), "-bash\nlogin\n");
}

#[test]
fn a_command_that_cannot_start_says_why() {
    let Some(mut guest) = guest("a_command_that_cannot_start_says_why") else { return };
    let host = &mut guest.host;
    for (session, expected, reason) in [
        (session(&["no-such-program"]), 127, "could not execute no-such-program: No such file"),
        (session(&["/etc/passwd"]), 126, "Permission denied"),
        (session(&["/etc"]), 126, "Permission denied"),
        (session(&["/etc/passwd/x"]), 127, "Not a directory"),
        (
            OpenSession { user: Some("nobody-here".into()), ..session(&["true"]) },
            126,
            "nobody-here",
        ),
        (OpenSession { cwd: Some(b"/none".to_vec()), ..session(&["true"]) }, 126, "directory"),
        (on_terminal(session(&["no-such-program"])), 127, "No such file"),
    ] {
        let ended = host.run(session, b"ignored");
        let exit = ended.exit.expect("it has ended");
        assert_eq!(exit.code(), expected, "{exit:?}");
        assert!(format!("{exit:?}").contains(reason), "{exit:?}");
        assert_eq!(ended.started, None);
    }
    // A file that is no program: the kernel says so, no shell is tried.
    host.run(shell("echo echo no > /tmp/text; chmod +x /tmp/text"), b"");
    let ended = host.run(session(&["/tmp/text"]), b"");
    assert!(
        matches!(ended.exit, Some(ExitStatus::NotExecutable { reason }) if reason.contains("format"))
    );
}

#[test]
fn a_terminal_is_one() {
    let Some(mut guest) = guest("a_terminal_is_one") else { return };
    let host = &mut guest.host;

    let ended =
        host.run(on_terminal(shell("tty; stty size; stat -c '%U %G %a' $(tty); echo $TERM")), b"");
    assert_eq!(text(&ended.stdout), "/dev/pts/0\r\n24 80\r\ntess tty 620\r\nxterm\r\n");

    // Input is echoed; its end is Ctrl-D.
    let ended = host.run(on_terminal(session(&["cat"])), b"one\ntwo");
    assert_eq!(text(&ended.stdout), "one\r\ntwoone\r\ntwo");
    assert_eq!(code(&ended), 0);

    // A new size reaches the foreground as SIGWINCH.
    let script = "trap 'stty size; exit 3' WINCH; echo up; while :; do sleep 0.05; done";
    let stream = host.open(on_terminal(session(&["bash", "-c", script])));
    assert!(
        host.run_until(Duration::from_secs(20), |host| !host.streams[&stream].stdout.is_empty())
    );
    host.resize(stream, TerminalSize { rows: 50, columns: 132 });
    let ended = host.wait_for_exit(stream);
    assert_eq!((text(&ended.stdout).as_str(), code(&ended)), ("up\r\n50 132\r\n", 3));

    // A signal goes to the foreground job, not to the shell behind it.
    let stream = host.open(on_terminal(session(&["bash", "-i"])));
    host.input(stream, b"PS1=; echo begin; sleep 100; echo code $?; exit 4\n");
    assert!(host.run_until(Duration::from_secs(20), |host| {
        host.streams[&stream].stdout.windows(7).any(|bytes| bytes == b"begin\r\n")
    }));
    host.run_until(Duration::from_millis(300), |_| false);
    host.signal(stream, 15);
    let ended = host.wait_for_exit(stream);
    assert!(text(&ended.stdout).contains("code 143"), "{}", text(&ended.stdout));
    assert_eq!(code(&ended), 4);

    // Output written right before the end arrives to the last byte.
    for _ in 0..10 {
        let ended = host.run(on_terminal(shell("seq 1 3000")), b"");
        assert!(ended.stdout.ends_with(b"\r\n3000\r\n"));
        assert_eq!(ended.stdout.iter().filter(|&&byte| byte == b'\n').count(), 3000);
    }

    // A paste larger than the terminal's buffers, read slowly and without echo.
    let script = "stty raw -echo; echo ready; sleep 0.5; head -c 200000 | md5sum";
    let stream = host.open(on_terminal(shell(script)));
    assert!(
        host.run_until(Duration::from_secs(20), |host| !host.streams[&stream].stdout.is_empty())
    );
    host.input(stream, &vec![b'x'; 200_000]);
    let ended = host.wait_for_exit(stream);
    assert!(
        text(&ended.stdout).contains("4b98146705d4b0b98b758a78ff6fb73f"),
        "{}",
        text(&ended.stdout)
    );
    assert_eq!(code(&ended), 0);
}

#[test]
fn a_session_ends_once_and_completely() {
    let Some(mut guest) = guest("a_session_ends_once_and_completely") else { return };
    let host = &mut guest.host;

    let ended = host.run(shell("kill -KILL $$"), b"");
    assert_eq!(ended.exit, Some(ExitStatus::Signal(9)));

    // A signal that comes before the program runs is not lost.
    let stream = host.open(session(&["sleep", "100"]));
    host.signal(stream, 15);
    assert_eq!(host.wait_for_exit(stream).exit, Some(ExitStatus::Signal(15)));

    // Real-time signals, to the whole process group.
    let stream = host.open(session(&["bash", "-c", "sleep 100 | sleep 100"]));
    assert!(
        host.run_until(Duration::from_secs(20), |host| host.streams[&stream].started.is_some())
    );
    host.run_until(Duration::from_millis(300), |_| false);
    host.signal(stream, 40);
    assert_eq!(host.wait_for_exit(stream).exit, Some(ExitStatus::Signal(40)));

    // A child that lives on with the pipes in its hands is not waited for and not ended.
    let begin = Instant::now();
    let ended = host.run(shell("sleep 30 & echo $!; head -c 300000 /dev/zero"), b"");
    assert!(begin.elapsed() < Duration::from_secs(20));
    let pid = text(&ended.stdout).lines().next().expect("a pid").to_owned();
    assert_eq!(ended.stdout.len(), pid.len() + 1 + 300_000);
    assert_eq!(code(&host.run(shell(&format!("kill {pid}")), b"")), 0);

    // One that writes on and on does not keep the session either.
    let begin = Instant::now();
    assert_eq!(code(&host.run(shell("yes & sleep 0.2"), b"")), 0);
    assert!(begin.elapsed() < Duration::from_secs(20));

    // A command that closes its input leaves nobody waiting for credit.
    let ended = host.run(shell("exec <&-; sleep 0.3; echo done"), &vec![0; 2_000_000]);
    assert_eq!((text(&ended.stdout).as_str(), code(&ended)), ("done\n", 0));

    // Half-closed the other way: output ends, input is read on.
    let ended = host.run(shell("exec >&- 2>&-; cat > /tmp/kept; exit 5"), b"kept");
    assert_eq!(code(&ended), 5);
    assert_eq!(host.run(session(&["cat", "/tmp/kept"]), b"").stdout, b"kept");

    // Hanging up ends everything the session started, daemons included.
    let script = "trap '' HUP; setsid sleep 4242 & sleep 4242 & echo up; wait";
    let stream = host.open(shell(script));
    assert!(
        host.run_until(Duration::from_secs(20), |host| !host.streams[&stream].stdout.is_empty())
    );
    host.hang_up(stream);
    host.streams.remove(&stream);
    host.run_until(Duration::from_millis(1500), |_| false);
    assert_eq!(code(&host.run(shell("pgrep -f 'sleep 424[2]'"), b"")), 1);

    // Its cgroup is gone with it; those of the others too.
    let ended = host.run(shell("ls -d /sys/fs/cgroup/casemate/*/ | wc -l"), b"");
    assert_eq!(text(&ended.stdout), "1\n");

    // A detached session reads nothing and writes as any other.
    let detached = OpenSession { detached: true, ..shell("cat; echo out; readlink /proc/$$/fd/0") };
    let stream = host.open(detached);
    let ended = host.wait_for_exit(stream);
    assert_eq!(text(&ended.stdout), "out\n/dev/null\n");
}
