//! Test vectors: a call, the files it is judged by, and the answer in the form that qrexec's own
//! implementation was asked in.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::decision::{Decision, Destination, Reason};
use crate::engine::Engine;
use crate::file::Memory;
use crate::policy::Policy;
use crate::request::Request;
use crate::system::System;

/// One line of a file of vectors.
#[derive(Debug, Deserialize)]
pub struct Case {
    /// Whatever names it.
    #[serde(default)]
    pub id: Value,
    /// Files by name; `__main__` is the first.
    pub files: BTreeMap<String, String>,
    /// The call.
    pub request: Call,
    /// The answer, where it is known.
    #[serde(default)]
    pub expect: Value,
}

/// A call in a vector.
#[derive(Debug, Deserialize)]
pub struct Call {
    /// Who calls.
    pub source: String,
    /// Where.
    pub target: String,
    /// Which service.
    pub service: String,
    /// With which argument, beginning with `+`.
    pub argument: String,
}

impl Case {
    /// Reads one line.
    ///
    /// # Errors
    /// It is no JSON of that form.
    pub fn read(line: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(line)
    }

    /// The answer: `{"id": …, "expect": …}`. Any mistake in any file is `{"error": "syntax"}`, as is
    /// a call that no rule could be about.
    pub fn answer(&self, system: &System) -> Value {
        json!({ "id": self.id, "expect": self.evaluate(system) })
    }

    fn evaluate(&self, system: &System) -> Value {
        let syntax = || json!({ "error": "syntax" });
        let files = self.files.iter().map(|(name, text)| (name.into(), text.clone()));
        let policy = Policy::load_main(&Memory::new(files));
        let call = &self.request;
        let request = Request::new(&call.service, &call.argument, &call.source, &call.target);
        let Ok(request) = request.map(|request| request.as_qrexec(&call.target)) else {
            return syntax();
        };
        if policy.has_errors() {
            return syntax();
        }
        let engine = Engine::new(policy, system.clone());
        to_json(&engine.decide(&request))
    }
}

/// A decision as vectors have it. `line` is the number of the rule, from 1.
pub fn to_json(decision: &Decision<'_>) -> Value {
    match decision {
        Decision::Deny { reason: Reason::Loopback, notify, .. } => {
            json!({ "deny": { "notify": notify, "loopback": true } })
        }
        Decision::Deny { notify, .. } => json!({ "deny": { "notify": notify } }),
        Decision::Allow { rule, target, user, notify, autostart } => json!({ "allow": {
            "line": rule + 1,
            "target": target.to_string(),
            "user": user,
            "notify": notify,
            "autostart": autostart,
        } }),
        Decision::Ask { rule, choices, default, user, notify, autostart } => json!({ "ask": {
            "line": rule + 1,
            "targets": choices.iter().map(Destination::to_string).collect::<Vec<_>>(),
            "default": default.as_ref().map(Destination::to_string),
            "user": user,
            "notify": notify,
            "autostart": autostart,
        } }),
    }
}
