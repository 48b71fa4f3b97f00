//! Ethernet addresses.

use crate::flaw::Flaw;
use crate::value::hash::stable_hash;

/// A unicast Ethernet address (IEEE 802, 48 bits); never multicast, never all zero.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// The six bytes, first on the wire first.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// A locally administered address that depends on nothing but the given names.
    ///
    /// `attempt` gives the next candidate when the last one was taken.
    pub(crate) fn derived(scope: &str, network: &str, compartment: &str, attempt: u32) -> Self {
        let attempt = if attempt == 0 { String::new() } else { attempt.to_string() };
        let hash = stable_hash(&[scope, network, compartment, &attempt]).to_be_bytes();
        let mut octets = [hash[0], hash[1], hash[2], hash[3], hash[4], hash[5]];
        // Bit 1 of the first byte: locally administered; bit 0: multicast (IEEE 802-2014, 8.2).
        octets[0] = (octets[0] | 0b10) & !0b01;
        Self(octets)
    }
}

impl std::str::FromStr for MacAddr {
    type Err = Flaw;
    fn from_str(text: &str) -> Result<Self, Flaw> {
        let wrong = || {
            Flaw::new(format!("`{text}` is not a MAC address"))
                .hint("six bytes in hexadecimal, for example \"02:00:00:12:34:56\"")
        };
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wrong)?;
            if !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() {
            return Err(wrong());
        }
        if octets[0] & 1 == 1 {
            return Err(Flaw::new(format!("`{text}` is a multicast address"))
                .hint("the first byte of an interface's address must be even; use 02"));
        }
        if octets == [0; 6] {
            return Err(Flaw::new("the all-zero MAC address names no interface")
                .hint("leave `mac-address` out to have one derived"));
        }
        Ok(Self(octets))
    }
}

impl std::fmt::Display for MacAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl TryFrom<String> for MacAddr {
    type Error = Flaw;
    fn try_from(text: String) -> Result<Self, Flaw> {
        text.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

crate::value::text::textual!(
    MacAddr,
    "a MAC address",
    Some("^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$"),
    "02:00:00:12:34:56"
);
