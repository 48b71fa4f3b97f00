//! The QEMU engine: from a planned virtual machine to QEMU's arguments.
//!
//! Written for QEMU 7.2 and later. Everything a guest can reach is named here: `-nodefaults` and
//! `-no-user-config` leave nothing else. Disk formats are always given, never probed.

use std::fmt::Write;
use std::path::PathBuf;

/// How guest code is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceleration {
    /// By the processor, through KVM.
    Kvm(KvmDevice),
    /// By translation. No security boundary.
    Tcg,
}

/// How QEMU gets at `/dev/kvm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvmDevice {
    /// It opens the node itself.
    Node,
    /// It takes a descriptor (QEMU 9.1 and later).
    Descriptor(i32),
}

/// The machine model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineModel {
    /// PCI Express, without the devices no guest of ours uses.
    Q35,
    /// The smallest: no PCI, virtio over MMIO.
    Microvm,
}

/// A virtual machine, everything decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Name in process lists.
    pub name: String,
    /// Machine model.
    pub model: MachineModel,
    /// How code is executed.
    pub acceleration: Acceleration,
    /// MiB.
    pub memory_mib: u64,
    /// Virtual processors.
    pub cpus: u8,
    /// Path in the jail.
    pub kernel: PathBuf,
    /// Path in the jail.
    pub initrd: PathBuf,
    /// Kernel command line.
    pub kernel_command_line: String,
    /// Block devices.
    pub disks: Vec<Disk>,
    /// Folders of the host. With any, the guest's memory is shared with their file servers.
    pub shares: Vec<Share>,
    /// Its only network interface; none when it is offline.
    pub interface: Option<Interface>,
    /// Its interfaces at switches. With any, the guest's memory is shared with them.
    pub ports: Vec<VhostPort>,
    /// This QEMU counts the time until it connects again in milliseconds.
    pub reconnect_ms: bool,
    /// Connected socket of the agent's port.
    pub agent: i32,
    /// Connected socket of the serial console.
    pub console: i32,
    /// Connected socket of QMP.
    pub monitor: i32,
    /// Firmware for `-bios`, where the model needs another than the default.
    pub firmware: Option<&'static str>,
    /// The user's own arguments, appended.
    pub extra: Vec<String>,
    /// Connected socket from which a kept memory comes that the guest goes on from.
    pub incoming: Option<i32>,
}

impl Machine {
    /// The same machine without what may differ between two that can go on from each other's
    /// memory: numbers of descriptors, and the layers of disks.
    pub fn shape(&self) -> Self {
        let disk =
            |disk: &Disk| Disk { descriptor: 0, backing: vec![], format: "raw", ..disk.clone() };
        let acceleration = match self.acceleration {
            Acceleration::Kvm(_) => Acceleration::Kvm(KvmDevice::Node),
            Acceleration::Tcg => Acceleration::Tcg,
        };
        Self {
            acceleration,
            disks: self.disks.iter().map(disk).collect(),
            agent: 0,
            console: 0,
            monitor: 0,
            interface: self.interface.clone().map(|interface| Interface { tap: 0, ..interface }),
            incoming: None,
            // It was read when the guest booted, and holds what was measured then.
            kernel_command_line: self
                .kernel_command_line
                .split(' ')
                .filter(|word| !word.starts_with("tsc_early_khz="))
                .collect::<Vec<_>>()
                .join(" "),
            ..self.clone()
        }
    }
}

/// A disk whose file is an inherited descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Node name.
    pub node: String,
    /// Serial number, by which the guest finds it; at most 20 bytes (virtio, 5.2.6.1).
    pub serial: Option<String>,
    /// Descriptor of the file.
    pub descriptor: i32,
    /// The descriptor is of a block device of the host.
    pub host_device: bool,
    /// Format; never probed.
    pub format: &'static str,
    /// What it is written above, from the lowest up. Named here and nowhere else: what a file's own
    /// header says of others is not followed.
    pub backing: Vec<Backing>,
    /// No writes.
    pub read_only: bool,
    /// Locked, so that two machines cannot write to it.
    pub locked: bool,
    /// What the guest frees is given back to the host.
    pub discard: bool,
    /// The host's page cache is avoided.
    pub direct: bool,
    /// Logical block size in bytes.
    pub block_size: u32,
}

/// A folder of the host whose file server speaks vhost-user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// By which the guest finds it; at most 36 bytes (virtio 1.2, 5.11.4).
    pub tag: String,
    /// Socket that is connected to the server.
    pub socket: i32,
}

/// A network interface whose packets go to a TAP device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Ethernet address.
    pub mac: String,
    /// Descriptor of the TAP device.
    pub tap: i32,
}

/// A network interface whose other end is a vhost-user switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VhostPort {
    /// Ethernet address.
    pub mac: String,
    /// Where the switch listens, in the jail.
    pub socket: PathBuf,
}

/// A file below a disk, which is read only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backing {
    /// Descriptor of the file.
    pub descriptor: i32,
    /// Format; never probed.
    pub format: &'static str,
}

impl Disk {
    /// A read-only disk that any number of machines share.
    pub fn shared(node: &str, descriptor: i32) -> Self {
        Self {
            node: node.into(),
            serial: Some(node.into()),
            descriptor,
            host_device: false,
            format: "raw",
            backing: vec![],
            read_only: true,
            locked: false,
            discard: false,
            direct: false,
            block_size: 512,
        }
    }
}

/// QEMU's arguments for `machine`.
pub fn arguments(machine: &Machine) -> Vec<String> {
    let mut list = Arguments::default();
    list.switch("-name", option(&machine.name, &[("debug-threads", "on")]));
    // -S: it waits for a word of the supervisor, which meanwhile checks the image.
    for flag in ["-nodefaults", "-no-user-config", "-no-reboot", "-S"] {
        list.flag(flag);
    }
    list.switch("-display", "none");
    let mut model = machine_model(machine.model).to_owned();
    if !machine.shares.is_empty() || !machine.ports.is_empty() {
        let size = machine.memory_mib;
        list.switch("-object", format!("memory-backend-memfd,id=memory,size={size}M,share=on"));
        model.push_str(",memory-backend=memory");
    }
    list.switch("-machine", model);
    if let Some(firmware) = machine.firmware {
        list.switch("-bios", firmware);
    }
    match machine.acceleration {
        Acceleration::Kvm(KvmDevice::Node) => list.switch("-accel", "kvm"),
        Acceleration::Kvm(KvmDevice::Descriptor(fd)) => {
            list.switch("-add-fd", format!("fd={fd},set={fd}"));
            list.switch("-accel", format!("kvm,device=/dev/fdset/{fd}"));
        }
        // One thread for all processors: with one each, Linux' patching of its own code races with
        // the translator and one boot in thirty ends in an int3 panic.
        Acceleration::Tcg => list.switch("-accel", "tcg,thread=single"),
    }
    match machine.acceleration {
        Acceleration::Kvm(_) => list.switch("-cpu", "host"),
        // The default processor less one instruction: QEMU 7.2 leaves an operand's bits in the
        // flags of cmpxchg16b. Linux allocates memory with it, and an interrupt right behind it then
        // returns with flags such as VM: a double fault, one boot in some thousands.
        Acceleration::Tcg => list.switch("-cpu", "qemu64,-cx16"),
    }
    list.switch("-m", format!("{}M", machine.memory_mib));
    list.switch("-smp", machine.cpus.to_string());
    list.switch("-kernel", machine.kernel.display().to_string());
    list.switch("-initrd", machine.initrd.display().to_string());
    list.switch("-append", machine.kernel_command_line.clone());

    for (id, fd) in
        [("agent", machine.agent), ("console", machine.console), ("monitor", machine.monitor)]
    {
        list.switch("-chardev", format!("socket,id={id},fd={fd}"));
    }
    list.switch("-mon", "chardev=monitor,mode=control");
    list.switch("-serial", "chardev:console");
    let virtio = |device: &str| match machine.model {
        MachineModel::Q35 => format!("{device}-pci"),
        MachineModel::Microvm => format!("{device}-device"),
    };
    list.switch("-device", format!("{},id=ports,max_ports=2", virtio("virtio-serial")));
    let port = casemate_wire::PORT_NAME;
    list.switch(
        "-device",
        format!("virtserialport,id=agent-port,bus=ports.0,chardev=agent,name={port}"),
    );
    for disk in &machine.disks {
        list.disk(disk, &virtio("virtio-blk"));
    }
    for (index, Share { tag, socket }) in machine.shares.iter().enumerate() {
        list.switch("-chardev", format!("socket,id=share{index},fd={socket}"));
        let device = virtio("vhost-user-fs");
        let tag = option(tag, &[]);
        list.switch("-device", format!("{device},chardev=share{index},tag={tag}"));
    }
    if let Some(fd) = machine.incoming {
        // It tells when it has read all: a guest that stood still when its memory was kept goes on
        // only when it is told to, and not before.
        list.switch("-global", "migration.x-events=on");
        list.switch("-incoming", format!("fd:{fd}"));
    }
    if let Some(Interface { mac, tap }) = &machine.interface {
        list.switch("-netdev", format!("tap,id=link,fd={tap}"));
        // No option ROM: nobody boots from it.
        let rom = match machine.model {
            MachineModel::Q35 => ",romfile=",
            MachineModel::Microvm => "",
        };
        let device = virtio("virtio-net");
        list.switch("-device", format!("{device},netdev=link,mac={mac}{rom}"));
    }
    for (index, port) in machine.ports.iter().enumerate() {
        list.port(machine, index, port, &virtio("virtio-net"));
    }
    // The jail has dropped the user before exec, so nothing needs what these groups forbid.
    list.switch(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );
    list.0.extend(machine.extra.iter().cloned());
    list.0
}

fn machine_model(model: MachineModel) -> &'static str {
    match model {
        // No SATA, SMBus, USB, VMware port or PS/2 controller: less to attack, 1.6 s less to boot
        // under TCG than the plain model.
        MachineModel::Q35 => "q35,sata=off,smbus=off,usb=off,vmport=off,i8042=off",
        // ACPI stays on: Debian's kernels find virtio-mmio devices only through it.
        MachineModel::Microvm => "microvm,pic=off,pit=off,rtc=on,isa-serial=on",
    }
}

/// `value,key=value,…` with QEMU's escaping (a comma is doubled).
fn option(value: &str, keys: &[(&str, &str)]) -> String {
    let mut text = value.replace(',', ",,");
    for (key, value) in keys {
        let _ = write!(text, ",{key}={}", value.replace(',', ",,"));
    }
    text
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.into());
    }

    fn switch(&mut self, switch: &str, value: impl Into<String>) {
        self.0.push(switch.into());
        self.0.push(value.into());
    }

    fn port(&mut self, machine: &Machine, index: usize, port: &VhostPort, device: &str) {
        let socket = option(&port.socket.display().to_string(), &[]);
        // A switch that was started anew is found again.
        let again = if machine.reconnect_ms { "reconnect-ms=200" } else { "reconnect=1" };
        self.switch("-chardev", format!("socket,id=port{index},path={socket},{again}"));
        self.switch("-netdev", format!("vhost-user,id=net{index},chardev=port{index}"));
        let mut device = format!("{device},netdev=net{index},mac={}", port.mac);
        if machine.model == MachineModel::Q35 {
            device.push_str(",romfile=");
            // Without KVM's irqfds, QEMU 7.2 crashes when the guest takes such a device's MSI-X vectors
            // into use (msix_set_vector_notifiers). Later ones were not tried; an interrupt line costs an
            // emulated guest nothing worth having.
            if machine.acceleration == Acceleration::Tcg {
                device.push_str(",vectors=0");
            }
        }
        self.switch("-device", device);
    }

    fn disk(&mut self, disk: &Disk, device: &str) {
        let Disk { node, descriptor, format, .. } = disk;
        let on = |switch: bool| if switch { "on" } else { "off" };
        let mut below: Option<String> = None;
        for (index, Backing { descriptor, format }) in disk.backing.iter().enumerate() {
            let node = format!("{node}-below{index}");
            self.switch("-add-fd", format!("fd={descriptor},set={descriptor}"));
            self.switch(
                "-blockdev",
                format!(
                    "driver=file,node-name={node}-file,filename=/dev/fdset/{descriptor},\
                     read-only=on,locking=off"
                ),
            );
            let backing = backing_of(format, below.as_deref());
            self.switch(
                "-blockdev",
                format!("driver={format},node-name={node},file={node}-file,read-only=on{backing}"),
            );
            below = Some(node);
        }
        let backing = backing_of(format, below.as_deref());
        self.switch("-add-fd", format!("fd={descriptor},set={descriptor}"));
        let driver = if disk.host_device { "host_device" } else { "file" };
        let mut file = format!(
            "driver={driver},node-name={node}-file,filename=/dev/fdset/{descriptor},\
             read-only={},locking={}",
            on(disk.read_only),
            on(disk.locked),
        );
        let mut options = String::new();
        if disk.direct {
            options.push_str(",cache.direct=on");
        }
        if disk.discard {
            options.push_str(",discard=unmap");
        }
        file.push_str(&options);
        self.switch("-blockdev", file);
        self.switch(
            "-blockdev",
            format!(
                "driver={format},node-name={node},file={node}-file,read-only={}{options}{backing}",
                on(disk.read_only)
            ),
        );
        let mut device = format!("{device},drive={node}");
        if let Some(serial) = &disk.serial {
            let _ = write!(device, ",serial={serial}");
        }
        if disk.block_size != 512 {
            let size = disk.block_size;
            let _ = write!(device, ",logical_block_size={size},physical_block_size={size}");
        }
        self.switch("-device", device);
    }
}

/// The option that says what a qcow2 file is written above. Headers name nothing: that was checked.
fn backing_of(format: &str, below: Option<&str>) -> String {
    match below {
        Some(node) if format != "raw" => format!(",backing={node}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        let mut volume = Disk::shared("volume0", 8);
        volume.format = "raw";
        Machine {
            name: "casemate-work".into(),
            model: MachineModel::Q35,
            acceleration: Acceleration::Kvm(KvmDevice::Descriptor(7)),
            memory_mib: 256,
            cpus: 1,
            kernel: "/boot/kernel".into(),
            initrd: "/boot/initrd".into(),
            kernel_command_line: "quiet tsc_early_khz=2000 panic=-1".into(),
            disks: vec![Disk::shared("root", 6), volume],
            shares: vec![],
            ports: vec![],
            reconnect_ms: false,
            agent: 3,
            console: 4,
            monitor: 5,
            firmware: None,
            extra: vec![],
            interface: Some(Interface { mac: "02:00:00:00:00:03".into(), tap: 6 }),
            incoming: None,
        }
    }

    #[test]
    fn machines_that_differ_by_layers_and_descriptors_have_one_shape() {
        let mut later = machine();
        later.disks[1].backing = vec![Backing { descriptor: 8, format: "raw" }];
        later.disks[1].format = "qcow2";
        later.disks[1].descriptor = 9;
        later.incoming = Some(10);
        later.interface = Some(Interface { mac: "02:00:00:00:00:03".into(), tap: 9 });
        later.kernel_command_line = "quiet tsc_early_khz=2001 panic=-1".into();
        assert_ne!(arguments(&machine()), arguments(&later));
        assert_eq!(arguments(&machine().shape()), arguments(&later.shape()));
        let changes: [fn(&mut Machine); 4] = [
            |machine| machine.memory_mib = 512,
            |machine| machine.cpus = 2,
            |machine| drop(machine.disks.pop()),
            |machine| machine.acceleration = Acceleration::Tcg,
        ];
        for change in changes {
            let mut other = machine();
            change(&mut other);
            assert_ne!(arguments(&machine().shape()), arguments(&other.shape()));
        }
    }

    #[test]
    fn a_kept_memory_comes_from_a_descriptor_and_qemu_tells_when_it_is_read() {
        let without = arguments(&machine()).join(" ");
        assert!(!without.contains("-incoming") && !without.contains("x-events"));
        let with = arguments(&Machine { incoming: Some(10), ..machine() }).join(" ");
        assert!(with.contains("-incoming fd:10"), "{with}");
        assert!(with.contains("-global migration.x-events=on"), "{with}");
    }
}
