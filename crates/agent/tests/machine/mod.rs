//! A real guest for the tests: an initrd with the agent in it, QEMU, and the host's side of the
//! protocol.
//!
//! What is needed comes by environment variables, because it is large and not part of the source:
//! `CASEMATE_TEST_KERNEL` (vmlinux or bzImage), `CASEMATE_TEST_ROOT` (an erofs image),
//! `CASEMATE_TEST_MODULES` (a folder with `order` and the modules). `CASEMATE_TEST_AGENT` names a
//! static agent other than the one cargo has built.

pub mod cpio;
pub mod host;

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use casemate_wire::{Boot, FromGuest, FromHost, Init, RootDisk, User};

use host::Host;

/// Where the parts of a guest are.
#[derive(Debug)]
pub struct Parts {
    pub kernel: PathBuf,
    pub root: PathBuf,
    pub modules: PathBuf,
    pub agent: PathBuf,
}

impl Parts {
    /// The parts, or why a test must be skipped.
    pub fn find(built_agent: Option<&str>) -> Result<Self, String> {
        let variable = |name: &str| {
            std::env::var_os(name).map(PathBuf::from).ok_or_else(|| format!("{name} is not set"))
        };
        let agent = variable("CASEMATE_TEST_AGENT")
            .or_else(|missing| built_agent.map(PathBuf::from).ok_or(missing))?;
        let parts = Self {
            kernel: variable("CASEMATE_TEST_KERNEL")?,
            root: variable("CASEMATE_TEST_ROOT")?,
            modules: variable("CASEMATE_TEST_MODULES")?,
            agent,
        };
        for part in [&parts.kernel, &parts.root, &parts.modules, &parts.agent] {
            if !part.exists() {
                return Err(format!("{} does not exist", part.display()));
            }
        }
        let program = fs::read(&parts.agent).map_err(|error| error.to_string())?;
        if has_interpreter(&program) {
            return Err("the agent is not linked statically".to_owned());
        }
        match Command::new("qemu-system-x86_64").arg("--version").output() {
            Ok(_) => Ok(parts),
            Err(error) => Err(format!("qemu-system-x86_64: {error}")),
        }
    }
}

/// A running guest. Ends with this value.
pub struct Machine {
    qemu: Child,
    folder: PathBuf,
    pub host: Host,
}

/// How a machine shall differ from the usual one.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// More modules or files: path in the initrd and content.
    pub files: Vec<(String, Vec<u8>)>,
    /// Kernel parameters.
    pub parameters: String,
    /// Instead of the agent.
    pub init: Option<PathBuf>,
}

impl Machine {
    /// Starts QEMU and connects to the port. The greeting has not been exchanged yet.
    pub fn start(parts: &Parts, options: &Options) -> io::Result<Self> {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = format!("casemate-guest-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        fs::create_dir_all(&folder)?;
        let initrd = folder.join("initrd");
        fs::write(&initrd, initrd_for(parts, options)?)?;
        let port = folder.join("link");
        let qemu = Command::new("qemu-system-x86_64")
            .args(["-accel", "tcg", "-machine"])
            .arg("q35,sata=off,smbus=off,usb=off,vmport=off,i8042=off")
            .args(["-cpu", "qemu64", "-m", "256", "-nodefaults", "-no-user-config"])
            .args(["-display", "none", "-no-reboot", "-kernel"])
            .arg(&parts.kernel)
            .arg("-initrd")
            .arg(&initrd)
            .args(["-append", &parameters(options), "-chardev"])
            .arg(format!("file,id=con,path={}", folder.join("console").display()))
            .args(["-serial", "chardev:con", "-device", "virtio-serial-pci", "-chardev"])
            .arg(format!("socket,id=link,path={},server=on,wait=off", port.display()))
            .args(["-device", "virtserialport,chardev=link,name=casemate.link", "-blockdev"])
            .arg(format!(
                "driver=file,filename={},node-name=root,read-only=on",
                parts.root.display()
            ))
            .args(["-device", "virtio-blk-pci,drive=root,serial=root", "-chardev"])
            // A second port, for comparison.
            .arg(format!("socket,id=bare,path={}-bare,server=on,wait=off", port.display()))
            .args(["-device", "virtserialport,chardev=bare,name=bare"])
            .stdin(Stdio::null())
            .spawn()?;
        let stream = connect(&port);
        // Constructed first, so that a failed connection ends QEMU too.
        let mut machine = Self { qemu, folder, host: Host::unconnected() };
        machine.host = Host::new(stream?)?;
        Ok(machine)
    }

    /// Starts a guest and waits until it is ready.
    pub fn boot(parts: &Parts) -> Self {
        let mut machine = Self::start(parts, &Options::default()).expect("QEMU starts");
        machine.host.wait_for_hello();
        machine.host.send(&FromHost::Boot(Box::new(boot_message())));
        machine.wait_until_ready();
        machine
    }

    /// Waits for Ready; shows the console when the guest says anything else.
    pub fn wait_until_ready(&mut self) {
        loop {
            match self.host.message(Duration::from_secs(60)) {
                Some(FromGuest::Ready) => return,
                Some(FromGuest::Log { text }) => println!("guest: {text}"),
                other => panic!("not ready: {other:?}\n{}", self.console()),
            }
        }
    }

    /// A new connection, as after the host's process was restarted.
    pub fn reconnect(&mut self) {
        self.host = Host::unconnected();
        let stream = connect(&self.folder.join("link")).expect("the socket is there");
        self.host = Host::new(stream).expect("usable");
        self.host.knock();
    }

    /// The host's end of the second port, `/dev/vport0p2` in the guest.
    pub fn bare_port(&self) -> io::Result<UnixStream> {
        connect(&self.folder.join("link-bare"))
    }

    /// Processor time that QEMU has used: less than the clock a matter of who else is busy.
    pub fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.qemu.id())).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u64 =
            fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// What the guest wrote on its serial console.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.join("console")).unwrap_or_default()).into()
    }

    /// How long QEMU took to end, or none when it did not within ten seconds.
    pub fn wait_for_end(&mut self) -> Option<Duration> {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(10) {
            if let Ok(Some(_)) = self.qemu.try_wait() {
                return Some(begin.elapsed());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        } else {
            println!("kept: {}", self.folder.display());
        }
    }
}

/// Whether a 64-bit ELF program has a PT_INTERP header, hence needs a dynamic loader.
fn has_interpreter(program: &[u8]) -> bool {
    let number = |at: usize, len: usize| {
        let bytes = program.get(at..at + len).unwrap_or_default();
        bytes.iter().rev().fold(0, |sum, &byte| sum << 8 | usize::from(byte))
    };
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).any(|index| number(table + index * size, 4) == 3)
}

fn parameters(options: &Options) -> String {
    format!(
        "console=ttyS0 quiet panic=-1 cryptomgr.notests printk.devkmsg=on {}",
        options.parameters
    )
}

fn connect(port: &Path) -> io::Result<UnixStream> {
    let begin = Instant::now();
    loop {
        match UnixStream::connect(port) {
            Err(_) if begin.elapsed() < Duration::from_secs(10) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

fn initrd_for(parts: &Parts, options: &Options) -> io::Result<Vec<u8>> {
    let mut initrd = cpio::Archive::default();
    initrd.folder("modules");
    let init = options.init.as_ref().unwrap_or(&parts.agent);
    initrd.file("init", 0o755, &fs::read(init)?);
    let order = fs::read_to_string(parts.modules.join("order"))?;
    for module in order.lines().filter(|line| !line.is_empty()) {
        initrd.file(&format!("modules/{module}"), 0o644, &fs::read(parts.modules.join(module))?);
    }
    initrd.file("modules/order", 0o644, order.as_bytes());
    for (path, content) in &options.files {
        initrd.file(path, 0o644, content);
    }
    Ok(initrd.finish())
}

/// What most tests ask the guest to be.
pub fn boot_message() -> Boot {
    Boot {
        hostname: "testguest".into(),
        machine_id: "0123456789abcdef0123456789abcdef".into(),
        clock: 1_900_000_000_000_000_000,
        seed: (0..64).collect(),
        root: RootDisk {
            serial: "root".into(),
            filesystem: "erofs".into(),
            overlay: true,
            verity: None,
        },
        overlay_size: 64 << 20,
        volumes: vec![],
        init: Init::Agent,
        units: vec![],
        users: vec![User {
            name: "tess".into(),
            uid: Some(1007),
            groups: vec!["audio".into(), "video".into()],
            shell: "/bin/bash".into(),
            authorized_keys: vec!["ssh-ed25519 AAAA test".into()],
        }],
        default_user: "tess".into(),
        files: Vec::new(),
        sysctls: vec![("kernel.dmesg_restrict".into(), "0".into())],
        timezone: Some("Europe/Berlin".into()),
        environment: vec![("COMPARTMENT".into(), "test".into())],
        console_user: None,
        secrets: vec![],
        restrictions: Default::default(),
        shares: vec![],
        network: None,
        ports: vec![],
    }
}
