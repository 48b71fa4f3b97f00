//! Keys sealed by a TPM, which swtpm plays.
//!
//! One test, because the programs are told in the environment which TPM is theirs.

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use casemate_config::KeySource;
use common::{banking, home, world};

struct Simulator(Child);

impl Simulator {
    fn start(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).expect("made");
        let socket = folder.join("tpm");
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", folder.display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", socket.display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}.ctrl", socket.display()))
            .stderr(Stdio::null())
            .spawn()
            .expect("swtpm");
        let deadline = Instant::now() + Duration::from_secs(20);
        while !socket.exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        Self(child)
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_sealed_key_opens_with_the_tpm_that_sealed_it_only() {
    let tools = &["cryptsetup", "setpriv", "swtpm", "tpm2_createprimary", "tpm2_unseal"];
    let Some(world) = world(tools) else { return };
    if std::env::var_os("CASEMATE_TEST_TPM").is_none() {
        // Again, in a process whose environment names the simulator.
        let _simulator = Simulator::start(&world.directory.path().join("a"));
        let _other = Simulator::start(&world.directory.path().join("b"));
        let run = |name: &str, folder: &str| {
            let socket = world.directory.path().join(folder).join("tpm");
            let output = Command::new(std::env::current_exe().expect("a path"))
                .args(["--exact", "a_sealed_key_opens_with_the_tpm_that_sealed_it_only"])
                .arg("--nocapture")
                .env("CASEMATE_TEST_TPM", name)
                .env("CASEMATE_TEST_TPM_DATA", world.directory.path())
                .env("TPM2TOOLS_TCTI", format!("swtpm:path={}", socket.display()))
                .output()
                .expect("run");
            assert!(output.status.success(), "{name}: {output:?}");
        };
        run("create", "a");
        run("open", "a");
        run("other", "b");
        return;
    }
    let data = std::env::var("CASEMATE_TEST_TPM_DATA").expect("set");
    let volumes = casemate_volume::Volumes::at(&Path::new(&data).join("data"));
    let source = KeySource::Tpm2;
    let spec = home(16, source.clone());
    let unlock = world.unlock(None);
    match std::env::var("CASEMATE_TEST_TPM").expect("set").as_str() {
        "create" => volumes.create(&banking(), &spec, &unlock).expect("created"),
        "open" => {
            let volume = volumes.lock(&banking(), &spec.name).expect("locked");
            let key = volume.open_key(&source, &unlock).expect("opened");
            for _ in 0..3 {
                let again = volume.open_key(&source, &unlock).expect("opened again");
                assert_eq!(again.bytes(), key.bytes());
            }
        }
        _ => {
            let volume = volumes.lock(&banking(), &spec.name).expect("locked");
            let error = volume.open_key(&source, &unlock).expect_err("another TPM");
            assert!(error.to_string().contains("TPM"), "{error}");
            assert!(!error.is_wrong_passphrase());
        }
    }
}
