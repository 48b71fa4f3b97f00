//! Drives a [`Life`]: carries its effects out and brings it what happens.
//!
//! One thread. Everything that can happen arrives in one `select`, becomes an [`Event`], and the
//! effects that come back are carried out before the next event is looked at.

mod calls;
mod log;
mod memory;
mod snapshot;
pub(crate) mod windows;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use casemate_host::linux::LinuxHost;
use casemate_image::Image;
use casemate_link::orders::{self, Order, OrderError, Report};
use casemate_plan::Plan;
use casemate_plan::facts::HostFacts;
use casemate_plan::process::Role;
use casemate_plan::switch::Port;
use casemate_wire::{Boot, Key, OpenSession};
use tokio::io::unix::AsyncFd;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::audit::{self, Audit};
use crate::broker;
use crate::control::{Failure, Request, Status};
use crate::crew::{Crew, Ends};
use crate::keeper;
use crate::life::{Effect, Event, Life, Outcome, RequestId, Terms};
use crate::memory::{OpenMemory, Place};
use crate::monitor;
use crate::network;
use crate::prepare;
use crate::secrets::OpenSecret;
use crate::serve::{self, Answer, Incoming, Numbers};
use crate::shares::OpenShare;
use crate::switch::{self, Ports};
use crate::volumes::OpenVolume;
use calls::Brokers;
use snapshot::Shot;
use windows::Windows;

/// Orders that may wait for the link process before it counts as stuck.
const ORDER_LIMIT: usize = 4096;

/// Turns of the event loop that connections get for the last answers.
const LAST_TURNS: usize = 32;

/// How long the first client may take to come, when there is nothing but bad news for it.
const FIRST_CLIENT: Duration = Duration::from_secs(1);

/// Lines of the console told with a failure.
const CONSOLE_LINES: usize = 4;

/// What a supervisor runs with.
#[derive(Debug)]
pub(crate) struct Assignment<'w> {
    /// What the plan was made from.
    pub(crate) request: casemate_plan::Request<'w>,
    /// And these.
    pub(crate) facts: HostFacts,
    /// What to do.
    pub(crate) plan: Plan,
    /// What to do if KVM turns out not to bring a guest up.
    pub(crate) plan_without_kvm: Option<Plan>,
    /// What it boots from; checked while the processes start.
    pub(crate) image: Image,
    /// Its name.
    pub(crate) image_name: String,
    /// Where logs go.
    pub(crate) log_directory: PathBuf,
    /// Its volumes, kept from others for as long as this lives.
    pub(crate) volumes: Vec<OpenVolume>,
    /// Its secrets, in the order of their names, as in the plan.
    pub(crate) secrets: Vec<OpenSecret>,
    /// The folders it shares, which stay what they were for as long as this lives.
    pub(crate) _shares: Vec<OpenShare>,
    /// Users besides the owner who may use the control socket.
    pub(crate) users: Vec<u32>,
    /// The kept memory its guest goes on from, the first time it is launched.
    pub(crate) memory: Option<OpenMemory>,
    /// Where memories are kept.
    pub(crate) memory_place: Place,
    /// What decides the guest's calls.
    pub(crate) broker: broker::Program,
    /// Where what is done is recorded.
    pub(crate) audit: Audit,
}

/// One supervisor at work.
struct Runtime<'h> {
    assignment: Assignment<'h>,
    life: Life,
    started: Instant,
    launches: u32,
    crew: Crew<'h>,
    orders: Option<tokio::io::unix::AsyncFd<OwnedFd>>,
    waiting_orders: VecDeque<(Order, Option<OwnedFd>)>,
    commands: Option<mpsc::UnboundedSender<monitor::Command>>,
    requests: HashMap<RequestId, (Option<OwnedFd>, mpsc::UnboundedSender<Answer>)>,
    exits: mpsc::UnboundedSender<(u32, Role)>,
    events: mpsc::UnboundedSender<(u32, Event)>,
    checks: mpsc::UnboundedSender<(u32, Result<(), String>)>,
    checks_begun: u32,
    /// The image was checked for this launch and is as it was built.
    image_is_good: bool,
    kvm_never_worked: bool,
    /// Where questions about the network go, if there is one.
    network: Option<network::Questions>,
    /// Its ports in networks.
    ports: Ports,
    /// Why the processes of the last launch could not be started.
    not_launched: Option<String>,
    /// The node of QEMU that each volume's disk writes to.
    nodes: Vec<String>,
    /// Layers made for this VMM so far, by which their nodes are numbered.
    layers_made: u32,
    /// The snapshot that is being taken.
    shot: Option<Shot>,
    brokers: Brokers,
    windows: Windows,
    /// Sessions whose end is recorded, as their beginning was.
    recorded: BTreeSet<u32>,
    /// That a block of the root is damaged is recorded already.
    damage_recorded: bool,
}

/// How a supervisor's work ended.
#[derive(Debug)]
pub(crate) struct Ending {
    /// How the life ended.
    pub(crate) outcome: Outcome,
    /// KVM was tried and brought no guest up.
    pub(crate) kvm_never_worked: bool,
    /// The volumes, which no process of the guest has any more.
    pub(crate) volumes: Vec<OpenVolume>,
}

/// Keeps the compartment until its life is over.
pub(crate) async fn run<'h>(
    assignment: Assignment<'h>,
    host: &'h mut LinuxHost,
    listener: UnixListener,
) -> std::io::Result<Ending> {
    let (exits, mut exited) = mpsc::unbounded_channel();
    let (events, mut happened) = mpsc::unbounded_channel();
    let (incoming, mut requested) = mpsc::unbounded_channel();
    let (checks, mut checked) = mpsc::unbounded_channel();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let numbers = Rc::new(Numbers::default());
    let own = nix::unistd::geteuid().as_raw();
    let terms = terms(&assignment.plan, assignment.plan_without_kvm.as_ref());
    let mut runtime = Runtime {
        assignment,
        life: Life::new(terms),
        started: Instant::now(),
        launches: 0,
        crew: Crew::new(host),
        orders: None,
        waiting_orders: VecDeque::new(),
        commands: None,
        requests: HashMap::new(),
        exits,
        events,
        checks,
        checks_begun: 0,
        image_is_good: false,
        kvm_never_worked: false,
        network: None,
        ports: Ports::default(),
        not_launched: None,
        nodes: Vec::new(),
        layers_made: 0,
        shot: None,
        brokers: Brokers::default(),
        windows: Windows::default(),
        recorded: BTreeSet::new(),
        damage_recorded: false,
    };
    runtime.check_image();
    runtime.launch();
    while runtime.life.outcome().is_none() {
        let deadline = runtime.life.deadline();
        tokio::select! {
            report = receive_report(runtime.orders.as_ref()) => runtime.report(report),
            Some((number, result)) = checked.recv() => runtime.image_checked(number, result),
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    let allowed = allowed(&stream, own, &runtime.assignment.users);
                    let is_own = stream.peer_cred().is_ok_and(|peer| peer.uid() == own);
                    tokio::task::spawn_local(serve::serve(
                        stream, allowed.then_some(is_own), numbers.clone(), incoming.clone(),
                    ));
                }
            }
            Some(message) = requested.recv() => runtime.incoming(message),
            Some((launch, role)) = exited.recv() => runtime.exited(launch, role),
            Some((launch, event)) = happened.recv() => {
                // Words of a VMM that was replaced mean nothing any more.
                if launch == runtime.launches {
                    runtime.tell(event);
                }
            }
            () = send_orders(runtime.orders.as_ref(), &mut runtime.waiting_orders),
                if !runtime.waiting_orders.is_empty() => {}
            () = until(deadline) => runtime.tell(Event::Deadline),
            _ = terminate.recv() => runtime.tell(Event::Terminate),
            _ = interrupt.recv() => runtime.tell(Event::Terminate),
        }
    }
    if runtime.launches == 1
        && let Some(reason) = runtime.not_launched.take()
    {
        refuse_first(&listener, reason).await;
    }
    // Let the connections pass the last answers on.
    runtime.requests.clear();
    drop(listener);
    for _ in 0..LAST_TURNS {
        tokio::task::yield_now().await;
    }
    let outcome =
        runtime.life.outcome().cloned().unwrap_or(Outcome::Stopped { why: String::new() });
    runtime.crew.stop();
    runtime.close_windows();
    runtime.settle_volumes();
    let volumes = std::mem::take(&mut runtime.assignment.volumes);
    Ok(Ending { outcome, kvm_never_worked: runtime.kvm_never_worked, volumes })
}

fn terms(plan: &Plan, without_kvm: Option<&Plan>) -> Terms {
    Terms {
        name: plan.instance.name.clone(),
        guest: plan.guest.clone(),
        boot_deadline: plan.boot_deadline,
        stop_deadline: plan.stop_deadline,
        idle_timeout: plan.idle_timeout,
        fresh: plan.instance.fresh,
        without_kvm: without_kvm.map(|plan| Box::new(terms(plan, None))),
        restart: plan.restart,
        health_check: plan.health_check.clone(),
        notes: plan.notes.clone(),
        resume: plan.resume.as_ref().map(|resume| resume.snapshot.clone()),
        memory_refused: plan.memory_refused,
    }
}

fn allowed(stream: &UnixStream, own: u32, users: &[u32]) -> bool {
    stream.peer_cred().is_ok_and(|peer| serve::may_use(peer.uid(), own, users))
}

/// Whoever started this supervisor asks it a moment later, and a start that failed at once is over
/// by then: he is told all the same.
async fn refuse_first(listener: &UnixListener, reason: String) {
    let Ok(Ok((client, _))) = tokio::time::timeout(FIRST_CLIENT, listener.accept()).await else {
        return;
    };
    if let Ok(client) = client.into_std() {
        keeper::refuse(client, &Failure::Ended { reason, hint: None });
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

async fn receive_report(
    orders: Option<&tokio::io::unix::AsyncFd<OwnedFd>>,
) -> Result<Report, OrderError> {
    let Some(orders) = orders else { return std::future::pending().await };
    loop {
        let mut guard = orders.readable().await.map_err(OrderError::Socket)?;
        match orders::receive_report(orders.as_fd()) {
            Ok(report) => return Ok(report),
            Err(error) if error.would_block() => guard.clear_ready(),
            Err(error) => return Err(error),
        }
    }
}

/// Sends what waits, as far as the link process takes it.
async fn send_orders(
    orders: Option<&tokio::io::unix::AsyncFd<OwnedFd>>,
    waiting: &mut VecDeque<(Order, Option<OwnedFd>)>,
) {
    let Some(orders) = orders else { return std::future::pending().await };
    while let Some((order, descriptor)) = waiting.front() {
        let Ok(mut guard) = orders.writable().await else { return };
        let descriptors: Vec<_> = descriptor.iter().map(AsFd::as_fd).collect();
        match orders::send(orders.as_fd(), order, &descriptors) {
            Ok(()) => drop(waiting.pop_front()),
            Err(error) if error.would_block() => guard.clear_ready(),
            // Its end is noticed elsewhere.
            Err(_) => waiting.clear(),
        }
    }
}

impl Runtime<'_> {
    /// Hashes what the guest boots from, beside the event loop: it takes a tenth of a second, in
    /// which the processes start. The VMM executes nothing before the result is there.
    fn check_image(&mut self) {
        self.image_is_good = false;
        self.checks_begun += 1;
        let number = self.checks_begun;
        let (image, checks) = (self.assignment.image.clone(), self.checks.clone());
        std::thread::spawn(move || {
            let result = image.check_boot_parts().map_err(|error| crate::chain(&error));
            // Nobody listens when the life has ended meanwhile.
            let _ = checks.send((number, result));
        });
    }

    fn launch(&mut self) {
        self.launches += 1;
        self.nodes = self.first_nodes();
        let result = self.output().map_err(|error| error.to_string()).and_then(|output| {
            self.crew
                .start(&self.assignment.plan, output, self.launches, &self.exits)
                .map_err(|error| crate::chain(&error))
        });
        match result {
            Ok(Ends { orders, monitor, memory, network, ports }) => {
                self.keep_ports(ports);
                self.network = network.map(|end| network::serve(end, &self.assignment.plan));
                self.orders = Some(orders);
                self.waiting_orders.clear();
                let (commands, receiver) = mpsc::unbounded_channel();
                self.commands = Some(commands);
                let serve = monitor::serve(monitor, receiver, self.launches, self.events.clone());
                tokio::task::spawn_local(serve);
                if self.image_is_good {
                    self.execute(monitor::Command::Continue);
                }
                self.tell(Event::Launched);
                if let Some(vmm) = memory {
                    self.read_memory(vmm);
                }
            }
            Err(reason) => {
                self.not_launched = Some(reason.clone());
                let effects = self.life.could_not_launch(reason, Instant::now());
                self.carry_out(effects);
            }
        }
    }

    /// A network that cannot be had again ends the compartment, as a guest would wait for it for good.
    fn keep_ports(&mut self, ports: Vec<(Port, AsyncFd<OwnedFd>)>) {
        let (events, launch) = (self.events.clone(), self.launches);
        self.ports = switch::keep(ports, self.crew.jail_program(), move |port, reason| {
            let how = format!("of the network `{}` has ended: {reason}", port.network);
            let event = Event::Exited(port.switch.process.role, how);
            // Nobody listens any more when the supervisor itself ends.
            let _ = events.send((launch, event));
        });
    }

    /// The guest is set up, so what was new has a file system now. It must not be made anew next
    /// time.
    fn volumes_are_formatted(&mut self) {
        for volume in &mut self.assignment.volumes {
            if let Err(error) = volume.locked.set_formatted() {
                tracing::error!("could not keep that a volume is formatted: {error}");
                let effects = self.life.give_up(
                    format!(
                        "could not keep that the volume {} is formatted: {error}",
                        volume.locked.id()
                    ),
                    Instant::now(),
                );
                return self.carry_out(effects);
            }
        }
    }

    fn image_checked(&mut self, number: u32, result: Result<(), String>) {
        match result {
            // Of a launch before this one.
            _ if number != self.checks_begun => {}
            Ok(()) => {
                self.image_is_good = true;
                self.execute(monitor::Command::Continue);
            }
            Err(what) => {
                let name = &self.assignment.image_name;
                let reason = format!(
                    "the image `{name}` is damaged: {what}\n\
                     build it anew: casemate image build --force {name}"
                );
                let effects = self.life.give_up(reason, Instant::now());
                self.carry_out(effects);
            }
        }
    }

    fn execute(&self, command: monitor::Command) {
        if let Some(commands) = &self.commands {
            // A VMM that is gone is noticed by its end.
            let _ = commands.send(command);
        }
    }

    /// What the processes say on their standard error; begun anew for each launch.
    fn output(&self) -> std::io::Result<File> {
        let path = self.assignment.log_directory.join("processes.log");
        OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&path)?;
        OpenOptions::new().append(true).open(path)
    }

    fn incoming(&mut self, message: Incoming) {
        match message {
            Incoming::Request { id, request: Request::Status, answers, .. } => {
                tracing::trace!(id, "status");
                // The client may have gone; nothing is lost then.
                let _ = answers.send(Answer::Status(Box::new(self.status())));
            }
            Incoming::Request { request: Request::Network, answers, .. } => {
                network::ask(self.network.as_ref(), answers);
            }
            Incoming::Request { id, request, descriptor, answers } => {
                self.requests.insert(id, (descriptor, answers));
                self.tell(Event::Request(id, request));
            }
            Incoming::Gone(id) => {
                self.requests.remove(&id);
                self.tell(Event::RequestGone(id));
            }
        }
    }

    fn report(&mut self, report: Result<Report, OrderError>) {
        match report {
            Ok(report) => {
                if report == Report::Ready {
                    self.volumes_are_formatted();
                }
                self.record_report(&report);
                self.tell(Event::Report(report));
            }
            Err(OrderError::Closed) => self.orders = None,
            Err(error) => {
                self.orders = None;
                let reason = format!("the link process cannot be understood: {error}");
                self.tell(Event::Report(Report::Broken { reason }));
            }
        }
    }

    fn exited(&mut self, launch: u32, role: Role) {
        if launch != self.launches {
            return;
        }
        let Some(mut how) = self.crew.exit_of(role) else { return };
        let path = self.assignment.log_directory.join("processes.log");
        let last = crate::logs::last_lines(&path, 3);
        if !last.is_empty() {
            how = format!("{how}: {}", last.join(" | "));
        }
        self.tell(Event::Exited(role, how));
    }

    fn name(&self) -> &str {
        &self.assignment.plan.instance.name
    }

    /// Sessions that another guest's call has opened are recorded only so often.
    fn record_session(&mut self, stream: u32, session: &OpenSession) {
        let guests =
            |service: &casemate_wire::Service| service.source != casemate_wire::Service::HOST;
        if !session.service.as_ref().is_some_and(guests) || self.brokers.admit() {
            self.recorded.insert(stream);
            self.assignment.audit.write(&audit::session(self.name(), stream, session));
        }
    }

    /// Of what the guest says only what it can say once is recorded.
    fn record_report(&mut self, report: &Report) {
        let is_new = match report {
            Report::Ended { stream, .. } => self.recorded.remove(stream),
            Report::RootDamaged { .. } => !std::mem::replace(&mut self.damage_recorded, true),
            _ => true,
        };
        if let Some(event) = audit::reported(self.name(), report).filter(|_| is_new) {
            self.assignment.audit.write(&event);
        }
    }

    fn tell(&mut self, event: Event) {
        let effects = self.life.handle(event, Instant::now());
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Order(order, request) => {
                    if let Order::Open { stream, session } = &order {
                        self.record_session(*stream, session);
                    }
                    let descriptor = request
                        .and_then(|id| self.requests.get_mut(&id))
                        .and_then(|(descriptor, _)| descriptor.take());
                    self.order(order, descriptor);
                }
                Effect::SendBoot(boot) => self.send_boot(boot),
                Effect::OpenDetached(stream, session) => {
                    self.record_session(stream, &session);
                    self.open_with_log(stream, session, &format!("session-{stream}.log"));
                }
                Effect::Execute(run) => {
                    let command =
                        if run { monitor::Command::Continue } else { monitor::Command::Stop };
                    if run {
                        let nanoseconds = casemate_host::clock::now_ns();
                        self.order(Order::SetClock { nanoseconds }, None);
                    }
                    self.execute(command);
                }
                Effect::Kill => self.crew.kill(),
                Effect::Progress(id, progress) => {
                    if let Some((_, answers)) = self.requests.get(&id) {
                        let _ = answers.send(Answer::Progress(progress));
                    }
                }
                Effect::Reply(id, result) => {
                    let result = result.map_err(|failure| self.with_console(failure));
                    if let Some((_, answers)) = self.requests.remove(&id) {
                        let _ = answers.send(Answer::Done(result));
                    }
                }
                Effect::OpenCheck(stream, session) => {
                    self.open_with_log(stream, session, "health.log");
                }
                Effect::ClearUp => self.clear_up(),
                Effect::Relaunch => self.relaunch(),
                Effect::RelaunchWithoutKvm => self.relaunch_without_kvm(),
                Effect::Log(true, text) => tracing::warn!("{text}"),
                Effect::Log(false, text) => tracing::info!("{text}"),
                Effect::PrepareSnapshot { number, name, memory } => {
                    self.prepare_snapshot(number, &name, memory);
                }
                Effect::WriteMemory { number } => self.write_memory(number),
                Effect::Resumed => self.resumed(),
                // When it is not, it goes on with the result of the check.
                Effect::GoOn if self.image_is_good => self.execute(monitor::Command::Continue),
                Effect::GoOn => {}
                Effect::SwitchLayers { number } => self.switch_layers(number),
                Effect::KeepSnapshot { number } => self.keep_snapshot(number),
                Effect::DropSnapshot { number } => self.drop_snapshot(number),
                Effect::Decide { call, target, service } => self.decide(call, &target, &service),
                Effect::ConnectCall { stream, call } => self.connect_call(stream, call),
                Effect::ForgetCall { call } => self.forget_call(call),
                Effect::UseDisplay(display) => self.use_display(display),
                Effect::OpenWindows { window } => self.open_windows(window),
                Effect::ShowWindows { stream, window } => self.show_windows(stream, window),
            }
        }
    }

    /// A failure of the guest with the end of what it wrote to its console, which often says why.
    fn with_console(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Ended { mut reason, hint: None } if self.life.has_failed() => {
                let path = self.assignment.log_directory.join("console.log");
                for line in crate::logs::last_lines(&path, CONSOLE_LINES) {
                    reason.push_str("\nconsole: ");
                    reason.push_str(&line);
                }
                let kept = !self.assignment.plan.instance.fresh;
                let name = &self.assignment.plan.instance.name;
                let hint = kept.then(|| format!("more of it: casemate logs {name} --console"));
                Failure::Ended { reason, hint }
            }
            other => other,
        }
    }

    /// Runs a command whose output goes to a new file in the log directory.
    fn open_with_log(&mut self, stream: u32, session: Box<OpenSession>, file: &str) {
        let path = self.assignment.log_directory.join(file);
        let log =
            OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&path);
        match log {
            Ok(log) => self.order(Order::Open { stream, session }, Some(log.into())),
            Err(error) => {
                tracing::warn!("could not make {}: {error}", path.display());
                let report = Report::Ended {
                    stream,
                    status: Some(casemate_wire::ExitStatus::AgentFailed {
                        reason: format!("could not make its log: {error}"),
                    }),
                };
                // Not `tell`: the effects of this round come first.
                let _ = self.events.send((self.launches, Event::Report(report)));
            }
        }
    }

    fn clear_up(&mut self) {
        self.crew.stop();
        self.close_windows();
        self.shot = None;
        self.settle_volumes();
        self.orders = None;
        self.commands = None;
        self.network = None;
        self.ports = Ports::default();
        self.waiting_orders.clear();
    }

    fn relaunch(&mut self) {
        match self.replan() {
            Ok(()) => {
                self.check_image();
                self.launch();
            }
            Err(reason) => {
                let reason = format!("could not plan the next start: {reason}");
                let effects = self.life.give_up(reason, Instant::now());
                self.carry_out(effects);
            }
        }
    }

    /// Plans again for the layers that the volumes have now: a snapshot may have been taken of them,
    /// and what it keeps is not to be written to.
    fn replan(&mut self) -> Result<(), String> {
        let parts = self.assignment.volumes.iter().map(OpenVolume::parts);
        let parts = parts.collect::<Result<_, _>>().map_err(|error| crate::chain(&error))?;
        self.assignment.request.volumes = parts;
        self.assignment.request.resume = None;
        let (plan, without_kvm) = prepare::plans(&self.assignment.request, &self.assignment.facts)
            .map_err(|error| crate::chain(&error))?;
        (self.assignment.plan, self.assignment.plan_without_kvm) = match without_kvm {
            Some(without_kvm) if self.kvm_never_worked => (without_kvm, None),
            without_kvm => (plan, without_kvm),
        };
        Ok(())
    }

    fn relaunch_without_kvm(&mut self) {
        self.kvm_never_worked = true;
        self.clear_up();
        if let Some(plan) = self.assignment.plan_without_kvm.take() {
            self.assignment.plan = plan;
        }
        self.launch();
    }

    fn send_boot(&mut self, mut boot: Box<Boot>) {
        match casemate_host::random::seed() {
            Ok(seed) => boot.seed = seed.to_vec(),
            Err(error) => tracing::warn!("the guest gets no random seed: {error}"),
        }
        boot.clock = casemate_host::clock::now_ns();
        for (mount, volume) in boot.volumes.iter_mut().zip(&self.assignment.volumes) {
            mount.key = Key::new(volume.key.bytes());
            // Formatted once, though the guest is set up again.
            mount.blank = volume.locked.is_blank();
        }
        for (write, secret) in boot.secrets.iter_mut().zip(&self.assignment.secrets) {
            debug_assert_eq!(write.name, secret.name.as_str());
            write.content = Key::new(secret.content.bytes());
        }
        self.order(Order::Boot(boot), None);
    }

    fn order(&mut self, order: Order, descriptor: Option<OwnedFd>) {
        let Some(orders) = &self.orders else { return };
        if self.waiting_orders.is_empty() {
            let descriptors: Vec<_> = descriptor.iter().map(AsFd::as_fd).collect();
            match orders::send(orders.get_ref().as_fd(), &order, &descriptors) {
                Err(error) if error.would_block() => {}
                Err(OrderError::Malformed(_)) => return self.order_too_long(&order),
                // Its end is noticed elsewhere.
                _ => return,
            }
        }
        if self.waiting_orders.len() >= ORDER_LIMIT {
            tracing::warn!("the link process does not take orders; killed");
            self.crew.kill();
            return;
        }
        self.waiting_orders.push_back((order, descriptor));
    }

    /// An order that no agent would take: whoever it was for is told.
    fn order_too_long(&mut self, order: &Order) {
        let report = match order {
            Order::Open { stream, .. } => Report::Ended {
                stream: *stream,
                status: Some(casemate_wire::ExitStatus::AgentFailed {
                    reason: "the command is too long".into(),
                }),
            },
            _ => Report::BootFailed {
                reason: "what `guest` asks for is too long; make its files smaller".into(),
            },
        };
        // Not `tell`: the effects of this round come first.
        let _ = self.events.send((self.launches, Event::Report(report)));
    }

    fn status(&self) -> Status {
        let (agent, kernel) = self.life.agent().cloned().unzip();
        let (restarts, last_end) = self.life.restarts();
        Status {
            name: self.assignment.plan.instance.name.clone(),
            state: self.life.state().into(),
            uptime: self.started.elapsed().as_secs(),
            acceleration: self.assignment.plan.acceleration.into(),
            supervisor_pid: std::process::id(),
            processes: self.crew.status().into_iter().chain(self.windows.status()).collect(),
            image: self.assignment.image.digest.to_string(),
            agent,
            kernel,
            sessions: self.life.sessions(Instant::now()),
            notes: self.life.notes().to_vec(),
            health: self.life.health().map(str::to_owned),
            restarts,
            last_end: last_end.map(str::to_owned),
        }
    }
}
