//! What is made of a wheel's files by a recipe, such as a smaller form of each, kept beside the wheel: made once, whichever
//! artifacts want it.
//!
//! `derived-RECIPE` has the compressed bytes of all pieces, `derived-RECIPE.index` says where each is, and how large and how
//! old the first file must be for that to be true. Both are made under temporary names and renamed, the index last.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;

use lbx_archive::{Packed, Source, decompress};
use sha2::{Digest as _, Sha256};

use crate::index::{Bytes, Sink, Stamp};
use crate::interrupt::GoOn;
use crate::store::{WheelStore, is_whole, stamp};
use crate::wheel::{InstalledFile, OpenWheel};
use crate::{Wheel, WheelError};

/// The form, counted up whenever it or the meaning of its content changes.
const HEADER: &[u8] = b"lbx derived 1\n";
/// How indexes of all forms begin.
const OF_ANY_FORM: &[u8] = b"lbx derived ";
/// How the names of indexes end.
const INDEX: &str = ".index";
/// The most threads that make pieces.
const THREADS: usize = 16;
/// Finished pieces that wait to be written.
const WAITING: usize = 8;

/// One file that a recipe makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Its path relative to the target directory: that of a file of the wheel, in whose place it is, or another one.
    pub path: String,
    /// Method, sizes and CRC of its bytes.
    pub packed: Packed,
    /// SHA-256 of its content.
    pub sha256: [u8; 32],
    offset: u64,
}

/// All that a recipe makes of a wheel.
#[derive(Debug, Clone)]
pub struct Derived {
    /// By path.
    pub pieces: BTreeMap<String, Piece>,
    file: Arc<File>,
}

impl Derived {
    /// The content of a piece.
    pub fn read(&self, piece: &Piece) -> Result<Vec<u8>, WheelError> {
        let damaged = || WheelError::Damaged { member: piece.path.clone() };
        let size = usize::try_from(piece.packed.compressed_size).map_err(|_| damaged())?;
        let mut bytes = vec![0; size];
        self.file.read_exact_at(&mut bytes, piece.offset)?;
        decompress(piece.packed, &bytes).ok_or_else(damaged)
    }

    /// Whether all pieces have their digests, by reading them.
    fn is_intact(&self, go_on: GoOn<'_>) -> Result<bool, WheelError> {
        for piece in self.pieces.values() {
            go_on.check()?;
            if !self.read(piece).is_ok_and(|bytes| Sha256::digest(&bytes)[..] == piece.sha256) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Where the compressed bytes of a piece are.
    pub fn source(&self, piece: &Piece) -> Source {
        Source::Range { file: Arc::clone(&self.file), offset: piece.offset }
    }
}

/// Reads the content of the file that a recipe is asked about.
pub type Read<'r> = &'r dyn Fn() -> Result<Vec<u8>, WheelError>;

/// A piece as a recipe makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// As [`Piece::path`].
    pub path: String,
    /// Method, sizes and CRC of `bytes`.
    pub packed: Packed,
    /// SHA-256 of the content.
    pub sha256: [u8; 32],
    /// The compressed bytes.
    pub bytes: Vec<u8>,
}

impl Wheel {
    /// The content of one of this wheel's files.
    pub fn read(&self, file: &InstalledFile, open: &OpenWheel) -> Result<Vec<u8>, WheelError> {
        let damaged = || WheelError::Damaged { member: file.member.clone() };
        let Source::Range { file: from, offset } = self.entry(file, open).source else {
            return Err(damaged());
        };
        let size = usize::try_from(file.packed.compressed_size).map_err(|_| damaged())?;
        let mut bytes = vec![0; size];
        from.read_exact_at(&mut bytes, offset)?;
        decompress(file.packed, &bytes).ok_or_else(damaged)
    }
}

impl WheelStore {
    /// What `recipe` has made of a wheel, if that is kept.
    pub fn kept(&self, wheel: &Wheel, recipe: &str) -> Result<Option<Derived>, WheelError> {
        let [data, index] = paths(wheel, recipe);
        load(&data, &index)
    }

    /// What of a wheel's folder in the store is not what it was: the folder itself, where the wheel is not; or what recipes
    /// have made. All of it is read.
    pub fn damaged(
        &self,
        folder: &Path,
        go_on: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vec<PathBuf>, WheelError> {
        if !is_whole(folder, GoOn(go_on))? {
            return Ok(vec![folder.to_owned()]);
        }
        let mut damaged = Vec::new();
        for entry in fs_err::read_dir(folder)? {
            let data = entry?.path();
            let name = data.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !name.starts_with("derived-") || name.ends_with(INDEX) {
                continue;
            }
            let index = folder.join(format!("{name}{INDEX}"));
            // Half of it, as a process leaves that is killed, is nothing to anybody.
            let (Ok(bytes), Ok(file)) = (fs_err::read(&index), fs_err::File::open(&data)) else { continue };
            if bytes.starts_with(OF_ANY_FORM) && !bytes.starts_with(HEADER) {
                continue;
            }
            let pieces = from_bytes(&bytes).map(|(_, pieces)| pieces);
            let derived = pieces.map(|pieces| Derived { pieces, file: Arc::new(file.into_file()) });
            if !derived.map_or(Ok(false), |derived| derived.is_intact(GoOn(go_on)))? {
                damaged.extend([data, index]);
            }
        }
        damaged.retain(|path| path.exists());
        Ok(damaged)
    }

    /// What `recipe` makes of the files of a wheel: as it is kept, or made by `make`, which is called for each file, from
    /// several threads, with a state of each thread's own. The name of the recipe says all that it follows from beside the
    /// wheel; it is of letters, digits, `.`, `-` and `_`.
    pub fn derived<S>(
        &self,
        wheel: &Wheel,
        recipe: &str,
        go_on: &(dyn Fn() -> bool + Sync),
        state: impl Fn() -> S + Sync,
        make: impl Fn(&mut S, &InstalledFile, Read<'_>) -> Result<Vec<Made>, WheelError> + Sync,
    ) -> Result<Derived, WheelError> {
        if let Some(derived) = self.kept(wheel, recipe)? {
            return Ok(derived);
        }
        let (_lock, new) = self.new_directory()?;
        let [new_data, new_index] = ["data", "index"].map(|name| new.path().join(name));
        let mut out = BufWriter::new(
            fs_err::OpenOptions::new().read(true).write(true).create_new(true).open(&new_data)?,
        );
        let pieces = make_all(wheel, GoOn(go_on), &state, &make, &mut out)?;
        let file = out.into_inner().map_err(std::io::IntoInnerError::into_error)?.into_file();
        fs_err::write(&new_index, to_bytes(&pieces, stamp(&file)?))?;
        let [data, index] = paths(wheel, recipe);
        let _publishing = self.lock_publishing()?;
        fs_err::rename(new_data, data)?;
        fs_err::rename(new_index, index)?;
        Ok(Derived { pieces, file: Arc::new(file) })
    }
}

/// Where the pieces are kept, and what says where each is.
fn paths(wheel: &Wheel, recipe: &str) -> [PathBuf; 2] {
    let directory = wheel.path().parent().unwrap_or(Path::new("/"));
    [format!("derived-{recipe}"), format!("derived-{recipe}{INDEX}")].map(|name| directory.join(name))
}

/// Makes the pieces of all files, the largest first, and writes them as they come: where each is is nobody's business.
fn make_all<S>(
    wheel: &Wheel,
    go_on: GoOn<'_>,
    state: &(impl Fn() -> S + Sync),
    make: &(impl Fn(&mut S, &InstalledFile, Read<'_>) -> Result<Vec<Made>, WheelError> + Sync),
    out: &mut impl Write,
) -> Result<BTreeMap<String, Piece>, WheelError> {
    let open = wheel.open()?;
    let mut order: Vec<&InstalledFile> = wheel.files.iter().collect();
    order.sort_by_key(|file| std::cmp::Reverse(file.packed.size));
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    let (send, made) = sync_channel(WAITING);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let send = send.clone();
            let (next, open, order) = (&next, &open, &order);
            scope.spawn(move || {
                let mut state = state();
                while let Some(&file) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let read = || wheel.read(file, open);
                    let pieces = go_on.check().and_then(|()| make(&mut state, file, &read));
                    let is_over = pieces.is_err();
                    if send.send(pieces).is_err() || is_over {
                        return;
                    }
                }
            });
        }
        drop(send);
        write_all(made.iter(), out)
    })
}

/// Writes pieces as they come.
fn write_all(
    made: impl Iterator<Item = Result<Vec<Made>, WheelError>>,
    out: &mut impl Write,
) -> Result<BTreeMap<String, Piece>, WheelError> {
    let mut pieces = BTreeMap::new();
    let mut position = 0;
    for made in made {
        for Made { path, packed, sha256, bytes } in made? {
            out.write_all(&bytes)?;
            pieces.insert(path.clone(), Piece { path, packed, sha256, offset: position });
            position += packed.compressed_size;
        }
    }
    Ok(pieces)
}

fn to_bytes(pieces: &BTreeMap<String, Piece>, stamp: Stamp) -> Vec<u8> {
    let mut body = Sink::default();
    body.stamp(stamp);
    body.number(pieces.len() as u64);
    for Piece { path, packed, sha256, offset } in pieces.values() {
        body.text(path);
        body.packed(*packed);
        body.bytes.extend_from_slice(sha256);
        body.number(*offset);
    }
    let mut bytes = HEADER.to_vec();
    bytes.extend_from_slice(&Sha256::digest(&body.bytes));
    bytes.extend_from_slice(&body.bytes);
    bytes
}

fn from_bytes(bytes: &[u8]) -> Option<(Stamp, BTreeMap<String, Piece>)> {
    let (checksum, body) = bytes.strip_prefix(HEADER)?.split_at_checked(32)?;
    if Sha256::digest(body)[..] != *checksum {
        return None;
    }
    let mut body = Bytes { rest: body };
    let stamp = body.stamp()?;
    let pieces = body.list(|bytes| {
        let (path, packed) = (bytes.text()?, bytes.packed()?);
        let sha256 = bytes.take(32)?.try_into().ok()?;
        Some(Piece { path, packed, sha256, offset: bytes.number()? })
    })?;
    Some((stamp, pieces.into_iter().map(|piece| (piece.path.clone(), piece)).collect()))
}

/// What is kept, if it is there and speaks of the file beside it.
fn load(data: &Path, index: &Path) -> Result<Option<Derived>, WheelError> {
    let (Ok(bytes), Ok(file)) = (fs_err::read(index), fs_err::File::open(data)) else { return Ok(None) };
    let Some((expected, pieces)) = from_bytes(&bytes) else { return Ok(None) };
    let derived = Derived { pieces, file: Arc::new(file.into_file()) };
    Ok((stamp(&derived.file)? == expected).then_some(derived))
}
