//! Which compartment may call which service of which other: the policy language of qrexec.
//!
//! Text becomes [`Rule`]s in the order of evaluation ([`Policy`]: lines, directives, quarantine of
//! files with errors); those are compiled for a [`System`], the compartments there are, into an
//! [`Engine`], which answers a [`Request`] with a [`Decision`]. Beside deciding it can explain a
//! decision, find rules that can never matter, and draw who reaches whom.
//!
//! Pure: opens no file (the caller hands over text, and a [`Library`] for what files include), and
//! reads no clock and no environment. Carrying decisions out, and asking, is not done here.

mod bits;
mod choices;
mod decision;
mod engine;
mod explain;
mod file;
mod graph;
mod index;
pub mod limits;
mod lint;
mod parse;
mod policy;
mod request;
mod rule;
mod system;
mod token;
pub mod vectors;

pub use decision::{Decision, Destination, Reason};
pub use engine::Engine;
pub use explain::{Explanation, Field, NearMiss};
pub use file::{Arranged, Library, Memory, Naming, PolicyFile, PolicyText, arrange, naming};
pub use graph::{Graph, GraphError, Link, Node, Verdict};
pub use policy::Policy;
pub use request::{Caller, Request, Wanted, is_name, split_call};
pub use rule::{Action, Permission, Place, Rule};
pub use system::{Compartment, System, SystemError};
pub use token::{Redirect, Token, Uuid};
