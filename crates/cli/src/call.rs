//! Calls of services: `casemate call` from the host, and the broker of a guest's call.
//!
//! Whoever uses the host may run anything in his compartments, so a call of his is not asked of the
//! policy. A guest's is: the broker reads the policy anew for each, so that what it says now counts.

pub(crate) mod ask;
mod built_in;
mod host;
mod notify;

use std::collections::BTreeSet;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use casemate_policy::{Decision, Destination, Engine, Request, split_call};
use casemate_supervise::broker::Verdict;
use casemate_supervise::control::{self, Failure, Progress};
use casemate_supervise::policy;
use casemate_supervise::prepare::{Target, World};
use casemate_wire::Service;

use ask::{Answer as Said, Question};

use crate::arguments::{Broker, Call};
use crate::connect::{Answer, Supervisor};
use crate::failure::Problem;
use crate::policy::placed;
use crate::{run, running};

/// What begins the name of a target that is a fresh disposable.
const DISPOSABLE_OF: &str = "@dispvm:";

/// Exit codes of whoever called, as qrexec-client-vm has them.
const TROUBLE: u8 = 125;
const REFUSED: u8 = 126;

/// `casemate call TARGET SERVICE[+ARGUMENT]`.
pub(crate) fn call(world: &World, arguments: &Call, verbose: bool) -> Result<u8, Problem> {
    let service = called(&arguments.service, Service::HOST, &arguments.target)?;
    let disposable = arguments.target.strip_prefix(DISPOSABLE_OF);
    let name = disposable.unwrap_or(&arguments.target);
    let wanted = control::Run {
        user: arguments.user.clone(),
        service: Some(service),
        display: run::display(),
        ..control::Run::default()
    };
    run::in_compartment(world, name, disposable.is_some(), &wanted, verbose)
}

/// The service that a word of a call names.
fn called(word: &str, source: &str, target: &str) -> Result<control::Service, Problem> {
    let (name, argument) = split_call(word);
    // The policy language has the rules for names; whom it is from and for does not matter here.
    Request::new(name, argument, "@adminvm", "@default").map_err(|flaw| {
        let problem = Problem { code: 2, ..Problem::new(flaw.message) };
        match flaw.hint {
            Some(hint) => problem.hint(hint),
            None => problem,
        }
    })?;
    Ok(control::Service {
        name: name.into(),
        argument: argument.strip_prefix('+').unwrap_or(argument).into(),
        source: source.into(),
        target: target.into(),
    })
}

/// Decides a guest's call and connects it; see [`casemate_supervise::broker`].
pub(crate) fn broker(world: &World, arguments: &Broker) -> Result<u8, Problem> {
    let verdict = decide(world, arguments).unwrap_or_else(|problem| {
        let detail = format!("{}: {}", problem.what, problem.causes.join(": "));
        Verdict::Refused { code: TROUBLE, reason: problem.what, detail }
    });
    say(&verdict)?;
    match verdict {
        Verdict::Connected { target, .. } if target == Service::HOST => {
            let Broker { source, target, service } = arguments;
            match host::serve(world, source, target, service)? {
                Some(served) => say(&served),
                None => Ok(()),
            }
            .map(|()| 0)
        }
        _ => Ok(0),
    }
}

/// One line on standard output.
fn say(verdict: &impl serde::Serialize) -> Result<(), Problem> {
    let mut line = serde_json::to_vec(verdict).map_err(std::io::Error::other)?;
    line.push(b'\n');
    let mut out = std::io::stdout();
    Ok(out.write_all(&line).and_then(|()| out.flush())?)
}

fn refused(detail: impl Into<String>) -> Verdict {
    let reason = "refused by the policy of the host".into();
    Verdict::Refused { code: REFUSED, reason, detail: detail.into() }
}

fn decide(world: &World, arguments: &Broker) -> Result<Verdict, Problem> {
    let Broker { source, target, service } = arguments;
    let (name, argument) = split_call(service);
    let request = match Request::new(name, argument, source, target) {
        Ok(request) => request,
        Err(flaw) => return Ok(refused(format!("not a call: {}", flaw.message))),
    };
    let running: BTreeSet<String> = running::names(world)?.into_iter().collect();
    let read = match policy::load(policy::Place::of(world, None), &world.places) {
        Ok(read) => read,
        // Where the policy lies is not for a guest.
        Err(error) => return Ok(refused(error.to_string())),
    };
    let engine = Engine::new(read.policy, policy::system(world.settings(), &running));
    let tell = |wanted: bool, what: &str| {
        if wanted {
            notify::notify(world, source, &format!("{service}: {what}"));
        }
    };
    let (rule, target, user, autostart) = match engine.decide(&request) {
        Decision::Deny { reason, rule, notify } => {
            tell(notify, "refused");
            let by = rule.map_or(String::new(), |rule| format!(" ({})", placed(&engine, rule).0));
            return Ok(refused(format!("{reason}{by}")));
        }
        Decision::Ask { rule, choices, default, user, notify, autostart } => {
            let question = Question {
                source: source.clone(),
                service: service.clone(),
                choices: choices.iter().map(ToString::to_string).collect(),
                default: default.as_ref().map(ToString::to_string),
            };
            let answer = ask::ask(world, &question, std::io::stdin().as_fd());
            let chosen = match &answer {
                Said::Target(name) => choices.iter().find(|choice| choice.to_string() == *name),
                Said::No(why) => {
                    let by = placed(&engine, rule).0;
                    return Ok(refused(format!("{why} ({by})")));
                }
            };
            tell(notify && chosen.is_some(), "let through");
            match chosen {
                Some(target) => (rule, *target, user, autostart),
                None => return Ok(refused("the answer is none of the choices")),
            }
        }
        Decision::Allow { rule, target, user, notify, autostart } => {
            tell(notify, "let through");
            (rule, target, user, autostart)
        }
    };
    let by = placed(&engine, rule).0;
    let connected = |target: String| Ok(Verdict::Connected { target, by: by.clone() });
    let target = match target {
        Destination::Host => {
            return match host::find(world, name, argument) {
                Some(_) => connected(Service::HOST.into()),
                None => Ok(no_service(name)),
            };
        }
        Destination::Compartment(name) => Target::Declared(name.into()),
        Destination::DisposableOf(name) => run::fresh(world, name)?,
        Destination::Disposable => {
            let caller = engine.system().named(source);
            match caller.and_then(|caller| caller.default_disposable.as_deref()) {
                Some(template) => run::fresh(world, template)?,
                None => return Ok(refused("the caller has no default disposable")),
            }
        }
    };
    let wanted = control::Run {
        user: user.map(str::to_owned),
        service: Some(called(service, source, &arguments.target)?),
        display: run::display(),
        ..control::Run::default()
    };
    if crate::event_loop()?.block_on(connect(world, &target, wanted, autostart))? {
        return connected(target.name());
    }
    Ok(refused(format!(
        "the target is not running any more, and the rule does not start it ({by})"
    )))
}

fn no_service(name: &str) -> Verdict {
    let reason = format!("the target has no service {name}");
    Verdict::Refused { code: 127, detail: reason.clone(), reason }
}

/// Opens the service's session with standard input as its socket. False when the target is down and
/// shall not be started (`autostart`).
async fn connect(
    world: &World,
    target: &Target,
    wanted: control::Run,
    autostart: bool,
) -> Result<bool, Problem> {
    let request = control::Request::Run(Box::new(wanted));
    for _ in 0..run::ATTEMPTS {
        let socket: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned()?;
        if ask::is_closed(socket.as_fd()) {
            return Err(Problem::new("whoever called has gone"));
        }
        let mut supervisor = match autostart {
            true => Supervisor::of(world, target).await?,
            false => match running::supervisor(world, &target.name())? {
                Some(supervisor) => supervisor,
                None => return Ok(false),
            },
        };
        if supervisor.send(&request, vec![socket], true).await.is_err() {
            continue;
        }
        loop {
            match supervisor.receive::<Progress>().await? {
                Ok(Answer { value: Progress { session: Some(_), .. }, .. }) => return Ok(true),
                Ok(Answer { more: true, .. }) => {}
                // It has ended already; what it said is in the socket.
                Ok(Answer { more: false, .. }) => return Ok(true),
                Err(Failure::Stopping) => {
                    supervisor.closed().await;
                    break;
                }
                Err(failure) => return Err(Problem::answered(&target.name(), failure)),
            }
        }
    }
    Err(Problem::answered(&target.name(), Failure::Stopping))
}
