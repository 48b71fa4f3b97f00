//! The switches that are measured: ours, OVS-DPDK with its one flow NORMAL, and DPDK's vhost with
//! testpmd, which forwards from one port to the other and looks at nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::generator::Load;
use crate::build::programs;
use crate::process::run;

/// A switch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum System {
    /// Ours, which spins for that many microseconds.
    Ours {
        /// `--spin-us`
        spin: u32,
    },
    /// Open vSwitch on DPDK.
    Ovs,
    /// testpmd on DPDK's vhost.
    Dpdk,
}

const OVS_PROGRAM: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const OVS_SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

impl System {
    /// As it is by default.
    pub(super) const OURS: Self = Self::Ours { spin: 0 };

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ours { .. } => "casemate-switch",
            Self::Ovs => "OVS-DPDK",
            Self::Dpdk => "DPDK vhost",
        }
    }

    /// testpmd needs more to take long packets than its two ports have.
    pub(super) fn can(self, load: Load) -> bool {
        self != Self::Dpdk || matches!(load, Load::Frames(_))
    }

    /// Starts it on processor 1.
    pub(super) fn start(self, load: Load) -> Result<Running> {
        let folder = tempfile::tempdir()?;
        let sockets = [folder.path().join("a"), folder.path().join("b")];
        let mut running = Running { children: Vec::new(), folder, sockets, connects: false };
        match self {
            Self::Ours { spin } => running.start_ours(spin)?,
            Self::Ovs => running.start_ovs(matches!(load, Load::Packets(_)))?,
            Self::Dpdk => running.start_dpdk()?,
        }
        if !running.connects {
            let [.., last] = &running.sockets;
            wait_for(last)?;
        }
        Ok(running)
    }
}

/// A switch that runs, until it is dropped.
pub(super) struct Running {
    /// The switch itself is the last one.
    children: Vec<Child>,
    folder: tempfile::TempDir,
    pub(super) sockets: [PathBuf; 2],
    /// Whether it connects to the sockets, instead of listening.
    pub(super) connects: bool,
}

impl Running {
    fn start_ours(&mut self, spin: u32) -> Result<()> {
        let mut command = alone(1, &programs().join("casemate-switch"));
        for (role, socket, last) in
            [("--router", &self.sockets[0], "0a"), ("--client", &self.sockets[1], "0b")]
        {
            command.arg(role).arg(format!("{},mac=52:54:00:00:00:{last}", socket.display()));
        }
        // virtio-user does not seal its memory.
        command.args(["--allow-unsealed-memory", "--spin-us", &spin.to_string()]);
        self.spawn(command)
    }

    fn start_dpdk(&mut self) -> Result<()> {
        let mut command = alone(1, Path::new("dpdk-testpmd"));
        command.args(["--lcores", "0@1,1@1", "--no-pci", "--in-memory", "-m", "256"]);
        for (index, socket) in self.sockets.iter().enumerate() {
            let device = format!("net_vhost{index},iface={},queues=1", socket.display());
            command.args(["--vdev", &device]);
        }
        command.args(["--", "--nb-cores=1", "--forward-mode=io", "--total-num-mbufs=16384"]);
        command.args(["--rxd=1024", "--txd=1024", "--auto-start", "--stats-period=3600"]);
        self.spawn(command)
    }

    fn start_ovs(&mut self, cut: bool) -> Result<()> {
        let folder = self.folder.path().to_owned();
        let at = |name: &str| folder.join(name).display().to_string();
        self.connects = true;
        let environment = ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"];
        let here = |command: &mut Command| {
            for name in environment {
                command.env(name, &folder);
            }
            command.stdout(Stdio::null()).stderr(Stdio::null());
        };
        let run_here = |words: &[&str]| {
            let mut command = Command::new(words[0]);
            command.args(&words[1..]);
            here(&mut command);
            run(&mut command)
        };
        run_here(&["ovsdb-tool", "create", &at("conf.db"), OVS_SCHEMA])?;
        let mut server = Command::new("ovsdb-server");
        server.args([&at("conf.db"), &format!("--remote=punix:{}", at("db.sock"))]);
        server.arg(format!("--unixctl={}", at("db.ctl")));
        here(&mut server);
        self.spawn(server)?;
        wait_for(&folder.join("db.sock"))?;
        let database = format!("--db=unix:{}", at("db.sock"));
        let tell =
            |words: &[&str]| run_here(&[&["ovs-vsctl", &database, "--no-wait"], words].concat());
        tell(&["init"])?;
        tell(&[
            "set",
            "Open_vSwitch",
            ".",
            "other_config:dpdk-init=true",
            "other_config:dpdk-lcore-mask=0x1",
            "other_config:pmd-cpu-mask=0x2",
            "other_config:dpdk-extra=--no-pci --in-memory",
            "other_config:dpdk-socket-mem=512",
            &format!("other_config:userspace-tso-enable={cut}"),
        ])?;
        tell(&["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"])?;
        for (index, socket) in self.sockets.iter().enumerate() {
            let name = format!("port{index}");
            let path = format!("options:vhost-server-path={}", socket.display());
            let kind = "type=dpdkvhostuserclient";
            tell(&["add-port", "br0", &name, "--", "set", "Interface", &name, kind, &path])?;
        }
        // Its threads choose their processors themselves.
        let mut switch = Command::new(OVS_PROGRAM);
        switch.args([&format!("unix:{}", at("db.sock")), &format!("--unixctl={}", at("vs.ctl"))]);
        here(&mut switch);
        self.spawn(switch)?;
        wait_for(&folder.join("br0.mgmt"))?;
        let bridge = format!("unix:{}", at("br0.mgmt"));
        run_here(&["ovs-ofctl", "del-flows", &bridge])?;
        run_here(&["ovs-ofctl", "add-flow", &bridge, "actions=NORMAL"])
    }

    fn spawn(&mut self, mut command: Command) -> Result<()> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command
            .spawn()
            .with_context(|| format!("could not start {}", crate::process::shown(&command)))?;
        prefer(child.id());
        self.children.push(child);
        Ok(())
    }

    /// Processor time of the switch, in ticks.
    pub(super) fn ticks(&self) -> Result<u64> {
        let number = self.children.last().map_or(0, Child::id);
        let text = fs::read_to_string(format!("/proc/{number}/stat"))?;
        let fields: Vec<&str> =
            text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        ensure!(fields.len() > 12, "no processor time in {text}");
        Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A program on one processor.
pub(super) fn alone(processor: usize, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(processor.to_string()).arg(program);
    command
}

/// The share of the processors that measured processes get; others have 1024.
const SHARES: &str = "200000";
const GROUP: &str = "/sys/fs/cgroup/cpu/casemate-bench";

/// Lets a process go before others, where control groups of version 1 are: `nice` counts within a
/// session only.
pub(super) fn prefer(process: u32) {
    let group = Path::new(GROUP);
    let made = group.is_dir() || fs::create_dir(group).is_ok();
    if made && fs::write(group.join("cpu.shares"), SHARES).is_ok() {
        let _ = fs::write(group.join("cgroup.procs"), process.to_string());
    }
}

/// Huge pages for the DPDK programs. As before, when dropped.
pub(super) struct HugePages {
    before: String,
}

const PAGES: &str = "/proc/sys/vm/nr_hugepages";

impl HugePages {
    /// At least 1000 of them, 2 GB.
    pub(super) fn reserve() -> Result<Self> {
        let before = fs::read_to_string(PAGES).context("could not read the huge pages' number")?;
        if before.trim().parse::<u64>().unwrap_or(0) < 1000 {
            fs::write(PAGES, "1000").context("could not set huge pages aside")?;
        }
        Ok(Self { before })
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = fs::write(PAGES, &self.before);
    }
}

fn wait_for(path: &Path) -> Result<()> {
    let begin = Instant::now();
    while !path.exists() {
        ensure!(begin.elapsed() < Duration::from_secs(20), "{} does not appear", path.display());
        std::thread::sleep(Duration::from_millis(50));
    }
    // It listens a moment later.
    std::thread::sleep(Duration::from_millis(500));
    Ok(())
}
