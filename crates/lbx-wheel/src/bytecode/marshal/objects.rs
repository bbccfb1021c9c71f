//! The objects of a marshal stream: equal constants are one object, and parts come before what they are part of.

use indexmap::IndexSet;
use sha2::{Digest as _, Sha256};

use super::{MarshalError, PythonVersion};

/// The type of an object, without how its size or its text is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    None,
    False,
    True,
    Ellipsis,
    StopIteration,
    Int,
    Long,
    Float,
    TextFloat,
    Complex,
    TextComplex,
    Bytes,
    Ascii,
    Unicode,
    Tuple,
    List,
    Dict,
    Set,
    FrozenSet,
    Slice,
    Code,
}

impl Kind {
    /// Whether there is one object of this type in an interpreter. It is written by its type alone, each time.
    pub(super) fn is_singleton(self) -> bool {
        matches!(self, Self::None | Self::False | Self::True | Self::Ellipsis | Self::StopIteration)
    }

    pub(super) fn is_text(self) -> bool {
        matches!(self, Self::Ascii | Self::Unicode)
    }

    pub(super) fn is_container(self) -> bool {
        matches!(
            self,
            Self::Tuple | Self::List | Self::Dict | Self::Set | Self::FrozenSet | Self::Slice | Self::Code
        )
    }

    fn is_mutable(self) -> bool {
        matches!(self, Self::List | Self::Dict | Self::Set)
    }
}

/// An object: two that are equal here are one in the result.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Object<'p> {
    pub(super) kind: Kind,
    /// 0, or a number of its own for what must not become one with an equal object.
    pub(super) identity: u32,
    /// The bytes of what has no parts. Of a code object, the numbers before its parts.
    pub(super) bytes: &'p [u8],
    /// Of a code object, its first line.
    pub(super) line: [u8; 4],
    /// The objects in a container. Those of a dictionary are keys and values in turn.
    pub(super) parts: Box<[u32]>,
}

/// All objects of a stream.
#[derive(Debug, Default)]
pub(super) struct Graph<'p> {
    objects: IndexSet<Object<'p>>,
    /// For each object, whether it is an interned string somewhere in the stream.
    interned: Vec<bool>,
    /// For the first objects, the digest of their values. They are made when a set has to be sorted.
    digests: Vec<[u8; 32]>,
    identities: u32,
}

impl<'p> Graph<'p> {
    /// The number of an object without parts.
    pub(super) fn leaf(&mut self, kind: Kind, bytes: &'p [u8], interned: bool) -> u32 {
        let identity = if is_nan(kind, bytes) { self.new_identity() } else { 0 };
        let id = self.insert(Object { kind, identity, bytes, line: [0; 4], parts: Box::default() });
        self.interned[id as usize] |= interned || is_single(kind, bytes);
        id
    }

    /// The number of an object with parts.
    pub(super) fn container(
        &mut self,
        kind: Kind,
        bytes: &'p [u8],
        line: [u8; 4],
        mut parts: Vec<u32>,
    ) -> u32 {
        let identity = if kind.is_mutable() { self.new_identity() } else { 0 };
        if matches!(kind, Kind::Set | Kind::FrozenSet) {
            self.make_digests();
            // Stable, because digests leave identities out.
            parts.sort_by_key(|&part| self.digests[part as usize]);
        }
        self.insert(Object { kind, identity, bytes, line, parts: parts.into() })
    }

    fn insert(&mut self, object: Object<'p>) -> u32 {
        let (index, new) = self.objects.insert_full(object);
        if new {
            self.interned.push(false);
        }
        u32::try_from(index).expect("a stream has fewer objects than bytes, and these are counted in 32 bits")
    }

    fn new_identity(&mut self) -> u32 {
        self.identities += 1;
        self.identities
    }

    fn make_digests(&mut self) {
        for id in self.digests.len()..self.objects.len() {
            let digest = self.digest(&self.objects[id]);
            self.digests.push(digest);
        }
    }

    /// The digest of an object's value. Its parts have theirs already, because they came before it.
    fn digest(&self, object: &Object<'_>) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update([object.kind as u8]);
        hasher.update((object.bytes.len() as u64).to_le_bytes());
        hasher.update(object.bytes);
        hasher.update(object.line);
        for &part in &object.parts {
            hasher.update(self.digests[part as usize]);
        }
        hasher.finalize().into()
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(super) fn get(&self, id: u32) -> &Object<'p> {
        &self.objects[id as usize]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Object<'p>> {
        self.objects.iter()
    }

    pub(super) fn is_interned(&self, id: u32) -> bool {
        self.interned[id as usize]
    }
}

/// Whether it may be a number that is not equal to itself. Numbers as text are not looked into.
fn is_nan(kind: Kind, bytes: &[u8]) -> bool {
    match kind {
        Kind::Float | Kind::Complex => {
            bytes.as_chunks::<8>().0.iter().any(|&number| f64::from_le_bytes(number).is_nan())
        }
        Kind::TextFloat | Kind::TextComplex => true,
        _ => false,
    }
}

/// Whether it is a string that an interpreter has once: the empty one, and those of one character of Latin-1. Whether
/// these are interned is the history of the process.
fn is_single(kind: Kind, bytes: &[u8]) -> bool {
    match kind {
        Kind::Ascii => bytes.len() <= 1,
        Kind::Unicode => matches!(bytes, [] | [0xC2 | 0xC3, _]),
        _ => false,
    }
}

/// What a field of a code object has to be. CPython does not check this before it uses some of them.
#[derive(Debug, Clone, Copy)]
enum Field {
    Bytes,
    Tuple,
    /// A tuple of strings.
    Names,
    Text,
}

/// How a version lays out code objects.
#[derive(Debug)]
pub(super) struct Layout {
    /// The size of the numbers before the fields, in bytes.
    pub(super) numbers: usize,
    fields: &'static [Field],
    /// Whether constants can be slices.
    pub(super) slices: bool,
}

/// The number of fields of a code object before its first line.
pub(super) const FIELDS_BEFORE_LINE: usize = 8;

/// Arguments, positional-only and keyword-only ones, variables, stack and flags; then bytecode, constants, names,
/// variables, free and cell variables, file, name, lines.
const TO_3_10: Layout = Layout {
    numbers: 6 * 4,
    fields: &[
        Field::Bytes,
        Field::Tuple,
        Field::Names,
        Field::Names,
        Field::Names,
        Field::Names,
        Field::Text,
        Field::Text,
        Field::Bytes,
    ],
    slices: false,
};

/// As before without the number of variables; then bytecode, constants, names, variables of all three kinds, their
/// kinds, file, name, qualified name, lines, exception table.
const FROM_3_11: Layout = Layout {
    numbers: 5 * 4,
    fields: &[
        Field::Bytes,
        Field::Tuple,
        Field::Names,
        Field::Names,
        Field::Bytes,
        Field::Text,
        Field::Text,
        Field::Text,
        Field::Bytes,
        Field::Bytes,
    ],
    slices: false,
};

impl Layout {
    pub(super) fn of(version: PythonVersion) -> Result<Self, MarshalError> {
        match version {
            PythonVersion(3, 8..=10) => Ok(TO_3_10),
            PythonVersion(3, 11..=13) => Ok(FROM_3_11),
            PythonVersion(3, 14) => Ok(Layout { slices: true, ..FROM_3_11 }),
            PythonVersion(major, minor) => Err(MarshalError::Version { major, minor }),
        }
    }

    /// The number of fields of a code object.
    pub(super) fn fields(&self) -> usize {
        self.fields.len()
    }

    /// Whether the parts of a code object have the types that they need.
    pub(super) fn fits(&self, graph: &Graph<'_>, parts: &[u32]) -> bool {
        self.fields.iter().zip(parts).all(|(field, &part)| {
            let object = graph.get(part);
            match field {
                Field::Bytes => object.kind == Kind::Bytes,
                Field::Tuple => object.kind == Kind::Tuple,
                Field::Names => {
                    object.kind == Kind::Tuple
                        && object.parts.iter().all(|&name| graph.get(name).kind.is_text())
                }
                Field::Text => object.kind.is_text(),
            }
        })
    }
}
