//! What a policy is judged by beside the call: the compartments there are, and what they are.
//!
//! The configuration gives the declared ones; whoever starts disposables adds those.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;

use crate::token::{Token, Uuid};

/// A compartment as a policy sees it, or the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compartment {
    /// Its name.
    pub name: String,
    /// Its UUID, where it has one.
    pub uuid: Option<Uuid>,
    /// What `@tag:` matches.
    pub tags: BTreeSet<String>,
    /// What `@type:` matches.
    pub compartment_type: String,
    /// Whether it is up: what a rule with `autostart=no` asks.
    pub running: bool,
    /// Whether fresh disposables may be made from it.
    pub disposable_template: bool,
    /// What `@dispvm` means for its calls.
    pub default_disposable: Option<String>,
    /// Whether it is left out of what a question offers.
    pub internal: bool,
    /// The template it is a fresh disposable of: what `@dispvm:NAME` matches in the column SOURCE.
    pub made_from: Option<String>,
}

/// Every compartment, and the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct System {
    host: Compartment,
    compartments: Vec<Compartment>,
    by_name: HashMap<String, usize>,
    by_uuid: HashMap<Uuid, usize>,
}

/// Why a description of a system could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    /// It is not JSON of this form.
    #[error("could not read the description of the system")]
    Json(#[from] serde_json::Error),
    /// A compartment's UUID is none.
    #[error("could not read the UUID of `{0}`")]
    Uuid(String, #[source] casemate_config::Flaw),
}

/// One compartment in the JSON form.
#[derive(Deserialize)]
struct Described {
    #[serde(default)]
    tags: BTreeSet<String>,
    #[serde(default, rename = "type")]
    compartment_type: String,
    #[serde(default)]
    default_dispvm: Option<String>,
    #[serde(default)]
    template_for_dispvms: bool,
    #[serde(default)]
    power_state: String,
    #[serde(default)]
    internal: bool,
    #[serde(default)]
    uuid: Option<String>,
    #[serde(default)]
    made_from: Option<String>,
}

/// What qrexec's own daemon answers has the table under this key.
#[derive(Deserialize)]
#[serde(untagged)]
enum Form {
    Wrapped { domains: BTreeMap<String, Described> },
    Plain(BTreeMap<String, Described>),
}

impl System {
    /// The host of type `AdminVM`, without tags, and these compartments. Of two of one name the
    /// first counts.
    pub fn new(compartments: impl IntoIterator<Item = Compartment>) -> Self {
        let host = Compartment {
            name: "dom0".into(),
            uuid: Some(Uuid::HOST),
            compartment_type: "AdminVM".into(),
            running: true,
            ..Compartment::default()
        };
        let mut system = Self { host, ..Self::default() };
        for compartment in compartments {
            if system.by_name.contains_key(&compartment.name) {
                continue;
            }
            let index = system.compartments.len();
            system.by_name.insert(compartment.name.clone(), index);
            if let Some(uuid) = compartment.uuid {
                system.by_uuid.entry(uuid).or_insert(index);
            }
            system.compartments.push(compartment);
        }
        system
    }

    /// A table of compartments by name as JSON, with the keys qrexec gives them: `tags`, `type`,
    /// `default_dispvm`, `template_for_dispvms`, `power_state` (`Running` is up), `internal`,
    /// `uuid`, and of ours `made_from`. `dom0` is the host. Other keys are ignored.
    ///
    /// # Errors
    /// The text is not JSON of that form, or a UUID is none.
    pub fn from_json(text: &str) -> Result<Self, SystemError> {
        let form: Form = serde_json::from_str(text)?;
        let (Form::Wrapped { domains } | Form::Plain(domains)) = form;
        let mut host = None;
        let mut compartments = Vec::new();
        for (name, described) in domains {
            let uuid = described.uuid.as_deref().map(str::parse).transpose();
            let uuid = uuid.map_err(|flaw| SystemError::Uuid(name.clone(), flaw))?;
            let is_host = name == "dom0";
            let compartment = Compartment {
                name,
                uuid,
                tags: described.tags,
                compartment_type: described.compartment_type,
                running: described.power_state == "Running",
                disposable_template: described.template_for_dispvms,
                default_disposable: described.default_dispvm,
                internal: described.internal,
                made_from: described.made_from,
            };
            if is_host {
                host = Some(compartment);
            } else {
                compartments.push(compartment);
            }
        }
        let mut system = Self::new(compartments);
        if let Some(host) = host {
            system.host = host;
        }
        Ok(system)
    }

    /// The host.
    pub fn host(&self) -> &Compartment {
        &self.host
    }

    /// All compartments, in the order they were given.
    pub fn compartments(&self) -> &[Compartment] {
        &self.compartments
    }

    /// The compartment with this name.
    pub fn named(&self, name: &str) -> Option<&Compartment> {
        self.index(name).map(|index| &self.compartments[index])
    }

    pub(crate) fn index(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn index_of_uuid(&self, uuid: Uuid) -> Option<usize> {
        self.by_uuid.get(&uuid).copied()
    }

    /// Whether fresh disposables may be made from the compartment with this name.
    pub(crate) fn is_template(&self, name: &str) -> bool {
        self.named(name).is_some_and(|compartment| compartment.disposable_template)
    }

    /// The words of a rule that mean this compartment by what it is; `host` says which of both.
    pub(crate) fn words(compartment: &Compartment, host: bool) -> Vec<Token> {
        let mut words = vec![Token::Everything];
        if host {
            words.push(Token::Host);
        } else {
            words.push(Token::AnyCompartment);
            words.push(Token::Name(compartment.name.as_str().into()));
            words.extend(compartment.uuid.map(Token::Uuid));
        }
        words.extend(compartment.tags.iter().map(|tag| Token::Tag(tag.as_str().into())));
        words.push(Token::Type(compartment.compartment_type.as_str().into()));
        words
    }

    /// The words that mean a fresh disposable made from `template`.
    pub(crate) fn disposable_words(&self, template: &str) -> Vec<Token> {
        let mut words = vec![Token::DisposableOf(template.into())];
        if let Some(compartment) = self.named(template).filter(|c| c.disposable_template) {
            words
                .extend(compartment.tags.iter().map(|t| Token::DisposableOfTag(t.as_str().into())));
        }
        words
    }
}
