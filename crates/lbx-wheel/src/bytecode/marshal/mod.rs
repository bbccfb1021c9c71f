//! The form of a `.pyc` that depends on nothing but the values in it.
//!
//! CPython's marshal gives an object a number if it has more than one reference at that moment. A string of one
//! character is one object in the whole process, and is marked as interned once anybody interned it. The order of a
//! frozenset is that of its hashes before Python 3.11, and afterwards one that these marks have a part in. So the
//! stream is read into objects, where equal constants are one object, and is written from these: numbers only where
//! they are used, in order of appearance, and sets in an order of their values.
//!
//! Equal means: of the same type, with the same bytes. `1`, `1.0` and `True` stay three objects, `0.0` and `-0.0` two.
//! What has an identity that a program could notice keeps the one that the stream gives it: lists, dictionaries, sets,
//! and NaN, which is equal to itself only as the same object.

mod objects;
mod read;
mod write;

/// How deep objects may be nested: CPython's own limit, for reading and for writing.
const MAX_DEPTH: usize = 2000;

/// The bytes before the marshal stream: magic number, flags, hash of the source.
const HEADER: usize = 16;

/// The flags of a pyc that is found by nobody to be stale: by hash, and unchecked (PEP 552).
const UNCHECKED_HASH: u32 = 0b01;

/// A version of CPython, as major and minor number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PythonVersion(pub u8, pub u8);

/// Why a `.pyc` is refused. Positions are in bytes from its start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MarshalError {
    /// The layout of code objects is not known for this version.
    #[error("bytecode of Python {major}.{minor} is not known, expected 3.8 to 3.14")]
    Version {
        /// The major number.
        major: u8,
        /// The minor number.
        minor: u8,
    },
    /// The header is not that of an unchecked-hash pyc.
    #[error("the header of the pyc is wrong: {what}")]
    Header {
        /// What does not fit.
        what: &'static str,
    },
    /// The bytes end inside of an object, or are fewer than a size says.
    #[error("the pyc ends inside of an object that begins before byte {at}")]
    Truncated {
        /// Where it should go on.
        at: usize,
    },
    /// There are bytes after the code object.
    #[error("the pyc goes on after its code object, at byte {at}")]
    Trailing {
        /// Where they begin.
        at: usize,
    },
    /// A type code that marshal does not write for this version.
    #[error("type code {code:#04x} at byte {at} is not known")]
    Type {
        /// The code, with its flag.
        code: u8,
        /// Where it is.
        at: usize,
    },
    /// A reference to an object that is not there yet, or not complete.
    #[error("the reference at byte {at} is to object {index}, which is not complete there")]
    Reference {
        /// The object's number.
        index: u32,
        /// Where the reference is.
        at: usize,
    },
    /// An object's content is not what its type has.
    #[error("the object at byte {at} is malformed: {what}")]
    Malformed {
        /// Where it is.
        at: usize,
        /// What does not fit.
        what: &'static str,
    },
    /// Objects are nested deeper than CPython reads them.
    #[error("objects are nested deeper than {MAX_DEPTH}")]
    Depth,
}

/// Rewrites an unchecked-hash `.pyc` so that its bytes depend on nothing but the values in it.
///
/// The header is kept. The result loads to an equal code object, is accepted again, and is then not changed. What is
/// read is bounded by the bytes that are there: time is linear in them but for sorting sets, and memory is some dozen
/// times as much at most.
///
/// # Errors
///
/// [`MarshalError`] if the bytes are not an unchecked-hash pyc with one code object, laid out as `version` does it.
pub fn normalize(pyc: &[u8], version: PythonVersion) -> Result<Vec<u8>, MarshalError> {
    let layout = objects::Layout::of(version)?;
    check_header(pyc)?;
    let graph = read::read(pyc, HEADER, &layout)?;
    write::write(&graph, &pyc[..HEADER])
}

fn check_header(pyc: &[u8]) -> Result<(), MarshalError> {
    let Some(header) = pyc.get(..HEADER) else {
        return Err(MarshalError::Header { what: "it is shorter than 16 bytes" });
    };
    if u32::try_from(pyc.len()).is_err() {
        return Err(MarshalError::Header { what: "the file that it begins is larger than 4 GiB" });
    }
    if header[2..4] != *b"\r\n" {
        return Err(MarshalError::Header { what: "the magic number does not end with a line end" });
    }
    if header[4..8] != UNCHECKED_HASH.to_le_bytes() {
        return Err(MarshalError::Header { what: "the flags are not those of an unchecked hash" });
    }
    Ok(())
}
