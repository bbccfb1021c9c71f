//! A wheel in the store, as everything above sees it: what it is, and the files it installs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lbx_archive::{Entry, Packed, Source};

use crate::layout::{Kind, LeftOut};
use crate::metadata::{EntryPoint, Metadata};
use crate::{Digest, TagMismatch, Target, WheelError, WheelFilename};

/// A verified wheel in the store.
#[derive(Debug, Clone)]
pub struct Wheel {
    /// SHA-256 of the `.whl` file.
    pub digest: Digest,
    /// Its name, taken apart.
    pub filename: WheelFilename,
    /// What METADATA says.
    pub metadata: Metadata,
    /// Whether WHEEL says that there is no machine code in it. With `--target` it makes no difference to paths.
    pub root_is_purelib: bool,
    /// The `.dist-info` directory.
    pub dist_info: String,
    /// The commands that entry_points.txt declares; pip writes a script for each.
    pub console_scripts: Vec<EntryPoint>,
    /// The same for GUI programs.
    pub gui_scripts: Vec<EntryPoint>,
    /// What `pip install --target` installs, sorted by path (bytewise). RECORD is in it as the wheel has it.
    pub files: Vec<InstalledFile>,
    /// What pip does not install.
    pub left_out: Vec<LeftOut>,
    pub(crate) path: PathBuf,
    /// The file beside the wheel, and its SHA-256.
    pub(crate) sidecar: Option<(PathBuf, Digest)>,
}

/// One file of the tree that a wheel installs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledFile {
    /// Path relative to the target directory.
    pub path: String,
    /// The member's name in the wheel, for messages.
    pub member: String,
    /// What the file is.
    pub kind: Kind,
    /// Whether pip makes it executable: the member says that it is a regular file with an x bit.
    pub executable: bool,
    /// Method, sizes and CRC of the bytes at `location`.
    pub packed: Packed,
    /// Where the compressed bytes are.
    pub location: Location,
    /// SHA-256 of the content.
    pub sha256: [u8; 32],
}

/// Where the compressed bytes of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Location {
    /// In the wheel.
    Wheel {
        /// The first byte.
        offset: u64,
    },
    /// In the file beside it, because the wheel has them uncompressed.
    Sidecar {
        /// The first byte.
        offset: u64,
    },
}

/// A wheel's files, open for reading.
#[derive(Debug, Clone)]
pub struct OpenWheel {
    wheel: Arc<File>,
    sidecar: Arc<File>,
}

impl Wheel {
    /// Opens the wheel's files, once for all its entries.
    pub fn open(&self) -> Result<OpenWheel, WheelError> {
        let open = |path: &PathBuf| Ok::<_, WheelError>(Arc::new(fs_err::File::open(path)?.into_file()));
        let wheel = open(&self.path)?;
        // Without a sidecar no location points there.
        let sidecar = self.sidecar.as_ref().map_or_else(|| Ok(Arc::clone(&wheel)), |(path, _)| open(path))?;
        Ok(OpenWheel { wheel, sidecar })
    }

    /// The archive entry of one of this wheel's files, under its own path. The caller puts a prefix before `name`
    /// where it wants one.
    pub fn entry(&self, file: &InstalledFile, open: &OpenWheel) -> Entry {
        let (source, offset) = match file.location {
            Location::Wheel { offset } => (&open.wheel, offset),
            Location::Sidecar { offset } => (&open.sidecar, offset),
        };
        Entry {
            name: file.path.clone(),
            executable: file.executable,
            packed: file.packed,
            source: Source::Range { file: Arc::clone(source), offset },
        }
    }

    /// Whether the wheel's tags fit; see [`WheelFilename::allowed_on`].
    pub fn allowed_on(&self, target: &Target) -> Result<(), TagMismatch> {
        self.filename.allowed_on(target)
    }

    /// Where the store keeps the `.whl` file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
