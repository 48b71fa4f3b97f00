//! A switch process and front-ends of our own, each with a guest made of a few lines: it fills
//! rings in memory it shares with the switch, kicks, and waits to be signalled.

pub(crate) mod driver;
pub(crate) mod frames;

use std::io::{BufRead, BufReader, IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use casemate_switch::memory::{GuestMemory, Memory, Region};
use casemate_switch::rules::Mac;
use casemate_switch::vhost::Features;
use driver::{Driver, NEXT, WRITE};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::{Pid, ftruncate};

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Guest and front-end see the same memory at different addresses.
pub(crate) const GUEST: u64 = 0x10_0000;
pub(crate) const FRONT_END: u64 = 0x7f00_0000_0000;
pub(crate) const MEMORY: u64 = 4 << 20;
/// Where frames to be sent and buffers for others are, from the beginning of the memory.
const SENDING: u64 = 1 << 20;
const TAKING: u64 = 2 << 20;

/// What an ordinary Linux guest agrees to.
pub(crate) fn usual() -> Features {
    Features(Features::offered().0 & !Features::IN_ORDER.0)
}

/// The MAC address of a port: the router is number 0.
pub(crate) fn mac(port: usize) -> Mac {
    Mac::from([0x52, 0x54, 0, 0, 1, port as u8])
}

/// A switch with a router and clients.
pub(crate) struct Net {
    child: Child,
    pub(crate) folder: tempfile::TempDir,
}

impl Net {
    /// A router and `clients` clients.
    pub(crate) fn new(clients: usize) -> Self {
        Self::with(clients, &[], |_| String::new())
    }

    /// Whose log goes there, with lines of 200 bytes and more.
    pub(crate) fn logging_to(clients: usize, log: Stdio) -> Self {
        Self::start(clients, &[], |port| format!(",name={port}{}", "x".repeat(200)), log)
    }

    /// With more options, and more about each port.
    pub(crate) fn with(clients: usize, options: &[&str], more: impl Fn(usize) -> String) -> Self {
        Self::start(clients, options, more, Stdio::inherit())
    }

    fn start(clients: usize, options: &[&str], more: impl Fn(usize) -> String, log: Stdio) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_casemate-switch"));
        for port in 0..=clients {
            let path = folder.path().join(port.to_string());
            let option = if port == 0 { "--router" } else { "--client" };
            command.arg(option).arg(format!("{},mac={}{}", path.display(), mac(port), more(port)));
        }
        command.args(options).args(["--ready-fd", "1"]).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { child, folder }
    }

    pub(crate) fn socket(&self, port: usize) -> PathBuf {
        self.folder.path().join(port.to_string())
    }

    /// A guest with the usual features on that port.
    pub(crate) fn guest(&self, port: usize) -> Guest {
        Guest::new(self, port, Setup::default())
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process lives, and router and client number `client` reach each other.
    pub(crate) fn works(&mut self, router: &mut Guest, client: &mut Guest) {
        assert!(self.child.try_wait().unwrap().is_none(), "the switch has ended");
        for number in 0..100_u8 {
            let frame = frames::plain(router.mac, client.mac, 60 + usize::from(number));
            client.send(&frame);
            // Others may have sent something, too.
            let mut taken = std::iter::repeat_with(|| router.take());
            let taken = taken.find(|frame| frame[6..12] == client.mac.bytes());
            assert_eq!(taken, Some(frame), "from client to router, {number}");
            let frame = frames::plain(client.mac, router.mac, 60 + usize::from(number));
            router.send(&frame);
            assert_eq!(client.take(), frame, "from router to client, {number}");
        }
    }

    /// Whether it ends by itself, and well.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.wait().unwrap().success()
    }

    /// Ends it as a supervisor would. Says whether it ended well.
    pub(crate) fn end(&mut self) -> bool {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).unwrap();
        self.child.wait().unwrap().success()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a guest sets itself up.
pub(crate) struct Setup {
    pub(crate) features: Features,
    pub(crate) ring: u16,
    /// Bytes of each buffer it offers.
    pub(crate) buffer: u32,
    pub(crate) seals: SealFlag,
    /// Whether it offers any buffers to begin with.
    pub(crate) offers: bool,
}

impl Default for Setup {
    fn default() -> Self {
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        Self { features: usual(), ring: 256, buffer: 2048, seals, offers: true }
    }
}

/// A front-end and its guest.
pub(crate) struct Guest {
    pub(crate) socket: UnixStream,
    pub(crate) memory: GuestMemory,
    pub(crate) file: OwnedFd,
    pub(crate) mac: Mac,
    pub(crate) features: Features,
    pub(crate) sending: Driver,
    pub(crate) taking: Driver,
    /// For the taking and the sending ring.
    pub(crate) kicks: [EventFd; 2],
    pub(crate) calls: [EventFd; 2],
    buffer: u32,
    /// Descriptors of the sending ring that are not given back, and of each chain.
    busy: u16,
    chains: std::collections::VecDeque<u16>,
    next: u16,
}

pub(crate) fn memory_file(length: u64, seals: SealFlag) -> OwnedFd {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = memfd_create(c"guest", flags).unwrap();
    ftruncate(&file, length as i64).unwrap();
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    file
}

/// The front-end's address for a guest's.
pub(crate) fn front_end(guest: u64) -> u64 {
    guest - GUEST + FRONT_END
}

impl Guest {
    /// Connects and sets up both rings.
    pub(crate) fn new(net: &Net, port: usize, setup: Setup) -> Self {
        let mut guest = Self::connect(net, port, setup);
        guest.set_up();
        guest
    }

    /// Connects and does nothing more.
    pub(crate) fn connect(net: &Net, port: usize, setup: Setup) -> Self {
        let socket = UnixStream::connect(net.socket(port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        let file = memory_file(MEMORY, setup.seals);
        let region = Region { guest: GUEST, length: MEMORY, front_end: FRONT_END, offset: 0 };
        let memory = GuestMemory::new(vec![(region, file.try_clone().unwrap())], true).unwrap();
        let event = || EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
        let index = setup.features.has(Features::EVENT_INDEX);
        let mut taking = Driver::new(GUEST + 0x8_0000, setup.ring, index);
        if setup.offers {
            for slot in 0..setup.ring {
                let address = GUEST + TAKING + u64::from(slot) * 4096;
                taking.descriptor(&memory, slot, address, setup.buffer, (WRITE, 0));
                taking.offer(&memory, slot);
            }
        }
        taking.show(&memory);
        Self {
            socket,
            memory,
            file,
            mac: mac(port),
            features: setup.features,
            sending: Driver::new(GUEST + 0x1000, setup.ring, index),
            taking,
            kicks: [event(), event()],
            calls: [event(), event()],
            buffer: setup.buffer,
            busy: 0,
            chains: Default::default(),
            next: 0,
        }
    }

    /// Says everything in the order that QEMU does: rings are enabled before features are set.
    pub(crate) fn set_up(&mut self) {
        assert_eq!(self.ask(1), Features::offered().0);
        assert_eq!(self.ask(15), Features::offered_protocol().0);
        self.tell(16, &Features::REPLY_ACK.0.to_le_bytes());
        self.tell(3, &[]);
        self.state(18, 0, 1);
        self.state(18, 1, 1);
        self.tell(2, &self.features.0.to_le_bytes());
        self.set_memory();
        self.start(0);
        self.start(1);
        self.settle();
    }

    pub(crate) fn set_memory(&self) {
        let file = self.file.as_fd();
        self.tell_with(5, &table(&[(GUEST, MEMORY, FRONT_END, 0)]), &[file]);
    }

    /// Sets up ring number `number` and kicks it.
    pub(crate) fn start(&self, number: usize) {
        let driver = if number == 0 { &self.taking } else { &self.sending };
        let layout = driver.layout;
        self.state(8, number as u32, layout.size.into());
        self.state(10, number as u32, layout.base.into());
        self.addresses(number, layout.descriptors, layout.used, layout.available);
        let queue = (number as u64).to_le_bytes();
        self.tell_with(13, &queue, &[self.calls[number].as_fd()]);
        self.tell_with(12, &queue, &[self.kicks[number].as_fd()]);
        self.kick(number);
    }

    /// Says where a ring is, in guest addresses.
    pub(crate) fn addresses(&self, number: usize, descriptors: u64, used: u64, available: u64) {
        let mut bytes = Vec::new();
        for word in [number as u64, front_end(descriptors), front_end(used)] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&front_end(available).to_le_bytes());
        bytes.extend_from_slice(&0_u64.to_le_bytes());
        self.tell(9, &bytes);
    }

    /// Waits until everything that was said has been done.
    pub(crate) fn settle(&mut self) {
        assert_eq!(self.ask(1), Features::offered().0);
    }

    pub(crate) fn state(&self, request: u32, queue: u32, value: u32) {
        self.tell(request, &(u64::from(queue) | u64::from(value) << 32).to_le_bytes());
    }

    pub(crate) fn tell(&self, request: u32, payload: &[u8]) {
        self.tell_with(request, payload, &[]);
    }

    /// Sends a message and descriptors.
    pub(crate) fn tell_with(&self, request: u32, payload: &[u8], descriptors: &[BorrowedFd<'_>]) {
        self.try_tell(request, payload, descriptors).unwrap();
    }

    pub(crate) fn try_tell(
        &self,
        request: u32,
        payload: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> nix::Result<()> {
        let mut bytes = message(request, payload.len());
        bytes.extend_from_slice(payload);
        let numbers: Vec<i32> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let rights = if numbers.is_empty() { &[] } else { &rights[..] };
        let flags = MsgFlags::MSG_NOSIGNAL;
        let parts = [IoSlice::new(&bytes)];
        sendmsg::<()>(self.socket.as_raw_fd(), &parts, rights, flags, None).map(drop)
    }

    /// Asks for a number.
    pub(crate) fn ask(&mut self, request: u32) -> u64 {
        self.tell(request, &[]);
        self.answer()
    }

    /// The number in the next reply.
    pub(crate) fn answer(&mut self) -> u64 {
        let mut reply = [0; 20];
        self.socket.read_exact(&mut reply).unwrap();
        assert_eq!(reply[4..12], [5, 0, 0, 0, 8, 0, 0, 0]);
        u64::from_le_bytes(reply[12..].try_into().unwrap())
    }

    /// Whether the switch has closed the connection, or does so soon.
    pub(crate) fn is_sent_away(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.socket.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    pub(crate) fn kick(&self, number: usize) {
        let _ = self.kicks[number].write(1);
    }

    /// Bytes of the header before each frame.
    pub(crate) fn header(&self) -> usize {
        let long = self.features.has(Features::MERGEABLE) || self.features.has(Features::VERSION_1);
        if long { 12 } else { 10 }
    }

    /// Sends a frame without offloads.
    pub(crate) fn send(&mut self, frame: &[u8]) {
        self.send_with(&[0; 12], frame);
    }

    /// Sends a frame after a header, in as many pieces as it takes. Waits for free descriptors.
    pub(crate) fn send_with(&mut self, header: &[u8; 12], frame: &[u8]) {
        self.offer_frame(header, frame);
        self.push();
    }

    /// Shows what was offered, and kicks if that is wanted.
    pub(crate) fn push(&mut self) {
        if self.sending.show(&self.memory) {
            self.kick(1);
        }
    }

    /// Puts a frame into the ring without showing it.
    pub(crate) fn offer_frame(&mut self, header: &[u8; 12], frame: &[u8]) {
        const PIECE: usize = 2048;
        let bytes = [&header[..self.header()], frame].concat();
        let pieces = bytes.len().div_ceil(PIECE) as u16;
        let size = self.sending.layout.size;
        assert!(pieces <= size, "a frame too long for the ring");
        let begin = Instant::now();
        while self.busy + pieces > size {
            self.push();
            self.reclaim();
            assert!(begin.elapsed() < PATIENCE, "no frame is taken");
            std::thread::yield_now();
        }
        let head = self.next;
        for (index, piece) in bytes.chunks(PIECE).enumerate() {
            let slot = self.next;
            self.next = (slot + 1) % size;
            let address = GUEST + SENDING + u64::from(slot) * PIECE as u64;
            self.memory.guest(address, PIECE as u64).unwrap().write(piece);
            let more = index + 1 < usize::from(pieces);
            let flags = if more { (NEXT, self.next) } else { (0, 0) };
            self.sending.descriptor(&self.memory, slot, address, piece.len() as u32, flags);
        }
        self.sending.offer(&self.memory, head);
        self.busy += pieces;
        self.chains.push_back(pieces);
    }

    /// Takes back what was sent.
    pub(crate) fn reclaim(&mut self) {
        let used = self.sending.used_index(&self.memory);
        while self.sending.used != used {
            self.sending.used = self.sending.used.wrapping_add(1);
            self.busy -= self.chains.pop_front().unwrap_or(0);
        }
    }

    /// Waits until everything was taken.
    pub(crate) fn flush(&mut self) {
        let begin = Instant::now();
        self.push();
        while self.sending.used_index(&self.memory) != self.sending.available {
            assert!(begin.elapsed() < PATIENCE, "frames are not taken");
            std::thread::yield_now();
        }
        self.reclaim();
    }

    /// The next frame that came.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.take_with().1
    }

    /// With its header.
    pub(crate) fn take_with(&mut self) -> (Vec<u8>, Vec<u8>) {
        let begin = Instant::now();
        loop {
            if let Some(taken) = self.try_take() {
                return taken;
            }
            assert!(begin.elapsed() < PATIENCE, "no frame came");
            self.wait_for_call(Duration::from_millis(100));
        }
    }

    /// Sleeps until signalled, but not for a frame that is there.
    pub(crate) fn wait_for_call(&mut self, most: Duration) {
        self.taking.want_signal(&self.memory, true);
        if self.taking.used_index(&self.memory) != self.taking.used {
            return;
        }
        let mut descriptors = [PollFd::new(self.calls[0].as_fd(), PollFlags::POLLIN)];
        poll(&mut descriptors, PollTimeout::try_from(most).unwrap()).unwrap();
        let _ = self.calls[0].read();
    }

    /// The next frame and its header, if there is one; its buffers are offered again.
    pub(crate) fn try_take(&mut self) -> Option<(Vec<u8>, Vec<u8>)> {
        let (header, frame, heads) = self.try_keep()?;
        self.give(&heads);
        Some((header, frame))
    }

    /// Offers buffers again.
    pub(crate) fn give(&mut self, heads: &[u16]) {
        for &head in heads {
            self.taking.offer(&self.memory, head);
        }
        if self.taking.show(&self.memory) {
            self.kick(0);
        }
    }

    /// As [`Self::try_take`], without offering the buffers.
    pub(crate) fn try_keep(&mut self) -> Option<(Vec<u8>, Vec<u8>, Vec<u16>)> {
        let (head, length) = self.taking.take(&self.memory)?;
        let mut heads = vec![head];
        let mut bytes = self.buffer_bytes(head, length);
        let header = bytes[..self.header()].to_vec();
        if self.features.has(Features::MERGEABLE) {
            for _ in 1..u16::from_le_bytes([header[10], header[11]]) {
                let (head, length) = self.taking.take(&self.memory).expect("all of a frame");
                bytes.extend(self.buffer_bytes(head, length));
                heads.push(head);
            }
        }
        Some((header, bytes.split_off(self.header()), heads))
    }

    fn buffer_bytes(&self, head: u16, length: u32) -> Vec<u8> {
        assert!(length <= self.buffer);
        let address = GUEST + TAKING + u64::from(head) * 4096;
        let mut bytes = vec![0; length as usize];
        self.memory.guest(address, length.into()).unwrap().read(&mut bytes);
        bytes
    }

    /// Asserts that nothing came, after something was sent that surely arrives later.
    pub(crate) fn has_nothing(&mut self) {
        assert_eq!(self.try_take().map(|(_, frame)| frame), None);
    }
}

/// The header of a message.
pub(crate) fn message(request: u32, length: usize) -> Vec<u8> {
    [request, 1, length as u32].iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// The payload of `SET_MEM_TABLE`: guest address, length, front-end address, offset.
pub(crate) fn table(regions: &[(u64, u64, u64, u64)]) -> Vec<u8> {
    let mut bytes = (regions.len() as u64).to_le_bytes().to_vec();
    for &(guest, length, front_end, offset) in regions {
        for word in [guest, length, front_end, offset] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
    }
    bytes
}
