//! Valid archives with a few bytes changed: the reader must not panic, and what it still accepts must mean the same
//! to the `zip` crate.

use std::io::{Cursor, Read};

use lbx_archive::{Entry, Source, Timestamp, compress, write};
use proptest::prelude::*;

use crate::raw::{Raw, Tail, archive_with};
use crate::support::{file_of, open};

fn seeds() -> Vec<Vec<u8>> {
    let text = b"import os\n".repeat(20);
    let ours: Vec<Entry> = [("a.py", &text[..]), ("d/ä", b"x"), ("d/e", b"")]
        .into_iter()
        .map(|(name, content)| {
            let (packed, bytes) = compress(content);
            Entry { name: name.into(), executable: false, packed, source: Source::Memory(bytes.into()) }
        })
        .collect();
    let mut written = Vec::new();
    write(&mut written, &ours, Timestamp::default()).unwrap();
    let odd = [
        Raw::new("d/", b""),
        Raw::new("d/a", &text).deferred(true),
        Raw::new("d/b", &text).deferred(false),
        Raw::new("c", &text).with(|raw| {
            raw.comment = b"comment".to_vec();
            raw.central.extra = vec![0x55, 0x54, 2, 0, 9, 9];
        }),
    ];
    let tail = Tail { zip64: Some(|_| {}), comment: b"comment".to_vec(), ..Tail::default() };
    vec![written, archive_with(&odd, &Tail::default()), archive_with(&odd, &tail)]
}

/// What an accepted archive means: names and contents, by both readers. `None` if a member's content is refused.
fn ours(bytes: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let archive = open(bytes).ok()?;
    let file = file_of(bytes);
    archive.members().iter().map(|member| Some((member.name.clone(), member.read(&file).ok()?))).collect()
}

fn theirs(bytes: &[u8]) -> zip::result::ZipResult<Vec<(String, Vec<u8>)>> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes))?;
    (0..archive.len())
        .map(|at| {
            let mut member = archive.by_index(at)?;
            let mut content = Vec::new();
            member.read_to_end(&mut content)?;
            Ok((member.name()?.into_owned(), content))
        })
        .collect()
}

fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
    let Some(ours) = ours(bytes) else { return Ok(()) };
    match theirs(bytes) {
        Ok(theirs) => prop_assert_eq!(ours, theirs),
        Err(error) => return Err(TestCaseError::fail(format!("only we accept it: {error}"))),
    }
    Ok(())
}

#[test]
fn the_seeds_mean_the_same_to_both() {
    for seed in seeds() {
        assert!(ours(&seed).is_some());
        check(&seed).unwrap();
    }
}

/// Every byte, with the changes that matter most to counts and flags.
#[test]
fn no_single_byte_makes_a_difference_between_readers() {
    for seed in seeds() {
        for at in 0..seed.len() {
            for change in [0x01, 0x08, 0x80, 0xff] {
                let mut bytes = seed.clone();
                bytes[at] ^= change;
                check(&bytes).unwrap_or_else(|error| panic!("byte {at} changed by {change:#x}: {error}"));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn several_changes_make_no_difference_between_readers(
        seed in prop::sample::select(seeds()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of((any::<prop::sample::Index>(), 0usize..40)),
        insert in prop::option::of((any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..40))),
    ) {
        let mut bytes = seed;
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some((at, len)) = cut {
            let at = at.index(bytes.len());
            bytes.drain(at..(at + len).min(bytes.len()));
        }
        if let Some((at, more)) = insert {
            let at = at.index(bytes.len() + 1);
            bytes.splice(at..at, more);
        }
        check(&bytes)?;
    }
}
