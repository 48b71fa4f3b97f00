//! The `guest` table.

use std::collections::{BTreeMap, BTreeSet};

use crate::diagnostic::{Concern, Diagnostic};
use crate::guest::{FileContent, GuestFile, GuestSettings, GuestUser};
use crate::layers::View;
use crate::schema::guest::{self as key, file, user};
use crate::source::Span;
use crate::tree::{Node, Value};
use crate::value::choice::GuestInit;
use crate::value::name::{Argument, CompartmentName, SysctlName, UnitName, UserName};
use crate::value::path::GuestPath;

/// First uid of ordinary users (login.defs(5), `UID_MIN`).
const FIRST_UID: u32 = 1000;

pub(super) fn guest(
    view: &View<'_>,
    name: &CompartmentName,
    found: &mut Vec<Diagnostic>,
) -> Option<GuestSettings> {
    let mut rules = Rules { view, concern: Concern::Compartment(name.to_string()), found };
    let user: UserName = view.text(&key::USER)?;
    let init = view.text(&key::INIT)?;
    Some(GuestSettings {
        hostname: view.text(&key::HOSTNAME).or_else(|| name.as_str().parse().ok())?,
        users: rules.users(&user),
        user,
        authorized_keys: view.texts(&key::AUTHORIZED_KEYS),
        init,
        hardening: view.text(&key::HARDENING)?,
        allocator: view.text(&key::ALLOCATOR)?,
        overlay_size: view.size(&key::OVERLAY_SIZE),
        services: rules.services(init),
        files: rules.files(),
        sysctls: sysctls(view),
        timezone: view.text(&key::TIMEZONE),
        env: view
            .table(&key::ENV)
            .entries()
            .into_iter()
            .filter_map(|entry| {
                Some((entry.key.parse().ok()?, entry.node.as_text()?.parse().ok()?))
            })
            .collect(),
    })
}

struct Rules<'v, 'a, 'f> {
    view: &'v View<'a>,
    concern: Concern,
    found: &'f mut Vec<Diagnostic>,
}

impl Rules<'_, '_, '_> {
    fn report(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic.concerning(self.concern.clone()));
    }

    /// The declared users and, unless it is root, the session user; uids given where none is.
    fn users(&mut self, session_user: &UserName) -> Vec<GuestUser> {
        let mut names: Vec<(UserName, Span)> = Vec::new();
        let mut uids: Vec<(u32, Span)> = Vec::new();
        let mut users: Vec<(GuestUser, bool)> = Vec::new();
        for node in self.view.list(&key::USERS) {
            let table = node.as_table().map(|table| self.view.of(table));
            let name: Option<UserName> = match &table {
                Some(table) => table.text(&user::NAME),
                None => node.as_text().and_then(|name| name.parse().ok()),
            };
            let Some(name) = name else { continue };
            if name.as_str() == "root" {
                self.report(
                    Diagnostic::error("root exists in every guest and cannot be declared")
                        .at(node.span)
                        .hint("take it out; sessions as root need no entry here"),
                );
                continue;
            }
            if let Some((_, first)) = names.iter().find(|(known, _)| *known == name) {
                self.report(
                    Diagnostic::error(format!("the guest's user `{name}` is declared twice"))
                        .at(node.span)
                        .related(*first, "first here")
                        .hint("take one out"),
                );
                continue;
            }
            names.push((name.clone(), node.span));
            let uid = table.as_ref().and_then(|table| self.uid(table, &mut uids));
            let plain = GuestUser {
                name,
                uid: uid.unwrap_or_default(),
                groups: BTreeSet::new(),
                shell: None,
                password_less: false,
            };
            let complete = match &table {
                None => plain,
                Some(table) => GuestUser {
                    groups: table.texts(&user::GROUPS).into_iter().collect(),
                    shell: table.text(&user::SHELL),
                    password_less: table.flag(&user::PASSWORD_LESS),
                    ..plain
                },
            };
            users.push((complete, uid.is_some()));
        }
        let known = names.iter().any(|(name, _)| name == session_user);
        if !known && session_user.as_str() != "root" {
            let implied = GuestUser {
                name: session_user.clone(),
                uid: 0,
                groups: BTreeSet::new(),
                shell: None,
                password_less: false,
            };
            users.insert(0, (implied, false));
        }
        let mut free = (FIRST_UID..).filter(|uid| !uids.iter().any(|(taken, _)| taken == uid));
        users
            .into_iter()
            .map(|(user, fixed)| match fixed {
                true => user,
                false => GuestUser { uid: free.next().unwrap_or(FIRST_UID), ..user },
            })
            .collect()
    }

    fn uid(&mut self, table: &View<'_>, taken: &mut Vec<(u32, Span)>) -> Option<u32> {
        let node = table.node(&user::UID)?;
        let uid = table.integer(&user::UID).and_then(|uid| u32::try_from(uid).ok())?;
        match taken.iter().find(|(known, _)| *known == uid) {
            Some((_, first)) => self.report(
                Diagnostic::error(format!("two users of the guest have uid {uid}"))
                    .at(node.span)
                    .related(*first, "first here")
                    .hint("give one of them another, or leave it out"),
            ),
            None => taken.push((uid, node.span)),
        }
        Some(uid)
    }

    fn services(&mut self, init: GuestInit) -> BTreeSet<UnitName> {
        let services: BTreeSet<UnitName> = self.view.texts(&key::SERVICES).into_iter().collect();
        if init == GuestInit::Agent
            && !services.is_empty()
            && let Some(entry) = self.view.entry(&key::SERVICES)
        {
            self.report(
                Diagnostic::error("`services` needs systemd in the guest")
                    .at(entry.key_span)
                    .hint("add init = \"systemd\" to the guest table"),
            );
        }
        services
    }

    fn files(&mut self) -> BTreeMap<GuestPath, GuestFile> {
        let mut files = BTreeMap::new();
        for (entry, table) in self.view.named(&key::FILES) {
            let text = table.node(&file::CONTENT).and_then(Node::as_text);
            let content = match (text, table.node(&file::SOURCE)) {
                (Some(_), Some(source)) => {
                    self.report(
                        Diagnostic::error("`content` and `source` exclude each other")
                            .at(source.span)
                            .hint("keep one of the two"),
                    );
                    None
                }
                (Some(text), None) => Some(FileContent::Text(text.to_owned())),
                (None, Some(_)) => table.path(&file::SOURCE).map(FileContent::Source),
                (None, None) => {
                    if entry.node.as_table().is_some() && table.node(&file::CONTENT).is_none() {
                        self.report(
                            Diagnostic::error("this file has no content")
                                .at(entry.key_span)
                                .hint("add content = \"…\" or source = \"FILE\""),
                        );
                    }
                    None
                }
            };
            let parts = content.zip(table.text(&file::MODE)).zip(table.text(&file::OWNER));
            if let (Some(((content, mode), owner)), Ok(path)) = (parts, entry.key.parse()) {
                files.insert(path, GuestFile { content, mode, owner });
            }
        }
        files
    }
}

fn sysctls(view: &View<'_>) -> BTreeMap<SysctlName, Argument> {
    let entries = view.table(&key::SYSCTLS).entries().into_iter();
    entries
        .filter_map(|entry| {
            let value = match &entry.node.value {
                Value::Integer(Some(number)) => number.to_string().parse().ok()?,
                Value::Text(text) => text.parse().ok()?,
                _ => return None,
            };
            Some((entry.key.parse().ok()?, value))
        })
        .collect()
}
