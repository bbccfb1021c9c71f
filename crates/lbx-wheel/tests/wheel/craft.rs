//! Wheels made in memory, right or wrong as a test needs them.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

/// A member to be.
#[derive(Clone)]
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) content: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) stored: bool,
}

/// A wheel to be: `foo_bar-1.0-py3-none-any.whl` unless a test says otherwise.
#[derive(Clone)]
pub(crate) struct Craft {
    pub(crate) filename: String,
    pub(crate) files: Vec<File>,
    /// What RECORD says, instead of the truth.
    pub(crate) record: Option<String>,
}

pub(crate) const DIST_INFO: &str = "foo_bar-1.0.dist-info";

impl Craft {
    /// A correct wheel with METADATA and WHEEL, and no module yet.
    pub(crate) fn new() -> Self {
        Self { filename: "foo_bar-1.0-py3-none-any.whl".into(), files: Vec::new(), record: None }
            .file(&format!("{DIST_INFO}/METADATA"), "Metadata-Version: 2.1\nName: Foo.Bar\nVersion: 1.0\n")
            .file(
                &format!("{DIST_INFO}/WHEEL"),
                "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            )
    }

    /// Adds a member, or replaces it.
    pub(crate) fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.file_with(name, content, 0o100_644, false)
    }

    pub(crate) fn file_with(
        mut self,
        name: &str,
        content: impl AsRef<[u8]>,
        mode: u32,
        stored: bool,
    ) -> Self {
        self.files.retain(|file| file.name != name);
        self.files.push(File { name: name.into(), content: content.as_ref().to_vec(), mode, stored });
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.files.retain(|file| file.name != name);
        self
    }

    /// The truthful RECORD.
    pub(crate) fn truth(&self) -> String {
        let mut record = String::new();
        for file in self.files.iter().filter(|file| !file.name.ends_with('/')) {
            record += &line(&file.name, &file.content);
        }
        record + &format!("{DIST_INFO}/RECORD,,\n")
    }

    /// A RECORD that differs from the truth.
    pub(crate) fn lying(mut self, change: impl FnOnce(String) -> String) -> Self {
        self.record = Some(change(self.truth()));
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let record = self.record.clone().unwrap_or_else(|| self.truth());
        let record = File {
            name: format!("{DIST_INFO}/RECORD"),
            content: record.into_bytes(),
            mode: 0o100_644,
            stored: false,
        };
        let named = self.files.iter().any(|file| file.name == record.name);
        for file in self.files.iter().chain((!named).then_some(&record)) {
            let method = if file.stored { CompressionMethod::Stored } else { CompressionMethod::Deflated };
            let options = SimpleFileOptions::default().compression_method(method).unix_permissions(file.mode);
            if let Some(name) = file.name.strip_suffix('/') {
                zip.add_directory(name, options).unwrap();
            } else {
                zip.start_file(file.name.as_str(), options).unwrap();
                zip.write_all(&file.content).unwrap();
            }
        }
        let mut bytes = zip.finish().unwrap().into_inner();
        self.set_modes(&mut bytes);
        bytes
    }

    /// The `zip` crate gives every file a type; some wheels have modes without one.
    fn set_modes(&self, bytes: &mut [u8]) {
        for file in self.files.iter().filter(|file| file.mode & 0o170_000 == 0) {
            let name = file.name.as_bytes();
            let header = (0..bytes.len() - 46 - name.len())
                .rfind(|&at| bytes[at..].starts_with(b"PK\x01\x02") && bytes[at + 46..].starts_with(name))
                .unwrap();
            bytes[header + 38..header + 42].copy_from_slice(&(file.mode << 16).to_le_bytes());
        }
    }

    /// Writes the wheel under its name.
    pub(crate) fn write(&self, directory: &Path) -> PathBuf {
        let path = directory.join(&self.filename);
        fs_err::write(&path, self.bytes()).unwrap();
        path
    }
}

/// One truthful line of RECORD.
pub(crate) fn line(name: &str, content: &[u8]) -> String {
    let name =
        if name.contains([',', '"']) { format!("\"{}\"", name.replace('"', "\"\"")) } else { name.into() };
    format!("{name},sha256={},{}\n", BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(content)), content.len())
}
