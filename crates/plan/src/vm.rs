//! From a compartment to its plan, for the QEMU engine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use casemate_config::{
    Accel, AuditSettings, Compartment, DiskFormat, EngineSettings, Machine as MachineSetting,
};

use crate::facts::{HostFacts, KvmFacts, KvmNode, QemuFacts};
use crate::jail::{Jail, Limits, Reach, VisibleFile};
use crate::network::Way;
use crate::process::{Channel, Descriptor, DescriptorSource, Process, Role};
use crate::qemu::{self, Acceleration, Disk, KvmDevice, Machine, MachineModel};
use crate::{
    ImageParts, Plan, Refusal, Request, Step, guest, hardening, identity, network, service, shares,
    switch, unavailable,
};

/// The oldest QEMU this is tested with (Debian 12).
const OLDEST_QEMU: (u32, u32, u32) = (7, 2, 0);

/// From this QEMU on `-accel kvm,device=` takes a descriptor.
const KVM_BY_DESCRIPTOR: (u32, u32, u32) = (9, 1, 0);

/// From this QEMU on `reconnect-ms=` takes the place of `reconnect=`.
const RECONNECT_MS: (u32, u32, u32) = (9, 2, 0);

/// Until a guest is ready. A guest under emulation on a loaded machine has been seen to take 15 s.
const BOOT_DEADLINE_TCG: Duration = Duration::from_secs(120);
const BOOT_DEADLINE_KVM: Duration = Duration::from_secs(30);

/// MiB of a kept memory that are decrypted and read in a second, at the slowest.
const MEMORY_RATE: u64 = 20;

/// Until a guest that was asked to shut down is gone. The agent gives processes 1 s.
const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// What a process may write to a file, in bytes: its words on standard error, and for the link the
/// logs it keeps, which it bounds itself at half of this.
pub(crate) const LOG_SIZE: u64 = 16 * 1024 * 1024;

/// Descriptors of the VMM.
const AGENT: i32 = 3;
const CONSOLE: i32 = 4;
const MONITOR: i32 = 5;
const ROOT: i32 = 6;
const KVM: i32 = 7;
/// The disks' descriptors begin behind it; the root disk's counts among them.
const FIRST_DISK: i32 = 7;

/// Decides everything about one start.
///
/// # Errors
/// [`Refusal`] when the compartment asks for what cannot be had.
pub fn plan(request: &Request<'_>, facts: &HostFacts) -> Result<Plan, Refusal> {
    let compartment = request.compartment;
    available(compartment, request.engine, request.audit)?;
    if let Err(reason) = &facts.user_namespaces {
        return Err(Refusal::HostNotReady {
            what: format!("user namespaces cannot be used ({reason}), so nothing can be confined"),
            hint: "set the sysctls user.max_user_namespaces and, where it exists, \
                   kernel.unprivileged_userns_clone so that they allow it"
                .into(),
        });
    }
    let qemu = qemu_of(request, facts)?;
    let (acceleration, reason) = acceleration(request, facts, qemu)?;
    let mut notes: Vec<String> =
        reason.iter().map(|reason| HostFacts::tcg_warning(reason)).collect();
    let network = network::network(request, facts)?;
    if let Some(network) = &network {
        notes.extend(network::notes(network, &facts.network));
    }
    let way = network.as_ref().map(|network| &network.way);
    let kvm = matches!(acceleration, Acceleration::Kvm(_));
    let mut boot_deadline = if kvm { BOOT_DEADLINE_KVM } else { BOOT_DEADLINE_TCG };
    if request.resume.is_some() {
        boot_deadline += Duration::from_secs(compartment.memory.mib() / MEMORY_RATE);
    }

    let mut steps = Vec::new();
    if request.image.is_none() {
        steps.push(Step::BuildImage { image: request.image_name.clone() });
    }
    let routers = switch::routers(request).map(|(router, network)| Step::StartRouter {
        router: router.into(),
        network: network.into(),
    });
    steps.extend(routers);
    steps.push(Step::RunDirectory { path: request.run_directory.clone() });
    let digest = request.image.as_ref().map_or("(to be built)", |image| &image.digest);
    steps.push(Step::CheckImage { digest: digest.into() });
    for volume in &request.volumes {
        steps.push(Step::OpenVolume { volume: volume.name.to_string() });
    }
    if let Some(resume) = &request.resume {
        steps.push(Step::Revert { snapshot: resume.snapshot.clone() });
    }
    steps.push(Step::Channels);
    let ports = switch::ports(request, facts)?;
    steps.extend(ports.iter().map(|port| Step::Join { network: port.network.clone() }));
    if let Some(Way::Rootless(_)) = way {
        steps.push(Step::Start { role: Role::Network });
    }
    steps.push(Step::Start { role: Role::Link });
    let servers = shares::servers(request, facts)?;
    steps.extend(servers.iter().map(|server| Step::Start { role: server.role }));
    let seconds = network::DEADLINE_SECONDS;
    match way {
        Some(Way::Rootless(_)) => steps.push(Step::AwaitNetwork { seconds }),
        Some(Way::Helper(link)) => {
            let (socket, order) = (link.socket.clone(), Box::new(link.order.clone()));
            steps.push(Step::AskHelper { socket, order, seconds });
        }
        None => {}
    }
    steps.push(Step::Start { role: Role::Vmm });
    steps.push(Step::AwaitGuest { seconds: boot_deadline.as_secs() as u32 });

    let disposable = compartment.disposable || request.instance.fresh;
    let (vmm, shape) = vmm(request, facts, qemu, acceleration)?;
    let (major, minor, micro) = qemu.version;
    let arguments = qemu::arguments(&shape).join("\n");
    let machine = [
        ("QEMU", format!("{major}.{minor}.{micro}")),
        ("the machine", arguments),
        ("the image", digest.to_string()),
    ];
    let keeper = match &network {
        Some(network) => network::keeper(request, facts, network)?,
        None => None,
    };
    Ok(Plan {
        instance: request.instance.clone(),
        acceleration: if kvm { "kvm" } else { "tcg" },
        notes,
        steps,
        processes: [link(request, facts)?]
            .into_iter()
            .chain(servers)
            .chain(keeper)
            .chain([vmm])
            .collect(),
        guest: with_ports(
            casemate_wire::Boot {
                network: network.as_ref().map(network::interface),
                ..guest::boot(
                    compartment,
                    &request.instance,
                    &request.machine_id,
                    request.image.as_ref(),
                    &request.volumes,
                    &request.file_sources,
                    &request.allocator,
                )
            },
            &ports,
        ),
        boot_deadline,
        stop_deadline: STOP_DEADLINE,
        idle_timeout: disposable.then_some(compartment.idle_timeout),
        restart: service::restart(compartment, request.instance.fresh),
        health_check: service::health_check(compartment, request.instance.fresh),
        resume: request.resume.clone(),
        machine: machine.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        memory_refused: memory_refused(compartment, request.instance.fresh),
        network,
        ports,
    })
}

fn with_ports(mut boot: casemate_wire::Boot, ports: &[switch::Port]) -> casemate_wire::Boot {
    boot.ports = ports.iter().map(switch::interface).collect();
    boot.sysctls.extend(switch::sysctls(ports));
    boot
}

/// Refuses settings that this version cannot carry out yet.
///
/// # Errors
/// [`Refusal::NotAvailableYet`], with all of them.
pub fn available(
    compartment: &Compartment,
    engine: &EngineSettings,
    audit: &AuditSettings,
) -> Result<(), Refusal> {
    let features = unavailable::features(compartment, engine, audit);
    if features.is_empty() {
        return Ok(());
    }
    Err(Refusal::NotAvailableYet { compartment: compartment.name.to_string(), features })
}

fn qemu_of<'f>(request: &Request<'_>, facts: &'f HostFacts) -> Result<&'f QemuFacts, Refusal> {
    let Some(qemu) = &facts.qemu else {
        if let Some(binary) = &request.engine.binary {
            let binary = binary.as_path().display();
            return Err(Refusal::HostNotReady {
                what: format!("`binary` in [engine.qemu] is {binary}, which is no QEMU that runs"),
                hint: "correct it, or remove it to use the QEMU in PATH".into(),
            });
        }
        return Err(Refusal::HostNotReady {
            what: format!("QEMU is not installed (no qemu-system-{})", facts.architecture),
            hint: "install the package `qemu-system-x86`, or set `binary` in [engine.qemu]".into(),
        });
    };
    if qemu.version < OLDEST_QEMU {
        let (major, minor, micro) = qemu.version;
        return Err(Refusal::HostNotReady {
            what: format!("QEMU {major}.{minor}.{micro} is too old"),
            hint: format!("casemate needs QEMU {}.{} or later", OLDEST_QEMU.0, OLDEST_QEMU.1),
        });
    }
    Ok(qemu)
}

/// KVM where it works and is wanted; else TCG, with the reason.
fn acceleration(
    request: &Request<'_>,
    facts: &HostFacts,
    qemu: &QemuFacts,
) -> Result<(Acceleration, Option<String>), Refusal> {
    let wanted = request.engine.accel;
    let usable = match &facts.kvm {
        KvmFacts::Unusable { reason } => Err(reason.clone()),
        KvmFacts::Works { .. } if qemu.version >= KVM_BY_DESCRIPTOR => {
            Ok(KvmDevice::Descriptor(KVM))
        }
        KvmFacts::Works { node: KvmNode::World | KvmNode::Group } => Ok(KvmDevice::Node),
        KvmFacts::Works { node: KvmNode::Caller } => Err(format!(
            "/dev/kvm is open to user {} alone, and this QEMU runs as a user of its own",
            facts.caller.name
        )),
    };
    match (wanted, usable) {
        (Accel::Tcg, _) => {
            Ok((Acceleration::Tcg, Some("`accel = \"tcg\"` in [engine.qemu]".into())))
        }
        (_, Ok(device)) => Ok((Acceleration::Kvm(device), None)),
        (Accel::Auto, Err(reason)) => Ok((Acceleration::Tcg, Some(reason))),
        (Accel::Kvm, Err(reason)) => Err(Refusal::HostNotReady {
            what: format!("`accel = \"kvm\"` is set, but KVM cannot be used: {reason}"),
            hint: "set `accel = \"auto\"` in [engine.qemu] to run under emulation instead".into(),
        }),
    }
}

/// Groups of kernel modules the initrd needs beside those of every boot, as the image's manifest
/// names them.
pub fn module_groups(compartment: &Compartment, engine: &EngineSettings) -> Vec<&'static str> {
    let mut groups = vec!["console"];
    if model(compartment, engine) == MachineModel::Microvm {
        groups.push("mmio");
    }
    if !compartment.volumes.is_empty() {
        groups.push("volumes");
    }
    if !compartment.shares.is_empty() {
        groups.push("shares");
    }
    if compartment.host_networking || !compartment.networks.is_empty() {
        groups.push("network");
    }
    // A root disk of the user's own is not verified, and may have the usual file system.
    groups.push(if compartment.root_disk.is_none() { "verity" } else { "ext4" });
    groups
}

fn model(compartment: &Compartment, engine: &EngineSettings) -> MachineModel {
    match compartment.machine.unwrap_or(engine.machine) {
        MachineSetting::Q35 => MachineModel::Q35,
        MachineSetting::Microvm => MachineModel::Microvm,
    }
}

fn kernel_command_line(request: &Request<'_>, facts: &HostFacts, model: MachineModel) -> String {
    let mut words: Vec<String> =
        ["console=ttyS0", "quiet", "panic=-1", "cryptomgr.notests"].map(String::from).to_vec();
    if model == MachineModel::Q35 {
        // Emulated on a busy host the timer ticks too late for the kernel's check, which then gives up
        // (under KVM the kernel leaves the check out by itself).
        words.push("no_timer_check".into());
    }
    if model == MachineModel::Microvm {
        // Without a PIT the kernel cannot calibrate the time stamp counter on a busy host.
        if let Some(khz) = facts.tsc_khz {
            words.extend([format!("tsc_early_khz={khz}"), "tsc=reliable".into()]);
        }
    }
    words.extend(hardening::kernel_words(request.compartment));
    words.extend(request.compartment.kernel_params.iter().map(|word| word.as_str().to_owned()));
    words.join(" ")
}

fn vmm(
    request: &Request<'_>,
    facts: &HostFacts,
    qemu: &QemuFacts,
    acceleration: Acceleration,
) -> Result<(Process, Machine), Refusal> {
    let compartment = request.compartment;
    let image = request.image.clone().unwrap_or_else(|| not_built(&request.image_name));
    let model = model(compartment, request.engine);
    let kernel = compartment.kernel.clone().unwrap_or(image.kernel);
    let initrd = compartment.initramfs.clone().unwrap_or(image.initrd);
    let disks = disks(request, image.root);
    let first_share = FIRST_DISK + disks.descriptors.len() as i32;
    let shares: Vec<qemu::Share> = compartment
        .shares
        .iter()
        .zip(first_share..)
        .map(|(share, socket)| qemu::Share { tag: share.tag.as_str().into(), socket })
        .collect();
    let tap = first_share + shares.len() as i32;
    let interface = request.link.filter(|_| compartment.host_networking);
    let incoming = tap + i32::from(interface.is_some());
    let interface = interface.map(|link| qemu::Interface { mac: link.mac.to_string(), tap });
    let machine = Machine {
        name: format!("casemate-{}", request.instance.name),
        model,
        acceleration,
        memory_mib: compartment.memory.mib(),
        cpus: compartment.cpus.get(),
        kernel: "/boot/kernel".into(),
        initrd: "/boot/initrd".into(),
        kernel_command_line: kernel_command_line(request, facts, model),
        disks: disks.machine,
        shares,
        interface,
        ports: request.ports.iter().map(switch::vhost).collect(),
        reconnect_ms: qemu.version >= RECONNECT_MS,
        agent: AGENT,
        console: CONSOLE,
        monitor: MONITOR,
        firmware: (model == MachineModel::Microvm).then_some("qboot.rom"),
        incoming: request.resume.as_ref().map(|_| incoming),
        extra: request
            .engine
            .extra_args
            .iter()
            .chain(&compartment.extra_args)
            .map(|argument| argument.as_str().to_owned())
            .collect(),
    };

    let mut files: Vec<VisibleFile> =
        facts.system_directories.iter().map(|path| VisibleFile::execute(path.clone())).collect();
    if !files.iter().any(|file| qemu.path.starts_with(&file.source)) {
        files.push(VisibleFile::execute(qemu.path.clone()));
    }
    for directory in &qemu.data_directories {
        if !files.iter().any(|file| directory.starts_with(&file.source)) {
            files.push(VisibleFile::read(directory.clone()));
        }
    }
    files.push(VisibleFile::read("/etc/ld.so.cache").if_there());
    files.push(VisibleFile::read("/dev/urandom"));
    files.push(VisibleFile::write("/dev/null"));
    if !request.ports.is_empty() {
        files.push(switch::visible(request));
    }
    for (source, target) in [(kernel, "/boot/kernel"), (initrd, "/boot/initrd")] {
        files.push(VisibleFile { target: target.into(), ..VisibleFile::read(source) });
    }

    let mut descriptors = vec![
        channel(AGENT, Channel::Agent),
        channel(CONSOLE, Channel::Console),
        channel(MONITOR, Channel::Monitor),
    ];
    descriptors.extend(disks.descriptors);
    for (index, share) in machine.shares.iter().enumerate() {
        descriptors.push(channel(share.socket, Channel::Share(index as u16)));
    }
    if let Some(number) = machine.incoming {
        descriptors.push(channel(number, Channel::Memory));
    }
    if let Some(interface) = &machine.interface {
        descriptors.push(Descriptor { number: interface.tap, what: DescriptorSource::Tap });
    }
    let mut identity = identity::identity(facts, request.instance.slot, Role::Vmm)?;
    match acceleration {
        Acceleration::Kvm(KvmDevice::Descriptor(number)) => {
            descriptors.push(file(number, "/dev/kvm".into(), true));
        }
        Acceleration::Kvm(KvmDevice::Node) => {
            files.push(VisibleFile::write("/dev/kvm"));
            identity.keep_groups = matches!(facts.kvm, KvmFacts::Works { node: KvmNode::Group });
        }
        Acceleration::Tcg => {}
    }
    let process = Process {
        role: Role::Vmm,
        program: qemu.path.clone(),
        arguments: qemu::arguments(&machine),
        environment: vec![],
        descriptors,
        jail: Jail {
            identity,
            files,
            // One thread a processor, the main loop, RCU, and a pool of 64 for disk requests.
            limits: Limits {
                // Each layer of a volume is open twice, and there are 128 at most.
                open_files: 256 + 256 * request.volumes.len() as u64,
                address_space: None,
                file_size: file_size(request),
                processes: 128 + u64::from(machine.cpus),
            },
            reach: Reach::Nothing,
        },
    };
    Ok((process, machine.shape()))
}

/// Disks and the files behind them.
struct Disks {
    machine: Vec<Disk>,
    descriptors: Vec<Descriptor>,
}

/// The root disk and the compartment's own, in the order of the configuration.
fn disks(request: &Request<'_>, image_root: PathBuf) -> Disks {
    let compartment = request.compartment;
    let mut root = Disk::shared(guest::ROOT_SERIAL, ROOT);
    let mut root_path = image_root;
    if let Some(path) = &compartment.root_disk {
        root_path = path.clone();
        root.host_device = request.block_devices.contains(path);
        root.read_only = compartment.root_disk_readonly;
        root.locked = true;
        root.discard = !root.read_only;
    }
    let mut descriptors = vec![file(ROOT, root_path, !root.read_only)];
    let mut machine = vec![root];
    for (index, disk) in compartment.additional_disks.iter().enumerate() {
        let descriptor = FIRST_DISK + descriptors.len() as i32;
        descriptors.push(file(descriptor, disk.path.clone(), !disk.read_only));
        machine.push(Disk {
            node: format!("disk{index}"),
            serial: disk.dev_identifier.as_ref().map(|serial| serial.as_str().to_owned()),
            descriptor,
            host_device: request.block_devices.contains(&disk.path),
            format: format(disk.format),
            backing: vec![],
            read_only: disk.read_only,
            locked: true,
            discard: disk.enable_discard && !disk.read_only,
            direct: disk.use_direct,
            block_size: disk.block_size.bytes(),
        });
    }
    for (index, volume) in request.volumes.iter().enumerate() {
        let (backing, last) = match volume.layers.split_last() {
            Some((last, backing)) => (backing, last),
            None => continue,
        };
        let serial = guest::volume_serial(index);
        let mut below = Vec::new();
        for layer in backing {
            let descriptor = FIRST_DISK + descriptors.len() as i32;
            descriptors.push(file(descriptor, layer.path.clone(), false));
            below.push(qemu::Backing { descriptor, format: format(layer.format) });
        }
        let descriptor = FIRST_DISK + descriptors.len() as i32;
        descriptors.push(file(descriptor, last.path.clone(), true));
        machine.push(Disk {
            node: serial.clone(),
            serial: Some(serial),
            descriptor,
            host_device: false,
            format: format(last.format),
            backing: below,
            read_only: false,
            locked: true,
            discard: true,
            direct: false,
            block_size: volume.sector_size,
        });
    }
    Disks { machine, descriptors }
}

/// Why the memory of a guest cannot be kept: what it believes of the world outside of it would not be
/// taken back with it.
fn memory_refused(compartment: &Compartment, fresh: bool) -> Option<&'static str> {
    if fresh {
        return Some("it is a fresh disposable, of which nothing is kept");
    }
    if !compartment.shares.is_empty() {
        return Some(
            "folders of the host are shared with it, and what it has open there is no part of its \
             memory",
        );
    }
    if !compartment.networks.is_empty() {
        return Some(
            "it has a port in a network, whose switch has the guest's memory and would not know of \
             another",
        );
    }
    writes_own_disk(compartment)
        .then_some("it writes to a disk of its own, which no snapshot takes back")
}

/// It may write to a disk that is no volume.
fn writes_own_disk(compartment: &Compartment) -> bool {
    let own_root = compartment.root_disk.is_some() && !compartment.root_disk_readonly;
    own_root || compartment.additional_disks.iter().any(|disk| !disk.read_only)
}

/// How large a file of the VMM may grow: its log, its volumes, or disks whose size is their owner's.
fn file_size(request: &Request<'_>) -> u64 {
    let compartment = request.compartment;
    if writes_own_disk(compartment) {
        return u64::MAX;
    }
    // With shares and ports the guest's memory is a file, in memory.
    let memory = match compartment.shares.is_empty() && request.ports.is_empty() {
        true => 0,
        false => compartment.memory.mib() << 20,
    };
    // A qcow2 layer holds each cluster once, and tables; freed clusters are used again.
    let layers = request.volumes.iter().map(|volume| volume.size.saturating_mul(2) + (1 << 30));
    layers.max().unwrap_or(LOG_SIZE).max(memory)
}

fn format(format: DiskFormat) -> &'static str {
    match format {
        DiskFormat::Raw => "raw",
        DiskFormat::Qcow2 => "qcow2",
    }
}

fn link(request: &Request<'_>, facts: &HostFacts) -> Result<Process, Refusal> {
    let log = request.log_directory.join("console.log");
    Ok(Process {
        role: Role::Link,
        program: facts.programs.link.clone(),
        arguments: vec![],
        environment: vec![],
        descriptors: vec![
            channel(3, Channel::Agent),
            channel(4, Channel::Console),
            channel(5, Channel::Orders),
            Descriptor { number: 6, what: DescriptorSource::Log { path: log } },
        ],
        jail: Jail {
            identity: identity::identity(facts, request.instance.slot, Role::Link)?,
            files: vec![],
            // 512 sessions and some viewers; 512 windows of 512 KiB and what holds them.
            limits: Limits {
                open_files: 1024,
                address_space: Some(1 << 30),
                file_size: 2 * LOG_SIZE,
                processes: 1,
            },
            reach: Reach::Nothing,
        },
    })
}

fn channel(number: i32, channel: Channel) -> Descriptor {
    Descriptor { number, what: DescriptorSource::Channel { channel } }
}

fn file(number: i32, path: PathBuf, writable: bool) -> Descriptor {
    Descriptor { number, what: DescriptorSource::File { path, writable } }
}

/// Stands for the parts of an image in a plan that is printed before the image is built.
fn not_built(name: &str) -> ImageParts {
    let part = |file: &str| Path::new("(image)").join(name).join(file);
    ImageParts {
        digest: "(to be built)".into(),
        root: part("root.erofs"),
        filesystem: "erofs".into(),
        verity: None,
        kernel: part("kernel"),
        initrd: part("initrd"),
    }
}
