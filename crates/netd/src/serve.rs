//! The loop: connections come, ask, keep a link, and go. One thread; whoever asks waits for nobody
//! but the kernel and nft.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use casemate_netns::error::{KeeperError, While, sentence};
use casemate_netns::host::HostAddresses;
use casemate_netns::netlink::{Socket, TableFamily};
use casemate_netns::nft;
use casemate_plan::firewall::TABLE;
use casemate_plan::helper::{LONGEST_REQUEST, Order, ToHelper, decode};
use casemate_plan::network::FromKeeper;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Uid;

use crate::arguments::Arguments;
use crate::client::{Client, Heard};
use crate::forwarding::Forwarding;
use crate::grants::Allowed;
use crate::link::Link;

/// Connections in all, and those without a link of one user other than root.
const CLIENTS: usize = 700;
const CLIENTS_OF_ONE: usize = 64;

/// How long a connection may be there without a link.
const PATIENCE: Duration = Duration::from_secs(10);

/// Work for one user other than root, and in what time: a link costs 5 and some 100 ms, anything else 1.
const WORK: u32 = 100;
const OF_LINK: u32 = 5;
const IN_TIME: Duration = Duration::from_secs(10);

/// Without connections for so long it ends, where systemd starts it again at the next.
const IDLE: Duration = Duration::from_secs(60);

/// How often removed tables are made anew until that is given up.
const ATTEMPTS: u32 = 5;

/// The helper.
pub(crate) struct Helper {
    arguments: Arguments,
    nft: PathBuf,
    listener: OwnedFd,
    /// What was mended when it began.
    mended: Vec<String>,
    signals: SignalFd,
    host: HostAddresses,
    /// Hears of tables that others remove.
    firewall: Socket,
    /// Tables were removed, and are not all there again.
    open: bool,
    /// Tables do not have the host's addresses as they are.
    stale: bool,
    forwarding: Forwarding,
    clients: BTreeMap<u64, Client>,
    /// By id.
    links: BTreeMap<u32, Link>,
    /// Work for each account since a time.
    asked: HashMap<Option<Uid>, (Instant, u32)>,
    next: u64,
    last: Instant,
}

/// What there is to do.
enum Event {
    Signal,
    Connection,
    Host,
    Firewall,
    Client(u64),
    Names(u32),
}

impl Helper {
    /// With nothing to keep yet.
    ///
    /// # Errors
    /// See [`KeeperError`].
    pub(crate) fn new(
        arguments: Arguments,
        nft: PathBuf,
        listener: OwnedFd,
        mended: Vec<String>,
    ) -> Result<Self, KeeperError> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGCHLD);
        set.add(Signal::SIGTERM);
        set.add(Signal::SIGINT);
        set.thread_block().while_("block signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self {
            signals: SignalFd::with_flags(&set, flags).while_("take signals")?,
            host: HostAddresses::watch()?,
            firewall: Socket::firewall()?,
            open: false,
            stale: false,
            forwarding: Forwarding::new(&nft, &arguments.state),
            arguments,
            nft,
            listener,
            mended,
            clients: BTreeMap::new(),
            links: BTreeMap::new(),
            asked: HashMap::new(),
            next: 0,
            last: Instant::now(),
        })
    }

    /// Serves until it is told to end, or nobody needs it; then nothing is left.
    ///
    /// # Errors
    /// See [`KeeperError`].
    pub(crate) fn run(mut self) -> Result<(), KeeperError> {
        let served = self.serve();
        for id in self.links.keys().copied().collect::<Vec<_>>() {
            self.remove(id);
        }
        served
    }

    fn serve(&mut self) -> Result<(), KeeperError> {
        let mut buffer = vec![0; LONGEST_REQUEST];
        loop {
            for event in self.wait()? {
                match event {
                    Event::Signal => {
                        if self.signal()? {
                            return Ok(());
                        }
                    }
                    Event::Connection => self.connection(),
                    Event::Host => self.host_changed()?,
                    Event::Firewall => self.firewall_changed()?,
                    Event::Client(number) => self.client(number, &mut buffer),
                    Event::Names(id) => {
                        if let Some(link) = self.links.get_mut(&id)
                            && let Err(error) = link.take_addresses(&self.nft)
                        {
                            eprintln!("casemate-netd: {}: {}", link.device, sentence(&error));
                        }
                    }
                }
            }
            // What failed while a request was heard. If it fails again, this is the end of every link.
            if self.open || self.stale {
                self.close()?;
                self.host_changed()?;
            }
            let now = Instant::now();
            let late = |client: &Client| client.link.is_none() && now - client.since > PATIENCE;
            let late: Vec<u64> =
                self.clients.iter().filter(|(_, one)| late(one)).map(|(n, _)| *n).collect();
            late.into_iter().for_each(|number| self.leave(number));
            self.asked.retain(|_, (since, _)| now - *since < IN_TIME);
            if !self.clients.is_empty() {
                self.last = now;
            } else if self.arguments.listen.is_none() && now - self.last > IDLE {
                return Ok(());
            }
        }
    }

    fn wait(&self) -> Result<Vec<Event>, KeeperError> {
        let mut all: Vec<(BorrowedFd<'_>, Event)> = vec![
            (self.signals.as_fd(), Event::Signal),
            (self.host.as_fd(), Event::Host),
            (self.firewall.as_fd(), Event::Firewall),
            (self.listener.as_fd(), Event::Connection),
        ];
        for (number, client) in &self.clients {
            all.push((client.as_fd(), Event::Client(*number)));
        }
        for (id, link) in &self.links {
            all.extend(link.resolver().map(|one| (one, Event::Names(*id))));
        }
        let mut polled: Vec<PollFd<'_>> =
            all.iter().map(|(one, _)| PollFd::new(*one, PollFlags::POLLIN)).collect();
        match poll(&mut polled, PollTimeout::from(1000_u16)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).while_("wait for requests"),
        }
        let ready: Vec<bool> = polled
            .iter()
            .map(|one| one.revents().is_some_and(|events| !events.is_empty()))
            .collect();
        drop(polled);
        Ok(all.into_iter().zip(ready).filter(|(_, ready)| *ready).map(|((_, e), _)| e).collect())
    }

    /// Takes signals; true when it shall end.
    fn signal(&mut self) -> Result<bool, KeeperError> {
        while let Some(signal) = self.signals.read_signal().while_("take a signal")? {
            if signal.ssi_signo != Signal::SIGCHLD as u32 {
                return Ok(true);
            }
        }
        // nft's end is waited for where it is started.
        let mute = |(id, link): (&u32, &mut Link)| link.is_mute().then_some(*id);
        for id in self.links.iter_mut().filter_map(mute).collect::<Vec<_>>() {
            self.end(id, "what answers the guest's questions for names has ended".into());
        }
        Ok(false)
    }

    /// Ends a link, and tells who has it.
    fn end(&mut self, id: u32, reason: String) {
        let keeper = self.clients.iter().find(|(_, client)| client.link == Some(id));
        if let Some((&number, client)) = keeper {
            client.say(&FromKeeper::Failed { reason }, None);
            self.leave(number);
        }
    }

    fn connection(&mut self) {
        let Some(client) = Client::accept(&self.listener) else { return };
        // How many links he may have is for his grant to say.
        let same = |other: &&Client| other.account == client.account && other.link.is_none();
        let of_same = self.clients.values().filter(same).count();
        if self.clients.len() >= CLIENTS || (!client.uid.is_root() && of_same >= CLIENTS_OF_ONE) {
            let reason = "there are too many connections to casemate-netd".into();
            client.say(&FromKeeper::Failed { reason }, None);
            return;
        }
        self.next += 1;
        self.clients.insert(self.next, client);
    }

    fn host_changed(&mut self) -> Result<(), KeeperError> {
        self.stale |= self.host.changed()?;
        if self.stale && !self.links.is_empty() {
            let texts = self.links.values().map(|link| self.host.text(&link.device));
            let text = texts.collect::<Result<String, _>>()?;
            if nft::load(&self.nft, &text).is_err() {
                // Are all of the tables there?
                self.open = true;
                self.close()?;
                nft::load(&self.nft, &text)?;
            }
        }
        self.stale = false;
        Ok(())
    }

    /// Somebody may have removed tables of links: `nft flush ruleset` does, and with it each reload of a
    /// usual /etc/nftables.conf. A link without them would be open to everything.
    fn firewall_changed(&mut self) -> Result<(), KeeperError> {
        let is_own =
            |name: &str| name == TABLE || self.links.values().any(|link| link.device == name);
        if self.firewall.table_removed(is_own)? {
            // Or it was replaced, as the helper does it itself.
            for link in self.links.values() {
                self.open |= !link.is_closed()?;
            }
            if !self.links.is_empty() && !Socket::has_table(TableFamily::Inet, TABLE)? {
                self.forwarding.close()?;
            }
        }
        self.close()
    }

    /// Makes tables of links anew, if some were removed. Nothing passes any link meanwhile.
    fn close(&mut self) -> Result<(), KeeperError> {
        if !self.open {
            return Ok(());
        }
        // First of all: nft takes its time.
        self.links.values().try_for_each(|link| link.set_up(false))?;
        // Whoever reloads a firewall may well remove everything twice.
        for attempt in 1..=ATTEMPTS {
            match self.try_close() {
                Ok(()) => break,
                Err(error) if attempt == ATTEMPTS => return Err(error),
                Err(_) => {}
            }
        }
        self.links.values().try_for_each(|link| link.set_up(true))?;
        self.open = false;
        Ok(())
    }

    fn try_close(&mut self) -> Result<(), KeeperError> {
        for link in self.links.values_mut() {
            if link.is_closed()? {
                continue;
            }
            link.restore(&self.nft, |table| self.host.text(table))?;
            let device = &link.device;
            eprintln!("casemate-netd: somebody removed the tables {device}; they are new");
        }
        let users: BTreeSet<u32> = self.links.values().map(|link| link.uid.as_raw()).collect();
        users.into_iter().try_for_each(|uid| self.meet(Uid::from_raw(uid)))
    }

    fn client(&mut self, number: u64, buffer: &mut [u8]) {
        let Some(client) = self.clients.get(&number) else { return };
        let heard = client.hear(buffer);
        let answer = match heard {
            Heard::Nothing => return,
            Heard::End => return self.leave(number),
            Heard::Long => Err("the request is too long".to_owned()),
            Heard::Packet(length) => self.request(number, &buffer[..length]),
        };
        let Some(client) = self.clients.get(&number) else { return };
        match answer {
            Ok((message, tap)) => {
                if !client.say(&message, tap.as_ref()) {
                    self.leave(number);
                }
            }
            Err(reason) => {
                client.say(&FromKeeper::Failed { reason }, None);
                self.leave(number);
            }
        }
    }

    /// Carries out one request, or says why not; then the connection ends.
    fn request(
        &mut self,
        number: u64,
        bytes: &[u8],
    ) -> Result<(FromKeeper, Option<OwnedFd>), String> {
        let client = self.clients.get(&number).ok_or("there is no such connection")?;
        let (uid, link, account) = (client.uid, client.link, client.account);
        let request = decode(bytes).map_err(|error| sentence(&error));
        let (since, work) = self.asked.entry(account).or_insert((Instant::now(), 0));
        if since.elapsed() >= IN_TIME {
            (*since, *work) = (Instant::now(), 0);
        }
        *work += if matches!(request, Ok(ToHelper::Link(_))) { OF_LINK } else { 1 };
        let often = *work > WORK && !uid.is_root();
        // Whoever has a link and asks for counters keeps it, and gets none for a while.
        if often && !(link.is_some() && matches!(request, Ok(ToHelper::Counters))) {
            return Err("too many requests; try again in some seconds".into());
        }
        match request? {
            ToHelper::Terms => {
                let allowed = Allowed::of(uid, self.arguments.config.as_deref())?;
                Ok((FromKeeper::Terms { terms: allowed.terms() }, None))
            }
            ToHelper::Repair => Ok((FromKeeper::Repaired { what: self.mended.clone() }, None)),
            ToHelper::Counters => {
                let link = link.and_then(|id| self.links.get(&id));
                let link = link.ok_or("this connection has no link")?;
                if often {
                    let reason = "the counters were asked for too often".into();
                    return Ok((FromKeeper::NoCounters { reason }, None));
                }
                Ok((
                    match link.counters(&self.nft) {
                        Ok(text) => FromKeeper::Counters { text },
                        Err(error) => FromKeeper::NoCounters { reason: sentence(&error) },
                    },
                    None,
                ))
            }
            ToHelper::Link(_) if link.is_some() => Err("this connection has a link".into()),
            ToHelper::Link(order) => {
                let tap = self.give(uid, &order)?;
                if let Some(client) = self.clients.get_mut(&number) {
                    client.link = Some(order.id.get());
                }
                Ok((FromKeeper::Ready, Some(tap)))
            }
        }
    }

    /// Makes a link, if this user may have it.
    fn give(&mut self, uid: Uid, order: &Order) -> Result<OwnedFd, String> {
        // One that has ended and asks again, before its end was looked at.
        let gone = self.clients.iter().filter(|(_, one)| one.link.is_some() && one.has_gone());
        for number in gone.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.leave(number);
        }
        // The addresses of those that have left are free, and every table is there.
        let fresh = self.host_changed().and_then(|()| self.firewall_changed());
        fresh.map_err(|error| sentence(&error))?;
        let allowed = Allowed::of(uid, self.arguments.config.as_deref())?;
        let ends = self.check(uid, order, &allowed)?;
        let id = order.id.get();
        let host = &self.host;
        let made = Link::make(&self.nft, uid, order, &allowed, ends, |table| host.text(table));
        let (link, tap) = made.map_err(|error| sentence(&error))?;
        eprintln!(
            "casemate-netd: {} ({}) is a link of `{}` of {}",
            link.device, link.guest, link.compartment, allowed.user
        );
        self.links.insert(id, link);
        let done = self.meet(uid).and_then(|()| self.forwarding.on());
        if let Err(error) = done {
            self.remove(id);
            return Err(sentence(&error));
        }
        Ok(tap)
    }

    /// Both ends of the link, the host's first, or why it cannot be had.
    fn check(
        &self,
        uid: Uid,
        order: &Order,
        allowed: &Allowed,
    ) -> Result<(std::net::Ipv4Addr, std::net::Ipv4Addr), String> {
        let id = order.id;
        let cidr = allowed.network.cidr;
        let ends = allowed.network.link(id).filter(|_| id <= allowed.network.largest_id());
        let Some((gateway, guest)) = ends else {
            return Err(format!("id {id} has no address in {cidr}"));
        };
        if order.address != guest {
            return Err(format!(
                "the address of id {id} is {guest} on this machine, not {}: the system's `cidr` \
                 counts",
                order.address
            ));
        }
        if let Some((first, last)) = allowed.ids.filter(|(a, b)| !(*a..=*b).contains(&id)) {
            return Err(format!(
                "id {id} is not among those granted to {}, {first} to {last}",
                allowed.user
            ));
        }
        if let Some(link) = self.links.get(&id.get()) {
            let whose = match link.uid == uid {
                true => format!("your compartment `{}`", link.compartment),
                false => "a compartment of another user".into(),
            };
            return Err(format!(
                "{guest} is in use by {whose}; give this compartment another `id`"
            ));
        }
        let own = self.links.values().filter(|link| link.uid == uid).count();
        if own >= allowed.links as usize {
            return Err(format!("{} has {own} links, and may have no more", allowed.user));
        }
        if self.host.has(gateway) || self.host.has(guest) {
            return Err(format!("{gateway}/31 holds an address of this machine itself"));
        }
        Ok((gateway, guest))
    }

    /// Lets the links of one user know of each other.
    fn meet(&self, uid: Uid) -> Result<(), KeeperError> {
        let own: Vec<&Link> = self.links.values().filter(|link| link.uid == uid).collect();
        let mut text = String::new();
        for link in &own {
            let table = &link.device;
            let others = own.iter().filter(|other| other.guest != link.guest);
            let others: Vec<String> = others.map(|other| other.guest.to_string()).collect();
            text.push_str(&format!("flush set inet {table} friends4\n"));
            if !others.is_empty() {
                let others = others.join(", ");
                text.push_str(&format!("add element inet {table} friends4 {{ {others} }}\n"));
            }
        }
        if text.is_empty() { Ok(()) } else { nft::load(&self.nft, &text) }
    }

    /// Forgets a connection, with its link.
    fn leave(&mut self, number: u64) {
        if let Some(client) = self.clients.remove(&number)
            && let Some(id) = client.link
        {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: u32) {
        let Some(mut link) = self.links.remove(&id) else { return };
        link.remove(&self.nft);
        let mut done = self.meet(link.uid);
        if self.links.is_empty() {
            done = done.and(self.forwarding.restore().map(drop));
        }
        eprintln!("casemate-netd: {} is gone", link.device);
        if let Err(error) = done {
            eprintln!("casemate-netd: {}", sentence(&error));
        }
    }
}
