//! Parts in the store: `KEY/` has `bytes`, and `about` with what must be true of them. Each is complete or absent.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lbx_archive::Prefix;
use lbx_wheel::{Wheel, WheelStore};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::forms::Form;
use super::{About, FORM, Ingredients, Part};
use crate::digest::{self, checksum};
use crate::error::Error;
use crate::event::Event;
use crate::site::Ground;
use crate::stamp::Stamp;

/// How the names of folders begin that are being made.
const UNFINISHED: &str = ".new-";

/// How sheets of all forms begin.
const OF_ANY_FORM: &[u8] = b"lbx part ";

/// A part in the store.
pub(super) struct Kept {
    pub(super) folder: PathBuf,
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

    fn key(&self) -> Option<String> {
        Some(self.folder.file_name()?.to_str()?.to_owned())
    }

    fn sheet(&self) -> PathBuf {
        self.folder.join("about")
    }

    /// The part, if it is there, and as it was.
    pub(super) fn load(&self, ground: &Ground) -> Result<Option<Part>, Error> {
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
            return Ok(Some(Part { key: self.key(), about: sheet.about, prefix, bytes: Some(bytes) }));
        }
        Ok(Some(Part { key: self.key(), about, prefix, bytes: Some(bytes) }))
    }

    /// Says that it is not as it was, and removes it.
    fn damaged(&self, ground: &Ground) -> Result<Option<Part>, Error> {
        ground.tell(Event::Damaged { path: self.folder.clone() });
        let new = self.new_folder()?;
        // By rename, so that no one finds half of it; somebody else may have been faster.
        present(fs_err::rename(&self.folder, new.0.path().join("damaged")))?;
        Ok(None)
    }

    pub(super) fn make(
        &self,
        ground: &Ground,
        wheels: &WheelStore,
        of: &Ingredients<'_>,
    ) -> Result<Part, Error> {
        let form = |wheel: &Arc<Wheel>| Form::of(wheels, wheel, (of.effort, of.strip), &ground.cancel);
        let mut forms = of.wheels.iter().map(form).collect::<Result<Vec<_>, _>>()?;
        if let Some(compiler) = of.compiler {
            for (form, bytecode) in forms.iter_mut().zip(compiler.wheels(wheels, of.wheels, of.prefix)?) {
                form.bytecode = Some(bytecode);
            }
        }
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
        Ok(Part { key: self.key(), about: sheet.about, prefix, bytes: Some(bytes) })
    }

    /// Whether it has the bytes that it says, by reading them; one of another lbx's form is that one's business.
    pub(super) fn is_intact(&self) -> Result<bool, Error> {
        let (Some(text), Some(bytes)) =
            (present(fs_err::read(self.sheet()))?, present(open_file(&self.bytes()))?)
        else {
            return Ok(false);
        };
        if text.starts_with(OF_ANY_FORM) && !text.starts_with(FORM.as_bytes()) {
            return Ok(true);
        }
        decode(&text).map_or(Ok(false), |(prefix, _)| has_hash(&bytes, &prefix))
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
                && lbx_lock::mark(&lock)
                && folder.path().exists()
            {
                return Ok((folder, lock));
            }
        }
    }
}

/// Removes what killed processes have left: nobody has it locked.
fn sweep(parts: &Path) -> Result<(), Error> {
    for entry in fs_err::read_dir(parts)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        // Another process may be faster at every step.
        if name.starts_with(UNFINISHED.as_bytes())
            && let Ok(lock) = open_file(&path)
            && lbx_lock::is_left_behind(&lock)
        {
            // Locked until it is gone: whoever has just made it waits for nobody, and makes another one.
            let _ = fs_err::remove_dir_all(&path);
        }
    }
    Ok(())
}

pub(super) fn open_file(path: &Path) -> std::io::Result<File> {
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
    Ok(file.metadata()?.len() == prefix.size() && digest::sha256(file)? == prefix.sha256())
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
