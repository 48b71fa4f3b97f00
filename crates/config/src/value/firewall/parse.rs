//! Reading a firewall rule: words first, then what they say together.

use std::ops::Range;

use ipnet::{Ipv4Net, Ipv6Net};

use crate::flaw::Flaw;
use crate::suggest;
use crate::value::firewall::{Destination, FirewallRule, PortRange, Traffic, Transport};
use crate::value::text::one_line;

const KEYS: [&str; 9] =
    ["action", "proto", "dst4", "dst6", "dsthost", "dstports", "icmptype", "special", "comment"];

/// One `key=value` word and where it stands in the rule.
struct Word<'a> {
    key: &'a str,
    value: &'a str,
    whole: Range<usize>,
    value_at: Range<usize>,
}

impl Word<'_> {
    fn flaw(&self, message: String, hint: &str) -> Flaw {
        Flaw::new(message).hint(hint).at(self.value_at.clone())
    }
}

impl std::str::FromStr for FirewallRule {
    type Err = Flaw;

    fn from_str(text: &str) -> Result<Self, Flaw> {
        if !one_line(text) {
            return Err(Flaw::new("a firewall rule must stand in one line")
                .hint("one text per rule: firewall = [\"…\", \"…\"]"));
        }
        let words = split(text)?;
        let find = |key: &str| words.iter().find(|word| word.key == key);
        let action = match find("action") {
            Some(word) => word.value.parse().map_err(|_| {
                word.flaw(
                    format!("`{}` is not an action", word.value),
                    "action=accept or action=drop",
                )
            })?,
            None => {
                return Err(Flaw::new("this firewall rule does not say what to do")
                    .hint("begin it with action=accept or action=drop"));
            }
        };
        let destinations: Vec<&Word> = words
            .iter()
            .filter(|word| word.key.starts_with("dst") && word.key != "dstports")
            .collect();
        if let [first, second, ..] = destinations.as_slice() {
            return Err(Flaw::new(format!(
                "`{}` and `{}` exclude each other",
                first.key, second.key
            ))
            .hint("write one rule for each destination")
            .at(second.whole.clone()));
        }
        let destination = match destinations.first() {
            Some(word) => destination(word)?,
            None => Destination::Any,
        };
        Ok(Self {
            action,
            traffic: traffic(
                find("proto"),
                find("dstports"),
                find("icmptype"),
                find("special"),
                &destination,
            )?,
            destination,
            comment: find("comment").map(|word| word.value.to_owned()),
        })
    }
}

/// Splits the rule at blanks; `comment=` takes the rest of the line.
fn split(text: &str) -> Result<Vec<Word<'_>>, Flaw> {
    let mut words: Vec<Word> = Vec::new();
    let mut at = 0;
    while let Some(skip) = text[at..].find(|letter: char| !letter.is_whitespace()) {
        let start = at + skip;
        let rest = &text[start..];
        let length = if rest.starts_with("comment=") {
            rest.trim_end().len()
        } else {
            rest.find(char::is_whitespace).unwrap_or(rest.len())
        };
        let whole = start..start + length;
        let word = &text[whole.clone()];
        let Some((key, value)) = word.split_once('=') else {
            let hint = match word {
                "accept" | "drop" => format!("write action={word}"),
                "tcp" | "udp" | "icmp" => format!("write proto={word}"),
                _ => "a rule is made of key=value words; only a comment may contain blanks"
                    .to_owned(),
            };
            return Err(Flaw::new(format!("`{word}` has no `=`")).hint(hint).at(whole));
        };
        let key_at = start..start + key.len();
        if !KEYS.contains(&key) {
            let flaw =
                Flaw::new(format!("`{key}` is not part of the firewall language")).at(key_at);
            return Err(match suggest::nearest(key, KEYS) {
                Some(near) => flaw.hint(format!("did you mean `{near}`?")),
                None => flaw.hint(format!("known are: {}", KEYS.join(", "))),
            });
        }
        if words.iter().any(|earlier| earlier.key == key) {
            return Err(Flaw::new(format!("`{key}` is given twice"))
                .hint("write one rule for each value")
                .at(whole));
        }
        let value_at = key_at.end + 1..whole.end;
        at = whole.end;
        words.push(Word { key, value, whole, value_at });
    }
    Ok(words)
}

fn destination(word: &Word) -> Result<Destination, Flaw> {
    match word.key {
        "dst4" => {
            let full = with_prefix(word.value, 32);
            let net: Ipv4Net = full.parse().map_err(|_| {
                word.flaw(
                    format!("`{}` is not an IPv4 network", word.value),
                    "an address with or without prefix length: dst4=1.2.3.0/24; for names use dsthost=",
                )
            })?;
            exact(word, net == net.trunc(), &net.trunc().to_string()).map(|()| Destination::V4(net))
        }
        "dst6" => {
            let full = with_prefix(word.value, 128);
            let net: Ipv6Net = full.parse().map_err(|_| {
                word.flaw(
                    format!("`{}` is not an IPv6 network", word.value),
                    "an address with or without prefix length: dst6=2001:db8::/32",
                )
            })?;
            exact(word, net == net.trunc(), &net.trunc().to_string()).map(|()| Destination::V6(net))
        }
        _ => word
            .value
            .parse()
            .map(Destination::Host)
            .map_err(|flaw: Flaw| Flaw { range: Some(word.value_at.clone()), ..flaw }),
    }
}

fn with_prefix(value: &str, bits: u8) -> String {
    if value.contains('/') { value.to_owned() } else { format!("{value}/{bits}") }
}

fn exact(word: &Word, exact: bool, network: &str) -> Result<(), Flaw> {
    if exact {
        return Ok(());
    }
    let hint = format!("the network is {}={network}", word.key);
    Err(word.flaw(format!("`{}` has bits set beyond its prefix", word.value), &hint))
}

fn traffic(
    proto: Option<&Word>,
    ports: Option<&Word>,
    icmp_type: Option<&Word>,
    special: Option<&Word>,
    destination: &Destination,
) -> Result<Traffic, Flaw> {
    let protocol = match proto {
        None => None,
        Some(word) if matches!(word.value, "tcp" | "udp" | "icmp") => Some(word.value),
        Some(word) => {
            return Err(word.flaw(
                format!("`{}` is not a protocol", word.value),
                "proto=tcp, proto=udp or proto=icmp; leave it out to match all",
            ));
        }
    };
    let misplaced = |word: &Word, hint: &str| {
        Err(Flaw::new(format!("`{}` cannot be used here", word.key))
            .hint(hint)
            .at(word.whole.clone()))
    };
    if let Some(word) = special {
        if word.value != "dns" {
            return Err(word.flaw(
                format!("`{}` is no special destination", word.value),
                "the only one is special=dns",
            ));
        }
        if *destination != Destination::Any || ports.is_some() || icmp_type.is_some() {
            return misplaced(word, "special=dns already says where to, and to which port");
        }
        return match protocol {
            None => Ok(Traffic::Dns(None)),
            Some("tcp") => Ok(Traffic::Dns(Some(Transport::Tcp))),
            Some("udp") => Ok(Traffic::Dns(Some(Transport::Udp))),
            Some(_) => misplaced(word, "DNS is asked over udp or tcp"),
        };
    }
    let ports = match (ports, protocol) {
        (Some(word), Some("tcp" | "udp")) => Some(port_range(word)?),
        (Some(word), _) => return misplaced(word, "only proto=tcp and proto=udp have ports"),
        (None, _) => None,
    };
    let icmp_type = match (icmp_type, protocol) {
        (Some(word), Some("icmp")) => Some(word.value.parse().map_err(|_| {
            word.flaw(
                format!("`{}` is not an ICMP type", word.value),
                "a number from 0 to 255; 8 is ping",
            )
        })?),
        (Some(word), _) => return misplaced(word, "only proto=icmp has an icmptype"),
        (None, _) => None,
    };
    Ok(match protocol {
        Some("tcp") => Traffic::Tcp(ports),
        Some("udp") => Traffic::Udp(ports),
        Some(_) => Traffic::Icmp(icmp_type),
        None => Traffic::Any,
    })
}

fn port_range(word: &Word) -> Result<PortRange, Flaw> {
    let (first, last) = word.value.split_once('-').unwrap_or((word.value, word.value));
    first
        .parse()
        .ok()
        .zip(last.parse().ok())
        .and_then(|(first, last)| PortRange::new(first, last))
        .ok_or_else(|| {
            word.flaw(
                format!("`{}` is not a range of ports", word.value),
                "one port or the first and the last, from 1 to 65535: dstports=80 or dstports=8000-8080",
            )
        })
}
