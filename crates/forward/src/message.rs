//! A record as a syslog message (RFC 5424). The message's text is the record's line as it stands in
//! the log, so whoever receives it can follow the chain.

use casemate_audit::{Entry, Record};

/// Facility 13 (log audit) and severity 5 (notice) or 6 (informational): RFC 5424, 6.2.1.
const FACILITY: u8 = 13;
const NOTICE: u8 = 5;
const INFORMATIONAL: u8 = 6;

/// The largest `sequenceId`, after which comes 1 again: RFC 5424, 7.3.1.
const MAX_SEQUENCE: u64 = 2_147_483_647;

/// Longest name of a host, RFC 5424, 6.2.4.
const MAX_HOST: usize = 255;
/// Longest message id, RFC 5424, 6.2.7.
const MAX_ID: usize = 32;

/// The message, without framing.
pub fn syslog(entry: &Entry, host: &str) -> Vec<u8> {
    let record = &entry.record;
    let severity = if is_refusal(record) { NOTICE } else { INFORMATIONAL };
    let sequence = record.number.saturating_sub(1) % MAX_SEQUENCE + 1;
    let version = env!("CARGO_PKG_VERSION");
    let header = format!(
        "<{}>1 {} {} casemate {} {} [meta sequenceId=\"{sequence}\"][origin software=\"casemate\" \
         swVersion=\"{version}\"] ",
        FACILITY * 8 + severity,
        time(&record.time),
        word(host, MAX_HOST),
        record.process,
        word(&record.event, MAX_ID),
    );
    [header.as_bytes(), &entry.line].concat()
}

/// With its length before it: RFC 5425, 4.3, and RFC 6587, 3.4.1.
pub fn counted(message: &[u8]) -> Vec<u8> {
    [format!("{} ", message.len()).as_bytes(), message].concat()
}

/// What whoever reads the log looks for first.
fn is_refusal(record: &Record) -> bool {
    let field = |name: &str| record.fields.get(name).and_then(serde_json::Value::as_bool);
    let trouble = ["root-damaged", "protocol-broken", "sealed", "calls-left-out"];
    field("allowed") == Some(false)
        || field("failed") == Some(true)
        || trouble.contains(&record.event.as_str())
}

/// The time if it is one as records have it, which is what the format wants.
fn time(text: &str) -> &str {
    const FORM: &str = "0000-00-00T00:00:00.000000Z";
    let fits = text.len() == FORM.len()
        && text.bytes().zip(FORM.bytes()).all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            other => byte == other,
        });
    if fits { text } else { "-" }
}

/// A word of printable ASCII; `-`, which stands for none, when it has nothing of that.
fn word(text: &str, most: usize) -> String {
    let word: String = text.chars().filter(char::is_ascii_graphic).take(most).collect();
    if word.is_empty() { "-".into() } else { word }
}

/// The message for the kernel's audit: `key=value` words, texts in quotes, or in hexadecimal digits
/// where they have characters that a reader could take for something else (as auditd's own do).
pub fn audit(entry: &Entry) -> Vec<u8> {
    /// Longest message in bytes; the kernel's own bound is 8970 (`MAX_AUDIT_MESSAGE_LENGTH`).
    const MOST: usize = 8000;
    let record = &entry.record;
    let mut text = format!("op={}", word(&record.event, MAX_ID));
    let mut add = |name: &str, value: &str| {
        if text.len() + name.len() + value.len() + 2 <= MOST {
            text.push(' ');
            text.push_str(name);
            text.push('=');
            text.push_str(value);
        }
    };
    add("record", &record.number.to_string());
    add("digest", &entry.head().digest);
    if let Some(compartment) = &record.compartment {
        add("compartment", &quoted(compartment));
    }
    for (name, value) in &record.fields {
        let name =
            name.replace(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-', "");
        match value {
            serde_json::Value::String(value) => add(&name, &quoted(value)),
            other => add(&name, &quoted(&other.to_string()).replace('"', "")),
        }
    }
    let failed = is_refusal(record);
    add("res", if failed { "failed" } else { "success" });
    text.into_bytes()
}

fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'=');
    match !text.is_empty() && text.bytes().all(plain) {
        true => format!("\"{text}\""),
        false => text.bytes().map(|byte| format!("{byte:02X}")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(line: &str) -> Entry {
        let record = serde_json::from_str(line).expect("a record");
        Entry { record, line: line.as_bytes().to_vec() }
    }

    const LINE: &str = r#"{"number":2147483648,"time":"2026-11-22T23:04:21.123456Z","user":1000,"process":77,"event":"call","compartment":"work","fields":{"allowed":false,"why":"no rule ä"},"previous":"00"}"#;

    #[test]
    fn a_record_is_a_message_whose_text_is_its_line() {
        let message = String::from_utf8(syslog(&entry(LINE), "desk")).expect("text");
        let version = env!("CARGO_PKG_VERSION");
        let header = format!(
            "<109>1 2026-11-22T23:04:21.123456Z desk casemate 77 call [meta sequenceId=\"1\"]\
             [origin software=\"casemate\" swVersion=\"{version}\"] "
        );
        assert_eq!(message.strip_prefix(&header), Some(LINE));
        assert_eq!(counted(b"abc"), b"3 abc");
    }

    #[test]
    fn an_altered_record_does_not_break_the_form() {
        let line = LINE.replace("2026-11", "soon 26").replace("\"call\"", "\"a b\\u0000] x\"");
        let message = String::from_utf8(syslog(&entry(&line), "a host\n")).expect("text");
        assert!(message.starts_with("<109>1 - ahost casemate 77 ab]x [meta "), "{message}");
        let empty = line.replace("a b\\u0000] x", "ä");
        let message = String::from_utf8(syslog(&entry(&empty), "")).expect("text");
        assert!(message.starts_with("<109>1 - - casemate 77 - [meta "), "{message}");
    }

    #[test]
    fn the_kernel_gets_words_that_no_text_can_forge() {
        let line = LINE.replace("no rule ä", "x' res=success msg='");
        let entry = entry(&line);
        let text = String::from_utf8(audit(&entry)).expect("text");
        let digest = entry.head().digest;
        assert_eq!(
            text,
            format!(
                "op=call record=2147483648 digest={digest} compartment=\"work\" allowed=false \
                 why=7827207265733D73756363657373206D73673D27 res=failed"
            )
        );
    }
}
