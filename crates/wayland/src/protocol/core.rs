//! Definitions of wayland.xml: what exists, and what is done with each message.
//!
//! A test compares them with the published definitions. `Refuse` stands for a request that ends the
//! client, and for an event that nobody expects.

use super::Interface::*;
use super::Kind::*;
use super::Rule::*;
use super::{Definition, last, message};
use crate::client::{
    cursor, display, drag, keyboard, region, registry, screen, seat, selection, shm, subsurface,
    surface,
};

/// `wl_display`.
pub(super) static DISPLAY: Definition = Definition {
    name: "wl_display",
    version: 1,
    requests: &[
        message("sync", 1, &[New(Callback)], Forward),
        message("get_registry", 1, &[New(Registry)], Handle(registry::create)),
    ],
    events: &[
        message("error", 1, &[AnyObject, Uint, String], Handle(display::error)),
        message("delete_id", 1, &[Uint], Handle(display::delete_id)),
    ],
};

/// `wl_registry`.
pub(super) static REGISTRY: Definition = Definition {
    name: "wl_registry",
    version: 1,
    requests: &[message("bind", 1, &[Uint, String, Uint, NewAny], Handle(registry::bind))],
    events: &[
        message("global", 1, &[Uint, String, Uint], Refuse),
        message("global_remove", 1, &[Uint], Refuse),
    ],
};

/// `wl_callback`.
pub(super) static CALLBACK: Definition = Definition {
    name: "wl_callback",
    version: 1,
    requests: &[],
    events: &[last("done", 1, &[Uint], Forward)],
};

/// `wl_compositor`.
pub(super) static COMPOSITOR: Definition = Definition {
    name: "wl_compositor",
    version: 6,
    requests: &[
        message("create_surface", 1, &[New(Surface)], Handle(surface::create)),
        message("create_region", 1, &[New(Region)], Handle(region::create)),
    ],
    events: &[],
};

/// `wl_shm_pool`.
pub(super) static SHM_POOL: Definition = Definition {
    name: "wl_shm_pool",
    version: 1,
    requests: &[
        message(
            "create_buffer",
            1,
            &[New(Buffer), Int, Int, Int, Int, Uint],
            Handle(shm::create_buffer),
        ),
        last("destroy", 1, &[], Handle(shm::destroy_pool)),
        message("resize", 1, &[Int], Handle(shm::resize_pool)),
    ],
    events: &[],
};

/// `wl_shm`.
pub(super) static SHM: Definition = Definition {
    name: "wl_shm",
    version: 1,
    requests: &[message("create_pool", 1, &[New(ShmPool), Fd, Int], Handle(shm::create_pool))],
    events: &[message("format", 1, &[Uint], Forward)],
};

/// `wl_buffer`.
pub(super) static BUFFER: Definition = Definition {
    name: "wl_buffer",
    version: 1,
    requests: &[last("destroy", 1, &[], Handle(shm::destroy_buffer))],
    events: &[message("release", 1, &[], Handle(shm::release))],
};

/// `wl_data_offer`.
pub(super) static DATA_OFFER: Definition = Definition {
    name: "wl_data_offer",
    version: 3,
    requests: &[
        message("accept", 1, &[Uint, StringOrNull], Handle(drag::accept)),
        message("receive", 1, &[String, Fd], Handle(selection::receive)),
        last("destroy", 1, &[], Handle(selection::destroy_offer)),
        message("finish", 3, &[], Handle(drag::finish)),
        message("set_actions", 3, &[Uint, Uint], Handle(drag::offer_actions)),
    ],
    events: &[
        message("offer", 1, &[String], Refuse),
        message("source_actions", 3, &[Uint], Refuse),
        message("action", 3, &[Uint], Refuse),
    ],
};

/// `wl_data_source`.
pub(super) static DATA_SOURCE: Definition = Definition {
    name: "wl_data_source",
    version: 3,
    requests: &[
        message("offer", 1, &[String], Handle(selection::source_offer)),
        last("destroy", 1, &[], Handle(selection::destroy_source)),
        message("set_actions", 3, &[Uint], Handle(drag::source_actions)),
    ],
    events: &[
        message("target", 1, &[StringOrNull], Refuse),
        message("send", 1, &[String, Fd], Refuse),
        message("cancelled", 1, &[], Refuse),
        message("dnd_drop_performed", 3, &[], Refuse),
        message("dnd_finished", 3, &[], Refuse),
        message("action", 3, &[Uint], Refuse),
    ],
};

/// `wl_data_device`.
pub(super) static DATA_DEVICE: Definition = Definition {
    name: "wl_data_device",
    version: 3,
    requests: &[
        message(
            "start_drag",
            1,
            &[ObjectOrNull(DataSource), Object(Surface), ObjectOrNull(Surface), Uint],
            Handle(drag::start),
        ),
        message(
            "set_selection",
            1,
            &[ObjectOrNull(DataSource), Uint],
            Handle(selection::set_selection),
        ),
        last("release", 2, &[], Handle(selection::release_device)),
    ],
    events: &[
        message("data_offer", 1, &[New(DataOffer)], Refuse),
        message(
            "enter",
            1,
            &[Uint, Object(Surface), Fixed, Fixed, ObjectOrNull(DataOffer)],
            Refuse,
        ),
        message("leave", 1, &[], Refuse),
        message("motion", 1, &[Uint, Fixed, Fixed], Refuse),
        message("drop", 1, &[], Refuse),
        message("selection", 1, &[ObjectOrNull(DataOffer)], Refuse),
    ],
};

/// `wl_data_device_manager`.
pub(super) static DATA_DEVICE_MANAGER: Definition = Definition {
    name: "wl_data_device_manager",
    version: 3,
    requests: &[
        message("create_data_source", 1, &[New(DataSource)], Handle(selection::create_source)),
        message(
            "get_data_device",
            1,
            &[New(DataDevice), Object(Seat)],
            Handle(selection::get_device),
        ),
    ],
    events: &[],
};

/// `wl_surface`.
pub(super) static SURFACE: Definition = Definition {
    name: "wl_surface",
    version: 6,
    requests: &[
        last("destroy", 1, &[], Handle(surface::destroy)),
        message("attach", 1, &[ObjectOrNull(Buffer), Int, Int], Handle(surface::attach)),
        message("damage", 1, &[Int, Int, Int, Int], Handle(surface::damage)),
        message("frame", 1, &[New(Callback)], Handle(surface::frame)),
        message(
            "set_opaque_region",
            1,
            &[ObjectOrNull(Region)],
            Handle(surface::set_opaque_region),
        ),
        message("set_input_region", 1, &[ObjectOrNull(Region)], Handle(surface::set_input_region)),
        message("commit", 1, &[], Handle(surface::commit)),
        message("set_buffer_transform", 2, &[Int], Handle(surface::set_buffer_transform)),
        message("set_buffer_scale", 3, &[Int], Handle(surface::set_buffer_scale)),
        message("damage_buffer", 4, &[Int, Int, Int, Int], Handle(surface::damage_buffer)),
        message("offset", 5, &[Int, Int], Handle(surface::offset)),
    ],
    events: &[
        message("enter", 1, &[Object(Output)], Handle(screen::enter)),
        message("leave", 1, &[Object(Output)], Handle(screen::leave)),
        message("preferred_buffer_scale", 6, &[Int], Forward),
        message("preferred_buffer_transform", 6, &[Uint], Forward),
    ],
};

/// `wl_seat`.
pub(super) static SEAT: Definition = Definition {
    name: "wl_seat",
    version: 8,
    requests: &[
        message("get_pointer", 1, &[New(Pointer)], Handle(seat::get_pointer)),
        message("get_keyboard", 1, &[New(Keyboard)], Handle(keyboard::create)),
        message("get_touch", 1, &[New(Touch)], Forward),
        last("release", 5, &[], Forward),
    ],
    events: &[message("capabilities", 1, &[Uint], Forward), message("name", 2, &[String], Forward)],
};

/// `wl_pointer`.
pub(super) static POINTER: Definition = Definition {
    name: "wl_pointer",
    version: 8,
    requests: &[
        message(
            "set_cursor",
            1,
            &[Uint, ObjectOrNull(Surface), Int, Int],
            Handle(cursor::set_cursor),
        ),
        last("release", 3, &[], Handle(seat::release_pointer)),
    ],
    events: &[
        message("enter", 1, &[Uint, Object(Surface), Fixed, Fixed], Handle(seat::pointer_enter)),
        message("leave", 1, &[Uint, Object(Surface)], Handle(seat::pointer_leave)),
        message("motion", 1, &[Uint, Fixed, Fixed], Handle(seat::pointer_motion)),
        message("button", 1, &[Uint, Uint, Uint, Uint], Handle(seat::pointer_button)),
        message("axis", 1, &[Uint, Uint, Fixed], Handle(seat::pointer_axis)),
        message("frame", 5, &[], Forward),
        message("axis_source", 5, &[Uint], Handle(seat::pointer_axis)),
        message("axis_stop", 5, &[Uint, Uint], Handle(seat::pointer_axis)),
        message("axis_discrete", 5, &[Uint, Int], Handle(seat::pointer_axis)),
        message("axis_value120", 8, &[Uint, Int], Handle(seat::pointer_axis)),
    ],
};

/// `wl_keyboard`.
pub(super) static KEYBOARD: Definition = Definition {
    name: "wl_keyboard",
    version: 8,
    requests: &[last("release", 3, &[], Handle(keyboard::release))],
    events: &[
        message("keymap", 1, &[Uint, Fd, Uint], Forward),
        message("enter", 1, &[Uint, Object(Surface), Array], Handle(keyboard::enter)),
        message("leave", 1, &[Uint, Object(Surface)], Handle(keyboard::leave)),
        message("key", 1, &[Uint, Uint, Uint, Uint], Forward),
        message("modifiers", 1, &[Uint, Uint, Uint, Uint, Uint], Forward),
        message("repeat_info", 4, &[Int, Int], Forward),
    ],
};

/// `wl_touch`.
pub(super) static TOUCH: Definition = Definition {
    name: "wl_touch",
    version: 8,
    requests: &[last("release", 3, &[], Handle(seat::release_touch))],
    events: &[
        message(
            "down",
            1,
            &[Uint, Uint, Object(Surface), Int, Fixed, Fixed],
            Handle(seat::touch_down),
        ),
        message("up", 1, &[Uint, Uint, Int], Handle(seat::touch_up)),
        message("motion", 1, &[Uint, Int, Fixed, Fixed], Handle(seat::touch_motion)),
        message("frame", 1, &[], Forward),
        message("cancel", 1, &[], Handle(seat::touch_cancel)),
        message("shape", 6, &[Int, Fixed, Fixed], Handle(seat::touch_shape)),
        message("orientation", 6, &[Int, Fixed], Handle(seat::touch_shape)),
    ],
};

/// `wl_output`.
pub(super) static OUTPUT: Definition = Definition {
    name: "wl_output",
    version: 4,
    requests: &[last("release", 3, &[], Forward)],
    events: &[
        message(
            "geometry",
            1,
            &[Int, Int, Int, Int, Int, String, String, Int],
            Handle(screen::geometry),
        ),
        message("mode", 1, &[Uint, Int, Int, Int], Forward),
        message("done", 2, &[], Forward),
        message("scale", 2, &[Int], Forward),
        message("name", 4, &[String], Handle(screen::name)),
        message("description", 4, &[String], Handle(screen::description)),
    ],
};

/// `wl_region`.
pub(super) static REGION: Definition = Definition {
    name: "wl_region",
    version: 6,
    requests: &[
        last("destroy", 1, &[], Handle(region::destroy)),
        message("add", 1, &[Int, Int, Int, Int], Handle(region::add)),
        message("subtract", 1, &[Int, Int, Int, Int], Handle(region::subtract)),
    ],
    events: &[],
};

/// `wl_subcompositor`.
pub(super) static SUBCOMPOSITOR: Definition = Definition {
    name: "wl_subcompositor",
    version: 1,
    requests: &[
        last("destroy", 1, &[], Forward),
        message(
            "get_subsurface",
            1,
            &[New(Subsurface), Object(Surface), Object(Surface)],
            Handle(subsurface::create),
        ),
    ],
    events: &[],
};

/// `wl_subsurface`.
pub(super) static SUBSURFACE: Definition = Definition {
    name: "wl_subsurface",
    version: 1,
    requests: &[
        last("destroy", 1, &[], Handle(subsurface::destroy)),
        message("set_position", 1, &[Int, Int], Handle(subsurface::set_position)),
        message("place_above", 1, &[Object(Surface)], Handle(subsurface::place_above)),
        message("place_below", 1, &[Object(Surface)], Handle(subsurface::place_below)),
        message("set_sync", 1, &[], Handle(subsurface::set_sync)),
        message("set_desync", 1, &[], Handle(subsurface::set_desync)),
    ],
    events: &[],
};
