//! A guest that does what the protocol forbids: `/init` of the machines of `tests/hostile.rs`.
//!
//! The word `hostile=` of the kernel's command line says what it does. It is linked statically, as
//! nothing else is in its file system.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use casemate_wire::message::{Assembler, push_message};
use casemate_wire::{
    Decoder, ExitStatus, FromGuest, FromHost, Kind, PORT_NAME, PROTOCOL_VERSION, encode, preamble,
    push_frame,
};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

/// What a terminal obeys: title, clear, colours, a report it would type, a link; and what turns
/// the reading direction.
const ESCAPES: &str = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x1b[6n\u{9b}5n\x1b]8;;http://x\x1b\\\r\x08\u{202e}evil\u{2066}\u{200b}";

fn main() {
    if std::process::id() != 1 {
        eprintln!("hostile-agent is for a machine of the system tests");
        std::process::exit(2);
    }
    set_up();
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let mode = line.split_whitespace().find_map(|word| word.strip_prefix("hostile="));
    let mode = mode.unwrap_or("silent").to_owned();
    if mode == "console" {
        let mut console = OpenOptions::new().write(true).open("/dev/console").expect("a console");
        // The panic of a vanished console would be as good.
        let _ = writeln!(console, "{ESCAPES}");
    }
    // A port that is gone ends the game.
    let _ = play(&mode);
    sleep_for_ever();
}

/// File systems and the modules that the port needs.
fn set_up() {
    for (source, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        // Those already there are as good.
        let _ = mount(Some(source), target, Some(source), MsFlags::empty(), None::<&str>);
    }
    for name in fs::read_to_string("/modules/order").unwrap_or_default().lines() {
        if let Ok(file) = File::open(format!("/modules/{name}")) {
            let _ = finit_module(&file, c"", ModuleInitFlags::empty());
        }
    }
}

fn sleep_for_ever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn find_port() -> Option<PathBuf> {
    for entry in fs::read_dir("/sys/class/virtio-ports").ok()?.flatten() {
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim_end() == PORT_NAME {
            return Some(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    None
}

/// The port, and what was said on it.
struct Link {
    port: File,
    decoder: Decoder,
    assembler: Assembler,
}

impl Link {
    fn open() -> std::io::Result<Self> {
        let path = loop {
            match find_port() {
                Some(path) => break path,
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        let port = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Self { port, decoder: Decoder::new(), assembler: Assembler::default() })
    }

    /// Agrees on the beginning of the connection.
    fn greet(&mut self) -> std::io::Result<()> {
        let nonce = 0x686f_7374_696c_6521;
        self.port.write_all(&preamble::encode(preamble::FROM_GUEST, nonce))?;
        let mut hunter = preamble::Hunter::for_guest(nonce);
        let mut byte = [0];
        loop {
            // One by one: what follows belongs to the frames.
            if self.port.read(&mut byte)? == 1 && hunter.feed(&byte).is_some() {
                return Ok(());
            }
        }
    }

    fn say(&mut self, message: &FromGuest) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        push_message(&mut bytes, message).map_err(std::io::Error::other)?;
        self.port.write_all(&bytes)
    }

    fn frame(&mut self, stream: u32, kind: Kind, payload: &[u8]) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        push_frame(&mut bytes, stream, kind, payload);
        self.port.write_all(&bytes)
    }

    /// The next control message; what belongs to sessions is ignored.
    fn hear(&mut self) -> std::io::Result<FromHost> {
        loop {
            while let Some(frame) = self.decoder.next_frame().map_err(std::io::Error::other)? {
                if frame.stream != 0 {
                    continue;
                }
                let message = self.assembler.take(frame).map_err(std::io::Error::other)?;
                if let Some(message) = message {
                    return Ok(message);
                }
            }
            let count = self.port.read(self.decoder.space())?;
            self.decoder.filled(count);
        }
    }

    fn hello(&mut self) -> std::io::Result<()> {
        self.say(&hello(PROTOCOL_VERSION, "hostile", &[]))
    }

    /// As an agent should, until the first session is asked for; returns its stream.
    fn until_session(&mut self) -> std::io::Result<u32> {
        self.greet()?;
        self.hello()?;
        loop {
            match self.hear()? {
                FromHost::Boot(_) => self.say(&FromGuest::Ready)?,
                FromHost::Open { stream, .. } => return Ok(stream),
                _ => {}
            }
        }
    }
}

fn hello(protocol: u16, version: &str, features: &[String]) -> FromGuest {
    FromGuest::Hello {
        protocol,
        version: version.into(),
        features: features.to_vec(),
        kernel: version.into(),
        booted: false,
    }
}

fn play(mode: &str) -> std::io::Result<()> {
    match mode {
        "silent" => sleep_for_ever(),
        "reset" => {
            let _ = reboot(RebootMode::RB_AUTOBOOT);
        }
        "poweroff" => {
            let _ = reboot(RebootMode::RB_POWER_OFF);
        }
        _ => {}
    }
    let mut link = Link::open()?;
    match mode {
        "garbage" => loop {
            link.port.write_all(&[0xa5; 32 * 1024])?;
        },
        "other-version" => {
            link.greet()?;
            link.say(&hello(999, &format!("9.9{ESCAPES}"), &[]))?;
        }
        "escapes" => {
            link.greet()?;
            // Together just below the longest control message.
            let features: Vec<String> = vec![ESCAPES.repeat(2); 1000];
            link.say(&hello(PROTOCOL_VERSION, &ESCAPES.repeat(3000), &features))?;
            link.say(&FromGuest::Log { text: ESCAPES.repeat(2000) })?;
            answer(&mut link)?;
        }
        "unknown-kind" => {
            link.greet()?;
            link.hello()?;
            link.port.write_all(&[0, 0, 0, 0, 200, 1, 0, 0, 0])?;
        }
        "too-long" => {
            link.greet()?;
            link.hello()?;
            link.port.write_all(&[0, 0, 0, 0, Kind::Message as u8, 0xff, 0xff, 0xff])?;
            loop {
                link.port.write_all(&[0; 32 * 1024])?;
            }
        }
        "unknown-stream" => {
            link.greet()?;
            link.hello()?;
            link.frame(77, Kind::Stdout, b"for nobody")?;
        }
        "early-data" => {
            link.greet()?;
            link.frame(1, Kind::Stdout, b"before Hello")?;
        }
        "no-hello" => {
            link.greet()?;
            link.say(&FromGuest::Ready)?;
        }
        "credit-overflow" => {
            let stream = link.until_session()?;
            link.frame(stream, Kind::Started, &7u32.to_le_bytes())?;
            link.frame(stream, Kind::Credit, &u32::MAX.to_le_bytes())?;
        }
        "overrun" => {
            let stream = link.until_session()?;
            link.frame(stream, Kind::Started, &7u32.to_le_bytes())?;
            loop {
                link.frame(stream, Kind::Stdout, &[b'x'; 32 * 1024])?;
            }
        }
        "wrong-direction" => {
            let stream = link.until_session()?;
            link.frame(stream, Kind::Stdin, b"not yours")?;
        }
        "log-flood" => {
            link.greet()?;
            link.hello()?;
            for _ in 0..100_000 {
                link.say(&FromGuest::Log { text: "flood".into() })?;
            }
        }
        "hello-flood" => {
            link.greet()?;
            loop {
                link.hello()?;
            }
        }
        "endless-parts" => {
            link.greet()?;
            link.hello()?;
            loop {
                link.frame(0, Kind::MessagePart, &[0; 60_000])?;
            }
        }
        "empty-parts" => {
            link.greet()?;
            link.hello()?;
            loop {
                link.frame(0, Kind::MessagePart, &[])?;
            }
        }
        "exit-twice" => {
            let stream = link.until_session()?;
            for _ in 0..2 {
                link.frame(stream, Kind::Started, &7u32.to_le_bytes())?;
                link.frame(stream, Kind::Exit, &encode(&ExitStatus::Code(3)))?;
            }
        }
        "ready-without-boot" => {
            link.greet()?;
            link.hello()?;
            link.say(&FromGuest::Ready)?;
            answer(&mut link)?;
        }
        "no-answer" => {
            link.until_session()?;
        }
        "no-exit" => {
            let stream = link.until_session()?;
            link.frame(stream, Kind::Started, &7u32.to_le_bytes())?;
        }
        "boot-failed" => {
            link.greet()?;
            link.hello()?;
            link.hear()?;
            link.say(&FromGuest::BootFailed { reason: format!("no disk {ESCAPES} here") })?;
        }
        "exit-escapes" => {
            let stream = link.until_session()?;
            let status = ExitStatus::NotFound { reason: ESCAPES.repeat(100) };
            link.frame(stream, Kind::Exit, &encode(&status))?;
            answer(&mut link)?;
        }
        "bad-exit" => {
            let stream = link.until_session()?;
            link.frame(stream, Kind::Exit, &[0xff; 100])?;
        }
        "shutting-down" => {
            link.greet()?;
            link.hello()?;
            link.hear()?;
            link.say(&FromGuest::Ready)?;
            link.say(&FromGuest::ShuttingDown)?;
        }
        "refuses-to-freeze" | "lies-about-freezing" => {
            link.greet()?;
            link.hello()?;
            loop {
                match link.hear()? {
                    FromHost::Boot(_) => link.say(&FromGuest::Ready)?,
                    FromHost::Freeze { id, .. } => {
                        for other in [id.wrapping_add(1), 0, u32::MAX] {
                            link.say(&FromGuest::Frozen { id: other, failure: None })?;
                        }
                        let failure = (mode == "refuses-to-freeze").then(|| ESCAPES.repeat(1000));
                        for _ in 0..100 {
                            link.say(&FromGuest::Frozen { id, failure: failure.clone() })?;
                        }
                    }
                    _ => {}
                }
            }
        }
        "new-greetings" => loop {
            link.port.write_all(&preamble::encode(preamble::FROM_GUEST, 1))?;
            link.hello()?;
            link = Link::open_again(link)?;
        },
        // Also "console": an agent that is as it should be.
        _ => {
            link.greet()?;
            link.hello()?;
            answer(&mut link)?;
        }
    }
    Ok(())
}

impl Link {
    /// Closes the port and opens it anew.
    fn open_again(link: Self) -> std::io::Result<Self> {
        drop(link);
        Self::open()
    }
}

/// Takes orders, and ends every session at once with code 0.
fn answer(link: &mut Link) -> std::io::Result<()> {
    loop {
        match link.hear()? {
            FromHost::Boot(_) => link.say(&FromGuest::Ready)?,
            FromHost::Open { stream, .. } => {
                link.frame(stream, Kind::Started, &7u32.to_le_bytes())?;
                link.frame(stream, Kind::Exit, &encode(&ExitStatus::Code(0)))?;
            }
            FromHost::Shutdown => {
                let _ = reboot(RebootMode::RB_POWER_OFF);
            }
            // Silence to a freeze too.
            _ => {}
        }
    }
}
