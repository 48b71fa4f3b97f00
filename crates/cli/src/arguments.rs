//! The command line, as clap understands it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

/// Run applications and services in isolated virtual machines.
#[derive(Debug, Parser)]
#[command(name = "casemate", version, propagate_version = true, subcommand_required = true)]
pub(crate) struct Arguments {
    /// Read this configuration file (or folder) and no other.
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,
    /// Show the guest's console while a compartment starts.
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command in a compartment, starting the compartment if it is down.
    Run(Run),
    /// Start a compartment.
    Start(Start),
    /// Shut a compartment down.
    Stop(Stop),
    /// Shut a compartment down and start it again.
    Restart(Names),
    /// Stop executing a compartment's code, keeping it in memory.
    Pause(Name),
    /// Go on executing a paused compartment's code.
    Resume(Name),
    /// List the compartments and their states.
    #[command(visible_alias = "ls")]
    List(Json),
    /// Show how a compartment is.
    Status(NameJson),
    /// Attach to a compartment's serial console. Ctrl-] leaves.
    Shell(ShellArguments),
    /// Show a compartment's logs.
    Logs(Logs),
    /// Print what starting a compartment would do, without doing it.
    Plan(NameJson),
    /// Check the configuration.
    Check(Check),
    /// Look for what is wrong with this machine, or with a running guest.
    Doctor(Doctor),
    /// Build and show images.
    #[command(subcommand)]
    Image(Image),
    /// Show and change the encrypted disks of compartments.
    #[command(subcommand)]
    Volume(Volume),
    /// Write the secrets of compartments.
    #[command(subcommand)]
    Secret(Secret),
    /// Keep and bring back states of a compartment's volumes.
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// Say which compartment may call what in which other.
    #[command(subcommand)]
    Policy(Policy),
    /// Call a service of a compartment.
    Call(Call),
    /// Answer questions about calls in this terminal.
    Ask,
    /// Show what was done and decided, and whether the log of it was altered.
    #[command(subcommand)]
    Audit(Audit),
    /// Decide a call of a guest; started by its supervisor.
    #[command(hide = true)]
    Broker(Broker),
    /// Say what compartments reach by their links to the host and in networks.
    #[command(subcommand)]
    Net(Net),
    /// Find out whether configuration, policy, programs and images are as they were recorded.
    Verify(Verify),
    /// Copy files into a compartment, or from one to this host.
    Copy(Copy),
    /// Copy files, and remove them where they were once everything has arrived.
    Move(Copy),
    /// Open a file or a web address in another compartment.
    Open(Open),
    /// Read what a guest sends; started by other commands.
    #[command(hide = true, subcommand)]
    Take(Take),
    /// Carry a clipboard from one compartment to another, as the policy allows.
    #[command(subcommand)]
    Clipboard(Clipboard),
    /// Write systemd units for socket activation.
    Units(Units),
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Write the manual pages.
    Man {
        /// Folder to write them to.
        directory: PathBuf,
    },
}

/// Arguments of `run`.
#[derive(Args, Debug)]
#[command(after_help = "Exit code: the command's own; 128 + n when signal n ended it; 125 when \
    casemate failed, 126 when the command could not be executed, 127 when it was not found.")]
pub(crate) struct Run {
    /// Run in a fresh disposable made from NAME, erased at its end.
    #[arg(long)]
    pub(crate) disposable: bool,
    /// User in the guest.
    #[arg(long, short, value_name = "NAME", conflicts_with = "root")]
    pub(crate) user: Option<String>,
    /// Run as root in the guest.
    #[arg(long)]
    pub(crate) root: bool,
    /// Working directory in the guest.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) cwd: Option<String>,
    /// Set an environment variable in the guest. May be repeated.
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = variable)]
    pub(crate) env: Vec<String>,
    /// Leave the command running and return at once; see `casemate logs`.
    #[arg(long, short, conflicts_with_all = ["tty", "no_tty", "disposable"])]
    pub(crate) detach: bool,
    /// Give the command a terminal even when standard input or output is none.
    #[arg(long, short, overrides_with = "no_tty")]
    pub(crate) tty: bool,
    /// Give the command no terminal.
    #[arg(long, short = 'T', overrides_with = "tty")]
    pub(crate) no_tty: bool,
    /// Name of the compartment.
    pub(crate) name: String,
    /// Program and arguments, executed as they are; the user's login shell when not given.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<OsString>,
}

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

/// A compartment.
#[derive(Args, Debug)]
pub(crate) struct Name {
    /// Name of the compartment.
    pub(crate) name: String,
}

/// Several compartments.
#[derive(Args, Debug)]
pub(crate) struct Names {
    /// Names of the compartments.
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
}

/// Arguments of `start`.
#[derive(Args, Debug)]
pub(crate) struct Start {
    /// Every compartment with `autostart = true`.
    #[arg(long, conflicts_with = "names")]
    pub(crate) autostart: bool,
    /// Names of the compartments.
    #[arg(required_unless_present = "autostart")]
    pub(crate) names: Vec<String>,
}

/// Arguments of `stop`.
#[derive(Args, Debug)]
pub(crate) struct Stop {
    /// Do not ask the guest.
    #[arg(long, short)]
    pub(crate) force: bool,
    /// Every running compartment.
    #[arg(long, conflicts_with = "names")]
    pub(crate) all: bool,
    /// Names of the compartments.
    #[arg(required_unless_present = "all")]
    pub(crate) names: Vec<String>,
}

/// A form for programs.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Json {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A compartment, and a form for programs.
#[derive(Args, Debug)]
pub(crate) struct NameJson {
    /// Name of the compartment.
    pub(crate) name: String,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `shell`.
#[derive(Args, Debug)]
pub(crate) struct ShellArguments {
    /// Open a root shell in a session of its own instead of the console.
    #[arg(long)]
    pub(crate) root: bool,
    /// Name of the compartment.
    pub(crate) name: String,
}

/// Arguments of `logs`.
#[derive(Args, Debug)]
pub(crate) struct Logs {
    /// Name of the compartment.
    pub(crate) name: String,
    /// The output of this detached session.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) session: Option<u32>,
    /// The guest's serial console.
    #[arg(long, conflicts_with = "session")]
    pub(crate) console: bool,
    /// Go on as lines are added, until interrupted.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// The last LINES lines only.
    #[arg(long, short = 'n', value_name = "LINES")]
    pub(crate) lines: Option<usize>,
    /// Print JSON: one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `check`.
#[derive(Args, Debug)]
pub(crate) struct Check {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the JSON Schema of the configuration and check nothing.
    #[arg(long, conflicts_with_all = ["json", "reference"])]
    pub(crate) schema: bool,
    /// Print the reference of the configuration (Markdown) and check nothing.
    #[arg(long, conflicts_with = "json")]
    pub(crate) reference: bool,
}

/// Arguments of `doctor`.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit code: 0 when nothing is an error; 1 with an error among the findings, \
    or when the guest could not be asked."
)]
pub(crate) struct Doctor {
    /// Look at the running guest of this compartment, from inside.
    #[arg(long, value_name = "NAME")]
    pub(crate) guest: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to do with images.
#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Build an image.
    Build {
        /// Build it even if it is there and up to date.
        #[arg(long)]
        force: bool,
        /// Name of the image.
        #[arg(default_value = "debian")]
        name: String,
    },
    /// List the images and their generations.
    List(Json),
    /// Show the current generation of an image.
    Show(NameJson),
    /// Hash images anew and compare every byte with what they were built with.
    Verify {
        /// Names of images; all of them when none is given.
        names: Vec<String>,
    },
    /// Build an image from today's packages; a new generation only if something changed.
    Update {
        /// Name of the image.
        #[arg(default_value = "debian")]
        name: String,
    },
    /// Go back to an earlier generation of an image, until the next build, update or import.
    Rollback {
        /// Number of the generation; the one before the current when not given.
        #[arg(long, value_name = "NUMBER")]
        to: Option<u32>,
        /// Name of the image.
        name: String,
    },
    /// Remove images that no generation names and no compartment runs.
    Gc {
        /// First forget all generations but the current and so many of the newest.
        #[arg(long, value_name = "NUMBER")]
        keep: Option<usize>,
        /// Only say what would be removed.
        #[arg(long)]
        dry_run: bool,
    },
    /// Write the current generation of an image as an archive.
    Export {
        /// Name of the image.
        name: String,
        /// The file, which must not be there yet; `-` for standard output.
        file: PathBuf,
    },
    /// Take an image from an archive that `export` wrote, as a new generation.
    Import {
        /// Take it though it is older than the last.
        #[arg(long)]
        rollback: bool,
        /// The file; `-` for standard input.
        file: PathBuf,
        /// Name of the image.
        name: String,
    },
}

/// What to do with volumes. They are named COMPARTMENT/VOLUME.
#[derive(Debug, Subcommand)]
pub(crate) enum Volume {
    /// List the volumes there are, and those that are declared and not made yet.
    List(Json),
    /// Make a declared volume. A compartment's start does so too.
    Create {
        /// COMPARTMENT/VOLUME.
        volume: String,
    },
    /// Grow a volume to the size its compartment's file says. Its file system grows at the next
    /// start.
    Resize {
        /// COMPARTMENT/VOLUME.
        volume: String,
    },
    /// Remove a volume with its snapshots, its key first. Nothing brings it back.
    Delete {
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
        /// COMPARTMENT/VOLUME.
        volume: String,
    },
    /// Write a volume as an archive. It stays encrypted.
    Export {
        /// COMPARTMENT/VOLUME.
        volume: String,
        /// The file, which must not be there yet; `-` for standard output.
        file: PathBuf,
    },
    /// Take a volume from an archive that `export` wrote.
    Import {
        /// The file; `-` for standard input.
        file: PathBuf,
        /// COMPARTMENT/VOLUME, which must not be there yet.
        volume: String,
    },
}

/// What to do with secrets. They are named COMPARTMENT/SECRET.
#[derive(Debug, Subcommand)]
pub(crate) enum Secret {
    /// List the declared secrets, and whether their files are there.
    List(Json),
    /// Write a secret's file: what is typed, or comes on standard input, encrypted with age.
    Set {
        /// COMPARTMENT/SECRET.
        secret: String,
    },
    /// Change a secret in $VISUAL or $EDITOR. It is in memory meanwhile, never on a disk.
    Edit {
        /// COMPARTMENT/SECRET.
        secret: String,
    },
    /// Encrypt secrets anew: to the identity, or to the `recipients.txt` in their folder, as it is now.
    Rekey {
        /// Those of these compartments; without any, all that are declared.
        names: Vec<String>,
        /// The identity that opens them now, if it is another than the one in use.
        #[arg(long, value_name = "FILE")]
        from: Option<std::path::PathBuf>,
    },
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

/// What to say about links to the host and networks.
#[derive(Debug, Subcommand)]
pub(crate) enum Net {
    /// Show what each compartment reaches, and how many packets met which rule.
    Show {
        /// Name of a compartment; all of them when not given.
        name: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say which firewall rule decides about a destination. Nothing is sent.
    Test(NetTest),
    /// Show what the switches of networks between compartments have counted, and how long each guest
    /// takes to answer.
    Stats {
        /// Name of a network or of a compartment; all networks when not given.
        name: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Record the frames of a compartment's port in a network, for tcpdump and Wireshark, until
    /// interrupted. Only where [switch] says capture = true.
    Capture(NetCapture),
    /// Clear up what a supervisor that was killed left of a network.
    Repair,
}

/// Arguments of `net capture`.
#[derive(Args, Debug)]
pub(crate) struct NetCapture {
    /// Name of the running compartment.
    pub(crate) name: String,
    /// The file that is written, as pcap.
    pub(crate) file: PathBuf,
    /// The network, if it is a member of several.
    #[arg(long)]
    pub(crate) network: Option<String>,
    /// End after so many frames.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) frames: Option<u64>,
    /// End after so many seconds.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seconds: Option<u64>,
}

/// Arguments of `net test`.
#[derive(Args, Debug)]
pub(crate) struct NetTest {
    /// Name of the compartment.
    pub(crate) name: String,
    /// HOST:PORT; a name, an address, or an IPv6 address in brackets. HOST alone with `--icmp`.
    #[arg(value_name = "HOST:PORT")]
    pub(crate) destination: String,
    /// UDP in place of TCP.
    #[arg(long, conflicts_with = "icmp")]
    pub(crate) udp: bool,
    /// A ping.
    #[arg(long)]
    pub(crate) icmp: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to do with snapshots: of all volumes of a compartment together.
#[derive(Debug, Subcommand)]
pub(crate) enum Snapshot {
    /// Keep the present state. The guest of a running compartment holds still meanwhile.
    Create {
        /// Name of the compartment.
        name: String,
        /// Name of the snapshot; made from date and time when not given.
        snapshot: Option<String>,
        /// Keep the memory of the running guest too, encrypted to the age identity.
        #[arg(long)]
        memory: bool,
    },
    /// List the snapshots.
    List(NameJson),
    /// Go back to a snapshot. A running compartment is stopped first. Snapshots stay, later ones
    /// too. If the memory was kept, the compartment is started and its guest goes on from it.
    Revert {
        /// Go back to the volumes only.
        #[arg(long)]
        without_memory: bool,
        /// Name of the compartment.
        name: String,
        /// Name of the snapshot.
        snapshot: String,
    },
    /// Delete a snapshot; those before and after it stay. The compartment must not be running.
    Delete {
        /// Name of the compartment.
        name: String,
        /// Name of the snapshot.
        snapshot: String,
    },
    /// Say how much was written since a snapshot.
    DiffSize {
        /// Name of the compartment.
        name: String,
        /// Name of the snapshot.
        snapshot: String,
    },
}

/// Arguments of `verify`.
#[derive(Args, Debug)]
pub(crate) struct Verify {
    /// Record everything as it is now. The digest of the record goes to the audit log.
    #[arg(long)]
    pub(crate) record: bool,
    /// Print JSON.
    #[arg(long, conflicts_with = "record")]
    pub(crate) json: bool,
}

/// Arguments of `units`.
#[derive(Args, Debug)]
pub(crate) struct Units {
    /// Folder to write them to; standard output when not given.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) output: Option<PathBuf>,
}

fn variable(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(text.to_owned()),
        Some(_) => Err("the name is empty".into()),
        // As docker and podman do: the value the caller has.
        None => std::env::var(text).map(|value| format!("{text}={value}")).map_err(|_| {
            format!("give NAME=VALUE, or the name of a variable that is set; `{text}` is not")
        }),
    }
}

/// The command line with the short names of the program resolved: `vm-run x` is `casemate run x`.
pub(crate) fn expand(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let program = arguments.first().map(PathBuf::from).unwrap_or_default();
    let short = match program.file_name().and_then(|name| name.to_str()) {
        Some("vm-run") => &["run"][..],
        Some("vm-start") => &["start"],
        Some("vm-start-debug") => &["start", "--verbose"],
        Some("vm-stop") => &["stop"],
        Some("vm-shell") => &["shell"],
        _ => return arguments,
    };
    arguments[0] = "casemate".into();
    arguments.splice(1..1, short.iter().map(OsString::from));
    arguments
}

/// Whether a command line, right or wrong, is one of `run`, whose exit codes 1 to 124 belong to
/// the command.
pub(crate) fn are_of_run(words: &[OsString]) -> bool {
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--config") => drop(words.next()),
            Some(option) if option.starts_with('-') => {}
            other => return other == Some("run"),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn options_after_the_compartment_belong_to_the_command() {
        let arguments = ["casemate", "run", "demo", "ls", "--all", "-t"];
        let parsed = Arguments::try_parse_from(arguments).expect("parses");
        let Command::Run(run) = parsed.command else { panic!("run expected") };
        assert_eq!(run.name, "demo");
        assert_eq!(run.command, ["ls", "--all", "-t"]);
        assert!(!run.tty);
    }

    #[test]
    fn wrong_lines_of_run_are_known() {
        let of_run =
            |line: &str| are_of_run(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(of_run("casemate run --nonsense demo"));
        assert!(of_run("casemate -v --config run run"));
        assert!(!of_run("casemate --config run start"));
        assert!(!of_run("casemate --nonsense"));
    }

    #[test]
    fn short_names_stand_for_commands() {
        let expanded = expand(["/usr/bin/vm-run", "demo", "true"].map(OsString::from).to_vec());
        assert_eq!(expanded, ["casemate", "run", "demo", "true"]);
    }
}
