//! Whether user namespaces can be had, by making one.

use std::fs;

use nix::errno::Errno;
use nix::libc;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

/// Tries to make a user namespace that owns a mount namespace, which is where the restrictions of
/// distributions bite. Takes less than a millisecond.
///
/// # Errors
/// Why not, as a clause for a sentence.
pub fn try_user_namespace() -> Result<(), String> {
    let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and a stack this is fork(2). The child calls nothing but _exit, which
    // is allowed whatever other threads held. The zero arguments are in no order.
    let child = Errno::result(unsafe {
        match libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0, 0, 0, 0) {
            0 => libc::_exit(0),
            result => result,
        }
    });
    match child {
        Ok(pid) => {
            let _ = waitpid(Pid::from_raw(pid as i32), None);
            Ok(())
        }
        Err(error) => Err(reason(error)),
    }
}

/// The settings known to forbid it, by name.
fn reason(error: Errno) -> String {
    let is = |setting: &str, value: &str| {
        fs::read_to_string(format!("/proc/sys/{}", setting.replace('.', "/")))
            .is_ok_and(|found| found.trim() == value)
    };
    for (setting, value) in [
        ("user.max_user_namespaces", "0"),
        ("kernel.unprivileged_userns_clone", "0"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1"),
    ] {
        if is(setting, value) {
            return format!("the sysctl {setting} is {value}");
        }
    }
    match error {
        Errno::EINVAL => "the kernel is built without them".into(),
        Errno::ENOSPC | Errno::EUSERS => "there are as many as the kernel allows".into(),
        error => format!("the kernel refuses them: {}", error.desc()),
    }
}
