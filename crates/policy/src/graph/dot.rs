//! The graph in the language of Graphviz.

use std::fmt::Write;

use super::{Graph, Node, Verdict, harmless};

/// Services named at one line of the drawing.
const MAX_LABEL: usize = 8;

impl Graph {
    /// A `digraph`; questions are dashed.
    pub fn dot(&self) -> String {
        let mut out = String::from("digraph policy {\n  rankdir=LR;\n  node [shape=box];\n");
        for node in self.nodes() {
            let style = match node {
                Node::Host => " [style=bold]",
                Node::Compartment(_) => "",
                Node::DisposableOf(_) => " [style=rounded]",
            };
            let _ = writeln!(out, "  {}{style};", quoted(&node.to_string()));
        }
        for ((source, target, verdict), services) in self.bundles() {
            let style = match verdict {
                Verdict::Allow => "",
                Verdict::Ask => ", style=dashed",
            };
            let _ = writeln!(
                out,
                "  {} -> {} [label={}{style}];",
                quoted(&source.to_string()),
                quoted(&target.to_string()),
                quoted(&label(&services)),
            );
        }
        out.push_str("}\n");
        out
    }
}

/// The services of a line, the first few by name.
pub(super) fn label(services: &[&str]) -> String {
    let shown = services[..services.len().min(MAX_LABEL)].join(", ");
    match services.len().saturating_sub(MAX_LABEL) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// A quoted string of the language: only `"` and `\` have a meaning in it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", harmless(text).replace('\\', "\\\\").replace('"', "\\\""))
}
