//! What passes between compartments, who may, and what is recorded of it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Json;

/// Commands of `audit`.
#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Find out whether records were changed, removed or moved.
    Verify {
        /// The head that an earlier `verify` printed and that was kept elsewhere: with it, records that
        /// were cut off the end are found too.
        #[arg(long, value_name = "NUMBER:DIGEST")]
        head: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show records, oldest first.
    Show {
        #[command(flatten)]
        filter: AuditFilter,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show records as they are written.
    Follow {
        #[command(flatten)]
        filter: AuditFilter,
    },
    /// Show where records are sent, and how many have not arrived.
    Status(Json),
    /// Send what has not arrived, once, and say why it does not.
    Forward,
}

/// Which records.
#[derive(Args, Debug)]
pub(crate) struct AuditFilter {
    /// Those since then: 30s, 10m, 2h, 7d ago, or a date (UTC) such as 2026-11-22 or 2026-11-22T18:30.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Those of this compartment.
    #[arg(long, value_name = "NAME")]
    pub(crate) compartment: Option<String>,
}

/// Arguments of `call`.
#[derive(Args, Debug)]
#[command(after_help = "Exit code: the service's own; 128 + n when signal n ended it; 125 when \
    casemate failed, 126 when it was refused or could not be executed, 127 when there is no such \
    service.")]
pub(crate) struct Call {
    /// User in the guest.
    #[arg(long, short, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Name of the compartment, or @dispvm:NAME for a fresh disposable made from it.
    pub(crate) target: String,
    /// SERVICE or SERVICE+ARGUMENT.
    pub(crate) service: String,
}

/// Arguments of `copy` and `move`.
#[derive(Args, Debug)]
#[command(
    after_help = "Files arrive in ~/Incoming/dom0 of the compartment, or in ~/Incoming/NAME of this \
    host. Nothing is overwritten: a number is added to a name that is taken. PATH begins in the \
    compartment's home."
)]
pub(crate) struct Copy {
    /// Files and folders, and NAME: at the end; or NAME:PATH for each.
    #[arg(required = true, value_name = "FILE… NAME: | NAME:PATH…")]
    pub(crate) words: Vec<String>,
}

/// Arguments of `open`.
#[derive(Args, Debug)]
#[command(after_help = "In a template of disposables a fresh one is made for it, and erased when \
    whoever shows the file has ended. A file that was changed there takes the place of the original.")]
pub(crate) struct Open {
    /// Where: a compartment, or a template of disposables.
    #[arg(long = "in", value_name = "NAME")]
    pub(crate) name: String,
    /// Nothing comes back.
    #[arg(long)]
    pub(crate) view_only: bool,
    /// A file, or an address that begins with http:// or https://.
    #[arg(value_name = "FILE | URL")]
    pub(crate) what: String,
}

/// What the receiver of a guest's files shall do.
#[derive(Debug, Subcommand)]
pub(crate) enum Take {
    /// Hear a reply.
    Reply,
    /// Take files of a session.
    Folder {
        /// Where `Incoming` is.
        home: PathBuf,
        /// Whose they are.
        source: String,
    },
    /// Take files of a call.
    Served {
        /// Where `Incoming` is.
        home: PathBuf,
        /// Whose they are.
        source: String,
    },
    /// Hear a reply, and take one file to standard output.
    Single {
        /// Bytes at most.
        bytes: u64,
    },
    /// Take applications, with the pixels of their pictures to standard output.
    Menu,
}

/// Subcommands of `clipboard`.
#[derive(Subcommand, Debug)]
pub(crate) enum Clipboard {
    /// Take what was copied in a compartment.
    Copy {
        /// Whose; `@host` is your own desktop, without a name it is the compartment that has the
        /// focus.
        name: Option<String>,
        /// Take an image in place of text.
        #[arg(long)]
        images: bool,
    },
    /// Offer what was taken to a compartment, once.
    Paste {
        /// Whom; as for `copy`.
        name: Option<String>,
    },
    /// Say what is held, and whose it is.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Forget what is held.
    Clear,
    /// Hold what standard input is; started by `copy`.
    #[command(hide = true)]
    Hold {
        /// Whose it is.
        source: String,
        /// Its type.
        kind: String,
    },
}

/// Commands of `menu`.
#[derive(Subcommand, Debug)]
pub(crate) enum Menu {
    /// Put the applications that compartments have now into your menu, and take out those that are gone.
    #[command(
        after_help = "Compartments that are down are started. From then on it is done by itself \
        when one of them starts with another image. Applications of a template of disposables are \
        started in a fresh one each time."
    )]
    Sync {
        /// Nobody waits for it; started when a compartment was.
        #[arg(long, hide = true)]
        follow: bool,
        /// Names of the compartments.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Show which applications of compartments are in your menu.
    List {
        /// Only those of this compartment.
        name: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Take a compartment's applications out of your menu.
    Remove {
        /// Names of the compartments.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

/// Arguments of `broker`.
#[derive(Args, Debug)]
pub(crate) struct Broker {
    /// Who calls.
    pub(crate) source: String,
    /// Whom for.
    #[arg(allow_hyphen_values = true)]
    pub(crate) target: String,
    /// Which service.
    #[arg(allow_hyphen_values = true)]
    pub(crate) service: String,
}

/// What to say about the policy.
#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Check the policy files: mistakes, rules without effect, names of nothing.
    Check {
        /// What to go by.
        #[command(flatten)]
        from: PolicyFrom,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say what is decided about a call, by which line, and which lines nearly did.
    Explain {
        /// What to go by.
        #[command(flatten)]
        from: PolicyFrom,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Who calls: a compartment, or `@adminvm` for the host.
        source: String,
        /// Where: a compartment, `@adminvm`, `@dispvm`, `@dispvm:NAME`, or `@default` when the
        /// caller names none.
        target: String,
        /// SERVICE or SERVICE+ARGUMENT.
        service: String,
    },
    /// Show who can reach whom for what.
    Graph {
        /// What to go by.
        #[command(flatten)]
        from: PolicyFrom,
        /// For this service only.
        #[arg(long, value_name = "SERVICE")]
        service: Option<String>,
        /// As what.
        #[arg(long, value_enum, default_value_t = GraphFormat::Text)]
        format: GraphFormat,
    },
    /// Answer test vectors: JSON lines on standard input, each with its files and a request.
    Eval {
        /// The compartments there are, as JSON.
        #[arg(long, value_name = "FILE")]
        system_info: PathBuf,
    },
}

/// What commands about the policy go by.
#[derive(Args, Debug)]
pub(crate) struct PolicyFrom {
    /// Read the policy files of this folder and no others.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) policy_dir: Option<PathBuf>,
    /// Take the compartments there are from this JSON file, not from the configuration.
    #[arg(long, value_name = "FILE")]
    pub(crate) system_info: Option<PathBuf>,
}

/// How a graph is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum GraphFormat {
    /// Lines of text.
    Text,
    /// The language of Graphviz.
    Dot,
    /// A drawing.
    Svg,
    /// JSON.
    Json,
}
