//! Properties over generated layers: well-formed ones come out as written, hostile ones stay inside, and both
//! path resolvers do the same.

use std::collections::BTreeMap;

use lbx_image::unpack::Limits;
use lbx_testkit::images::{Layer, Tar};
use proptest::prelude::*;
use proptest::sample::select;

use crate::hostile::Arena;
use crate::support::{Node, RESOLVERS, tree};

/// A tree as a model: a path's parents are directories.
fn well_formed() -> impl Strategy<Value = BTreeMap<Vec<u8>, Node>> {
    let name = prop_oneof![
        select(vec![b"a".to_vec(), b"b".to_vec(), "ü".as_bytes().to_vec(), b"with space".to_vec()]),
        proptest::collection::vec(1_u8..=255, 1..120).prop_filter("a file name", |name| {
            !name.contains(&b'/') && name != b"." && name != b".." && !name.starts_with(b".wh.")
        }),
    ];
    let leaf = prop_oneof![
        (0_u32..0o1000, proptest::collection::vec(any::<u8>(), 0..2000))
            .prop_map(|(mode, data)| Node::File(mode | 0o600, data)),
        (0_u32..0o1000).prop_map(|mode| Node::Directory(mode | 0o700)),
        proptest::collection::vec(1_u8..=255, 1..150).prop_map(Node::Link),
    ];
    proptest::collection::vec((proptest::collection::vec(name, 1..5), leaf), 0..30).prop_map(|entries| {
        let mut model: BTreeMap<Vec<u8>, Node> = BTreeMap::new();
        for (parts, leaf) in entries {
            let parents: Vec<Vec<u8>> = (1..parts.len()).map(|end| parts[..end].join(&b'/')).collect();
            let blocked =
                parents.iter().any(|path| !matches!(model.get(path), None | Some(Node::Directory(_))));
            let path = parts.join(&b'/');
            if blocked || model.contains_key(&path) {
                continue;
            }
            for parent in parents {
                model.entry(parent).or_insert(Node::Directory(0o755));
            }
            model.insert(path, leaf);
        }
        model
    })
}

fn archive(model: &BTreeMap<Vec<u8>, Node>) -> Vec<u8> {
    let write = |tar: Tar, (path, node): (&Vec<u8>, &Node)| match node {
        Node::File(mode, data) => tar.file(path, *mode, data),
        Node::Directory(mode) => tar.dir(path, *mode),
        Node::Link(target) => tar.symlink(path, target),
        Node::Other(_) => tar,
    };
    model.iter().fold(Tar::new(), write).finish()
}

#[derive(Debug, Clone)]
enum Step {
    File(String),
    Dir(String),
    Symlink(String, String),
    HardLink(String, String),
    Whiteout(String),
    Opaque(String),
}

fn hostile() -> impl Strategy<Value = Vec<Step>> {
    let part = select(vec!["a", "b", "c", "..", ".", "", "victim", "secret", "inner"]);
    let path = proptest::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"));
    let inside = proptest::collection::vec(select(vec!["a", "b", "c", "victim"]), 1..4)
        .prop_map(|parts| parts.join("/"));
    let entry = prop_oneof![4 => inside.clone(), 1 => path.clone()];
    let target = prop_oneof![path, Just("VICTIM".to_owned()), Just("VICTIM/secret".to_owned()), inside];
    let step = prop_oneof![
        entry.clone().prop_map(Step::File),
        entry.clone().prop_map(Step::Dir),
        (entry.clone(), target.clone()).prop_map(|(path, target)| Step::Symlink(path, target)),
        (entry.clone(), target).prop_map(|(path, target)| Step::HardLink(path, target)),
        entry.clone().prop_map(Step::Whiteout),
        entry.prop_map(Step::Opaque),
    ];
    proptest::collection::vec(step, 1..12)
}

fn hostile_archive(steps: &[Step], victim: &[u8]) -> Vec<u8> {
    let target = |text: &String| match text.strip_prefix("VICTIM") {
        Some(rest) => [victim, rest.as_bytes()].concat(),
        None => text.as_bytes().to_vec(),
    };
    let write = |tar: Tar, step: &Step| match step {
        Step::File(path) => tar.file(path, 0o666, b"hostile"),
        Step::Dir(path) => tar.dir(path, 0o777),
        Step::Symlink(path, to) => tar.symlink(path, target(to)),
        Step::HardLink(path, to) => tar.hard_link(path, target(to)),
        Step::Whiteout(path) => tar.whiteout(path),
        Step::Opaque(path) => tar.opaque(path),
    };
    steps.iter().fold(Tar::new(), write).finish()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_well_formed_layer_comes_out_as_it_was_written(model in well_formed()) {
        for resolver in RESOLVERS {
            let arena = Arena::new();
            let record = arena.unpack(&Layer::gzip(&archive(&model)), &Limits::default(), resolver).expect("a layer");
            prop_assert_eq!(&tree(&arena.tree()), &model);
            prop_assert_eq!(record.entries, model.len() as u64);
        }
    }

    #[test]
    fn a_hostile_layer_stays_inside_and_both_resolvers_do_the_same(steps in hostile()) {
        let outcomes = RESOLVERS.map(|resolver| {
            let arena = Arena::new();
            let layer = Layer::gzip(&hostile_archive(&steps, b"/absolute/victim"));
            let record = arena.unpack(&layer, &Limits::default(), resolver);
            let real = Arena::new();
            let layer = Layer::gzip(&hostile_archive(&steps, &real.victim()));
            let _ = real.unpack(&layer, &Limits::default(), resolver);
            (record.map_err(|error| error.to_string()), tree(&arena.tree()))
        });
        prop_assert_eq!(&outcomes[0], &outcomes[1]);
    }

    #[test]
    fn noise_in_an_archive_is_an_error_or_harmless(position in 0_usize..4096, byte in any::<u8>(), steps in hostile()) {
        let mut tar = hostile_archive(&steps, b"/absolute/victim");
        let at = position % tar.len();
        tar[at] = byte;
        let arena = Arena::new();
        let _ = arena.unpack(&Layer::plain(&tar), &Limits::default(), RESOLVERS[0]);
    }
}
