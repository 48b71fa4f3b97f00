//! Why a decision is as it is: the rule that decided, and those before it that nearly did.

use casemate_config::nearest;

use crate::decision::Decision;
use crate::engine::Engine;
use crate::request::{Request, Wanted};
use crate::rule::Action;
use crate::token::Redirect;

/// Near misses that are kept, the nearest to the rule that decided.
const MAX_NEAR: usize = 100;

/// The column by which a rule does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// SERVICE.
    Service,
    /// ARGUMENT.
    Argument,
    /// SOURCE.
    Source,
    /// TARGET.
    Target,
}

impl Field {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Argument => "argument",
            Self::Source => "source",
            Self::Target => "target",
        }
    }
}

/// A rule that all but one column of matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearMiss {
    /// Index of the rule.
    pub rule: usize,
    /// The column that does not match.
    pub field: Field,
    /// What stands there.
    pub says: String,
}

/// A decision and what led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation<'a> {
    /// The decision.
    pub decision: Decision<'a>,
    /// Rules before the one that decided (all, when none did) that one column keeps from matching,
    /// in the order of evaluation. For the service that column is counted only when the name is
    /// alike.
    pub near: Vec<NearMiss>,
    /// What the caller should know beside: full sentences without a full stop.
    pub notes: Vec<String>,
}

impl Engine {
    /// What the policy says about a call, and why.
    pub fn explain<'a>(&'a self, request: &Request<'a>) -> Explanation<'a> {
        let decision = self.decide(request);
        let mut notes = self.notes(request, &decision);
        let mut near = self.near(request, decision.rule());
        if near.len() > MAX_NEAR {
            notes.push(format!("{} more rules nearly matched", near.len() - MAX_NEAR));
            near.drain(..near.len() - MAX_NEAR);
        }
        Explanation { decision, near, notes }
    }

    fn near(&self, request: &Request<'_>, decided: Option<usize>) -> Vec<NearMiss> {
        // A target that is refused before any rule is read has no rule that nearly matched.
        let Ok(goal) = self.goal(request) else { return Vec::new() };
        let default = self.default_disposable(request.source);
        let source = self.index.source(request.source, self.system());
        let target = self.index.target(goal, default, self.system());
        let rules = self.policy().rules.iter().enumerate().take(decided.unwrap_or(usize::MAX));
        let mut near = Vec::new();
        for (number, rule) in rules {
            if rule.action == Action::Quarantine {
                continue;
            }
            let service = rule.service.as_deref().unwrap_or(request.service);
            let argument = rule.argument.as_deref().unwrap_or(request.argument);
            let wrong = [
                (service != request.service, Field::Service, service.to_owned()),
                (argument != request.argument, Field::Argument, argument.to_owned()),
                (!source.contains(number), Field::Source, rule.source.to_string()),
                (!target.contains(number), Field::Target, rule.target.to_string()),
            ];
            let mut wrong = wrong.into_iter().filter(|(wrong, ..)| *wrong);
            let (Some((_, field, says)), None) = (wrong.next(), wrong.next()) else { continue };
            let alike = |known: &str| {
                known.eq_ignore_ascii_case(request.service)
                    || nearest(&request.service.to_lowercase(), [&*known.to_lowercase()]).is_some()
            };
            if field != Field::Service || alike(&says) {
                near.push(NearMiss { rule: number, field, says });
            }
        }
        near
    }

    fn notes(&self, request: &Request<'_>, decision: &Decision<'_>) -> Vec<String> {
        let mut notes = Vec::new();
        let missing = match request.target {
            Wanted::Compartment(name) if self.system().index(name).is_none() => Some(name.into()),
            Wanted::Uuid(uuid) if self.system().index_of_uuid(uuid).is_none() => {
                Some(format!("uuid:{uuid}"))
            }
            _ => None,
        };
        if let Some(missing) = missing {
            notes.push(format!("there is no `{missing}`; the call counts as one without a target"));
        }
        if let Decision::Ask { rule, default: None, .. } = decision
            && let Action::Ask { default_target: Some(wanted), .. } =
                &self.policy().rules[*rule].action
        {
            let shown = match wanted {
                Redirect::Disposable => "@dispvm".to_owned(),
                other => other.to_string(),
            };
            notes.push(format!("default_target={shown} is none of the choices and is left out"));
        }
        notes
    }
}
