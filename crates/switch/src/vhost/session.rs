//! What a front-end has set up, and what follows from it: a state without sockets or time.
//!
//! A queue runs when the front-end has said what the guest agreed to, where memory and rings are,
//! and has given a kick; and, where the protocol's features were agreed on, has enabled it.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::message::{Features, Message, Reply, Request};
use crate::forward::offload::Offloads;
use crate::forward::{Queue, Receive, Transmit};
use crate::memory::{GuestMemory, MAX_REGIONS, MemoryError};
use crate::ring::{Broken, Direction, Layout, Options, Ring};

/// One front-end's settings.
#[derive(Debug, Default)]
pub struct Session {
    allow_unsealed: bool,
    features: Features,
    protocol: Features,
    memory: Rc<GuestMemory>,
    queues: [Settings; 2],
}

#[derive(Debug, Default)]
struct Settings {
    layout: Layout,
    kick: Option<OwnedFd>,
    call: Option<OwnedFd>,
    error: Option<OwnedFd>,
    /// As said; by the absence of protocol features a queue is enabled from the beginning.
    enabled: Option<bool>,
    /// Broken rings stay so until they are set up anew.
    broken: bool,
}

/// What has to be done about a port's rings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    /// Nothing.
    None,
    /// This queue begins, ends, or is elsewhere: [`Session::transmit`] or [`Session::receive`].
    Queue(Queue),
    /// Both, for the same reasons.
    Both,
}

/// Why a session is over.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Features that were not offered.
    #[error("features {0:#x} were not offered")]
    Features(Features),
    /// Memory that cannot be used.
    #[error("could not use the guest's memory")]
    Memory(#[from] MemoryError),
    /// A descriptor of a queue is no eventfd.
    #[error("a descriptor to be signalled by is no eventfd")]
    NoEvent,
}

/// The number of a queue.
fn number(queue: Queue) -> usize {
    match queue {
        Queue::Receive => 0,
        Queue::Transmit => 1,
    }
}

fn queue(number: u8) -> Queue {
    if number == 0 { Queue::Receive } else { Queue::Transmit }
}

impl Session {
    /// A new one.
    #[must_use]
    pub fn new(allow_unsealed: bool) -> Self {
        Self { allow_unsealed, ..Self::default() }
    }

    /// Does what a message asks for. `base` says where a running queue is; `is_event` whether a
    /// descriptor is an eventfd. The reply, if one is due, is to be sent after the change is made.
    ///
    /// # Errors
    /// The session is over.
    pub fn apply(
        &mut self,
        message: Message,
        mut descriptors: Vec<OwnedFd>,
        base: impl Fn(Queue) -> Option<u16>,
        is_event: impl Fn(&OwnedFd) -> bool,
    ) -> Result<(Change, Option<Reply>), SessionError> {
        let number = message.request.number();
        let own = |value| Some(Reply::Number(number, value));
        let (change, reply) = match message.request {
            Request::GetFeatures => (Change::None, own(Features::offered().0)),
            Request::SetFeatures(features) => {
                if !Features::offered().has(features) {
                    return Err(SessionError::Features(features));
                }
                self.features = features;
                (Change::Both, None)
            }
            Request::SetOwner => (Change::None, None),
            Request::ResetOwner => {
                self.queues = Default::default();
                (Change::Both, None)
            }
            Request::GetProtocolFeatures => (Change::None, own(Features::offered_protocol().0)),
            Request::SetProtocolFeatures(features) => {
                if !Features::offered_protocol().has(features) {
                    return Err(SessionError::Features(features));
                }
                self.protocol = features;
                (Change::None, None)
            }
            Request::GetQueueCount => (Change::None, own(1)),
            Request::GetMemorySlots => (Change::None, own(MAX_REGIONS as u64)),
            Request::SetMemory(regions) => {
                let regions = regions.into_iter().zip(descriptors).collect();
                self.memory = Rc::new(GuestMemory::new(regions, self.allow_unsealed)?);
                (Change::Both, None)
            }
            Request::AddMemory(region) => {
                let mut memory = GuestMemory::clone(&self.memory);
                if let Some(descriptor) = descriptors.pop() {
                    memory.add(region, &descriptor, self.allow_unsealed)?;
                }
                self.memory = Rc::new(memory);
                (Change::Both, None)
            }
            Request::RemoveMemory(region) => {
                let mut memory = GuestMemory::clone(&self.memory);
                memory.remove(region)?;
                self.memory = Rc::new(memory);
                (Change::Both, None)
            }
            Request::SetSize(number, size) => self.set(number, |queue| queue.layout.size = size),
            Request::SetBase(number, base) => self.set(number, |queue| queue.layout.base = base),
            Request::SetAddress { queue, descriptors, used, available } => {
                self.set(queue, |Settings { layout, .. }| {
                    *layout = Layout { descriptors, used, available, ..*layout };
                })
            }
            Request::GetBase(number) => {
                let base = base(queue(number));
                let settings = &mut self.queues[usize::from(number & 1)];
                settings.layout.base = base.unwrap_or(settings.layout.base);
                settings.kick = None;
                let reply = Reply::Base(number, settings.layout.base);
                (Change::Queue(queue(number)), Some(reply))
            }
            Request::SetKick(number) => {
                let kick = event(descriptors.pop(), is_event)?;
                let settings = &mut self.queues[usize::from(number & 1)];
                settings.kick = kick;
                settings.broken = false;
                (Change::Queue(queue(number)), None)
            }
            Request::SetCall(number, _) => {
                let call = event(descriptors.pop(), is_event)?;
                self.queues[usize::from(number & 1)].call = call;
                (Change::None, None)
            }
            Request::SetError(number, _) => {
                // Not tried: QEMU takes a signal by it for what it means. What is no eventfd is not
                // signalled when it comes to that.
                self.queues[usize::from(number & 1)].error = descriptors.pop();
                (Change::None, None)
            }
            Request::SetEnable(number, enabled) => {
                let settings = &mut self.queues[usize::from(number & 1)];
                settings.enabled = Some(enabled);
                // To go on there when it is enabled again.
                settings.layout.base = base(queue(number)).unwrap_or(settings.layout.base);
                (Change::Queue(queue(number)), None)
            }
        };
        let due = message.wants_result && self.protocol.has(Features::REPLY_ACK);
        Ok((change, reply.or_else(|| if due { own(0) } else { None })))
    }

    /// Sets what has an effect when the queue is kicked next.
    fn set(&mut self, number: u8, set: impl FnOnce(&mut Settings)) -> (Change, Option<Reply>) {
        set(&mut self.queues[usize::from(number & 1)]);
        (Change::None, None)
    }

    /// The guest's memory.
    #[must_use]
    pub fn memory(&self) -> &Rc<GuestMemory> {
        &self.memory
    }

    /// What a queue is kicked by, if it may run.
    #[must_use]
    pub fn kick(&self, queue: Queue) -> Option<&OwnedFd> {
        let settings = &self.queues[number(queue)];
        // Without the protocol's features there is no message to enable a queue.
        let enabled = settings.enabled.unwrap_or(!self.features.has(Features::PROTOCOL));
        settings.kick.as_ref().filter(|_| enabled && !settings.broken)
    }

    /// What a queue's guest is signalled by.
    #[must_use]
    pub fn call(&self, queue: Queue) -> Option<&OwnedFd> {
        self.queues[number(queue)].call.as_ref()
    }

    /// A ring turned out to be broken. Says what is to be signalled.
    pub fn mark_broken(&mut self, queue: Queue) -> Option<&OwnedFd> {
        let settings = &mut self.queues[number(queue)];
        settings.broken = true;
        settings.error.as_ref()
    }

    /// The ring with frames from the guest, if it may run. `base` is where it is, if it runs.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn transmit(&self, base: Option<u16>) -> Option<Result<Transmit<GuestMemory>, Broken>> {
        let ring = self.ring(Queue::Transmit, Direction::FromGuest, base)?;
        let offloads = Offloads {
            checksum: self.features.has(Features::CHECKSUM),
            tcp4: self.features.has(Features::CHECKSUM | Features::TCP4),
            tcp6: self.features.has(Features::CHECKSUM | Features::TCP6),
        };
        Some(ring.map(|ring| Transmit::new(ring, self.has_long_header(), offloads)))
    }

    /// The ring with frames to the guest, likewise.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn receive(&self, base: Option<u16>) -> Option<Result<Receive<GuestMemory>, Broken>> {
        let ring = self.ring(Queue::Receive, Direction::ToGuest, base)?;
        let offloads = Offloads {
            checksum: self.features.has(Features::GUEST_CHECKSUM),
            tcp4: self.features.has(Features::GUEST_CHECKSUM | Features::GUEST_TCP4),
            tcp6: self.features.has(Features::GUEST_CHECKSUM | Features::GUEST_TCP6),
        };
        let mergeable = self.features.has(Features::MERGEABLE);
        Some(ring.map(|ring| Receive::new(ring, self.has_long_header(), mergeable, offloads)))
    }

    fn has_long_header(&self) -> bool {
        self.features.has(Features::MERGEABLE) || self.features.has(Features::VERSION_1)
    }

    fn ring(
        &self,
        queue: Queue,
        direction: Direction,
        base: Option<u16>,
    ) -> Option<Result<Ring<GuestMemory>, Broken>> {
        self.kick(queue)?;
        let mut layout = self.queues[number(queue)].layout;
        layout.base = base.unwrap_or(layout.base);
        let options = Options {
            event_index: self.features.has(Features::EVENT_INDEX),
            indirect: self.features.has(Features::INDIRECT),
            in_order: self.features.has(Features::IN_ORDER),
        };
        Some(Ring::new(Rc::clone(&self.memory), layout, direction, options))
    }
}

fn event(
    descriptor: Option<OwnedFd>,
    is_event: impl Fn(&OwnedFd) -> bool,
) -> Result<Option<OwnedFd>, SessionError> {
    match descriptor {
        Some(other) if !is_event(&other) => Err(SessionError::NoEvent),
        descriptor => Ok(descriptor),
    }
}
