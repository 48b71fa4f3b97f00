//! Which tables apply to a compartment: its own, its templates', the defaults.

use crate::diagnostic::{Concern, Diagnostic};
use crate::schema::compartment::TEMPLATE;
use crate::sections::{Declared, Sections};
use crate::source::Origin;
use crate::suggest;
use crate::tree::{Node, Table};

/// What a compartment or template inherits from.
pub(crate) struct Ancestry<'a> {
    /// Nearest first, `[defaults]` last.
    pub(crate) tables: Vec<&'a Table>,
    /// Names of the templates among them.
    pub(crate) templates: Vec<&'a str>,
}

/// The ancestry of a compartment. Templates that do not exist or go in circles end it; those are
/// reported by `check_templates` and here for the compartment itself.
pub(crate) fn ancestry<'a>(
    sections: &Sections<'a>,
    compartment: &Declared<'a>,
    found: &mut Vec<Diagnostic>,
) -> Ancestry<'a> {
    let mut tables = vec![compartment.table];
    let mut templates: Vec<&'a str> = Vec::new();
    let concern = Concern::Compartment(compartment.name.to_owned());
    let mut next = parent(sections, compartment, concern, found);
    while let Some(template) = next {
        if templates.contains(&template.name) {
            break;
        }
        templates.push(template.name);
        tables.push(template.table);
        next = named(&template).and_then(|(name, _)| sections.template(name, template.origin));
    }
    // A user's defaults are nobody else's; the system's are everybody's.
    let of = |wanted| {
        let all = sections.defaults.iter();
        all.filter(move |(origin, _)| *origin == wanted).map(|(_, table)| *table)
    };
    if compartment.origin == Origin::User {
        tables.extend(of(Origin::User));
    }
    tables.extend(of(Origin::System));
    Ancestry { tables, templates }
}

/// Unknown parents and circles among the templates themselves.
pub(crate) fn check_templates(sections: &Sections<'_>, found: &mut Vec<Diagnostic>) {
    for template in sections.templates.values() {
        let concern = Concern::Template(template.name.to_owned());
        parent(sections, template, concern, found);
        if let Some(circle) = circle_from(sections, template) {
            // Reported once, at the member that comes first by name.
            if circle.iter().min() == Some(&template.name) {
                let span = named(template).map(|(_, node)| node.span);
                let mut path: Vec<&str> = circle.clone();
                path.push(template.name);
                let mut diagnostic = Diagnostic::error(format!(
                    "templates inherit from each other in a circle: {}",
                    path.join(" → ")
                ))
                .at_some(span)
                .hint("take out one of these `template` lines");
                for other in circle.iter().skip(1).filter_map(|name| sections.templates.get(name)) {
                    if let Some((_, node)) = named(other) {
                        diagnostic = diagnostic.related(node.span, "and from here");
                    }
                }
                diagnostic.concerns =
                    circle.iter().map(|name| Concern::Template((*name).to_owned())).collect();
                found.push(diagnostic);
            }
        }
    }
}

fn named<'a>(declared: &Declared<'a>) -> Option<(&'a str, &'a Node)> {
    let node = declared.table.get(TEMPLATE.name)?;
    Some((node.as_text()?, node))
}

/// The template that `child` names, if there is one it may use.
fn parent<'a>(
    sections: &Sections<'a>,
    child: &Declared<'a>,
    concern: Concern,
    found: &mut Vec<Diagnostic>,
) -> Option<Declared<'a>> {
    let (name, node) = named(child)?;
    // A malformed name was reported already.
    name.parse::<crate::TemplateName>().ok()?;
    match sections.template(name, child.origin) {
        Some(template) if child.origin == Origin::System && template.origin == Origin::User => {
            let message =
                format!("template `{name}` belongs to a user, not to the system's configuration");
            found.push(
                Diagnostic::error(message)
                    .at(node.span)
                    .related(template.name_span, "declared here")
                    .concerning(concern),
            );
            None
        }
        Some(template) => Some(template),
        None => {
            let known = sections.templates.keys().chain(sections.shipped.keys()).copied();
            let hint = match suggest::nearest(name, known) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None if sections.compartments.contains_key(name) => {
                    "a compartment is no template; move what both share to [template.…]".to_owned()
                }
                None => format!("declare it as [template.{name}]"),
            };
            found.push(
                Diagnostic::error(format!("there is no template `{name}`"))
                    .at(node.span)
                    .hint(hint)
                    .concerning(concern),
            );
            None
        }
    }
}

/// The circle that leads from a template back to itself, beginning with it.
fn circle_from<'a>(sections: &Sections<'a>, start: &Declared<'a>) -> Option<Vec<&'a str>> {
    let mut path = vec![start.name];
    let mut at = *start;
    loop {
        let (name, _) = named(&at)?;
        if name == start.name {
            return Some(path);
        }
        // Running into a circle that does not lead back here.
        if path.contains(&name) {
            return None;
        }
        at = *sections.templates.get(name)?;
        path.push(at.name);
    }
}
