//! Definitions of the smaller protocols: what exists, and what is done with each message.
//!
//! A test compares them with the published definitions. `Refuse` stands for a request that ends the
//! client, and for an event that nobody expects.

use super::Interface::*;
use super::Kind::*;
use super::Rule::*;
use super::{Definition, last, message};
use crate::client::{display, screen, seat, selection, surface, viewport};

/// `wp_viewporter`.
pub(super) static VIEWPORTER: Definition = Definition {
    name: "wp_viewporter",
    version: 1,
    requests: &[
        last("destroy", 1, &[], Handle(display::end)),
        message("get_viewport", 1, &[New(Viewport), Object(Surface)], Handle(viewport::create)),
    ],
    events: &[],
};

/// `wp_viewport`.
pub(super) static VIEWPORT: Definition = Definition {
    name: "wp_viewport",
    version: 1,
    requests: &[
        last("destroy", 1, &[], Handle(viewport::destroy)),
        message("set_source", 1, &[Fixed, Fixed, Fixed, Fixed], Handle(viewport::set_source)),
        message("set_destination", 1, &[Int, Int], Handle(viewport::set_destination)),
    ],
    events: &[],
};

/// `wp_cursor_shape_manager_v1`.
pub(super) static CURSOR_SHAPE_MANAGER: Definition = Definition {
    name: "wp_cursor_shape_manager_v1",
    version: 1,
    requests: &[
        last("destroy", 1, &[], Forward),
        message("get_pointer", 1, &[New(CursorShapeDevice), Object(Pointer)], Forward),
        message("get_tablet_tool_v2", 1, &[New(CursorShapeDevice), AnyObject], Refuse),
    ],
    events: &[],
};

/// `wp_cursor_shape_device_v1`.
pub(super) static CURSOR_SHAPE_DEVICE: Definition = Definition {
    name: "wp_cursor_shape_device_v1",
    version: 1,
    requests: &[last("destroy", 1, &[], Forward), message("set_shape", 1, &[Uint, Uint], Forward)],
    events: &[],
};

/// `wp_presentation`.
pub(super) static PRESENTATION: Definition = Definition {
    name: "wp_presentation",
    version: 1,
    requests: &[
        last("destroy", 1, &[], Forward),
        message(
            "feedback",
            1,
            &[Object(Surface), New(PresentationFeedback)],
            Handle(surface::feedback),
        ),
    ],
    events: &[message("clock_id", 1, &[Uint], Forward)],
};

/// `wp_presentation_feedback`.
pub(super) static PRESENTATION_FEEDBACK: Definition = Definition {
    name: "wp_presentation_feedback",
    version: 1,
    requests: &[],
    events: &[
        message("sync_output", 1, &[Object(Output)], Forward),
        last("presented", 1, &[Uint, Uint, Uint, Uint, Uint, Uint, Uint], Forward),
        last("discarded", 1, &[], Forward),
    ],
};

/// `wp_fractional_scale_manager_v1`.
pub(super) static FRACTIONAL_SCALE_MANAGER: Definition = Definition {
    name: "wp_fractional_scale_manager_v1",
    version: 1,
    requests: &[
        last("destroy", 1, &[], Forward),
        message(
            "get_fractional_scale",
            1,
            &[New(FractionalScale), Object(Surface)],
            Handle(screen::get_fractional_scale),
        ),
    ],
    events: &[],
};

/// `wp_fractional_scale_v1`.
pub(super) static FRACTIONAL_SCALE: Definition = Definition {
    name: "wp_fractional_scale_v1",
    version: 1,
    requests: &[last("destroy", 1, &[], Forward)],
    events: &[message("preferred_scale", 1, &[Uint], Handle(screen::preferred_scale))],
};

/// `zxdg_output_manager_v1`.
pub(super) static XDG_OUTPUT_MANAGER: Definition = Definition {
    name: "zxdg_output_manager_v1",
    version: 3,
    requests: &[
        last("destroy", 1, &[], Forward),
        message("get_xdg_output", 1, &[New(XdgOutput), Object(Output)], Forward),
    ],
    events: &[],
};

/// `zxdg_output_v1`.
pub(super) static XDG_OUTPUT: Definition = Definition {
    name: "zxdg_output_v1",
    version: 3,
    requests: &[last("destroy", 1, &[], Forward)],
    events: &[
        message("logical_position", 1, &[Int, Int], Forward),
        message("logical_size", 1, &[Int, Int], Forward),
        message("done", 1, &[], Forward),
        message("name", 2, &[String], Handle(screen::name)),
        message("description", 2, &[String], Handle(screen::description)),
    ],
};

/// `zwp_text_input_v3`.
pub(super) static TEXT_INPUT: Definition = Definition {
    name: "zwp_text_input_v3",
    version: 1,
    requests: &[
        last("destroy", 1, &[], Handle(seat::destroy_text_input)),
        message("enable", 1, &[], Forward),
        message("disable", 1, &[], Forward),
        message("set_surrounding_text", 1, &[String, Int, Int], Forward),
        message("set_text_change_cause", 1, &[Uint], Forward),
        message("set_content_type", 1, &[Uint, Uint], Forward),
        message(
            "set_cursor_rectangle",
            1,
            &[Int, Int, Int, Int],
            Handle(seat::set_cursor_rectangle),
        ),
        message("commit", 1, &[], Forward),
    ],
    events: &[
        message("enter", 1, &[Object(Surface)], Handle(seat::text_input_enter)),
        message("leave", 1, &[Object(Surface)], Handle(seat::text_input_leave)),
        message("preedit_string", 1, &[StringOrNull, Int, Int], Forward),
        message("commit_string", 1, &[StringOrNull], Forward),
        message("delete_surrounding_text", 1, &[Uint, Uint], Forward),
        message("done", 1, &[Uint], Forward),
    ],
};

/// `zwp_text_input_manager_v3`.
pub(super) static TEXT_INPUT_MANAGER: Definition = Definition {
    name: "zwp_text_input_manager_v3",
    version: 1,
    requests: &[
        last("destroy", 1, &[], Forward),
        message("get_text_input", 1, &[New(TextInput), Object(Seat)], Forward),
    ],
    events: &[],
};

/// `zwp_primary_selection_device_manager_v1`.
pub(super) static PRIMARY_SELECTION_DEVICE_MANAGER: Definition = Definition {
    name: "zwp_primary_selection_device_manager_v1",
    version: 1,
    requests: &[
        message(
            "create_source",
            1,
            &[New(PrimarySelectionSource)],
            Handle(selection::create_source),
        ),
        message(
            "get_device",
            1,
            &[New(PrimarySelectionDevice), Object(Seat)],
            Handle(selection::get_device),
        ),
        last("destroy", 1, &[], Handle(display::end)),
    ],
    events: &[],
};

/// `zwp_primary_selection_device_v1`.
pub(super) static PRIMARY_SELECTION_DEVICE: Definition = Definition {
    name: "zwp_primary_selection_device_v1",
    version: 1,
    requests: &[
        message(
            "set_selection",
            1,
            &[ObjectOrNull(PrimarySelectionSource), Uint],
            Handle(selection::set_selection),
        ),
        last("destroy", 1, &[], Handle(selection::release_device)),
    ],
    events: &[
        message("data_offer", 1, &[New(PrimarySelectionOffer)], Refuse),
        message("selection", 1, &[ObjectOrNull(PrimarySelectionOffer)], Refuse),
    ],
};

/// `zwp_primary_selection_offer_v1`.
pub(super) static PRIMARY_SELECTION_OFFER: Definition = Definition {
    name: "zwp_primary_selection_offer_v1",
    version: 1,
    requests: &[
        message("receive", 1, &[String, Fd], Handle(selection::receive)),
        last("destroy", 1, &[], Handle(selection::destroy_offer)),
    ],
    events: &[message("offer", 1, &[String], Refuse)],
};

/// `zwp_primary_selection_source_v1`.
pub(super) static PRIMARY_SELECTION_SOURCE: Definition = Definition {
    name: "zwp_primary_selection_source_v1",
    version: 1,
    requests: &[
        message("offer", 1, &[String], Handle(selection::source_offer)),
        last("destroy", 1, &[], Handle(selection::destroy_source)),
    ],
    events: &[message("send", 1, &[String, Fd], Refuse), message("cancelled", 1, &[], Refuse)],
};

/// `zwp_pointer_constraints_v1`.
pub(super) static POINTER_CONSTRAINTS: Definition = Definition {
    name: "zwp_pointer_constraints_v1",
    version: 1,
    requests: &[
        last("destroy", 1, &[], Forward),
        message(
            "lock_pointer",
            1,
            &[New(LockedPointer), Object(Surface), Object(Pointer), ObjectOrNull(Region), Uint],
            Handle(seat::constrain_pointer),
        ),
        message(
            "confine_pointer",
            1,
            &[New(ConfinedPointer), Object(Surface), Object(Pointer), ObjectOrNull(Region), Uint],
            Handle(seat::constrain_pointer),
        ),
    ],
    events: &[],
};

/// `zwp_locked_pointer_v1`.
pub(super) static LOCKED_POINTER: Definition = Definition {
    name: "zwp_locked_pointer_v1",
    version: 1,
    requests: &[
        last("destroy", 1, &[], Forward),
        message("set_cursor_position_hint", 1, &[Fixed, Fixed], Handle(seat::ignore)),
        message("set_region", 1, &[ObjectOrNull(Region)], Handle(seat::ignore)),
    ],
    events: &[message("locked", 1, &[], Forward), message("unlocked", 1, &[], Forward)],
};

/// `zwp_confined_pointer_v1`.
pub(super) static CONFINED_POINTER: Definition = Definition {
    name: "zwp_confined_pointer_v1",
    version: 1,
    requests: &[
        last("destroy", 1, &[], Forward),
        message("set_region", 1, &[ObjectOrNull(Region)], Handle(seat::ignore)),
    ],
    events: &[message("confined", 1, &[], Forward), message("unconfined", 1, &[], Forward)],
};
