//! `[image.*]`.

use std::collections::BTreeMap;

use crate::diagnostic::{Concern, Diagnostic};
use crate::layers::{Context, View};
use crate::schema::Key;
use crate::schema::top::image;
use crate::sections::Sections;
use crate::settings::{ImageSettings, ImageSource};
use crate::source::Origin;
use crate::value::choice::ImageSourceKind::{self, Debian, Dir, Imported, Nixos, Oci, Tar};
use crate::value::name::ImageName;

/// Settings that only some sources understand.
const ONLY: &[(&Key, &[ImageSourceKind])] = &[
    (&image::SUITE, &[Debian]),
    (&image::MIRROR, &[Debian]),
    (&image::COMPONENTS, &[Debian]),
    (&image::KERNEL_PACKAGE, &[Debian]),
    (&image::PACKAGES, &[Debian, Nixos]),
    (&image::PATH, &[Tar, Dir, Oci, Nixos]),
    (&image::ATTRIBUTE, &[Nixos]),
];

/// The declared images, and `debian`.
pub(super) fn images(
    context: Context<'_>,
    sections: &Sections<'_>,
    found: &mut Vec<Diagnostic>,
) -> BTreeMap<ImageName, ImageSettings> {
    let mut images = BTreeMap::new();
    for declared in sections.images.values() {
        let Ok(name) = declared.name.parse::<ImageName>() else { continue };
        let view = View::new(context, vec![declared.table]);
        let Some(source) = source(&view, declared.name, declared.name_span, found) else {
            continue;
        };
        images.insert(
            name.clone(),
            ImageSettings {
                name,
                origin: declared.origin,
                declared: Some(declared.name_span),
                source,
                packages: view.texts(&image::PACKAGES).into_iter().collect(),
                public_key: view.text(&image::PUBLIC_KEY),
                size: view.size(&image::SIZE),
            },
        );
    }
    if !sections.images.contains_key(ImageName::DEFAULT)
        && let Ok(name) = ImageName::DEFAULT.parse::<ImageName>()
    {
        let empty = View::new(context, Vec::new());
        images.insert(
            name.clone(),
            ImageSettings {
                name,
                origin: Origin::System,
                declared: None,
                source: debian(&empty),
                packages: empty.texts(&image::PACKAGES).into_iter().collect(),
                public_key: None,
                size: None,
            },
        );
    }
    images
}

fn debian(view: &View<'_>) -> ImageSource {
    ImageSource::Debian {
        suite: view.text(&image::SUITE),
        mirror: view.text(&image::MIRROR),
        components: view.texts(&image::COMPONENTS),
        kernel_package: view.text(&image::KERNEL_PACKAGE),
    }
}

fn source(
    view: &View<'_>,
    name: &str,
    name_span: crate::Span,
    found: &mut Vec<Diagnostic>,
) -> Option<ImageSource> {
    let kind: ImageSourceKind = view.text(&image::SOURCE)?;
    let concern = || Concern::Image(name.to_owned());
    for (key, kinds) in ONLY {
        if let Some(entry) = view.entry(key).filter(|_| !kinds.contains(&kind)) {
            let kinds: Vec<String> = kinds.iter().map(|kind| format!("\"{kind}\"")).collect();
            let message = format!("`{}` means nothing for an image from \"{kind}\"", key.name);
            found.push(
                Diagnostic::error(message)
                    .at(entry.key_span)
                    .hint(format!("take it out, or set source = {}", kinds.join(" or ")))
                    .concerning(concern()),
            );
        }
    }
    let path = view.path(&image::PATH);
    if path.is_none()
        && matches!(kind, Tar | Dir | Oci | Nixos)
        && view.node(&image::PATH).is_none()
    {
        let what = match kind {
            Tar => "the archive",
            Nixos => "the folder of the flake, or the built system in /nix/store,",
            _ => "the folder",
        };
        found.push(
            Diagnostic::error(format!("an image from \"{kind}\" needs `path`"))
                .at(name_span)
                .hint(format!("add path = \"…\", where {what} is"))
                .concerning(concern()),
        );
    }
    Some(match kind {
        Debian => debian(view),
        Tar => ImageSource::Tar { path: path? },
        Dir => ImageSource::Dir { path: path? },
        Oci => ImageSource::Oci { path: path? },
        Nixos => ImageSource::Nixos { path: path?, attribute: view.text(&image::ATTRIBUTE) },
        Imported => ImageSource::Imported,
    })
}
