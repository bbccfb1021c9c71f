//! The part of an artifact that is the user's own: sources and includes, in one list, with what is known of them from the
//! build before, so that only what has changed is read and compressed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use lbx_archive::{Packed, Source};
use lbx_plan::prune::{self, Origin, Policy, Verdict};
use serde::{Deserialize, Serialize};

use crate::archive::Part as SourcePart;
use crate::bytecode::{self, Compiler, Pyc, Source as Module};
use crate::check::Facts;
use crate::dependencies::{About, PartFile};
use crate::digest;
use crate::error::Error;
use crate::listing::{LeftOut, conflict, folder_conflict, folders_of};
use crate::pack::{Content, Wanted};
use crate::source::SourceFile;
use crate::stamp::Stamp;

/// The user's own files of an artifact.
#[derive(Debug, Default)]
pub(crate) struct Own<'s> {
    /// By path in the zip.
    pub(crate) files: BTreeMap<String, OwnFile<'s>>,
    pub(crate) left_out: Vec<LeftOut>,
    /// Files of the dependencies, by path, that the user's own equal ones make executable.
    pub(crate) made_executable: Vec<String>,
}

/// One file of the user's own.
#[derive(Clone, Debug)]
pub(crate) struct OwnFile<'s> {
    /// The source or include that it is of, as the configuration names it.
    owner: &'s str,
    pub(crate) file: &'s SourceFile,
    pub(crate) executable: bool,
    /// Where its bytes are.
    pub(crate) bytes: Bytes,
}

/// Where the bytes of a file are.
#[derive(Clone, Debug)]
pub(crate) enum Bytes {
    /// In the file itself.
    Source,
    /// They are its bytecode, in the zip that the build before has left.
    Before,
    /// They are its bytecode.
    Bytecode(Pyc),
}

impl OwnFile<'_> {
    /// What has to be compressed.
    pub(crate) fn wanted(&self) -> Wanted {
        let (location, size) = (self.file.location.clone(), self.file.stamp.size);
        match &self.bytes {
            Bytes::Bytecode(pyc) => {
                Wanted { location: pyc.location.clone(), size: pyc.size, source: Some(location) }
            }
            Bytes::Source | Bytes::Before => Wanted { location, size, source: None },
        }
    }
}

impl<'s> Own<'s> {
    /// Lists what the sources and includes have, by the rules. Equal bytes at one path are one file, and others an error.
    pub(crate) fn list(parts: &'s [SourcePart], policy: &Policy) -> Result<Self, Error> {
        let mut own = Self::default();
        for part in parts {
            for folder in &part.tree.passed_over {
                let path = format!("{}{folder}", part.prefix);
                let (owner, rule) = (part.name.clone(), prune::Rule::ToolFiles);
                own.left_out.push(LeftOut { path, owner, rule, size: 0 });
            }
            part.tree.files.iter().try_for_each(|file| own.add(part, file, policy))?;
        }
        for (path, file) in &own.files {
            if let Some((folder, first)) = folders_of(path).find_map(|folder| own.files.get_key_value(folder))
            {
                return Err(folder_conflict(folder, first.owner, file.owner));
            }
        }
        Ok(own)
    }

    fn add(&mut self, part: &'s SourcePart, file: &'s SourceFile, policy: &Policy) -> Result<(), Error> {
        let path = format!("{}{}", part.prefix, file.path);
        if let Verdict::Drop(rule) = prune::verdict(&file.path, Origin::Source, policy) {
            let (owner, size) = (part.name.clone(), file.stamp.size);
            self.left_out.push(LeftOut { path, owner, rule, size });
            return Ok(());
        }
        let new = OwnFile { owner: &part.name, file, executable: file.executable, bytes: Bytes::Source };
        match self.files.entry(path) {
            MapEntry::Vacant(vacant) => {
                vacant.insert(new);
            }
            MapEntry::Occupied(mut first) => {
                if first.get().file.location != file.location && hash(first.get().file)? != hash(file)? {
                    return Err(conflict(first.key().clone(), first.get().owner, new.owner));
                }
                first.get_mut().executable |= new.executable;
            }
        }
        Ok(())
    }

    /// Holds the files against those of the dependencies, which come first: what both have with equal bytes is theirs.
    pub(crate) fn beside(&mut self, dependencies: &About) -> Result<(), Error> {
        let mut theirs = Vec::new();
        for (path, own) in &self.files {
            if let Some(file) = dependencies.find(path) {
                check_equal(file, dependencies.owner(file), own)?;
                theirs.push(path.clone());
                if own.executable && !file.executable {
                    self.made_executable.push(path.clone());
                }
            } else if let Some(file) = dependencies.find_below(path) {
                return Err(folder_conflict(path, own.owner, dependencies.owner(file)));
            } else if let Some(file) = folders_of(path).find_map(|folder| dependencies.find(folder)) {
                return Err(folder_conflict(&file.path, dependencies.owner(file), own.owner));
            }
        }
        for path in theirs {
            self.files.remove(&path);
        }
        Ok(())
    }
}

impl<'s> Own<'s> {
    /// Adds the bytecode of modules, beside them or in their place. What the zip that the build before has left has of it
    /// is not compiled again; `is_known` says whether it has the bytecode of a file under a path.
    pub(crate) fn compile(
        &mut self,
        compiler: &Compiler,
        (policy, dependencies): (&Policy, &About),
        is_known: impl Fn(&str, &OwnFile<'s>) -> bool,
        work: &Path,
    ) -> Result<(), Error> {
        let modules: Vec<(String, String, OwnFile<'s>)> = self
            .files
            .iter()
            .filter(|(path, _)| bytecode::is_source(path))
            .map(|(path, own)| (path.clone(), compiler.target(path), own.clone()))
            .filter(|(_, target, _)| !self.files.contains_key(target))
            .collect();
        // What a dependency has under the same path has to be held against it.
        let is_new = |(_, target, own): &&(String, String, OwnFile<'s>)| {
            !is_known(target, own) || dependencies.find(target).is_some()
        };
        let new: Vec<Module<'_>> = modules
            .iter()
            .filter(is_new)
            .map(|(path, _, own)| Module { location: &own.file.location, path })
            .collect();
        let mut compiled = compiler.sources(&new, work)?.into_iter();
        for module in &modules {
            let bytes = if is_new(&module) {
                compiled.next().flatten().map(Bytes::Bytecode)
            } else {
                Some(Bytes::Before)
            };
            if let Some(bytes) = bytes {
                self.add_bytecode(module, bytes, compiler.is_only(), (policy, dependencies))?;
            }
        }
        Ok(())
    }

    fn add_bytecode(
        &mut self,
        (path, target, own): &(String, String, OwnFile<'s>),
        bytes: Bytes,
        is_only: bool,
        (policy, dependencies): (&Policy, &About),
    ) -> Result<(), Error> {
        if is_only && policy.kept_by(&own.file.path).is_none() {
            self.files.remove(path);
            let (path, owner, size) = (path.clone(), own.owner.to_owned(), own.file.stamp.size);
            self.left_out.push(LeftOut { path, owner, rule: prune::Rule::Compiled, size });
        }
        if let (Some(file), Bytes::Bytecode(pyc)) = (dependencies.find(target), &bytes) {
            let is_same =
                pyc.size == file.size && digest::sha256(fs_err::File::open(&pyc.location)?)? == file.sha256;
            if !is_same {
                return Err(conflict(target.clone(), dependencies.owner(file), own.owner));
            }
            return Ok(());
        }
        self.files.insert(target.clone(), OwnFile { executable: false, bytes, ..own.clone() });
        Ok(())
    }
}

fn check_equal(file: &PartFile, owner: &str, own: &OwnFile<'_>) -> Result<(), Error> {
    if own.file.stamp.size == file.size && hash(own.file)? == file.sha256 {
        return Ok(());
    }
    Err(conflict(file.path.clone(), owner, own.owner))
}

fn hash(file: &SourceFile) -> Result<[u8; 32], Error> {
    Ok(digest::sha256(fs_err::File::open(&file.location)?)?)
}

/// What is known of an artifact's own files after it was built.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Before {
    /// What compressed them.
    pub(crate) recipe: String,
    /// The dependency part that it begins with.
    pub(crate) part: Option<String>,
    /// The zip.
    pub(crate) zip: Option<Stamp>,
    /// By path in the zip.
    pub(crate) files: BTreeMap<String, Packet>,
}

/// The compressed bytes of a file in a zip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Packet {
    /// The file that was compressed; none when it had been changed too lately for its stamp to tell.
    pub(crate) stamp: Option<Stamp>,
    is_deflated: bool,
    crc32: u32,
    size: u64,
    packed_size: u64,
    /// Where the bytes begin.
    offset: u64,
    /// The source or include that it is of.
    pub(crate) owner: String,
    /// What the checks have to know of it.
    pub(crate) facts: Option<Facts>,
}

impl Packet {
    pub(crate) fn new(
        own: &OwnFile<'_>,
        stamp: Option<Stamp>,
        (offset, packed): (u64, Packed),
        facts: Option<Facts>,
    ) -> Self {
        Self {
            owner: own.owner.to_owned(),
            facts,
            stamp,
            is_deflated: packed.method == lbx_archive::Method::Deflated,
            crc32: packed.crc32,
            size: packed.size,
            packed_size: packed.compressed_size,
            offset,
        }
    }

    /// Bytes, once unpacked.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes in the zip.
    pub(crate) fn packed_size(&self) -> u64 {
        self.packed_size
    }

    /// The bytes, in the zip that is `file`.
    pub(crate) fn content(&self, file: &Arc<File>) -> Content {
        let method =
            if self.is_deflated { lbx_archive::Method::Deflated } else { lbx_archive::Method::Stored };
        let (crc32, size, compressed_size) = (self.crc32, self.size, self.packed_size);
        let packed = Packed { method, crc32, compressed_size, size };
        let source = Source::Range { file: Arc::clone(file), offset: self.offset };
        Content { packed, source, facts: self.facts.clone() }
    }
}
