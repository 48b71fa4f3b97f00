//! A client that wants to be seen where it may not be: first at the bare compositor, where it
//! succeeds, then through the proxy, where it does not.

mod common;

use std::path::Path;

use casemate_wayland::protocol::Interface;
use casemate_wayland::wire::Arg;
use common::client::Client;
use common::desktop::{Desktop, GROUND};
use common::picture::{Bounds, Picture};
use common::pointer::Pointer;
use common::window::{BLUE, BORDER, Bound, PINK, WHITE, Window, acknowledge, middle};

/// The window that all of them declare.
const DECLARED: (i32, i32) = (300, 200);

/// Where it is, border included.
fn framed() -> Bounds {
    middle((DECLARED.0 + 8, DECLARED.1 + 24))
}

/// Runs an attack and takes a picture.
fn attack(desktop: &Desktop, display: &Path, act: impl Fn(&mut Client, Bound)) -> Picture {
    let mut client = Client::connect(display);
    let bound = Bound::new(&mut client);
    act(&mut client, bound);
    client.sync().expect("alive");
    desktop.picture()
}

/// Everything that is neither ground nor border, in a window of the declared size and nowhere else.
fn assert_contained(picture: &Picture) {
    let all = picture.bounds(BORDER).expect("a border");
    let (left, top, right, bottom) = all;
    assert_eq!((right - left, bottom - top), (DECLARED.0 + 8, DECLARED.1 + 24), "it is whole");
    assert_eq!(picture.bounds_without(GROUND), Some(all));
    // The bars but for the label.
    assert!(picture.is_filled((left, top + 20, left + 4, bottom), BORDER), "left");
    assert!(picture.is_filled((right - 4, top + 20, right, bottom), BORDER), "right");
    assert!(picture.is_filled((left, bottom - 4, right, bottom), BORDER), "bottom");
    assert!(picture.is_filled((left, top, right, top + 2), BORDER), "top");
}

/// The attack shows pink far outside at the bare compositor, and not through the proxy.
fn try_both(name: &str, act: impl Fn(&mut Client, Bound)) {
    let desktop = desktop!();
    let picture = attack(&desktop, &desktop.wayland(), &act);
    let (left, top, right, bottom) = picture.bounds(PINK.1).expect("something pink");
    let inside = middle((DECLARED.0 + 8, DECLARED.1 + 24));
    let escaped = left < inside.0 || top < inside.1 || right > inside.2 || bottom > inside.3;
    assert!(escaped, "{name} does nothing at the bare compositor");
    common::until("it is gone", || desktop.windows().is_empty().then_some(()));
    let mut proxy = desktop.proxy("work", &[]);
    let picture = attack(&desktop, &proxy.socket, &act);
    desktop.keep(name);
    assert_contained(&picture);
    proxy.assert_alive();
}

/// A blue window of the declared size.
fn window(client: &mut Client, bound: Bound) -> Window {
    let window = Window::empty(client, bound);
    window.geometry(client, [0, 0, DECLARED.0, DECLARED.1]);
    bound.paint(client, window.surface, DECLARED, BLUE.0);
    window.commit(client);
    window
}

#[test]
fn a_buffer_larger_than_the_geometry_is_cut() {
    try_both("overdraw-geometry", |client, bound| {
        let window = Window::empty(client, bound);
        window.geometry(client, [150, 100, DECLARED.0, DECLARED.1]);
        bound.paint(client, window.surface, (900, 600), PINK.0);
        window.commit(client);
    });
}

#[test]
fn a_buffer_that_grows_behind_an_old_geometry_is_cut() {
    try_both("overdraw-growing", |client, bound| {
        let window = window(client, bound);
        bound.paint(client, window.surface, (900, 600), PINK.0);
        window.commit(client);
    });
}

#[test]
fn a_viewport_that_stretches_is_cut() {
    try_both("overdraw-viewport", |client, bound| {
        let viewporter = client.bind(Interface::Viewporter);
        let window = window(client, bound);
        let object = vec![Arg::Object(window.surface)];
        let viewport = client.make(viewporter, "get_viewport", Interface::Viewport, object);
        client.say(viewport, "set_destination", vec![Arg::Int(900), Arg::Int(600)]);
        bound.paint(client, window.surface, (30, 20), PINK.0);
        window.commit(client);
    });
}

#[test]
fn a_subsurface_around_the_window_is_cut() {
    try_both("overdraw-subsurface", |client, bound| {
        let window = window(client, bound);
        bound.subsurface(client, window.surface, (-200, -200), (700, 600), PINK.0);
        window.commit(client);
    });
}

#[test]
fn subsurfaces_of_subsurfaces_are_cut() {
    try_both("overdraw-nested", |client, bound| {
        let window = window(client, bound);
        let (inner, _) = bound.subsurface(client, window.surface, (10, 10), (50, 50), WHITE.0);
        let (deep, _) = bound.subsurface(client, inner, (20, 20), (10, 10), WHITE.0);
        bound.subsurface(client, deep, (-300, -220), (900, 600), PINK.0);
        client.say(deep, "commit", vec![]);
        client.say(inner, "commit", vec![]);
        window.commit(client);
    });
}

#[test]
fn a_middle_parent_s_commit_lets_nothing_out() {
    try_both("overdraw-middle", |client, bound| {
        let window = window(client, bound);
        let (inner, inner_sub) =
            bound.subsurface(client, window.surface, (10, 10), (50, 50), WHITE.0);
        let (deep, deep_sub) = bound.subsurface(client, inner, (0, 0), (40, 40), PINK.0);
        client.say(inner, "commit", vec![]);
        window.commit(client);
        for sub in [inner_sub, deep_sub] {
            client.say(sub, "set_desync", vec![]);
        }
        // The deep one grows and moves; the root says nothing any more.
        client.say(deep_sub, "set_position", vec![Arg::Int(-300), Arg::Int(-220)]);
        bound.paint(client, deep, (900, 600), PINK.0);
        client.say(deep, "commit", vec![]);
        client.say(inner, "commit", vec![]);
        client.sync().expect("alive");
    });
}

#[test]
fn moving_the_middle_parent_moves_nothing_out() {
    try_both("overdraw-moving", |client, bound| {
        let window = window(client, bound);
        let (inner, inner_sub) =
            bound.subsurface(client, window.surface, (0, 0), (300, 200), PINK.0);
        bound.subsurface(client, inner, (0, 0), (300, 200), PINK.0);
        client.say(inner, "commit", vec![]);
        window.commit(client);
        client.say(inner_sub, "set_position", vec![Arg::Int(-250), Arg::Int(-150)]);
        window.commit(client);
    });
}

#[test]
fn a_subsurface_over_the_frame_is_below_it_and_cut() {
    try_both("overdraw-frame", |client, bound| {
        let window = window(client, bound);
        let (first, _) = bound.subsurface(client, window.surface, (0, 0), (10, 10), WHITE.0);
        let (_, sub) = bound.subsurface(client, window.surface, (-4, -20), (320, 240), PINK.0);
        client.say(sub, "place_above", vec![Arg::Object(first)]);
        window.commit(client);
    });
}

#[test]
fn a_geometry_that_shrinks_cuts_subsurfaces_that_say_nothing() {
    try_both("overdraw-shrink", |client, bound| {
        let window = Window::show(client, bound, (900, 600), BLUE.0);
        let (_, sub) = bound.subsurface(client, window.surface, (0, 0), (900, 600), PINK.0);
        client.say(sub, "set_desync", vec![]);
        window.commit(client);
        window.geometry(client, [0, 0, DECLARED.0, DECLARED.1]);
        window.commit(client);
    });
}

#[test]
fn a_window_is_never_larger_than_the_screen_with_its_border() {
    let desktop = desktop!();
    let large = |display: &Path| {
        let mut client = Client::connect(display);
        let bound = Bound::new(&mut client);
        Window::show(&mut client, bound, (1400, 1000), PINK.0);
        let picture = desktop.picture();
        desktop.keep("large");
        picture
    };
    let bare = large(&desktop.wayland());
    assert_eq!(bare.count(PINK.1), 1000 * 700, "the bare compositor lets it cover everything");
    common::until("it is gone", || desktop.windows().is_empty().then_some(()));
    let proxy = desktop.proxy("work", &[]);
    let picture = large(&proxy.socket);
    assert_eq!(picture.bounds(BORDER), Some((0, 0, 1000, 700)));
    assert_eq!(picture.bounds(PINK.1), Some((4, 20, 996, 696)));
}

#[test]
fn a_popup_is_on_the_screen_with_its_border() {
    let desktop = desktop!();
    let proxy = desktop.proxy("work", &[]);
    let mut client = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut client);
    let window = window(&mut client, bound);
    let popup = bound.popup(&mut client, window.xdg, (-2000, -2000), (3000, 3000), PINK.0);
    client.say(popup.surface, "commit", vec![]);
    client.sync().expect("alive");
    let picture = desktop.picture();
    assert_eq!(picture.bounds(BORDER), Some((0, 0, 1000, 700)));
    assert_eq!(picture.bounds(PINK.1), Some((2, 14, 998, 698)));
}

#[test]
fn turned_and_scaled_buffers_are_cut() {
    try_both("overdraw-transform", |client, bound| {
        let window = window(client, bound);
        client.say(window.surface, "set_buffer_transform", vec![Arg::Int(1)]);
        client.say(window.surface, "set_buffer_scale", vec![Arg::Int(2)]);
        bound.paint(client, window.surface, (1200, 1600), PINK.0);
        window.commit(client);
    });
}

/// A pink cursor of this size while the pointer is in the window.
fn cursor(client: &mut Client, bound: Bound, pointer: &mut Pointer, size: (i32, i32)) {
    window(client, bound);
    let wl_pointer = client.make(bound.seat, "get_pointer", Interface::Pointer, vec![]);
    client.sync().expect("alive");
    pointer.to(10, 10);
    pointer.to(500, 350);
    let serial = client.wait(|client| Some(client.last(wl_pointer, "enter")?.uint(0)));
    let surface = bound.surface(client);
    bound.paint(client, surface, size, PINK.0);
    client.say(surface, "commit", vec![]);
    let arguments = vec![
        Arg::Uint(serial.expect("entered")),
        Arg::Object(surface),
        Arg::Int(size.0 / 2),
        Arg::Int(size.1 / 2),
    ];
    client.say(wl_pointer, "set_cursor", arguments);
    client.sync().expect("alive");
}

#[test]
fn a_cursor_is_cut_and_its_hotspot_stays_inside() {
    let desktop = desktop!();
    let mut pointer = Pointer::new(&desktop);
    let mut client = Client::connect(&desktop.wayland());
    let bound = Bound::new(&mut client);
    cursor(&mut client, bound, &mut pointer, (800, 600));
    let (left, _, right, _) = desktop.picture().bounds(PINK.1).expect("a cursor");
    assert!(right - left > 128, "a large cursor at the bare compositor");
    drop(client);
    let proxy = desktop.proxy("work", &[]);
    let mut client = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut client);
    cursor(&mut client, bound, &mut pointer, (800, 600));
    let (left, top, right, bottom) = desktop.picture().bounds(PINK.1).expect("a cursor");
    assert!(right - left <= 128 && bottom - top <= 128, "{left} {top} {right} {bottom}");
    // The hotspot is the last pixel that is left.
    assert_eq!((right - 1, bottom - 1), (500, 350));
}

#[test]
fn a_small_cursor_is_as_it_was() {
    let desktop = desktop!();
    let mut pointer = Pointer::new(&desktop);
    let proxy = desktop.proxy("work", &[]);
    let mut client = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut client);
    cursor(&mut client, bound, &mut pointer, (24, 24));
    assert_eq!(desktop.picture().bounds(PINK.1), Some((488, 338, 512, 362)));
}

#[test]
fn a_popup_larger_than_it_may_be_is_cut() {
    let desktop = desktop!();
    let act = |client: &mut Client, bound: Bound| {
        let window = window(client, bound);
        let popup = bound.popup(client, window.xdg, (50, 50), (60, 40), WHITE.0);
        // Larger than the positioner said.
        bound.paint(client, popup.surface, (700, 500), PINK.0);
        client.say(popup.surface, "commit", vec![]);
        client.sync().expect("alive");
        popup
    };
    let mut client = Client::connect(&desktop.wayland());
    let bound = Bound::new(&mut client);
    act(&mut client, bound);
    let (left, _, right, _) = desktop.picture().bounds(PINK.1).expect("a popup");
    assert!(right - left > 200);
    drop(client);
    common::until("it is gone", || desktop.windows().is_empty().then_some(()));
    let proxy = desktop.proxy("work", &[]);
    let mut client = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut client);
    let popup = act(&mut client, bound);
    let picture = desktop.picture();
    desktop.keep("popup");
    let (left, top, right, bottom) = picture.bounds(PINK.1).expect("a popup");
    assert_eq!((right - left, bottom - top), (60, 40));
    // Two at the sides and below, fourteen on top.
    assert!(picture.is_filled((left - 2, top - 14, right + 2, top - 12), BORDER));
    assert!(picture.is_filled((left - 2, top, left, bottom + 2), BORDER));
    assert!(picture.is_filled((right, top, right + 2, bottom + 2), BORDER));
    // The frame's corner is where the client wanted its popup's.
    let (window_left, window_top, ..) = framed();
    assert_eq!((left - 2, top - 14), (window_left + 4 + 50, window_top + 20 + 50));
    let at = client.last(popup.popup, "configure").expect("configured");
    assert_eq!([at.int(0), at.int(1), at.int(2), at.int(3)], [52, 64, 60, 40]);
}

#[test]
fn a_popup_s_size_and_place_are_bounded() {
    let desktop = desktop!();
    let proxy = desktop.proxy("work", &[]);
    let mut client = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut client);
    let window = window(&mut client, bound);
    let positioner = client.make(bound.base, "create_positioner", Interface::XdgPositioner, vec![]);
    client.say(positioner, "set_size", vec![Arg::Int(i32::MAX), Arg::Int(30)]);
    let rect = [i32::MAX, i32::MIN, 1, 1].map(Arg::Int).into();
    client.say(positioner, "set_anchor_rect", rect);
    client.say(positioner, "set_offset", vec![Arg::Int(i32::MIN), Arg::Int(i32::MAX)]);
    let surface = bound.surface(&mut client);
    let object = vec![Arg::Object(surface)];
    let xdg = client.make(bound.base, "get_xdg_surface", Interface::XdgSurface, object);
    let arguments = vec![Arg::Object(window.xdg), Arg::Object(positioner)];
    let popup = client.make(xdg, "get_popup", Interface::XdgPopup, arguments);
    client.say(surface, "commit", vec![]);
    acknowledge(&mut client, xdg);
    let at = client.last(popup, "configure").expect("configured");
    assert!(at.int(2) <= 4096 && at.int(3) == 30, "{at:?}");
    client.sync().expect("alive");
}

#[test]
fn popups_are_counted() {
    let desktop = desktop!();
    let mut proxy = desktop.proxy("work", &[]);
    let mut client = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut client);
    let window = window(&mut client, bound);
    let mut parent = window.xdg;
    for _ in 0..32 {
        parent = bound.popup(&mut client, parent, (5, 5), (60, 40), WHITE.0).xdg;
    }
    let surface = bound.surface(&mut client);
    let positioner = client.make(bound.base, "create_positioner", Interface::XdgPositioner, vec![]);
    let object = vec![Arg::Object(surface)];
    let xdg = client.make(bound.base, "get_xdg_surface", Interface::XdgSurface, object);
    let arguments = vec![Arg::Object(parent), Arg::Object(positioner)];
    client.make(xdg, "get_popup", Interface::XdgPopup, arguments);
    assert!(client.until_disconnected().contains("more than 32 popups"));
    proxy.assert_alive();
}

#[test]
fn nothing_behind_a_window_is_seen_inside_its_border() {
    let desktop = desktop!();
    let mut other = Client::connect(&desktop.wayland());
    let bound = Bound::new(&mut other);
    Window::show(&mut other, bound, (600, 500), PINK.0);
    let clear = |display: &Path| {
        let mut client = Client::connect(display);
        let bound = Bound::new(&mut client);
        let window = Window::show(&mut client, bound, DECLARED, 0);
        // Half of it transparent by a subsurface below as well.
        let (below, sub) = bound.subsurface(&mut client, window.surface, (0, 0), (50, 50), BLUE.0);
        client.say(sub, "place_below", vec![Arg::Object(window.surface)]);
        client.say(below, "commit", vec![]);
        window.commit(&mut client);
        desktop.picture()
    };
    let bare = clear(&desktop.wayland());
    assert_eq!(bare.count(PINK.1), 600 * 500 - 50 * 50, "the bare compositor shows what is behind");
    let proxy = desktop.proxy("work", &[]);
    let picture = clear(&proxy.socket);
    let (left, top, right, bottom) = framed();
    assert!(picture.is_filled((left + 54, top + 20, right, bottom), BORDER), "ground");
    assert!(picture.is_filled((left + 4, top + 20, left + 54, top + 70), BLUE.1), "subsurface");
    assert_eq!(picture.count(PINK.1), 600 * 500 - 308 * 224);
}

#[test]
fn input_outside_of_the_window_is_not_the_client_s() {
    let desktop = desktop!();
    let mut pointer = Pointer::new(&desktop);
    let proxy = desktop.proxy("work", &[]);
    let mut client = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut client);
    let wl_pointer = client.make(bound.seat, "get_pointer", Interface::Pointer, vec![]);
    let window = Window::empty(&mut client, bound);
    window.geometry(&mut client, [150, 100, DECLARED.0, DECLARED.1]);
    bound.paint(&mut client, window.surface, (900, 600), PINK.0);
    let region = client.make(bound.compositor, "create_region", Interface::Region, vec![]);
    let all = [-5000, -5000, 10_000, 10_000].map(Arg::Int).into();
    client.say(region, "add", all);
    client.say(window.surface, "set_input_region", vec![Arg::Object(region)]);
    window.commit(&mut client);
    let picture = desktop.picture();
    assert!(picture.count(PINK.1) > 0);
    // Far outside, then in the middle of the window.
    pointer.to(2, 2);
    pointer.to(300, 200);
    client.sync().expect("alive");
    assert!(client.last(wl_pointer, "enter").is_none(), "input from outside");
    pointer.to(500, 350);
    let at = client.wait(|client| {
        let found = client.events.iter().rev().find(|event| {
            event.object == wl_pointer && ["enter", "motion"].contains(&event.name)
        })?;
        let first = if found.name == "enter" { 2 } else { 1 };
        Some((found.int(first), found.int(first + 1)))
    });
    let at = at.expect("in the window");
    // In the client's own coordinates, uncut: the geometry's corner and 4 and 20 of border less.
    let (left, top, ..) = framed();
    assert_eq!(at, (256 * (500 - left - 4 + 150), 256 * (350 - top - 20 + 100)));
}

#[test]
fn a_border_drags_its_window_and_the_client_hears_nothing() {
    let desktop = desktop!();
    let mut pointer = Pointer::new(&desktop);
    let proxy = desktop.proxy("work", &[]);
    let mut client = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut client);
    let wl_pointer = client.make(bound.seat, "get_pointer", Interface::Pointer, vec![]);
    window(&mut client, bound);
    desktop.picture();
    let (left, top, right, bottom) = framed();
    pointer.to(left + 100, top + 10);
    pointer.press(true);
    // There and back twice: the compositor has heard of it.
    client.sync().expect("alive");
    client.sync().expect("alive");
    for step in 1..=10 {
        pointer.to(left + 100 + 10 * step, top + 10 + 5 * step);
    }
    client.sync().expect("alive");
    pointer.press(false);
    client.sync().expect("alive");
    assert!(client.last(wl_pointer, "button").is_none(), "{:?}", client.events);
    let moved = (left + 100, top + 50, right + 100, bottom + 50);
    assert_eq!(desktop.picture().bounds(BORDER), Some(moved));
}

#[test]
fn a_position_waits_for_the_parent_s_commit() {
    let desktop = desktop!();
    let proxy = desktop.proxy("work", &[]);
    let mut client = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut client);
    let window = window(&mut client, bound);
    let (child, sub) = bound.subsurface(&mut client, window.surface, (10, 10), (20, 20), PINK.0);
    client.say(sub, "set_desync", vec![]);
    window.commit(&mut client);
    let (left, top, ..) = framed();
    let at = |x: i32, y: i32, size: i32| {
        Some((left + 4 + x, top + 20 + y, left + 4 + x + size, top + 20 + y + size))
    };
    assert_eq!(desktop.picture().bounds(PINK.1), at(10, 10, 20));
    client.say(sub, "set_position", vec![Arg::Int(50), Arg::Int(60)]);
    // Its own commit shows its own state, not its place.
    bound.paint(&mut client, child, (30, 30), PINK.0);
    client.say(child, "commit", vec![]);
    client.sync().expect("alive");
    assert_eq!(desktop.picture().bounds(PINK.1), at(10, 10, 30));
    window.commit(&mut client);
    assert_eq!(desktop.picture().bounds(PINK.1), at(50, 60, 30));
    // Synchronized, even its state waits.
    client.say(sub, "set_sync", vec![]);
    bound.paint(&mut client, child, (40, 40), PINK.0);
    client.say(child, "commit", vec![]);
    client.sync().expect("alive");
    assert_eq!(desktop.picture().bounds(PINK.1), at(50, 60, 30));
    window.commit(&mut client);
    assert_eq!(desktop.picture().bounds(PINK.1), at(50, 60, 40));
}

#[test]
fn a_hidden_subsurface_comes_back() {
    let desktop = desktop!();
    let proxy = desktop.proxy("work", &[]);
    let mut client = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut client);
    let window = window(&mut client, bound);
    let (_, sub) = bound.subsurface(&mut client, window.surface, (1000, 10), (20, 20), PINK.0);
    window.commit(&mut client);
    assert_eq!(desktop.picture().count(PINK.1), 0);
    client.say(sub, "set_position", vec![Arg::Int(290), Arg::Int(10)]);
    window.commit(&mut client);
    assert_eq!(desktop.picture().count(PINK.1), 10 * 20);
    client.say(sub, "set_position", vec![Arg::Int(100), Arg::Int(10)]);
    window.commit(&mut client);
    assert_eq!(desktop.picture().count(PINK.1), 20 * 20);
}

#[test]
fn subsurfaces_are_stacked_as_the_client_says() {
    let desktop = desktop!();
    let proxy = desktop.proxy("work", &[]);
    let mut client = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut client);
    let window = window(&mut client, bound);
    let (pink, pink_sub) = bound.subsurface(&mut client, window.surface, (0, 0), (50, 50), PINK.0);
    let (white, _) = bound.subsurface(&mut client, window.surface, (0, 0), (50, 50), WHITE.0);
    window.commit(&mut client);
    assert_eq!(desktop.picture().count(PINK.1), 0);
    client.say(pink_sub, "place_above", vec![Arg::Object(white)]);
    client.sync().expect("alive");
    assert_eq!(desktop.picture().count(PINK.1), 0, "not before the parent's commit");
    window.commit(&mut client);
    assert_eq!(desktop.picture().count(PINK.1), 2500);
    client.say(pink_sub, "place_below", vec![Arg::Object(window.surface)]);
    window.commit(&mut client);
    assert_eq!(desktop.picture().count(PINK.1), 0);
    client.say(pink, "destroy", vec![]);
    window.commit(&mut client);
}

#[test]
fn frames_and_buffers_come_back_to_the_client() {
    let desktop = desktop!();
    let proxy = desktop.proxy("work", &[]);
    let mut client = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut client);
    let window = window(&mut client, bound);
    for _ in 0..10 {
        let callback = client.make(window.surface, "frame", Interface::Callback, vec![]);
        bound.paint(&mut client, window.surface, DECLARED, BLUE.0);
        client.say(window.surface, "commit", vec![]);
        client.wait(|client| client.last(callback, "done").map(|_| ())).expect("a frame");
    }
    let releases = client.events.iter().filter(|event| event.name == "release").count();
    assert!(releases >= 9, "{releases}");
}

#[test]
fn a_buffer_that_was_never_shown_comes_back_too() {
    let desktop = desktop!();
    let proxy = desktop.proxy("work", &[]);
    let mut client = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut client);
    let window = window(&mut client, bound);
    let (child, _) = bound.subsurface(&mut client, window.surface, (0, 0), (20, 20), PINK.0);
    for _ in 0..3 {
        // Synchronized: each replaces the one before, which waits for the parent.
        bound.paint(&mut client, child, (20, 20), PINK.0);
        client.say(child, "commit", vec![]);
    }
    client.sync().expect("alive");
    let releases = client.events.iter().filter(|event| event.name == "release").count();
    assert_eq!(releases, 3);
    window.commit(&mut client);
    assert_eq!(desktop.picture().count(PINK.1), 400);
}

#[test]
fn a_buffer_with_the_id_of_a_destroyed_one_is_not_shown_for_it() {
    let desktop = desktop!();
    let mut proxy = desktop.proxy("work", &[]);
    let picture = attack(&desktop, &proxy.socket, |client, bound| {
        let window = window(client, bound);
        // Far outside: it is known here with its size, and never shown.
        let surface = bound.surface(client);
        let objects = vec![Arg::Object(surface), Arg::Object(window.surface)];
        let make = "get_subsurface";
        let sub = client.make(bound.subcompositor, make, Interface::Subsurface, objects);
        client.say(sub, "set_position", vec![Arg::Int(5000), Arg::Int(5000)]);
        let small = client.buffer(bound.shm, 100, 100, WHITE.0);
        client.say(surface, "attach", vec![Arg::Object(small), Arg::Int(0), Arg::Int(0)]);
        client.say(surface, "commit", vec![]);
        window.commit(client);
        client.say(small, "destroy", vec![]);
        client.sync().expect("alive");
        // The same id, here and at the compositor.
        client.reuse(small);
        let large = client.buffer(bound.shm, 900, 600, PINK.0);
        assert_eq!(large, small);
        client.say(sub, "set_position", vec![Arg::Int(0), Arg::Int(0)]);
        window.commit(client);
    });
    assert_contained(&picture);
    proxy.assert_alive();
}
