//! The table beside the published definitions, and what it lets through.

use wayland_backend::protocol::{AllowNull, ArgumentType, Interface as Published, MessageDesc};
use wayland_client::Proxy;
use wayland_client::protocol as core;
use wayland_protocols::wp::cursor_shape::v1::client as cursor_shape;
use wayland_protocols::wp::fractional_scale::v1::client as fractional_scale;
use wayland_protocols::wp::pointer_constraints::zv1::client as constraints;
use wayland_protocols::wp::presentation_time::client as presentation;
use wayland_protocols::wp::primary_selection::zv1::client as primary;
use wayland_protocols::wp::text_input::zv3::client as text_input;
use wayland_protocols::wp::viewporter::client as viewporter;
use wayland_protocols::xdg::activation::v1::client as activation;
use wayland_protocols::xdg::decoration::zv1::client as decoration;
use wayland_protocols::xdg::shell::client as shell;
use wayland_protocols::xdg::xdg_output::zv1::client as xdg_output;

use super::{Interface, Kind, Message, Rule};

/// What others have published.
fn published() -> Vec<&'static Published> {
    vec![
        core::wl_display::WlDisplay::interface(),
        core::wl_registry::WlRegistry::interface(),
        core::wl_callback::WlCallback::interface(),
        core::wl_compositor::WlCompositor::interface(),
        core::wl_shm_pool::WlShmPool::interface(),
        core::wl_shm::WlShm::interface(),
        core::wl_buffer::WlBuffer::interface(),
        core::wl_data_offer::WlDataOffer::interface(),
        core::wl_data_source::WlDataSource::interface(),
        core::wl_data_device::WlDataDevice::interface(),
        core::wl_data_device_manager::WlDataDeviceManager::interface(),
        core::wl_surface::WlSurface::interface(),
        core::wl_seat::WlSeat::interface(),
        core::wl_pointer::WlPointer::interface(),
        core::wl_keyboard::WlKeyboard::interface(),
        core::wl_touch::WlTouch::interface(),
        core::wl_output::WlOutput::interface(),
        core::wl_region::WlRegion::interface(),
        core::wl_subcompositor::WlSubcompositor::interface(),
        core::wl_subsurface::WlSubsurface::interface(),
        shell::xdg_wm_base::XdgWmBase::interface(),
        shell::xdg_positioner::XdgPositioner::interface(),
        shell::xdg_surface::XdgSurface::interface(),
        shell::xdg_toplevel::XdgToplevel::interface(),
        shell::xdg_popup::XdgPopup::interface(),
        decoration::zxdg_decoration_manager_v1::ZxdgDecorationManagerV1::interface(),
        decoration::zxdg_toplevel_decoration_v1::ZxdgToplevelDecorationV1::interface(),
        activation::xdg_activation_v1::XdgActivationV1::interface(),
        activation::xdg_activation_token_v1::XdgActivationTokenV1::interface(),
        viewporter::wp_viewporter::WpViewporter::interface(),
        viewporter::wp_viewport::WpViewport::interface(),
        cursor_shape::wp_cursor_shape_manager_v1::WpCursorShapeManagerV1::interface(),
        cursor_shape::wp_cursor_shape_device_v1::WpCursorShapeDeviceV1::interface(),
        presentation::wp_presentation::WpPresentation::interface(),
        presentation::wp_presentation_feedback::WpPresentationFeedback::interface(),
        fractional_scale::wp_fractional_scale_manager_v1::WpFractionalScaleManagerV1::interface(),
        fractional_scale::wp_fractional_scale_v1::WpFractionalScaleV1::interface(),
        xdg_output::zxdg_output_manager_v1::ZxdgOutputManagerV1::interface(),
        xdg_output::zxdg_output_v1::ZxdgOutputV1::interface(),
        text_input::zwp_text_input_v3::ZwpTextInputV3::interface(),
        text_input::zwp_text_input_manager_v3::ZwpTextInputManagerV3::interface(),
        primary::zwp_primary_selection_device_manager_v1::ZwpPrimarySelectionDeviceManagerV1::interface(),
        primary::zwp_primary_selection_device_v1::ZwpPrimarySelectionDeviceV1::interface(),
        primary::zwp_primary_selection_offer_v1::ZwpPrimarySelectionOfferV1::interface(),
        primary::zwp_primary_selection_source_v1::ZwpPrimarySelectionSourceV1::interface(),
        constraints::zwp_pointer_constraints_v1::ZwpPointerConstraintsV1::interface(),
        constraints::zwp_locked_pointer_v1::ZwpLockedPointerV1::interface(),
        constraints::zwp_confined_pointer_v1::ZwpConfinedPointerV1::interface(),
    ]
}

#[test]
fn each_interface_stands_at_its_place() {
    for (number, interface) in Interface::all().enumerate() {
        assert_eq!(interface as usize, number);
        assert_eq!(Interface::named(interface.name()), Some(interface));
    }
}

#[test]
fn the_table_says_what_the_published_definitions_say() {
    let published = published();
    for interface in Interface::all() {
        let ours = interface.definition();
        let theirs = published.iter().find(|it| it.name == ours.name);
        let theirs = theirs.unwrap_or_else(|| panic!("{} is not compared", ours.name));
        assert!(ours.version <= theirs.version, "{}", ours.name);
        compare(interface, ours.requests, theirs.requests, ours.version);
        compare(interface, ours.events, theirs.events, ours.version);
    }
}

fn compare(interface: Interface, ours: &[Message], theirs: &[MessageDesc], version: u32) {
    let theirs: Vec<_> = theirs.iter().filter(|it| it.since <= version).collect();
    assert_eq!(ours.len(), theirs.len(), "{}", interface.name());
    for (ours, theirs) in ours.iter().zip(theirs) {
        let name = format!("{}.{}", interface.name(), ours.name);
        assert_eq!((ours.name, ours.since), (theirs.name, theirs.since), "{name}");
        assert_eq!(ours.ends, theirs.is_destructor, "{name}");
        let kinds: Vec<ArgumentType> = ours.arguments.iter().map(|it| shape(*it)).collect();
        assert_eq!(kinds.len(), theirs.signature.len(), "{name}");
        for (ours, theirs) in kinds.iter().zip(theirs.signature) {
            // Which events may say that there is none is of no account: both are taken.
            assert!(ours.same_type(*theirs), "{name}: {ours:?} and {theirs:?}");
        }
        for (kind, theirs) in ours.arguments.iter().zip(theirs.signature) {
            if matches!(kind, Kind::Object(_) | Kind::String) {
                let never = [ArgumentType::Object(AllowNull::No), ArgumentType::Str(AllowNull::No)];
                assert!(never.contains(theirs), "{name} may be none");
            }
        }
        let made = ours.arguments.iter().find_map(|kind| match kind {
            Kind::New(interface) => Some(interface.name()),
            _ => None,
        });
        let child = theirs.child_interface.map(|it| it.name);
        assert!(made.is_none() || made == child, "{name} makes {made:?} and not {child:?}");
        let objects: Vec<&str> = ours
            .arguments
            .iter()
            .filter_map(|kind| match kind {
                Kind::Object(it) | Kind::ObjectOrNull(it) => Some(it.name()),
                _ => None,
            })
            .collect();
        let named: Vec<&str> = theirs.arg_interfaces.iter().map(|it| it.name).collect();
        for object in objects {
            assert!(named.contains(&object), "{name}: {object} of {named:?}");
        }
    }
}

fn shape(kind: Kind) -> ArgumentType {
    match kind {
        Kind::Int => ArgumentType::Int,
        Kind::Uint => ArgumentType::Uint,
        Kind::Fixed => ArgumentType::Fixed,
        Kind::String => ArgumentType::Str(AllowNull::No),
        Kind::StringOrNull => ArgumentType::Str(AllowNull::Yes),
        Kind::Object(_) | Kind::AnyObject => ArgumentType::Object(AllowNull::No),
        Kind::ObjectOrNull(_) => ArgumentType::Object(AllowNull::Yes),
        Kind::New(_) | Kind::NewAny => ArgumentType::NewId,
        Kind::Array => ArgumentType::Array,
        Kind::Fd => ArgumentType::Fd,
    }
}

#[test]
fn what_makes_an_object_is_never_forwarded_as_an_event() {
    for interface in Interface::all() {
        for event in interface.definition().events {
            let makes = event.arguments.iter().any(|it| matches!(it, Kind::New(_) | Kind::NewAny));
            assert!(!makes || !matches!(event.rule, Rule::Forward), "{}", event.name);
        }
    }
}
