//! Where records of the audit log are sent: `tls://logs.example.org:6514`.

use std::net::Ipv6Addr;

use crate::flaw::Flaw;
use crate::value::text::{quoted, textual};

/// How records travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SyslogTransport {
    /// RFC 5425: at least once, to whom its certificate names, readable by nobody else.
    Tls,
    /// RFC 6587 with counted octets: at least once.
    Tcp,
    /// RFC 5426: best effort.
    Udp,
}

impl SyslogTransport {
    const ALL: [(&'static str, Self, u16); 3] =
        [("tls", Self::Tls, 6514), ("tcp", Self::Tcp, 601), ("udp", Self::Udp, 514)];

    /// As it begins a server's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A syslog server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SyslogServer {
    /// How records travel there.
    pub transport: SyslogTransport,
    /// Its name or address; of an IPv6 address without the brackets.
    pub host: String,
    /// Its port; by default 6514, 601 or 514 (IANA).
    pub port: u16,
}

impl std::fmt::Display for SyslogServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { transport, host, port } = self;
        match host.contains(':') {
            true => write!(f, "{}://[{host}]:{port}", transport.as_str()),
            false => write!(f, "{}://{host}:{port}", transport.as_str()),
        }
    }
}

impl std::str::FromStr for SyslogServer {
    type Err = Flaw;
    fn from_str(text: &str) -> Result<Self, Flaw> {
        let flaw = || {
            Flaw::new(format!("{} is not a syslog server", quoted(text))).hint(
                "tls://, tcp:// or udp://, a name or an address, and perhaps a port, for example \
                 \"tls://logs.example.org:6514\"",
            )
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(flaw)?;
        let (_, transport, default) =
            SyslogTransport::ALL.into_iter().find(|(name, ..)| *name == scheme).ok_or_else(flaw)?;
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(flaw)?;
                let _: Ipv6Addr = host.parse().map_err(|_| flaw())?;
                (host, port)
            }
            None => {
                let end = rest.find(':').unwrap_or(rest.len());
                let (host, port) = rest.split_at(end);
                let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
                if host.is_empty()
                    || host.len() > 253
                    || host.starts_with(['-', '.'])
                    || !host.bytes().all(good)
                {
                    return Err(flaw());
                }
                (host, port)
            }
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => default,
            None => return Err(flaw()),
            Some(port) => {
                let digits = port.bytes().all(|byte| byte.is_ascii_digit());
                let parsed = port.parse().ok().filter(|port| digits && *port != 0);
                parsed.ok_or_else(flaw)?
            }
        };
        Ok(Self { transport, host: host.to_owned(), port })
    }
}

textual!(
    SyslogServer,
    "a syslog server",
    Some("^(tls|tcp|udp)://[^/?#@]+$"),
    "tls://logs.example.org:6514"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_read_and_said_again() {
        for (text, said) in [
            ("tls://logs.example.org", "tls://logs.example.org:6514"),
            ("tcp://10.0.0.7:514", "tcp://10.0.0.7:514"),
            ("udp://[fd00::7]", "udp://[fd00::7]:514"),
            ("tcp://[::1]:1601", "tcp://[::1]:1601"),
        ] {
            assert_eq!(text.parse::<SyslogServer>().expect(text).to_string(), said);
        }
        for text in [
            "",
            "logs",
            "true",
            "http://logs",
            "tls://",
            "tls://:6514",
            "tls://logs:",
            "tls://logs:0",
            "tls://logs:70000",
            "tls://logs:+514",
            "tls://a b",
            "tls://user@logs",
            "tls://logs/x",
            "tls://[::1",
            "tls://[logs]",
            "tls://[::1]514",
            "tls://::1",
            "tls://-x",
        ] {
            assert!(text.parse::<SyslogServer>().is_err(), "{text}");
        }
    }
}
