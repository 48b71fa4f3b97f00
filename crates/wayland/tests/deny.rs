//! What a client may not have, and what becomes of one that wants it or too much: it is
//! disconnected with a line in the log, and the others live on.

mod common;

use std::fs::File;
use std::os::fd::OwnedFd;

use casemate_wayland::protocol::Interface;
use casemate_wayland::wire::Arg;
use common::client::Client;
use common::desktop::{Desktop, Proxy};
use common::pointer::Pointer;
use common::until;
use common::window::{BLUE, Bound, PINK, WHITE, Window};

/// A client does something; it is disconnected with these words, and another one is served still.
fn refused(words: &str, act: impl FnOnce(&mut Client)) {
    let desktop = desktop!();
    let mut proxy = desktop.proxy("work", &[]);
    refused_by(&mut proxy, words, act);
}

fn refused_by(proxy: &mut Proxy, words: &str, act: impl FnOnce(&mut Client)) {
    let mut honest = Client::connect(&proxy.socket);
    let mut client = Client::connect(&proxy.socket);
    act(&mut client);
    client.until_disconnected();
    proxy.logs(words);
    let bound = Bound::new(&mut honest);
    Window::show(&mut honest, bound, (100, 100), BLUE.0);
    proxy.assert_alive();
}

#[test]
fn only_listed_globals_exist_at_versions_that_are_known() {
    let desktop = desktop!();
    let bare = Client::connect(&desktop.wayland());
    let hidden = [
        "zwlr_screencopy_manager_v1",
        "zwlr_data_control_manager_v1",
        "zwlr_layer_shell_v1",
        "zwp_virtual_keyboard_manager_v1",
        "zwlr_virtual_pointer_manager_v1",
    ];
    for name in hidden {
        assert!(bare.globals.iter().any(|it| it.1 == name), "sway offers {name}");
    }
    let proxy = desktop.proxy("work", &[]);
    let client = Client::connect(&proxy.socket);
    let mut seen: Vec<&str> = client.globals.iter().map(|it| it.1.as_str()).collect();
    seen.sort_unstable();
    let expected = [
        "wl_compositor",
        "wl_data_device_manager",
        "wl_output",
        "wl_seat",
        "wl_shm",
        "wl_subcompositor",
        "wp_presentation",
        "wp_viewporter",
        "xdg_wm_base",
        "zwp_primary_selection_device_manager_v1",
        "zwp_text_input_manager_v3",
        "zxdg_decoration_manager_v1",
        "zxdg_output_manager_v1",
    ];
    assert_eq!(seen, expected);
    for (_, name, version) in &client.globals {
        let most = Interface::named(name).expect("known").definition().version;
        assert!((1..=most).contains(version), "{name} {version}");
    }
}

#[test]
fn what_the_compartment_s_file_allows_is_there_as_well() {
    let desktop = desktop!();
    let _pointer = Pointer::new(&desktop);
    let more = [Interface::XdgActivation, Interface::PointerConstraints];
    let proxy = desktop.proxy("games", &["--allow", "activation,constraints"]);
    let mut client = Client::connect(&proxy.socket);
    assert!(more.iter().all(|it| client.has(*it)));
    let bound = Bound::new(&mut client);
    let window = Window::show(&mut client, bound, (100, 100), BLUE.0);
    let activation = client.bind(Interface::XdgActivation);
    let token =
        client.make(activation, "get_activation_token", Interface::XdgActivationToken, vec![]);
    client.say(token, "set_app_id", vec![Arg::String(Some("x".into()))]);
    client.say(token, "commit", vec![]);
    let text = client.wait(|client| Some(client.last(token, "done")?.text(0).to_owned()));
    let arguments = vec![Arg::String(Some(text.expect("a token"))), Arg::Object(window.surface)];
    client.say(activation, "activate", arguments);
    let constraints = client.bind(Interface::PointerConstraints);
    let pointer = client.make(bound.seat, "get_pointer", Interface::Pointer, vec![]);
    let region = client.make(bound.compositor, "create_region", Interface::Region, vec![]);
    let objects = [window.surface, pointer, region].map(Arg::Object);
    let mut arguments = Vec::from(objects);
    arguments.push(Arg::Uint(2));
    client.make(constraints, "lock_pointer", Interface::LockedPointer, arguments);
    client.sync().expect("alive");
}

#[test]
fn a_guessed_name_ends_the_client() {
    refused("it bound wl_compositor version 1 as 999", |client| {
        client.bind_as(999, Interface::Compositor, 1);
    });
}

#[test]
fn a_hidden_global_of_the_compositor_s_cannot_be_bound_by_its_name_there() {
    let desktop = desktop!();
    let bare = Client::connect(&desktop.wayland());
    let mut proxy = desktop.proxy("work", &[]);
    for wanted in ["zwlr_screencopy_manager_v1", "zwlr_data_control_manager_v1"] {
        let found = bare.globals.iter().find(|it| it.1 == wanted).expect("sway has it");
        let (name, ..) = *found;
        refused_by(&mut proxy, &format!("it bound {wanted}"), |client| {
            let id = client.new_id(Interface::Region);
            let registry = client.registry;
            let text = Arg::String(Some(wanted.into()));
            client.say(registry, "bind", vec![Arg::Uint(name), text, Arg::Uint(1), Arg::New(id)]);
        });
    }
}

#[test]
fn a_name_is_bound_with_its_own_interface_and_a_version_that_was_offered() {
    let desktop = desktop!();
    let mut proxy = desktop.proxy("work", &[]);
    let find = |client: &Client, interface: Interface| {
        client.globals.iter().find(|it| it.1 == interface.name()).expect("offered").clone()
    };
    refused_by(&mut proxy, "it bound wl_seat version 1", |client| {
        let (name, ..) = find(client, Interface::Compositor);
        client.bind_as(name, Interface::Seat, 1);
    });
    for wrong in [0, 100] {
        refused_by(&mut proxy, &format!("it bound wl_shm version {wrong}"), |client| {
            let (name, ..) = find(client, Interface::Shm);
            client.bind_as(name, Interface::Shm, wrong);
        });
    }
}

#[test]
fn requests_beyond_a_version_or_the_table_end_the_client() {
    let desktop = desktop!();
    let mut proxy = desktop.proxy("work", &[]);
    refused_by(&mut proxy, "it sent request 200 of wl_compositor", |client| {
        let compositor = client.bind(Interface::Compositor);
        client.say_raw(compositor, 200, vec![]);
    });
    refused_by(&mut proxy, "it sent request 9 of wl_surface", |client| {
        let found = client.globals.iter().find(|it| it.1 == "wl_compositor").expect("there");
        let compositor = client.bind_as(found.0, Interface::Compositor, 1);
        let surface = client.make(compositor, "create_surface", Interface::Surface, vec![]);
        client.say(surface, "damage_buffer", [0, 0, 1, 1].map(Arg::Int).into());
    });
}

#[test]
fn objects_that_are_gone_or_never_were_cannot_be_used() {
    let desktop = desktop!();
    let mut proxy = desktop.proxy("work", &[]);
    refused_by(&mut proxy, "it used object 4711", |client| {
        client.say_raw(4711, 0, vec![]);
    });
    refused_by(&mut proxy, "that is not there", |client| {
        let bound = Bound::new(client);
        let surface = bound.surface(client);
        client.say(surface, "destroy", vec![]);
        client.say(surface, "commit", vec![]);
    });
    refused_by(&mut proxy, "is no wl_buffer", |client| {
        let bound = Bound::new(client);
        let surface = bound.surface(client);
        let attach = vec![Arg::Object(surface), Arg::Int(0), Arg::Int(0)];
        client.say(surface, "attach", attach);
    });
    refused_by(&mut proxy, "is no wl_surface", |client| {
        let bound = Bound::new(client);
        let surface = bound.surface(client);
        client.say(surface, "destroy", vec![]);
        let object = vec![Arg::Object(surface)];
        client.make(bound.base, "get_xdg_surface", Interface::XdgSurface, object);
    });
    refused_by(&mut proxy, "it made object 1, which is there", |client| {
        client.say(1, "sync", vec![Arg::New(1)]);
    });
    refused_by(&mut proxy, "with the id 4278190080", |client| {
        client.say(1, "sync", vec![Arg::New(0xff00_0000)]);
    });
}

#[test]
fn a_surface_is_one_thing_and_not_its_own_ancestor() {
    let desktop = desktop!();
    let mut proxy = desktop.proxy("work", &[]);
    refused_by(&mut proxy, "its own ancestor", |client| {
        let bound = Bound::new(client);
        let (a, b) = (bound.surface(client), bound.surface(client));
        for pair in [[a, b], [b, a]] {
            let objects = pair.map(Arg::Object).into();
            client.make(bound.subcompositor, "get_subsurface", Interface::Subsurface, objects);
        }
    });
    refused_by(&mut proxy, "something else already", |client| {
        let bound = Bound::new(client);
        let window = Window::show(client, bound, (50, 50), BLUE.0);
        let other = bound.surface(client);
        let objects = [window.surface, other].map(Arg::Object).into();
        client.make(bound.subcompositor, "get_subsurface", Interface::Subsurface, objects);
    });
    refused_by(&mut proxy, "more than 16 subsurfaces above one another", |client| {
        let bound = Bound::new(client);
        let mut parent = bound.surface(client);
        for _ in 0..20 {
            (parent, _) = bound.subsurface(client, parent, (0, 0), (1, 1), WHITE.0);
        }
    });
}

#[test]
fn bytes_that_are_no_messages_end_the_client() {
    let desktop = desktop!();
    let mut proxy = desktop.proxy("work", &[]);
    let header = |object: u32, length: u32, opcode: u32| {
        [object.to_ne_bytes(), (length << 16 | opcode).to_ne_bytes()].concat()
    };
    refused_by(&mut proxy, "a message has 4 bytes", |client| client.write(&header(1, 4, 0)));
    refused_by(&mut proxy, "a message has 65532 bytes", |client| {
        client.write(&header(1, 65_532, 0));
    });
    refused_by(&mut proxy, "too short for its arguments", |client| client.write(&header(1, 8, 0)));
    refused_by(&mut proxy, "an argument is missing", |client| {
        client.write(&[header(1, 12, 0), vec![0; 4]].concat());
    });
    refused_by(&mut proxy, "a descriptor is missing", |client| {
        let shm = client.bind(Interface::Shm);
        client.sync().expect("alive");
        let body = [90_u32.to_ne_bytes(), 100_u32.to_ne_bytes()].concat();
        client.write(&[header(shm, 16, 0), body].concat());
    });
}

#[test]
fn half_a_message_holds_nobody_up() {
    let desktop = desktop!();
    let mut proxy = desktop.proxy("work", &[]);
    let silent: Vec<Client> = (0..20)
        .map(|_| {
            let client = Client::silent(&proxy.socket);
            client.write(&1_u32.to_ne_bytes());
            client.write(&[0, 0]);
            client
        })
        .collect();
    let mut honest = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut honest);
    Window::show(&mut honest, bound, (100, 100), BLUE.0);
    drop(silent);
    proxy.assert_alive();
}

#[test]
fn descriptors_that_no_message_asks_for_end_the_client() {
    let desktop = desktop!();
    let mut proxy = desktop.proxy("work", &[]);
    let before = descriptors(&proxy);
    refused_by(&mut proxy, "more than 56 descriptors beside its messages", |client| {
        for _ in 0..20 {
            let fds = (0..8).map(|_| Arg::Fd(null()));
            let callback = client.new_id(Interface::Callback);
            let mut arguments: Vec<Arg> = fds.collect();
            arguments.push(Arg::New(callback));
            client.say(1, "sync", arguments);
        }
    });
    until("they are closed", || (descriptors(&proxy) <= before + 4).then_some(()));
}

fn null() -> OwnedFd {
    File::open("/dev/null").expect("/dev/null").into()
}

fn descriptors(proxy: &Proxy) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).expect("a folder").count()
}

#[test]
fn too_many_of_anything_ends_the_client() {
    let desktop = desktop!();
    let mut proxy = desktop.proxy("work", &[]);
    refused_by(&mut proxy, "more than 8192 objects", |client| {
        let compositor = client.bind(Interface::Compositor);
        for _ in 0..9000 {
            client.make(compositor, "create_region", Interface::Region, vec![]);
        }
    });
    refused_by(&mut proxy, "more than 512 surfaces", |client| {
        let bound = Bound::new(client);
        for _ in 0..600 {
            bound.surface(client);
        }
    });
    refused_by(&mut proxy, "more than 64 windows", |client| {
        let bound = Bound::new(client);
        for _ in 0..70 {
            let surface = bound.surface(client);
            let object = vec![Arg::Object(surface)];
            let xdg = client.make(bound.base, "get_xdg_surface", Interface::XdgSurface, object);
            client.make(xdg, "get_toplevel", Interface::XdgToplevel, vec![]);
        }
    });
    refused_by(&mut proxy, "more than 512 rectangles of a region", |client| {
        let compositor = client.bind(Interface::Compositor);
        let region = client.make(compositor, "create_region", Interface::Region, vec![]);
        for at in 0..600 {
            client.say(region, "add", [at, 0, 1, 1].map(Arg::Int).into());
        }
    });
    refused_by(&mut proxy, "more than 256 callbacks", |client| {
        let bound = Bound::new(client);
        let surface = bound.surface(client);
        for _ in 0..300 {
            client.make(surface, "frame", Interface::Callback, vec![]);
            client.say(surface, "commit", vec![]);
        }
    });
    refused_by(&mut proxy, "more than 128 types", |client| {
        let manager = client.bind(Interface::DataDeviceManager);
        let source = client.make(manager, "create_data_source", Interface::DataSource, vec![]);
        for number in 0..200 {
            client.say(source, "offer", vec![Arg::String(Some(format!("a/{number}")))]);
        }
    });
}

#[test]
fn shared_memory_is_checked_and_counted() {
    let desktop = desktop!();
    let mut proxy = desktop.proxy("work", &[]);
    let pool = |client: &mut Client, fd: OwnedFd, size: i32| {
        let shm = client.bind(Interface::Shm);
        let pool = client.new_id(Interface::ShmPool);
        client.say(shm, "create_pool", vec![Arg::New(pool), Arg::Fd(fd), Arg::Int(size)]);
        pool
    };
    refused_by(&mut proxy, "is no file in memory", |client| {
        pool(client, null(), 4096);
    });
    refused_by(&mut proxy, "is no file in memory", |client| {
        let (end, _) = rustix::pipe::pipe().expect("a pipe");
        pool(client, end, 4096);
    });
    refused_by(&mut proxy, "bytes of shared memory", |client| {
        for _ in 0..3 {
            pool(client, Client::memory(&[0]), 1 << 30);
        }
    });
    refused_by(&mut proxy, "a pool has no size", |client| {
        pool(client, Client::memory(&[0]), -1);
    });
    for (offset, width, height, stride) in
        [(0, 10, 10, 41), (0, i32::MAX, 1, 4), (-4, 10, 10, 40), (0, 10, -10, 40), (8, 10, 10, 40)]
    {
        refused_by(&mut proxy, "a buffer does not fit its pool", |client| {
            let pool = pool(client, Client::memory(&[0; 400]), 400);
            let mut numbers: Vec<Arg> = [offset, width, height, stride].map(Arg::Int).into();
            numbers.push(Arg::Uint(0));
            client.make(pool, "create_buffer", Interface::Buffer, numbers);
        });
    }
}

#[test]
fn a_memory_file_that_shrinks_hurts_only_its_client() {
    let desktop = desktop!();
    let mut proxy = desktop.proxy("work", &[]);
    let mut honest = Client::connect(&proxy.socket);
    let mut client = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut client);
    let window = Window::show(&mut client, bound, (100, 100), PINK.0);
    let size = 200 * 200 * 4;
    let file = Client::memory(&vec![0; size as usize]);
    let keep = File::from(file.try_clone().expect("duplicated"));
    let pool = client.new_id(Interface::ShmPool);
    let arguments = vec![Arg::New(pool), Arg::Fd(file), Arg::Int(size)];
    client.say(bound.shm, "create_pool", arguments);
    let mut numbers: Vec<Arg> = [0, 200, 200, 800].map(Arg::Int).into();
    numbers.push(Arg::Uint(0));
    let buffer = client.make(pool, "create_buffer", Interface::Buffer, numbers);
    client.sync().expect("alive");
    keep.set_len(0).expect("truncated");
    let attach = vec![Arg::Object(buffer), Arg::Int(0), Arg::Int(0)];
    client.say(window.surface, "attach", attach);
    client.say(window.surface, "damage", [0, 0, 200, 200].map(Arg::Int).into());
    client.say(window.surface, "commit", vec![]);
    // Whether the compositor ends it for that is the compositor's business.
    let _ = client.sync();
    desktop.picture();
    let bound = Bound::new(&mut honest);
    Window::show(&mut honest, bound, (100, 100), BLUE.0);
    proxy.assert_alive();
}

#[test]
fn a_client_that_does_not_read_is_disconnected_and_costs_little() {
    let desktop = desktop!();
    let mut proxy = desktop.proxy("work", &[]);
    let mut honest = Client::connect(&proxy.socket);
    let client = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut honest);
    let socket = client.raw.try_clone().expect("duplicated");
    let timeout = Some(std::time::Duration::from_millis(300));
    rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Send, timeout)
        .expect("a timeout");
    // Asks again and again, never reads an answer.
    let mut round = 0_u32;
    let ended = until("it is disconnected", || {
        for _ in 0..200 {
            round += 1;
            // Ids are free again once the answer is sent, so few are enough; one at a time here.
            let id = 10_000 + round;
            let message = [1_u32, 12 << 16, id].map(u32::to_ne_bytes).concat();
            match rustix::io::write(&client.raw, &message) {
                Ok(_) => {}
                Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => return Some(true),
                Err(_) => break,
            }
        }
        proxy.log().contains("ended").then_some(true)
    });
    assert!(ended);
    assert!(proxy.peak() < 64 * 1024, "{} KiB", proxy.peak());
    Window::show(&mut honest, bound, (100, 100), BLUE.0);
    proxy.assert_alive();
}

#[test]
fn floods_of_requests_do_not_grow_the_proxy_nor_stop_others() {
    let desktop = desktop!();
    let mut proxy = desktop.proxy("work", &[]);
    let mut honest = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut honest);
    let path = proxy.socket.clone();
    let flood = std::thread::spawn(move || {
        let mut clients: Vec<(Client, u32, u32)> = (0..4)
            .map(|_| {
                let mut client = Client::connect(&path);
                let bound = Bound::new(&mut client);
                let window = Window::show(&mut client, bound, (50, 50), PINK.0);
                let text = client.bind(Interface::TextInputManager);
                let seat = vec![Arg::Object(bound.seat)];
                let text = client.make(text, "get_text_input", Interface::TextInput, seat);
                (client, window.surface, text)
            })
            .collect();
        for _ in 0..40 {
            for (client, surface, text) in &mut clients {
                for number in 0..500 {
                    // Long, and no work for the compositor.
                    let words = vec![Arg::String(Some("x".repeat(500))), Arg::Int(0), Arg::Int(0)];
                    client.say(*text, "set_surrounding_text", words);
                    let damage = [number, 0, 1, 1].map(Arg::Int).into();
                    client.say(*surface, "damage", damage);
                    client.say(*surface, "commit", vec![]);
                }
                if client.turn().is_err() {
                    return;
                }
            }
        }
        for (client, ..) in &mut clients {
            let _ = client.sync();
        }
    });
    for _ in 0..5 {
        let window = Window::show(&mut honest, bound, (100, 100), BLUE.0);
        honest.say(window.toplevel, "destroy", vec![]);
        honest.say(window.xdg, "destroy", vec![]);
        honest.sync().expect("served");
    }
    flood.join().expect("no panic");
    assert!(proxy.peak() < 64 * 1024, "{} KiB", proxy.peak());
    proxy.assert_alive();
}

#[test]
fn small_requests_without_end_are_not_read_before_they_can_be_handled() {
    let desktop = desktop!();
    let mut proxy = desktop.proxy("work", &[]);
    let mut client = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut client);
    let window = Window::show(&mut client, bound, (50, 50), PINK.0);
    let (_, sub) = bound.subsurface(&mut client, window.surface, (0, 0), (10, 10), BLUE.0);
    client.sync().expect("alive");
    let before = proxy.peak();
    // `wl_subsurface.set_sync`: eight bytes, and nothing for the compositor.
    let message = [sub, 8 << 16 | 4].map(u32::to_ne_bytes).concat();
    let many = message.repeat(8192);
    for _ in 0..512 {
        let mut rest = &many[..];
        while !rest.is_empty() {
            let written = rustix::io::write(&client.raw, rest).expect("it is read");
            rest = &rest[written..];
        }
    }
    client.sync().expect("alive");
    // 32 MiB were said.
    assert!(proxy.peak() - before < 4 * 1024, "{} KiB before, {} now", before, proxy.peak());
    proxy.assert_alive();
}

#[test]
fn regions_that_surfaces_keep_are_counted_too() {
    refused("ended: more than 16384 rectangles of regions", |client| {
        let bound = Bound::new(client);
        for _ in 0..64 {
            let surface = bound.surface(client);
            let region = client.make(bound.compositor, "create_region", Interface::Region, vec![]);
            for number in 0..500 {
                client.say(region, "add", [number, 0, 1, 1].map(Arg::Int).into());
            }
            client.say(surface, "set_input_region", vec![Arg::Object(region)]);
            client.say(region, "destroy", vec![]);
        }
    });
}

#[test]
fn types_of_a_selection_are_counted_in_bytes_too() {
    refused("ended: more than 8192 bytes of the types of a selection", |client| {
        let manager = client.bind(Interface::DataDeviceManager);
        let source = client.make(manager, "create_data_source", Interface::DataSource, vec![]);
        for _ in 0..100 {
            client.say(source, "offer", vec![Arg::String(Some("x".repeat(250)))]);
        }
    });
}

#[test]
fn memory_of_all_clients_is_measured_and_the_largest_goes() {
    let desktop = desktop!();
    let mut proxy = desktop.proxy("work", &[]);
    let mut honest = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut honest);
    let mut clients = Vec::new();
    for _ in 0..30 {
        let mut client = Client::connect(&proxy.socket);
        let bound = Bound::new(&mut client);
        let manager = client.bind(Interface::DataDeviceManager);
        // Each within every limit of one client.
        for _ in 0..60 {
            let source = client.make(manager, "create_data_source", Interface::DataSource, vec![]);
            for _ in 0..120 {
                client.say(source, "offer", vec![Arg::String(Some("x".repeat(60)))]);
            }
        }
        for _ in 0..500 {
            let surface = bound.surface(&mut client);
            for number in 0..30 {
                for name in ["damage", "damage_buffer"] {
                    client.say(surface, name, [number, 0, 1, 1].map(Arg::Int).into());
                }
            }
        }
        let _ = client.sync();
        clients.push(client);
    }
    proxy.logs("bytes of memory of all clients");
    assert!(proxy.peak() < 64 * 1024, "{} KiB", proxy.peak());
    Window::show(&mut honest, bound, (100, 100), BLUE.0);
    proxy.assert_alive();
}

#[test]
fn clients_that_are_ended_again_and_again_do_not_fill_the_log() {
    let desktop = desktop!();
    let mut proxy = desktop.proxy("work", &[]);
    for _ in 0..200 {
        let mut client = Client::silent(&proxy.socket);
        client.say_raw(4711, 0, vec![]);
        client.until_disconnected();
    }
    assert_eq!(proxy.log().lines().count(), 60);
    proxy.assert_alive();
}

#[test]
fn clients_beyond_the_limit_wait_for_others_to_leave() {
    let desktop = desktop!();
    let mut proxy = desktop.proxy("work", &[]);
    let mut clients: Vec<Client> = (0..32).map(|_| Client::connect(&proxy.socket)).collect();
    let mut late = Client::silent(&proxy.socket);
    late.make(1, "sync", Interface::Callback, vec![]);
    for _ in 0..5 {
        late.turn().expect("it waits");
    }
    assert!(late.events.is_empty());
    clients.pop();
    late.wait(|client| client.events.first().map(|_| ())).expect("served");
    proxy.assert_alive();
}

#[test]
fn the_process_can_open_connect_and_start_nothing() {
    let desktop = desktop!();
    let proxy = desktop.proxy("work", &[]);
    Client::connect(&proxy.socket);
    // A filter, and no way to gain privileges.
    assert_eq!((proxy.status("Seccomp:"), proxy.status("NoNewPrivs:")), (2, 1));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", proxy.pid())).expect("limits");
    let line = limits.lines().find(|line| line.starts_with("Max data size")).expect("a line");
    assert!(line.contains(&(64 << 20).to_string()), "{line}");
}

#[test]
fn a_compositor_that_is_not_there_is_said_and_comes_back() {
    let desktop = desktop!();
    let missing = desktop.path("wayland-7");
    let mut proxy = desktop.proxy_of("work", &[], &missing);
    let mut client = Client::silent(&proxy.socket);
    client.make(1, "sync", Interface::Callback, vec![]);
    client.until_disconnected();
    proxy.logs("could not connect it to the compositor");
    std::os::unix::fs::symlink(desktop.wayland(), &missing).expect("a link");
    Client::connect(&proxy.socket);
    proxy.assert_alive();
}

#[test]
fn clients_end_with_the_compositor_and_the_proxy_stays() {
    let Ok(desktop) = Desktop::start("") else {
        println!("skipped: sway is not installed");
        return;
    };
    let mut proxy = desktop.proxy("work", &[]);
    let mut client = Client::connect(&proxy.socket);
    let bound = Bound::new(&mut client);
    Window::show(&mut client, bound, (100, 100), BLUE.0);
    desktop.sway("exit");
    client.until_disconnected();
    proxy.logs("the compositor ended it");
    proxy.assert_alive();
}

#[test]
fn other_roles_of_a_hostile_client_end_it_too() {
    refused("a popup has no parent", |client| {
        let bound = Bound::new(client);
        let surface = bound.surface(client);
        let object = vec![Arg::Object(surface)];
        let xdg = client.make(bound.base, "get_xdg_surface", Interface::XdgSurface, object);
        let positioner =
            client.make(bound.base, "create_positioner", Interface::XdgPositioner, vec![]);
        let arguments = vec![Arg::Object(0), Arg::Object(positioner)];
        client.make(xdg, "get_popup", Interface::XdgPopup, arguments);
    });
}
