//! A real rsyslogd that writes what it receives into a file, and certificates for it.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use casemate_audit::{Event, Head, Log};

/// How a server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listens {
    Tcp,
    Tls,
    /// And wants to be shown a certificate of its own authority.
    MutualTls,
    Udp,
}

/// A running rsyslogd.
pub(crate) struct Server {
    child: Option<Child>,
    folder: PathBuf,
    listens: Listens,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn new(folder: &Path, listens: Listens) -> Self {
        let folder = folder.join("server");
        fs::create_dir_all(&folder).expect("made");
        let any = (Ipv4Addr::LOCALHOST, 0);
        let port = match listens {
            Listens::Udp => UdpSocket::bind(any).expect("bound").local_addr(),
            _ => TcpListener::bind(any).expect("bound").local_addr(),
        };
        Self { child: None, folder, listens, port: port.expect("an address").port() }
    }

    /// Starts it, and waits until it takes connections.
    pub(crate) fn start(&mut self) {
        let (folder, port) = (self.folder.display(), self.port);
        let (module, global) = match self.listens {
            Listens::Tcp => ("module(load=\"imtcp\")".to_owned(), String::new()),
            Listens::Udp => ("module(load=\"imudp\")".to_owned(), String::new()),
            tls => {
                let mode = if tls == Listens::MutualTls { "x509/certvalid" } else { "anon" };
                let certificates = self.folder.with_file_name("certificates");
                let certificates = certificates.display();
                (
                    format!(
                        "module(load=\"imtcp\" StreamDriver.Name=\"gtls\" StreamDriver.Mode=\"1\" \
                         StreamDriver.AuthMode=\"{mode}\")"
                    ),
                    format!(
                        "global(DefaultNetstreamDriver=\"gtls\" \
                         DefaultNetstreamDriverCAFile=\"{certificates}/ca.pem\" \
                         DefaultNetstreamDriverCertFile=\"{certificates}/server.pem\" \
                         DefaultNetstreamDriverKeyFile=\"{certificates}/server.key\")\n"
                    ),
                )
            }
        };
        let input = if self.listens == Listens::Udp { "imudp" } else { "imtcp" };
        let configuration = format!(
            "global(workDirectory=\"{folder}\")\nmain_queue(queue.type=\"Direct\")\n{global}{module}\n\
             input(type=\"{input}\" port=\"{port}\" address=\"127.0.0.1\")\n\
             template(name=\"line\" type=\"string\" string=\"%structured-data%|%msg%\\n\")\n\
             action(type=\"omfile\" file=\"{folder}/received\" template=\"line\")\n"
        );
        let path = self.folder.join("rsyslog.conf");
        fs::write(&path, configuration).expect("written");
        let child = Command::new("rsyslogd")
            .arg("-n")
            .arg("-f")
            .arg(&path)
            .arg("-i")
            .arg(self.folder.join("pid"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.folder.join("log")).expect("a log"))
            .spawn()
            .expect("rsyslogd is there; cargo xtask test installs it");
        self.child = Some(child);
        // It listens when nobody else can; connecting would be a message.
        let any = (Ipv4Addr::LOCALHOST, self.port);
        until("rsyslogd listens", || match self.listens {
            Listens::Udp => UdpSocket::bind(any).is_err(),
            _ => fs::read_to_string("/proc/net/tcp").is_ok_and(|text| {
                let listens = format!("0100007F:{:04X} 00000000:0000 0A", self.port);
                text.contains(&listens)
            }),
        });
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("killed");
            child.wait().expect("waited for");
        }
    }

    /// What it received: sequence ids and lines of the log.
    pub(crate) fn received(&self) -> Vec<(u64, String)> {
        let text = fs::read_to_string(self.folder.join("received")).unwrap_or_default();
        // The last line may be on its way.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .filter(|line| line.starts_with("[meta "))
            .map(|line| {
                let (data, text) = line.split_once('|').expect("both parts");
                let id = data.split('"').nth(1).and_then(|id| id.parse().ok());
                (id.unwrap_or_else(|| panic!("a sequence id in {data}")), text.to_owned())
            })
            .collect()
    }

    /// Waits until so many different records were received, and returns all.
    pub(crate) fn received_all(&self, records: u64) -> Vec<(u64, String)> {
        until("all records", || self.received().iter().any(|(id, _)| *id == records));
        self.received()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until it is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(60), "waited for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Writes records from number `first` on; returns the log's head.
pub(crate) fn write(log: &Path, first: u64, count: u64) -> Head {
    let mut writer = Log::new(log.to_owned(), 1 << 30);
    let mut number = 0;
    for one in 0..count {
        let event = Event::of("work", "session").with("program", format!("program {one} \"ä\""));
        number = writer.write(&event).expect("written");
        assert_eq!(number, first + one);
    }
    let mut reader = casemate_audit::Reader::open(log).expect("opened");
    reader.skip_to(number - 1).expect("read");
    reader.next_entry().expect("read").expect("the last one").head()
}

/// Makes an authority, a server's certificate and one to show, in `certificates` of this folder.
pub(crate) fn certificates(folder: &Path) -> PathBuf {
    let folder = folder.join("certificates");
    fs::create_dir_all(&folder).expect("made");
    let run = |words: &str| {
        let done = Command::new("openssl")
            .args(words.split(' '))
            .current_dir(&folder)
            .output()
            .expect("openssl is there; cargo xtask test installs it");
        assert!(done.status.success(), "{words}: {}", String::from_utf8_lossy(&done.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    for authority in ["ca", "other"] {
        run(&format!(
            "req -x509 {key} -subj /CN={authority} -keyout {authority}.key -out {authority}.pem"
        ));
    }
    fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        .expect("written");
    for name in ["server", "client"] {
        run(&format!("req {key} -subj /CN={name} -keyout {name}.key -out {name}.csr"));
        run(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names \
             -out {name}.pem"
        ));
    }
    folder
}
