//! The connected sockets between a compartment's processes: made once a launch, each end given
//! away once.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use casemate_host::sockets::channel_pair;
use casemate_plan::Plan;
use casemate_plan::process::{Channel, DescriptorSource, Process};

/// Ends that nobody has taken yet. What the processes leave is the supervisor's.
#[derive(Debug)]
pub struct Channels(BTreeMap<Channel, Vec<OwnedFd>>);

impl Channels {
    /// A pair for every channel that the plan's processes name.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn of(plan: &Plan) -> io::Result<Self> {
        let mut pairs = BTreeMap::new();
        for (_, channel) in plan.processes.iter().flat_map(channels) {
            if !pairs.contains_key(&channel) {
                let (one, other) = channel_pair(channel)?;
                pairs.insert(channel, vec![one, other]);
            }
        }
        Ok(Self(pairs))
    }

    /// The ends of `process`, with their numbers in it.
    pub fn for_process(&mut self, process: &Process) -> Vec<(i32, OwnedFd)> {
        channels(process)
            .filter_map(|(number, channel)| Some((number, self.take(channel)?)))
            .collect()
    }

    /// An end of `channel`.
    pub fn take(&mut self, channel: Channel) -> Option<OwnedFd> {
        self.0.get_mut(&channel)?.pop()
    }
}

fn channels(process: &Process) -> impl Iterator<Item = (i32, Channel)> + '_ {
    process.descriptors.iter().filter_map(|descriptor| match descriptor.what {
        DescriptorSource::Channel { channel } => Some((descriptor.number, channel)),
        DescriptorSource::File { .. } | DescriptorSource::Log { .. } => None,
    })
}
