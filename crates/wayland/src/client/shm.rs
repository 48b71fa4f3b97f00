//! Shared memory: pools and buffers, by numbers only. Nothing of it is mapped here; whether the
//! file behind a pool is as long as was said is between the client and the compositor.

use std::os::fd::AsFd;

use rustix::fs::FileType;

use super::state::Attached;
use super::{Call, Client};
use crate::fault::Fault;
use crate::limits;
use crate::protocol::Interface;
use crate::wire::Arg;

/// A pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pool {
    /// The client's id; none once it has destroyed it.
    id: Option<u32>,
    size: i32,
    /// Bytes are counted until its last buffer is gone, as the compositor keeps them.
    buffers: usize,
}

/// A buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buffer {
    pub(crate) width: i32,
    pub(crate) height: i32,
    /// No other buffer of the client ever has it: ids are used again, on both sides.
    pub(crate) number: u64,
    up: u32,
    /// The key of its pool in [`Client::pools`].
    pool: u64,
    /// The compositor has it and has not given it back.
    pub(crate) busy: bool,
    /// The client has destroyed it, but a state that waits still shows it.
    doomed: bool,
}

/// `wl_shm.create_pool`.
pub(crate) fn create_pool(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let (id, fd, size) = (call.id()?, call.fd()?, call.int()?);
    if client.pools.len() >= limits::POOLS {
        return Err(Fault::limit("pools of shared memory", limits::POOLS));
    }
    if size <= 0 {
        return Err(Fault::protocol(call.object, "a pool has no size"));
    }
    client.check_pools(i64::from(size))?;
    // What is no file could make the compositor wait.
    let stat = rustix::fs::fstat(fd.as_fd());
    if !stat.is_ok_and(|it| FileType::from_raw_mode(it.st_mode) == FileType::RegularFile) {
        return Err(Fault::protocol(call.object, "a pool is no file in memory"));
    }
    client.ids.add(id, Interface::ShmPool, call.version)?;
    let new = client.ids.raise(id)?;
    let shm = client.ids.up(call.object)?;
    client.last_pool += 1;
    client.pools.insert(client.last_pool, Pool { id: Some(id), size, buffers: 0 });
    let arguments = vec![Arg::New(new), Arg::Fd(fd), Arg::Int(size)];
    client.request(shm, Interface::Shm, "create_pool", arguments)
}

/// `wl_shm_pool.resize`.
pub(crate) fn resize_pool(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let size = call.int()?;
    let up = client.ids.up(call.object)?;
    let before = client.pool(call.object)?.1.size;
    if size < before {
        return Err(Fault::protocol(call.object, "a pool cannot shrink"));
    }
    client.check_pools(i64::from(size) - i64::from(before))?;
    client.pool(call.object)?.1.size = size;
    client.request(up, Interface::ShmPool, "resize", vec![Arg::Int(size)])
}

/// `wl_shm_pool.create_buffer`.
pub(crate) fn create_buffer(client: &mut Client, mut call: Call) -> Result<(), Fault> {
    let id = call.id()?;
    let [offset, width, height, stride] = [call.int()?, call.int()?, call.int()?, call.int()?];
    let format = call.uint()?;
    if client.buffers.len() >= limits::BUFFERS {
        return Err(Fault::limit("buffers", limits::BUFFERS));
    }
    let pool_up = client.ids.up(call.object)?;
    let (key, pool) = client.pool(call.object)?;
    let sides = 1..=limits::BUFFER_SIDE;
    let end = i64::from(offset) + i64::from(stride) * i64::from(height);
    let fits = offset >= 0 && stride >= width && end <= i64::from(pool.size);
    if !(sides.contains(&width) && sides.contains(&height) && fits) {
        return Err(Fault::protocol(call.object, "a buffer does not fit its pool"));
    }
    client.ids.add(id, Interface::Buffer, 1)?;
    let up = client.ids.raise(id)?;
    client.last_buffer += 1;
    let number = client.last_buffer;
    let buffer = Buffer { width, height, number, up, pool: key, busy: false, doomed: false };
    client.buffers.insert(id, buffer);
    client.pool(call.object)?.1.buffers += 1;
    let mut arguments = vec![Arg::New(up)];
    arguments.extend([offset, width, height, stride].map(Arg::Int));
    arguments.push(Arg::Uint(format));
    client.request(pool_up, Interface::ShmPool, "create_buffer", arguments)
}

/// `wl_shm_pool.destroy`: its buffers live on.
pub(crate) fn destroy_pool(client: &mut Client, call: Call) -> Result<(), Fault> {
    let (key, pool) = client.pool(call.object)?;
    pool.id = None;
    client.forget_pool(key);
    client.end(&call)
}

/// `wl_buffer.destroy`: later, when something that was committed and waits shows it.
pub(crate) fn destroy_buffer(client: &mut Client, call: Call) -> Result<(), Fault> {
    if let Some(buffer) = client.buffers.get_mut(&call.object) {
        buffer.doomed = true;
        client.doomed.push(call.object);
    }
    client.ids.destroy(call.object);
    client.bury_buffers()
}

/// `wl_buffer.release`.
pub(crate) fn release(client: &mut Client, call: Call) -> Result<(), Fault> {
    if let Some(buffer) = client.buffers.get_mut(&call.object) {
        buffer.busy = false;
    }
    client.forward_event(call)
}

impl Client {
    fn check_pools(&self, more: i64) -> Result<(), Fault> {
        let sum: i64 = self.pools.values().map(|pool| i64::from(pool.size)).sum();
        match sum + more > limits::POOL_BYTES {
            true => Err(Fault::Limit {
                what: "bytes of shared memory",
                limit: limits::POOL_BYTES.unsigned_abs(),
            }),
            false => Ok(()),
        }
    }

    /// The pool of this id and its key.
    fn pool(&mut self, id: u32) -> Result<(u64, &mut Pool), Fault> {
        let mut pools = self.pools.iter_mut();
        let found = pools.find(|(_, pool)| pool.id == Some(id)).map(|(key, pool)| (*key, pool));
        found.ok_or(Fault::Bug("a pool is not kept"))
    }

    fn forget_pool(&mut self, key: u64) {
        if self.pools.get(&key).is_some_and(|pool| pool.id.is_none() && pool.buffers == 0) {
            self.pools.remove(&key);
        }
    }

    /// Destroys buffers that the client has destroyed and that nothing waiting shows any more.
    pub(crate) fn bury_buffers(&mut self) -> Result<(), Fault> {
        for id in std::mem::take(&mut self.doomed) {
            let waits = self.surfaces.values().any(|surface| {
                let cached = surface.cached.as_ref().is_some_and(|state| state.uses(id));
                cached || surface.unsent.uses(id)
            });
            if waits {
                self.doomed.push(id);
                continue;
            }
            // What was only attached, not committed, is nothing.
            for surface in self.surfaces.values_mut().filter(|it| it.pending.uses(id)) {
                surface.pending.buffer = Some(None);
            }
            let Some(buffer) = self.buffers.remove(&id) else { continue };
            if let Some(pool) = self.pools.get_mut(&buffer.pool) {
                pool.buffers -= 1;
            }
            self.forget_pool(buffer.pool);
            self.request(buffer.up, Interface::Buffer, "destroy", Vec::new())?;
        }
        Ok(())
    }

    /// Whether this buffer can still be attached.
    pub(crate) fn is_there(&self, attached: Attached) -> bool {
        self.buffers.get(&attached.id).is_some_and(|it| it.number == attached.number)
    }

    /// Gives a buffer back that the compositor never saw.
    pub(crate) fn release_unused(&mut self, attached: Attached) -> Result<(), Fault> {
        let free = self.buffers.get(&attached.id).is_some_and(|it| !it.busy && !it.doomed);
        match free && self.is_there(attached) {
            true => self.event(attached.id, Interface::Buffer, "release", Vec::new()),
            false => Ok(()),
        }
    }
}
