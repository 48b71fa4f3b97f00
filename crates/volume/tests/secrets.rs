//! Files encrypted with age: to an identity, to recipients of their folder, to keys of ssh, with a
//! passphrase of their own.

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use casemate_volume::{KeyError, Secret, Unlock, age};
use common::world;

const TOOLS: [&str; 2] = ["age", "setpriv"];

/// Runs a program that makes keys; what it prints.
fn make(program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program).args(arguments).output().expect("started");
    assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("text")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[test]
fn folder_says_to_whom_its_secrets_are_encrypted() {
    let Some(world) = world(&TOOLS) else { return };
    let at = |name: &str| world.directory.path().join(name);
    for name in ["admin", "banking", "shopping"] {
        make("age-keygen", &["-o", text(&at(name))]);
        fs::create_dir_all(at("secrets").join(name)).expect("made");
    }
    let public = |name: &str| make("age-keygen", &["-y", text(&at(name))]);
    for name in ["banking", "shopping"] {
        let recipients = at("secrets").join(name).join("recipients.txt");
        fs::write(recipients, public("admin") + &public(name)).expect("written");
    }
    let file = at("secrets/banking/pin.age");
    let secret = Secret::copied(b"4711");
    // Whoever writes it needs no key at all.
    let nobody = at("nobody");
    age::write(&file, &secret, &Unlock { passphrase: None, identity: &nobody }).expect("written");
    assert!(!nobody.exists(), "and none was made");
    let opened = |name: &str| {
        let identity = at(name);
        age::decrypt(&file, &Unlock { passphrase: None, identity: &identity })
    };
    for name in ["admin", "banking"] {
        assert_eq!(opened(name).expect("its own").bytes(), b"4711");
    }
    assert!(matches!(opened("shopping"), Err(KeyError::WrongIdentity { .. })));
}

#[test]
fn key_of_ssh_opens_with_a_passphrase_and_without() {
    let Some(world) = world(&["age", "setpriv", "ssh-keygen"]) else { return };
    let at = |name: &str| world.directory.path().join(name);
    for (name, passphrase) in [("open", ""), ("closed", "correct horse")] {
        let key = at(name);
        make("ssh-keygen", &["-q", "-t", "ed25519", "-N", passphrase, "-f", text(&key)]);
        let file = at("pin.age");
        let typed = Secret::copied(b"correct horse");
        let passphrase = (!passphrase.is_empty()).then_some(&typed);
        let unlock = Unlock { passphrase: None, identity: &key };
        age::write(&file, &Secret::copied(b"4711"), &unlock).expect("nobody needs to type for it");
        match (passphrase, age::decrypt(&file, &unlock)) {
            (None, opened) => assert_eq!(opened.expect("opened").bytes(), b"4711"),
            (Some(_), opened) => {
                assert!(matches!(opened, Err(KeyError::PassphraseNeeded(_))), "{opened:?}");
                let wrong = Secret::copied(b"battery");
                let unlock = Unlock { passphrase: Some(&wrong), identity: &key };
                let error = age::decrypt(&file, &unlock).expect_err("wrong");
                assert!(matches!(error, KeyError::Wrong(_)), "{error:?}");
                let unlock = Unlock { passphrase, identity: &key };
                assert_eq!(age::decrypt(&file, &unlock).expect("opened").bytes(), b"4711");
            }
        }
    }
}

#[test]
fn file_may_have_a_passphrase_of_its_own() {
    let Some(world) = world(&["age", "setpriv", "script"]) else { return };
    let file = world.directory.path().join("pin.age");
    fs::write(world.directory.path().join("pin"), "4711").expect("written");
    let line =
        format!("age --passphrase --output {} {}", text(&file), text(&file.with_extension("")));
    let mut child = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("script");
    let mut keyboard = child.stdin.take().expect("piped");
    keyboard.write_all(b"correct horse\ncorrect horse\n").expect("typed");
    assert!(child.wait().expect("ended").success());
    let none = world.unlock(None);
    assert!(matches!(age::decrypt(&file, &none), Err(KeyError::PassphraseNeeded(_))));
    let wrong = Secret::copied(b"battery");
    assert!(matches!(age::decrypt(&file, &world.unlock(Some(&wrong))), Err(KeyError::Wrong(_))));
    let right = Secret::copied(b"correct horse");
    let opened = age::decrypt(&file, &world.unlock(Some(&right))).expect("opened");
    assert_eq!(opened.bytes(), b"4711");
}
