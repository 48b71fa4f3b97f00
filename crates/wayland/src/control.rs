//! The broker's socket: it takes the compartment's selection, offers one, and hears of the focus.
//!
//! Lines of JSON, a descriptor beside a line where one is named. From the broker:
//!
//! | line | answer |
//! |---|---|
//! | `{"status":{}}` | `{"status":{"focused":BOOL,"clipboard":[TYPE…]}}` |
//! | `{"take":{"types":[TYPE…]}}` | `{"taken":{"type":TYPE}}` and the reading end of a pipe: the first of these types that the clipboard has; `{"taken":null}` when it has none |
//! | `{"offer":{"types":[TYPE…],"seconds":N}}` and a memory file of at most 16 MiB | `{"offered":{}}`, later one `{"used":{"type":TYPE}}`, `{"expired":{}}` or `{"replaced":{}}` |
//! | `{"clear":{}}` | `{"cleared":{}}`: what the broker offers is withdrawn |
//!
//! Unasked: `{"focus":BOOL}` when the focus comes to the compartment or leaves it. A line that is not
//! understood is answered by `{"error":TEXT}`.
//!
//! Taken data flows from the client into the broker's pipe and is never here; the broker limits size
//! and time. An offer is pasted once.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, accept_with, recvmsg, sendmsg,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::compartment::{Compartment, Effect, Holder, Which};
use crate::limits;

/// Pastes of the broker's offer at a time.
const TRANSFERS: usize = 4;

/// How long a paste may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the selection of an offer that was used is still there, empty: a program that pastes
/// over a slow way hears of its end only after its data (wl-paste gives up when it does not).
const LINGER: Duration = Duration::from_secs(1);

/// Bytes copied at a time: what a pipe holds by default.
const PIECE: usize = 64 * 1024;

/// What the broker says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Request {
    Status {},
    Take { types: Vec<String> },
    Offer { types: Vec<String>, seconds: u64 },
    Clear {},
}

/// Connections of brokers.
#[derive(Debug, Default)]
pub struct Control {
    listener: Option<OwnedFd>,
    /// The first connection was inherited: its end is the end.
    inherited: bool,
    links: Vec<Link>,
    offer: Option<Offer>,
    /// When the selection of an offer that was used is withdrawn.
    leaving: Option<Instant>,
    transfers: Vec<Transfer>,
}

#[derive(Debug)]
struct Link {
    socket: OwnedFd,
    input: Vec<u8>,
    fds: VecDeque<OwnedFd>,
    /// Lines to send, the first perhaps in part, each with a descriptor.
    output: VecDeque<(Vec<u8>, Option<OwnedFd>)>,
}

#[derive(Debug)]
struct Offer {
    number: u64,
    file: Rc<OwnedFd>,
    size: u64,
    until: Instant,
}

/// The broker's offer on its way to a client. Its descriptor is the client's, of which nothing is known but
/// that it is a pipe: `splice` from one to the other never waits.
#[derive(Debug)]
struct Transfer {
    kind: String,
    file: Rc<OwnedFd>,
    size: u64,
    read: u64,
    /// Bytes in the pipe.
    inside: usize,
    pipe: (OwnedFd, OwnedFd),
    to: OwnedFd,
    until: Instant,
}

impl Control {
    /// Brokers connect to this socket, which does not block.
    pub fn listening(listener: OwnedFd) -> Self {
        Self { listener: Some(listener), ..Self::default() }
    }

    /// The broker is at the other end of this socket.
    pub fn connected(socket: OwnedFd) -> Self {
        Self { inherited: true, links: vec![Link::new(socket)], ..Self::default() }
    }

    /// Descriptors to wait for.
    pub fn descriptors(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        let mut all = Vec::new();
        if let Some(listener) = &self.listener {
            let room = self.links.len() < limits::CONTROLS;
            let flags = if room { PollFlags::IN } else { PollFlags::empty() };
            all.push((listener.as_fd(), flags));
        }
        for link in &self.links {
            let out = if link.output.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            all.push((link.socket.as_fd(), PollFlags::IN | out));
        }
        for transfer in &self.transfers {
            all.push((transfer.to.as_fd(), PollFlags::OUT));
        }
        all
    }

    /// Whether something has to be looked at when nothing comes.
    pub(crate) fn has_deadlines(&self) -> bool {
        self.offer.is_some() || self.leaving.is_some() || !self.transfers.is_empty()
    }

    /// Something is ready at a descriptor of [`Self::descriptors`]. False when the broker this
    /// program was started with is gone.
    pub fn turn(&mut self, which: usize, flags: PollFlags, compartment: &mut Compartment) -> bool {
        let listeners = usize::from(self.listener.is_some());
        if which < listeners {
            self.accept();
            return true;
        }
        let which = which - listeners;
        if which < self.links.len() {
            let lines = self.links[which].turn(flags);
            for line in lines.iter().flatten() {
                let (answer, fd) = self.answer(which, line, compartment);
                self.links[which].say(&answer, fd);
            }
            if lines.is_none() {
                self.links.remove(which);
                return !self.inherited;
            }
            return true;
        }
        self.move_on(which - self.links.len());
        true
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        if self.links.len() < limits::CONTROLS
            && let Ok(socket) = accept_with(listener, flags)
        {
            self.links.push(Link::new(socket));
        }
    }

    fn answer(
        &mut self,
        which: usize,
        line: &[u8],
        compartment: &mut Compartment,
    ) -> (Value, Option<OwnedFd>) {
        let request = match serde_json::from_slice(line) {
            Ok(request) => request,
            Err(error) => return (json!({"error": error.to_string()}), None),
        };
        match request {
            Request::Status {} => {
                let held = compartment.selection(Which::Clipboard);
                let types = held.map_or(&[][..], |it| &it.types[..]);
                let focused = compartment.has_focus();
                (json!({"status": {"focused": focused, "clipboard": types}}), None)
            }
            Request::Take { types } => take(&types, compartment),
            Request::Offer { types, seconds } => {
                let file = self.links[which].fds.pop_front();
                match self.offer(types, seconds, file, compartment) {
                    Ok(()) => (json!({"offered": {}}), None),
                    Err(why) => (json!({"error": why}), None),
                }
            }
            Request::Clear {} => {
                self.offer = None;
                withdraw(compartment);
                (json!({"cleared": {}}), None)
            }
        }
    }

    fn offer(
        &mut self,
        types: Vec<String>,
        seconds: u64,
        file: Option<OwnedFd>,
        compartment: &mut Compartment,
    ) -> Result<(), &'static str> {
        let file = file.ok_or("there is no file with the offer")?;
        let stat = rustix::fs::fstat(&file).map_err(|_| "the file cannot be looked at")?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err("the offer's file is no file");
        }
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        if size > limits::CLIPBOARD {
            return Err("the offer is larger than 16 MiB");
        }
        if types.is_empty() || types.len() > limits::TYPES {
            return Err("an offer has 1 to 128 types");
        }
        if types.iter().any(|it| it.is_empty() || it.len() > limits::TYPE || it.contains('\0')) {
            return Err("a type has 1 to 255 bytes");
        }
        let until = Instant::now() + Duration::from_secs(seconds.clamp(1, 3600));
        let new = Some((Holder::Broker, Rc::new(types)));
        let number = compartment.select(Which::Clipboard, new);
        self.offer = Some(Offer { number, file: Rc::new(file), size, until });
        Ok(())
    }

    /// A client pastes the broker's offer.
    pub fn serve(&mut self, number: u64, kind: String, to: OwnedFd) {
        let Some(offer) = self.offer.as_ref().filter(|it| it.number == number) else { return };
        // Nothing but a pipe takes a splice without waiting: with a socket, its own flag counts.
        let stat = rustix::fs::fstat(&to);
        let is_pipe = stat.is_ok_and(|it| FileType::from_raw_mode(it.st_mode) == FileType::Fifo);
        if self.transfers.len() >= TRANSFERS || !is_pipe {
            return;
        }
        let flags = rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK;
        let Ok(pipe) = rustix::pipe::pipe_with(flags) else { return };
        self.transfers.push(Transfer {
            kind,
            file: offer.file.clone(),
            size: offer.size,
            read: 0,
            inside: 0,
            pipe,
            to,
            until: Instant::now() + PATIENCE,
        });
    }

    fn move_on(&mut self, which: usize) {
        let Some(transfer) = self.transfers.get_mut(which) else { return };
        match transfer.turn() {
            Ok(false) => {}
            Err(_) => drop(self.transfers.remove(which)),
            Ok(true) => {
                let done = self.transfers.remove(which);
                // Once: whoever pastes next finds nothing.
                self.transfers.clear();
                self.offer = None;
                self.leaving = Some(Instant::now() + LINGER);
                self.tell(&json!({"used": {"type": done.kind}}));
            }
        }
    }

    /// A selection has changed.
    pub fn announced(&mut self, compartment: &Compartment, which: Which) {
        let held = compartment.selection(which);
        let number = held.filter(|it| it.holder == Holder::Broker).map(|it| it.number);
        if which == Which::Clipboard
            && self.offer.as_ref().is_some_and(|offer| Some(offer.number) != number)
        {
            self.offer = None;
            self.tell(&json!({"replaced": {}}));
        }
    }

    /// Ends what took too long.
    pub fn expire(&mut self, compartment: &mut Compartment) {
        let now = Instant::now();
        self.transfers.retain(|it| it.until > now);
        if self.leaving.take_if(|it| *it <= now).is_some() && self.offer.is_none() {
            withdraw(compartment);
        }
        if self.offer.take_if(|it| it.until <= now).is_some() {
            withdraw(compartment);
            self.tell(&json!({"expired": {}}));
        }
    }

    /// The focus has come or gone.
    pub fn focus(&mut self, focused: bool) {
        self.tell(&json!({"focus": focused}));
    }

    fn tell(&mut self, line: &Value) {
        for link in &mut self.links {
            link.say(line, None);
        }
    }
}

/// The broker's selection is no more.
fn withdraw(compartment: &mut Compartment) {
    let held = compartment.selection(Which::Clipboard);
    if held.is_some_and(|it| it.holder == Holder::Broker) {
        compartment.select(Which::Clipboard, None);
    }
}

fn take(types: &[String], compartment: &mut Compartment) -> (Value, Option<OwnedFd>) {
    let nothing = (json!({"taken": null}), None);
    let Some(held) = compartment.selection(Which::Clipboard) else { return nothing };
    let Holder::Client { client, source } = held.holder else { return nothing };
    let Some(kind) = types.iter().find(|it| held.types.contains(it)).cloned() else {
        return nothing;
    };
    let Ok((read, write)) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC) else {
        return (json!({"error": "there is no pipe left"}), None);
    };
    let answer = json!({"taken": {"type": kind}});
    compartment.effects.push_back(Effect::Send { client, source, kind, fd: write });
    (answer, Some(read))
}

impl Transfer {
    /// Copies as much as fits. True when all of it is copied.
    fn turn(&mut self) -> Result<bool, Errno> {
        loop {
            if self.inside == 0 {
                if self.read >= self.size {
                    return Ok(true);
                }
                let mut piece = vec![0; PIECE];
                let count = rustix::io::pread(&self.file, &mut piece, self.read)?;
                if count == 0 {
                    return Ok(true);
                }
                // Its own pipe is empty, so this fits at least in part.
                self.inside = rustix::io::write(&self.pipe.1, &piece[..count])?;
                self.read += self.inside as u64;
                piece.fill(0);
            }
            let flags = rustix::pipe::SpliceFlags::NONBLOCK;
            match rustix::pipe::splice(&self.pipe.0, None, &self.to, None, self.inside, flags) {
                Ok(0) => return Err(Errno::PIPE),
                Ok(count) => self.inside -= count,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
                Err(other) => return Err(other),
            }
        }
    }
}

impl Link {
    fn new(socket: OwnedFd) -> Self {
        Self { socket, input: Vec::new(), fds: VecDeque::new(), output: VecDeque::new() }
    }

    /// Sends and reads what there is: whole lines; none when the other end is gone or misbehaves.
    fn turn(&mut self, flags: PollFlags) -> Option<Vec<Vec<u8>>> {
        if flags.contains(PollFlags::OUT) {
            self.flush()?;
        }
        if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            let mut bytes = vec![0; 4096];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.socket, &mut parts, &mut ancillary, flags) {
                Ok(received) if received.bytes == 0 => return None,
                Ok(received) => self.input.extend(&bytes[..received.bytes]),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => return None,
            }
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    self.fds.extend(fds);
                }
            }
        }
        let mut lines = Vec::new();
        while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            lines.push(line);
        }
        let bounded = self.input.len() <= limits::CONTROL_LINE && self.fds.len() <= TRANSFERS;
        bounded.then_some(lines)
    }

    fn say(&mut self, line: &Value, fd: Option<OwnedFd>) {
        // A broker that does not read misses what it was told.
        if self.output.len() < 64 {
            self.output.push_back((format!("{line}\n").into_bytes(), fd));
            self.flush();
        }
    }

    fn flush(&mut self) -> Option<()> {
        while let Some((line, fd)) = self.output.front_mut() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let fds: Vec<BorrowedFd<'_>> = fd.iter().map(AsFd::as_fd).collect();
            if !fds.is_empty() {
                ancillary.push(SendAncillaryMessage::ScmRights(&fds));
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match sendmsg(&self.socket, &[IoSlice::new(line)], &mut ancillary, flags) {
                Ok(count) => {
                    line.drain(..count);
                    *fd = None;
                    if line.is_empty() {
                        self.output.pop_front();
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => return Some(()),
                Err(_) => return None,
            }
        }
        Some(())
    }
}
