//! The dependency part of an artifact: the bytes that its zip begins with, and all that is to be known of them.
//!
//! It follows from the wheels and the rules alone, so it is made once, kept, and copied as a whole into every zip that
//! begins so: `parts/v1/KEY/` in the store has `bytes` and `about`.

mod ahead;
mod forms;
mod kept;

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lbx_archive::{COMPRESSOR, Effort, Entry, Prefix, Timestamp, WriteError, copy_prefix, write_prefix};
use lbx_plan::prune::{self, Distribution, Origin, Policy, Rule, Set, Verdict};
use lbx_wheel::{InstalledFile, Kind as FileKind, Wheel, WheelStore, normalize_name};
use serde::{Deserialize, Serialize};

pub(crate) use self::ahead::Ahead;
use self::forms::Form;
pub(crate) use self::forms::{STRIP, stripped};
use self::kept::{Kept, open_file};

use crate::builder::cache::key;
use crate::bytecode::Compiler;
use crate::check::{self, Facts};
use crate::error::Error;
use crate::listing::{Item, LeftOut, Listing};
use crate::measure::Count;
use crate::report::{WheelReport, wheel_report};
use crate::site::Ground;

/// The form of what is kept, counted up whenever it or the meaning of its content changes: the rules, too.
const FORM: &str = "lbx part 3";

/// All that the dependency part of a zip follows from.
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
    /// What compiles modules, if they are to be compiled.
    pub(crate) compiler: Option<&'i Compiler>,
}

/// A dependency part.
#[derive(Debug)]
pub(crate) struct Part {
    /// By what it is kept; none for one without bytes.
    pub(crate) key: Option<String>,
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
        Self { key: None, about: About::default(), prefix: Prefix::empty(), bytes: None }
    }

    /// What is to be known of what the archive begins with.
    pub(crate) fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// Copies what the archive begins with into an empty file.
    pub(crate) fn copy(&self, to: &mut File) -> Result<(), WriteError> {
        let Some(bytes) = &self.bytes else { return Ok(()) };
        // The same file, whatever its name leads to by now, with a position of its own.
        let again = open_file(Path::new(&format!("/proc/self/fd/{}", bytes.as_raw_fd())));
        copy_prefix(&again.map_err(WriteError::Copy)?, to, self.prefix.size())
    }
}

/// Where a part is kept.
fn folder(store: &Path, key: &str) -> PathBuf {
    store.join("parts/v1").join(key)
}

/// Whether a part has the bytes that it says, by reading them.
pub(crate) fn is_intact(folder: &Path) -> Result<bool, Error> {
    Kept { folder: folder.to_owned() }.is_intact()
}

/// The parts that this process has, by key.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    places: Mutex<HashMap<String, Place>>,
    /// Those that were kept, and those that were not.
    pub(crate) count: Count,
}

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
            let mut parts = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(parts.entry(key.clone()).or_default())
        };
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(part) = &*place {
            return Ok(Arc::clone(part));
        }
        let kept = Kept { folder: folder(ground.store.root(), &key) };
        let loaded = kept.load(ground)?;
        if loaded.is_some() {
            self.count.reuse(1);
        } else {
            self.count.make(1);
        }
        let part = loaded.map_or_else(|| kept.make(ground, wheels, of), Ok)?;
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
        let compiler = self.compiler.map(|compiler| (compiler.recipe(), compiler.is_only()));
        let compiler = compiler.map(|(recipe, is_only)| format!("{recipe} {is_only}"));
        parts.extend(compiler.as_deref());
        let wheels: Vec<String> =
            self.wheels.iter().map(|wheel| format!("{} {}", wheel.digest, wheel.filename)).collect();
        parts.extend(wheels.iter().map(String::as_str));
        key(&parts)
    }

    /// The files of all wheels, by the rules.
    fn list(&self, forms: &[Form]) -> Result<(Vec<Item>, Vec<LeftOut>, Policy), Error> {
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
                    is_bytecode: false,
                };
                match prune::verdict(&file.path, origin, &policy) {
                    Verdict::Drop(rule) => listing.leave_out(item, rule),
                    Verdict::Keep(_) => self.add(&mut listing, item, &forms[wheel_index], &policy)?,
                }
            }
        }
        let (items, left_out) = listing.finish()?;
        Ok((items, left_out, policy))
    }

    /// Adds a file, and its bytecode beside it or in its place.
    fn add(&self, listing: &mut Listing, item: Item, form: &Form, policy: &Policy) -> Result<(), Error> {
        let file = &self.wheels[item.wheel].files[item.file];
        let Some((compiler, piece)) = self.compiler.zip(form.bytecode_of(self.compiler, file)) else {
            return listing.add(item);
        };
        let target = compiler.target(&file.path);
        // Its own, which it has brought along.
        if self.wheels[item.wheel].files.iter().any(|file| file.path == target) {
            return listing.add(item);
        }
        let bytecode = Item {
            path: format!("{}{target}", self.prefix),
            executable: false,
            size: piece.packed.size,
            sha256: piece.sha256,
            is_bytecode: true,
            ..item.clone()
        };
        if compiler.is_only() && policy.kept_by(&file.path).is_none() {
            listing.leave_out(item, Rule::Compiled);
        } else {
            listing.add(item)?;
        }
        listing.add(bytecode)
    }

    /// Writes the part to `out`.
    fn write(&self, forms: &[Form], out: &mut impl Write, path: &Path) -> Result<(Prefix, About), Error> {
        let (items, left_out, policy) = self.list(forms)?;
        let entries: Vec<Entry> = items.iter().map(|item| self.entry(forms, item)).collect();
        let prefix = write_prefix(out, &entries, self.stamp)
            .map_err(|source| Error::Archive { path: path.to_owned(), source })?;
        Ok((prefix, self.about(items, &entries, left_out, (forms, &policy))))
    }

    fn entry(&self, forms: &[Form], item: &Item) -> Entry {
        let (wheel, form) = (&self.wheels[item.wheel], &forms[item.wheel]);
        let file = &wheel.files[item.file];
        let (name, executable) = (item.path.clone(), item.executable);
        match form.piece_of(self.compiler, item, file) {
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
            let form = &forms[item.wheel];
            let sha256 = form.piece_of(self.compiler, &item, file).map(|(_, piece)| piece.sha256);
            let distribution = normalize_name(&wheel.metadata.name);
            let origin = Origin::Wheel { distribution: &distribution, script: is_script(file) };
            let report = &mut about.wheels[item.wheel];
            report.kept.add(entry.packed.size);
            report.packed_size += entry.packed.compressed_size;
            about.files.push(PartFile {
                offered: policy.offered(&file.path, origin),
                facts: form.facts.get(&file.path).filter(|_| !item.is_bytecode).cloned(),
                path: item.path,
                owner,
                executable: item.executable,
                size: entry.packed.size,
                packed_size: entry.packed.compressed_size,
                sha256: sha256.unwrap_or(item.sha256),
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
    let of = Ingredients { wheels, prefix, policy: &policy, stamp, effort, strip: false, compiler: None };
    let forms = wheels.iter().map(|wheel| Form::as_it_is(wheel)).collect::<Result<Vec<_>, _>>()?;
    let (items, ..) = of.list(&forms)?;
    let entries: Vec<Entry> = items.iter().map(|item| of.entry(&forms, item)).collect();
    lbx_archive::write(out, &entries, of.stamp)
        .map_err(|source| Error::Archive { path: PathBuf::from("-"), source })
}

/// Scripts are those that the wheel says are, and whatever data it puts beside them.
pub(crate) fn is_script(file: &InstalledFile) -> bool {
    match file.kind {
        FileKind::Script { .. } => true,
        FileKind::Data => file.path.starts_with("bin/"),
        _ => false,
    }
}
