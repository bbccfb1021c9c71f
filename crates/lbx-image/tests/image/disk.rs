//! A full disk: one error that names the place, and nothing under a final name.

use std::process::Command;

use lbx_image::Store;
use lbx_testkit::images::{Image, Layer, Tar};
use lbx_testkit::registry::Registry;

use crate::kill::example;
use crate::support::noise;

/// Pulls into a file system of a size that the transfer, or only the tree, doesn't fit in.
fn pull_into(size: &str, reference: &str) -> Option<String> {
    let mount = tempfile::tempdir().expect("a directory");
    let script = r#"mount -t tmpfs -o size=$1,mode=700 tmpfs "$2" || exit 77
        "$3" "$2/store" "$4"; echo "status $?"; find "$2"/store/blobs/sha256 "$2"/store/layers/v1 -size +64k; ls "$2"/store/tmp"#;
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", size])
        .arg(mount.path())
        .arg(example("pull"))
        .arg(reference)
        .output()
        .expect("unshare runs");
    let text = [output.stdout, output.stderr].concat();
    // Where user namespaces are denied, there is no small file system to be had.
    (output.status.code() != Some(77) && output.status.success())
        .then(|| String::from_utf8_lossy(&text).into_owned())
}

/// The file that was being written has a name that means nothing to anybody, and is gone.
fn assert_names_the_store_once(text: &str) {
    let (_, error) = text.split_once("DiskFull {").unwrap_or_else(|| panic!("no DiskFull: {text}"));
    assert_eq!(error.matches("/store").count(), 1, "{text}");
    assert!(error.contains("/store\""), "{text}");
}

#[test]
fn a_full_disk_is_named_and_nothing_half_written_stays() {
    let data = tempfile::tempdir().expect("a directory");
    let registry = Registry::start(data.path());
    let layer = Layer::gzip(&Tar::new().file("noise", 0o644, &noise(1, 3 << 20)).finish());
    registry.push_image("a", "1", &Image::new("amd64", vec![layer]));
    let reference = registry.reference("a", "1");
    let Some(transfer) = pull_into("1m", &reference) else {
        eprintln!("skipped: user namespaces are denied here");
        return;
    };
    assert!(transfer.contains("status 1\n"), "{transfer}");
    assert_names_the_store_once(&transfer);
    assert!(!transfer.contains("blobs/sha256/"), "{transfer}");
    let tree = pull_into("5m", &reference).expect("namespaces as before");
    assert_names_the_store_once(&tree);
    assert!(!tree.contains("layers/v1/"), "{tree}");
    let enough = pull_into("20m", &reference).expect("namespaces as before");
    assert!(enough.contains("status 0\n"), "{enough}");
}

/// ext4 takes its time to make files where many were removed in the last minutes.
#[test]
fn temporary_directories_are_spread_over_the_disk_where_the_file_system_can() {
    use rustix::fs::{IFlags, Mode, OFlags};
    const EXT4: i64 = 0xEF53;
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).or_else(|_| tempfile::tempdir());
    let directory = directory.expect("a directory");
    let root = directory.path().join("store");
    // Once more, because it is set already then.
    for _ in 0..2 {
        Store::open(&root).expect("a store");
    }
    let tmp = rustix::fs::open(root.join("tmp"), OFlags::RDONLY, Mode::empty()).expect("our own");
    if rustix::fs::fstatfs(&tmp).expect("a file system").f_type == EXT4 {
        assert!(rustix::fs::ioctl_getflags(&tmp).expect("flags").contains(IFlags::TOPDIR));
    }
}
