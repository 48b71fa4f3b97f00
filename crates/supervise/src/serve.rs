//! Client connections of the control socket: varlink in, requests out, answers back.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use serde_json::json;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use zlink::tokio::unix::Stream;
use zlink::{Call, Connection, Reply};

use crate::control::{
    DESCRIPTION, Failure, INTERFACE, Message, Network, Progress, Request, Status,
};
use crate::life::RequestId;

/// From a connection to the runtime.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A request, with the descriptor it brought and where its answers go.
    Request {
        /// Number of the request.
        id: RequestId,
        /// What is asked.
        request: Request,
        /// First descriptor of the call.
        descriptor: Option<OwnedFd>,
        /// Where to answer.
        answers: mpsc::UnboundedSender<Answer>,
    },
    /// The client closed its connection before the last answer.
    Gone(RequestId),
}

/// From the runtime to a connection.
#[derive(Debug)]
pub(crate) enum Answer {
    /// More will come.
    Progress(Progress),
    /// The last answer.
    Done(Result<Progress, Failure>),
    /// The last answer to `Status`.
    Status(Box<Status>),
    /// The last answer to `Network`.
    Network(Box<Network>),
}

/// Numbers the requests of all connections.
#[derive(Debug, Default)]
pub(crate) struct Numbers(std::cell::Cell<RequestId>);

impl Numbers {
    fn next(&self) -> RequestId {
        let id = self.0.get() + 1;
        self.0.set(id);
        id
    }
}

/// Whether a peer may use the control socket: root, the supervisor's own user, or one of the
/// users the compartment names.
pub(crate) fn may_use(peer: u32, own: u32, users: &[u32]) -> bool {
    peer == 0 || peer == own || users.contains(&peer)
}

/// Serves one connection until it is closed. `allowed` is none for who may not use it, and true for
/// the supervisor's own user.
pub(crate) async fn serve(
    stream: UnixStream,
    allowed: Option<bool>,
    numbers: std::rc::Rc<Numbers>,
    incoming: mpsc::UnboundedSender<Incoming>,
) {
    let Ok(stream) = Stream::try_from(stream) else { return };
    let (mut read, mut write) = Connection::new(stream).split();
    let mut queued: VecDeque<(Call<Message>, Vec<OwnedFd>)> = VecDeque::new();
    loop {
        let (call, descriptors) = match queued.pop_front() {
            Some(next) => next,
            None => match read.receive_call::<Message>().await {
                Ok(next) => next,
                Err(_) => return,
            },
        };
        let more = call.more();
        let message = call.method().clone();
        if let Some(reply) = introspection(&message) {
            let sent = match reply {
                Ok(value) => write.send_reply(&Reply::new(Some(value)), vec![]).await,
                Err(failure) => write.send_error(&failure.to_reply(), vec![]).await,
            };
            if sent.is_err() {
                return;
            }
            continue;
        }
        let request = match Request::from_message(message) {
            _ if allowed.is_none() => Err(Failure::PermissionDenied),
            Ok(Request::Run(run)) if !run.detach && descriptors.is_empty() => {
                Err(Failure::NoDescriptor)
            }
            Ok(Request::Run(mut run)) => {
                // Connections are made with the rights of this process: nobody else names where to.
                run.display = run.display.filter(|_| allowed == Some(true));
                Ok(Request::Run(run))
            }
            Ok(Request::View(_)) if descriptors.is_empty() => Err(Failure::NoDescriptor),
            other => other,
        };
        let request = match request {
            Ok(request) => request,
            Err(failure) => {
                if write.send_error(&failure.to_reply(), vec![]).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let id = numbers.next();
        let (answers, mut answered) = mpsc::unbounded_channel();
        let descriptor = descriptors.into_iter().next();
        if incoming.send(Incoming::Request { id, request, descriptor, answers }).is_err() {
            return;
        }
        loop {
            let answer = tokio::select! {
                answer = answered.recv() => answer,
                next = read.receive_call::<Message>(), if queued.len() < 8 => match next {
                    Ok(next) => {
                        queued.push_back(next);
                        continue;
                    }
                    Err(_) => {
                        let _ = incoming.send(Incoming::Gone(id));
                        return;
                    }
                },
            };
            let (sent, last) = match answer {
                // The runtime ends without an answer: closing the connection says so.
                None => return,
                Some(Answer::Progress(_)) if !more => continue,
                Some(Answer::Progress(progress)) => {
                    let reply = Reply::new(Some(progress)).set_continues(Some(true));
                    (write.send_reply(&reply, vec![]).await, false)
                }
                Some(Answer::Done(Ok(progress))) => {
                    (write.send_reply(&Reply::new(Some(progress)), vec![]).await, true)
                }
                Some(Answer::Done(Err(failure))) => {
                    (write.send_error(&failure.to_reply(), vec![]).await, true)
                }
                Some(Answer::Network(network)) => {
                    (write.send_reply(&Reply::new(Some(*network)), vec![]).await, true)
                }
                Some(Answer::Status(status)) => {
                    (write.send_reply(&Reply::new(Some(*status)), vec![]).await, true)
                }
            };
            if sent.is_err() {
                let _ = incoming.send(Incoming::Gone(id));
                return;
            }
            if last {
                break;
            }
        }
    }
}

/// Answers `org.varlink.service`, which every varlink service has.
fn introspection(message: &Message) -> Option<Result<serde_json::Value, Failure>> {
    let method = message.method.strip_prefix("org.varlink.service.")?;
    Some(match method {
        "GetInfo" => Ok(json!({
            "vendor": "casemate",
            "product": "casemate-supervisor",
            "version": env!("CARGO_PKG_VERSION"),
            "url": "",
            "interfaces": ["org.varlink.service", INTERFACE],
        })),
        "GetInterfaceDescription" => {
            let name = message.parameters.as_ref().and_then(|p| p.get("interface")?.as_str());
            match name {
                Some(INTERFACE) => Ok(json!({ "description": DESCRIPTION })),
                _ => Err(Failure::InvalidParameter { parameter: "interface".into() }),
            }
        }
        _ => Err(Failure::MethodNotFound { method: message.method.clone() }),
    })
}
