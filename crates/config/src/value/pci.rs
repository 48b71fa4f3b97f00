//! PCI addresses.

use crate::flaw::Flaw;

/// Domain, bus, device and function of a PCI device, as sysfs names it: `0000:01:00.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf {
    /// PCI segment, 0 on most machines.
    pub domain: u16,
    /// Bus.
    pub bus: u8,
    device: u8,
    function: u8,
}

impl Bdf {
    /// Device on the bus, 0 to 31.
    pub const fn device(self) -> u8 {
        self.device
    }

    /// Function of the device, 0 to 7.
    pub const fn function(self) -> u8 {
        self.function
    }
}

impl std::str::FromStr for Bdf {
    type Err = Flaw;

    /// Accepts `DDDD:BB:DD.F` and, for domain 0, `BB:DD.F`.
    fn from_str(text: &str) -> Result<Self, Flaw> {
        parse(text).ok_or_else(|| {
            Flaw::new(format!("`{text}` is not a PCI address"))
                .hint("write it as `lspci -D` prints it, for example \"0000:01:00.0\"")
        })
    }
}

fn parse(text: &str) -> Option<Bdf> {
    let (rest, function) = text.rsplit_once('.')?;
    let (rest, device) = rest.rsplit_once(':')?;
    let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0000", rest));
    let function = hexadecimal(function, 1).filter(|function| *function < 8)?;
    let device = hexadecimal(device, 2).filter(|device| *device < 32)?;
    Some(Bdf {
        domain: hexadecimal(domain, 4)?,
        bus: u8::try_from(hexadecimal(bus, 2)?).ok()?,
        device: u8::try_from(device).ok()?,
        function: u8::try_from(function).ok()?,
    })
}

/// Exactly `digits` hexadecimal digits; `from_str_radix` alone would also take a sign.
fn hexadecimal(text: &str, digits: usize) -> Option<u16> {
    let plain = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u16::from_str_radix(text, 16).ok()).flatten()
}

impl std::fmt::Display for Bdf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

crate::value::text::textual!(
    Bdf,
    "a PCI address",
    Some("^([0-9A-Fa-f]{4}:)?[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\\.[0-7]$"),
    "0000:01:00.0"
);
