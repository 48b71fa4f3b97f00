//! Images: what was altered is never run and never read as if it were good; archives, generations
//! and collecting.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use systemtest::{SHORT, World, here, until};

/// An image of its own: the default one under a digest nobody else has, so that it can be altered.
struct OwnImage {
    world: World,
    name: String,
    directory: PathBuf,
}

impl OwnImage {
    fn new(test: &'static str) -> Self {
        let world = World::new(test, "");
        // Two worlds have different numbers, so the image has a serial and a digest of its own.
        let name = world.name().to_owned();
        let archive = world.path("image.tar").display().to_string();
        world.casemate(["image", "export", "debian", &archive]).done().ok();
        fs::create_dir(world.path("image")).expect("made");
        let folder = world.path("image");
        let unpack = format!("cd {} && tar xf {archive} && rm {archive}", folder.display());
        world.host_shell(&unpack).done().ok();
        let manifest = folder.join("manifest.json");
        let text = fs::read_to_string(&manifest).expect("read");
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let serial = lines.iter_mut().find(|line| line.contains("\"serial\"")).expect("it has one");
        *serial = format!("  \"serial\": {},", 9_000_000_000 + u64::from(std::process::id()));
        let digits: String = name.chars().filter(char::is_ascii_digit).collect();
        serial.insert_str(serial.len() - 1, &digits);
        fs::write(&manifest, lines.join("\n") + "\n").expect("written");
        world.configure(&format!(
            "[image.{name}]\nsource = \"imported\"\n\n[compartment.{name}]\nimage = \"{name}\"\n\
             memory = 256\ndisposable = true\nidle-timeout = 600\n"
        ));
        let pack = format!(
            "cd {} && {{ echo manifest.json; find . -type f ! -name manifest.json | sed 's/^..//'; }} \
             | tar cf {archive} --no-recursion -T -",
            folder.display()
        );
        world.host_shell(&pack).done().ok();
        world.casemate(["image", "import", &archive, &name]).done().ok();
        let shown = world.casemate(["image", "show", &name, "--json"]).done().ok().json();
        let directory = shown["directory"].as_str().expect("a directory").into();
        Self { world, name, directory }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn hash_offset(&self) -> u64 {
        let text = fs::read_to_string(self.file("manifest.json")).expect("read");
        let manifest: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        manifest["verity"]["hash_offset"].as_u64().expect("an offset")
    }
}

impl Drop for OwnImage {
    fn drop(&mut self) {
        // The store is the machine's: what this test brought goes, whatever became of it.
        let _ = self.world.casemate(["stop", "--force", &self.name]).within(SHORT).done();
        let store = self.directory.parent().and_then(Path::parent).expect("images are in a store");
        for file in [format!("{}.json", self.name), format!("{}.lock", self.name)] {
            let _ = fs::remove_file(store.join("names").join(file));
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Turns one bit over.
fn flip(file: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(file).expect("opened");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 0x10], at).expect("written");
}

#[test]
fn altered_kernel_is_not_started() {
    let image = OwnImage::new(here!());
    flip(&image.file("kernel"), 30_000_000);
    let done = image.world.run(["true"]).done().exits(125);
    done.says("is damaged").says("kernel").says("casemate image build --force");
    let begun = fs::read_to_string(image.world.logs(&image.name).join("console.log"));
    assert_eq!(begun.expect("the link made it"), "", "not one line of that kernel was executed");
    image.world.assert_gone(&image.name);
}

#[test]
fn altered_manifest_is_refused() {
    let image = OwnImage::new(here!());
    let path = image.file("manifest.json");
    let text = fs::read_to_string(&path).expect("read").replacen("\"x86_64\"", "\"X86_64\"", 1);
    fs::write(&path, text).expect("written");
    image.world.run(["true"]).done().exits(125).says("its manifest was changed");
}

#[test]
fn altered_first_block_of_the_root_keeps_the_guest_from_starting() {
    let image = OwnImage::new(here!());
    // The superblock of erofs.
    flip(&image.file("root.erofs"), 1024 + 40);
    let done = image.world.run(["true"]).done().exits(125);
    done.says("could not trust the disk").says("not those of the image");
    image.world.assert_gone(&image.name);
}

#[test]
fn altered_hash_tree_keeps_the_guest_from_starting() {
    let image = OwnImage::new(here!());
    // The top of the tree, behind its superblock.
    flip(&image.file("root.erofs"), image.hash_offset() + 4096 + 5);
    image.world.run(["true"]).done().exits(125).says("could not trust the disk");
    image.world.assert_gone(&image.name);
}

/// A block that no start reads: reading it gives an error, never other data, and the host says so.
#[test]
fn altered_block_of_the_root_gives_an_error_and_is_told() {
    let image = OwnImage::new(here!());
    let all = "find /usr /etc /var -xdev -type f -exec sha256sum {} + 2>/dev/null | sort -k2";
    let before = image.world.run_with(["--root"], ["sh", "-c", all]).done().text();
    image.world.stop_force().ok();
    let middle = image.hash_offset() / 2;
    for block in 0..8 {
        flip(&image.file("root.erofs"), middle + block * 4096 * 32);
    }
    let line = format!("{all}; find /usr /etc /var -xdev -type f -exec cat {{}} + >/dev/null");
    let done = image.world.run_with(["--root"], ["sh", "-c", &line]).done();
    assert_ne!(done.code, Some(0), "something cannot be read: {done}");
    assert!(done.error().contains("Input/output error"), "{done}");
    let known: std::collections::BTreeSet<&str> = before.lines().collect();
    for line in done.text().lines() {
        assert!(known.contains(line), "what can be read is what it was: {line}");
    }
    until("the host's word of it", SHORT, || {
        let status = image.world.casemate(["status", &image.name]).done().ok();
        status.error().contains("does not verify").then_some(())
    });
    let verify = image.world.casemate(["image", "verify", &image.name]).done().exits(1);
    verify.says("root.erofs").says("is damaged");
}

#[test]
fn image_that_runs_is_not_collected() {
    let image = OwnImage::new(here!());
    image.world.start();
    let store = image.directory.parent().and_then(Path::parent).expect("a store");
    let record = store.join("names").join(format!("{}.json", image.name));
    let text = fs::read_to_string(&record).expect("read");
    fs::remove_file(&record).expect("removed");
    let short = &image.directory.file_name().expect("a name").to_string_lossy()[..16];
    let dry = image.world.casemate(["image", "gc", "--dry-run"]).done().ok();
    assert!(dry.text().contains(&format!("image {short} is in use and stays")), "{dry}");
    assert_eq!(image.world.run(["echo", "runs"]).done().ok().text(), "runs");
    image.world.stop_force().ok();
    until("the end of its use", SHORT, || {
        let dry = image.world.casemate(["image", "gc", "--dry-run"]).done().ok();
        dry.text().contains(&format!("image {short} would be removed")).then_some(())
    });
    fs::write(&record, text).expect("written");
}
