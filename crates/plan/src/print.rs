//! A plan as a person reads it.

use std::borrow::Cow;
use std::fmt::Write;

use crate::Plan;
use crate::jail::{Access, IdMapMethod, Jail, Reach};
use crate::network::{Network, Way, names};
use crate::process::{Channel, DescriptorSource, Process, SharedPart};
use crate::service::Restart;
use crate::switch::Port;

/// The whole plan as text, for `casemate plan`.
pub fn print(plan: &Plan) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = plan_text(&mut out, plan);
    out
}

fn plan_text(out: &mut String, plan: &Plan) -> std::fmt::Result {
    writeln!(out, "plan for `{}` (engine qemu, {})", plan.instance.name, plan.acceleration)?;
    for note in &plan.notes {
        writeln!(out, "note: {note}")?;
    }
    if let Some(resume) = &plan.resume {
        let file = resume.file.display();
        writeln!(out, "goes on from the memory of snapshot {} ({file})", resume.snapshot)?;
    }
    writeln!(out, "\nsteps")?;
    for (number, step) in plan.steps.iter().enumerate() {
        writeln!(out, "  {}. {}", number + 1, step.describe())?;
        if let Some(undo) = step.undo() {
            writeln!(out, "     undone by: {undo}")?;
        }
    }
    for process in &plan.processes {
        let tap = plan.network.as_ref().map_or("", |network| network.way.device());
        process_text(out, process, tap)?;
    }
    if let Some(network) = &plan.network {
        network_text(out, network)?;
    }
    for port in &plan.ports {
        port_text(out, port)?;
    }
    let guest = &plan.guest;
    writeln!(out, "\nguest")?;
    writeln!(out, "  hostname      {}", guest.hostname)?;
    writeln!(out, "  machine id    {}", guest.machine_id)?;
    writeln!(
        out,
        "  root          disk `{}`, {}, read-only{}",
        guest.root.serial,
        guest.root.filesystem,
        if guest.root.overlay { " under a tmpfs overlay" } else { "" }
    )?;
    let users: Vec<&str> = guest.users.iter().map(|user| user.name.as_str()).collect();
    writeln!(out, "  users         {} (sessions run as {})", users.join(" "), guest.default_user)?;
    for share in &guest.shares {
        let access = if share.read_only { "read-only" } else { "read and write" };
        writeln!(out, "  share         `{}` at {}, {access}", share.tag, share.mount_point)?;
    }
    for file in &guest.files {
        writeln!(out, "  file          {} mode {:o}", file.path, file.mode)?;
    }
    for secret in &guest.secrets {
        writeln!(
            out,
            "  secret        /run/secrets/{} mode {:o} of {}",
            secret.name, secret.mode, secret.owner
        )?;
    }
    for (name, value) in &guest.sysctls {
        writeln!(out, "  sysctl        {name} = {value}")?;
    }
    let restrictions = guest.restrictions;
    for (taken, what) in [
        (restrictions.nosuid, "nothing set-user-id (the root is mounted nosuid)"),
        (restrictions.no_new_privs, "sessions have no_new_privs"),
        (restrictions.no_core_dumps, "sessions leave no core dumps"),
    ] {
        if taken {
            writeln!(out, "  restricted    {what}")?;
        }
    }
    writeln!(out, "\nlife")?;
    writeln!(out, "  boot deadline {} s", plan.boot_deadline.as_secs())?;
    writeln!(out, "  stop deadline {} s", plan.stop_deadline.as_secs())?;
    match plan.idle_timeout {
        _ if plan.instance.fresh => writeln!(out, "  ends          with its first session"),
        Some(timeout) => {
            writeln!(out, "  ends          {} s after the last session", timeout.as_secs())
        }
        None => writeln!(out, "  ends          when it is stopped"),
    }?;
    match plan.restart {
        Restart::No => {}
        Restart::OnFailure => writeln!(out, "  starts again  when it failed")?,
        Restart::Always => writeln!(out, "  starts again  unless it was stopped")?,
    }
    let Some(check) = &plan.health_check else { return Ok(()) };
    let command: Vec<String> = check.command.iter().map(|word| quoted(word)).collect();
    let user = check.user.as_ref().unwrap_or(&guest.default_user);
    writeln!(out, "  health check  {} (as {user})", command.join(" "))?;
    writeln!(
        out,
        "                every {} s, for {} s; unhealthy after {} failures",
        check.interval.as_secs(),
        check.timeout.as_secs(),
        check.retries
    )
}

fn network_text(out: &mut String, network: &Network) -> std::fmt::Result {
    let Network { link, way, .. } = network;
    writeln!(out, "\nnetwork")?;
    writeln!(out, "  guest         {}/31 ({})", link.guest, link.mac)?;
    writeln!(out, "  gateway       {} on `{}`", link.host, way.device())?;
    if let Some((guest, host)) = link.v6 {
        writeln!(out, "  IPv6          {guest}/127, gateway {host}")?;
    }
    writeln!(out, "  name server   {} (asks the host's first one)", link.resolver)?;
    match way {
        Way::Rootless(namespace) => {
            let pasta = namespace.pasta.display();
            writeln!(out, "  outside       `{}`, by {pasta}", namespace.outside)?;
            for line in grouped(&namespace.pasta_arguments) {
                writeln!(out, "    {line}")?;
            }
        }
        Way::Helper(link) => {
            let interface = link.terms.interface.as_deref().unwrap_or("any interface");
            let how =
                if link.terms.nat { "with the host's address" } else { "with its own address" };
            writeln!(out, "  outside       by {interface} of the host, {how}")?;
        }
    }
    for (index, rule) in network.rules.iter().enumerate() {
        writeln!(out, "  rule {:<8} {rule}", index + 1)?;
    }
    let names = match way {
        Way::Rootless(namespace) => namespace.names.clone(),
        Way::Helper(link) => names(&link.order.rules),
    };
    for name in names {
        writeln!(out, "  resolves      {} for rule {}", name.host, name.rule + 1)?;
    }
    writeln!(out, "  otherwise     {}", network.default)?;
    match way {
        Way::Rootless(namespace) => {
            writeln!(out, "  firewall      by {}", namespace.nft.display())?;
            for line in namespace.rules.lines() {
                writeln!(out, "    {}", line.replace('\t', "  "))?;
            }
            Ok(())
        }
        Way::Helper(_) => writeln!(out, "  firewall      by casemate-netd, of these rules"),
    }
}

fn port_text(out: &mut String, port: &Port) -> std::fmt::Result {
    let role = if port.router { "its router" } else { "a client" };
    writeln!(out, "\nport in the network `{}`, as {role}", port.network)?;
    writeln!(out, "  guest         {}/{} ({})", port.address, port.cidr.prefix_len(), port.mac)?;
    if let Some(gateway) = port.gateway {
        writeln!(out, "  gateway       {gateway}, for all that is elsewhere")?;
    }
    for server in &port.name_servers {
        writeln!(out, "  name server   {server}, by way of the router")?;
    }
    for network in &port.not_from {
        writeln!(out, "  not from      {network} (nothing is forwarded from there)")?;
    }
    writeln!(out, "  socket        {}", port.socket.display())?;
    writeln!(out, "  control       {}", port.switch.control.display())?;
    writeln!(out, "  log           {}", port.switch.log.display())?;
    process_text(out, &port.switch.process, "")
}

fn process_text(out: &mut String, process: &Process, tap: &str) -> std::fmt::Result {
    writeln!(out, "\nprocess: {}", process.role.describe())?;
    writeln!(out, "  program       {}", process.program.display())?;
    for line in grouped(&process.arguments) {
        writeln!(out, "    {line}")?;
    }
    for (name, value) in &process.environment {
        writeln!(out, "  environment   {name}={value}")?;
    }
    for descriptor in &process.descriptors {
        let what = match &descriptor.what {
            DescriptorSource::Channel { channel } => channel.describe().into_owned(),
            DescriptorSource::Listener { channel } => {
                format!("{}, listening", channel.describe())
            }
            DescriptorSource::File { path, writable: false } => {
                format!("{} (read-only)", path.display())
            }
            DescriptorSource::File { path, writable: true } => {
                format!("{} (read and write)", path.display())
            }
            DescriptorSource::Log { path } => format!("{} (append)", path.display()),
            DescriptorSource::Text { .. } => "its orders, as under `network`".into(),
            DescriptorSource::Shared { part: SharedPart::Control } => {
                "its control socket, listening".into()
            }
            DescriptorSource::Shared { part: SharedPart::Lock } => "the lock that it holds".into(),
            DescriptorSource::Tap => format!("the TAP device `{tap}`"),
        };
        writeln!(out, "  descriptor {}  {what}", descriptor.number)?;
    }
    jail_text(out, &process.jail)
}

fn jail_text(out: &mut String, jail: &Jail) -> std::fmt::Result {
    let how = match jail.identity.map {
        IdMapMethod::Newidmap => "newuidmap",
        IdMapMethod::Direct => "written by root",
        IdMapMethod::Caller => "the caller, alone",
    };
    writeln!(out, "  user          {}:{} ({how})", jail.identity.uid, jail.identity.gid)?;
    if jail.identity.keep_groups {
        let why = match jail.identity.map {
            IdMapMethod::Caller => "which only root could drop",
            IdMapMethod::Newidmap | IdMapMethod::Direct => "for /dev/kvm",
        };
        writeln!(out, "  groups        the caller's, {why}")?;
    }
    match jail.reach {
        Reach::Nothing => {
            writeln!(out, "  namespaces    user mount pid network ipc uts cgroup; no network")
        }
        Reach::HostNetwork => {
            writeln!(out, "  namespaces    user mount pid ipc uts cgroup; the host's network")
        }
    }?;
    writeln!(out, "  privileges    none, no_new_privs")?;
    for file in &jail.files {
        let access = match file.access {
            Access::Read => "read",
            Access::Execute => "read and execute",
            Access::Write => "read and write",
            Access::Change => "read, write, create and remove; no set-user-id",
            Access::Empty => "an empty folder",
            Access::Sockets => "sockets only",
        };
        write!(out, "  sees          {}", file.target.display())?;
        if file.target != file.source {
            write!(out, " = {}", file.source.display())?;
        }
        writeln!(out, " ({access}{})", if file.optional { ", if there" } else { "" })?;
    }
    if jail.files.is_empty() {
        writeln!(out, "  sees          no file")?;
    }
    let limits = &jail.limits;
    write!(
        out,
        "  limits        {} descriptors, {} processes",
        limits.open_files, limits.processes
    )?;
    if let Some(bytes) = limits.address_space {
        write!(out, ", {} MiB of address space", bytes >> 20)?;
    }
    writeln!(out)
}

/// One line a switch: `-name value`.
fn grouped(arguments: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for argument in arguments {
        match lines.last_mut() {
            Some(line) if !argument.starts_with('-') && !line.contains(' ') => {
                line.push(' ');
                line.push_str(&quoted(argument));
            }
            _ => lines.push(quoted(argument)),
        }
    }
    lines
}

/// As a shell would need it, so that a line can be tried by hand.
fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=,./:+@%".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.into()
    } else {
        format!("'{}'", argument.replace('\'', "'\\''"))
    }
}

impl Channel {
    /// The channel in words.
    pub fn describe(self) -> Cow<'static, str> {
        match self {
            Self::Agent => "socket between VMM and link: the agent's port".into(),
            Self::Console => "socket between VMM and link: the serial console".into(),
            Self::Monitor => "socket between VMM and supervisor: QMP".into(),
            Self::Orders => "socket between link and supervisor: orders and reports".into(),
            Self::Memory => "socket between VMM and supervisor: the memory it goes on from".into(),
            Self::Network => "socket between the keeper of the network and supervisor".into(),
            Self::Display => "socket between waypipe and what draws borders".into(),
            Self::Compositor => "socket between what draws borders and supervisor".into(),
            Self::Clipboard => "socket of what draws borders, for the clipboard's commands".into(),
            Self::Share(index) => {
                format!("socket between VMM and file server: share {}", index + 1).into()
            }
        }
    }
}
