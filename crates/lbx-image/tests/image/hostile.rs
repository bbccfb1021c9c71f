//! Layers made to escape, to mislead or to exhaust: refused, or harmless. Each runs with both path resolvers,
//! next to a directory that must not change.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use fs_err as fs;
use lbx_image::unpack::{LayerRecord, Limits, Resolver, UnpackError};
use lbx_testkit::images::{Layer, Tar, gzip, header, seal, sha256};

use crate::support::{Node, RESOLVERS, tree, unpack_layer};

/// A place to unpack in, with a victim beside it.
pub(crate) struct Arena {
    directory: tempfile::TempDir,
}

impl Arena {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(directory.path().join("victim/inner")).expect("a victim");
        fs::write(directory.path().join("victim/secret"), b"secret").expect("a secret");
        fs::create_dir(directory.path().join("work")).expect("a work directory");
        Self { directory }
    }

    pub(crate) fn victim(&self) -> Vec<u8> {
        self.directory.path().join("victim").as_os_str().as_bytes().to_vec()
    }

    pub(crate) fn tree(&self) -> std::path::PathBuf {
        self.directory.path().join("work/tree")
    }

    pub(crate) fn unpack(
        &self,
        layer: &Layer,
        limits: &Limits,
        resolver: Resolver,
    ) -> Result<LayerRecord, UnpackError> {
        let before = self.outside();
        let result = unpack_layer(&self.directory.path().join("work"), layer, limits, resolver);
        assert_eq!(self.outside(), before, "something outside the tree changed");
        result
    }

    /// Everything but the work directory: names, modes, contents, link counts.
    fn outside(&self) -> String {
        let secret = fs::metadata(self.directory.path().join("victim/secret")).expect("the secret");
        let names: Vec<_> = fs::read_dir(self.directory.path())
            .expect("the arena")
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        let work: Vec<_> = fs::read_dir(self.directory.path().join("work"))
            .expect("work")
            .flatten()
            .map(|entry| entry.file_name())
            .filter(|name| name != "blob" && name != "tree")
            .collect();
        format!(
            "{:?} {} {:o} {names:?} {work:?}",
            tree(&self.directory.path().join("victim")),
            secret.nlink(),
            secret.mode()
        )
    }
}

type Outcome = (Result<LayerRecord, UnpackError>, BTreeMap<Vec<u8>, Node>);

/// Unpacks with both resolvers, which must agree, and returns what came out.
fn run_with(make: impl Fn(&[u8]) -> Layer, limits: &Limits) -> Outcome {
    let [first, second] = RESOLVERS.map(|resolver| {
        let arena = Arena::new();
        let result = arena.unpack(&make(&arena.victim()), limits, resolver);
        let nodes = if arena.tree().exists() { tree(&arena.tree()) } else { BTreeMap::new() };
        (result, nodes)
    });
    assert_eq!(first.0.is_ok(), second.0.is_ok(), "the resolvers disagree");
    first
}

fn run(tar: Tar) -> Outcome {
    let layer = Layer::gzip(&tar.finish());
    run_with(|_| layer.clone(), &Limits::default())
}

fn refused(tar: Tar) -> String {
    match run(tar).0 {
        Err(
            error @ (UnpackError::Entry { .. }
            | UnpackError::LowerLink { .. }
            | UnpackError::Archive { .. }
            | UnpackError::Limit { .. }),
        ) => error.to_string(),
        other => panic!("expected a refusal, found {other:?}"),
    }
}

fn names(outcome: &Outcome) -> Vec<String> {
    outcome.1.keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

#[test]
fn climbing_paths_are_refused_and_absolute_ones_stay_inside() {
    for path in ["../victim/x", "a/../../victim/x", "/../victim/x", "./..//victim/x", "a/..", ".."] {
        refused(Tar::new().file(path, 0o644, b"x"));
        refused(Tar::new().dir(path, 0o755));
        refused(Tar::new().symlink(path, "x"));
    }
    assert_eq!(names(&run(Tar::new().file("//etc/./passwd", 0o644, b"x"))), ["etc", "etc/passwd"]);
}

#[test]
fn the_root_stays_a_directory() {
    for path in ["/", ".", "./", "/.", "//", "././"] {
        refused(Tar::new().symlink(path, "/"));
        refused(Tar::new().entry(b'0', path.trim_end_matches('/').as_bytes(), b"", 0o644, b"x"));
        refused(Tar::new().file("a", 0o644, b"").hard_link(path, "a"));
        assert!(run(Tar::new().dir(path, 0o500).file("a", 0o644, b"")).0.is_ok(), "{path}");
    }
}

#[test]
fn writing_through_a_link_stays_inside() {
    let up = run(Tar::new().symlink("l", "../../victim").file("l/x", 0o644, b"x"));
    assert_eq!(names(&up), ["l", "victim", "victim/x"]);
    let chain = Tar::new()
        .symlink("a", "/")
        .symlink("b", "a/../../..")
        .symlink("c", "b/victim")
        .file("c/secret", 0o644, b"x");
    assert_eq!(names(&run(chain)), ["a", "b", "c", "victim", "victim/secret"]);
    let absolute = run_with(
        |victim| {
            Layer::gzip(
                &Tar::new()
                    .symlink("l", victim)
                    .file("l/secret", 0o644, b"x")
                    .whiteout("l/inner")
                    .opaque("l")
                    .finish(),
            )
        },
        &Limits::default(),
    );
    assert!(absolute.0.is_ok(), "{:?}", absolute.0);
}

#[test]
fn what_is_put_over_a_link_replaces_the_link() {
    for over in [
        (|tar: Tar| tar.file("l", 0o644, b"x")) as fn(Tar) -> Tar,
        |tar| tar.dir("l", 0o777),
        |tar| tar.dir("l", 0o777).file("l/secret", 0o644, b"x"),
        |tar| tar.symlink("l", "elsewhere"),
        |tar| tar.file("f", 0o644, b"").hard_link("l", "f"),
    ] {
        for target in ["secret", "inner", ""] {
            let make = |victim: &[u8]| {
                let target = [victim, b"/", target.as_bytes()].concat();
                Layer::gzip(&over(Tar::new().symlink("l", target)).finish())
            };
            assert!(run_with(make, &Limits::default()).0.is_ok());
        }
    }
    // A directory's mode, applied late, must not reach what took its place.
    let late = |victim: &[u8]| Layer::gzip(&Tar::new().dir("d", 0o777).symlink("d", victim).finish());
    assert!(run_with(late, &Limits::default()).0.is_ok());
}

#[test]
fn anything_may_replace_anything() {
    let kinds: [fn(Tar) -> Tar; 4] = [
        |tar| tar.file("x", 0o644, b"new"),
        |tar| tar.dir("x", 0o755).file("x/in", 0o644, b""),
        |tar| tar.symlink("x", "y"),
        |tar| tar.hard_link("x", "y"),
    ];
    for before in kinds {
        for after in kinds {
            let (result, nodes) = run(after(before(Tar::new().file("y", 0o644, b"y"))));
            assert!(result.is_ok(), "{result:?}");
            let (_, alone) = run(after(Tar::new().file("y", 0o644, b"y")));
            assert_eq!(nodes, alone);
        }
    }
}

#[test]
fn hard_links_reach_only_what_the_layer_made() {
    for target in ["../victim/secret", "/etc/passwd", "missing", "later", "d", ".", "h"] {
        refused(Tar::new().dir("d", 0o755).hard_link("h", target).file("later", 0o644, b""));
    }
    let through = run_with(
        |victim| Layer::gzip(&Tar::new().symlink("l", victim).hard_link("h", "l/secret").finish()),
        &Limits::default(),
    );
    assert!(matches!(through.0, Err(UnpackError::LowerLink { .. })), "{:?}", through.0);
    // A hard link to a link is another name of the link; writing to it replaces that name.
    let to_link = run_with(
        |victim| {
            let target = [victim, b"/secret"].concat();
            Layer::gzip(&Tar::new().symlink("l", target).hard_link("h", "l").file("h", 0o644, b"x").finish())
        },
        &Limits::default(),
    );
    assert_eq!(to_link.1[&b"h"[..]], Node::File(0o644, b"x".to_vec()));
    // A link to itself removes nothing, and writing to one name leaves the other's data alone.
    let own = run(Tar::new()
        .file("a", 0o644, b"1")
        .hard_link("b", "a")
        .hard_link("b", "a")
        .hard_link("a", "a")
        .file("a", 0o600, b"2"));
    assert_eq!(own.1[&b"b"[..]], Node::File(0o644, b"1".to_vec()));
}

#[test]
fn markers_work_in_any_order_and_never_remove_what_the_layer_brings() {
    let wanted = run(Tar::new()
        .dir("d", 0o755)
        .opaque("d")
        .file("d/a", 0o644, b"")
        .whiteout("gone")
        .whiteout("b")
        .file("b", 0o644, b"")
        .whiteout("c")
        .dir("c", 0o755));
    let turned = run(Tar::new()
        .dir("c", 0o755)
        .whiteout("c")
        .file("b", 0o644, b"")
        .whiteout("b")
        .whiteout("gone")
        .dir("d", 0o755)
        .file("d/a", 0o644, b"")
        .opaque("d"));
    assert_eq!(wanted.1, turned.1);
    let record = wanted.0.expect("a layer");
    assert_eq!(format!("{:?} {:?}", record.whiteouts, record.opaque), r#"["gone"] ["c", "d"]"#);
    assert_eq!(turned.0.expect("a layer"), record);
    if record.overlay_ready {
        assert_eq!(wanted.1[&b"gone"[..]], Node::Other(0));
    }
}

#[test]
fn overlay_markers_are_in_the_tree_or_the_record_says_that_they_are_not() {
    let arena = Arena::new();
    let tar = Tar::new().dir("d", 0o755).opaque("d").whiteout("d/x").finish();
    let record = arena.unpack(&Layer::gzip(&tar), &Limits::default(), Resolver::detect()).expect("a layer");
    let mut value = [0; 8];
    let found = rustix::fs::getxattr(arena.tree().join("d"), "user.overlay.opaque", &mut value);
    assert_eq!(
        record.overlay_ready,
        found == Ok(1) && value[0] == b'y' && tree(&arena.tree()).contains_key(&b"d/x"[..])
    );
    // overlayfs never treats the root of a layer as opaque.
    assert!(!run(Tar::new().opaque("")).0.expect("a layer").overlay_ready);
}

#[test]
fn malformed_markers_are_refused() {
    for path in [".wh.", "a/.wh..", ".wh...", ".wh.x/y", ".wh..wh..opq/y"] {
        refused(Tar::new().file(path, 0o644, b""));
    }
    refused(Tar::new().dir(".wh.a", 0o755));
    refused(Tar::new().symlink(".wh.a", "b"));
    refused(Tar::new().symlink(".wh..wh..opq", "b"));
    let foreign = run(Tar::new().file(".wh..wh.plnk", 0o644, b""));
    assert!(foreign.1.is_empty() && foreign.0.expect("a layer").skipped.len() == 1);
}

#[test]
fn attributes_devices_and_privileges_are_left_behind() {
    let attributes: [(&str, &[u8]); 3] = [
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/"),
        ("SCHILY.xattr.security.capability", b"x"),
    ];
    let tar = Tar::new()
        .pax(&attributes)
        .dir("d", 0o2755)
        .entry(b'3', b"null", b"", 0o666, b"")
        .entry(b'4', b"disk", b"", 0o666, b"")
        .entry(b'6', b"fifo", b"", 0o666, b"")
        .file("su", 0o6755, b"")
        .file("none", 0, b"")
        .dir("closed", 0)
        .file("closed/in", 0o644, b"")
        .dir("tmp", 0o1777);
    let arena = Arena::new();
    let record =
        arena.unpack(&Layer::gzip(&tar.finish()), &Limits::default(), Resolver::detect()).expect("a layer");
    assert_eq!(format!("{:?} {:?}", record.skipped, record.privileged), r#"["null", "disk", "fifo"] ["su"]"#);
    let nodes = tree(&arena.tree());
    let modes: Vec<String> = nodes
        .iter()
        .map(|(name, node)| match node {
            Node::File(mode, _) | Node::Directory(mode) => {
                format!("{} {mode:o}", String::from_utf8_lossy(name))
            }
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(modes, ["closed 700", "closed/in 644", "d 755", "none 600", "su 755", "tmp 1777"]);
    let mut names = vec![0; 1000];
    let count = rustix::fs::listxattr(arena.tree().join("d"), &mut names).expect("a list");
    assert_eq!(count, 0);
    assert_eq!(fs::metadata(arena.tree().join("su")).expect("a file").mtime(), 1_577_836_800);
}

fn limited(tar: &[u8], limits: &Limits) -> String {
    match run_with(|_| Layer::gzip(tar), limits).0 {
        Err(error @ UnpackError::Limit { .. }) => error.to_string(),
        other => panic!("expected a limit, found {other:?}"),
    }
}

#[test]
fn bombs_end_at_their_limits() {
    let big = Tar::new().file("zeros", 0o644, &vec![0; 20 << 20]).finish();
    limited(&big, &Limits { total_bytes: 1 << 20, ..Limits::default() });
    limited(&big, &Limits { ratio: 50, ratio_after: 1 << 20, ..Limits::default() });
    let many = (0..20).fold(Tar::new(), |tar, number| tar.file(format!("f{number}"), 0o644, b"")).finish();
    limited(&many, &Limits { entries: 10, ..Limits::default() });
    limited(&Tar::new().file("a/".repeat(300) + "f", 0o644, b"").finish(), &Limits::default());
    limited(&Tar::new().file("x".repeat(5000), 0o644, b"").finish(), &Limits::default());
    limited(&Tar::new().file(vec![b'x'; 2 << 20], 0o644, b"").finish(), &Limits::default());
    limited(&sparse(&[(0, 512)], 1 << 34, 512), &Limits::default());
}

#[test]
fn a_deep_tree_is_removed_again_when_it_is_replaced() {
    let deep = "d/".repeat(250) + "f";
    assert_eq!(names(&run(Tar::new().file(deep, 0o644, b"").file("d", 0o644, b""))), ["d"]);
}

/// An old GNU sparse entry.
fn sparse(pieces: &[(u64, u64)], length: u64, data: usize) -> Vec<u8> {
    let mut block = header(b'S', b"sparse", b"", 0o644, data as u64);
    block[257..265].copy_from_slice(b"ustar  \0");
    for (index, (offset, size)) in pieces.iter().enumerate() {
        let at = 386 + 24 * index;
        block[at..at + 24].copy_from_slice(format!("{offset:011o}\0{size:011o}\0").as_bytes());
    }
    block[483..495]
        .copy_from_slice(format!("{length:011o}\0").as_bytes()[..12].try_into().unwrap_or(&[b'7'; 12]));
    seal(&mut block);
    let padded = data.next_multiple_of(512);
    Tar::new()
        .raw(&block)
        .raw(&[vec![7; data], vec![0; padded - data]].concat())
        .file("after", 0o644, b"")
        .finish()
}

#[test]
fn sparse_files_get_their_holes_and_bad_maps_are_refused() {
    let good = run_with(|_| Layer::gzip(&sparse(&[(512, 512), (2048, 100)], 4096, 612)), &Limits::default());
    let Node::File(_, data) = &good.1[&b"sparse"[..]] else { panic!("a file") };
    let expected = [vec![0; 512], vec![7; 512], vec![0; 1024], vec![7; 100], vec![0; 1948]].concat();
    assert_eq!(*data, expected);
    for (pieces, data) in [
        (&[(512, 512), (0, 512)][..], 1024),
        (&[(0, 512), (256, 512)], 1024),
        (&[(4000, 512)], 512),
        (&[(0, 100)], 512),
    ] {
        let bad = run_with(|_| Layer::gzip(&sparse(pieces, 4096, data)), &Limits::default());
        assert!(matches!(bad.0, Err(UnpackError::Archive { .. })), "{pieces:?}: {:?}", bad.0);
    }
}

#[test]
fn all_bytes_count_for_the_digest_and_garbage_after_them_is_refused() {
    let tar = Tar::new().file("a", 0o644, b"a").finish();
    let more = [&tar[..], b"after the end"].concat();
    let honest = Layer { blob: gzip(&more), ..Layer::gzip(&more) };
    assert!(run_with(|_| honest.clone(), &Limits::default()).0.is_ok());
    let liar = Layer { diff_id: sha256(&tar), ..honest };
    assert!(matches!(run_with(|_| liar.clone(), &Limits::default()).0, Err(UnpackError::DiffId { .. })));
    let members = Layer { blob: [gzip(&tar), gzip(b"after the end")].concat(), ..Layer::gzip(&more) };
    assert!(run_with(|_| members.clone(), &Limits::default()).0.is_ok(), "a second member is hashed too");
    for garbage in [&b"garbage"[..], &[0; 100], b"\x1f\x8b\x08"] {
        let trailing = Layer { blob: [&gzip(&tar), garbage].concat(), ..Layer::gzip(&tar) };
        let result = run_with(|_| trailing.clone(), &Limits::default()).0;
        assert!(matches!(result, Err(UnpackError::Compression { .. })), "{result:?}");
    }
    let cut = Layer { blob: gzip(&tar)[..60].to_vec(), ..Layer::gzip(&tar) };
    assert!(matches!(run_with(|_| cut.clone(), &Limits::default()).0, Err(UnpackError::Compression { .. })));
    let plain = Layer { blob: tar.clone(), ..Layer::gzip(&tar) };
    assert!(matches!(
        run_with(|_| plain.clone(), &Limits::default()).0,
        Err(UnpackError::Compression { .. })
    ));
}

#[test]
fn odd_names_are_kept_and_messages_are_safe_to_print() {
    let odd: [&[u8]; 4] = [b"not\xffutf8", b"new\nline", b"\x1b[2J", "grüße".as_bytes()];
    let tar = odd.iter().fold(Tar::new(), |tar, name| tar.file(name, 0o644, b"x"));
    let outcome = run(tar);
    assert!(odd.iter().all(|name| outcome.1.contains_key(*name)));
    let message = refused(Tar::new().file("a\x1b[2J\n/../b", 0o644, b""));
    assert!(message.contains(r"a\x1b[2J\n") && !message.contains('\x1b'), "{message}");
    refused(Tar::new().pax(&[("path", b"a\0b")]).file("c", 0o644, b""));
    refused(Tar::new().pax(&[("linkpath", b"a\0b")]).symlink("c", "d"));
    refused(Tar::new().symlink("c", ""));
    let long = run(Tar::new().file("x".repeat(256), 0o644, b""));
    assert!(matches!(long.0, Err(UnpackError::System { .. })), "{:?}", long.0);
}

#[test]
fn a_parent_that_is_a_file_or_a_loop_is_refused() {
    refused(Tar::new().file("a", 0o644, b"").file("a/b", 0o644, b""));
    refused(Tar::new().symlink("a", "b").symlink("b", "a").file("a/c", 0o644, b""));
    refused(Tar::new().entry(b'V', b"volume", b"", 0o644, b""));
}

#[test]
fn the_umask_does_not_show() {
    // The test can't change its own umask without disturbing the others, so a shell does it around this binary.
    let script = "umask 077; exec \"$0\" --exact hostile::attributes_devices_and_privileges_are_left_behind";
    let this = std::env::current_exe().expect("a test has a path");
    let status = std::process::Command::new("sh").arg("-c").arg(script).arg(this).output().expect("sh runs");
    assert!(status.status.success(), "{}", OsStr::from_bytes(&status.stdout).display());
}

#[test]
fn many_entries_and_links_take_linear_time() {
    let make = |count: usize| {
        let tar = Tar::new().file("d/first", 0o644, b"");
        let tar = (0..count).fold(tar, |tar, number| tar.hard_link(format!("d/{number}"), "d/first"));
        Layer::gzip(&(0..count).fold(tar, |tar, number| tar.whiteout(&format!("w/{number}"))).finish())
    };
    let time = |layer: &Layer| {
        let arena = Arena::new();
        let started = std::time::Instant::now();
        arena.unpack(layer, &Limits::default(), Resolver::detect()).expect("a layer");
        started.elapsed()
    };
    let (small, large) = (time(&make(1000)), time(&make(16_000)));
    assert!(large < small * 16 * 8, "{small:?} for 1000, {large:?} for 16000");
}
