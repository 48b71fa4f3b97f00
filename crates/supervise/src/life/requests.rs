//! What clients ask for, and what becomes of it.

use std::collections::BTreeSet;
use std::time::Instant;

use casemate_link::orders::Order;
use casemate_wire::OpenSession;
use casemate_wire::limits::MAX_SESSIONS;
use casemate_wire::text::harmless_line;

use super::{Effect, Life, RequestId, Session, State};
use crate::control::{Failure, Request, Run};

/// Where the agent listens for programs that want windows.
const GUEST_DISPLAY: &str = "/run/casemate/wayland-0";

/// Longest command shown in a status, in bytes.
const COMMAND_TEXT: usize = 200;

impl Life {
    pub(super) fn request(&mut self, id: RequestId, request: Request, now: Instant) {
        match request {
            // The runtime answers it, it knows the process ids.
            Request::Status | Request::Network => {}
            Request::Start => match &self.state {
                State::Running | State::Paused => self.reply_ready(id, None),
                State::Preparing | State::Booting { .. } | State::Waiting { .. } => {
                    self.wait_for_guest(id, None);
                }
                _ if self.comes_back() => self.wait_for_guest(id, None),
                _ => self.refuse_late(id),
            },
            Request::Run(run) => match &self.state {
                // A fresh disposable is for one command: what another left in it is not for this.
                _ if self.terms.fresh
                    && (self.had_session || self.waiting.values().any(Option::is_some)) =>
                {
                    self.refuse_late(id);
                }
                State::Running => self.open(id, &run, now),
                State::Preparing | State::Booting { .. } | State::Waiting { .. } => {
                    self.wait_for_guest(id, Some(run));
                }
                State::Paused => self.refuse(id, Failure::WrongState { state: "paused".into() }),
                _ if self.comes_back() => self.wait_for_guest(id, Some(run)),
                _ => self.refuse_late(id),
            },
            Request::Stop(stop) => {
                self.stopping.push(id);
                if self.outcome().is_some() {
                    self.reply_stopped();
                } else {
                    self.stop_wanted = true;
                    self.stop("it was asked to stop", stop.force, now);
                }
            }
            Request::Pause if self.shot.is_some() => {
                self.refuse(id, Failure::WrongState { state: "taking a snapshot".into() });
            }
            Request::Pause => self.execute(id, &State::Running, &State::Paused, false),
            Request::Resume => {
                self.execute(id, &State::Paused, &State::Running, true);
                // Time in which nothing could run is no idleness.
                if self.idle_since.is_some() {
                    self.idle_since = Some(now);
                }
                if let Some(health) = &mut self.health {
                    health.resumed(now);
                }
            }
            Request::View(view) => {
                if self.outcome().is_some() {
                    self.refuse_late(id);
                    return;
                }
                if matches!(self.state, State::Waiting { .. }) {
                    let state = self.state().to_owned();
                    return self.refuse(id, Failure::WrongState { state });
                }
                let order = Order::View { interactive: view.interactive };
                self.effects.push(Effect::Order(order, Some(id)));
                self.reply_ready(id, None);
            }
            Request::Signal(signal) => {
                if !(1..=64).contains(&signal.signal) {
                    let parameter = "signal: a number from 1 to 64".into();
                    self.refuse(id, Failure::InvalidParameter { parameter });
                } else if self.sessions.contains_key(&signal.session) {
                    let (stream, signal) = (signal.session, signal.signal);
                    self.order(Order::Signal { stream, signal });
                    self.reply_ready(id, Some(stream));
                } else {
                    self.refuse(id, Failure::NoSuchSession);
                }
            }
            Request::HangUp(hang_up) => {
                if self.sessions.contains_key(&hang_up.session) {
                    self.order(Order::HangUp { stream: hang_up.session });
                    self.reply_ready(id, Some(hang_up.session));
                } else {
                    self.refuse(id, Failure::NoSuchSession);
                }
            }
            Request::Snapshot(snapshot) => self.begin_snapshot(id, snapshot, now),
        }
    }

    /// Whoever wants a compartment that waits to be started again need not wait as long.
    pub(super) fn wait_for_guest(&mut self, id: RequestId, run: Option<Box<Run>>) {
        self.waiting.insert(id, run);
        self.tell_progress(id, None);
        if matches!(self.state, State::Waiting { .. }) {
            self.relaunch();
        }
    }

    pub(super) fn execute(&mut self, id: RequestId, from: &State, to: &State, run: bool) {
        if self.state == *from {
            self.state = to.clone();
            self.effects.push(Effect::Execute(run));
            self.reply_ready(id, None);
        } else if self.state == *to {
            self.reply_ready(id, None);
        } else {
            let state = self.state().to_owned();
            self.refuse(id, Failure::WrongState { state });
        }
    }

    pub(super) fn request_gone(&mut self, id: RequestId, now: Instant) {
        // A session ends with its own socket; here only who waits is forgotten.
        let waited = self.waiting.remove(&id).is_some();
        if waited && self.terms.fresh && self.waiting.is_empty() && self.sessions.is_empty() {
            self.stop("whoever wanted it has gone", true, now);
        }
        self.stopping.retain(|&other| other != id);
        if let Some(shot) = &mut self.shot {
            shot.forget(id);
        }
        for session in self.sessions.values_mut() {
            if session.requester == Some(id) {
                session.requester = None;
            }
        }
    }

    pub(super) fn open(&mut self, id: RequestId, run: &Run, now: Instant) {
        if self.sessions.len() >= MAX_SESSIONS {
            self.refuse(id, Failure::TooManySessions);
            return;
        }
        let mut session = match open_session(run) {
            Ok(session) => Box::new(session),
            Err(failure) => return self.refuse(id, failure),
        };
        if let Some(display) = &run.display {
            self.effects.push(Effect::UseDisplay(display.into()));
            // What the client itself says of the variable counts.
            let variable = (b"WAYLAND_DISPLAY".to_vec(), GUEST_DISPLAY.as_bytes().to_vec());
            session.environment.insert(0, variable);
        }
        let stream = self.next_stream;
        self.next_stream += 1;
        self.had_session = true;
        self.idle_since = None;
        self.sessions.insert(
            stream,
            Session {
                requester: Some(id),
                command: command_text(&session),
                user: run.user.clone(),
                pid: None,
                detached: run.detach,
                since: now,
                told: BTreeSet::new(),
            },
        );
        if run.detach {
            self.effects.push(Effect::OpenDetached(stream, session));
        } else {
            self.effects.push(Effect::Order(Order::Open { stream, session }, Some(id)));
            self.tell_progress(id, Some(stream));
        }
    }
}

/// What the agent shall run.
fn open_session(run: &Run) -> Result<OpenSession, Failure> {
    let argv: Vec<Vec<u8>> = match &run.argv_bytes {
        Some(bytes) => bytes.clone(),
        None => run.argv.iter().map(|argument| argument.clone().into_bytes()).collect(),
    };
    let mut environment = Vec::with_capacity(run.environment.len());
    for variable in &run.environment {
        let Some((name, value)) = variable.split_once('=').filter(|(name, _)| !name.is_empty())
        else {
            return Err(Failure::InvalidParameter { parameter: "environment".into() });
        };
        environment.push((name.into(), value.into()));
    }
    let names = [&run.cwd, &run.user].into_iter().flatten().map(String::len).sum::<usize>();
    let length: usize = argv.iter().map(Vec::len).sum::<usize>()
        + run.environment.iter().map(String::len).sum::<usize>()
        + names;
    let has_nul = argv.iter().any(|argument| argument.contains(&0))
        || run.environment.iter().any(|variable| variable.contains('\0'));
    if length > casemate_wire::limits::MAX_ARGUMENTS || has_nul {
        return Err(Failure::InvalidParameter { parameter: "argv".into() });
    }
    Ok(OpenSession {
        argv,
        environment,
        cwd: run.cwd.as_ref().map(|cwd| cwd.clone().into_bytes()),
        user: run.user.clone(),
        terminal: run.terminal.map(Into::into),
        detached: run.detach,
        service: run.service.as_ref().map(|service| casemate_wire::Service {
            name: service.name.clone(),
            argument: service.argument.clone(),
            source: service.source.clone(),
            target: service.target.clone(),
        }),
    })
}

fn command_text(session: &OpenSession) -> String {
    if let Some(service) = &session.service {
        let text = format!("(service {} for {})", service.name, service.source);
        return harmless_line(&text, COMMAND_TEXT);
    }
    let words: Vec<String> =
        session.argv.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    if words.is_empty() {
        "(login shell)".into()
    } else {
        harmless_line(&words.join(" "), COMMAND_TEXT)
    }
}
