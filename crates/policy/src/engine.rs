//! The decision about a call.

use crate::bits::Bits;
use crate::choices::Choices;
use crate::decision::{Decision, Destination, Reason};
use crate::index::{Goal, Index};
use crate::policy::Policy;
use crate::request::{Caller, Request, Wanted};
use crate::rule::{Action, Permission};
use crate::system::{Compartment, System};
use crate::token::Redirect;

/// A policy compiled for a system. Same request, same decision.
#[derive(Clone, Debug)]
pub struct Engine {
    policy: Policy,
    system: System,
    pub(crate) index: Index,
}

impl Engine {
    /// Compiles `policy` for `system`.
    pub fn new(policy: Policy, system: System) -> Self {
        let index = Index::new(&policy.rules, &system);
        Self { policy, system, index }
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The system.
    pub fn system(&self) -> &System {
        &self.system
    }

    /// What the policy says about a call.
    pub fn decide<'a>(&'a self, request: &Request<'a>) -> Decision<'a> {
        let goal = match self.goal(request) {
            Ok(goal) => goal,
            Err(reason) => return Decision::Deny { reason, rule: None, notify: true },
        };
        let source = self.index.source(request.source, &self.system);
        let calls = self.index.calls(request.service, request.argument);
        let target = self.index.target(goal, self.default_disposable(request.source), &self.system);
        let Some(rule) = self.index.first(calls, &source, &target) else {
            return Decision::Deny { reason: Reason::NoRule, rule: None, notify: true };
        };
        let deny = |reason, notify| Decision::Deny { reason, rule: Some(rule), notify };
        match &self.policy.rules[rule].action {
            Action::Deny { notify } => deny(Reason::Rule, *notify),
            Action::Quarantine => deny(Reason::Quarantine, true),
            Action::Allow(permission) => match self.allowed(request, goal, permission) {
                Ok(target) => Decision::Allow {
                    rule,
                    target,
                    user: permission.user.as_deref(),
                    notify: permission.notify,
                    autostart: permission.autostart,
                },
                Err(Reason::NotRunning) => deny(Reason::NotRunning, permission.notify),
                Err(reason) => deny(reason, true),
            },
            Action::Ask { permission, default_target } => {
                let mut choices = match &permission.target {
                    Some(target) => self.destination(target).into_iter().collect(),
                    None => self.choices(request, &self.index.met(calls, &source)),
                };
                if !permission.autostart {
                    choices.retain(|choice| self.is_up(choice));
                }
                if choices.is_empty() {
                    return deny(Reason::NoChoice, true);
                }
                let default = default_target.as_ref().and_then(|target| match target {
                    Redirect::Disposable => self.fresh(request.source),
                    other => self.destination(other),
                });
                Decision::Ask {
                    rule,
                    default: default.filter(|default| choices.contains(default)),
                    choices,
                    user: permission.user.as_deref(),
                    notify: permission.notify,
                    autostart: permission.autostart,
                }
            }
        }
    }

    /// Where the call shall go. What does not exist is the same as nothing.
    pub(crate) fn goal<'a>(&self, request: &Request<'a>) -> Result<Goal, Reason<'a>> {
        let known = |index: Option<usize>| index.map_or(Goal::Default, Goal::Compartment);
        Ok(match request.target {
            Wanted::Default => Goal::Default,
            Wanted::Host => Goal::Host,
            Wanted::HostWord => Goal::HostWord,
            Wanted::Compartment(name) => known(self.system.index(name)),
            Wanted::Uuid(uuid) => known(self.system.index_of_uuid(uuid)),
            Wanted::Disposable => Goal::Disposable,
            Wanted::DisposableOf(name) => match self.system.index(name) {
                Some(index) if self.system.is_template(name) => Goal::DisposableOf(index),
                _ => return Err(Reason::NoTemplate(name)),
            },
        })
    }

    /// The caller, when it is known.
    fn caller(&self, caller: Caller<'_>) -> Option<&Compartment> {
        match caller {
            Caller::Host => Some(self.system.host()),
            Caller::Compartment(name) => self.system.named(name),
        }
    }

    pub(crate) fn default_disposable(&self, caller: Caller<'_>) -> Option<&str> {
        self.caller(caller)?.default_disposable.as_deref()
    }

    /// A fresh disposable of the caller's default template.
    fn fresh(&self, caller: Caller<'_>) -> Option<Destination<'_>> {
        self.default_disposable(caller).map(Destination::DisposableOf)
    }

    /// What `target=` means. A name is taken as it stands, a UUID only if somebody has it.
    fn destination<'a>(&'a self, redirect: &'a Redirect) -> Option<Destination<'a>> {
        Some(match redirect {
            Redirect::Host => Destination::Host,
            Redirect::Disposable => Destination::Disposable,
            Redirect::Name(name) => Destination::Compartment(name),
            Redirect::DisposableOf(name) => Destination::DisposableOf(name),
            Redirect::Uuid(uuid) => {
                let index = self.system.index_of_uuid(*uuid)?;
                Destination::Compartment(&self.system.compartments()[index].name)
            }
        })
    }

    /// Where an allowed call goes.
    fn allowed<'a>(
        &'a self,
        request: &Request<'a>,
        goal: Goal,
        permission: &'a Permission,
    ) -> Result<Destination<'a>, Reason<'a>> {
        let named = |index: usize| self.system.compartments()[index].name.as_str();
        let target = match &permission.target {
            Some(redirect) => match self.destination(redirect) {
                Some(Destination::DisposableOf(name)) if !self.system.is_template(name) => {
                    return Err(Reason::NoTemplate(name));
                }
                Some(Destination::Compartment(name)) if self.system.index(name).is_none() => {
                    return Err(Reason::NoSuchTarget(redirect));
                }
                Some(destination) => destination,
                None => return Err(Reason::NoSuchTarget(redirect)),
            },
            None => match goal {
                Goal::Default => return Err(Reason::NoTarget),
                Goal::Host | Goal::HostWord => Destination::Host,
                Goal::Compartment(index) => Destination::Compartment(named(index)),
                Goal::Disposable => Destination::Disposable,
                Goal::DisposableOf(index) => Destination::DisposableOf(named(index)),
            },
        };
        let target = match target {
            Destination::Disposable => {
                self.fresh(request.source).ok_or(Reason::NoDefaultDisposable)?
            }
            other => other,
        };
        if !permission.autostart && !self.is_up(&target) {
            return Err(Reason::NotRunning);
        }
        if is_caller(request.source, &target) {
            return Err(Reason::Loopback);
        }
        Ok(target)
    }

    /// Whether a call can go there without starting anything.
    fn is_up(&self, target: &Destination<'_>) -> bool {
        match target {
            Destination::Host => true,
            Destination::Compartment(name) => self.system.named(name).is_some_and(|c| c.running),
            Destination::Disposable | Destination::DisposableOf(_) => false,
        }
    }

    /// What a question offers: what the rules for this call and caller allow or ask about, the
    /// first of them having the last word.
    fn choices<'a>(&'a self, request: &Request<'a>, met: &[usize]) -> Vec<Destination<'a>> {
        let mut choices = Bits::new(Choices::count(&self.system));
        for &rule in met.iter().rev() {
            let action = &self.policy.rules[rule].action;
            let takes = matches!(action, Action::Deny { .. } | Action::Quarantine);
            self.index.apply(rule, takes, &mut choices);
        }
        let compartments = self.system.compartments();
        let count = compartments.len();
        let mut found: Vec<_> = choices
            .iter()
            .filter_map(|choice| {
                Some(match choice {
                    choice if choice < count => {
                        Destination::Compartment(&compartments[choice].name)
                    }
                    choice if choice < 2 * count => {
                        Destination::DisposableOf(&compartments[choice - count].name)
                    }
                    choice if choice == Choices::host(&self.system) => Destination::Host,
                    _ => self.fresh(request.source)?,
                })
            })
            .filter(|choice| !is_caller(request.source, choice) && !self.is_internal(choice))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Whether it, or what it is made from, is left out of questions.
    fn is_internal(&self, target: &Destination<'_>) -> bool {
        match target {
            Destination::Host => self.system.host().internal,
            Destination::Compartment(name) | Destination::DisposableOf(name) => {
                self.system.named(name).is_some_and(|compartment| compartment.internal)
            }
            Destination::Disposable => false,
        }
    }
}

fn is_caller(caller: Caller<'_>, target: &Destination<'_>) -> bool {
    match (caller, target) {
        (Caller::Host, Destination::Host) => true,
        (Caller::Compartment(caller), Destination::Compartment(target)) => caller == *target,
        _ => false,
    }
}
