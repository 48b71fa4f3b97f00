//! Definitions of xdg-shell, xdg-decoration and xdg-activation: what exists, and what is done with each message.
//!
//! A test compares them with the published definitions. `Refuse` stands for a request that ends the
//! client, and for an event that nobody expects.

use super::Interface::*;
use super::Kind::*;
use super::Rule::*;
use super::{Definition, last, message};
use crate::client::{popup, positioner, shell, toplevel};

/// `xdg_wm_base`.
pub(super) static XDG_WM_BASE: Definition = Definition {
    name: "xdg_wm_base",
    version: 6,
    requests: &[
        last("destroy", 1, &[], Forward),
        message("create_positioner", 1, &[New(XdgPositioner)], Handle(positioner::create)),
        message(
            "get_xdg_surface",
            1,
            &[New(XdgSurface), Object(Surface)],
            Handle(shell::get_xdg_surface),
        ),
        message("pong", 1, &[Uint], Forward),
    ],
    events: &[message("ping", 1, &[Uint], Forward)],
};

/// `xdg_positioner`.
pub(super) static XDG_POSITIONER: Definition = Definition {
    name: "xdg_positioner",
    version: 6,
    requests: &[
        last("destroy", 1, &[], Handle(positioner::destroy)),
        message("set_size", 1, &[Int, Int], Handle(positioner::set_size)),
        message("set_anchor_rect", 1, &[Int, Int, Int, Int], Handle(positioner::set_anchor_rect)),
        message("set_anchor", 1, &[Uint], Handle(positioner::set_anchor)),
        message("set_gravity", 1, &[Uint], Handle(positioner::set_gravity)),
        message(
            "set_constraint_adjustment",
            1,
            &[Uint],
            Handle(positioner::set_constraint_adjustment),
        ),
        message("set_offset", 1, &[Int, Int], Handle(positioner::set_offset)),
        message("set_reactive", 3, &[], Handle(positioner::set_reactive)),
        message("set_parent_size", 3, &[Int, Int], Handle(positioner::set_parent_size)),
        message("set_parent_configure", 3, &[Uint], Handle(positioner::set_parent_configure)),
    ],
    events: &[],
};

/// `xdg_surface`.
pub(super) static XDG_SURFACE: Definition = Definition {
    name: "xdg_surface",
    version: 6,
    requests: &[
        last("destroy", 1, &[], Handle(shell::destroy)),
        message("get_toplevel", 1, &[New(XdgToplevel)], Handle(toplevel::create)),
        message(
            "get_popup",
            1,
            &[New(XdgPopup), ObjectOrNull(XdgSurface), Object(XdgPositioner)],
            Handle(popup::create),
        ),
        message(
            "set_window_geometry",
            1,
            &[Int, Int, Int, Int],
            Handle(shell::set_window_geometry),
        ),
        message("ack_configure", 1, &[Uint], Handle(shell::ack_configure)),
    ],
    events: &[message("configure", 1, &[Uint], Forward)],
};

/// `xdg_toplevel`.
pub(super) static XDG_TOPLEVEL: Definition = Definition {
    name: "xdg_toplevel",
    version: 6,
    requests: &[
        last("destroy", 1, &[], Handle(toplevel::destroy)),
        message("set_parent", 1, &[ObjectOrNull(XdgToplevel)], Forward),
        message("set_title", 1, &[String], Handle(toplevel::set_title)),
        message("set_app_id", 1, &[String], Handle(toplevel::set_app_id)),
        message(
            "show_window_menu",
            1,
            &[Object(Seat), Uint, Int, Int],
            Handle(toplevel::show_window_menu),
        ),
        message("move", 1, &[Object(Seat), Uint], Forward),
        message("resize", 1, &[Object(Seat), Uint, Uint], Forward),
        message("set_max_size", 1, &[Int, Int], Handle(toplevel::set_max_size)),
        message("set_min_size", 1, &[Int, Int], Handle(toplevel::set_min_size)),
        message("set_maximized", 1, &[], Forward),
        message("unset_maximized", 1, &[], Forward),
        message("set_fullscreen", 1, &[ObjectOrNull(Output)], Handle(toplevel::set_fullscreen)),
        message("unset_fullscreen", 1, &[], Handle(toplevel::unset_fullscreen)),
        message("set_minimized", 1, &[], Forward),
    ],
    events: &[
        message("configure", 1, &[Int, Int, Array], Handle(toplevel::configure)),
        message("close", 1, &[], Forward),
        message("configure_bounds", 4, &[Int, Int], Handle(toplevel::configure_bounds)),
        message("wm_capabilities", 5, &[Array], Forward),
    ],
};

/// `xdg_popup`.
pub(super) static XDG_POPUP: Definition = Definition {
    name: "xdg_popup",
    version: 6,
    requests: &[
        last("destroy", 1, &[], Handle(popup::destroy)),
        message("grab", 1, &[Object(Seat), Uint], Forward),
        message("reposition", 3, &[Object(XdgPositioner), Uint], Handle(popup::reposition)),
    ],
    events: &[
        message("configure", 1, &[Int, Int, Int, Int], Handle(popup::configure)),
        message("popup_done", 1, &[], Forward),
        message("repositioned", 3, &[Uint], Handle(popup::repositioned)),
    ],
};

/// `zxdg_decoration_manager_v1`.
pub(super) static XDG_DECORATION_MANAGER: Definition = Definition {
    name: "zxdg_decoration_manager_v1",
    version: 1,
    requests: &[
        last("destroy", 1, &[], Forward),
        message(
            "get_toplevel_decoration",
            1,
            &[New(XdgToplevelDecoration), Object(XdgToplevel)],
            Forward,
        ),
    ],
    events: &[],
};

/// `zxdg_toplevel_decoration_v1`.
pub(super) static XDG_TOPLEVEL_DECORATION: Definition = Definition {
    name: "zxdg_toplevel_decoration_v1",
    version: 1,
    requests: &[
        last("destroy", 1, &[], Forward),
        message("set_mode", 1, &[Uint], Forward),
        message("unset_mode", 1, &[], Forward),
    ],
    events: &[message("configure", 1, &[Uint], Forward)],
};

/// `xdg_activation_v1`.
pub(super) static XDG_ACTIVATION: Definition = Definition {
    name: "xdg_activation_v1",
    version: 1,
    requests: &[
        last("destroy", 1, &[], Forward),
        message("get_activation_token", 1, &[New(XdgActivationToken)], Forward),
        message("activate", 1, &[String, Object(Surface)], Forward),
    ],
    events: &[],
};

/// `xdg_activation_token_v1`.
pub(super) static XDG_ACTIVATION_TOKEN: Definition = Definition {
    name: "xdg_activation_token_v1",
    version: 1,
    requests: &[
        message("set_serial", 1, &[Uint, Object(Seat)], Forward),
        message("set_app_id", 1, &[String], Handle(toplevel::set_token_app_id)),
        message("set_surface", 1, &[Object(Surface)], Forward),
        message("commit", 1, &[], Forward),
        last("destroy", 1, &[], Forward),
    ],
    events: &[message("done", 1, &[String], Forward)],
};
