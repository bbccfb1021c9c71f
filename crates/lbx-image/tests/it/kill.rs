//! SIGKILL at any moment: the store is complete or lacks the thing, and the next pull succeeds.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use fs_err as fs;
use lbx_testkit::images::{Image, Layer, Tar};
use lbx_testkit::registry::Registry;

use crate::support::{Home, Node, noise, options, tree};

/// `examples/pull.rs`, which cargo builds with the tests.
pub(crate) fn puller() -> PathBuf {
    let this = std::env::current_exe().expect("a test has a path");
    let path = this.ancestors().nth(2).expect("target/debug").join("examples/pull");
    assert!(path.exists(), "{} is missing: `cargo test -p lbx-image` builds it", path.display());
    path
}

fn image() -> Image {
    let layer = |number: u64| {
        let mut tar = Tar::new().dir("d", 0o755);
        for file in 0..300 {
            tar = tar.file(format!("d/{number}-{file}"), 0o644, &noise(number * 1000 + file, 4000));
        }
        Layer::gzip(&tar.finish())
    };
    Image::new("amd64", (1..5).map(layer).collect())
}

/// Everything with a final name must be whole.
fn check(store: &Path, image: &Image) {
    for layer in &image.layers {
        let hex = &layer.diff_id["sha256:".len()..];
        let directory = store.join("layers/v1").join(hex);
        if directory.exists() {
            assert!(directory.join("layer.json").exists(), "a tree without its record");
            let files = tree(&directory.join("tree"));
            assert_eq!(files.len(), 301);
            assert!(files.values().all(|node| !matches!(node, Node::File(_, data) if data.len() != 4000)));
        }
        let blob = store.join("blobs/sha256").join(&layer.digest()["sha256:".len()..]);
        if blob.exists() {
            assert_eq!(fs::read(blob).expect("a blob"), layer.blob);
        }
    }
}

#[tokio::test]
async fn a_pull_killed_at_any_moment_leaves_whole_things_and_the_next_one_succeeds() {
    let (home, data) = (Home::new(), tempfile::tempdir().expect("a directory"));
    let (server, image) = (Registry::start(data.path()), image());
    server.push_image("a", "1", &image);
    let reference = server.reference("a", "1");
    let root = home.store.root().to_path_buf();
    for round in 0..20_u64 {
        // Spread over the whole life of a pull, and from an empty store every few rounds.
        if round % 5 == 0 {
            for part in ["layers/v1", "blobs/sha256"] {
                fs::remove_dir_all(root.join(part)).expect("removed");
                fs::create_dir(root.join(part)).expect("made");
            }
        }
        let mut child = Command::new(puller())
            .arg(&root)
            .arg(&reference)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the puller runs");
        std::thread::sleep(Duration::from_millis(3 + (round * 37) % 90));
        child.kill().expect("killed");
        child.wait().expect("gone");
        check(&root, &image);
    }
    let pulled = home.pull(&reference, &options()).await.expect("the next pull succeeds");
    assert_eq!(pulled.layers.len(), 4);
    check(&root, &image);
    lbx_image::Store::open(&root).expect("the store opens");
    assert_eq!(home.contents().2, 0, "what the dead left is swept");
}
