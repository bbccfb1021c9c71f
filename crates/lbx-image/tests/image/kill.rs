//! SIGKILL at any moment: the store is complete or lacks the thing, and the next pull succeeds, as does one that
//! runs beside the dead.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fs_err as fs;
use lbx_testkit::images::{Image, Layer, Tar};
use lbx_testkit::registry::Registry;

use crate::support::{Home, Node, noise, options, tree};

/// A program of `examples/`, which cargo builds with the tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("a test has a path");
    let path = this.ancestors().nth(2).expect("target/debug").join("examples").join(name);
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

fn start(root: &Path, reference: &str) -> Child {
    let mut command = Command::new(example("pull"));
    command.arg(root).arg(reference).stdin(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the puller runs")
}

#[tokio::test]
async fn of_two_processes_that_pull_the_same_image_either_may_be_killed() {
    let (data, image) = (tempfile::tempdir().expect("a directory"), image());
    let server = Registry::start(data.path());
    server.push_image("a", "1", &image);
    let reference = server.reference("a", "1");
    for round in 0..12_u64 {
        let home = Home::new();
        let root = home.store.root().to_path_buf();
        let mut first = start(&root, &reference);
        std::thread::sleep(Duration::from_millis(round % 4 * 12));
        let mut second = start(&root, &reference);
        // Neither, the first, the second.
        std::thread::sleep(Duration::from_millis(5 + round * 23 % 70));
        let victim = match round % 3 {
            0 => None,
            1 => Some(&mut first),
            _ => Some(&mut second),
        };
        if let Some(victim) = victim {
            victim.kill().expect("killed");
        }
        let survived = [first, second].map(|mut child| child.wait().expect("an end").success());
        let expected = [round % 3 == 1, round % 3 == 2].map(|killed| !killed);
        for (index, (survived, expected)) in survived.into_iter().zip(expected).enumerate() {
            // The victim may have been done before.
            assert!(survived || !expected, "round {round}: process {index} failed");
        }
        check(&root, &image);
        let mut offline = options();
        offline.offline = true;
        let pulled = home.pull(&reference, &offline).await.expect("all of it is in the store");
        assert_eq!(pulled.layers.len(), 4);
        lbx_image::Store::open(&root).expect("the store opens");
        assert_eq!(home.contents(), (6, 4, 0), "what the dead left is swept");
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
        let mut child = start(&root, &reference);
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
