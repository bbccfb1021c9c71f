//! Whole images as others see them: layers as GNU tar unpacks them, stacks as overlayfs shows them.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;
use lbx_image::{Image, MemoryRegistry, Reference, Registry, Store, flatten};
use lbx_sandbox::{Launcher, Overlay, Root, Spec, Streams};
use lbx_testkit::images::{Layer, Tar, sha256};
use lbx_testkit::registry::Registry as Server;
use lbx_testkit::standin::must_run;

use crate::kill::example;
use crate::support::{Home, Node, noise, options, tree};

/// Everything a program in the image can see of its files, but for what the sandbox puts over them. Link counts,
/// and times of what is no file, are left out: overlayfs and the sandbox have their own.
const LISTING: &str = r"cd / && skip='-path ./proc -o -path ./dev -o -path ./sys -o -path ./tmp -o -path ./run
    -o -path ./var/tmp -o -path ./home -o -path ./etc/passwd -o -path ./etc/group -o -path ./etc/hosts
    -o -path ./etc/nsswitch.conf -o -path ./etc/resolv.conf'
    set -f -e
    find . \( $skip \) -prune -o ! -type f -print0 | sort -z | xargs -0 stat -c '%N %a %F'
    find . \( $skip \) -prune -o -type f -print0 | sort -z | xargs -0 stat -c '%N %a %F %Y'
    find . \( $skip \) -prune -o -type f -print0 | sort -z | xargs -0 sha256sum";

/// Says loudly that something was not tested; with `LBX_MUST_RUN=sandbox` that is a failure.
#[expect(clippy::print_stderr, reason = "a skip must be loud")]
fn skip(reason: &str) {
    assert!(!must_run("sandbox"), "LBX_MUST_RUN forbids skipping: {reason}");
    eprintln!("SKIP: {reason}");
}

/// The same listing, from inside, of the layers on top of each other and of the merged tree.
fn stacked_and_merged_agree(store: &Store, image: &Image) -> Option<String> {
    let launcher = Launcher::program(example("launcher"));
    if !launcher.diagnose(None).expect("a diagnosis").can_run() {
        skip("this host denies sandboxes");
        return None;
    }
    if !matches!(launcher.overlay_supported(store.root()), Ok(Overlay::Supported)) {
        skip("this host denies overlayfs");
        return None;
    }
    assert!(image.overlay_ready());
    let layers = Root::Layers(image.layer_trees().into_iter().map(PathBuf::from).collect());
    let merged = Root::Tree(flatten(store, image).expect("a tree"));
    let [stacked, merged] = [layers, merged].map(|root| listing(&launcher, root));
    for (stacked, merged) in stacked.lines().zip(merged.lines()) {
        assert_eq!(stacked, merged, "overlayfs on the left, the merged tree on the right");
    }
    assert_eq!(stacked.len(), merged.len());
    Some(stacked)
}

fn listing(launcher: &Launcher, root: Root) -> String {
    let mut spec = Spec::new(root, ["/bin/sh", "-c", LISTING]);
    spec.env.push(("PATH".to_owned(), "/usr/bin:/bin".to_owned()));
    let mut running = launcher.spawn(&spec, Streams::piped()).expect("a sandbox");
    let (mut output, mut errors) =
        (running.take_stdout().expect("stdout"), running.take_stderr().expect("stderr"));
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        errors.read_to_string(&mut text).map(|_| text)
    });
    let mut bytes = Vec::new();
    output.read_to_end(&mut bytes).expect("output");
    let exit = running.wait().expect("an end");
    assert!(exit.success(), "{:?}", errors.join().expect("no panic"));
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn pull(home: &Home, layers: Vec<Tar>) -> Image {
    let layers = layers.into_iter().map(|tar| Layer::gzip(&tar.finish())).collect();
    let image = lbx_testkit::images::Image::new("amd64", layers);
    let mut memory = MemoryRegistry::new().with_manifest("1", &image.manifest);
    for layer in &image.layers {
        memory = memory.with_blob(&layer.blob);
    }
    let registry = Arc::new(Registry::Memory(memory.with_blob(&image.config)));
    let reference = Reference::parse("registry.test/a:1").expect("a reference");
    lbx_image::pull_from(&registry, &home.store, &reference, &options(), &|_| ()).await.expect("a pull")
}

#[tokio::test]
async fn every_kind_of_change_between_layers_looks_the_same_stacked_and_merged() {
    let Some(busybox) = ["/bin/busybox", "/usr/bin/busybox"].iter().find_map(|path| fs::read(path).ok())
    else {
        skip("there is no static busybox (package busybox-static)");
        return;
    };
    let mut base = Tar::new().dir("bin", 0o755).file("bin/busybox", 0o755, &busybox);
    for applet in ["sh", "find", "sort", "xargs", "stat", "sha256sum"] {
        base = base.symlink(format!("bin/{applet}"), "busybox");
    }
    for name in ["dev", "etc", "proc", "sys", "tmp", "run", "var", "var/tmp", "home"] {
        base = base.dir(name, 0o755);
    }
    for name in ["kept", "gone", "hidden", "emptied", "file-to-be", "deep", "deep/er", "moded"] {
        base = base.dir(name, 0o755).file(format!("{name}/below"), 0o640, name.as_bytes());
    }
    base = base
        .file("directory-to-be", 0o644, b"a file")
        .file("link-to-be", 0o644, b"a file")
        .file("removed", 0o644, b"removed")
        .symlink("link", "/kept")
        .file("one", 0o600, &noise(1, 9000))
        .hard_link("other", "one")
        .file("gr\u{fc}\u{df}e", 0o4755, b"setuid");
    let middle = Tar::new()
        .dir("moded", 0o700)
        .whiteout("gone")
        .whiteout("removed")
        .dir("hidden", 0o711)
        .opaque("hidden")
        .file("hidden/new", 0o444, b"new")
        .dir("emptied", 0o755)
        .opaque("emptied")
        .whiteout("file-to-be")
        .file("file-to-be", 0o604, b"a file now")
        .dir("directory-to-be", 0o755)
        .file("directory-to-be/in", 0o644, b"in")
        .symlink("link-to-be", "one")
        .file("other", 0o640, b"no link any more")
        .file("deep/er/implicit", 0o644, b"the layer has no entry for its parents")
        .whiteout("deep/er/below")
        .file("comes/and/goes", 0o644, b"x");
    let top = Tar::new()
        .dir("gone", 0o750)
        .file("gone/again", 0o644, b"back, without what was below")
        .file("removed", 0o600, b"back")
        .whiteout("comes/and")
        .whiteout("link")
        .file("kept/second", 0o755, b"second");
    let home = Home::new();
    let pulled = pull(&home, vec![base, middle, top]).await;
    let Some(seen) = stacked_and_merged_agree(&home.store, &pulled) else { return };
    for (name, present) in [
        ("./removed", true),
        ("./gone/again", true),
        ("./gone/below", false),
        ("./hidden/below", false),
        ("./emptied/below", false),
        ("./deep/er/below", false),
        ("./deep/below", true),
        ("./comes/and", false),
        ("./link", false),
    ] {
        let found = seen
            .lines()
            .any(|line| line.starts_with(&format!("{name} ")) || line.starts_with(&format!("'{name}' ")));
        assert_eq!(found, present, "{name} in\n{seen}");
    }
}

#[tokio::test]
async fn a_removal_that_overlayfs_would_list_makes_a_layer_unfit_for_it() {
    let ready = async |layers: Vec<Tar>| {
        let home = Home::new();
        let pulled = pull(&home, layers).await;
        let merged = flatten(&home.store, &pulled).expect("a tree");
        assert!(tree(&merged).values().all(|node| !matches!(node, Node::Other(_))));
        pulled.layers.last().expect("a layer").overlay_ready
    };
    let dir = |name: &str| Tar::new().dir(name, 0o755).file(format!("{name}/x"), 0o644, b"x");
    let removal = || Tar::new().dir("d", 0o755).whiteout("d/x");
    // Where the host holds no removals at all, nothing can be said.
    if !ready(vec![dir("d"), removal()]).await {
        return skip("this file system holds no removals");
    }
    assert!(ready(vec![dir("d"), dir("e"), removal()]).await, "a layer that says nothing about it");
    assert!(ready(vec![dir("d"), Tar::new().whiteout("d")]).await, "at the root");
    assert!(!ready(vec![removal()]).await, "nothing below");
    assert!(!ready(vec![dir("e"), removal()]).await, "no such directory below");
    assert!(!ready(vec![Tar::new().file("d", 0o644, b""), removal()]).await, "a file below");
    assert!(!ready(vec![dir("e"), Tar::new().symlink("d", "e"), removal()]).await, "a link below");
    assert!(!ready(vec![dir("d"), Tar::new().whiteout("d"), removal()]).await, "removed between");
    assert!(!ready(vec![dir("d"), removal().opaque("d")]).await, "an opaque directory");
    let between = Tar::new().dir("d", 0o755).opaque("d");
    assert!(ready(vec![dir("d"), between, removal()]).await, "an opaque directory between is merged with");
    let deep = || Tar::new().dir("d", 0o755).dir("d/e", 0o755).whiteout("d/e/x");
    assert!(ready(vec![dir("d/e"), deep()]).await);
    assert!(!ready(vec![dir("d/e"), Tar::new().dir("d", 0o755).opaque("d"), deep()]).await, "hidden between");
    assert!(!ready(vec![dir("d/e"), deep().opaque("d")]).await, "hidden by the layer itself");
}

#[tokio::test]
async fn a_directory_that_only_a_path_implies_keeps_its_mode() {
    for (mode, fits) in [(0o755, true), (0o1777, false), (0o700, false)] {
        let home = Home::new();
        let base = Tar::new().dir("d", mode);
        let other = Tar::new().file("other", 0o644, b"");
        let pulled = pull(&home, vec![base, other, Tar::new().file("d/new/x", 0o644, b"x")]).await;
        assert_eq!(pulled.overlay_ready(), fits, "{mode:o}");
        let merged = tree(&flatten(&home.store, &pulled).expect("a tree"));
        assert_eq!(merged[&b"d"[..]], Node::Directory(mode));
        assert_eq!(merged[&b"d/new"[..]], Node::Directory(0o755));
    }
}

/// The layout `cargo xtask image` leaves, if it was made.
#[expect(clippy::disallowed_methods, reason = "tests are told about their surroundings this way")]
fn standin() -> Option<PathBuf> {
    // Where cargo builds is not for a test to know: it is told, and alone it looks in the place that is usual.
    let usual = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/standin");
    let layout = std::env::var_os("LBX_TEST_STANDIN").map_or_else(usual, PathBuf::from).join("python3.11");
    layout.join("index.json").exists().then_some(layout)
}

#[tokio::test]
async fn the_stand_in_image_is_what_gnu_tar_makes_of_its_layers_and_overlayfs_of_their_trees() {
    let Some(layout) = standin() else {
        assert!(!must_run("standin"), "LBX_MUST_RUN forbids skipping, and there is no stand-in image");
        eprintln!("SKIP: no stand-in image; `cargo xtask image` makes it");
        return;
    };
    let (home, data) = (Home::new(), tempfile::tempdir().expect("a directory"));
    let server = Server::start(data.path());
    let digest = server.push_layout(&layout, "standin", "1");
    let pulled = home.pull(&server.reference("standin", "1"), &options()).await.expect("a pull");
    assert_eq!(pulled.manifest_digest.as_str(), digest);
    for layer in &pulled.layers {
        let expected = home.directory.path().join(layer.digest.hex());
        fs::create_dir(&expected).expect("a directory");
        let blob = home.store.blob_path(&layer.digest);
        let status = std::process::Command::new("tar")
            .args([
                "--no-same-owner",
                "--no-same-permissions",
                "--delay-directory-restore",
                "--exclude=dev/*",
                "-xzf",
            ])
            .arg(&blob)
            .arg("-C")
            .arg(&expected)
            .status();
        assert!(status.expect("tar runs").success());
        compare(&expected, &layer.tree);
    }
    stacked_and_merged_agree(&home.store, &pulled);
}

/// The same names and contents, but for the markers of removals.
fn compare(expected: &Path, found: &Path) {
    let plain = |nodes: std::collections::BTreeMap<Vec<u8>, Node>| -> Vec<(Vec<u8>, String)> {
        let marker = |name: &[u8], node: &Node| {
            matches!(node, Node::Other(_))
                || name.rsplit(|byte| *byte == b'/').next().is_some_and(|name| name.starts_with(b".wh."))
        };
        let digest = |node: Node| match node {
            Node::File(_, data) => sha256(&data),
            Node::Link(target) => format!("-> {}", target.escape_ascii()),
            other => match other {
                Node::Directory(_) => "directory".to_owned(),
                _ => "other".to_owned(),
            },
        };
        nodes
            .into_iter()
            .filter(|(name, node)| !marker(name, node))
            .map(|(name, node)| (name, digest(node)))
            .collect()
    };
    assert_eq!(plain(tree(found)), plain(tree(expected)));
}
