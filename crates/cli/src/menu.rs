//! `casemate menu`: a compartment's applications in the user's own menu.
//!
//! ```text
//! guest: agent --send-menu ══ session ══▶ `casemate take menu` ─ lines, pixels ─▶ here ─▶ files
//! ```
//! What a guest says is read by a process that can do nothing else ([`take`]). Its reports are held
//! against the same rules again, and the frame around each picture is drawn here.

pub(crate) mod follow;
mod place;
pub(crate) mod take;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use casemate_audit::Event;
use casemate_config::{Compartment, CompartmentName};
use casemate_menu::limits::MAX_APPLICATIONS;
use casemate_menu::{Application, Entry, icon};
use casemate_supervise::control::{self, Request, Status};
use casemate_supervise::prepare::{PrepareError, Target, World};
use casemate_wire::text::harmless_line;
use serde::Serialize;

use crate::arguments::Menu;
use crate::failure::Problem;
use crate::files::taker::{Report, Taker, What};
use crate::files::{AGENT, session};
use crate::{audit, event_loop, lifecycle, print_json, run, running};
use place::{Changes, New, Place, Shown, State};

/// What makes the agent's program tell the applications.
const SEND_MENU: &str = "--send-menu";

/// Notes about one compartment that are shown; a guest could make a thousand.
const MAX_NOTES: usize = 20;

/// Runs one of its commands.
///
/// # Errors
/// A guest does not answer, a file cannot be written or is somebody else's.
pub(crate) fn menu(world: &World, command: &Menu, verbose: bool) -> Result<u8, Problem> {
    match command {
        Menu::Sync { follow: true, names } => {
            lifecycle::each(names, |name| sync_by_itself(world, name))
        }
        Menu::Sync { follow: false, names } => {
            lifecycle::each(names, |name| sync(world, name, verbose))
        }
        Menu::List { name, json } => list(world, name.as_deref(), *json),
        Menu::Remove { names } => lifecycle::each(names, |name| remove(world, name)),
    }
}

/// The compartment, and where its entries lie. None when it is declared no more and its entries are
/// removed.
fn compartment<'w>(
    world: &'w World,
    place: &Place,
    name: &str,
) -> Result<Option<&'w Compartment>, Problem> {
    match world.compartment(name) {
        Ok(compartment) => {
            same_config(world, place, name)?;
            Ok(Some(compartment))
        }
        Err(PrepareError::Unknown { .. }) if is_synced(place, name)? => {
            same_config(world, place, name)?;
            let _lock = place.lock(name, true)?;
            let removed = place.remove(name)?;
            eprintln!("note: `{name}` is not declared any more; {}", entries(removed, "removed"));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Entries start what one configuration declares: those of a compartment that another one declares under the
/// same name are not replaced by the way.
fn same_config(world: &World, place: &Place, name: &str) -> Result<(), Problem> {
    if name.parse::<CompartmentName>().is_err() {
        return Ok(());
    }
    let Some(state) = place.state(name)? else { return Ok(()) };
    if state.config == follow::config(world)? {
        return Ok(());
    }
    let whose = match &state.config {
        Some(path) => harmless_line(&path.display().to_string(), 1024),
        None => "the usual configuration".into(),
    };
    Err(Problem::new(format!("the menu has a `{name}` of {whose}"))
        .hint(format!("run first: casemate menu remove {name}")))
}

fn is_synced(place: &Place, name: &str) -> Result<bool, Problem> {
    // It becomes the name of a folder.
    Ok(name.parse::<CompartmentName>().is_ok() && place.state(name)?.is_some())
}

fn sync(world: &World, name: &str, verbose: bool) -> Result<(), Problem> {
    let place = Place::of(world)?;
    let Some(compartment) = compartment(world, &place, name)? else { return Ok(()) };
    // Before a guest runs for nothing.
    let program = program()?;
    let state = State { config: follow::config(world)?, ..State::default() };
    let words = command(&program, &state, compartment, "id")?;
    let icon = place.icon(name, "id");
    if !Entry::can_have(&words, &icon) {
        return Err(unnameable(&format!("{} or {}", words.join(" "), icon.display())));
    }
    let _lock = match place.lock(name, false)? {
        Some(lock) => Some(lock),
        None => {
            eprintln!("note: the menu of `{name}` is being synced already; waiting for that");
            place.lock(name, true)?
        }
    };
    let target = match compartment.disposable_template {
        true => run::fresh(world, name)?,
        false => Target::Declared(name.into()),
    };
    let socket = session::open(world, &target, &wanted(), verbose)?;
    let fetched = fetch(world, &target, &socket)?;
    drop(socket);
    fetched.say_notes(name);
    let changes = put(world, &place, compartment, &program, fetched)?;
    outln!("{name}: {}", summary(&changes));
    let Changes { strangers, .. } = &changes;
    if strangers.is_empty() {
        return Ok(());
    }
    let what = format!("{} of `{name}` have no place in the menu", strangers.len());
    let mut problem = Problem::new(what).hint("move these files away, then sync again");
    problem.causes = strangers
        .iter()
        .map(|path| format!("{} is not of `{name}`, and stays", path.display()))
        .collect();
    Err(problem)
}

/// The same without anybody to tell: never starts a compartment, and a fresh disposable only once for
/// each image.
fn sync_by_itself(world: &World, name: &str) -> Result<(), Problem> {
    let place = Place::of(world)?;
    let compartment = world.compartment(name)?;
    let Some(_lock) = place.lock(name, false)? else { return Ok(()) };
    let Some(state) = place.state(name)? else { return Ok(()) };
    let (target, socket) = if compartment.disposable_template {
        // What runs already may be anybody's by now, and is not asked.
        let tried = follow::current_image(world, compartment)?;
        place.keep(name, &State { tried, ..state })?;
        let target = run::fresh(world, name)?;
        let socket = session::open(world, &target, &wanted(), false)?;
        (target, socket)
    } else {
        let target = Target::Declared(name.into());
        match session::open_if_running(world, &target, &wanted())? {
            Some(socket) => (target, socket),
            None => return Ok(()),
        }
    };
    let program = program()?;
    let fetched = fetch(world, &target, &socket)?;
    put(world, &place, compartment, &program, fetched).map(drop)
}

fn wanted() -> control::Run {
    control::Run { argv: vec![AGENT.into(), SEND_MENU.into()], ..control::Run::default() }
}

/// What a guest has, as it may be shown.
struct Fetched {
    /// Digest of the image it runs.
    image: String,
    /// Each with the pixels of its picture.
    applications: Vec<(Application, Option<Vec<u8>>)>,
    /// About what is left out, and how many more there were.
    notes: Vec<String>,
    more: usize,
}

impl Fetched {
    fn say_notes(&self, name: &str) {
        for note in &self.notes {
            eprintln!("note: {name}: {}", harmless_line(note, 512));
        }
        if self.more > 0 {
            eprintln!("note: {name}: and {} more like these", self.more);
        }
    }

    fn note(&mut self, note: String) {
        match self.notes.len() < MAX_NOTES {
            true => self.notes.push(note),
            false => self.more += 1,
        }
    }
}

fn fetch(world: &World, target: &Target, socket: &UnixStream) -> Result<Fetched, Problem> {
    let name = target.name();
    let file = tempfile::tempfile()?;
    let mut taker = Taker::start(&What::Menu, socket, Some(file.try_clone()?))?;
    let mut fetched =
        Fetched { image: String::new(), applications: vec![], notes: vec![], more: 0 };
    let (mut pictures, mut ids) = (0, BTreeSet::new());
    let wrong = || Problem::new("the receiver failed").hint("this is a bug of casemate");
    let done = loop {
        match taker.next()? {
            Some(Report::Application { application, icon }) => {
                let count = fetched.applications.len();
                if count >= MAX_APPLICATIONS as usize {
                    return Err(wrong());
                }
                let pixels = if icon { Some(pixels(&file, &mut pictures)?) } else { None };
                let id = application.id.to_ascii_lowercase();
                if !application.is_sound() || !ids.insert(id) {
                    fetched.note("an application that the receiver should not have shown".into());
                    continue;
                }
                fetched.applications.push((*application, pixels));
            }
            Some(Report::Note(note)) => fetched.note(note),
            Some(Report::Done(done)) => break done,
            Some(Report::Progress { .. } | Report::Reply(_)) => return Err(wrong()),
            None => {
                let ended = taker.vanished();
                let causes = [vec![ended.what], ended.causes].concat();
                let problem = Problem::new(format!("`{name}` did not tell its applications"));
                return Err(Problem { causes, ..problem }.hint(format!(
                    "the menu is as it was; a guest has {} s to tell them",
                    take::TIME
                )));
            }
        }
    };
    if !done.came {
        let problem = Problem::new(format!("`{name}` did not tell its applications"));
        let causes = [done.problem.unwrap_or_default(), done.said];
        let causes = causes.into_iter().filter(|text| !text.is_empty());
        let causes = causes.map(|text| harmless_line(text.trim_end(), 1024)).collect();
        return Err(Problem { causes, ..problem }.hint("the menu is as it was"));
    }
    fetched.image = image_of(world, target)?;
    Ok(fetched)
}

/// Digest of the image that a guest has run. One that runs longer may have an older one than is current; a
/// fresh disposable was just started, and has ended with its session.
fn image_of(world: &World, target: &Target) -> Result<String, Problem> {
    if let Target::Declared(name) = target {
        let status = event_loop()?.block_on(async {
            match running::supervisor(world, name)? {
                Some(mut supervisor) => supervisor.ask::<Status>(&Request::Status).await.map(Some),
                None => Ok(None),
            }
        });
        if let Ok(Some(status)) = status {
            return Ok(status.image);
        }
    }
    follow::current_image(world, world.compartment(target.declared())?)
}

/// The next picture of the file that the receiver writes.
fn pixels(file: &File, pictures: &mut u64) -> Result<Vec<u8>, Problem> {
    let mut pixels = vec![0; icon::PIXELS];
    file.read_exact_at(&mut pixels, *pictures * icon::PIXELS as u64)?;
    *pictures += 1;
    Ok(pixels)
}

/// Makes the entries what was fetched.
fn put(
    world: &World,
    place: &Place,
    compartment: &Compartment,
    program: &Path,
    fetched: Fetched,
) -> Result<Changes, Problem> {
    let name = compartment.name.as_str();
    let mut state = place.state(name)?.unwrap_or_default();
    // Whoever sees it now knows that it is not done.
    state.image.clear();
    state.config = follow::config(world)?;
    place.keep(name, &state)?;
    let color = [compartment.color.red, compartment.color.green, compartment.color.blue];
    let (mut new, mut shown) = (Vec::new(), Vec::new());
    for (application, pixels) in &fetched.applications {
        let command = command(program, &state, compartment, &application.id)?;
        let icon = place.icon(name, &application.id);
        let known_windows = !compartment.disposable_template;
        let (command, icon) = (&command[..], &icon);
        let entry = Entry { compartment: name, application, command, icon, known_windows };
        let text = entry.text().ok_or_else(|| unnameable(&icon.display().to_string()))?;
        let pixels = pixels.clone().unwrap_or_else(|| icon::blank(color));
        let icon = icon::encode(&pixels, color);
        let icon = icon.ok_or_else(|| Problem::new("could not write a picture as PNG"))?;
        new.push(New { id: application.id.clone(), text, icon });
        let name = application.names.first().map(|name| name.text.clone());
        shown.push(Shown { id: application.id.clone(), name: name.unwrap_or_default() });
    }
    let changes = place.write(name, &new)?;
    state.image = fetched.image;
    shown.retain(|one| !changes.strangers.contains(&place.entry(name, &one.id)));
    let count = shown.len();
    state.applications = shown;
    place.keep(name, &state)?;
    audit::note(world, Event::of(name, "menu").with("entries", count));
    Ok(changes)
}

/// What an entry starts.
fn command(
    program: &Path,
    state: &State,
    compartment: &Compartment,
    id: &str,
) -> Result<Vec<String>, Problem> {
    let text = |path: &Path| {
        let text = path.to_str().map(str::to_owned);
        text.ok_or_else(|| unnameable(&path.display().to_string()))
    };
    let mut words = vec![text(program)?];
    if let Some(config) = &state.config {
        words.extend(["--config".into(), text(config)?]);
    }
    let target = match compartment.disposable_template {
        true => format!("@dispvm:{}", compartment.name),
        false => compartment.name.to_string(),
    };
    words.extend(["call".into(), target, format!("casemate.StartApp+{id}")]);
    Ok(words)
}

fn unnameable(path: &str) -> Problem {
    Problem::new(format!("could not write {} into a desktop file", harmless_line(path, 1024)))
        .hint("paths in it are UTF-8 without control characters")
}

/// This program, by the path that will still be right after an update: where the user finds it.
fn program() -> Result<PathBuf, Problem> {
    let own = std::env::current_exe()?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join("casemate"))
        .find(|path| path.canonicalize().is_ok_and(|found| found == own));
    let program = found.unwrap_or(own);
    // It may have been replaced since this process began.
    match program.exists() {
        true => Ok(program),
        false => Err(Problem::new("casemate was replaced meanwhile").hint("run it again")),
    }
}

fn entries(count: u32, what: &str) -> String {
    match count {
        1 => format!("1 entry is {what}"),
        _ => format!("{count} entries are {what}"),
    }
}

fn summary(changes: &Changes) -> String {
    let Changes { new, changed, removed, .. } = changes;
    match (new, changed, removed) {
        (0, 0, 0) => "the menu is as it was".into(),
        _ => format!("{new} new, {changed} changed, {removed} removed"),
    }
}

fn remove(world: &World, name: &str) -> Result<(), Problem> {
    let place = Place::of(world)?;
    if !is_synced(&place, name)? {
        return Err(Problem::new(format!("nothing of `{name}` is in the menu"))
            .hint("`casemate menu list` shows what is"));
    }
    let _lock = place.lock(name, true)?;
    let removed = place.remove(name)?;
    audit::note(world, Event::of(name, "menu").with("entries", 0));
    outln!("{name}: {}", entries(removed, "removed"));
    Ok(())
}

/// A compartment's part of the menu.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Row {
    compartment: String,
    /// The configuration has it.
    declared: bool,
    /// It is of the image that the compartment would start with.
    current: bool,
    applications: Vec<Line>,
}

/// An entry.
#[derive(Debug, Serialize)]
struct Line {
    id: String,
    name: String,
    file: PathBuf,
}

fn list(world: &World, name: Option<&str>, json: bool) -> Result<u8, Problem> {
    let place = Place::of(world)?;
    if let Some(name) = name
        && !is_synced(&place, name)?
    {
        world.compartment(name)?;
        return Err(Problem::new(format!("nothing of `{name}` is in the menu"))
            .hint(format!("run: casemate menu sync {name}")));
    }
    let mut rows = Vec::new();
    for compartment in name.map_or_else(|| place.names(), |name| vec![name.into()]) {
        let Some(state) = place.state(&compartment)? else { continue };
        let declared = world.compartment(&compartment).is_ok();
        let current = follow::is_current(world, &compartment, &state);
        let applications = state.applications.into_iter().map(|Shown { id, name }| {
            let file = place.entry(&compartment, &id);
            Line { id, name, file }
        });
        let applications = applications.filter(|line| line.file.exists()).collect();
        rows.push(Row { compartment, declared, current, applications });
    }
    if json {
        return print_json(&rows);
    }
    if rows.is_empty() {
        outln!("nothing of any compartment is in the menu");
    }
    for Row { compartment, declared, current, applications } in rows {
        let how = match (declared, current) {
            (false, _) => " (not declared any more)",
            (true, false) => " (its image has changed since)",
            (true, true) => "",
        };
        outln!("{compartment}{how}");
        for Line { id, name, .. } in applications {
            outln!("  {name} ({id})");
        }
    }
    Ok(0)
}
