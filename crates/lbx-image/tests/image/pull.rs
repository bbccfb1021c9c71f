//! Pulls from a real registry and from memory: what is fetched, what is kept, and what is asked again.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use fs_err as fs;
use lbx_image::{Error, Event, MemoryRegistry, Origin, Platform, Reference, Registry, flatten};
use lbx_testkit::images::{INDEX_TYPE, Image, Layer, Tar, index};
use lbx_testkit::registry::Registry as Server;
use serde_json::json;

use crate::support::{Home, Node, noise, options, tree};

/// Two layers with everything a pull must carry over.
fn image(architecture: &str) -> Image {
    let noise = noise(1, 3_000_000);
    let base = Tar::new()
        .dir("etc", 0o755)
        .file("etc/gone", 0o644, b"gone")
        .file("etc/kept", 0o600, b"kept")
        .dir("opt", 0o755)
        .file("opt/hidden", 0o644, b"hidden")
        .dir("usr", 0o755)
        .dir("usr/lib", 0o755)
        .symlink("lib", "/usr/lib")
        .file("usr/lib/noise", 0o644, &noise)
        .hard_link("usr/lib/again", "usr/lib/noise");
    let top = Tar::new()
        .dir("etc", 0o755)
        .whiteout("etc/gone")
        .dir("opt", 0o755)
        .file("opt/new", 0o644, b"new")
        .opaque("opt")
        .file("lib/through", 0o644, b"through")
        .file("grüße", 0o4755, b"setuid");
    Image::new(architecture, vec![Layer::gzip(&base.finish()), Layer::plain(&top.finish())])
}

fn memory(image: &Image) -> MemoryRegistry {
    let mut memory = MemoryRegistry::new().with_manifest("1", &image.manifest);
    for layer in &image.layers {
        memory = memory.with_blob(&layer.blob);
    }
    memory.with_blob(&image.config)
}

#[tokio::test]
async fn an_index_is_pulled_from_a_real_registry_and_again_by_digest_when_it_is_gone() {
    let (home, data) = (Home::new(), tempfile::tempdir().expect("a directory"));
    let server = Server::start(data.path());
    let (amd, arm) = (image("amd64"), image("arm64"));
    server.push_image("lambda/python", "amd", &amd);
    server.push_image("lambda/python", "arm", &arm);
    let mut attestation = amd.descriptor("unknown");
    attestation["platform"]["os"] = json!("unknown");
    let list = index(&[attestation, arm.descriptor("arm64"), amd.descriptor("amd64")]);
    let top = server.push_manifest("lambda/python", "3.11", INDEX_TYPE, &list);
    let reference = server.reference("lambda/python", "3.11");

    let events = Mutex::new(Vec::new());
    let observer = |event| events.lock().expect("no panic").push(event);
    let parsed = Reference::parse(&reference).expect("a reference");
    let first = lbx_image::pull(&home.store, &parsed, &options(), &observer).await.expect("a pull");
    assert_eq!(first.index_digest.as_ref().expect("an index").as_str(), top);
    assert_eq!(first.manifest_digest.as_str(), amd.digest());
    assert_eq!(first.config.env[1], ("LAMBDA_TASK_ROOT".to_owned(), "/var/task".to_owned()));
    assert_eq!(first.config.entrypoint, ["/lambda-entrypoint.sh"]);
    assert_eq!(fs::read(first.layers[0].tree.join("etc/kept")).expect("a file"), b"kept");
    let told = std::mem::take(&mut *events.lock().expect("no panic"));
    assert_eq!(told[0], Event::Resolving);
    assert!(matches!(&told[1], Event::Resolved { layers, .. } if layers.len() == 2));
    let done = |origin| {
        told.iter()
            .filter(|event| matches!(event, Event::LayerDone { origin: found, .. } if *found == origin))
            .count()
    };
    assert_eq!(done(Origin::Downloaded), 2);

    // With the server gone, a socket would be an error: the digest and the offline tag need none.
    drop(server);
    let pinned = parsed.with_digest(first.index_digest.clone().expect("an index"));
    let second = lbx_image::pull(&home.store, &pinned, &options(), &|_| ()).await.expect("from the store");
    assert_eq!(second.layers, first.layers);
    let mut offline = options();
    offline.offline = true;
    assert_eq!(home.pull(&reference, &offline).await.expect("from the store").layers, first.layers);
    assert!(matches!(home.pull(&reference, &options()).await, Err(Error::Unreachable { .. })));
    offline.platform = Platform::linux("arm64");
    assert!(matches!(home.pull(&reference, &offline).await, Err(Error::Offline { .. })));
}

#[tokio::test]
async fn the_second_pull_by_digest_makes_no_request() {
    let (home, image) = (Home::new(), image("amd64"));
    let registry = Arc::new(Registry::Memory(memory(&image)));
    let requests = || match registry.as_ref() {
        Registry::Memory(memory) => memory.requests(),
        Registry::Http(_) => 0,
    };
    let pinned = Reference::parse(&format!("registry.test/a@{}", image.digest())).expect("a reference");
    for expected in [4, 4] {
        let pulled = lbx_image::pull_from(&registry, &home.store, &pinned, &options(), &|_| ()).await;
        assert!(pulled.is_ok(), "{pulled:?}");
        assert_eq!(requests(), expected);
    }
    // A tag may have moved, so it costs one request; its layers cost none.
    let tag = Reference::parse("registry.test/a:1").expect("a reference");
    lbx_image::pull_from(&registry, &home.store, &tag, &options(), &|_| ()).await.expect("a pull");
    assert_eq!(requests(), 5);
}

#[tokio::test]
async fn unknown_names_and_missing_platforms_are_named_with_what_there_is() {
    let (home, data) = (Home::new(), tempfile::tempdir().expect("a directory"));
    let server = Server::start(data.path());
    let image = image("arm64");
    server.push_image("a", "1", &image);
    server.push_manifest("a", "list", INDEX_TYPE, &index(&[image.descriptor("arm64")]));
    let error = home.pull(&server.reference("a", "2"), &options()).await.expect_err("no such tag");
    assert!(error.to_string().ends_with("has no a:2"), "{error}");
    let error = home.pull(&server.reference("a", "list"), &options()).await.expect_err("no such platform");
    assert!(matches!(&error, Error::Platform { available, .. } if available == &["linux/arm64"]), "{error}");
    assert!(error.hint().expect("a hint").contains("linux/arm64"));
    // Without an index only the configuration tells.
    let error = home.pull(&server.reference("a", "1"), &options()).await.expect_err("no such platform");
    assert!(matches!(error, Error::Platform { .. }), "{error}");
    assert_eq!(home.contents().2, 0, "nothing is left under way");
}

#[tokio::test]
async fn what_a_registry_damaged_is_refused_and_nothing_is_kept() {
    let (home, data) = (Home::new(), tempfile::tempdir().expect("a directory"));
    let server = Server::start(data.path());
    let image = image("amd64");
    server.push_image("a", "1", &image);
    let file = server.blob_file(&image.layers[0].digest());
    let mut bytes = fs::read(&file).expect("a blob");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).expect("damage");
    let error = home.pull(&server.reference("a", "1"), &options()).await.expect_err("damaged");
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    let (blobs, layers, under_way) = home.contents();
    assert!(blobs <= 3 && layers <= 1 && under_way == 0, "{blobs} {layers} {under_way}");
    assert!(
        !home
            .store
            .blob_path(&lbx_image::Digest::parse(&image.layers[0].digest()).expect("a digest"))
            .exists()
    );
}

#[tokio::test]
async fn a_blob_that_rotted_in_the_store_is_fetched_again() {
    let (home, image) = (Home::new(), image("amd64"));
    let registry = Arc::new(Registry::Memory(memory(&image)));
    let pinned = Reference::parse(&format!("registry.test/a@{}", image.digest())).expect("a reference");
    let first =
        lbx_image::pull_from(&registry, &home.store, &pinned, &options(), &|_| ()).await.expect("a pull");
    fs::remove_dir_all(first.layers[0].tree.parent().expect("a layer")).expect("gone");
    let blob = home.store.blob_path(&first.layers[0].digest);
    let mut bytes = fs::read(&blob).expect("a blob");
    bytes[1000] ^= 1;
    fs::write(&blob, bytes).expect("damage");
    let mut offline = options();
    offline.offline = true;
    let error = lbx_image::pull_from(&registry, &home.store, &pinned, &offline, &|_| ()).await;
    assert!(matches!(error, Err(Error::Damaged { .. })), "{error:?}");
    let second =
        lbx_image::pull_from(&registry, &home.store, &pinned, &options(), &|_| ()).await.expect("a pull");
    assert_eq!(second, first);
}

/// Pulls, damages something of the store, and pulls again: offline it is named, online it is repaired.
async fn repaired_after(damage: impl Fn(&Home, &lbx_image::Image) -> PathBuf) {
    let (home, image) = (Home::new(), image("amd64"));
    let registry = Arc::new(Registry::Memory(memory(&image)));
    let pinned = Reference::parse(&format!("registry.test/a@{}", image.digest())).expect("a reference");
    let pull = async |options| lbx_image::pull_from(&registry, &home.store, &pinned, &options, &|_| ()).await;
    let mut offline = options();
    offline.offline = true;
    let first = pull(options()).await.expect("a pull");
    let trees: Vec<_> = first.layer_trees().into_iter().map(tree).collect();
    let path = damage(&home, &first);
    let error = pull(offline.clone()).await.expect_err("damaged, and nobody to ask");
    assert!(matches!(&error, Error::Damaged { path: named, .. } if *named == path), "{error:?}");
    assert!(error.hint().expect("a hint").contains(&format!("remove {}", path.display())));
    assert_eq!(pull(options()).await.expect("repaired"), first);
    assert_eq!(pull(offline).await.expect("whole again"), first);
    assert_eq!(first.layer_trees().into_iter().map(tree).collect::<Vec<_>>(), trees);
    assert_eq!(home.contents(), (4, 2, 0), "nothing is left of the damage");
}

#[tokio::test]
async fn a_truncated_manifest_is_fetched_again_unless_offline() {
    repaired_after(|home, image| {
        let path = home.store.blob_path(&image.manifest_digest);
        fs::write(&path, b"{").expect("damage");
        path
    })
    .await;
}

#[tokio::test]
async fn an_emptied_configuration_is_fetched_again_unless_offline() {
    repaired_after(|home, image| {
        let path = home.store.blob_path(&image.config_digest);
        fs::write(&path, b"").expect("damage");
        path
    })
    .await;
}

#[tokio::test]
async fn a_layer_with_junk_for_a_record_is_unpacked_again_unless_offline() {
    repaired_after(|_, image| {
        let layer = image.layers[1].tree.parent().expect("a layer").to_path_buf();
        fs::write(layer.join("layer.json"), b"junk").expect("damage");
        fs::write(layer.join("tree/stray"), b"x").expect("damage");
        layer
    })
    .await;
}

#[tokio::test]
async fn a_layer_without_its_tree_is_unpacked_again_unless_offline() {
    repaired_after(|_, image| {
        let layer = image.layers[0].tree.parent().expect("a layer").to_path_buf();
        fs::remove_dir_all(layer.join("tree")).expect("damage");
        layer
    })
    .await;
}

#[tokio::test]
async fn a_layer_without_its_record_is_replaced() {
    let (home, image) = (Home::new(), image("amd64"));
    let registry = Arc::new(Registry::Memory(memory(&image)));
    let reference = Reference::parse("registry.test/a:1").expect("a reference");
    let pull = async || lbx_image::pull_from(&registry, &home.store, &reference, &options(), &|_| ()).await;
    let first = pull().await.expect("a pull");
    let layer = first.layers[1].tree.parent().expect("a layer");
    fs::remove_file(layer.join("layer.json")).expect("damage");
    fs::write(layer.join("tree/stray"), b"x").expect("damage");
    assert_eq!(pull().await.expect("repaired"), first);
    assert!(!layer.join("tree/stray").exists());
}

#[tokio::test]
async fn two_pulls_of_one_image_at_once_agree() {
    let (home, image) = (Home::new(), image("amd64"));
    let registry = Arc::new(Registry::Memory(memory(&image)));
    let pinned = Reference::parse(&format!("registry.test/a@{}", image.digest())).expect("a reference");
    let options = options();
    let pull = || lbx_image::pull_from(&registry, &home.store, &pinned, &options, &|_| ());
    let (one, two) = tokio::join!(pull(), pull());
    assert_eq!(one.expect("a pull"), two.expect("a pull"));
    assert_eq!(home.contents(), (4, 2, 0));
}

#[tokio::test]
async fn flattening_removes_hides_and_follows_as_an_overlay_of_the_layers_would() {
    let (home, image) = (Home::new(), image("amd64"));
    let registry = Arc::new(Registry::Memory(memory(&image)));
    let pinned = Reference::parse(&format!("registry.test/a@{}", image.digest())).expect("a reference");
    let pulled =
        lbx_image::pull_from(&registry, &home.store, &pinned, &options(), &|_| ()).await.expect("a pull");
    // `lib/through` would hide the link `lib` of the layer below.
    assert!(!pulled.overlay_ready() && pulled.layers[0].overlay_ready);
    let flat = flatten(&home.store, &pulled).expect("a tree");
    let nodes = tree(&flat);
    let names: Vec<String> = nodes.keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    assert_eq!(
        names,
        [
            "etc",
            "etc/kept",
            "grüße",
            "lib",
            "opt",
            "opt/new",
            "usr",
            "usr/lib",
            "usr/lib/again",
            "usr/lib/noise",
            "usr/lib/through"
        ]
    );
    assert_eq!(nodes["lib".as_bytes()], Node::Link(b"/usr/lib".to_vec()));
    assert_eq!(nodes["grüße".as_bytes()], Node::File(0o755, b"setuid".to_vec()));
    let inode =
        |path: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(flat.join(path)).expect("a file"));
    assert_eq!(inode("usr/lib/again"), inode("usr/lib/noise"), "hard links stay links");
    assert_ne!(
        inode("usr/lib/noise"),
        std::os::unix::fs::MetadataExt::ino(
            &fs::metadata(pulled.layers[0].tree.join("usr/lib/noise")).expect("a file")
        )
    );
    assert_eq!(flatten(&home.store, &pulled).expect("kept"), flat);
}

#[tokio::test]
async fn a_dropped_pull_leaves_nothing_under_a_final_name_and_cleans_up() {
    let (home, image) = (Home::new(), image("amd64"));
    let registry = Arc::new(Registry::Memory(memory(&image)));
    let pinned = Reference::parse(&format!("registry.test/a@{}", image.digest())).expect("a reference");
    for microseconds in [0, 200, 1000, 3000, 10_000, 30_000] {
        let options = options();
        let pull = lbx_image::pull_from(&registry, &home.store, &pinned, &options, &|_| ());
        let _ = tokio::time::timeout(std::time::Duration::from_micros(microseconds), pull).await;
    }
    // Threads that were under way see the cancellation soon.
    for _ in 0..200 {
        if home.contents().2 == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(home.contents().2, 0);
    lbx_image::pull_from(&registry, &home.store, &pinned, &options(), &|_| ()).await.expect("a pull");
}
