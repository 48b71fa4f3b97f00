//! Questions about a running compartment's link, which only the keeper of its network can answer: it
//! alone is in the namespace, or it is the root helper. One at a time, each with a deadline.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use casemate_host::network::{NetworkError, receive};
use casemate_plan::Plan;
use casemate_plan::network::{FromKeeper, ToKeeper};
use nix::sys::socket::{MsgFlags, send};
use serde::Deserialize;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use crate::control::{Counter, Failure, Network};
use crate::serve::Answer;

/// How long the keeper may take: it asks nft, which takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Questions that may wait.
const WAITING: usize = 64;

/// Whom to ask.
pub(crate) type Questions = mpsc::Sender<Answers>;

type Answers = mpsc::UnboundedSender<Answer>;

/// Asks, if there is a network.
pub(crate) fn ask(questions: Option<&Questions>, answers: Answers) {
    let refused = match questions {
        None => Some("the compartment is offline, or not started yet"),
        Some(questions) => match questions.try_send(answers.clone()) {
            Ok(()) => None,
            Err(_) => Some("too many questions wait for the keeper of its network"),
        },
    };
    if let Some(reason) = refused {
        refuse(&answers, reason.to_owned());
    }
}

/// Passes questions on to the keeper of the plan's network.
pub(crate) fn serve(keeper: AsyncFd<OwnedFd>, plan: &Plan) -> Questions {
    let (questions, mut asked) = mpsc::channel::<Answers>(WAITING);
    let network = plan.network.clone();
    tokio::task::spawn_local(async move {
        while let Some(answers) = asked.recv().await {
            let Some(network) = &network else { return };
            let counted = tokio::time::timeout(PATIENCE, counters(&keeper)).await;
            match counted.unwrap_or_else(|_| Err("it does not answer".into())) {
                Ok(counters) => {
                    let answer = Network {
                        mac: network.link.mac.to_string(),
                        address: network.link.guest.to_string(),
                        gateway: network.link.host.to_string(),
                        resolver: network.link.resolver.to_string(),
                        default: network.default.to_string(),
                        rules: network.rules.clone(),
                        way: network.way.name().into(),
                        device: network.way.device().into(),
                        counters,
                    };
                    // The client may have gone; nothing is lost then.
                    let _ = answers.send(Answer::Network(Box::new(answer)));
                }
                Err(reason) => {
                    refuse(&answers, format!("could not ask the keeper of its network: {reason}"));
                }
            }
        }
    });
    questions
}

fn refuse(answers: &Answers, reason: String) {
    let _ = answers.send(Answer::Done(Err(Failure::Failed { reason, hint: None })));
}

async fn counters(keeper: &AsyncFd<OwnedFd>) -> Result<Vec<Counter>, String> {
    let question = serde_json::to_vec(&ToKeeper::Counters).map_err(|error| error.to_string())?;
    send(keeper.get_ref().as_raw_fd(), &question, MsgFlags::MSG_NOSIGNAL)
        .map_err(|error| error.to_string())?;
    loop {
        let mut guard = keeper.readable().await.map_err(|error| error.to_string())?;
        match receive(keeper.get_ref()) {
            Ok((FromKeeper::Counters { text }, _)) => return read(&text),
            Ok((FromKeeper::NoCounters { reason } | FromKeeper::Failed { reason }, _)) => {
                return Err(reason);
            }
            Ok((FromKeeper::Ready | FromKeeper::Terms { .. } | FromKeeper::Repaired { .. }, _)) => {
            }
            Err(NetworkError::Socket(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                guard.clear_ready();
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// What `nft --json list counters` prints (libnftables-json(5)).
#[derive(Deserialize)]
struct Listed {
    nftables: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    counter: Option<Counter>,
}

fn read(text: &str) -> Result<Vec<Counter>, String> {
    let listed: Listed = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Ok(listed.nftables.into_iter().filter_map(|entry| entry.counter).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_from_what_nft_prints() {
        let text = r#"{"nftables": [{"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
            {"counter": {"family": "inet", "name": "rule0", "table": "casemate", "handle": 3,
             "packets": 2, "bytes": 120}}]}"#;
        let expected = Counter { name: "rule0".into(), packets: 2, bytes: 120 };
        assert_eq!(read(text), Ok(vec![expected]));
        assert!(read("nonsense").is_err());
    }
}
