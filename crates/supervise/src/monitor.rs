//! QMP: the little that is said to QEMU and heard from it.
//!
//! QEMU may have been taken over by its guest, so its lines are bounded and only four things are
//! understood. See QEMU's `docs/interop/qmp-spec`.

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::life::Event;

/// Longest line taken from QEMU, in bytes. Its greeting and events have some hundred.
const LINE_LIMIT: u64 = 64 * 1024;

/// Id of the agent's port device, which `VSERPORT_CHANGE` names.
const PORT_ID: &str = "agent-port";

/// A line of QMP; all but events is ignored.
#[derive(Deserialize)]
struct Line {
    event: Option<String>,
    #[serde(default)]
    data: Data,
}

#[derive(Default, Deserialize)]
struct Data {
    id: Option<String>,
    open: Option<bool>,
    reason: Option<String>,
}

/// What QEMU can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Stop executing guest code.
    Stop,
    /// Continue.
    Continue,
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
    loop {
        tokio::select! {
            command = commands.recv() => {
                let text: &[u8] = match command {
                    Some(Command::Stop) => b"{\"execute\":\"stop\"}\n",
                    Some(Command::Continue) => b"{\"execute\":\"cont\"}\n",
                    None => return,
                };
                if write.write_all(text).await.is_err() {
                    return;
                }
            }
            // Cancel safe: what was read of a line stays in `line`.
            count = read_line(&mut read, &mut line) => {
                if !matches!(count, Ok(1..)) {
                    return;
                }
                if let Some(event) = understand(&line)
                    && events.send((launch, event)).is_err()
                {
                    return;
                }
                line.clear();
            }
        }
    }
}

async fn read_line(
    read: &mut BufReader<tokio::net::unix::OwnedReadHalf>,
    line: &mut Vec<u8>,
) -> std::io::Result<usize> {
    let left = LINE_LIMIT.saturating_sub(line.len() as u64);
    let count = read.take(left).read_until(b'\n', line).await?;
    if line.len() as u64 >= LINE_LIMIT { Ok(0) } else { Ok(count) }
}

fn understand(line: &[u8]) -> Option<Event> {
    let line: Line = serde_json::from_slice(line).ok()?;
    match line.event?.as_str() {
        "SHUTDOWN" => {
            let reset = line.data.reason.as_deref() != Some("guest-shutdown");
            Some(Event::GuestStopped { reset })
        }
        "VSERPORT_CHANGE" if line.data.id.as_deref() == Some(PORT_ID) => {
            line.data.open.map(Event::PortOpened)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_the_guest_are_understood_and_the_rest_is_ignored() {
        let reset =
            br#"{"timestamp":{},"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-reset"}}"#;
        assert!(matches!(understand(reset), Some(Event::GuestStopped { reset: true })));
        let off = br#"{"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-shutdown"}}"#;
        assert!(matches!(understand(off), Some(Event::GuestStopped { reset: false })));
        let port = br#"{"event":"VSERPORT_CHANGE","data":{"open":true,"id":"agent-port"}}"#;
        assert!(matches!(understand(port), Some(Event::PortOpened(true))));
        for other in [
            &br#"{"event":"VSERPORT_CHANGE","data":{"open":true,"id":"other"}}"#[..],
            br#"{"return":{}}"#,
            br#"{"QMP":{"version":{}}}"#,
            b"not json",
        ] {
            assert!(understand(other).is_none());
        }
    }
}
