//! `casemate secret`: files encrypted with age that a compartment is given opened.

use std::io::{IsTerminal, Read};

use casemate_audit::Event;
use casemate_config::SecretName;
use casemate_supervise::prepare::World;
use casemate_volume::{KeyError, Unlock, age};

use crate::arguments::{Json, Secret};
use crate::failure::Problem;
use crate::{audit, passphrase, print_json, volume};

/// `casemate secret …`.
pub(crate) fn secret(world: &World, command: &Secret) -> Result<u8, Problem> {
    match command {
        Secret::List(form) => list(world, *form),
        Secret::Set { secret } => set(world, secret),
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

fn set(world: &World, text: &str) -> Result<u8, Problem> {
    let (compartment, name): (_, SecretName) = volume::of_compartment(text, "secret")?;
    let secrets = &world.compartment(compartment.as_str())?.secrets;
    let declared = secrets.get(&name).ok_or_else(|| {
        Problem::new(format!("compartment `{compartment}` declares no secret `{name}`"))
            .hint(format!("add [compartment.{compartment}.secrets.{name}] with its `file`"))
    })?;
    let content = if std::io::stdin().is_terminal() {
        casemate_volume::Secret::new(passphrase::secret(text)?.into_bytes())
    } else {
        let mut bytes = Vec::with_capacity(age::MOST_SECRET + 1);
        std::io::stdin().lock().take(age::MOST_SECRET as u64 + 1).read_to_end(&mut bytes)?;
        casemate_volume::Secret::new(bytes)
    };
    if content.bytes().is_empty() || content.bytes().len() > age::MOST_SECRET {
        let most = age::MOST_SECRET / 1024;
        return Err(Problem::new(format!("a secret has 1 byte to {most} KiB"))
            .hint("give larger ones by a volume or a share"));
    }
    let identity = world.identity()?;
    let mut typed = None;
    loop {
        let unlock = Unlock { passphrase: typed.as_ref(), identity: &identity };
        match age::write(&declared.file, &content, &unlock) {
            Err(KeyError::PassphraseNeeded(_)) => {
                let passphrase = passphrase::passphrase("the age identity", false)?;
                typed = Some(casemate_volume::Secret::new(passphrase.into_bytes()));
            }
            Err(error) => {
                return Err(
                    Problem::new(format!("could not write the secret {text}")).because(&error)
                );
            }
            Ok(()) => {
                let (compartment, name) = text.split_once('/').unwrap_or((text, ""));
                audit::note(world, Event::of(compartment, "secret-set").with("secret", name));
                return Ok(0);
            }
        }
    }
}
