//! The bytes of a wheel's files as artifacts have them: as the wheel has them, or in fewer, with what the checks have to know.

use std::collections::BTreeMap;

use lbx_archive::{Compressor, Effort};
use lbx_wheel::{Derived, InstalledFile, Made, OpenWheel, Piece, Read, Wheel, WheelError, WheelStore};
use sha2::{Digest, Sha256};

use crate::bytecode::{Compiler, is_module};
use crate::cancel::Cancel;
use crate::check::{self, Facts};
use crate::error::Error;
use crate::listing::Item;

/// What strips, counted up whenever it strips otherwise.
pub(crate) const STRIP: &str = "strip-1";

/// The bytes of a wheel's files.
pub(super) struct Form {
    pub(super) open: OpenWheel,
    /// What is taken in place of the wheel's own.
    derived: Option<Derived>,
    /// What the checks have to know.
    pub(super) facts: BTreeMap<String, Facts>,
    /// Bytecode, if there is to be any: by where Python looks for it beside a source.
    pub(super) bytecode: Option<Derived>,
}

impl Form {
    /// What is taken in place of a file's own bytes.
    fn piece(&self, file: &InstalledFile) -> Option<(&Derived, &Piece)> {
        let derived = self.derived.as_ref()?;
        Some((derived, derived.pieces.get(&file.path)?))
    }

    /// The bytecode of a module, if it has any.
    pub(super) fn bytecode_of(&self, compiler: Option<&Compiler>, file: &InstalledFile) -> Option<&Piece> {
        let module = is_module(file).then(|| compiler.map(|compiler| compiler.cache(&file.path)))??;
        self.bytecode.as_ref()?.pieces.get(&module)
    }

    /// What is taken in place of a file's own bytes for an item of the listing.
    pub(super) fn piece_of(
        &self,
        compiler: Option<&Compiler>,
        item: &Item,
        file: &InstalledFile,
    ) -> Option<(&Derived, &Piece)> {
        if item.is_bytecode {
            return self.bytecode.as_ref().zip(self.bytecode_of(compiler, file));
        }
        self.piece(file)
    }

    pub(super) fn as_it_is(wheel: &Wheel) -> Result<Self, Error> {
        let open = wheel.open().map_err(|source| Error::wheel(wheel.filename.to_string(), source))?;
        Ok(Self { open, derived: None, facts: BTreeMap::new(), bytecode: None })
    }

    pub(super) fn of(
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
        let make = |compressor: &mut Compressor, file: &InstalledFile, read: Read<'_>| {
            let is_code = strip && check::has_facts(&file.path, file.executable, file.packed.size);
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
    let look_into = |(): &mut (), file: &InstalledFile, read: Read<'_>| {
        if !check::has_facts(&file.path, file.executable, file.packed.size) {
            return Ok(Vec::new());
        }
        let Some(facts) = check::look(&read()?, None) else { return Ok(Vec::new()) };
        // Lists and text alone: nothing that could fail.
        let bytes = postcard::to_allocvec(&facts).unwrap_or_default();
        let (packed, packed_bytes) = lbx_archive::compress(&bytes);
        let (path, sha256) = (file.path.clone(), Sha256::digest(&bytes).into());
        Ok(vec![Made { path, packed, sha256, bytes: packed_bytes }])
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
) -> Option<Made> {
    let sha256 = stripped.map_or(file.sha256, |content| Sha256::digest(content).into());
    let (packed, bytes) = compressor.compress(stripped.unwrap_or(content));
    let is_smaller = packed.compressed_size < file.packed.compressed_size;
    is_smaller.then(|| Made { path: file.path.clone(), packed, sha256, bytes })
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
