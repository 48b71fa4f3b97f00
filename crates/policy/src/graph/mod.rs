//! Who can reach whom for what: every call a policy distinguishes, decided, and what is allowed or
//! asked about put together.
//!
//! It is made by asking the engine, not by reading rules, so it shows what happens: redirections,
//! the rules before, and what questions offer.

mod dot;
mod svg;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::decision::{Decision, Destination};
use crate::engine::Engine;
use crate::limits::{MAX_GRAPH, MAX_LINKS};
use crate::request::{Caller, Request, Wanted};

/// A service and an argument that no rule can name: what `*` is asked with. Sorts before every
/// argument.
const ANY: &str = "*";

/// A place of the graph.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// The host.
    Host,
    /// A compartment.
    Compartment(String),
    /// A fresh disposable made from this compartment.
    DisposableOf(String),
}

/// Whether the user is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// He is.
    Ask,
    /// He is not.
    Allow,
}

/// One way from a place to another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// Who calls.
    pub source: Node,
    /// Where the call arrives.
    pub target: Node,
    /// Service and argument; `*` stands for what no rule names.
    pub service: String,
    /// The more that some call gets.
    pub verdict: Verdict,
}

/// Who can reach whom for what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    /// In order.
    pub links: Vec<Link>,
}

/// Why no graph can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// So many decisions are needed.
    #[error("could not make a graph: it takes {0} decisions, and {MAX_GRAPH} is the limit")]
    TooLarge(usize),
    /// More links than can be shown.
    #[error("could not make a graph: it has more than {MAX_LINKS} links")]
    TooMany,
}

impl fmt::Display for Node {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => formatter.write_str("@adminvm"),
            Self::Compartment(name) => formatter.write_str(name),
            Self::DisposableOf(name) => write!(formatter, "@dispvm:{name}"),
        }
    }
}

impl Verdict {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ask => "ask",
            Self::Allow => "allow",
        }
    }
}

impl Graph {
    /// The graph of a policy, or of one service of it.
    ///
    /// # Errors
    /// It would be too large to be made or to be looked at.
    pub fn of(engine: &Engine, service: Option<&str>) -> Result<Self, GraphError> {
        let compartments = engine.system().compartments();
        let names = || compartments.iter().map(|compartment| compartment.name.as_str());
        let callers: Vec<_> = names().map(Caller::Compartment).chain([Caller::Host]).collect();
        let templates = compartments.iter().filter(|c| c.disposable_template);
        let mut wanted = vec![Wanted::Default, Wanted::Host, Wanted::Disposable];
        wanted.extend(names().map(Wanted::Compartment));
        wanted.extend(templates.map(|template| Wanted::DisposableOf(&template.name)));
        let calls = calls(engine, service);
        let count = calls.values().map(BTreeSet::len).sum::<usize>();
        let needed = count.saturating_mul(callers.len()).saturating_mul(wanted.len());
        if needed > MAX_GRAPH {
            return Err(GraphError::TooLarge(needed));
        }
        let mut links = BTreeMap::new();
        for (&service, arguments) in &calls {
            for &source in &callers {
                for &target in &wanted {
                    // What any argument gets needs no line for each that has a name.
                    let mut any = BTreeSet::new();
                    for argument in arguments.iter().copied() {
                        let request = Request { service, argument, source, target };
                        let reached = reached(engine, &request);
                        for (node, verdict) in &reached {
                            if argument != ANY && any.contains(&(node.clone(), *verdict)) {
                                continue;
                            }
                            let key = (place(source), node.clone(), shown(service, argument));
                            let known = links.entry(key).or_insert(*verdict);
                            *known = (*known).max(*verdict);
                        }
                        if argument == ANY {
                            any = reached;
                        }
                    }
                }
                if links.len() > MAX_LINKS {
                    return Err(GraphError::TooMany);
                }
            }
        }
        let link = |((source, target, service), verdict)| Link { source, target, service, verdict };
        Ok(Self { links: links.into_iter().map(link).collect() })
    }

    /// Every place that has a link.
    pub fn nodes(&self) -> BTreeSet<&Node> {
        self.links.iter().flat_map(|link| [&link.source, &link.target]).collect()
    }

    /// The links from one place to another together, those that are allowed and asked about apart.
    fn bundles(&self) -> BTreeMap<(&Node, &Node, Verdict), Vec<&str>> {
        let mut bundles: BTreeMap<_, Vec<&str>> = BTreeMap::new();
        for link in &self.links {
            let key = (&link.source, &link.target, link.verdict);
            bundles.entry(key).or_default().push(&link.service);
        }
        bundles
    }
}

/// The services and arguments that rules name, and one of each that none names.
fn calls<'a>(engine: &'a Engine, only: Option<&'a str>) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let mut calls: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    if let Some(only) = only {
        calls.insert(only, [ANY].into());
    }
    for rule in &engine.policy().rules {
        let service = rule.service.as_deref().unwrap_or(only.unwrap_or(ANY));
        if only.is_none_or(|only| only == service) {
            let arguments = calls.entry(service).or_insert_with(|| [ANY].into());
            arguments.extend(rule.argument.as_deref());
        }
    }
    calls
}

/// Where a call can arrive.
fn reached(engine: &Engine, request: &Request<'_>) -> BTreeSet<(Node, Verdict)> {
    match engine.decide(request) {
        Decision::Deny { .. } => BTreeSet::new(),
        Decision::Allow { target, .. } => node(engine, request.source, target)
            .map(|node| (node, Verdict::Allow))
            .into_iter()
            .collect(),
        Decision::Ask { choices, .. } => choices
            .into_iter()
            .filter_map(|choice| Some((node(engine, request.source, choice)?, Verdict::Ask)))
            .collect(),
    }
}

fn node(engine: &Engine, caller: Caller<'_>, destination: Destination<'_>) -> Option<Node> {
    Some(match destination {
        Destination::Host => Node::Host,
        Destination::Compartment(name) => Node::Compartment(name.into()),
        Destination::DisposableOf(name) => Node::DisposableOf(name.into()),
        Destination::Disposable => Node::DisposableOf(engine.default_disposable(caller)?.into()),
    })
}

fn place(caller: Caller<'_>) -> Node {
    match caller {
        Caller::Host => Node::Host,
        Caller::Compartment(name) => Node::Compartment(name.into()),
    }
}

fn shown(service: &str, argument: &str) -> String {
    let argument = if argument == ANY { "" } else { argument };
    format!("{service}{argument}")
}

/// Text for a terminal or a file: names of a system that somebody describes may hold anything.
fn harmless(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}
