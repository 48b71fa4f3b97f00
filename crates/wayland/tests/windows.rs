//! Windows and their border, as they are seen.

mod common;

use casemate_wayland::protocol::Interface;
use casemate_wayland::wire::Arg;
use common::client::Client;
use common::desktop::{Desktop, GROUND};
use common::until;
use common::window::{BLUE, BORDER, Bound, PINK, Window, acknowledge, middle};

#[test]
fn a_window_has_a_border_and_a_label() {
    let desktop = desktop!();
    let proxy = desktop.proxy("banking", &[]);
    let mut client = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut client);
    Window::show(&mut client, bound, (300, 200), BLUE.0);
    let picture = desktop.picture();
    let (left, top, right, bottom) = middle((308, 224));
    assert_eq!(picture.bounds_without(GROUND), Some((left, top, right, bottom)));
    assert!(picture.is_filled((left + 4, top + 20, right - 4, bottom - 4), BLUE.1));
    assert!(picture.is_filled((left, top, left + 4, bottom), BORDER));
    assert!(picture.is_filled((right - 4, top, right, bottom), BORDER));
    assert!(picture.is_filled((left, bottom - 4, right, bottom), BORDER));
    assert!(picture.is_filled((left, top, right, top + 2), BORDER));
    let written = (left..right).any(|x| picture.at(x, top + 10) != BORDER);
    assert!(written, "there is no label");
    desktop.keep("window");
}

#[test]
fn two_compartments_have_labels_that_differ() {
    let desktop = desktop!();
    let label = |name: &str| {
        let proxy = desktop.proxy(name, &[]);
        let mut client = Client::connect(&proxy.socket);
        let bound = Bound::new(&mut client);
        Window::show(&mut client, bound, (300, 200), BLUE.0);
        let picture = desktop.picture();
        let (left, top, right, _) = middle((308, 224));
        (left..right).map(|x| picture.at(x, top + 10)).collect::<Vec<_>>()
    };
    let first = label("banking");
    until("the first is gone", || desktop.windows().is_empty().then_some(()));
    assert!(first != label("bankinq"));
}

#[test]
fn titles_and_ids_say_whose_they_are() {
    let desktop = desktop!();
    let proxy = desktop.proxy("work", &[]);
    let mut client = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut client);
    let window = Window::show(&mut client, bound, (300, 200), BLUE.0);
    assert_eq!(desktop.windows(), [("[work] test".into(), "casemate.work.test".into())]);
    let title = "\u{202e}[gniknab]\u{2066}\r\n safe".to_owned();
    client.say(window.toplevel, "set_title", vec![Arg::String(Some(title))]);
    let id = "casemate.banking/..\u{202e}x".to_owned();
    client.say(window.toplevel, "set_app_id", vec![Arg::String(Some(id))]);
    client.sync().expect("alive");
    let seen = desktop.windows();
    assert_eq!(
        seen,
        [("[work] [gniknab] safe".into(), "casemate.work.casemate.banking..x".into())]
    );
}

#[test]
fn a_window_without_a_title_is_named_all_the_same() {
    let desktop = desktop!();
    let proxy = desktop.proxy("work", &[]);
    let mut client = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut client);
    let surface = bound.surface(&mut client);
    let object = vec![Arg::Object(surface)];
    let xdg = client.make(bound.base, "get_xdg_surface", Interface::XdgSurface, object);
    client.make(xdg, "get_toplevel", Interface::XdgToplevel, vec![]);
    client.say(surface, "commit", vec![]);
    acknowledge(&mut client, xdg);
    bound.paint(&mut client, surface, (100, 100), BLUE.0);
    client.say(surface, "commit", vec![]);
    client.sync().expect("shown");
    assert_eq!(desktop.windows(), [("[work]".into(), "casemate.work.unnamed".into())]);
}

#[test]
fn a_border_is_whole_at_every_scale() {
    for scale in ["1.25", "1.5", "2", "3"] {
        let Ok(desktop) = Desktop::start(&format!("output HEADLESS-1 scale {scale}\n")) else {
            println!("skipped: sway is not installed");
            return;
        };
        let proxy = desktop.proxy("banking", &[]);
        let mut client = Client::connect(&proxy.socket);
        let bound = Bound::new(&mut client);
        Window::show(&mut client, bound, (200, 101), BLUE.0);
        let picture = desktop.picture();
        let (left, top, right, bottom) = picture.bounds(BORDER).expect("a border");
        let factor: f64 = scale.parse().expect("a number");
        let near = |seen: i32, size: f64| (f64::from(seen) - size * factor).abs() <= 2.0;
        let size = (right - left, bottom - top);
        assert!(near(size.0, 208.0) && near(size.1, 125.0), "{size:?} at {scale}");
        // Sides of four, a pixel of rounding left and right.
        let side = (3.0 * factor) as i32;
        let seam = 1;
        for (part, name) in [
            ((left + seam, top + seam, left + side, bottom - seam), "left"),
            ((right - side, top + seam, right - seam, bottom - seam), "right"),
            ((left + seam, bottom - side, right - seam, bottom - seam), "bottom"),
            ((left + seam, top + seam, right - seam, top + 1 + factor as i32), "top"),
        ] {
            assert!(picture.is_filled(part, BORDER), "{name} at {scale}");
        }
        assert!(picture.count(BLUE.1) > 1000, "content at {scale}");
        desktop.keep(&format!("scale-{scale}"));
    }
}

#[test]
fn a_label_that_does_not_fit_is_none_instead_of_another_name() {
    let desktop = desktop!();
    let proxy = desktop.proxy("banking", &["--label", "work-untrusted"]);
    let mut client = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut client);
    let window = Window::show(&mut client, bound, (40, 40), BLUE.0);
    let picture = desktop.picture();
    let (left, top, right, bottom) = picture.bounds_without(GROUND).expect("a window");
    assert_eq!((right - left, bottom - top), (48, 64));
    assert!(picture.is_filled((left, top, right, top + 20), BORDER), "part of a name");
    bound.paint(&mut client, window.surface, (300, 40), BLUE.0);
    window.commit(&mut client);
    let picture = desktop.picture();
    let (left, top, right, _) = picture.bounds_without(GROUND).expect("a window");
    assert!(!picture.is_filled((left, top, right, top + 20), BORDER), "it fits");
}

#[test]
fn a_window_is_no_larger_than_the_screen_that_it_is_on() {
    let desktop = desktop!();
    desktop.sway("create_output");
    desktop.sway("output HEADLESS-2 resolution 640x400 position 4000 0");
    let proxy = desktop.proxy("work", &[]);
    let mut client = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut client);
    desktop.sway("focus output HEADLESS-2");
    let window = Window::empty(&mut client, bound);
    for name in ["set_min_size", "set_max_size"] {
        client.say(window.toplevel, name, vec![Arg::Int(700), Arg::Int(500)]);
    }
    bound.paint(&mut client, window.surface, (700, 500), PINK.0);
    window.commit(&mut client);
    let size = || {
        let (left, top, right, bottom) = desktop.picture().bounds(PINK.1).expect("a window");
        (right - left, bottom - top)
    };
    assert_eq!(size(), (632, 376));
    // On the large one there is room for it.
    desktop.sway("[app_id=casemate.work.test] move window to output HEADLESS-1");
    assert_eq!(size(), (700, 500));
    // It is cut again, though it says nothing.
    desktop.sway("output HEADLESS-1 resolution 600x450");
    desktop.sway("[app_id=casemate.work.test] move position 0 0");
    assert_eq!(size(), (592, 426));
    client.sync().expect("alive");
}

#[test]
fn monitors_have_no_names_for_a_compartment() {
    let desktop = desktop!();
    let geometry = |display: &std::path::Path| {
        let mut client = Client::connect(display);
        let output = client.bind(Interface::Output);
        client.sync().expect("alive");
        let text = |event: &str, at: usize| {
            client.last(output, event).map(|event| event.text(at).to_owned())
        };
        [text("geometry", 5), text("geometry", 6), text("description", 0), text("name", 0)]
            .map(Option::unwrap_or_default)
    };
    let proxy = desktop.proxy("work", &[]);
    assert_eq!(geometry(&proxy.socket), ["casemate", "screen", "screen", "screen-1"]);
    let told = geometry(&desktop.wayland());
    assert!(told.iter().all(|text| !text.starts_with("screen")), "{told:?}");
}

#[test]
fn a_window_that_is_made_anew_on_its_surface_is_shown() {
    let desktop = desktop!();
    let proxy = desktop.proxy("work", &[]);
    let mut client = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut client);
    let mut window = Window::empty(&mut client, bound);
    // Below it, and larger.
    let (_, sub) = bound.subsurface(&mut client, window.surface, (0, 0), (300, 200), PINK.0);
    client.say(sub, "place_below", vec![Arg::Object(window.surface)]);
    window.geometry(&mut client, [0, 0, 300, 200]);
    bound.paint(&mut client, window.surface, (50, 50), BLUE.0);
    window.commit(&mut client);
    assert!(desktop.picture().count(PINK.1) > 10_000);
    client.say(window.toplevel, "destroy", vec![]);
    client.sync().expect("alive");
    until("it is gone", || desktop.windows().is_empty().then_some(()));
    window.toplevel = client.make(window.xdg, "get_toplevel", Interface::XdgToplevel, vec![]);
    client.events.clear();
    client.say(window.surface, "commit", vec![]);
    acknowledge(&mut client, window.xdg);
    window.geometry(&mut client, [0, 0, 300, 200]);
    bound.paint(&mut client, window.surface, (50, 50), BLUE.0);
    window.commit(&mut client);
    assert!(desktop.picture().count(PINK.1) > 10_000, "the ground hides it");
}

#[test]
fn a_title_that_is_no_text_does_not_end_its_window() {
    let desktop = desktop!();
    let proxy = desktop.proxy("work", &[]);
    let mut client = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut client);
    let window = Window::show(&mut client, bound, (100, 100), BLUE.0);
    // `xdg_toplevel.set_title` in Latin-1.
    let mut message = window.toplevel.to_ne_bytes().to_vec();
    message.extend((16_u32 << 16 | 2).to_ne_bytes());
    message.extend(4_u32.to_ne_bytes());
    message.extend(b"\xe4b\xff\0");
    client.write(&message);
    client.sync().expect("alive");
    assert_eq!(desktop.windows()[0].0, "[work] \u{fffd}b\u{fffd}");
}

#[test]
fn sizes_and_the_border_add_up() {
    let desktop = desktop!();
    let proxy = desktop.proxy("work", &[]);
    let mut client = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut client);
    let window = Window::show(&mut client, bound, (300, 200), BLUE.0);
    desktop.sway("[app_id=casemate.work.test] floating disable");
    let size = (1000 - 8, 700 - 24);
    client
        .wait(|client| {
            let event = client.last(window.toplevel, "configure")?;
            ((event.int(0), event.int(1)) == size).then_some(())
        })
        .expect("the size of the output without the border");
    acknowledge(&mut client, window.xdg);
    bound.paint(&mut client, window.surface, size, BLUE.0);
    window.commit(&mut client);
    let picture = desktop.picture();
    assert_eq!(picture.bounds(BLUE.1), Some((4, 20, 996, 696)));
    assert_eq!(picture.bounds(BORDER), Some((0, 0, 1000, 700)));
}

#[test]
fn a_tiled_window_that_is_too_large_is_cut_even_if_it_never_answers() {
    let desktop = desktop!();
    let proxy = desktop.proxy("work", &[]);
    let mut client = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut client);
    let window = Window::show(&mut client, bound, (900, 600), PINK.0);
    let mut other = Client::connect(&proxy.socket);
    let other_bound = Bound::new(&mut other);
    Window::show(&mut other, other_bound, (100, 100), BLUE.0);
    for command in ["[app_id=casemate.work.test] floating disable", "split h"] {
        desktop.sway(command);
    }
    client
        .wait(|client| {
            let event = client.last(window.toplevel, "configure")?;
            (event.int(0) == 500 - 8).then_some(())
        })
        .expect("half of the output");
    // The compositor gives up waiting for it after a while; it never commits.
    let picture = until("it is cut", || {
        let picture = desktop.picture();
        let (left, _, right, _) = picture.bounds(PINK.1)?;
        (right - left <= 492).then_some(picture)
    });
    let (left, top, right, bottom) = picture.bounds(PINK.1).expect("some of it");
    assert!(right - left <= 492 && bottom - top <= 676);
}

#[test]
fn fullscreen_is_maximized_unless_it_is_allowed_and_the_border_stays() {
    let desktop = desktop!();
    for (name, options, fullscreen) in
        [("work", &[][..], false), ("games", &["--allow-fullscreen"][..], true)]
    {
        let proxy = desktop.proxy(name, options);
        let mut client = Client::connect(&proxy.socket);
        let bound = Bound::new(&mut client);
        let window = Window::show(&mut client, bound, (300, 200), BLUE.0);
        client.say(window.toplevel, "set_fullscreen", vec![Arg::Object(0)]);
        client.sync().expect("alive");
        assert_eq!(desktop.is_fullscreen(&format!("casemate.{name}.test")), fullscreen);
        if fullscreen {
            client
                .wait(|client| {
                    let event = client.last(window.toplevel, "configure")?;
                    (event.int(0) == 992).then_some(())
                })
                .expect("configured");
            acknowledge(&mut client, window.xdg);
            bound.paint(&mut client, window.surface, (1000, 700), BLUE.0);
            window.commit(&mut client);
            let picture = until("it is shown", || {
                let picture = desktop.picture();
                (picture.count(GROUND) == 0).then_some(picture)
            });
            assert_eq!(picture.bounds(BLUE.1), Some((4, 20, 996, 696)));
            desktop.keep("fullscreen");
        }
    }
}

#[test]
fn a_real_program_is_shown() {
    let desktop = desktop!();
    if common::desktop::find("foot").is_none() {
        println!("skipped: foot is not installed");
        return;
    }
    let proxy = desktop.proxy("banking", &[]);
    let mut foot = desktop.command("foot", &proxy.socket);
    let words = ["sh", "-c", "printf '\\033]2;accounts\\007'; exec sleep 60"];
    let mut foot = foot.args(words).spawn().expect("foot starts");
    until("its window", || {
        let windows = desktop.windows();
        windows
            .contains(&("[banking] accounts".into(), "casemate.banking.foot".into()))
            .then_some(())
    });
    let picture = until("its border", || {
        let picture = desktop.picture();
        (picture.count(BORDER) > 1000).then_some(picture)
    });
    assert!(picture.count([0x11, 0x11, 0x11]) > 10_000, "{:?}", picture.colors());
    desktop.keep("foot");
    foot.kill().expect("killed");
    foot.wait().expect("ended");
}

#[test]
fn the_order_of_windows_and_their_end_is_the_compositor_s() {
    let desktop = desktop!();
    let mut proxy = desktop.proxy("work", &[]);
    for _ in 0..20 {
        let mut client = Client::connect(&proxy.socket);
        let bound = Bound::new(&mut client);
        let window = Window::show(&mut client, bound, (300, 200), BLUE.0);
        client.say(window.toplevel, "destroy", vec![]);
        client.say(window.xdg, "destroy", vec![]);
        client.say(window.surface, "destroy", vec![]);
        client.sync().expect("alive");
    }
    until("all windows are gone", || desktop.windows().is_empty().then_some(()));
    assert_eq!(desktop.picture().bounds_without(GROUND), None);
    proxy.assert_alive();
}
