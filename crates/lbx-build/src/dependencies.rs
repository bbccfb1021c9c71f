//! The dependency part of an artifact: the bytes that its zip begins with, and all that is to be known of them.
//!
//! It follows from the wheels and the rules alone, so it is made once, kept, and copied as a whole into every zip that
//! begins so: `parts/v1/KEY/` in the store has `bytes` and `about`.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lbx_archive::{COMPRESSOR, Compressor, Effort, Entry, Prefix, Timestamp, write_prefix};
use lbx_plan::prune::{Distribution, Origin, Policy, Set};
use lbx_wheel::{
    Derived, InstalledFile, Kind as FileKind, OpenWheel, Wheel, WheelError, WheelStore, normalize_name,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::builder::cache::key;
use crate::cancel::Cancel;
use crate::check::{self, Facts};
use crate::error::Error;
use crate::event::Event;
use crate::listing::{Item, LeftOut, Listing};
use crate::report::{WheelReport, wheel_report};
use crate::site::Ground;
use crate::stamp::Stamp;

/// The form of what is kept, counted up whenever it or the meaning of its content changes: the rules, too.
const FORM: &str = "lbx part 1";
/// How the names of folders begin that are being made.
const UNFINISHED: &str = ".new-";
/// What strips, counted up whenever it strips otherwise.
pub(crate) const STRIP: &str = "strip-1";

/// All that the dependency part of a zip follows from.
#[derive(Debug)]
pub(crate) struct Ingredients<'i> {
    /// Sorted by name.
    pub(crate) wheels: &'i [Arc<Wheel>],
    /// The folder of the zip that they go to: empty, or ending in `/`.
    pub(crate) prefix: &'i str,
    /// What is left out.
    pub(crate) policy: &'i Policy,
    /// The time that every entry has.
    pub(crate) stamp: Timestamp,
    /// How hard files are compressed.
    pub(crate) effort: Effort,
    /// Whether symbols are taken out of machine code.
    pub(crate) strip: bool,
}

/// A dependency part.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) about: About,
    prefix: Prefix,
    bytes: Option<File>,
}

/// What is to be known of a part.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) wheels: Vec<WheelReport>,
    /// Whose files they are, in words.
    owners: Vec<String>,
    /// The files, sorted by path.
    pub(crate) files: Vec<PartFile>,
    pub(crate) left_out: Vec<LeftOut>,
    /// Their size once unpacked. Bytes.
    pub(crate) unpacked_size: u64,
}

/// One file of a part.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartFile {
    /// Its path in the zip.
    pub(crate) path: String,
    /// Index of its owner.
    owner: u32,
    pub(crate) executable: bool,
    /// Bytes, once unpacked.
    pub(crate) size: u64,
    /// Bytes in the zip.
    pub(crate) packed_size: u64,
    pub(crate) sha256: [u8; 32],
    /// The set of rules that would leave it out.
    pub(crate) offered: Option<Set>,
    pub(crate) facts: Option<Facts>,
}

impl About {
    /// The file at a path.
    pub(crate) fn find(&self, path: &str) -> Option<&PartFile> {
        let at = self.files.binary_search_by(|file| file.path.as_str().cmp(path)).ok()?;
        Some(&self.files[at])
    }

    /// A file below a folder, if there is one.
    pub(crate) fn find_below(&self, folder: &str) -> Option<&PartFile> {
        let below = format!("{folder}/");
        let at = self.files.partition_point(|file| file.path < below);
        self.files.get(at).filter(|file| file.path.starts_with(&below))
    }

    /// Whose a file is.
    pub(crate) fn owner(&self, file: &PartFile) -> &str {
        self.owners.get(file.owner as usize).map_or("", String::as_str)
    }
}

impl Part {
    /// The part of an artifact without dependencies.
    pub(crate) fn empty() -> Self {
        Self { about: About::default(), prefix: Prefix::empty(), bytes: None }
    }

    /// What the archive begins with, and a file of the caller's own with its bytes.
    pub(crate) fn prefix(&self) -> Result<(&Prefix, Option<File>), Error> {
        // The same file, whatever its name leads to by now, with a position of its own.
        let again = |file: &File| open_file(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())));
        Ok((&self.prefix, self.bytes.as_ref().map(again).transpose()?))
    }
}

/// The parts that this process has, by key.
#[derive(Debug, Default)]
pub(crate) struct Parts(Mutex<HashMap<String, Place>>);

/// Where a part is, or will be when whoever has the lock has made it.
type Place = Arc<Mutex<Option<Arc<Part>>>>;

impl Parts {
    /// The part that follows from `of`: the one that is kept, or a new one. Whoever wants the same at the same time waits.
    pub(crate) fn get(
        &self,
        ground: &Ground,
        wheels: &WheelStore,
        of: &Ingredients<'_>,
    ) -> Result<Arc<Part>, Error> {
        if of.wheels.is_empty() {
            return Ok(Arc::new(Part::empty()));
        }
        let key = of.key();
        let place = {
            let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(parts.entry(key.clone()).or_default())
        };
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(part) = &*place {
            return Ok(Arc::clone(part));
        }
        let kept = Kept { folder: ground.store.root().join("parts/v1").join(&key) };
        let part = match kept.load(ground)? {
            Some(part) => part,
            None => kept.make(ground, wheels, of)?,
        };
        Ok(Arc::clone(place.insert(Arc::new(part))))
    }
}

impl Ingredients<'_> {
    /// One word for all of it. What the wheels install follows from their digests and names.
    fn key(&self) -> String {
        let stamp = format!("{:?}", self.stamp);
        let policy = self.policy.key();
        // What wheels install and what rules take follows from the version, too.
        let version = env!("CARGO_PKG_VERSION");
        let mut parts =
            vec![FORM, version, check::FACTS, COMPRESSOR, self.effort.recipe(), self.prefix, &stamp, &policy];
        parts.extend(self.strip.then_some(STRIP));
        let wheels: Vec<String> =
            self.wheels.iter().map(|wheel| format!("{} {}", wheel.digest, wheel.filename)).collect();
        parts.extend(wheels.iter().map(String::as_str));
        key(&parts)
    }

    /// The files of all wheels, by the rules.
    fn list(&self) -> Result<(Vec<Item>, Vec<LeftOut>, Policy), Error> {
        let mut listing = Listing::default();
        let mut policy = self.policy.clone();
        for (wheel_index, wheel) in self.wheels.iter().enumerate() {
            let distribution = normalize_name(&wheel.metadata.name);
            let requires = &wheel.metadata.requires_dist;
            let paths = wheel.files.iter().map(|file| file.path.as_str());
            policy.prepare(Distribution { name: &distribution, requires }, paths);
            let owner: Arc<str> = format!("{} {}", wheel.metadata.name, wheel.metadata.version).into();
            for (file_index, file) in wheel.files.iter().enumerate() {
                let origin = Origin::Wheel { distribution: &distribution, script: is_script(file) };
                let item = Item {
                    path: format!("{}{}", self.prefix, file.path),
                    owner: Arc::clone(&owner),
                    executable: file.executable,
                    size: file.packed.size,
                    sha256: file.sha256,
                    wheel: wheel_index,
                    file: file_index,
                };
                listing.add(item, self.prefix, origin, &policy)?;
            }
        }
        let (items, left_out) = listing.finish()?;
        Ok((items, left_out, policy))
    }

    /// Writes the part to `out`.
    fn write(&self, forms: &[Form], out: &mut impl Write, path: &Path) -> Result<(Prefix, About), Error> {
        let (items, left_out, policy) = self.list()?;
        let entries: Vec<Entry> = items.iter().map(|item| self.entry(forms, item)).collect();
        let prefix = write_prefix(out, &entries, self.stamp)
            .map_err(|source| Error::Archive { path: path.to_owned(), source })?;
        Ok((prefix, self.about(items, &entries, left_out, (forms, &policy))))
    }

    fn entry(&self, forms: &[Form], item: &Item) -> Entry {
        let (wheel, form) = (&self.wheels[item.wheel], &forms[item.wheel]);
        let file = &wheel.files[item.file];
        let (name, executable) = (item.path.clone(), item.executable);
        match form.piece(file) {
            Some((derived, piece)) => {
                Entry { name, executable, packed: piece.packed, source: derived.source(piece) }
            }
            None => Entry { name, executable, ..wheel.entry(file, &form.open) },
        }
    }

    fn about(
        &self,
        items: Vec<Item>,
        entries: &[Entry],
        left_out: Vec<LeftOut>,
        (forms, policy): (&[Form], &Policy),
    ) -> About {
        let mut about = About {
            wheels: self.wheels.iter().map(|wheel| wheel_report(wheel)).collect(),
            unpacked_size: entries.iter().map(|entry| entry.packed.size).sum(),
            left_out,
            ..About::default()
        };
        let mut indices: HashMap<Arc<str>, u32> = HashMap::new();
        for (item, entry) in items.into_iter().zip(entries) {
            let owner = *indices.entry(Arc::clone(&item.owner)).or_insert_with(|| {
                about.owners.push(item.owner.to_string());
                u32::try_from(about.owners.len() - 1).unwrap_or(u32::MAX)
            });
            let wheel = &self.wheels[item.wheel];
            let file = &wheel.files[item.file];
            let distribution = normalize_name(&wheel.metadata.name);
            let origin = Origin::Wheel { distribution: &distribution, script: is_script(file) };
            about.files.push(PartFile {
                offered: policy.offered(&file.path, origin),
                facts: forms[item.wheel].facts.get(&file.path).cloned(),
                path: item.path,
                owner,
                executable: item.executable,
                size: entry.packed.size,
                packed_size: entry.packed.compressed_size,
                sha256: forms[item.wheel].piece(file).map_or(item.sha256, |(_, piece)| piece.sha256),
            });
        }
        about
    }
}

/// Writes the zip of a set of wheels alone, by the rules that hold for all: the dependency part of an artifact.
pub fn pack_wheels<W: Write>(
    wheels: &[Arc<Wheel>],
    prefix: &str,
    out: &mut W,
) -> Result<lbx_archive::Written, Error> {
    let mut policy = Policy::default();
    policy.drop_tools(crate::archive::unrequired(wheels, &[])?);
    let (stamp, effort) = (Timestamp::default(), Effort::default());
    let of = Ingredients { wheels, prefix, policy: &policy, stamp, effort, strip: false };
    let (items, ..) = of.list()?;
    let forms = wheels.iter().map(|wheel| Form::as_it_is(wheel)).collect::<Result<Vec<_>, _>>()?;
    let entries: Vec<Entry> = items.iter().map(|item| of.entry(&forms, item)).collect();
    lbx_archive::write(out, &entries, of.stamp)
        .map_err(|source| Error::Archive { path: PathBuf::from("-"), source })
}

/// The bytes of a wheel's files.
struct Form {
    open: OpenWheel,
    /// What is taken in place of the wheel's own.
    derived: Option<Derived>,
    /// What the checks have to know.
    facts: BTreeMap<String, Facts>,
}

impl Form {
    /// What is taken in place of a file's own bytes.
    fn piece(&self, file: &InstalledFile) -> Option<(&Derived, &lbx_wheel::Piece)> {
        let derived = self.derived.as_ref()?;
        Some((derived, derived.pieces.get(&file.path)?))
    }

    fn as_it_is(wheel: &Wheel) -> Result<Self, Error> {
        let open = wheel.open().map_err(|source| Error::wheel(wheel.filename.to_string(), source))?;
        Ok(Self { open, derived: None, facts: BTreeMap::new() })
    }

    fn of(
        store: &WheelStore,
        wheel: &Wheel,
        (effort, strip): (Effort, bool),
        cancel: &Cancel,
    ) -> Result<Self, Error> {
        let as_it_is = Self { facts: facts(store, wheel, cancel)?, ..Self::as_it_is(wheel)? };
        if effort == Effort::Fast && !strip {
            return Ok(as_it_is);
        }
        let code = if strip { STRIP } else { "as-is" };
        let recipe = format!("smaller-{code}-{}", effort.recipe().replace(['/', '+'], "-"));
        let make = |compressor: &mut Compressor, file: &InstalledFile, read: lbx_wheel::Read<'_>| {
            let is_code = strip && check::has_facts(&file.path, file.executable);
            if effort == Effort::Fast && !is_code {
                return Ok(Vec::new());
            }
            let content = read()?;
            let stripped = if is_code { stripped(&file.path, &content) } else { None };
            Ok(smaller(compressor, file, &content, stripped.as_deref()).into_iter().collect())
        };
        let derived = store
            .derived(wheel, &recipe, &|| !cancel.is_cancelled(), || Compressor::new(effort), make)
            .map_err(|source| match source {
                WheelError::Interrupted => Error::Interrupted,
                source => Error::wheel(wheel.filename.to_string(), source),
            })?;
        Ok(Self { derived: Some(derived), ..as_it_is })
    }
}

/// What the checks have to know of a wheel's files, by their paths.
fn facts(store: &WheelStore, wheel: &Wheel, cancel: &Cancel) -> Result<BTreeMap<String, Facts>, Error> {
    let look_into = |(): &mut (), file: &InstalledFile, read: lbx_wheel::Read<'_>| {
        if !check::has_facts(&file.path, file.executable) {
            return Ok(Vec::new());
        }
        let Some(facts) = check::look(&read()?, false) else { return Ok(Vec::new()) };
        // Lists and text alone: nothing that could fail.
        let bytes = postcard::to_allocvec(&facts).unwrap_or_default();
        let (packed, packed_bytes) = lbx_archive::compress(&bytes);
        let (path, sha256) = (file.path.clone(), Sha256::digest(&bytes).into());
        Ok(vec![lbx_wheel::Made { path, packed, sha256, bytes: packed_bytes }])
    };
    let failed = |source| match source {
        WheelError::Interrupted => Error::Interrupted,
        source => Error::wheel(wheel.filename.to_string(), source),
    };
    let derived = store.derived(wheel, check::FACTS, &|| !cancel.is_cancelled(), || (), look_into);
    let derived = derived.map_err(failed)?;
    let mut all = BTreeMap::new();
    for (path, piece) in &derived.pieces {
        let bytes = derived.read(piece).map_err(failed)?;
        all.extend(postcard::from_bytes(&bytes).ok().map(|facts| (path.clone(), facts)));
    }
    Ok(all)
}

/// A file in fewer bytes than its wheel has, if it can be had in fewer: with other content where it was stripped.
fn smaller(
    compressor: &mut Compressor,
    file: &InstalledFile,
    content: &[u8],
    stripped: Option<&[u8]>,
) -> Option<lbx_wheel::Made> {
    let sha256 = stripped.map_or(file.sha256, |content| Sha256::digest(content).into());
    let (packed, bytes) = compressor.compress(stripped.unwrap_or(content));
    let is_smaller = packed.compressed_size < file.packed.compressed_size;
    is_smaller.then(|| lbx_wheel::Made { path: file.path.clone(), packed, sha256, bytes })
}

/// Machine code without its symbols and debug sections, where that is safe. Libraries that were put beside a package by
/// tools which move sections around are left alone.
pub(crate) fn stripped(path: &str, content: &[u8]) -> Option<Vec<u8>> {
    let is_moved = path.split('/').rev().skip(1).any(|folder| folder.strip_suffix(".libs").is_some());
    if is_moved || !lbx_elf::is_elf(content) {
        return None;
    }
    match lbx_elf::strip(content) {
        Ok(stripped) => Some(stripped.bytes),
        Err(why) => {
            tracing::debug!(path, %why, "not stripped");
            None
        }
    }
}

/// Scripts are those that the wheel says are, and whatever data it puts beside them.
fn is_script(file: &InstalledFile) -> bool {
    match file.kind {
        FileKind::Script { .. } => true,
        FileKind::Data => file.path.starts_with("bin/"),
        _ => false,
    }
}

/// A part in the store.
struct Kept {
    folder: PathBuf,
}

/// What is beside the bytes, with what must still be true of them.
#[derive(Serialize, Deserialize)]
struct Sheet {
    stamp: Stamp,
    about: About,
}

impl Kept {
    fn bytes(&self) -> PathBuf {
        self.folder.join("bytes")
    }

    fn sheet(&self) -> PathBuf {
        self.folder.join("about")
    }

    /// The part, if it is there, and as it was.
    fn load(&self, ground: &Ground) -> Result<Option<Part>, Error> {
        let (Some(text), Some(bytes)) =
            (present(fs_err::read(self.sheet()))?, present(open_file(&self.bytes()))?)
        else {
            return Ok(None);
        };
        let Some((prefix, Sheet { stamp, about })) = decode(&text) else {
            return self.damaged(ground);
        };
        let now = Stamp::of(&bytes.metadata()?);
        if now != stamp {
            // Copied to another place perhaps, with the rest of the store.
            if !has_hash(&bytes, &prefix)? {
                return self.damaged(ground);
            }
            let sheet = Sheet { stamp: now, about };
            self.write_sheet(&prefix, &sheet)?;
            return Ok(Some(Part { about: sheet.about, prefix, bytes: Some(bytes) }));
        }
        Ok(Some(Part { about, prefix, bytes: Some(bytes) }))
    }

    /// Says that it is not as it was, and removes it.
    fn damaged(&self, ground: &Ground) -> Result<Option<Part>, Error> {
        ground.tell(Event::Damaged { path: self.folder.clone() });
        let new = self.new_folder()?;
        // By rename, so that no one finds half of it; somebody else may have been faster.
        present(fs_err::rename(&self.folder, new.0.path().join("damaged")))?;
        Ok(None)
    }

    fn make(&self, ground: &Ground, wheels: &WheelStore, of: &Ingredients<'_>) -> Result<Part, Error> {
        let form = |wheel: &Arc<Wheel>| Form::of(wheels, wheel, (of.effort, of.strip), &ground.cancel);
        let forms = of.wheels.iter().map(form).collect::<Result<Vec<_>, _>>()?;
        let (folder, _lock) = self.new_folder()?;
        let new = Self { folder: folder.path().join("part") };
        fs_err::create_dir(&new.folder)?;
        let mut file =
            fs_err::OpenOptions::new().read(true).write(true).create_new(true).open(new.bytes())?;
        let (prefix, about) = of.write(&forms, &mut file, &self.folder)?;
        let bytes = file.into_file();
        let sheet = Sheet { stamp: Stamp::of(&bytes.metadata()?), about };
        fs_err::write(new.sheet(), encode(&prefix, &sheet))?;
        match fs_err::rename(&new.folder, &self.folder) {
            // Someone else was faster; theirs is as good, and ours is open.
            Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty) => {
            }
            renamed => renamed?,
        }
        Ok(Part { about: sheet.about, prefix, bytes: Some(bytes) })
    }

    fn write_sheet(&self, prefix: &Prefix, sheet: &Sheet) -> Result<(), Error> {
        let mut new = tempfile::NamedTempFile::new_in(&self.folder)?;
        new.write_all(&encode(prefix, sheet))?;
        new.persist(self.sheet()).map_err(|error| error.error)?;
        Ok(())
    }

    /// A folder beside the finished ones, which is locked while this process lives, so that whoever finds it knows. What
    /// killed processes have left goes.
    fn new_folder(&self) -> Result<(TempDir, File), Error> {
        let parts = self.folder.parent().unwrap_or(Path::new("/"));
        fs_err::create_dir_all(parts)?;
        sweep(parts)?;
        loop {
            let folder = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(parts)?;
            // Another process may have swept it away before it was locked.
            if let Ok(lock) = open_file(folder.path())
                && lock.try_lock().is_ok()
                && folder.path().exists()
            {
                return Ok((folder, lock));
            }
        }
    }
}

fn sweep(parts: &Path) -> Result<(), Error> {
    for entry in fs_err::read_dir(parts)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        // Another process may be faster at every step.
        if name.starts_with(UNFINISHED.as_bytes())
            && let Ok(lock) = open_file(&path)
            && lock.try_lock().is_ok()
        {
            // Locked until it is gone: whoever has just made it waits for nobody, and makes another one.
            let _ = fs_err::remove_dir_all(&path);
        }
    }
    Ok(())
}

fn open_file(path: &Path) -> std::io::Result<File> {
    fs_err::File::open(path).map(fs_err::File::into_file)
}

/// Nothing, where there is nothing.
fn present<T>(found: std::io::Result<T>) -> Result<Option<T>, Error> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn has_hash(file: &File, prefix: &Prefix) -> Result<bool, Error> {
    if file.metadata()?.len() != prefix.size() {
        return Ok(false);
    }
    let mut sha256 = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let count = file.read_at(&mut buffer, at)?;
        if count == 0 {
            return Ok(<[u8; 32]>::from(sha256.finalize()) == prefix.sha256());
        }
        sha256.update(&buffer[..count]);
        at += count as u64;
    }
}

/// A line, a checksum of the rest, the length of the prefix, the prefix, and the sheet.
fn encode(prefix: &Prefix, sheet: &Sheet) -> Vec<u8> {
    let prefix = prefix.to_bytes();
    let mut body = (prefix.len() as u64).to_le_bytes().to_vec();
    body.extend_from_slice(&prefix);
    // Nothing in these types can fail: they have lengths, and no foreign types.
    body.extend_from_slice(&postcard::to_allocvec(sheet).unwrap_or_default());
    let mut bytes = format!("{FORM}\n").into_bytes();
    bytes.extend_from_slice(&checksum(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// None for anything but what [`encode`] gave.
fn decode(bytes: &[u8]) -> Option<(Prefix, Sheet)> {
    let rest = bytes.strip_prefix(FORM.as_bytes())?.strip_prefix(b"\n")?;
    let (sum, body) = rest.split_at_checked(4)?;
    if checksum(body).to_le_bytes() != *sum {
        return None;
    }
    let (len, rest) = body.split_at_checked(8)?;
    let len = usize::try_from(u64::from_le_bytes(len.try_into().ok()?)).ok()?;
    let (prefix, sheet) = rest.split_at_checked(len)?;
    Some((Prefix::from_bytes(prefix)?, postcard::from_bytes(sheet).ok()?))
}

/// Against accidents, and fast: whoever can write to the store needs no accident.
fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}
