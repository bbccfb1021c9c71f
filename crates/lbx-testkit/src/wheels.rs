//! Wheels and source distributions made for a test, so that pip has something to find without an index.

use std::io::Write;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::images::{Tar, gzip};

/// A wheel under construction: pure Python, unless it is given another tag.
#[derive(Debug, Clone)]
pub struct Wheel {
    stem: String,
    tag: String,
    metadata: String,
    files: Vec<(String, Vec<u8>)>,
}

impl Wheel {
    /// A wheel with nothing in it.
    pub fn new(name: &str, version: &str) -> Self {
        Self {
            stem: format!("{name}-{version}"),
            tag: "py3-none-any".to_owned(),
            metadata: format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"),
            files: Vec::new(),
        }
    }

    /// Gives it another tag than `py3-none-any`.
    #[must_use]
    pub fn tag(mut self, tag: &str) -> Self {
        tag.clone_into(&mut self.tag);
        self
    }

    /// Adds a `Requires-Dist`.
    #[must_use]
    pub fn requires(mut self, requirement: &str) -> Self {
        self.metadata = format!("{}Requires-Dist: {requirement}\n", self.metadata);
        self
    }

    /// Adds a file.
    #[must_use]
    pub fn file(mut self, path: &str, contents: &[u8]) -> Self {
        self.files.push((path.to_owned(), contents.to_vec()));
        self
    }

    /// Writes the wheel into a folder, and returns its path.
    pub fn write(&self, folder: &Path) -> PathBuf {
        fs_err::create_dir_all(folder).expect("a directory");
        let path = folder.join(format!("{}-{}.whl", self.stem, self.tag));
        let mut zip = ZipWriter::new(fs_err::File::create(&path).expect("a file"));
        let info = format!("{}.dist-info", self.stem);
        let tags =
            format!("Wheel-Version: 1.0\nGenerator: lbx-testkit\nRoot-Is-Purelib: true\nTag: {}\n", self.tag);
        let mut files = self.files.clone();
        files.push((format!("{info}/METADATA"), self.metadata.clone().into_bytes()));
        files.push((format!("{info}/WHEEL"), tags.into_bytes()));
        let mut record: Vec<String> = Vec::new();
        for (name, contents) in &files {
            let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(contents));
            record.push(format!("{name},sha256={hash},{}", contents.len()));
        }
        record.push(format!("{info}/RECORD,,"));
        files.push((format!("{info}/RECORD"), record.join("\n").into_bytes()));
        for (name, contents) in &files {
            zip.start_file(name.as_str(), SimpleFileOptions::default()).expect("a member");
            zip.write_all(contents).expect("its bytes");
        }
        zip.finish().expect("a directory at the end");
        path
    }
}

/// Writes a source distribution of these files into a folder, and returns its path. `PKG-INFO` is added.
pub fn sdist(folder: &Path, name: &str, version: &str, files: &[(&str, &str)]) -> PathBuf {
    fs_err::create_dir_all(folder).expect("a directory");
    let stem = format!("{name}-{version}");
    let info = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n");
    let mut tar = Tar::new().file(format!("{stem}/PKG-INFO"), 0o644, info.as_bytes());
    for (path, text) in files {
        tar = tar.file(format!("{stem}/{path}"), 0o644, text.as_bytes());
    }
    let path = folder.join(format!("{stem}.tar.gz"));
    fs_err::write(&path, gzip(&tar.finish())).expect("a file");
    path
}
