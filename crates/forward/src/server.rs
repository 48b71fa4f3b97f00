//! A syslog server: connections to it, and how it is known that records arrived.
//!
//! Syslog has no receipts. But a server that has read everything up to the end of a connection closes
//! its own side, and one that is killed, or drops what it was sent, resets it. So records travel in
//! batches, a connection each: sent, our side closed, and the batch has arrived when the server closed
//! its own. Anything else, and the batch is sent again: what came twice is told by its number.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use casemate_audit::Entry;
use casemate_config::{SyslogServer, SyslogSettings, SyslogTransport};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::message;

/// Where systems keep the certificates that they trust: Debian, then Fedora.
const SYSTEM: [&str; 2] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// How long a server may take to answer, read or close.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two datagrams, so that a server's buffer takes them all.
const PACE: Duration = Duration::from_millis(1);

/// Bytes of an answer that are looked at: a server has nothing to say.
const ANSWER: u64 = 64 * 1024;

/// Why records did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// A certificate or key.
    #[error("could not read {}", .path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// There are no certificates to trust.
    #[error("no certificates are known that the server's could be signed by; set `syslog-ca`")]
    NoRoots,
    /// TLS cannot be set up with what the configuration gives.
    #[error("could not set up TLS")]
    Tls(#[from] rustls::Error),
    /// The server's name is no name that a certificate could have.
    #[error("`{0}` is no name for a certificate")]
    Name(String),
    /// No connection to the server.
    #[error("could not connect to {server}")]
    Connect {
        /// The server.
        server: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It took the connection, and not all of the records.
    #[error("could not send records to {server}")]
    Send {
        /// The server.
        server: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel's audit.
    #[error("could not write to the kernel's audit")]
    Audit(#[source] io::Error),
}

/// A server, and what is needed to speak with it. All files are read when it is made.
#[derive(Debug)]
pub struct Server {
    server: SyslogServer,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// The name of this machine.
    host: String,
}

impl Server {
    /// Reads certificates and keys.
    ///
    /// # Errors
    /// One of them cannot be read or is none.
    pub fn new(settings: &SyslogSettings, host: String) -> Result<Self, SendError> {
        let server = settings.server.clone();
        let tls = match server.transport {
            SyslogTransport::Tls => {
                let name = ServerName::try_from(server.host.clone())
                    .map_err(|_| SendError::Name(server.host.clone()))?;
                Some((Arc::new(client(settings)?), name))
            }
            SyslogTransport::Tcp | SyslogTransport::Udp => None,
        };
        Ok(Self { server, tls, host })
    }

    /// Sends records; returns when they have arrived, as far as the transport tells.
    ///
    /// # Errors
    /// Some may have arrived.
    pub fn send(&self, entries: &[Entry]) -> Result<(), SendError> {
        let server = || self.server.to_string();
        let connect = |source| SendError::Connect { server: server(), source };
        let send = |source| SendError::Send { server: server(), source };
        let addresses: Vec<SocketAddr> = (self.server.host.as_str(), self.server.port)
            .to_socket_addrs()
            .map_err(connect)?
            .collect();
        if self.server.transport == SyslogTransport::Udp {
            return self.datagrams(&addresses, entries).map_err(send);
        }
        let mut stream = reach(&addresses).map_err(connect)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(connect)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(connect)?;
        let mut frames = Vec::new();
        for entry in entries {
            frames.extend(message::counted(&message::syslog(entry, &self.host)));
        }
        match &self.tls {
            None => plain(&mut stream, &frames).map_err(send),
            Some((config, name)) => {
                let connection = ClientConnection::new(config.clone(), name.clone())?;
                encrypted(&mut stream, connection, &frames).map_err(send)
            }
        }
    }

    fn datagrams(&self, addresses: &[SocketAddr], entries: &[Entry]) -> io::Result<()> {
        let to = addresses.first().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => ([0; 4], 0).into(),
            SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        // Connected, it hears that nobody listens there.
        socket.connect(to)?;
        for entry in entries {
            socket.send(&message::syslog(entry, &self.host))?;
            std::thread::sleep(PACE);
        }
        socket.take_error()?.map_or(Ok(()), Err)
    }
}

/// The first address that answers.
fn reach(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpStream::connect_timeout(address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn plain(stream: &mut TcpStream, frames: &[u8]) -> io::Result<()> {
    stream.write_all(frames)?;
    stream.shutdown(Shutdown::Write)?;
    closed(stream)
}

fn encrypted(
    stream: &mut TcpStream,
    mut connection: ClientConnection,
    frames: &[u8],
) -> io::Result<()> {
    let mut tls = rustls::Stream::new(&mut connection, stream);
    tls.write_all(frames)?;
    tls.flush()?;
    connection.send_close_notify();
    while connection.wants_write() {
        connection.write_tls(stream)?;
    }
    stream.shutdown(Shutdown::Write)?;
    match closed(&mut rustls::Stream::new(&mut connection, stream)) {
        // Servers that use GnuTLS close without a word (RFC 5425, 4.4 wants one).
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        other => other,
    }
}

/// Waits until the server closes.
fn closed(stream: &mut impl Read) -> io::Result<()> {
    let read = io::copy(&mut stream.by_ref().take(ANSWER), &mut io::sink());
    match read {
        Ok(ANSWER) => Err(io::Error::other("the server says what no syslog server has to say")),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the server does not close a connection that was closed, so nobody knows whether it read \
             everything",
        )),
        Err(error) => Err(error),
    }
}

fn client(settings: &SyslogSettings) -> Result<ClientConfig, SendError> {
    let mut roots = RootCertStore::empty();
    let files: Vec<&Path> = match &settings.ca {
        Some(path) => vec![path],
        None => SYSTEM.iter().map(Path::new).filter(|path| path.exists()).take(1).collect(),
    };
    for path in files {
        for certificate in certificates(path)? {
            // The system's has some that no TLS of today takes.
            let added = roots.add(certificate);
            if settings.ca.is_some() {
                added?;
            }
        }
    }
    if roots.is_empty() {
        return Err(SendError::NoRoots);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(match &settings.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let pem = |source| SendError::Pem { path: key.clone(), source };
            let key = PrivateKeyDer::from_pem_file(key).map_err(pem)?;
            builder.with_client_auth_cert(certificates(certificate)?, key)?
        }
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SendError> {
    let pem = |source| SendError::Pem { path: path.to_owned(), source };
    CertificateDer::pem_file_iter(path).map_err(pem)?.collect::<Result<_, _>>().map_err(pem)
}
