//! Images: what was altered is never run and never read as if it were good; archives, generations
//! and collecting.

use std::cell::RefCell;
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
        forget(&self.world, &self.name, &self.directory);
    }
}

/// The store is the machine's: what a test brought goes, whatever became of it.
fn forget(world: &World, name: &str, directory: &Path) {
    let _ = world.casemate(["stop", "--force", name]).within(SHORT).done();
    let store = directory.parent().and_then(Path::parent).expect("images are in a store");
    for file in [format!("{name}.json"), format!("{name}.lock")] {
        let _ = fs::remove_file(store.join("names").join(file));
    }
    let _ = fs::remove_dir_all(directory);
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

/// A store as Nix has it, with a system, and a `nix-store` that knows what the system refers to.
struct NixStore {
    world: World,
    folder: PathBuf,
    built: RefCell<Vec<PathBuf>>,
}

impl Drop for NixStore {
    fn drop(&mut self) {
        for image in self.built.borrow().iter() {
            forget(&self.world, self.world.name(), image);
        }
    }
}

impl NixStore {
    fn new(test: &'static str) -> Self {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let world = World::new(test, "");
        let shown = world.casemate(["image", "show", "debian", "--json"]).done().ok().json();
        let debian = PathBuf::from(shown["directory"].as_str().expect("a directory"));
        let manifest = fs::read_to_string(debian.join("manifest.json")).expect("read");
        let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
        let release = manifest["kernel_release"].as_str().expect("a release");
        let folder = world.path("store");
        let (system, linux, tree) =
            (folder.join("a-nixos-system"), folder.join("b-linux"), folder.join("c-modules"));
        let modules = format!("lib/modules/{release}");
        for folder in [&system, &linux, &tree.join(&modules), &linux.join(&modules)] {
            fs::create_dir_all(folder).expect("made");
        }
        fs::copy(debian.join("bzImage"), linux.join("bzImage")).expect("copied");
        // The modules are links into another path, as NixOS has them.
        let kernel = linux.join(&modules).join("kernel");
        fs::create_dir(&kernel).expect("made");
        for module in fs::read_dir(debian.join("modules")).expect("read").flatten() {
            fs::copy(module.path(), kernel.join(module.file_name())).expect("copied");
        }
        let inside = |path: &str| format!("/nix/store/{path}");
        let of_linux = inside(&format!("b-linux/{modules}/kernel"));
        symlink(of_linux, tree.join(&modules).join("kernel")).expect("linked");
        let names = ["virtio_pci", "virtio_blk", "erofs", "overlay", "virtio_console"];
        let builtin: String = names
            .iter()
            .filter(|name| !kernel.join(format!("{name}.ko")).exists())
            .map(|name| format!("kernel/{name}.ko\n"))
            .collect();
        fs::write(tree.join(&modules).join("modules.builtin"), builtin).expect("written");
        symlink(inside("b-linux/bzImage"), system.join("kernel")).expect("linked");
        symlink(inside("c-modules"), system.join("kernel-modules")).expect("linked");
        fs::write(system.join("init"), "#!/bin/sh\n").expect("written");
        fs::write(folder.join("d-stranger"), "of something else").expect("written");
        let bin = world.path("bin");
        fs::create_dir(&bin).expect("made");
        let store = folder.display();
        let script = format!(
            "#!/bin/sh\n[ \"$1 $2\" = '--query --requisites' ] || exit 9\n\
             for i in a-nixos-system b-linux c-modules; do echo {store}/$i; done\n"
        );
        fs::write(bin.join("nix-store"), script).expect("written");
        let nix = format!("#!/bin/sh\necho building... >&2\necho {store}/a-nixos-system\n");
        fs::write(bin.join("nix"), nix).expect("written");
        for program in ["nix", "nix-store"] {
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(bin.join(program), mode).expect("set");
        }
        Self { world, folder, built: RefCell::new(Vec::new()) }
    }

    fn configure(&self, path: &Path, more: &str) {
        let name = self.world.name();
        self.world.configure(&format!(
            "[image.{name}]\nsource = \"nixos\"\npath = {:?}\n\n[compartment.{name}]\n\
             image = \"{name}\"\nmemory = 256\n{more}",
            path.display().to_string()
        ));
    }

    fn build(&self) -> systemtest::Done {
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", self.world.path("bin").display());
        let name = self.world.name();
        self.world.casemate(["image", "build", name]).env("PATH", path).within(BUILD).done()
    }
}

impl NixStore {
    /// Builds the image; its directory.
    fn built(&self) -> PathBuf {
        self.build().ok();
        let name = self.world.name();
        let shown = self.world.casemate(["image", "show", name, "--json"]).done().ok().json();
        let directory = PathBuf::from(shown["directory"].as_str().expect("a directory"));
        self.built.borrow_mut().push(directory.clone());
        directory
    }
}

/// Packing an image on a machine that has other things to do.
const BUILD: std::time::Duration = std::time::Duration::from_secs(120);

#[test]
fn system_in_a_nix_store_becomes_an_image_of_what_it_refers_to() {
    if !systemtest::has(here!(), "fsck.erofs") {
        return;
    }
    let nix = NixStore::new(here!());
    nix.configure(&nix.folder.join("a-nixos-system"), "guest.init = \"systemd\"\n");
    let world = &nix.world;
    let image = nix.built();
    let root = world.path("root");
    let extract = format!("--extract={}", root.display());
    world.call("fsck.erofs").arg(extract).arg(image.join("root.erofs")).done().ok();
    let init = fs::read_link(root.join("sbin/init")).expect("a link");
    assert_eq!(init, Path::new("/nix/store/a-nixos-system/init"));
    assert!(root.join("nix/store/b-linux/bzImage").is_file());
    assert!(!root.join("nix/store/d-stranger").exists(), "the system does not refer to it");
    assert!(image.join("modules/dm_verity.ko").is_file(), "links to modules are followed");
    // A flake comes to the same system, and so to the same image.
    let flake = world.path("flake");
    fs::create_dir(&flake).expect("made");
    fs::write(flake.join("flake.nix"), "{}").expect("written");
    nix.configure(&flake, "guest.init = \"systemd\"\n");
    let read = |image: &Path| fs::read(image.join("root.erofs")).expect("read");
    assert!(read(&image) == read(&nix.built()), "the same files");
}

#[test]
fn what_is_no_nixos_system_is_refused() {
    let nix = NixStore::new(here!());
    let world = &nix.world;
    nix.configure(&nix.folder.join("b-linux"), "guest.init = \"systemd\"\n");
    drop(nix.build().exits(1).says("neither flake.nix nor"));
    nix.configure(&nix.folder.join("a-nixos-system"), "guest.init = \"systemd\"\n");
    let stranger = "#!/bin/sh\necho /etc/shadow\n";
    fs::write(world.path("bin/nix-store"), stranger).expect("written");
    drop(nix.build().exits(1).says("`/etc/shadow`, which is no path in"));
    nix.configure(&nix.folder.join("a-nixos-system"), "");
    let done = world.run(["true"]).done().exits(125);
    drop(done.says("without its init").says("init = \"systemd\""));
}
