//! `casemate secret`: files encrypted with age that a compartment is given opened.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use casemate_audit::Event;
use casemate_config::{Compartment, Secret, SecretName};
use casemate_supervise::prepare::World;
use casemate_volume::{KeyError, Unlock, age};

use crate::arguments::{Json, Secret as Command};
use crate::desk::Desk;
use crate::failure::Problem;
use crate::{audit, passphrase, print_json, volume};

/// `casemate secret …`.
pub(crate) fn secret(world: &World, command: &Command) -> Result<u8, Problem> {
    match command {
        Command::List(form) => list(world, *form),
        Command::Set { secret } => set(world, secret),
        Command::Edit { secret } => edit(world, secret),
        Command::Rekey { names, from } => rekey(world, names, from.as_deref()),
    }
}

fn list(world: &World, form: Json) -> Result<u8, Problem> {
    let compartments = world.settings().compartments.values();
    let secrets: Vec<_> = compartments
        .flat_map(|one| one.secrets.iter().map(move |(name, secret)| (one, name, secret)))
        .collect();
    if form.json {
        let mut rows = Vec::new();
        for (compartment, name, secret) in secrets {
            rows.push(serde_json::json!({
                "compartment": compartment.name.to_string(),
                "secret": name.to_string(),
                "file": secret.file.display().to_string(),
                "there": secret.file.exists(),
            }));
        }
        return print_json(&rows);
    }
    if secrets.is_empty() {
        outln!("no secrets are declared");
    }
    for (compartment, name, secret) in secrets {
        let state = if secret.file.exists() { "" } else { "  (not there)" };
        outln!("{}/{name}  {}{state}", compartment.name, secret.file.display());
    }
    Ok(0)
}

/// What opens a compartment's secrets: the identity, and the passphrase once it was asked for.
struct Keys {
    identity: PathBuf,
    typed: Option<casemate_volume::Secret>,
}

impl Keys {
    fn of(world: &World, compartment: &Compartment) -> Result<Self, Problem> {
        Ok(Self { identity: world.secrets_identity(compartment)?.0, typed: None })
    }

    /// Does it, and asks for the passphrase that it needs.
    fn with<T>(
        &mut self,
        what: &str,
        act: impl Fn(&Unlock<'_>) -> Result<T, KeyError>,
    ) -> Result<T, Problem> {
        let mut wrong = 0;
        loop {
            let unlock = Unlock { passphrase: self.typed.as_ref(), identity: &self.identity };
            match act(&unlock) {
                Err(KeyError::Wrong(_)) if wrong < 2 => wrong += 1,
                Err(KeyError::PassphraseNeeded(_)) if self.typed.is_none() => {}
                other => {
                    return other.map_err(|error| {
                        let problem = Problem::new(format!("could not {what}")).because(&error);
                        match error {
                            KeyError::WrongIdentity { .. } => problem.hint(
                                "if you have the identity that it was encrypted to: casemate secret \
                                 rekey --from FILE",
                            ),
                            _ => problem,
                        }
                    });
                }
            }
            let passphrase = passphrase::passphrase(&self.identity.display().to_string(), false)?;
            self.typed = Some(casemate_volume::Secret::new(passphrase.into_bytes()));
        }
    }
}

/// The declared secret that is called so on the command line.
fn declared<'a>(
    world: &'a World,
    text: &str,
) -> Result<(&'a Compartment, SecretName, &'a Secret), Problem> {
    let (compartment, name): (_, SecretName) = volume::of_compartment(text, "secret")?;
    let found = world.compartment(compartment.as_str())?;
    let secret = found.secrets.get(&name).ok_or_else(|| {
        Problem::new(format!("compartment `{compartment}` declares no secret `{name}`"))
            .hint(format!("add [compartment.{compartment}.secrets.{name}] with its `file`"))
    })?;
    Ok((found, name, secret))
}

fn fits(content: &casemate_volume::Secret) -> Result<(), Problem> {
    let most = age::MOST_SECRET;
    match content.bytes().len() {
        length if (1..=most).contains(&length) => Ok(()),
        _ => Err(Problem::new(format!("a secret has 1 byte to {} KiB", most / 1024))
            .hint("give larger ones by a volume or a share")),
    }
}

fn set(world: &World, text: &str) -> Result<u8, Problem> {
    let (compartment, name, secret) = declared(world, text)?;
    let content = if std::io::stdin().is_terminal() {
        casemate_volume::Secret::new(passphrase::secret(text)?.into_bytes())
    } else {
        let mut bytes = Vec::with_capacity(age::MOST_SECRET + 1);
        std::io::stdin().lock().take(age::MOST_SECRET as u64 + 1).read_to_end(&mut bytes)?;
        casemate_volume::Secret::new(bytes)
    };
    fits(&content)?;
    let what = format!("write the secret {text}");
    Keys::of(world, compartment)?
        .with(&what, |unlock| age::write(&secret.file, &content, unlock))?;
    note(world, compartment, "secret-set", &name);
    Ok(0)
}

fn edit(world: &World, text: &str) -> Result<u8, Problem> {
    let (compartment, name, secret) = declared(world, text)?;
    let mut keys = Keys::of(world, compartment)?;
    let before = match secret.file.exists() {
        true => Some(keys.with(&format!("open the secret {text}"), |unlock| {
            age::decrypt(&secret.file, unlock)
        })?),
        false => None,
    };
    let bytes = before.as_ref().map_or(&[][..], casemate_volume::Secret::bytes);
    let desk = Desk::new(world, name.as_str(), bytes)?;
    desk.edit()?;
    let mut after = desk.content()?;
    // What editors add to a last line that has no end.
    if !bytes.is_empty() && !bytes.ends_with(b"\n") {
        let text = after.bytes();
        after = casemate_volume::Secret::copied(text.strip_suffix(b"\n").unwrap_or(text));
    }
    if after.bytes() == bytes {
        eprintln!("note: nothing was changed");
        return Ok(0);
    }
    fits(&after)?;
    let what = format!("write the secret {text}");
    keys.with(&what, |unlock| age::write(&secret.file, &after, unlock))?;
    note(world, compartment, "secret-set", &name);
    Ok(0)
}

fn rekey(world: &World, names: &[String], from: Option<&Path>) -> Result<u8, Problem> {
    let compartments: Vec<&Compartment> = match names {
        [] => world.settings().compartments.values().collect(),
        names => names.iter().map(|name| world.compartment(name)).collect::<Result<_, _>>()?,
    };
    // All are opened before the first is written: one that cannot be leaves the others as they are.
    let mut opened = Vec::new();
    for compartment in compartments {
        let mut keys = Keys::of(world, compartment)?;
        if let Some(from) = from {
            keys.identity = from.to_owned();
        }
        for (name, secret) in &compartment.secrets {
            let text = format!("{}/{name}", compartment.name);
            if !secret.file.exists() {
                eprintln!("note: {text} is not there yet: {}", secret.file.display());
                continue;
            }
            let content = keys
                .with(&format!("open the secret {text}; nothing was written"), |unlock| {
                    age::decrypt(&secret.file, unlock)
                })?;
            opened.push((compartment, name, secret, content));
        }
    }
    let mut keys: Option<(&Compartment, Keys)> = None;
    for (compartment, name, secret, content) in &opened {
        let text = format!("{}/{name}", compartment.name);
        // One question for each compartment is enough.
        let keys = match keys.take() {
            Some((of, own)) if of.name == compartment.name => keys.insert((of, own)),
            _ => keys.insert((compartment, Keys::of(world, compartment)?)),
        };
        keys.1.with(&format!("write the secret {text}"), |unlock| {
            age::write(&secret.file, content, unlock)
        })?;
        note(world, compartment, "secret-rekeyed", name);
        outln!("{text}");
    }
    if opened.is_empty() {
        eprintln!("note: there are no secrets");
    }
    Ok(0)
}

fn note(world: &World, compartment: &Compartment, kind: &'static str, name: &SecretName) {
    let event = Event::of(compartment.name.as_str(), kind).with("secret", name.as_str());
    audit::note(world, event);
}
