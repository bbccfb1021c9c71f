//! What holds for any stream: for those of real interpreters, for mutations of them, and for two encodings of one value.

use std::collections::BTreeMap;

use lbx_wheel::bytecode::{PythonVersion, normalize};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use crate::streams::{VERSION, code, pyc};

/// What each version makes of `sample.py`, and the digest of what that becomes. The digests are part of every zip with
/// bytecode: a change of one is a change of the form.
const SAMPLES: [(u8, &[u8], &str); 7] = [
    (
        8,
        include_bytes!("samples/sample.cpython-38.pyc"),
        "495fca01186e93d342d4e9d8b2c4e2bcea004d875b99749827fbbf7d633b9192",
    ),
    (
        9,
        include_bytes!("samples/sample.cpython-39.pyc"),
        "07310f03eb0186ab2eb182a428385ba671fbe6f634450ff742dea96e8e39af60",
    ),
    (
        10,
        include_bytes!("samples/sample.cpython-310.pyc"),
        "f7e67531acaf04e6d7c4f3477d5c3fef6ce04e09d4f073ddd94bf19b86723b1d",
    ),
    (
        11,
        include_bytes!("samples/sample.cpython-311.pyc"),
        "08ca1abf13c3a38ac9769ce56463e98d71ae2533fd28b9b9e622ec9a1ed076c0",
    ),
    (
        12,
        include_bytes!("samples/sample.cpython-312.pyc"),
        "60fafdb55b787e60be59c59d20f0050e1f46c5c60b1dd8e6254f21728b72adf4",
    ),
    (
        13,
        include_bytes!("samples/sample.cpython-313.pyc"),
        "667b1567f44cae2d3c627cdc44b2e2bf749b461bc27c34e917188c2e2243a818",
    ),
    (
        14,
        include_bytes!("samples/sample.cpython-314.pyc"),
        "363d0cf87d8c01d07f5d3328a63164d9b9b22acae07dbc2c6e1fe51407eb32a0",
    ),
];

/// The result, if there is one, is accepted, is not changed again, and is not out of proportion.
fn check(pyc: &[u8], version: PythonVersion) -> Result<bool, TestCaseError> {
    let Ok(once) = normalize(pyc, version) else { return Ok(false) };
    let twice = normalize(&once, version);
    prop_assert_eq!(twice.as_ref(), Ok(&once));
    // A reference takes five bytes, and the shortest string that becomes one takes two.
    prop_assert!(once.len() <= 5 * pyc.len());
    Ok(true)
}

#[test]
fn every_version_is_understood() {
    for (minor, sample, expected) in SAMPLES {
        assert!(check(sample, PythonVersion(3, minor)).unwrap(), "3.{minor}");
        let result = normalize(sample, PythonVersion(3, minor)).unwrap();
        assert_ne!(result, sample, "3.{minor}");
        assert_eq!(hex::encode(Sha256::digest(&result)), expected, "3.{minor}");
    }
}

#[test]
fn a_code_object_of_another_layout_is_refused() {
    for (minor, sample, _) in SAMPLES {
        let other = if minor <= 10 { 11 } else { 10 };
        assert!(normalize(sample, PythonVersion(3, other)).is_err(), "3.{minor} as 3.{other}");
    }
}

#[test]
fn no_single_byte_breaks_what_reads_it() {
    for (minor, sample, _) in SAMPLES {
        for at in (16..sample.len()).step_by(17) {
            let mut bytes = sample.to_vec();
            bytes[at] ^= [0x01, 0x08, 0x80, 0xff][at % 4];
            check(&bytes, PythonVersion(3, minor))
                .unwrap_or_else(|error| panic!("3.{minor}, byte {at}: {error}"));
        }
    }
}

/// A constant, without how it is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Nothing,
    Yes,
    Int(i32),
    Bytes(Vec<u8>),
    Text(String, bool),
    Tuple(Vec<Value>),
    FrozenSet(Vec<Value>),
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Nothing),
        Just(Value::Yes),
        (-2..3_i32).prop_map(Value::Int),
        prop::collection::vec(0..3_u8, 0..3).prop_map(Value::Bytes),
        // Whether longer ones are interned is part of the value, and the same everywhere.
        "[ abé€]{0,3}".prop_map(|text| {
            let interned = text.contains('a');
            Value::Text(text, interned)
        }),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Tuple),
            prop::collection::btree_set(inner, 0..6)
                .prop_map(|set| Value::FrozenSet(set.into_iter().collect())),
        ]
    })
}

/// Writes a value as one of the histories of a process would have it: `choices` says what is marked, what is referred
/// to, what order a set has and which single characters are interned.
struct Encoder<'c> {
    choices: std::iter::Cycle<std::slice::Iter<'c, bool>>,
    numbered: BTreeMap<Value, u32>,
    next: u32,
    out: Vec<u8>,
}

impl<'c> Encoder<'c> {
    fn encode(value: &Value, choices: &'c [bool]) -> Vec<u8> {
        let out = b")\x01".to_vec();
        let mut encoder = Self { choices: choices.iter().cycle(), numbered: BTreeMap::new(), next: 0, out };
        encoder.value(value);
        encoder.out
    }

    fn choose(&mut self) -> bool {
        *self.choices.next().unwrap()
    }

    fn value(&mut self, value: &Value) {
        if let Some(&number) = self.numbered.get(value).filter(|_| *self.choices.clone().next().unwrap()) {
            self.choose();
            self.out.push(b'r');
            self.out.extend(number.to_le_bytes());
            return;
        }
        let start = self.out.len();
        let marked = !matches!(value, Value::Nothing | Value::Yes) && self.choose();
        let number = self.next;
        self.next += u32::from(marked);
        self.content(value);
        if marked {
            self.out[start] |= 0x80;
            self.numbered.insert(value.clone(), number);
        }
    }

    fn content(&mut self, value: &Value) {
        match value {
            Value::Nothing => self.out.push(b'N'),
            Value::Yes => self.out.push(b'T'),
            Value::Int(number) => {
                self.out.push(b'i');
                self.out.extend(number.to_le_bytes());
            }
            Value::Bytes(bytes) => {
                self.counted(b's', bytes.len());
                self.out.extend(bytes);
            }
            Value::Text(text, interned) => {
                let single =
                    text.is_empty() || text.chars().count() == 1 && text.chars().all(|c| c < '\u{100}');
                let interned = if single { self.choose() } else { *interned };
                self.text(text, interned);
            }
            Value::Tuple(parts) => {
                self.counted(b'(', parts.len());
                for part in parts {
                    self.value(part);
                }
            }
            Value::FrozenSet(parts) => {
                self.counted(b'>', parts.len());
                let mut parts: Vec<_> = parts.iter().collect();
                if self.choose() {
                    parts.reverse();
                }
                for part in parts {
                    self.value(part);
                }
            }
        }
    }

    fn text(&mut self, text: &str, interned: bool) {
        let code = match (text.is_ascii(), interned) {
            (true, true) => b'A',
            (true, false) => b'a',
            (false, true) => b't',
            (false, false) => b'u',
        };
        self.counted(code, text.len());
        self.out.extend(text.as_bytes());
    }

    fn counted(&mut self, code: u8, count: usize) {
        self.out.push(code);
        self.out.extend(u32::try_from(count).unwrap().to_le_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_rewritten_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), minor in 8..15_u8) {
        check(&pyc(&bytes), PythonVersion(3, minor))?;
        check(&pyc(&code(&bytes)), PythonVersion(3, minor))?;
    }

    #[test]
    fn any_type_codes_are_rewritten_or_refused(
        constants in prop::collection::vec(
            prop_oneof![
                prop::sample::select(&b"0NFT.Silfgxyszuat()[{<>:cr"[..]),
                prop::sample::select(&b"0NFT.Silfgxyszuat()[{<>:cr"[..]).prop_map(|code| code | 0x80),
                0..4_u8,
            ],
            0..60,
        ),
    ) {
        check(&pyc(&code(&constants)), PythonVersion(3, 14))?;
    }

    #[test]
    fn mutations_of_real_bytecode_are_rewritten_or_refused(
        (minor, sample, _) in prop::sample::select(&SAMPLES[..]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of((any::<prop::sample::Index>(), 0usize..40)),
        insert in prop::option::of((any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..40))),
    ) {
        let mut bytes = sample.to_vec();
        for (at, value) in changes {
            let at = 16 + at.index(bytes.len() - 16);
            bytes[at] = value;
        }
        if let Some((at, size)) = cut {
            let at = at.index(bytes.len());
            bytes.drain(at..(at + size).min(bytes.len()));
        }
        if let Some((at, more)) = insert {
            let at = at.index(bytes.len() + 1);
            bytes.splice(at..at, more);
        }
        check(&bytes, PythonVersion(3, minor))?;
    }

    #[test]
    fn the_history_of_a_process_makes_no_difference(
        value in values(),
        one in prop::collection::vec(any::<bool>(), 1..40),
        other in prop::collection::vec(any::<bool>(), 1..40),
    ) {
        let [one, other] = [one, other].map(|choices| pyc(&code(&Encoder::encode(&value, &choices))));
        let one = normalize(&one, VERSION);
        prop_assert!(one.is_ok(), "{:?}", one);
        prop_assert_eq!(one, normalize(&other, VERSION));
    }

    #[test]
    fn another_value_makes_a_difference(one in values(), other in values()) {
        prop_assume!(one != other);
        let [one, other] = [one, other].map(|value| pyc(&code(&Encoder::encode(&value, &[false]))));
        prop_assert_ne!(normalize(&one, VERSION).unwrap(), normalize(&other, VERSION).unwrap());
    }
}
