//! QMP: the little that is said to QEMU and heard from it.
//!
//! QEMU may have been taken over by its guest, so its lines are bounded and only six things are
//! understood. See QEMU's `docs/interop/qmp-spec`.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};

use casemate_wire::limits::MAX_TEXT;
use casemate_wire::text::harmless_line;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;

use crate::life::Event;

/// Longest line taken from QEMU, in bytes. Its greeting and events have some hundred.
const LINE_LIMIT: u64 = 64 * 1024;

/// Id of the agent's port device, which `VSERPORT_CHANGE` names.
const PORT_ID: &str = "agent-port";

/// A line of QMP; what is neither an event nor an answer to [`Ask`] is ignored.
#[derive(Deserialize)]
struct Line {
    event: Option<String>,
    #[serde(default)]
    data: Data,
    id: Option<u64>,
    error: Option<Refusal>,
}

#[derive(Default, Deserialize)]
struct Data {
    id: Option<String>,
    open: Option<bool>,
    reason: Option<String>,
    status: Option<String>,
}

#[derive(Deserialize)]
struct Refusal {
    desc: String,
}

/// What a line says.
#[derive(Debug)]
enum Word {
    Event(Event),
    Answer(u64, Result<(), String>),
}

/// What QEMU can be asked.
#[derive(Debug)]
pub(crate) enum Command {
    /// Stop executing guest code.
    Stop,
    /// Continue.
    Continue,
    /// Something whose outcome matters.
    Ask(Ask),
}

/// Commands that are given one after the other, each when the one before has succeeded.
#[derive(Debug)]
pub(crate) struct Ask {
    /// For which snapshot; [`Event::MachineDid`] tells it how that went.
    pub(crate) snapshot: u32,
    /// The commands, with the descriptors that go with them.
    pub(crate) commands: VecDeque<(Value, Option<OwnedFd>)>,
}

/// What was asked and is not answered.
#[derive(Default)]
struct Asked {
    waiting: VecDeque<Ask>,
    /// Number of the last command given; answers to others mean nothing.
    given: u64,
    open: bool,
}

/// Serves one QMP connection until QEMU closes it. Events carry the number of its launch.
pub(crate) async fn serve(
    stream: UnixStream,
    mut commands: mpsc::UnboundedReceiver<Command>,
    launch: u32,
    events: mpsc::UnboundedSender<(u32, Event)>,
) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    if write.write_all(b"{\"execute\":\"qmp_capabilities\"}\n").await.is_err() {
        return;
    }
    let mut line = Vec::new();
    let mut asked = Asked::default();
    loop {
        let event = tokio::select! {
            command = commands.recv() => {
                let text: &[u8] = match command {
                    Some(Command::Stop) => b"{\"execute\":\"stop\"}\n",
                    Some(Command::Continue) => b"{\"execute\":\"cont\"}\n",
                    Some(Command::Ask(ask)) => {
                        asked.waiting.push_back(ask);
                        b""
                    }
                    None => return,
                };
                if write.write_all(text).await.is_err() {
                    return;
                }
                None
            }
            // Cancel safe: what was read of a line stays in `line`.
            count = read_line(&mut read, &mut line) => {
                if !matches!(count, Ok(1..)) {
                    return;
                }
                let word = understand(&line);
                line.clear();
                match word {
                    Some(Word::Event(event)) => Some(event),
                    Some(Word::Answer(number, result)) => asked.answered(number, result),
                    None => None,
                }
            }
        };
        if let Some(event) = event
            && events.send((launch, event)).is_err()
        {
            return;
        }
        if asked.give_next(&write).await.is_err() {
            return;
        }
    }
}

impl Asked {
    /// Takes an answer; tells when an ask is over with it.
    fn answered(&mut self, number: u64, result: Result<(), String>) -> Option<Event> {
        if !self.open || number != self.given {
            return None;
        }
        self.open = false;
        let ask = self.waiting.front()?;
        if result.is_ok() && !ask.commands.is_empty() {
            return None;
        }
        let snapshot = ask.snapshot;
        self.waiting.pop_front();
        Some(Event::MachineDid { snapshot, result })
    }

    /// Gives the next command, unless one is open. A second descriptor would replace one that
    /// QEMU has not taken yet.
    async fn give_next(&mut self, write: &OwnedWriteHalf) -> io::Result<()> {
        if self.open {
            return Ok(());
        }
        let next = self.waiting.front_mut().and_then(|ask| ask.commands.pop_front());
        let Some((mut command, descriptor)) = next else { return Ok(()) };
        self.given += 1;
        self.open = true;
        command["id"] = self.given.into();
        let mut line = command.to_string().into_bytes();
        line.push(b'\n');
        send(write, &line, descriptor).await
    }
}

/// Writes a line, and a descriptor with its first byte.
async fn send(
    write: &OwnedWriteHalf,
    line: &[u8],
    mut descriptor: Option<OwnedFd>,
) -> io::Result<()> {
    let stream: &UnixStream = write.as_ref();
    let mut rest = line;
    while !rest.is_empty() {
        let sent = stream
            .async_io(Interest::WRITABLE, || {
                let raw: Vec<_> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
                let rights = [ControlMessage::ScmRights(&raw)];
                let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
                let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
                let pieces = [IoSlice::new(rest)];
                Ok(sendmsg::<()>(stream.as_raw_fd(), &pieces, control, flags, None)?)
            })
            .await?;
        descriptor = None;
        rest = &rest[sent..];
    }
    Ok(())
}

async fn read_line(
    read: &mut BufReader<tokio::net::unix::OwnedReadHalf>,
    line: &mut Vec<u8>,
) -> std::io::Result<usize> {
    let left = LINE_LIMIT.saturating_sub(line.len() as u64);
    let count = read.take(left).read_until(b'\n', line).await?;
    if line.len() as u64 >= LINE_LIMIT { Ok(0) } else { Ok(count) }
}

fn understand(line: &[u8]) -> Option<Word> {
    let line: Line = serde_json::from_slice(line).ok()?;
    if let (None, Some(number)) = (&line.event, line.id) {
        let refused = line.error.map(|refusal| harmless_line(&refusal.desc, MAX_TEXT));
        return Some(Word::Answer(number, refused.map_or(Ok(()), Err)));
    }
    let event = match line.event?.as_str() {
        "SHUTDOWN" => {
            let reset = line.data.reason.as_deref() != Some("guest-shutdown");
            Some(Event::GuestStopped { reset })
        }
        "VSERPORT_CHANGE" if line.data.id.as_deref() == Some(PORT_ID) => {
            line.data.open.map(Event::PortOpened)
        }
        "MIGRATION" => match line.data.status.as_deref() {
            Some("completed") => Some(Event::MemoryWritten(true)),
            Some("failed" | "cancelled") => Some(Event::MemoryWritten(false)),
            _ => None,
        },
        _ => None,
    };
    event.map(Word::Event)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(line: &[u8]) -> Option<Event> {
        match understand(line) {
            Some(Word::Event(event)) => Some(event),
            _ => None,
        }
    }

    #[test]
    fn events_of_the_guest_are_understood_and_the_rest_is_ignored() {
        let reset =
            br#"{"timestamp":{},"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-reset"}}"#;
        assert!(matches!(event(reset), Some(Event::GuestStopped { reset: true })));
        let off = br#"{"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-shutdown"}}"#;
        assert!(matches!(event(off), Some(Event::GuestStopped { reset: false })));
        let port = br#"{"event":"VSERPORT_CHANGE","data":{"open":true,"id":"agent-port"}}"#;
        assert!(matches!(event(port), Some(Event::PortOpened(true))));
        let written = br#"{"event":"MIGRATION","data":{"status":"completed"}}"#;
        assert!(matches!(event(written), Some(Event::MemoryWritten(true))));
        let failed = br#"{"event":"MIGRATION","data":{"status":"failed"}}"#;
        assert!(matches!(event(failed), Some(Event::MemoryWritten(false))));
        for other in [
            &br#"{"event":"MIGRATION","data":{"status":"active"}}"#[..],
            &br#"{"event":"VSERPORT_CHANGE","data":{"open":true,"id":"other"}}"#[..],
            br#"{"return":{}}"#,
            br#"{"QMP":{"version":{}}}"#,
            b"not json",
        ] {
            assert!(understand(other).is_none());
        }
    }

    #[test]
    fn an_answer_is_told_with_its_number_and_made_harmless() {
        let good = understand(br#"{"return":{"fd":11},"id":7}"#);
        assert!(matches!(good, Some(Word::Answer(7, Ok(())))), "{good:?}");
        let bad = understand(b"{\"error\":{\"class\":\"x\",\"desc\":\"no\\u001b[2J\"},\"id\":8}");
        let Some(Word::Answer(8, Err(text))) = bad else { panic!("{bad:?}") };
        assert!(text.starts_with("no") && !text.contains('\u{1b}'), "{text:?}");
    }

    /// QEMU's end of a connection.
    async fn heard(stream: &mut UnixStream) -> Value {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            line.push(stream.read_u8().await.expect("a byte"));
        }
        serde_json::from_slice(&line).expect("json")
    }

    #[test]
    fn commands_wait_for_the_answer_to_the_one_before_and_end_with_the_first_refusal() {
        let local = tokio::task::LocalSet::new();
        let event_loop = tokio::runtime::Builder::new_current_thread().enable_io().build();
        local.block_on(&event_loop.expect("made"), async {
            let (ours, mut qemu) = UnixStream::pair().expect("made");
            let (commands, receiver) = mpsc::unbounded_channel();
            let (events, mut happened) = mpsc::unbounded_channel();
            tokio::task::spawn_local(serve(ours, receiver, 1, events));
            assert_eq!(heard(&mut qemu).await["execute"], "qmp_capabilities");
            let ask = |snapshot, names: &[&str]| {
                let command = |name: &&str| (serde_json::json!({ "execute": name }), None);
                Command::Ask(Ask { snapshot, commands: names.iter().map(command).collect() })
            };
            commands.send(ask(1, &["a", "b", "c"])).expect("sent");
            commands.send(ask(2, &["d"])).expect("sent");
            for (name, answer) in [("a", "return"), ("b", "error"), ("d", "return")] {
                let said = heard(&mut qemu).await;
                assert_eq!(said["execute"], name);
                // An answer that nobody waits for means nothing.
                let body = serde_json::json!({ "desc": "no" });
                for id in [said["id"].as_u64().expect("a number") + 9, said["id"].as_u64().unwrap()]
                {
                    let line = serde_json::json!({ answer: body, "id": id });
                    qemu.write_all(format!("{line}\n").as_bytes()).await.expect("written");
                }
            }
            for (number, good) in [(1, false), (2, true)] {
                let (_, event) = happened.recv().await.expect("an event");
                let Event::MachineDid { snapshot, result } = event else { panic!("{event:?}") };
                assert_eq!((snapshot, result.is_ok()), (number, good));
            }
        });
    }
}
