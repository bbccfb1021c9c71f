//! A source distribution that takes no building: it holds the wheel that was built already, and a backend of a few lines
//! that hands it over. pip gets it in the place of the real one.

use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use lbx_archive::{Entry, Source, Timestamp};
use lbx_wheel::Wheel;
use sha2::{Digest, Sha256};

use crate::error::Error;

const PYPROJECT: &str =
    "[build-system]\nrequires = []\nbuild-backend = \"lbx_built\"\nbackend-path = [\".\"]\n";

const BACKEND: &str = r#""""Hands over a wheel that was built before."""

import os
import shutil
import zipfile

WHEEL = next(name for name in os.listdir(".") if name.endswith(".whl"))


def build_wheel(folder, config_settings=None, metadata_directory=None):
    shutil.copyfile(WHEEL, os.path.join(folder, WHEEL))
    return WHEEL


def prepare_metadata_for_build_wheel(folder, config_settings=None):
    with zipfile.ZipFile(WHEEL) as wheel:
        info = next(name.split("/")[0] for name in wheel.namelist() if name.split("/")[0].endswith(".dist-info"))
        for name in wheel.namelist():
            if name.startswith(info + "/") and not name.endswith("/"):
                wheel.extract(name, folder)
    return info
"#;

/// Writes one for a wheel, for pip to take for the file `name`; returns its path in the folder.
pub(super) fn write(folder: &Path, name: &str, wheel: &Wheel) -> Result<PathBuf, Error> {
    // Two of one name are of two addresses.
    let path =
        folder.join(format!("{}-{}", &wheel.digest.to_string()[..16], hex::encode(Sha256::digest(name))));
    let metadata = format!(
        "Metadata-Version: 2.1\nName: {}\nVersion: {}\n",
        wheel.metadata.name, wheel.metadata.version
    );
    // pip goes by the name. Indexes have taken no other archives for years.
    let extension = name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    match extension.as_str() {
        "zip" => write_zip(&path, wheel, &metadata)?,
        "gz" | "tgz" => write_tar(&path, wheel, &metadata)?,
        _ => return Err(Error::SourceFormat { source_name: name.to_owned() }),
    }
    Ok(path)
}

/// What comes after the wheel. A file whose last 64 KiB hold the end of a zip is one for Python, and here nothing is
/// compressed.
static PADDING: [u8; 70_000] = [0; 70_000];

/// The folder at the top of the archive.
const TOP: &str = "lbx-built";

fn write_tar(path: &Path, wheel: &Wheel, metadata: &str) -> Result<(), Error> {
    let file = fs_err::File::create(path)?;
    // What is in a wheel is compressed already.
    let mut tar = tar::Builder::new(GzEncoder::new(file, Compression::none()));
    let mut add = |name: &str, size: u64, bytes: &mut dyn std::io::Read| {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("{TOP}/{name}"), bytes)
    };
    for (name, text) in [("PKG-INFO", metadata), ("pyproject.toml", PYPROJECT), ("lbx_built.py", BACKEND)] {
        add(name, text.len() as u64, &mut text.as_bytes())?;
    }
    let mut file = fs_err::File::open(wheel.path())?;
    let size = file.metadata()?.len();
    add(&wheel.filename.to_string(), size, &mut file)?;
    add("padding", PADDING.len() as u64, &mut &PADDING[..])?;
    tar.into_inner()?.finish()?;
    Ok(())
}

fn write_zip(path: &Path, wheel: &Wheel, metadata: &str) -> Result<(), Error> {
    let wheel_bytes = fs_err::read(wheel.path())?;
    let name = wheel.filename.to_string();
    let files: [(&str, &[u8]); 4] = [
        ("PKG-INFO", metadata.as_bytes()),
        ("pyproject.toml", PYPROJECT.as_bytes()),
        ("lbx_built.py", BACKEND.as_bytes()),
        (&name, &wheel_bytes),
    ];
    let entries = files.map(|(name, bytes)| {
        let (packed, compressed) = lbx_archive::compress(bytes);
        let source = Source::Memory(compressed.into());
        Entry { name: format!("{TOP}/{name}"), executable: false, packed, source }
    });
    let mut file = fs_err::File::create(path)?;
    lbx_archive::write(&mut file, &entries, Timestamp::default())
        .map_err(|source| Error::Archive { path: path.to_owned(), source })?;
    Ok(())
}
