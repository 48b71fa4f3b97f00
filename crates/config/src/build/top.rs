//! `[network]`, `[engine.*]`, `[switch]`, `[audit]`, `[ask]`, `isolated-pci-devices`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::diagnostic::{Concern, Diagnostic};
use crate::layers::View;
use crate::schema::top::{self, ask, audit, engine, nat, network, switch};
use crate::settings::{
    AskSettings, AuditSettings, EngineSettings, NetworkSettings, Settings, SwitchSettings,
    SyslogSettings,
};
use crate::source::Origin;
use crate::value::choice::{Accel, EngineKind, LogLevel, Machine, NetworkMode};
use crate::value::grant::LinkGrant;
use crate::value::net::Ipv4Cidr;
use crate::value::size::Size;
use crate::value::syslog::{SyslogServer, SyslogTransport};

/// Everything but compartments, images and virtual networks.
pub(super) fn settings(roots: &View<'_>, found: &mut Vec<Diagnostic>) -> Settings {
    Settings {
        network: network_settings(&roots.table(&top::NETWORK), found),
        isolated_pci_devices: roots.texts(&top::ISOLATED_PCI_DEVICES).into_iter().collect(),
        compartments: BTreeMap::new(),
        broken: BTreeMap::new(),
        images: BTreeMap::new(),
        networks: BTreeMap::new(),
        engines: engines(roots, found),
        switch: switch_settings(&roots.table(&top::SWITCH)),
        audit: audit_settings(&roots.table(&top::AUDIT), found),
        ask: ask_settings(&roots.table(&top::ASK)),
    }
}

fn network_settings(view: &View<'_>, found: &mut Vec<Diagnostic>) -> NetworkSettings {
    let nat = view.table(&network::NAT);
    NetworkSettings {
        cidr: view.text(&network::CIDR).unwrap_or_else(Ipv4Cidr::links),
        nat_enable: nat.flag(&nat::ENABLE),
        nat_interface: nat.text(&nat::INTERFACE),
        ipv6: view.flag(&network::IPV6),
        mode: view.text(&network::MODE).unwrap_or(NetworkMode::Auto),
        grants: grants(view, found),
    }
}

/// Nobody grants himself anything: only the system's files count.
fn grants(view: &View<'_>, found: &mut Vec<Diagnostic>) -> Vec<LinkGrant> {
    let Some(entry) = view.entry(&network::GRANTS) else { return vec![] };
    let context = view.context();
    let source = context.source_of(&entry.node);
    if source.is_some_and(|source| source.origin == Origin::System) {
        return view.texts(&network::GRANTS);
    }
    found.push(
        Diagnostic::error("`grants` stand in a user's own configuration")
            .at(entry.key_span)
            .hint("only the system's configuration, /etc/casemate, can grant links")
            .concerning(Concern::Everything(Origin::User)),
    );
    vec![]
}

fn engines(roots: &View<'_>, found: &mut Vec<Diagnostic>) -> BTreeMap<EngineKind, EngineSettings> {
    let mut engines = BTreeMap::new();
    let written = roots.named(&top::ENGINE);
    for kind in EngineKind::ALL {
        let empty = View::new(roots.context(), Vec::new());
        let view = written
            .iter()
            .find(|(entry, _)| entry.key == kind.as_str())
            .map_or(&empty, |(_, view)| view);
        if *kind != EngineKind::Qemu {
            for key in [&engine::MACHINE, &engine::ACCEL] {
                if let Some(entry) = view.entry(key) {
                    found.push(
                        Diagnostic::error(format!("`{}` is a setting of qemu only", key.name))
                            .at(entry.key_span)
                            .hint(format!("take it out of [engine.{kind}]"))
                            .concerning(Concern::Engine(*kind)),
                    );
                }
            }
        }
        engines.insert(
            *kind,
            EngineSettings {
                binary: view.text(&engine::BINARY),
                log_level: view.text(&engine::LOG_LEVEL),
                extra_args: view.texts(&engine::EXTRA_ARGS),
                machine: view.text(&engine::MACHINE).unwrap_or(Machine::Q35),
                accel: view.text(&engine::ACCEL).unwrap_or(Accel::Auto),
            },
        );
    }
    engines
}

fn switch_settings(view: &View<'_>) -> SwitchSettings {
    SwitchSettings {
        log_level: view.text(&switch::LOG_LEVEL).unwrap_or(LogLevel::Warn),
        mtu: view.integer(&switch::MTU).and_then(|mtu| u16::try_from(mtu).ok()).unwrap_or(1500),
        capture: view.flag(&switch::CAPTURE),
    }
}

fn ask_settings(view: &View<'_>) -> AskSettings {
    let timeout = view.integer(&ask::TIMEOUT).and_then(|seconds| u64::try_from(seconds).ok());
    AskSettings {
        program: view.text(&ask::PROGRAM),
        timeout: Duration::from_secs(timeout.unwrap_or(60)),
    }
}

fn audit_settings(view: &View<'_>, found: &mut Vec<Diagnostic>) -> AuditSettings {
    let server: Option<SyslogServer> = view.text(&audit::SYSLOG);
    let is_tls = server.as_ref().is_some_and(|server| server.transport == SyslogTransport::Tls);
    let of_tls = [&audit::SYSLOG_CA, &audit::SYSLOG_CERTIFICATE, &audit::SYSLOG_KEY];
    for entry in of_tls.into_iter().filter_map(|key| view.entry(key)).filter(|_| !is_tls) {
        found.push(
            Diagnostic::error(format!(
                "`{}` is of use with `syslog = \"tls://…\"` only",
                entry.key
            ))
            .at(entry.key_span)
            .hint("take it out, or send records by TLS")
            .concerning(Concern::Everything(Origin::System))
            .concerning(Concern::Everything(Origin::User)),
        );
    }
    for (has, lacks) in [
        (&audit::SYSLOG_CERTIFICATE, &audit::SYSLOG_KEY),
        (&audit::SYSLOG_KEY, &audit::SYSLOG_CERTIFICATE),
    ] {
        if let (Some(entry), None) = (view.entry(has), view.entry(lacks)) {
            found.push(
                Diagnostic::error(format!("`{}` without `{}`", has.name, lacks.name))
                    .at(entry.key_span)
                    .hint("a certificate and its key belong together")
                    .concerning(Concern::Everything(Origin::System))
                    .concerning(Concern::Everything(Origin::User)),
            );
        }
    }
    AuditSettings {
        enable: view.flag(&audit::ENABLE),
        syslog: server.map(|server| SyslogSettings {
            server,
            ca: view.path(&audit::SYSLOG_CA),
            identity: view.path(&audit::SYSLOG_CERTIFICATE).zip(view.path(&audit::SYSLOG_KEY)),
        }),
        auditd: view.flag(&audit::AUDITD),
        max_file_size: view.size(&audit::MAX_FILE_SIZE).unwrap_or(Size::ONE_MIB),
    }
}
