//! What the proxy says to a compositor, word for word: what no compositor at hand can show, or only
//! by chance.

mod common;

use casemate_wayland::protocol::Interface;
use casemate_wayland::wire::Arg;
use common::bench::Bench;
use common::window::{BLUE, Bound, PINK, WHITE};

/// A client that has learned of the globals.
fn begun() -> (Bench, Bound) {
    let mut bench = Bench::new();
    let registry = bench.client.new_id(Interface::Registry);
    bench.client.registry = registry;
    bench.client.say(1, "get_registry", vec![Arg::New(registry)]);
    bench.run().expect("alive");
    let bound = Bound::new(&mut bench.client);
    bench.run().expect("alive");
    (bench, bound)
}

/// A window's surface, `xdg_surface` and `xdg_toplevel`.
fn window(bench: &mut Bench, bound: Bound, size: (i32, i32), color: u32) -> (u32, u32, u32) {
    let client = &mut bench.client;
    let surface = bound.surface(client);
    let object = vec![Arg::Object(surface)];
    let xdg = client.make(bound.base, "get_xdg_surface", Interface::XdgSurface, object);
    let toplevel = client.make(xdg, "get_toplevel", Interface::XdgToplevel, vec![]);
    client.say(surface, "commit", vec![]);
    client.say(xdg, "ack_configure", vec![Arg::Uint(1)]);
    bound.paint(client, surface, size, color);
    client.say(surface, "commit", vec![]);
    bench.run().expect("alive");
    (surface, xdg, toplevel)
}

#[test]
fn versions_are_capped() {
    let (bench, _) = begun();
    for (_, name, version) in &bench.client.globals {
        let known = Interface::named(name).expect("known").definition().version;
        assert_eq!(*version, known, "{name}");
    }
}

#[test]
fn what_is_no_window_any_more_has_no_content() {
    let (mut bench, bound) = begun();
    let (.., toplevel) = window(&mut bench, bound, (100, 100), BLUE.0);
    bench.compositor.requests.clear();
    bench.client.say(toplevel, "destroy", vec![]);
    bench.run().expect("alive");
    // Its next window begins without: else the compositor ends the client (xdg_surface, unconfigured_buffer).
    let attached = bench.compositor.heard(Interface::Surface, "attach");
    assert!(attached.iter().any(|it| matches!(it.arguments[0], Arg::Object(0))), "{attached:?}");
}

#[test]
fn a_global_that_goes_while_it_is_bound_ends_nobody() {
    let (mut bench, _) = begun();
    let outputs = bench.compositor.heard(Interface::Registry, "bind").into_iter();
    let names = outputs.filter(|it| {
        matches!(&it.arguments[1], Arg::String(Some(name)) if name == Interface::Output.name())
    });
    let Some(Arg::Uint(name)) = names.map(|it| &it.arguments[0]).next() else { panic!("none") };
    let (name, registry) = (*name, bench.compositor.newest(Interface::Registry));
    bench.compositor.say(registry, "global_remove", vec![Arg::Uint(name)]);
    bench.run().expect("alive");
    assert!(bench.client.events.iter().any(|event| event.name == "global_remove"));
    bench.compositor.requests.clear();
    // It has not read that yet.
    bench.client.bind(Interface::Output);
    bench.run().expect("alive");
    assert_eq!(bench.compositor.heard(Interface::Registry, "bind").len(), 1);
}

#[test]
fn nothing_half_said_is_heard() {
    let (mut bench, bound) = begun();
    let (surface, xdg, toplevel) = window(&mut bench, bound, (100, 100), BLUE.0);
    bench.compositor.requests.clear();
    let client = &mut bench.client;
    bound.paint(client, surface, (200, 200), PINK.0);
    client.say(surface, "set_buffer_scale", vec![Arg::Int(2)]);
    client.say(xdg, "set_window_geometry", [5, 5, 50, 50].map(Arg::Int).into());
    client.say(toplevel, "set_max_size", vec![Arg::Int(50), Arg::Int(0)]);
    client.say(xdg, "ack_configure", vec![Arg::Uint(77)]);
    bench.run().expect("alive");
    let about = [Interface::Surface, Interface::XdgSurface, Interface::XdgToplevel];
    let heard = bench.compositor.requests.iter().filter(|it| about.contains(&it.interface));
    assert_eq!(heard.count(), 0);
    bench.client.say(surface, "commit", vec![]);
    bench.run().expect("alive");
    let one = |interface, name| {
        let heard = bench.compositor.heard(interface, name);
        assert_eq!(heard.len(), 1, "{name}: {heard:?}");
        heard[0].numbers()
    };
    assert_eq!(one(Interface::XdgSurface, "ack_configure"), [77]);
    assert_eq!(one(Interface::XdgToplevel, "set_max_size"), [58, 0]);
    // The surface's origin is the geometry's corner now; the border is around it.
    assert_eq!(one(Interface::XdgSurface, "set_window_geometry"), [-4, -20, 58, 74]);
    assert_eq!(one(Interface::Surface, "set_buffer_scale"), [2]);
    let sources = bench.compositor.heard(Interface::Viewport, "set_source");
    assert_eq!(sources[0].numbers(), [5 * 256, 5 * 256, 50 * 256, 50 * 256]);
}

#[test]
fn a_reposition_knows_of_both_borders_and_is_bounded() {
    let (mut bench, bound) = begun();
    let (_, xdg, _) = window(&mut bench, bound, (300, 200), BLUE.0);
    let client = &mut bench.client;
    let positioner = |client: &mut common::client::Client, size: (i32, i32)| {
        let positioner =
            client.make(bound.base, "create_positioner", Interface::XdgPositioner, vec![]);
        client.say(positioner, "set_size", vec![Arg::Int(size.0), Arg::Int(size.1)]);
        client.say(positioner, "set_anchor_rect", [10, 20, 1, 1].map(Arg::Int).into());
        positioner
    };
    let first = positioner(client, (60, 40));
    let surface = bound.surface(client);
    let object = vec![Arg::Object(surface)];
    let popup_xdg = client.make(bound.base, "get_xdg_surface", Interface::XdgSurface, object);
    let arguments = vec![Arg::Object(xdg), Arg::Object(first)];
    let popup = client.make(popup_xdg, "get_popup", Interface::XdgPopup, arguments);
    client.say(surface, "commit", vec![]);
    client.say(popup_xdg, "ack_configure", vec![Arg::Uint(2)]);
    bound.paint(client, surface, (500, 500), WHITE.0);
    client.say(surface, "commit", vec![]);
    bench.run().expect("alive");
    // 10 and 20 at the compositor, borders of 2 and 14 in borders of 4 and 20.
    let place = bench.client.last(popup, "configure").expect("configured");
    assert_eq!([0, 1, 2, 3].map(|at| place.int(at)), [8, 14, 60, 40]);
    let geometry = bench.compositor.heard(Interface::XdgSurface, "set_window_geometry");
    assert_eq!(geometry.last().expect("told").numbers(), [-2, -14, 64, 56]);
    bench.compositor.requests.clear();
    let second = positioner(&mut bench.client, (i32::MAX, 30));
    bench.client.say(popup, "reposition", vec![Arg::Object(second), Arg::Uint(9)]);
    bench.run().expect("alive");
    let size = bench.compositor.heard(Interface::XdgPositioner, "set_size");
    assert_eq!(size[0].numbers(), [4096 + 4, 30 + 16]);
    let anchor = bench.compositor.heard(Interface::XdgPositioner, "set_anchor_rect");
    assert_eq!(anchor[0].numbers(), [14, 40, 1, 1]);
    let up = bench.compositor.newest(Interface::XdgPopup);
    for _ in 0..200 {
        bench.compositor.say(up, "repositioned", vec![Arg::Uint(9)]);
        bench.client.say(popup, "reposition", vec![Arg::Object(second), Arg::Uint(9)]);
        bench.run().expect("each is answered");
    }
    for _ in 0..70 {
        bench.client.say(popup, "reposition", vec![Arg::Object(second), Arg::Uint(9)]);
    }
    let fault = bench.run().expect_err("too many");
    assert_eq!(fault.to_string(), "more than 64 repositions at a time");
}

#[test]
fn fingers_are_where_the_client_has_its_pixels_and_not_on_the_border() {
    let (mut bench, bound) = begun();
    let touch = bench.client.make(bound.seat, "get_touch", Interface::Touch, vec![]);
    let (surface, xdg, _) = window(&mut bench, bound, (300, 200), BLUE.0);
    bench.client.say(xdg, "set_window_geometry", [30, 40, 100, 100].map(Arg::Int).into());
    bench.client.say(surface, "commit", vec![]);
    bench.run().expect("alive");
    let up = bench.compositor.newest(Interface::Touch);
    let window = bench.compositor.heard(Interface::XdgWmBase, "get_xdg_surface")[0].numbers()[1];
    let frame = bench.compositor.newest(Interface::Surface);
    let down = |surface: u32, finger: i32| {
        vec![
            Arg::Uint(1),
            Arg::Uint(2),
            Arg::Object(surface),
            Arg::Int(finger),
            Arg::Fixed(256),
            Arg::Fixed(512),
        ]
    };
    let motion = |finger: i32| vec![Arg::Uint(3), Arg::Int(finger), Arg::Fixed(0), Arg::Fixed(0)];
    bench.compositor.say(up, "down", down(window as u32, 0));
    bench.compositor.say(up, "down", down(frame, 1));
    bench.compositor.say(up, "motion", motion(0));
    bench.compositor.say(up, "motion", motion(1));
    bench.compositor.say(up, "up", vec![Arg::Uint(4), Arg::Uint(5), Arg::Int(1)]);
    bench.run().expect("alive");
    let names: Vec<&str> =
        bench.client.events.iter().filter(|it| it.object == touch).map(|it| it.name).collect();
    assert_eq!(names, ["down", "motion"]);
    let down = bench.client.last(touch, "down").expect("touched");
    assert_eq!((down.uint(2), down.int(4), down.int(5)), (surface, 31 * 256, 42 * 256));
    let motion = bench.client.last(touch, "motion").expect("moved");
    assert_eq!((motion.int(2), motion.int(3)), (30 * 256, 40 * 256));
}

#[test]
fn feedback_is_asked_for_with_the_commit_it_belongs_to() {
    let (mut bench, bound) = begun();
    let presentation = bench.client.bind(Interface::Presentation);
    let (surface, ..) = window(&mut bench, bound, (300, 200), BLUE.0);
    let feedback = bench.client.new_id(Interface::PresentationFeedback);
    let arguments = vec![Arg::Object(surface), Arg::New(feedback)];
    bench.client.say(presentation, "feedback", arguments);
    bench.run().expect("alive");
    assert!(bench.compositor.heard(Interface::Presentation, "feedback").is_empty());
    bench.client.say(surface, "commit", vec![]);
    bench.run().expect("alive");
    let names: Vec<&str> = bench.compositor.requests.iter().map(|it| it.name).collect();
    let asked = names.iter().rposition(|name| *name == "feedback").expect("asked");
    assert_eq!(names[asked + 1], "commit");
    let up = bench.compositor.newest(Interface::PresentationFeedback);
    bench.compositor.say(up, "discarded", vec![]);
    bench.compositor.remove(up);
    bench.run().expect("alive");
    assert!(bench.client.last(feedback, "discarded").is_some());
    // One that is never committed is discarded with its surface.
    let other = bound.surface(&mut bench.client);
    let feedback = bench.client.new_id(Interface::PresentationFeedback);
    let arguments = vec![Arg::Object(other), Arg::New(feedback)];
    bench.client.say(presentation, "feedback", arguments);
    bench.client.say(other, "destroy", vec![]);
    bench.run().expect("alive");
    assert!(bench.client.last(feedback, "discarded").is_some());
}

#[test]
fn a_buffer_destroyed_while_it_waits_is_shown_all_the_same() {
    let (mut bench, bound) = begun();
    let (root, ..) = window(&mut bench, bound, (300, 200), BLUE.0);
    let child = bound.surface(&mut bench.client);
    let objects = [child, root].map(Arg::Object).into();
    bench.client.make(bound.subcompositor, "get_subsurface", Interface::Subsurface, objects);
    let buffer = bench.client.buffer(bound.shm, 10, 10, PINK.0);
    let attach = vec![Arg::Object(buffer), Arg::Int(0), Arg::Int(0)];
    bench.client.say(child, "attach", attach);
    bench.client.say(child, "commit", vec![]);
    bench.client.say(buffer, "destroy", vec![]);
    bench.run().expect("alive");
    bench.compositor.requests.clear();
    bench.client.say(root, "commit", vec![]);
    bench.run().expect("alive");
    let names: Vec<&str> = bench.compositor.requests.iter().map(|it| it.name).collect();
    let attached = names.iter().position(|name| *name == "attach").expect("attached");
    let destroyed = names.iter().position(|name| *name == "destroy").expect("destroyed");
    assert!(attached < destroyed, "{names:?}");
}

#[test]
fn what_the_host_selects_is_not_passed_on() {
    let (mut bench, bound) = begun();
    let manager = bench.client.bind(Interface::DataDeviceManager);
    let arguments = vec![Arg::Object(bound.seat)];
    let device = bench.client.make(manager, "get_data_device", Interface::DataDevice, arguments);
    bench.run().expect("alive");
    let up = bench.compositor.newest(Interface::DataDevice);
    for number in 0..300 {
        let offer = 0xff00_0000 + number;
        bench.compositor.give(offer, Interface::DataOffer);
        bench.compositor.say(up, "data_offer", vec![Arg::New(offer)]);
        let kind = vec![Arg::String(Some("text/plain".into()))];
        bench.compositor.say(offer, "offer", kind);
        bench.compositor.say(up, "selection", vec![Arg::Object(offer)]);
        bench.run().expect("alive");
        assert!(!bench.compositor.objects.contains_key(&offer), "it is destroyed");
        // Said before the compositor heard of that.
        bench.compositor.give(offer, Interface::DataOffer);
        bench.compositor.say(offer, "action", vec![Arg::Uint(1)]);
        bench.run().expect("alive");
        bench.compositor.objects.remove(&offer);
    }
    assert!(bench.client.events.iter().all(|event| event.object != device));
}

#[test]
fn a_selection_that_changes_often_does_not_pile_up() {
    let (mut bench, bound) = begun();
    let manager = bench.client.bind(Interface::DataDeviceManager);
    let seat = vec![Arg::Object(bound.seat)];
    let device = bench.client.make(manager, "get_data_device", Interface::DataDevice, seat);
    let (_, _, toplevel) = window(&mut bench, bound, (100, 100), BLUE.0);
    let up = bench.compositor.newest(Interface::XdgToplevel);
    let activated = 4_u32.to_ne_bytes().to_vec();
    let arguments = vec![Arg::Int(0), Arg::Int(0), Arg::Array(activated)];
    bench.compositor.say(up, "configure", arguments);
    bench.run().expect("alive");
    assert!(bench.client.last(toplevel, "configure").is_some());
    for _ in 0..200 {
        let holder = casemate_wayland::compartment::Holder::Broker;
        let which = casemate_wayland::compartment::Which::Clipboard;
        bench.compartment.borrow_mut().select(which, Some((holder, Default::default())));
        bench.proxied.announce(which).expect("alive");
    }
    bench.run().expect("alive");
    let offers: Vec<u32> = bench
        .client
        .events
        .iter()
        .filter(|event| event.name == "data_offer")
        .map(|event| event.uint(0))
        .collect();
    assert_eq!(offers.len(), 64);
    bench.client.events.clear();
    for offer in offers {
        bench.client.say(offer, "destroy", vec![]);
    }
    bench.run().expect("alive");
    assert!(bench.client.last(device, "selection").is_some(), "told of the last");
}

#[test]
fn a_window_s_border_cannot_be_taken_away_through_another_window_s_remains() {
    let (mut bench, bound) = begun();
    let (surface, _, toplevel) = window(&mut bench, bound, (100, 100), BLUE.0);
    // Its surface goes first, and another with the same id becomes a window.
    bench.client.say(surface, "destroy", vec![]);
    bench.run().expect("alive");
    let compositor = bound.compositor;
    bench.client.say(compositor, "create_surface", vec![Arg::New(surface)]);
    let object = vec![Arg::Object(surface)];
    let client = &mut bench.client;
    let xdg = client.make(bound.base, "get_xdg_surface", Interface::XdgSurface, object);
    client.make(xdg, "get_toplevel", Interface::XdgToplevel, vec![]);
    client.say(surface, "commit", vec![]);
    client.say(xdg, "ack_configure", vec![Arg::Uint(1)]);
    bound.paint(client, surface, (100, 100), PINK.0);
    client.say(surface, "commit", vec![]);
    bench.run().expect("alive");
    let surfaces = |bench: &Bench| {
        bench.compositor.objects.values().filter(|it| **it == Interface::Subsurface).count()
    };
    let before = surfaces(&bench);
    bench.client.say(toplevel, "destroy", vec![]);
    bench.run().expect("alive");
    assert_eq!((before, surfaces(&bench)), (6, 6), "the second window's border");
}

#[test]
fn a_surface_can_be_a_window_again() {
    let (mut bench, bound) = begun();
    let (surface, xdg, toplevel) = window(&mut bench, bound, (100, 100), BLUE.0);
    bench.client.say(toplevel, "destroy", vec![]);
    bench.client.say(xdg, "destroy", vec![]);
    bench.run().expect("alive");
    let last = bench.compositor.requests.iter().rev().find(|it| it.name == "attach");
    assert_eq!(last.expect("attached").numbers(), [0, 0, 0], "it has no content");
    bench.compositor.requests.clear();
    let client = &mut bench.client;
    let object = vec![Arg::Object(surface)];
    let xdg = client.make(bound.base, "get_xdg_surface", Interface::XdgSurface, object);
    client.make(xdg, "get_toplevel", Interface::XdgToplevel, vec![]);
    client.say(surface, "commit", vec![]);
    bench.run().expect("alive");
    assert!(
        bench.compositor.heard(Interface::Surface, "attach").is_empty(),
        "not before configure"
    );
    bench.client.say(xdg, "ack_configure", vec![Arg::Uint(1)]);
    bound.paint(&mut bench.client, surface, (100, 100), PINK.0);
    bench.client.say(surface, "commit", vec![]);
    bench.run().expect("alive");
    // Content, four bars, label and ground.
    assert_eq!(bench.compositor.heard(Interface::Surface, "attach").len(), 7);
}

#[test]
fn screens_that_tell_their_pixels_only_bound_windows_too() {
    let (mut bench, bound) = begun();
    let output = bench.compositor.newest(Interface::Output);
    let none = Arg::String(Some(String::new()));
    let mut geometry: Vec<Arg> = [0, 0, 0, 0, 0].map(Arg::Int).into();
    geometry.extend([none, Arg::String(Some(String::new())), Arg::Int(0)]);
    bench.compositor.say(output, "geometry", geometry);
    let mode = vec![Arg::Uint(1), Arg::Int(1200), Arg::Int(900), Arg::Int(60_000)];
    bench.compositor.say(output, "mode", mode);
    bench.compositor.say(output, "scale", vec![Arg::Int(2)]);
    bench.compositor.say(output, "done", vec![]);
    bench.run().expect("alive");
    let manager = bench.client.bind(Interface::FractionalScaleManager);
    let (surface, ..) = window(&mut bench, bound, (2000, 2000), BLUE.0);
    let told = |bench: &Bench| {
        let heard = bench.compositor.heard(Interface::XdgSurface, "set_window_geometry");
        heard.last().expect("told").numbers()[2..].to_vec()
    };
    assert_eq!(told(&bench), [600, 450]);
    let object = vec![Arg::Object(surface)];
    let make = "get_fractional_scale";
    let scale = bench.client.make(manager, make, Interface::FractionalScale, object);
    bench.run().expect("alive");
    let up = bench.compositor.newest(Interface::FractionalScale);
    // One and a half.
    bench.compositor.say(up, "preferred_scale", vec![Arg::Uint(180)]);
    bench.run().expect("alive");
    assert_eq!(bench.client.last(scale, "preferred_scale").expect("told").uint(0), 180);
    assert_eq!(told(&bench), [800, 600]);
}
