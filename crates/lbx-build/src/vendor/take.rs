//! What `lbx vendor` wrote, taken into the store, verified: each file is what the list says, and the list what lbx wrote.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use lbx_image::{Reference, Store};
use lbx_wheel::WheelStore;

use super::{FileEntry, MANIFEST, Manifest, VERSION, copy, is_tar};
use crate::builder;
use crate::cancel::Cancel;
use crate::error::Error;

/// The most bytes that the list may have.
const LARGEST_MANIFEST: u64 = 64 << 20;

/// Takes all that is in `from` into the store.
pub(crate) fn take(from: &Path, store: &Store, wheels: &WheelStore, cancel: &Cancel) -> Result<(), Error> {
    let taking = Taking { from, store, wheels, cancel };
    if !from.exists() {
        return Err(taking.wrong("it does not exist"));
    }
    if is_tar(from) { taking.tar() } else { taking.folder() }
}

struct Taking<'t> {
    from: &'t Path,
    store: &'t Store,
    wheels: &'t WheelStore,
    cancel: &'t Cancel,
}

impl Taking<'_> {
    fn wrong(&self, problem: impl Into<String>) -> Error {
        Error::Vendor { path: self.from.to_owned(), problem: problem.into() }
    }

    fn folder(&self) -> Result<(), Error> {
        let path = self.from.join(MANIFEST);
        let file =
            fs_err::File::open(&path).map_err(|_| self.wrong(format!("there is no {MANIFEST} in it")))?;
        let manifest = self.manifest(file)?;
        for entry in &manifest.files {
            let path = self.from.join(self.safe(&entry.path)?);
            let file =
                fs_err::File::open(&path).map_err(|_| self.wrong(format!("it lacks {}", entry.path)))?;
            self.one(entry, file)?;
        }
        self.tag(&manifest)
    }

    fn tar(&self) -> Result<(), Error> {
        let file = fs_err::File::open(self.from).map_err(|_| self.wrong("there is no such file"))?;
        // The reader's own words are about fields of headers.
        let broken = |_| self.wrong("it is damaged, or no archive");
        let mut archive = tar::Archive::new(std::io::BufReader::new(file));
        let mut entries = archive.entries().map_err(broken)?;
        let first = entries.next().ok_or_else(|| self.wrong("it is empty"))?.map_err(broken)?;
        if first.path().map_err(broken)? != Path::new(MANIFEST) {
            return Err(self.wrong(format!("it does not begin with {MANIFEST}")));
        }
        let manifest = self.manifest(first)?;
        let mut left: BTreeMap<&str, &FileEntry> =
            manifest.files.iter().map(|entry| (entry.path.as_str(), entry)).collect();
        for entry in entries {
            let entry = entry.map_err(broken)?;
            let path = entry.path().map_err(broken)?.to_string_lossy().into_owned();
            let listed =
                left.remove(path.as_str()).ok_or_else(|| self.wrong(format!("{path} is not listed")))?;
            self.one(listed, entry)?;
        }
        match left.keys().next() {
            Some(path) => Err(self.wrong(format!("it lacks {path}"))),
            None => self.tag(&manifest),
        }
    }

    fn manifest(&self, reader: impl Read) -> Result<Manifest, Error> {
        let mut text = Vec::new();
        reader.take(LARGEST_MANIFEST).read_to_end(&mut text)?;
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|error| self.wrong(format!("{MANIFEST}: {error}")))?;
        if manifest.version != VERSION {
            return Err(
                self.wrong(format!("its format is {}, and this lbx knows {VERSION}", manifest.version))
            );
        }
        Ok(manifest)
    }

    /// A path that stays inside.
    fn safe(&self, path: &str) -> Result<PathBuf, Error> {
        let is_plain = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if is_plain { Ok(PathBuf::from(path)) } else { Err(self.wrong(format!("`{path}` leads out of it"))) }
    }

    fn one(&self, entry: &FileEntry, mut reader: impl Read) -> Result<(), Error> {
        self.cancel.check()?;
        let scratch = self.store.scratch().map_err(Error::store)?;
        let path = scratch.path("vendored");
        let (size, sha256) = {
            let mut file = fs_err::File::create(&path)?;
            // One byte more tells that there are more.
            copy(&mut (&mut reader).take(entry.size.saturating_add(1)), &mut file)?
        };
        if (size, &sha256) != (entry.size, &entry.sha256) {
            return Err(self.wrong(format!("{} has other bytes than are listed", entry.path)));
        }
        let parts: Vec<&str> = entry.path.split('/').collect();
        match parts[..] {
            ["image", "sha256", hex] => self.blob(hex, &path),
            ["wheels", digest, name] => self.wheel(entry, digest, name, &path),
            ["built", name] => self.built(name, &path),
            ["locks", ..] => Ok(()),
            _ => Err(self.wrong(format!("{} is nothing that this lbx knows", entry.path))),
        }
    }

    fn blob(&self, hex: &str, path: &Path) -> Result<(), Error> {
        let digest = lbx_image::Digest::parse(&format!("sha256:{hex}"))
            .map_err(|_| self.wrong(format!("`{hex}` is no digest")))?;
        self.store.import_blob(&digest, fs_err::File::open(path)?).map_err(Error::store)
    }

    fn wheel(&self, entry: &FileEntry, digest: &str, name: &str, path: &Path) -> Result<(), Error> {
        if digest != entry.sha256 {
            return Err(self.wrong(format!("{} has another digest than its path says", entry.path)));
        }
        let file = fs_err::File::open(path)?.into_parts().0;
        let added = self.wheels.add_open(Path::new(name), file, &|| !self.cancel.is_cancelled());
        added.map(drop).map_err(|source| Error::wheel(name, source))
    }

    fn built(&self, name: &str, path: &Path) -> Result<(), Error> {
        let key = name.strip_suffix(".json").unwrap_or_default();
        let text = fs_err::read(path)?;
        if key.len() != 64
            || !key.chars().all(|c| c.is_ascii_hexdigit())
            || !builder::take_kept(self.store, key, &text)?
        {
            return Err(self.wrong(format!("built/{name} cannot be read")));
        }
        Ok(())
    }

    fn tag(&self, manifest: &Manifest) -> Result<(), Error> {
        for image in &manifest.images {
            let wrong = |_| self.wrong(format!("its image {} cannot be understood", image.reference));
            let reference = Reference::parse(&image.reference).map_err(wrong)?;
            let digest = lbx_image::Digest::parse(&image.digest).map_err(wrong)?;
            self.store.import_tag(&reference, &digest).map_err(Error::store)?;
        }
        Ok(())
    }
}
