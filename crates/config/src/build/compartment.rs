//! One compartment from everything that applies to it.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU8;
use std::time::Duration;

use crate::build::{guest, storage};
use crate::compartment::{
    Compartment, Gpu, HealthCheck, NetworkMembership, Secret, Sound, VhostUserNet,
};
use crate::diagnostic::{Concern, Diagnostic};
use crate::layers::View;
use crate::schema::compartment as key;
use crate::schema::lists::{health_check, membership, secret, vhost_user_net};
use crate::sections::Declared;
use crate::source::Origin;
use crate::tree::Value;
use crate::value::choice::{EngineKind, Machine, RestartPolicy};
use crate::value::color::Color;
use crate::value::id::CompartmentId;
use crate::value::name::{CompartmentName, NetworkName, SecretName, UserName};
use crate::value::size::MemorySize;

/// `None` when the name itself is impossible, or a fallback of the schema were.
pub(super) fn compartment(
    view: &View<'_>,
    declared: &Declared<'_>,
    found: &mut Vec<Diagnostic>,
) -> Option<Compartment> {
    let name: CompartmentName = declared.name.parse().ok()?;
    let mut rules = Rules { view, declared, found };
    rules.sensible();
    let engine = view.text(&key::ENGINE)?;
    let machine = rules.machine(engine);
    let disposable = view.flag(&key::DISPOSABLE);
    let kind = if disposable { "DispVM" } else { "AppVM" };
    let seconds = view.integer(&key::IDLE_TIMEOUT).and_then(|seconds| u64::try_from(seconds).ok());
    let id = rules.id();
    let users = rules.users();
    let pci_devices = rules.pci_devices();
    let health_check = rules.health_check();
    let volumes = storage::volumes(view, declared.name, rules.found);
    let additional_disks = storage::disks(view, declared.name, rules.found);
    let shares = storage::shares(view, declared.name, rules.found);
    storage::distinct_mount_points(view, declared.name, rules.found);
    let guest_view = view.table(&key::GUEST);
    let guest = guest::guest(&guest_view, &name, rules.found)?;
    Some(Compartment {
        origin: declared.origin,
        declared: declared.name_span,
        template: view.text(&key::TEMPLATE),
        id,
        engine,
        image: view.text(&key::IMAGE)?,
        memory: MemorySize::from_mib(view.size(&key::MEMORY)?.mib())?,
        cpus: view
            .integer(&key::CPUS)
            .and_then(|n| u8::try_from(n).ok())
            .and_then(NonZeroU8::new)?,
        machine,
        host_networking: view.flag(&key::HOST_NETWORKING),
        firewall: view.texts(&key::FIREWALL),
        firewall_default: view.text(&key::FIREWALL_DEFAULT)?,
        tags: view.texts(&key::TAGS).into_iter().collect(),
        compartment_type: view.text(&key::TYPE).or_else(|| kind.parse().ok())?,
        internal: view.flag(&key::INTERNAL),
        default_disposable: view.text(&key::DEFAULT_DISPOSABLE),
        disposable_template: view.flag(&key::DISPOSABLE_TEMPLATE),
        users,
        disposable,
        idle_timeout: Duration::from_secs(seconds?),
        volumes,
        additional_disks,
        root_disk: view.path(&key::ROOT_DISK),
        root_disk_readonly: view.flag(&key::ROOT_DISK_READONLY),
        kernel: view.path(&key::KERNEL),
        initramfs: view.path(&key::INITRAMFS),
        kernel_params: view.texts(&key::KERNEL_PARAMS),
        shares,
        gpu: gpu(view),
        sound: sound(view),
        pci_devices,
        networks: networks(view),
        vhost_user_net: view.node(&key::VHOST_USER_NET).map(|_| vhost_user_nets(view)),
        programs: view.texts(&key::PROGRAMS).into_iter().collect(),
        guest,
        secrets: secrets(view),
        secrets_identity: view.path(&key::SECRETS_IDENTITY),
        color: view.text(&key::COLOR).unwrap_or_else(|| Color::of_name(name.as_str())),
        window_rights: view.texts(&key::WINDOW_RIGHTS).into_iter().collect(),
        label: view.text(&key::LABEL).or_else(|| name.as_str().parse().ok())?,
        keep_snapshots: view.text(&key::KEEP_SNAPSHOTS),
        autostart: view.flag(&key::AUTOSTART),
        restart: view.text(&key::RESTART)?,
        health_check,
        log_level: view.text(&key::LOG_LEVEL),
        extra_args: view.texts(&key::EXTRA_ARGS),
        name,
    })
}

/// The rules between settings of one compartment.
struct Rules<'v, 'a, 'f> {
    view: &'v View<'a>,
    declared: &'v Declared<'a>,
    found: &'f mut Vec<Diagnostic>,
}

impl Rules<'_, '_, '_> {
    fn report(&mut self, diagnostic: Diagnostic) {
        let concern = Concern::Compartment(self.declared.name.to_owned());
        self.found.push(diagnostic.concerning(concern));
    }

    fn id(&mut self) -> Option<CompartmentId> {
        let node = self.view.node(&key::ID)?;
        let number = u32::try_from(self.view.integer(&key::ID)?).ok()?;
        let id = CompartmentId::new(number);
        if id.is_none() && (CompartmentId::MIN.get()..=CompartmentId::MAX.get()).contains(&number) {
            self.report(
                Diagnostic::error(format!("`id` cannot be {number}: it must be odd"))
                    .at(node.span)
                    .hint(format!(
                        "use {} or {}; the even address below belongs to the host",
                        number - 1,
                        number + 1
                    )),
            );
        }
        id
    }

    /// Another engine's machine model is an error where it is written, and no matter where it is
    /// only inherited.
    fn machine(&mut self, engine: EngineKind) -> Option<Machine> {
        if engine == EngineKind::Qemu {
            return self.view.text(&key::MACHINE);
        }
        if let Some(entry) =
            self.view.entry(&key::MACHINE).filter(|_| self.view.is_own(&key::MACHINE))
        {
            self.report(
                Diagnostic::error(format!("`machine` means nothing to the engine {engine}"))
                    .at(entry.key_span)
                    .hint("only qemu has machine models; take it out, or set engine = \"qemu\""),
            );
        }
        None
    }

    fn users(&mut self) -> BTreeSet<UserName> {
        if let Some(entry) = self.view.entry(&key::USERS) {
            if self.declared.origin == Origin::User && self.view.is_own(&key::USERS) {
                self.report(
                    Diagnostic::warning("`users` has no effect in a user's own configuration")
                        .at(entry.key_span)
                        .hint("only compartments of the system's configuration can be shared"),
                );
            }
            if self.declared.origin == Origin::System {
                return self.view.texts(&key::USERS).into_iter().collect();
            }
        }
        let owner = match self.declared.origin {
            Origin::System => "root",
            Origin::User => &self.view.context().env.user,
        };
        match owner.parse() {
            Ok(owner) => BTreeSet::from([owner]),
            Err(flaw) => {
                let mut diagnostic = Diagnostic::error(flaw.message);
                diagnostic.hint = flaw.hint;
                self.report(diagnostic);
                BTreeSet::new()
            }
        }
    }

    fn pci_devices(&mut self) -> Vec<crate::Bdf> {
        let mut devices = Vec::new();
        for node in self.view.list(&key::PCI_DEVICES) {
            let Some(device) = node.as_text().and_then(|text| text.parse().ok()) else { continue };
            if devices.contains(&device) {
                self.report(
                    Diagnostic::error(format!("PCI device {device} is listed twice"))
                        .at(node.span)
                        .hint("take one out"),
                );
            } else {
                devices.push(device);
            }
        }
        devices
    }

    fn health_check(&mut self) -> Option<HealthCheck> {
        let entry = self.view.entry(&key::HEALTH_CHECK)?;
        let table = self.view.table(&key::HEALTH_CHECK);
        let command = table.texts(&health_check::COMMAND);
        if command.is_empty() {
            self.report(
                Diagnostic::error("a health check needs `command`")
                    .at(entry.key_span)
                    .hint("name a program of the guest and its arguments: [\"true\"]"),
            );
        }
        let number = |key| table.integer(key).and_then(|number| u32::try_from(number).ok());
        let seconds = |key| number(key).map(|seconds| Duration::from_secs(seconds.into()));
        Some(HealthCheck {
            command,
            user: table.text(&health_check::USER),
            interval: seconds(&health_check::INTERVAL)?,
            timeout: seconds(&health_check::TIMEOUT)?,
            retries: number(&health_check::RETRIES)?,
            start_period: seconds(&health_check::START_PERIOD)?,
        })
    }

    /// Combinations that contradict each other or do nothing.
    fn sensible(&mut self) {
        let always = self.view.text(&key::RESTART) == Some(RestartPolicy::Always);
        if let Some(entry) = self.view.entry(&key::RESTART).filter(|_| always)
            && self.view.flag(&key::DISPOSABLE)
        {
            self.report(
                Diagnostic::error("a disposable that is always restarted never ends")
                    .at(entry.node.span)
                    .hint("use restart = \"on-failure\", or take out disposable = true"),
            );
        }
        if let Some(entry) = self.view.entry(&key::FIREWALL) {
            let empty = self.view.list(&key::FIREWALL).is_empty();
            let offline = !self.view.flag(&key::HOST_NETWORKING);
            if offline && !empty && self.view.is_own(&key::FIREWALL) {
                self.report(
                    Diagnostic::warning("`firewall` has no effect: the compartment is offline")
                        .at(entry.key_span)
                        .hint("add host-networking = true, or take the rules out"),
                );
            }
        }
    }
}

fn gpu(view: &View<'_>) -> Gpu {
    match view.node(&key::GPU).map(|node| &node.value) {
        Some(Value::Bool(false)) => Gpu::Off,
        _ => view.text(&key::GPU).map_or(Gpu::EngineDefault, Gpu::Model),
    }
}

fn sound(view: &View<'_>) -> Sound {
    match view.text(&key::SOUND) {
        Some(model) => Sound::Model(model),
        None if view.flag(&key::SOUND) => Sound::On,
        None => Sound::Off,
    }
}

fn networks(view: &View<'_>) -> BTreeMap<NetworkName, NetworkMembership> {
    let named = view.named(&key::NETWORKS).into_iter();
    named
        .filter_map(|(entry, member)| {
            let membership = NetworkMembership {
                router: member.flag(&membership::ROUTER),
                mac_address: member.text(&membership::MAC_ADDRESS),
            };
            Some((entry.key.parse().ok()?, membership))
        })
        .collect()
}

fn vhost_user_nets(view: &View<'_>) -> Vec<VhostUserNet> {
    let tables = view.tables(&key::VHOST_USER_NET).into_iter();
    tables
        .filter_map(|(_, net)| Some(VhostUserNet { socket: net.path(&vhost_user_net::SOCKET)? }))
        .collect()
}

fn secrets(view: &View<'_>) -> BTreeMap<SecretName, Secret> {
    let named = view.named(&key::SECRETS).into_iter();
    named
        .filter_map(|(entry, table)| {
            let secret = Secret {
                file: table.path(&secret::FILE)?,
                owner: table.text(&secret::OWNER)?,
                mode: table.text(&secret::MODE)?,
            };
            Some((entry.key.parse().ok()?, secret))
        })
        .collect()
}
