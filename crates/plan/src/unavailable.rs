//! Settings that are valid and that this version cannot carry out yet. They are refused, never
//! ignored. A feature that arrives removes its line here.

use casemate_config::{AuditSettings, Compartment, EngineKind, EngineSettings, Gpu, Origin, Sound};

/// What `compartment` asks for and cannot have, as `setting: what it is`.
pub(crate) fn features(
    compartment: &Compartment,
    engine: &EngineSettings,
    audit: &AuditSettings,
) -> Vec<String> {
    let c = compartment;
    let g = &c.guest;
    let shared = c.origin == Origin::System && c.users.iter().any(|user| user.as_str() != "root");
    let table: [(bool, &str); 9] = [
        (shared, "`users` (system compartments for ordinary users)"),
        (
            c.origin == Origin::User && audit.auditd,
            "`auditd` in [audit] (the kernel takes records of root alone)",
        ),
        (c.engine != EngineKind::Qemu, "`engine` other than qemu"),
        (c.vhost_user_net.is_some(), "`vhost-user-net` (another switch's socket)"),
        (matches!(c.gpu, Gpu::Model(_)), "`gpu` (accelerated graphics)"),
        (c.sound != Sound::Off, "`sound`"),
        (!c.pci_devices.is_empty(), "`pci-devices` (passthrough)"),
        (c.log_level.is_some() || engine.log_level.is_some(), "`log-level`"),
        (g.users.iter().any(|user| user.password_less), "`password-less` of a guest user"),
    ];
    table.into_iter().filter(|(asked, _)| *asked).map(|(_, what)| what.to_owned()).collect()
}
