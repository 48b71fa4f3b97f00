//! An initrd: the `newc` format of cpio, the kernel's `Documentation/driver-api/early-userspace/
//! buffer-format.rst`.

/// A file system of one program and a console.
pub(super) fn initrd(program: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    entry(&mut out, "dev", 0o040_755, (0, 0), &[]);
    entry(&mut out, "dev/console", 0o020_600, (5, 1), &[]);
    entry(&mut out, "init", 0o100_755, (0, 0), program);
    entry(&mut out, "TRAILER!!!", 0, (0, 0), &[]);
    out
}

fn entry(out: &mut Vec<u8>, name: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
    let number = out.len() as u32 + 1;
    let (size, length) = (content.len() as u32, name.len() as u32 + 1);
    let fields = [number, mode, 0, 0, 1, 0, size, 0, 0, major, minor, length, 0];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(content);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}
