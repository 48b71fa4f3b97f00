//! From a name to a plan: the configuration, ids, image and facts of one start, gathered.
//!
//! The command line uses it to print plans and build images, the supervisor to carry plans out.
//! All decisions are the plan's; here is only the collecting.

mod error;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use casemate_config::{
    Accel, AssignedIds, Compartment, CompartmentName, Diagnostic, EngineKind, EngineSettings,
    FileContent, GuestInit, ImageSource, Loaded, NetworkMode, NetworkName, Settings,
};
use casemate_host::durable;
use casemate_host::facts::{self, Sources};
use casemate_host::places::{self, Environment, Places};
use casemate_host::programs;
use casemate_host::rundir;
use casemate_image::{Debian, Image, ImageName, Nixos, Recipe, Store};
use casemate_plan::facts::HostFacts;
use casemate_plan::identity::FRESH_SLOTS;
use casemate_plan::network::LinkParts;
use casemate_plan::switch::PortParts;
use casemate_plan::{ImageParts, Instance, Plan, Refusal, Request};
use sha2::{Digest as _, Sha256};

pub use error::PrepareError;

use crate::configuration;
use crate::disks;
use crate::memory::{self, OpenMemory};
use crate::secrets::OpenSecret;
use crate::shares::{self, OpenShare};
use crate::volumes::{OpenVolume, Passphrases};

/// What an image of Debian packages needs for systemd to be its process 1.
const SYSTEMD: [&str; 2] = ["dbus", "systemd-sysv"];

/// The configuration and the places it applies to.
#[derive(Debug)]
pub struct World {
    /// Where things are.
    pub places: Places,
    /// The user's environment.
    pub environment: Environment,
    /// The configuration, with everything there is to say about it.
    pub loaded: Loaded,
    /// The file the user named.
    pub named: Option<PathBuf>,
    /// The user's login name.
    pub user: String,
}

/// What shall run: a declared compartment, or a fresh disposable of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `banking`.
    Declared(String),
    /// `untrusted-d1234`.
    Fresh {
        /// The template's name.
        template: String,
        /// 1000 to 9999.
        number: u32,
    },
}

impl Target {
    /// Name of the running compartment.
    pub fn name(&self) -> String {
        match self {
            Self::Declared(name) => name.clone(),
            Self::Fresh { template, number } => format!("{template}-d{number}"),
        }
    }

    /// The declared compartment it is, or is made from.
    pub fn declared(&self) -> &str {
        match self {
            Self::Declared(name) => name,
            Self::Fresh { template, .. } => template,
        }
    }
}

/// What a plan is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be looked at: nothing is written, neither new ids nor an initrd.
    Print,
    /// To be carried out: what the plan names is there afterwards.
    Start,
}

/// A compartment that is ready to be started.
#[derive(Debug)]
pub struct Prepared<'w> {
    /// What the plan was made from, beside the facts.
    pub(crate) request: Request<'w>,
    /// What to do.
    pub plan: Plan,
    /// The same without KVM, when the plan uses it and need not.
    pub without_kvm: Option<Plan>,
    /// The facts it was made from.
    pub facts: HostFacts,
    /// Its image; none when it is not built.
    pub image: Option<Image>,
    /// Name of its image, with what the compartment adds to it.
    pub image_name: ImageName,
    /// Where its logs go.
    pub log_directory: PathBuf,
    /// Its volumes, taken until they are dropped; none when only a plan was asked for.
    pub(crate) volumes: Vec<OpenVolume>,
    /// Its secrets; none when only a plan was asked for.
    pub(crate) secrets: Vec<OpenSecret>,
    /// The folders it shares, each the one that was looked at until this is dropped.
    pub(crate) shares: Vec<OpenShare>,
    /// The kept memory its guest goes on from; none when it boots.
    pub(crate) memory: Option<OpenMemory>,
    /// User ids that may use the control socket besides the owner.
    pub users: Vec<u32>,
}

impl World {
    /// Reads the configuration.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn load(named: Option<&Path>) -> Result<Self, PrepareError> {
        let environment = Environment::current();
        let places = Places::find(&environment);
        let user = user_name(environment.uid);
        let loaded = configuration::load(named, &places, &environment, &user)?;
        Ok(Self { places, environment, loaded, named: named.map(Into::into), user })
    }

    /// The valid settings.
    pub fn settings(&self) -> &Settings {
        &self.loaded.settings
    }

    /// The directory of a running compartment.
    pub fn run_directory(&self, name: &str) -> PathBuf {
        self.places.runtime().join(name)
    }

    /// The directory of a compartment's logs. A fresh disposable's go with it.
    ///
    /// # Errors
    /// There is no place for them.
    pub fn log_directory(&self, target: &Target) -> Result<PathBuf, PrepareError> {
        match target {
            Target::Declared(name) => Ok(self.places.state()?.join("logs").join(name)),
            Target::Fresh { .. } => Ok(self.run_directory(&target.name())),
        }
    }

    /// The compartment with this name.
    ///
    /// # Errors
    /// It is unknown, or the configuration has errors that concern it.
    pub fn compartment(&self, name: &str) -> Result<&Compartment, PrepareError> {
        let found = name
            .parse::<CompartmentName>()
            .ok()
            .and_then(|name| self.settings().compartments.get(&name));
        let errors = self.loaded.errors_for(name);
        if !errors.is_empty() {
            let rendered = self.loaded.render_some(&errors, false);
            return Err(PrepareError::Invalid { name: name.into(), rendered });
        }
        found.ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> PrepareError {
        let names: Vec<&str> =
            self.settings().compartments.keys().map(CompartmentName::as_str).collect();
        let near = casemate_config::nearest(name, names.iter().copied());
        let hint = match (near, names.is_empty()) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, false) => format!("declared are: {}", names.join(", ")),
            (None, true) => match (&self.named, self.places.configuration()) {
                (Some(path), _) => format!("{} declares no compartment", path.display()),
                (None, Ok(place)) => format!(
                    "declare it as [compartment.{name}] in {}",
                    place.join("casemate.toml").display()
                ),
                (None, Err(_)) => "declare it in a file and give that with --config".into(),
            },
        };
        PrepareError::Unknown { name: name.into(), hint }
    }

    /// The settings of a compartment's engine.
    pub fn engine(&self, kind: EngineKind) -> &EngineSettings {
        &self.settings().engines[&kind]
    }

    /// Name and recipe of a compartment's image: its image's, with its programs added.
    ///
    /// # Errors
    /// The image's source is not available yet.
    pub fn image_of(&self, compartment: &Compartment) -> Result<(ImageName, Recipe), PrepareError> {
        let settings = &self.settings().images[&compartment.image];
        let mut name = settings.name.to_string();
        let mut recipe = recipe(settings);
        let mut programs: Vec<String> =
            compartment.programs.iter().map(ToString::to_string).collect();
        let of_nixos = matches!(recipe.source, casemate_image::Source::Nixos(_));
        if of_nixos && compartment.guest.init != GuestInit::Systemd {
            return Err(PrepareError::NixosWithoutSystemd {
                name: compartment.name.to_string(),
                image: settings.name.to_string(),
            });
        }
        let of_debian = matches!(recipe.source, casemate_image::Source::Debian(_));
        if of_debian && compartment.guest.init == GuestInit::Systemd {
            programs.extend(SYSTEMD.map(String::from));
        }
        if !programs.is_empty() {
            let casemate_image::Source::Debian(debian) = &mut recipe.source else {
                return Err(PrepareError::NoPrograms {
                    name: compartment.name.to_string(),
                    image: settings.name.to_string(),
                });
            };
            debian.packages.extend(programs);
            debian.packages.sort();
            debian.packages.dedup();
            let digest = recipe.digest().to_string();
            name = format!("{name}-with-{}", &digest[..12]);
        }
        Ok((image_name(&name)?, recipe))
    }

    /// The key an image's manifests must be signed with.
    pub fn key_of_image(&self, name: &str) -> Option<&str> {
        let mut images = self.settings().images.values();
        let settings = images.find(|settings| settings.name.as_str() == name)?;
        Some(settings.public_key.as_ref()?.as_str())
    }

    /// The key the image of a compartment must be signed with.
    fn public_key(&self, compartment: &Compartment) -> Option<&str> {
        let key = self.settings().images[&compartment.image].public_key.as_ref()?;
        Some(key.as_str())
    }

    /// Name and recipe of an image: a declared one, or one that a compartment's programs were added
    /// to.
    ///
    /// # Errors
    /// It is not declared, or its source is not available yet.
    pub fn image_recipe(&self, name: &str) -> Result<(ImageName, Recipe), PrepareError> {
        let images = &self.settings().images;
        if let Some(settings) = images.values().find(|settings| settings.name.as_str() == name) {
            return Ok((image_name(name)?, recipe(settings)));
        }
        let of_compartments = self.settings().compartments.values();
        let mut added_to =
            of_compartments.filter_map(|compartment| self.image_of(compartment).ok());
        added_to.find(|(found, _)| found.as_str() == name).ok_or_else(|| {
            PrepareError::UnknownImage {
                name: name.into(),
                declared: images.keys().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            }
        })
    }

    /// The store of images.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn store(&self) -> Result<Store, PrepareError> {
        let data = self.places.data()?;
        places::make_directory(data)?;
        Store::open(data).map_err(|source| image_error("store", source))
    }

    /// Ids of all compartments, kept from now on.
    ///
    /// # Errors
    /// They cannot be kept, or there is none left.
    pub fn ids(&self) -> Result<AssignedIds, PrepareError> {
        let state = self.places.state()?;
        places::make_directory(state)?;
        let path = state.join("ids.json");
        let prior: AssignedIds = durable::load(&path)?.unwrap_or_default();
        let running = self.running();
        if let Ok(assigned) = self.settings().assign(&prior, &running)
            && assigned == prior
        {
            return Ok(prior);
        }
        let assigned = durable::update(&path, |kept: &mut AssignedIds| {
            let assigned = self.settings().assign(kept, &running)?;
            kept.absorb(&assigned);
            Ok(assigned)
        })?;
        assigned.map_err(|diagnostics: Vec<_>| self.no_ids(&diagnostics))
    }

    /// The ids a start would use, without keeping those that are new.
    fn ids_to_be(&self) -> Result<AssignedIds, PrepareError> {
        let path = self.places.state()?.join("ids.json");
        let prior: AssignedIds = durable::load(&path)?.unwrap_or_default();
        self.settings()
            .assign(&prior, &self.running())
            .map_err(|diagnostics| self.no_ids(&diagnostics))
    }

    fn no_ids(&self, diagnostics: &[Diagnostic]) -> PrepareError {
        let all: Vec<_> = diagnostics.iter().collect();
        PrepareError::NoIds(self.loaded.render_some(&all, false))
    }

    /// Compartments that somebody keeps just now, from whatever configuration.
    fn running(&self) -> BTreeSet<CompartmentName> {
        let entries = std::fs::read_dir(self.places.runtime());
        let held = entries.into_iter().flatten().flatten().filter(|entry| {
            entry.file_type().is_ok_and(|kind| kind.is_dir())
                && matches!(rundir::holder(&entry.path()), Ok(Some(_)))
        });
        held.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// Plans a start. The plan says so when the image is yet to be built.
    ///
    /// # Errors
    /// [`PrepareError`].
    pub fn prepare(
        &self,
        target: &Target,
        purpose: Purpose,
        passphrases: &Passphrases,
    ) -> Result<Prepared<'_>, PrepareError> {
        let compartment = self.compartment(target.declared())?;
        let engine = self.engine(compartment.engine);
        casemate_plan::available(compartment, engine, &self.settings().audit)?;
        let instance = self.instance(target, compartment, purpose)?;
        let (image_name, recipe) = self.image_of(compartment)?;
        let mut facts = facts::gather(&Sources {
            qemu: engine.binary.as_ref().map(|program| program.as_path().to_owned()),
            ..Sources::current(&self.places)
        });
        programs::check(&facts.programs)?;
        if compartment.host_networking {
            programs::check_network(&facts.programs)?;
        }
        if !compartment.networks.is_empty() {
            programs::check_switch(&facts.programs)?;
        }
        if compartment.host_networking && self.settings().network.mode != NetworkMode::Rootless {
            facts.network.helper = casemate_host::network::ask_helper();
        }
        let link = self.link(compartment, purpose)?;
        let ports = self.ports(compartment, purpose)?;
        let store = match purpose {
            Purpose::Print => Store::at(self.places.data()?),
            Purpose::Start => self.store()?,
        };
        let failed = |source| image_error(image_name.as_str(), source);
        let image = store.current_for(&image_name, &recipe).map_err(failed)?;
        if let (Some(image), Some(key)) = (&image, self.public_key(compartment)) {
            image.check_signature(key)?;
        }
        let parts = match &image {
            None => None,
            Some(image) => {
                let groups = casemate_plan::module_groups(compartment, engine);
                let agent = &facts.programs.agent;
                let initrd = match purpose {
                    Purpose::Print => store.initrd_path(image, agent, &groups),
                    Purpose::Start => store.initrd(image, agent, &groups),
                };
                Some(ImageParts {
                    digest: image.digest.to_string(),
                    root: image.root(),
                    filesystem: "erofs".into(),
                    verity: Some(verity(&image.manifest.verity)),
                    kernel: image.kernel(),
                    initrd: initrd.map_err(|source| image_error(image_name.as_str(), source))?,
                })
            }
        };
        let log_directory = self.log_directory(target)?;
        let secrets = match (target, purpose) {
            (Target::Declared(_), Purpose::Start) => self.open_secrets(compartment, passphrases)?,
            _ => vec![],
        };
        let shares = shares::open(compartment, self.settings())?;
        // A fresh disposable has nothing that lasts.
        let (mut volumes, volume_parts) = match (target, purpose) {
            (Target::Fresh { .. }, _) => (vec![], vec![]),
            (Target::Declared(_), Purpose::Print) => (vec![], self.volumes_to_be(compartment)?),
            (Target::Declared(_), Purpose::Start) => {
                let volumes = self.open_volumes(compartment, passphrases)?;
                let parts = volumes.iter().map(OpenVolume::parts).collect::<Result<_, _>>()?;
                (volumes, parts)
            }
        };
        let mut allocator = programs::allocator(&facts.programs, compartment.guest.allocator)?;
        if purpose == Purpose::Print {
            // It has to be there, and nobody wants to read it.
            allocator.clear();
        }
        let resume = match target {
            Target::Fresh { .. } => None,
            Target::Declared(_) => self.wanted_memory(compartment)?,
        };
        let mut request = Request {
            resume,
            compartment,
            engine,
            volumes: volume_parts,
            shares: shares.iter().map(|share| share.parts.clone()).collect(),
            file_sources: file_sources(compartment)?,
            allocator,
            block_devices: disks::look_at(compartment)?,
            audit: &self.settings().audit,
            machine_id: machine_id(&instance, &self.user),
            instance,
            image: parts,
            image_name: image_name.to_string(),
            network: &self.settings().network,
            link,
            switch: &self.settings().switch,
            ports,
            switches: casemate_plan::switch::switches(self.places.runtime()),
            switch_logs: self.places.state()?.join("networks"),
            run_directory: self.run_directory(&target.name()),
            log_directory: log_directory.clone(),
        };
        let (mut plan, mut without_kvm) = plans(&request, &facts)?;
        let mut memory = None;
        if let (Some(resume), Purpose::Start) = (&request.resume, purpose) {
            let place = self.memory_place(compartment)?;
            memory = Some(memory::revert(&place, &plan, resume, &mut volumes)?);
            let parts = volumes.iter().map(OpenVolume::parts);
            request.volumes = parts.collect::<Result<_, _>>()?;
            (plan, without_kvm) = plans(&request, &facts)?;
        }
        let users = compartment.users.iter().filter_map(|name| user_id(name.as_str()));
        Ok(Prepared {
            request,
            plan,
            without_kvm,
            image,
            image_name,
            log_directory,
            volumes,
            secrets,
            shares,
            memory,
            users: users.collect(),
            facts,
        })
    }

    /// Number and Ethernet address of a compartment's link, if it has one.
    fn link(
        &self,
        compartment: &Compartment,
        purpose: Purpose,
    ) -> Result<Option<LinkParts>, PrepareError> {
        if !compartment.host_networking {
            return Ok(None);
        }
        let ids = match purpose {
            Purpose::Print => self.ids_to_be()?,
            Purpose::Start => self.ids()?,
        };
        let assigned = ids.compartments[&compartment.name];
        Ok(Some(LinkParts { id: assigned.id, mac: assigned.mac }))
    }

    /// The routers that a compartment is behind, each with the first network that it is so in; they are
    /// started before it.
    ///
    /// # Errors
    /// The compartment is unknown or broken.
    pub fn routers(&self, declared: &str) -> Result<Vec<(String, String)>, PrepareError> {
        let compartment = self.compartment(declared)?;
        let mut routers: Vec<(String, String)> = Vec::new();
        for name in compartment.networks.keys() {
            let Some(network) = self.settings().networks.get(name) else { continue };
            let known = routers.iter().any(|(router, _)| network.router.as_str() == router);
            if network.router != compartment.name && !known {
                routers.push((network.router.to_string(), name.to_string()));
            }
        }
        Ok(routers)
    }

    /// What a compartment was given in the networks that it is a member of.
    ///
    /// # Errors
    /// Addresses cannot be kept, or there is none left.
    pub fn ports(
        &self,
        compartment: &Compartment,
        purpose: Purpose,
    ) -> Result<Vec<PortParts>, PrepareError> {
        if compartment.networks.is_empty() {
            return Ok(vec![]);
        }
        let ids = match purpose {
            Purpose::Print => self.ids_to_be()?,
            Purpose::Start => self.ids()?,
        };
        let settings = self.settings();
        let parts = |name: &NetworkName| {
            let (network, assigned) = (&settings.networks[name], &ids.networks[name]);
            let member = assigned.members[&compartment.name];
            let router = settings.compartments.get(&network.router);
            PortParts {
                network: name.clone(),
                router: network.router.clone(),
                router_has_link: router.is_some_and(|router| router.host_networking),
                cidr: assigned.cidr,
                address: member.address,
                mac: member.mac,
            }
        };
        Ok(compartment.networks.keys().map(parts).collect())
    }

    fn instance(
        &self,
        target: &Target,
        compartment: &Compartment,
        purpose: Purpose,
    ) -> Result<Instance, PrepareError> {
        let (slot, fresh) = match target {
            Target::Fresh { template, .. } if !compartment.disposable_template => {
                return Err(PrepareError::NoTemplate(template.clone()));
            }
            Target::Fresh { number, .. } => (FRESH_SLOTS + number, true),
            Target::Declared(_) => {
                let ids = match purpose {
                    Purpose::Print => self.ids_to_be()?,
                    Purpose::Start => self.ids()?,
                };
                let id = ids.compartments[&compartment.name].id.get();
                let slot = (id - 1) / 2;
                if slot >= FRESH_SLOTS {
                    return Err(PrepareError::LargeId { name: compartment.name.to_string(), id });
                }
                (slot, false)
            }
        };
        Ok(Instance { name: target.name(), slot, fresh })
    }
}

/// The plan, and the one without KVM where it uses that and need not.
pub(crate) fn plans(
    request: &Request<'_>,
    facts: &HostFacts,
) -> Result<(Plan, Option<Plan>), Refusal> {
    let plan = casemate_plan::plan(request, facts)?;
    let may_do_without = plan.acceleration == "kvm"
        && request.engine.accel == Accel::Auto
        && request.resume.is_none();
    let without_kvm =
        may_do_without.then(|| casemate_plan::plan(request, &facts.clone().without_kvm()));
    Ok((plan, without_kvm.transpose()?))
}

fn recipe(settings: &casemate_config::ImageSettings) -> Recipe {
    let rootfs = |path: &Path| casemate_image::Rootfs { path: path.to_owned() };
    let source = match &settings.source {
        ImageSource::Debian { suite, mirror, components, kernel_package } => {
            casemate_image::Source::Debian(Debian {
                suite: suite.as_ref().map(ToString::to_string),
                packages: settings.packages.iter().map(ToString::to_string).collect(),
                mirror: mirror.as_ref().map(ToString::to_string),
                kernel_package: kernel_package.as_ref().map(ToString::to_string),
                components: components.iter().map(ToString::to_string).collect(),
            })
        }
        ImageSource::Imported => casemate_image::Source::Imported,
        ImageSource::Tar { path } => casemate_image::Source::Tar(rootfs(path)),
        ImageSource::Dir { path } => casemate_image::Source::Dir(rootfs(path)),
        ImageSource::Oci { path } => casemate_image::Source::Oci(rootfs(path)),
        ImageSource::Nixos { path, attribute } => {
            let system =
                || format!("nixosConfigurations.{}.config.system.build.toplevel", settings.name);
            let attribute = attribute.as_ref().map_or_else(system, |word| word.as_str().to_owned());
            let attribute = Some(attribute);
            casemate_image::Source::Nixos(Nixos { rootfs: rootfs(path), attribute })
        }
    };
    Recipe { source, size_limit: settings.size.map(|size| size.bytes()) }
}

/// Longest file of the host that is written into a guest: with all others it must fit one message.
const LONGEST_FILE: u64 = 512 * 1024;

/// The files of the host that `guest.files` names.
fn file_sources(compartment: &Compartment) -> Result<BTreeMap<PathBuf, Vec<u8>>, PrepareError> {
    let mut contents = BTreeMap::new();
    for file in compartment.guest.files.values() {
        let FileContent::Source(path) = &file.content else { continue };
        let failed = |source| PrepareError::GuestFile { path: path.clone(), source };
        let mut content = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(LONGEST_FILE + 1).read_to_end(&mut content))
            .map_err(failed)?;
        if content.len() as u64 > LONGEST_FILE {
            return Err(failed(std::io::ErrorKind::FileTooLarge.into()));
        }
        contents.insert(path.clone(), content);
    }
    Ok(contents)
}

fn verity(of_image: &casemate_image::Verity) -> casemate_wire::Verity {
    casemate_wire::Verity {
        root_hash: of_image.root_hash.bytes(),
        data_blocks: of_image.data_blocks(),
        hash_start: of_image.hash_start(),
    }
}

fn image_name(name: &str) -> Result<ImageName, PrepareError> {
    ImageName::new(name).map_err(|source| image_error(name, source))
}

fn image_error(name: &str, source: impl std::error::Error + Send + Sync + 'static) -> PrepareError {
    PrepareError::Image { name: name.into(), source: Box::new(source) }
}

/// The same for the same compartment of the same user on the same host; a fresh disposable's is
/// never seen again.
fn machine_id(instance: &Instance, user: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(b"casemate machine-id\0");
    // A host without one has compartments whose id depends on the name alone.
    hash.update(std::fs::read("/etc/machine-id").unwrap_or_default());
    hash.update(user.as_bytes());
    hash.update([0]);
    hash.update(instance.name.as_bytes());
    if instance.fresh {
        hash.update(casemate_host::clock::now_ns().to_le_bytes());
        hash.update(std::process::id().to_le_bytes());
    }
    let mut text = String::with_capacity(32);
    for byte in &hash.finalize()[..16] {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// Login name of a user; the number when it has none.
fn user_name(uid: u32) -> String {
    match nix::unistd::User::from_uid(uid.into()) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

fn user_id(name: &str) -> Option<u32> {
    Some(nix::unistd::User::from_name(name).ok()??.uid.as_raw())
}
